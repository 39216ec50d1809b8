"""Parquet files as a corpus, read a few thousand rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from morgana.corpus._kept import cache, keep
from morgana.corpus._stream import attempt, sound
from morgana.files import inside
from morgana.spec import nearest, part
from morgana.types import Document, Query, SpecError, StoreError

ROWS = 4096  # in memory at a time


@part
class Parquet:
    """Each row of a Parquet file, or of all below the folder `root` in order of name, is a document.

    `id` and `text` name columns; without an id column rows are `FILE:ROW`. `image` names a column of paths relative to
    the file, of bytes, or of Hugging Face's `{"bytes", "path"}`; bytes are unpacked below MORGANA_CACHE. The columns
    left over become metadata. It asks no queries. StoreErrors name file and row; pyarrow is needed.
    """

    root: str
    id: str = "id"
    text: str = "text"
    image: str = "image"

    def documents(self) -> tuple[Document, ...]:
        return self._documents

    @cached_property
    def _documents(self) -> tuple[Document, ...]:
        return sound(self.stream())

    def queries(self) -> tuple[Query, ...]:
        return ()

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return {}

    def stream(self) -> Iterator[Document]:
        """Documents one by one; a few thousand rows are in memory."""
        for path in self._files:
            number = 0
            for batch in self._batches(path):
                for row in batch:
                    yield attempt(f"{path}:{number}", self._document, row, path, number)
                    number += 1

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        root = Path(self.root)
        found = (root,) if root.is_file() else tuple(sorted(root.rglob("*.parquet")))
        if not found:
            raise StoreError(f"there is no Parquet file at {root}; name a file, or a folder that holds some")
        return found

    def _batches(self, path: Path) -> Iterator[list[dict[str, Any]]]:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise SpecError(f"{self!r} needs pyarrow; install it: pip install pyarrow") from None
        try:
            with parquet.ParquetFile(path) as file:
                self._check(file.schema_arrow.names, path)
                for batch in file.iter_batches(ROWS):
                    yield batch.to_pylist()
        except (OSError, arrow.ArrowException) as error:
            raise StoreError(f"cannot read {path}: {str(error)[:200]}; copy it again from its source") from error

    def _check(self, names: list[str], path: Path) -> None:
        if self.text not in names and self.image not in names:
            near = nearest(self.text, names)
            how = f"name one with Parquet({str(path)!r}, text='COLUMN')"
            raise StoreError(
                f"{path} has no column {self.text!r}{near}; its columns are {', '.join(names)[:200]}; {how}"
            )

    def _document(self, row: dict[str, Any], path: Path, number: int) -> Document:
        place = f"{path}:{number}"
        rest = {k: v for k, v in row.items() if k not in (self.id, self.text, self.image) and v is not None}
        metadata = {
            k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=str) for k, v in rest.items()
        }
        text = row.get(self.text)
        if text is not None and not isinstance(text, str):
            raise StoreError(f"{place}: {self.text!r} is a {type(text).__name__}; name a column of strings with text=")
        name = str(row[self.id]) if row.get(self.id) is not None else f"{path.name}:{number}"
        return Document(name, text or "", self._image(row.get(self.image), path, place), MappingProxyType(metadata))

    def _image(self, value: Any, path: Path, place: str) -> Path | None:
        if isinstance(value, dict):
            named = str(value.get("path") or "")
            value, suffix = (value.get("bytes") or named or None), Path(named).suffix.lower()
        else:
            suffix = ""
        if isinstance(value, bytes):
            return keep(cache(str(path.resolve())), value, suffix, place)
        if value is None or isinstance(value, str):
            return inside(path.parent, value, place) if value else None
        raise StoreError(f"{place}: {self.image!r} is a {type(value).__name__}; it should hold a path or bytes")
