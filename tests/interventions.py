"""Every intervention at work on a tiny model, and at the settings that change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morgana.spec import registry


def build(name: str, *args: Any, **named: Any) -> Any:
    return registry()[name](*args, **named)


def at_work(vectors: Path) -> dict[str, Any]:
    """Settings that act on three layers and sixteen visual tokens."""
    made = [
        build("BAIR"),
        build("MADRAG"),
        build("PositionScaling", first=0),
        build("VAR", tau=1.5, mass=0.0, rho=0.9, first=0, stop=None),
        build("GIFT", source=0, first=1, stop=None),
        build("AIF"),
        build("CMAI"),
        build("ModalityMutual"),
        build("NAAViT"),
        build("NeighbourAware", 1, width=4),
        build("DropHeads"),
        build("DropLayers", 1),
        build("DebiasedAttention"),
        build("FlexAC", str(vectors), 0.5, 0, None),
        build("VisualContrast", beta=0.0),
        build("ClinicalContrast", (9, 12), (2.0, -1.0), beta=0.0),
        build("InLayers", build("BAIR"), 1, 2),
        build("InHeads", build("NAAViT"), (0, 3)),
        build("Scaled", build("CMAI"), 0.5),
    ]
    return {type(part).__name__: part for part in made}


def at_rest(vectors: Path) -> dict[str, Any]:
    made = [
        build("BAIR", 0.0, 0.0),
        build("MADRAG", 0.0, 1.0),
        build("PositionScaling", 1.0, 1.0, first=0),
        build("VAR", keep=1.0, first=0, stop=None),
        build("GIFT", alpha=0.0, source=0, first=1, stop=None),
        build("AIF", 0.0),
        build("CMAI", 0.0),
        build("NeighbourAware", 99, width=4),
        build("DropHeads", 0.0),
        build("DebiasedAttention", 1.0),
        build("FlexAC", str(vectors), 0.0, 0, None),
        build("VisualContrast", 0.0),
        build("ClinicalContrast"),
        build("InHeads", build("DropLayers", 0), ()),
        build("Scaled", build("ModalityMutual"), 0.0),
        build("Scaled", build("NAAViT"), 0.0),
        build("Scaled", build("DropLayers", 0), 0.0),
        build("InLayers", build("BAIR", 0.0, 0.0), 1),
    ]
    return {repr(part).replace(str(vectors), "…"): part for part in made}
