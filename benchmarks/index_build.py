"""An index of images is built, decoding included, against a bare loop that calls `encode_image` on ready tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from _measure import Result, Setting, batches, fastest, tiles
from PIL import Image

from morgana.index import build
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import Document


def bench(setting: Setting) -> Iterator[Result]:
    encoder = OpenCLIP(setting.encoder)
    assert encoder.fingerprint  # hashing the weights is paid once in a process, whatever is built
    paths = tiles(setting.choose(512, 96))
    yield of_files(setting, encoder, paths, "PNG", 0.90)
    yield of_files(setting, encoder, [as_jpeg(path, setting.folder) for path in paths], "JPEG", 0.95)


def of_files(setting: Setting, encoder: OpenCLIP, paths: list[Path], kind: str, goal: float) -> Result:
    documents = [Document(path.stem, image=path) for path in paths]
    ready = list(batches(paths, 64))

    def ours() -> None:
        build(documents, encoder, setting.folder / "built", embed="image", overwrite=True, progress=False)

    def bare() -> None:
        with torch.no_grad():
            for pixels in ready:
                encoder.encode_image(pixels)

    seconds = fastest(setting.choose(12, 1), ours=ours, bare=bare)
    detail = f"{len(paths) / seconds['ours']:.0f} against {len(paths) / seconds['bare']:.0f} images/s"
    name = f"index build of {kind} files / bare encode_image, throughput"
    return Result(name, seconds["bare"] / seconds["ours"], goal, True, detail)


def as_jpeg(path: Path, folder: Path) -> Path:
    made = folder / f"{path.stem}.jpg"
    with Image.open(path) as image:
        image.convert("RGB").save(made, quality=90)
    return made
