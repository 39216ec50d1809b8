"""Building an index of images, against a bare loop that only calls `encode_image` on ready tensors."""

from __future__ import annotations

import torch
from _measure import Result, Setting, batches, fastest, tiles

from morgana.index import build
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import Document


def bench(setting: Setting) -> list[Result]:
    encoder = OpenCLIP(setting.encoder)
    paths = tiles(setting.choose(512, 96))
    documents = [Document(path.stem, image=path) for path in paths]
    ready = list(batches(paths, 64))
    assert encoder.fingerprint  # hashing the weights is paid once in a process, whatever is built

    def ours() -> None:
        build(documents, encoder, setting.folder / "built", embed="image", overwrite=True, progress=False)

    def bare() -> None:
        with torch.no_grad():
            for pixels in ready:
                encoder.encode_image(pixels)

    seconds = fastest(setting.choose(12, 1), ours=ours, bare=bare)
    detail = f"{len(paths) / seconds['ours']:.0f} against {len(paths) / seconds['bare']:.0f} images/s"
    return [
        Result("index build / bare encode_image, throughput", seconds["bare"] / seconds["ours"], 0.90, True, detail)
    ]
