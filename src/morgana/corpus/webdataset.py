"""WebDataset tars as a corpus, read as a stream."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from morgana.corpus._kept import LARGEST, cache, keep
from morgana.corpus._stream import attempt, sound
from morgana.corpus.images import SUFFIXES
from morgana.files import json_object
from morgana.spec import part
from morgana.types import Document, Query, StoreError

CAPTIONS = (".txt", ".caption")


@part
class WebDataset:
    """Members of one stem that follow each other in a tar are a document: its image, caption (.txt) and .json.

    `root` is a tar (also .tar.gz) or a folder of them, read in order of name. The id is the stem with its folders. Of
    the JSON, `caption` or `text` is the text where there is no .txt, and the rest metadata. Images are unpacked below
    MORGANA_CACHE under names of our own; nothing else is written. It asks no queries. StoreErrors name tar and member.
    """

    root: str

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
        """Documents one by one; one is in memory."""
        for path in self._files:
            yield from self._tar(path)

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        root = Path(self.root)
        found = (root,) if root.is_file() else tuple(sorted(p for p in root.rglob("*.tar*") if p.is_file()))
        if not found:
            raise StoreError(f"there is no tar at {root}; name a tar, or a folder that holds some")
        return found

    def _tar(self, path: Path) -> Iterator[Document]:
        stem, parts = "", dict[str, bytes | None]()
        try:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    name, suffix = split(member.name)
                    if not member.isreg() or suffix not in (*SUFFIXES, *CAPTIONS, ".json"):
                        continue
                    if name != stem and parts:
                        yield attempt(f"{path}:{stem}", self._read, stem, parts, path)
                        parts = {}
                    stem = name
                    parts[suffix] = content(tar, member)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise StoreError(f"cannot read {path}: {str(error)[:200]}; copy it again from its source") from error
        if parts:
            yield attempt(f"{path}:{stem}", self._read, stem, parts, path)

    def _read(self, stem: str, parts: dict[str, bytes | None], path: Path) -> Document:
        if large := [suffix for suffix, data in parts.items() if data is None]:
            raise StoreError(f"{path}:{stem}{large[0]} has more than {LARGEST} bytes; leave it out")
        return self._document(stem, {suffix: data for suffix, data in parts.items() if data is not None}, path)

    def _document(self, stem: str, parts: dict[str, bytes], path: Path) -> Document:
        place = f"{path}:{stem}"
        about: dict[str, Any] = json_object(parts[".json"], f"{place}.json") if ".json" in parts else {}
        caption = next((parts[s] for s in CAPTIONS if s in parts), None)
        try:
            text = caption.decode("utf-8-sig").strip() if caption is not None else ""
        except UnicodeDecodeError as error:
            raise StoreError(f"{place}: its caption is not UTF-8: {error}") from None
        for key in ("caption", "text"):
            text = text or (about.pop(key) if isinstance(about.get(key), str) else "")
        metadata = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in about.items()}
        suffix = next((s for s in parts if s in SUFFIXES), None)
        image = keep(cache(str(path.resolve())), parts[suffix], suffix, place) if suffix else None
        return Document(stem, text, image, MappingProxyType(metadata))


def split(name: str) -> tuple[str, str]:
    """Stem with its folders, and suffix; names may be anything, as nothing is written under them."""
    path = PurePosixPath(name.lower())
    suffix = path.suffix
    return name[: len(name) - len(suffix)] if suffix else name, suffix


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    """A member's bytes; None if there are too many of them. ReadError where the tar ends too soon."""
    if member.size > LARGEST:
        return None
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return data
