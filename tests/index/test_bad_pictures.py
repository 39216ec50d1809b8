"""Bombs and corrupt files among many images: every good one is indexed, every bad one is listed with the reason."""

import re
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from building import ENCODER, quietly
from PIL import Image

from morgana.corpus.image_folder import ImageFolder
from morgana.index import verify


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to be enormous."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def encoded(levels, kind):
    made = BytesIO()
    Image.fromarray(levels).save(made, kind)
    return made.getvalue()


def bad(number, whole):
    """One of seven ways in which a file is broken, and what is said of it."""
    middle = len(whole) // 2
    return (
        (b"", "is empty"),
        (whole[:middle], "cannot be decoded|is not an image"),
        (whole[:5], "is not an image"),
        (b"<html>not found</html>", "is not an image"),
        (bomb(20_000, 20_000), "has .* pixels, at most 50,000,000 are read"),
        (bomb(2**31 - 1, 2**31 - 1), "pixels, at most|cannot be decoded"),
        (whole[:8] + bytes(b ^ 255 for b in whole[8:]), "cannot be decoded|is not an image"),
    )[number % 7]


@pytest.mark.parametrize("count", [1_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_every_good_image_is_indexed_and_every_bad_one_listed(tmp_path, count):
    draw, wrong = np.random.default_rng(0), {}
    for number in range(count):
        kind = "PNG" if number % 2 else "JPEG"
        whole = encoded(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8), kind)
        name = f"{number % 100:02d}/{number:06d}.{kind.lower()}"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        if number % 50 == 7:  # 2 %
            whole, wrong[name] = bad(number // 50, whole)
        (tmp_path / "images" / name).write_bytes(whole)
    corpus = ImageFolder(str(tmp_path / "images"))
    index = quietly(corpus, ENCODER, tmp_path / "index", embed="image")
    assert len(wrong) == count // 50
    assert {d.id for d in index.stream()} == {d.id for d in corpus.documents()} - set(wrong)
    listed = dict(index.quarantine())
    assert set(listed) == set(wrong)
    for name, pattern in wrong.items():
        assert name in listed[name]
        assert re.search(pattern, listed[name]), listed[name]
    assert verify(index.path) == []
