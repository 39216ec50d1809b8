"""A folder of images, with captions beside them by stem, as clip-retrieval reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from morgana.corpus._stream import attempt, sound
from morgana.corpus.images import SUFFIXES
from morgana.files import inside
from morgana.spec import part
from morgana.types import Document, Query, StoreError

CAPTIONS = (".txt", ".caption")  # the first that exists is read


@part
class ImageFolder:
    """Every image below `root`, in order of path, its id the path below `root`; `a/b.txt` is the text of `a/b.jpg`.

    It asks no queries. StoreError for a missing folder, one without images, links that lead out of it, and captions
    that are not UTF-8.
    """

    root: str

    def documents(self) -> tuple[Document, ...]:
        return self._documents

    def stream(self) -> Iterator[Document]:
        """Documents one by one; one that cannot be read is given as spoiled."""
        root = Path(self.root)
        for name in self._names:
            yield attempt(name, document, root, name)

    def queries(self) -> tuple[Query, ...]:
        return ()

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return {}

    @cached_property
    def _documents(self) -> tuple[Document, ...]:
        return sound(self.stream())

    @cached_property
    def _names(self) -> tuple[str, ...]:
        root = Path(self.root)
        if not root.is_dir():
            raise StoreError(f"there is no image folder {root}; check the path")
        names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not names:
            wanted = f"files ending in {', '.join(sorted(SUFFIXES))}, or corpus.jsonl, Parquet files or tars"
            raise StoreError(f"{root} holds no images; it should hold {wanted}")
        return tuple(names)


def document(root: Path, name: str) -> Document:
    path = inside(root, name, str(root))
    return Document(name, caption(path), path)


def caption(image: Path) -> str:
    """The text beside an image; empty if there is none."""
    for suffix in CAPTIONS:
        path = image.with_suffix(suffix)
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise StoreError(f"cannot read the caption {path}: {error}; save it as UTF-8") from None
    return ""
