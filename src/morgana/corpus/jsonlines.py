"""BEIR's folder of JSON lines, with images; FlashRAG's `{"id", "contents"}` documents are read as well."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from morgana.corpus._stream import attempt
from morgana.files import inside, json_lines, json_object, lines, storing, unfit, write_bytes, writing
from morgana.spec import nearest, part
from morgana.types import Corpus, Document, Query, StoreError

SOME = 1000  # known ids that an error searches for the nearest one


@part
class JSONLines:
    """`corpus.jsonl`, and where they exist `queries.jsonl` and `qrels/SPLIT.tsv`, in the folder `root`.

    A line is `{"_id", "title", "text", "image", "metadata"}`; images are relative to `root` and stay below it. A
    title is kept as `metadata["title"]` and put before the text, as FlashRAG writes it. Errors are StoreErrors that
    name file and line.
    """

    root: str
    split: str = "test"

    def documents(self) -> tuple[Document, ...]:
        return self._documents

    def stream(self) -> Iterator[Document]:
        """Documents one by one; a line that cannot be read is given as spoiled."""
        path, place = self._folder / "corpus.jsonl", ""
        for place, line in lines(path):
            yield attempt(place, self._read, line, place)
        if not place:
            raise empty(path)

    def queries(self) -> tuple[Query, ...]:
        return self._queries

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return self._qrels

    @cached_property
    def _folder(self) -> Path:
        folder = Path(self.root)
        if not folder.is_dir():
            raise StoreError(f"there is no corpus folder {folder}; it should hold corpus.jsonl")
        if not (folder / "corpus.jsonl").is_file():
            raise StoreError(
                f"{folder} holds no corpus.jsonl; write one JSON object a document: {{'_id', 'text', 'image'}}"
            )
        return folder

    @cached_property
    def _documents(self) -> tuple[Document, ...]:
        path = self._folder / "corpus.jsonl"
        found = tuple(self._document(row, place) for place, row in unique(path))
        if not found:
            raise empty(path)
        return found

    def _read(self, line: bytes, place: str) -> Document:
        return self._document(json_object(line, place), place)

    def _document(self, row: dict[str, Any], place: str) -> Document:
        text = string(row, "text" if "text" in row else "contents", place)
        title = string(row, "title", place)
        metadata = row.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise StoreError(f"{place}: metadata is a {type(metadata).__name__}; write an object")
        kept = {str(k): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in metadata.items()}
        if title:
            kept["title"] = title
            text = f"{title}\n{text}" if text else title
        return Document(identity(row, place), text, self._image(row, place), MappingProxyType(kept))

    def _image(self, row: dict[str, Any], place: str) -> Path | None:
        return inside(self._folder, row["image"], place) if row.get("image") is not None else None

    @cached_property
    def _queries(self) -> tuple[Query, ...]:
        path = self._folder / "queries.jsonl"
        return tuple(self._query(row, place) for place, row in unique(path)) if path.exists() else ()

    def _query(self, row: dict[str, Any], place: str) -> Query:
        text = string(row, "text", place)
        if why := unfit(text):
            raise StoreError(f"{place}: {why}")
        return Query(identity(row, place), text, self._image(row, place))

    @cached_property
    def _qrels(self) -> Mapping[str, Mapping[str, int]]:
        path = self._folder / "qrels" / f"{self.split}.tsv"
        if not path.exists():
            return MappingProxyType({})
        documents, queries = ({d.id for d in self._documents}, {q.id for q in self._queries})
        judged: dict[str, dict[str, int]] = {}
        for place, (query, document, score) in judgements(path):
            if query not in queries:
                raise StoreError(f"{place}: no query has the id {query!r}{closest(query, queries)}; see queries.jsonl")
            if document not in documents:
                raise StoreError(
                    f"{place}: no document has the id {document!r}{closest(document, documents)}; see corpus.jsonl"
                )
            if score > 0:
                judged.setdefault(query, {})[document] = score
        return MappingProxyType(judged)


def empty(path: Path) -> StoreError:
    return StoreError(f"{path} is empty; write one JSON object a document")


def unique(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of the file; StoreError at an id that came before."""
    seen: dict[str, str] = {}
    for place, row in json_lines(path):
        id = identity(row, place)
        if id in seen:
            raise StoreError(f"{place}: the id {id!r} is taken by {seen[id]}; give each line an id of its own")
        seen[id] = place
        yield place, row


def identity(row: dict[str, Any], place: str) -> str:
    id = row.get("_id", row.get("id"))
    if isinstance(id, int) and not isinstance(id, bool):
        return str(id)
    if not isinstance(id, str) or not id or unfit(id) or any(c in id for c in "\t\r\n"):
        raise StoreError(f"{place}: the id is {id!r}; give each line an '_id' of printable text")
    return id


def string(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise StoreError(f"{place}: {key!r} is a {type(value).__name__}; write a string")
    return value or ""


def judgements(path: Path) -> Iterator[tuple[str, tuple[str, str, int]]]:
    """`query-id corpus-id score` lines, tab-separated, the header left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r").split("\t")
        if not line.strip() or (number == 1 and fields[0] == "query-id"):
            continue
        try:
            query, document, score = fields
            yield f"{path}:{number}", (query, document, int(score))
        except ValueError:
            raise StoreError(
                f"{path}:{number} is {line[:80]!r}; write query-id, corpus-id and a whole score, tab-separated"
            ) from None


def closest(id: str, known: set[str]) -> str:
    return nearest(id, sorted(known)[:SOME])


def write_jsonlines(corpus: Corpus, root: Path) -> JSONLines:
    """Write a corpus as a folder that `JSONLines` reads back equal, its images copied into `images/` byte for byte."""
    root = Path(root)
    copied: dict[Path, str] = {}

    def row(item: Document | Query) -> dict[str, Any]:
        made: dict[str, Any] = {"_id": item.id}
        metadata = dict(item.metadata) if isinstance(item, Document) else {}
        text, title = item.text, metadata.get("title", "")
        if title and (text == title or text.startswith(title + "\n")):
            made["title"] = metadata.pop("title")
            text = text[len(title) + 1 :]
        made["text"] = text
        if item.image is not None:
            made["image"] = copy(item.image, root, copied)
        return made | ({"metadata": metadata} if metadata else {})

    write_lines(root / "corpus.jsonl", map(row, corpus.documents()))
    write_lines(root / "queries.jsonl", map(row, corpus.queries()))
    lines = [f"{q}\t{d}\t{score}\n" for q, judged in corpus.qrels().items() for d, score in judged.items()]
    write_bytes(root / "qrels" / "test.tsv", ("query-id\tcorpus-id\tscore\n" + "".join(lines)).encode())
    return JSONLines(str(root))


def write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with writing(path) as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False)
            if unfit(line):  # lone surrogates survive as escapes
                line = json.dumps(row)
            file.write(line.encode() + b"\n")


def copy(image: Path, root: Path, copied: dict[Path, str]) -> str:
    """The image's name below `root`, copied there once."""
    source = image.resolve()
    if source not in copied:
        if not source.is_file():
            raise StoreError(f"there is no image file {image} to copy; check the corpus")
        name = f"images/{len(copied):06d}{source.suffix.lower()}"
        with storing(root / name):
            (root / "images").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, root / name)
        copied[source] = name
    return copied[source]
