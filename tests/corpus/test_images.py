import io
import os
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from morgana.corpus.images import LARGEST, PART, load, load_ahead, save
from morgana.types import SpecError, StoreError

RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3  # 6 high, 4 wide, no two pixels alike


def levels(path):
    return (load(path)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def png_of_size(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_images_on_the_8_bit_grid_survive_a_file_exactly(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("grid") / "a.png"
    pixels = torch.from_numpy(grid).permute(2, 0, 1)[None].float() / 255
    save(pixels, path)
    assert torch.equal(load(path), pixels)


def test_pixels_are_rounded_to_the_nearest_level(tmp_path):
    save(torch.full((1, 3, 2, 2), 100.6 / 255), tmp_path / "a.png")
    assert (levels(tmp_path / "a.png") == 101).all()


def test_what_is_loaded_is_one_float_image(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.bmp")
    pixels = load(tmp_path / "a.bmp")
    assert (pixels.shape, pixels.dtype) == ((1, 3, 6, 4), torch.float32)
    assert (levels(tmp_path / "a.bmp") == RAMP).all()


def test_images_that_are_decoded_side_by_side_come_in_order_and_the_first_bad_one_is_named(tmp_path):
    paths = [tmp_path / f"{level}.png" for level in range(PART + 8)]
    for level, path in enumerate(paths):
        save(torch.full((1, 3, 1 + level, 2), level / 255), path)
    parts = [[(pixels.shape[2], round(255 * pixels.max().item())) for pixels in part] for part in load_ahead(paths)]
    assert parts == [[(1 + i, i) for i in range(PART)], [(1 + i, i) for i in range(PART, PART + 8)]]
    paths[3].write_bytes(b"")
    paths[7].unlink()
    with pytest.raises(StoreError, match=r"3\.png is empty"):
        next(load_ahead(paths))


def test_grey_of_16_bits_is_scaled_by_65535(tmp_path):
    grey = np.array([[0, 1, 32768, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        expected = torch.tensor([0, 1 / 65535, 32768 / 65535, 1])
        assert torch.allclose(load(tmp_path / name)[0, :, 0], expected.expand(3, 4), atol=1e-7)


def test_grey_floats_outside_0_and_1_have_no_white(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "good.tif")
    assert load(tmp_path / "good.tif")[0, 0, 0].tolist() == [0, 0.5, 1]
    Image.fromarray(np.array([[0.0, 3000.0]], dtype=np.float32)).save(tmp_path / "bad.tif")
    with pytest.raises(StoreError, match=r"bad\.tif holds grey values from 0 to 3000.*save it with 8 or 16 bits"):
        load(tmp_path / "bad.tif")


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((1, 3, 4), dtype=np.uint8)
    inks[0, 0, 0] = inks[0, 1, 3] = 255  # cyan, black, paper
    Image.frombytes("CMYK", (3, 1), inks.tobytes()).save(tmp_path / "a.tif")
    assert levels(tmp_path / "a.tif")[0].tolist() == [[0, 255, 255], [0, 0, 0], [255, 255, 255]]


def test_palettes_become_rgb(tmp_path):
    two = Image.frombytes("P", (2, 1), bytes([0, 1]))
    two.putpalette([10, 20, 30, 40, 50, 60])
    two.save(tmp_path / "a.png")
    assert levels(tmp_path / "a.png")[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    two.save(tmp_path / "b.png", transparency=bytes([0, 255]))
    assert levels(tmp_path / "b.png")[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_transparency_is_laid_on_white(tmp_path):
    hidden = Image.frombytes("RGBA", (3, 1), bytes([9, 9, 9, 0, 9, 9, 9, 255, 0, 0, 0, 51]))
    hidden.save(tmp_path / "a.png")
    assert levels(tmp_path / "a.png")[0].tolist() == [[255] * 3, [9] * 3, [204] * 3]


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert levels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert (levels(tmp_path / "a.png") == expected).all()
    assert expected.shape[:2] == ((4, 6) if orientation >= 5 else (6, 4))


def jpeg():
    made = io.BytesIO()
    Image.fromarray(np.tile(RAMP, (20, 20, 1))).save(made, "JPEG")
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); copy it again"),
        (jpeg()[:700], r"cannot be decoded: it is cut off.*replace the file"),
        (jpeg()[:20], "cannot be decoded|is not an image"),
        (b"<html>not found</html>", "is not an image of a known format; use PNG, JPEG"),
        (png_of_size(2000, 2), "cannot be decoded"),
        (png_of_size(8000, 8000), r"has 8000 × 8000 pixels, at most 50,000,000 are read; cut it into tiles"),
        (png_of_size(10000, 10000), "at most 50,000,000 are read"),  # where Pillow warns
        (png_of_size(30000, 30000), "at most 50,000,000 are read"),  # where Pillow raises
    ],
    ids=["empty", "cut-off", "cut-short", "html", "too-little", "large", "larger", "bomb"],
)
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_broken_files_are_named_with_what_to_do(tmp_path, content, message, action):
    path = tmp_path / "tile.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(StoreError, match=message) as raised:
            load(path)
    assert str(path) in str(raised.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_never_raises_anything_else(tmp_path_factory, data):
    content = bytearray(jpeg() if data.draw(st.booleans()) else png_of_size(4, 4))
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "a.jpg"
    path.write_bytes(content)
    with suppress(StoreError):  # the one exception that may come
        pixels = load(path)
        assert pixels.numel() <= 3 * LARGEST
        assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"there is no image file .*a\.png; check the path"):
        load(tmp_path / "a.png")
    with pytest.raises(StoreError, match="is a folder; name an image file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StoreError, match="there is no image file"):
        load(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("pixels", "name", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "a.png", r"shape \(2, 3, 4, 4\).*one image is \(1, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 4), "a.png", r"one image is \(1, 3, H, W\)"),
        (torch.full((1, 3, 4, 4), 200.0), "a.png", r"pixels from 200 to 200.*must lie in \[0, 1\]"),
        (torch.full((1, 3, 4, 4), float("nan")), "a.png", r"must lie in \[0, 1\]"),
        (torch.zeros(1, 3, 4, 4), "a.jpg", "does not end in .png"),
    ],
    ids=["batch", "no-pixels", "levels", "nan", "jpeg"],
)
def test_pixels_that_are_no_image_are_not_written(tmp_path, pixels, name, message):
    with pytest.raises(SpecError, match=message):
        save(pixels, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_space_left_says_so_and_keeps_the_old_file(tmp_path, little_space):
    path = tmp_path / "a.png"
    save(torch.zeros(1, 3, 2, 2), path)
    before = path.read_bytes()
    with little_space(1000), pytest.raises(StoreError, match=r"cannot write .*a\.png: File too large; free some space"):
        save(torch.rand(1, 3, 64, 64), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
