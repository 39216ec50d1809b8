"""From clip-retrieval's folders to an index; their own `image.index` is not read, as Morgana searches the vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morgana.files import inside
from morgana.index import Index, from_vectors
from morgana.index.kinds._base import Kind
from morgana.types import Document, Encoder, SpecError, StoreError

FOLDERS = {"image": "img_emb", "text": "text_emb"}
IMAGE, CAPTION, ID = "image_path", "caption", "id"  # columns of the metadata; the last is Morgana's own
ROWS = 4096  # of metadata in memory at a time


def read(
    folder: Path | str,
    encoder: Encoder,
    path: Path | str,
    *,
    embed: str = "image",
    images: Path | str | None = None,
    kind: Kind | None = None,
    overwrite: bool = False,
) -> Index:
    """Write the index `path` from the folder's vectors of `embed` (image or text) and its metadata.

    `encoder` is the one that made them. Ids are the column `id`, else the image's path, else `metadata_0:ROW`; captions
    become texts, other columns metadata, and vectors unit length. `images` is the folder below which the image files
    lie; without it documents have none. A few thousand rows are in memory. Raises StoreError naming the file that is
    missing, damaged or of another length, SpecError for another dimension.
    """
    if embed not in FOLDERS:
        raise SpecError(f"embed={embed!r}; choose image or text")
    folder, root = Path(folder), None if images is None else Path(images)
    parts = partitions(folder, embed)
    vectors: Any = Joined(tuple(mapped(rows) for rows, _ in parts))
    documents = (document for _, metadata in parts for document in described(metadata, root))
    return from_vectors(documents, vectors, encoder, path, kind=kind, embed=embed, overwrite=overwrite)


def partitions(folder: Path, embed: str) -> list[tuple[Path, Path]]:
    """The vectors and the metadata of each number, in order of number; StoreError where one lacks the other."""
    name = FOLDERS[embed]
    found = {number(path): path for path in (folder / name).glob(f"{name}_*.npy")}
    if not found:
        raise StoreError(f"{folder} holds no {name}/{name}_0.npy; name a folder that clip-retrieval inference wrote")
    about = {number(path): path for path in (folder / "metadata").glob("metadata_*.parquet")}
    if set(found) != set(about):
        lone = min(set(found) ^ set(about))
        raise StoreError(f"{folder}: part {lone} has vectors in {name} or rows in metadata, not both; copy it again")
    for n, rows in sorted(found.items()):
        if (many := len(mapped(rows))) != (there := count(about[n])):
            raise StoreError(f"{rows} has {many} rows and {about[n]} {there}; they are not of one run")
    return [(found[n], about[n]) for n in sorted(found)]


def number(path: Path) -> int:
    last = path.stem.rpartition("_")[2]
    if not last.isdecimal():
        raise StoreError(f"{path} does not end in a number, as clip-retrieval's files do; rename or remove it")
    return int(last)


def mapped(path: Path) -> NDArray[np.floating]:
    """Rows that stay in their file; StoreError if it holds no floats, (N, D)."""
    try:
        rows: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path} is not an array: {str(error)[:200]}; copy it again") from error
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise StoreError(f"{path} holds {rows.dtype} of shape {rows.shape}, not rows of floats")
    return rows


@dataclass(frozen=True, eq=False)
class Joined:
    """Arrays one after another as one that is sliced by rows."""

    parts: tuple[NDArray[np.floating], ...]
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return sum(map(len, self.parts)), int(self.parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: slice) -> NDArray[np.floating]:
        start, stop, _ = wanted.indices(len(self))
        found, first = [], 0
        for part in self.parts:
            found.append(part[max(0, start - first) : max(0, stop - first)])
            first += len(part)
        try:
            return np.concatenate(found)
        except ValueError:
            widths = sorted({part.shape[1] for part in self.parts})
            raise StoreError(f"the parts have rows of {widths} dimensions; they are not of one run") from None


def count(path: Path) -> int:
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.ParquetFile(path).metadata.num_rows)
    except (OSError, ArrowException) as error:
        raise StoreError(f"cannot read {path}: {str(error)[:200]}; copy it again") from error


def described(path: Path, root: Path | None) -> Iterator[Document]:
    """The documents of a metadata file."""
    from pyarrow import ArrowException, parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS):
                for columns in batch.to_pylist():
                    yield document(columns, path, row, root)
                    row += 1
    except (OSError, ArrowException) as error:
        raise StoreError(f"cannot read {path}: {str(error)[:200]}; copy it again") from error


def document(columns: dict[str, Any], path: Path, row: int, root: Path | None) -> Document:
    id, text, name = (columns.pop(key, None) for key in (ID, CAPTION, IMAGE))
    place = f"{path.stem}:{row}"
    rest = {key: plain(value) for key, value in columns.items() if value is not None}
    image = None
    if name is not None and root is None:
        rest[IMAGE] = str(name)
    elif name is not None and root is not None:
        image = inside(root, below(str(name), root), f"{path}:{row}")
    return Document(str(id if id is not None else name or place), str(text or ""), image, rest)


def below(name: str, root: Path) -> str:
    """An absolute path below the root as a relative one; any other as it is."""
    there = Path(name)
    return str(there.relative_to(root.absolute())) if there.is_relative_to(root.absolute()) else name


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
