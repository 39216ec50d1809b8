"""Small documents to index, and an index's bytes."""

import torch
from fakes import ConvEncoder

from morgana.corpus.images import save
from morgana.index import build
from morgana.types import Document

ENCODER = ConvEncoder(16)


def texts(count):
    return [Document(f"d{n}", f"text number {n}", metadata={"topic": f"t{n % 3}"}) for n in range(count)]


def pictures(folder, count, sizes=((8, 8),)):
    draw = torch.Generator().manual_seed(0)
    for n in range(count):
        save(torch.rand(1, 3, *sizes[n % len(sizes)], generator=draw), folder / f"{n:03d}.png")
    return [Document(f"i{n}", image=folder / f"{n:03d}.png") for n in range(count)]


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def quietly(*args, **options):
    return build(*args, progress=False, **options)
