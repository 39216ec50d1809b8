"""Gives a finished segment to an index folder: a new folder, or in place of the index that was there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morgana.files import locked, storing
from morgana.index import _disk, manifest
from morgana.index.manifest import Entry, Manifest
from morgana.index.words import SCHEME
from morgana.types import Encoder, StoreError

FORMER = ("documents.sqlite", "vectors.npy", "vectors.faiss", "quarantine.jsonl")  # of format 1, beside the manifest
FOLDERS = ("segments", "tombstones")


@dataclass(frozen=True)
class About:
    """What a manifest says of an index beyond its segments."""

    kind: str
    encoder: Encoder
    embed: str
    corpus: str
    sparse: bool = False
    twice: str = ""

    def manifest(self, entry: Entry, measured: Mapping[str, Any], generation: int) -> Manifest:
        return Manifest(
            kind=self.kind,
            encoder=repr(self.encoder),
            fingerprint=self.encoder.fingerprint,
            image_size=self.encoder.image_size,
            dimension=self.encoder.dimension,
            metric=manifest.METRIC,
            embed=self.embed,
            corpus=self.corpus,
            documents=entry.documents,
            vectors=entry.vectors,
            quarantined=entry.quarantined,
            generation=generation,
            segments=(entry,),
            measured=measured,
            sparse=SCHEME if self.sparse else "",
            twice=self.twice,
        )


def check_place(path: Path, overwrite: bool) -> None:
    """StoreError if an index may not be written at `path`."""
    if (path / manifest.NAME).is_file():
        if not overwrite:
            again = "replace it with --overwrite (overwrite=True in Python)"
            raise StoreError(f"{path} holds an index; {again}, or choose another folder")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path} is in the way and is not an index; choose another folder")


def publish(folder: Path, path: Path, about: About, entry: Entry, measured: Mapping[str, Any]) -> None:
    """Make the segment in `folder` the whole of the index `path`; readers of the old one keep it."""
    if not (path / manifest.NAME).is_file():
        about.manifest(entry, measured, 1).commit(folder)
        _disk.rename(folder, path)
        return
    with locked(path):
        clean(path, current(path))
        generation = next_generation(path)
        name = f"{generation:06d}"
        target = _disk.plain(path, f"segments/{name}", str(path))
        with storing(path):
            target.parent.mkdir(exist_ok=True)
        _disk.rename(folder / "segments" / entry.name, target)
        made = about.manifest(replace(entry, name=name), measured, generation)
        made.commit(path)
        clean(path, made)


def current(path: Path) -> Manifest | None:
    """The manifest; None if it cannot be read, when nothing is known of what belongs to the index."""
    try:
        return manifest.read(path)
    except StoreError:
        return None


def next_generation(path: Path) -> int:
    """One that no segment of this folder has used, readable manifest or not."""
    found = current(path)
    used = [int(p.name) for p in (path / "segments").glob("*") if manifest.SEGMENT.fullmatch(p.name)]
    return max([found.generation if found else 0, *used]) + 1


def clean(path: Path, found: Manifest | None) -> None:
    """Remove what no manifest names: the work of a writer that was killed, and what a change has replaced."""
    if found is None:
        return
    for name in FOLDERS:
        folder = path / name
        if folder.is_symlink():
            raise StoreError(
                f"{folder} is a link; an index holds none: put the folder itself there, or rebuild the index"
            )
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in found.parts:
                _disk.remove(entry)
    for name in (*FORMER, f".{manifest.NAME}.part"):
        (path / name).unlink(missing_ok=True)
