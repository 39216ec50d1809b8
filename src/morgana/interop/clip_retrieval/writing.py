"""From an index to clip-retrieval's folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morgana.files import locked, storing, writing
from morgana.index import Index, _disk
from morgana.index.kinds._base import library, store
from morgana.index.segment import Segment
from morgana.index.vectors import Half
from morgana.interop.clip_retrieval.reading import CAPTION, FOLDERS, ID, IMAGE
from morgana.types import Document, SpecError, StoreError

PART = 100_000  # rows in a file, which are in memory at a time
INDEXES = {"image": "image.index", "text": "text.index"}


def write(index: Index, folder: Path | str, *, source: str | None = None, part: int = PART) -> int:
    """Write every document that can be found, in order of insertion, as the new folder `folder`: how many.

    Vectors stay float16, as they are stored, and `image.index` or `text.index` is a FAISS index of the same (16-bit
    scalar quantizer, inner product). Each row has every vector that is written: where some documents were embedded by
    text and others by image, a SpecError asks for a `source`, and only those that have it are written. Metadata become
    columns, values of mixed types JSON; `image_path`, `caption` and `id` are reserved. The folder appears when it is
    whole; StoreError if it is there already.
    """
    folder = Path(folder)
    chosen = sources(index, source)
    if part < 1:
        raise SpecError(f"part={part}; a file has at least 1 row")
    if folder.exists():
        raise StoreError(f"{folder} is in the way; choose another folder")
    staging = folder.parent / f".{folder.name}.part"
    with locked(staging, "is writing to"):
        try:
            return fill(index, staging, folder, chosen, part)
        finally:
            _disk.remove(staging)


def fill(index: Index, staging: Path, folder: Path, chosen: Sequence[str], part: int) -> int:
    for old in staging.iterdir():
        _disk.remove(old)
    files = {name: compact(index.manifest.dimension) for name in chosen}
    total = 0
    for number, rows in enumerate(parts(index, chosen, part)):
        total += len(rows.documents)
        for name in chosen:
            with writing(staging / FOLDERS[name] / f"{FOLDERS[name]}_{number}.npy") as file:
                np.save(file, rows.vectors[name])
            files[name].add(rows.vectors[name].astype(np.float32))
        metadata(rows.documents, staging / "metadata" / f"metadata_{number}.parquet")
    if not total:
        raise StoreError(f"{index.path} holds nothing to write; add documents first")
    for name, made in files.items():
        store(made, staging / INDEXES[name])
    with storing(folder):
        staging.rename(folder)
    return total


def compact(dimension: int) -> Any:
    """FAISS's float16 index, empty: it holds the stored rows bit for bit."""
    faiss = library()
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def sources(index: Index, wanted: str | None) -> tuple[str, ...]:
    """Which vectors to write; SpecError if documents differ in what they have and none was chosen."""
    if wanted is not None:
        if wanted not in FOLDERS:
            raise SpecError(f"source={wanted!r}; choose image or text")
        return (wanted,)
    found = {name: sum(int((rows >= 0).sum()) for rows in places(index, name)) for name in FOLDERS}
    there = tuple(name for name, many in found.items() if many)
    if any(found[name] != index.manifest.documents for name in there):
        counts = " and ".join(f"{many} by {name}" for name, many in found.items())
        raise SpecError(f"{index.path} embeds {counts}; choose source='image' or source='text' to write those alone")
    return there


def places(index: Index, name: str) -> Iterator[NDArray[np.int64]]:
    """For each segment, the row of each document's vector of this source, -1 if it has none or is deleted."""
    for segment in index.segments:
        yield rows_of(segment, name)


def rows_of(segment: Segment, name: str) -> NDArray[np.int64]:
    found = np.full(segment.about.documents, -1, dtype=np.int64)
    mine = np.flatnonzero(np.array(segment.sources) == name)
    found[segment.owners[mine]] = mine
    found[~segment.alive()] = -1
    return found


@dataclass
class Part:
    """Some documents and their vectors, row by row."""

    documents: list[Document]
    vectors: dict[str, Half]


def parts(index: Index, chosen: Sequence[str], size: int) -> Iterator[Part]:
    """Pieces of `size` rows, the last of each segment smaller."""
    for segment in index.segments:
        rows = {name: rows_of(segment, name) for name in chosen}
        positions = np.flatnonzero(np.all([found >= 0 for found in rows.values()], axis=0))
        for start in range(0, len(positions), size):
            some = positions[start : start + size]
            documents = segment.shelf.documents(map(int, some))
            vectors = {name: np.asarray(segment.vectors[found[some]]) for name, found in rows.items()}
            yield Part([documents[int(position)] for position in some], vectors)


def metadata(documents: Sequence[Document], path: Path) -> None:
    """The documents of one part as Parquet."""
    import pyarrow
    from pyarrow import parquet

    keys = sorted({key for document in documents for key in document.metadata} - {IMAGE, CAPTION, ID})
    columns: dict[str, Any] = {
        IMAGE: [image_path(document) for document in documents],
        CAPTION: [document.text for document in documents],
        ID: [document.id for document in documents],
    }
    columns |= {key: column([document.metadata.get(key) for document in documents]) for key in keys}
    with writing(path) as file:
        parquet.write_table(pyarrow.table(columns), file)


def image_path(document: Document) -> str | None:
    """The image's path, or the one that came with a folder whose images were not named."""
    return str(document.image) if document.image is not None else document.metadata.get(IMAGE)


def column(values: list[Any]) -> Any:
    """The values as Arrow takes them: as they are where they have one type, else as JSON."""
    import pyarrow

    with suppress(pyarrow.ArrowException):
        if len({type(value) for value in values if value is not None}) <= 1:
            return pyarrow.array(values)
    return pyarrow.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])
