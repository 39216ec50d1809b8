"""Image files to pixels in [0, 1] and back.

Reading is the same for every file, clean or attacked. What a viewer would show is what comes out: EXIF
orientation is applied, transparency is laid on white, of an animation the first frame is taken, CMYK and palettes
become RGB, and 16-bit grey is divided by 65535 (16-bit colour keeps its 8 high bits, as Pillow reads no more).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from morgana.files import write_bytes
from morgana.types import Pixels, SpecError, StoreError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")  # none that runs a program
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm", ".avif", ".jp2"))
LARGEST = 50_000_000  # pixels; 600 MB as float32
WORKERS = 4  # images decoded at a time
PART = 32  # images handed on at a time
SLACK = 1e-4  # how far outside [0, 1] a rounding error may lead


def load(path: Path) -> Pixels:
    """The image as (1, 3, H, W) float32 in [0, 1].

    Raises StoreError naming the file, what is wrong and what to do: missing, empty, not an image, cut off, too large.
    """
    path = Path(path)
    check_file(path)
    try:
        levels = decode(path)
    except StoreError:
        raise
    except Exception as error:  # a decoder may raise anything at all on a hostile file
        raise StoreError(f"{path} cannot be decoded: {reason(error)}; replace the file or leave it out") from error
    return torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0).contiguous()


def load_ahead(paths: Sequence[Path]) -> Iterator[list[Pixels]]:
    """The images as `load` gives them, PART at a time; later parts are decoded while the caller works on one.

    Raises what the first that fails raises.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        decoded = pool.map(load, paths)
        while part := list(islice(decoded, PART)):
            yield part


def check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise StoreError(f"{path} is a folder; name an image file")
        if not path.is_file():
            raise StoreError(f"there is no image file {path}; check the path")
        if path.stat().st_size == 0:
            raise StoreError(f"{path} is empty (0 bytes); copy it again from its source")
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the image {str(path)!r}: {error}") from error


def decode(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(H, W, 3) float32 in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise StoreError(f"{path} is not an image of a known format; use {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise StoreError(too_large(path, f"more than {2 * LARGEST:,}")) from None
    with image:
        if image.width * image.height > LARGEST:
            raise StoreError(too_large(path, f"{image.width} × {image.height}"))
        return to_rgb(upright(image), path)


def too_large(path: Path, size: str) -> str:
    return f"{path} has {size} pixels, at most {LARGEST:,} are read; cut it into tiles"


def reason(error: Exception) -> str:
    text = str(error).split("\n")[0] or type(error).__name__
    return f"it is cut off ({text})" if "truncat" in text.lower() or isinstance(error, EOFError) else text


def upright(image: Image) -> Image:
    """The image turned as its EXIF orientation asks; unreadable EXIF data is ignored, as viewers do."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()
    try:
        turn = turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is a small file of its own, broken in as many ways
        turn = None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(H, W, 3) float32 in [0, 1], whatever the mode."""
    from PIL import Image as pil

    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(grey(np.asarray(image), path)[:, :, None], 3, axis=2)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", clear.size, "white"), clear)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


def grey(levels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Grey values of more than 8 bits: integers up to 65535, or floats in [0, 1]."""
    white = 1.0 if levels.dtype.kind == "f" else 65535.0
    low, high = float(levels.min()), float(levels.max())
    if not (low >= 0 and high <= white):  # also true for NaN
        raise StoreError(
            f"{path} holds grey values from {low:g} to {high:g}, which has no agreed white level; "
            "save it with 8 or 16 bits a channel"
        )
    return (levels.astype(np.float64) / white).astype(np.float32)


def save_cover(alpha: torch.Tensor, image: Path) -> None:
    """Write the opacity (1, 1, H, W) of what was drawn over an image, in grey, beside it."""
    save(alpha.expand(-1, 3, -1, -1), cover_path(image))


def cover_path(image: Path) -> Path:
    return image.with_name(f"{image.stem}.cover.png")


def save(pixels: Pixels, path: Path) -> None:
    """Write (1, 3, H, W) pixels as an 8-bit PNG, rounded to the nearest level; whole or not at all.

    Raises SpecError for another shape, NaN or values outside [0, 1], another suffix; StoreError when it cannot be
    written.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise SpecError(f"{path} does not end in .png; images are written as PNG, which loses nothing")
    if pixels.ndim != 4 or pixels.shape[:2] != (1, 3) or not pixels.numel():
        raise SpecError(f"pixels of shape {tuple(pixels.shape)} for {path}; one image is (1, 3, H, W)")
    values = pixels.detach().to("cpu", torch.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -SLACK and high <= 1 + SLACK):  # also true for NaN
        raise SpecError(f"pixels from {low:g} to {high:g} for {path}; they must lie in [0, 1]")
    levels = values[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    made = BytesIO()
    Image.fromarray(levels.numpy()).save(made, "PNG")
    write_bytes(path, made.getvalue())
