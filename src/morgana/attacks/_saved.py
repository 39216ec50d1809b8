"""What is judged is the saved file: read it again, and refuse one that left the threat."""

from __future__ import annotations

from pathlib import Path

from morgana.corpus.images import load
from morgana.types import Params, Pixels, StoreError, Threat

OUTSIDE = 1e-9  # pixel units: what float64 adds to an exact border


def reread(path: Path, clean: Pixels, threat: Threat, params: Params) -> tuple[Pixels, float]:
    """The file's pixels and how far they lie outside the threat (0 or less: inside); StoreError if they do."""
    saved = load(path).to(clean)
    excess = float(threat.excess(clean, saved, params)[0])
    if not excess <= OUTSIDE:  # also true for NaN
        raise StoreError(f"{path} lies {excess:g} outside {threat!r} after saving; is the clean image an 8-bit file?")
    return saved, excess
