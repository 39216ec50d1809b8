"""Images inside a page: PNG data: URIs, and what changed between two of them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from morgana.corpus.images import load, save
from morgana.types import StoreError

GAINS = (10, 5, 2, 1)  # of the difference image
SEEN = 0.99  # of its values are not to be brightened beyond white


@dataclass(frozen=True)
class Picture:
    caption: str
    alt: str
    data: str  # a data: URI


def uri(path: Path) -> str:
    """A PNG data: URI, whatever the file's format."""
    return encode(path.read_bytes() if path.suffix.lower() == ".png" else recoded(path))


def recoded(path: Path) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(load(path), Path(folder) / "image.png")
        return (Path(folder) / "image.png").read_bytes()


def encode(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def difference(clean: Path, attacked: Path) -> Picture:
    """|attacked − clean|, black where nothing changed, by the largest of GAINS that leaves it readable."""
    from PIL import Image

    first, second = load(clean), load(attacked)
    if first.shape != second.shape:
        raise StoreError(f"{attacked} has another size than {clean}; run `morgana eval` again into an empty folder")
    change = (second - first).abs()[0].permute(1, 2, 0).numpy()
    large = float(np.quantile(change, SEEN))
    gain = next((g for g in GAINS if g * large <= 1), 1)
    made = BytesIO()
    Image.fromarray((change * gain * 255).round().clip(0, 255).astype(np.uint8)).save(made, "PNG")
    return Picture(f"difference × {gain}", "what was changed", encode(made.getvalue()))
