"""A small stand-in for the real data: photographs with a manifest, and cloud maps, in the real folders' layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("Port", "BareLand", "DenseResidential")


def write_maps(folder: Path, count: int = 6) -> Path:
    """`count` maps with a cloud on one side, and one of the detector's noise, 101 × 100 as the real ones."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        ramp = np.linspace(-1, 1, 101)[:, None] + draw.normal(0, 0.3) + draw.normal(0, 0.2, (101, 100))
        levels = 255 / (1 + np.exp(-4 * ramp))
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"map_{number}.png")
    Image.fromarray((draw.random((101, 100)) * 90).astype(np.uint8)).save(folder / "noise.png")
    return folder


def write_aid(folder: Path, dev: int = 6, train: int = 12) -> Path:
    """Plain tiles of three labels, 48 px, captioned; the last tile of each split is hazy."""
    (folder / "images").mkdir(parents=True)
    draw, rows = np.random.default_rng(1), []
    for split, count in (("dev", dev), ("train", train)):
        for number in range(count):
            label = LABELS[number % len(LABELS)]
            levels = 60 * (1 + number % len(LABELS)) + draw.integers(0, 40, (48, 48, 3))
            name = f"images/{split}_{number}.jpg"
            Image.fromarray(levels.astype(np.uint8)).save(folder / name, quality=95)
            captions = [f"a {label.lower()} near road number {number} ."] if number % 2 == 0 or split == "dev" else []
            haze = number == count - 1
            rows.append({"image": name, "label": label, "split": split, "captions": captions, "haze": haze})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
