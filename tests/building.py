"""Small documents to index, and an index's bytes."""

import hashlib
import json

import torch
from fakes import ConvEncoder

from morgana.corpus.images import save
from morgana.index import build
from morgana.index.manifest import checksum, encode
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
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def reseal(folder, **changes):
    """Make all checksums of an index agree with what its files hold now, and change its manifest."""
    content = json.loads((folder / "manifest.json").read_text())
    for entry in content["segments"]:
        segment = folder / "segments" / entry["name"]
        about = json.loads((segment / "segment.json").read_text())
        for name in about["files"]:
            data = (segment / name).read_bytes()
            about["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (segment / "segment.json").write_text(json.dumps(about))
        entry["sha256"] = hashlib.sha256((segment / "segment.json").read_bytes()).hexdigest()
    content |= changes
    content["checksum"] = checksum(content)
    (folder / "manifest.json").write_bytes(encode(content))


def quietly(*args, **options):
    return build(*args, progress=False, **options)
