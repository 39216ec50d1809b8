"""TREC run and qrels files, for trec_eval and every tool that reads its formats.

Tie policy. Within Morgana the order of a list is its ranking, and FAISS breaks ties by order of insertion.
trec_eval ignores the rank column, rounds scores to float32 and breaks ties by document id, descending. So
`write_run` lowers a score that does not fall below the one before it to the next float32: every tool then
sees the order that we judged. `read_run` and `trec_order` rank as trec_eval does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from morgana.files import write_bytes
from morgana.types import SpecError, StoreError

Ranking: TypeAlias = Sequence[tuple[str, float]]  # document ids with scores, best first
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]  # query id -> {document id: grade}
Number = TypeVar("Number", int, float)
LARGEST = float(np.finfo(np.float32).max)


def write_run(path: Path, run: Mapping[str, Ranking], tag: str = "morgana") -> None:
    """Lines of `qid Q0 docid rank score tag`, scores falling in float32. SpecError for an id with a space."""
    lines = (
        f"{field(query)} Q0 {field(id)} {rank} {score} {field(tag)}"
        for query, ranking in run.items()
        for rank, (id, score) in enumerate(falling(ranking), 1)
    )
    save(path, lines)


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """query id -> (document id, score), ranked as trec_eval ranks. StoreError names a broken line."""
    run: dict[str, list[tuple[str, float]]] = {}
    for place, fields in rows(path, 6, "qid Q0 docid rank score tag"):
        run.setdefault(fields[0], []).append((fields[2], number(float, fields[4], place)))
    return {query: trec_order(ranking) for query, ranking in run.items()}


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Lines of `qid 0 docid grade`."""
    save(
        path,
        (f"{field(query)} 0 {field(id)} {grade}" for query, found in qrels.items() for id, grade in found.items()),
    )


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """query id -> {document id: grade}. StoreError names a broken line."""
    qrels: dict[str, dict[str, int]] = {}
    for place, fields in rows(path, 4, "qid 0 docid grade"):
        qrels.setdefault(fields[0], {})[fields[2]] = number(int, fields[3], place)
    return qrels


def trec_order(ranking: Ranking) -> list[tuple[str, float]]:
    """By score as float32, best first; ties by document id, descending, byte by byte."""
    return sorted(ranking, key=lambda pair: (float(np.float32(pair[1])), pair[0].encode()), reverse=True)


def falling(ranking: Ranking) -> Iterator[tuple[str, str]]:
    """The same order with float32 scores that fall from rank to rank, written in full."""
    last = np.float32(np.inf)
    for id, score in ranking:
        if not abs(score) <= LARGEST:
            raise SpecError(f"the document {id!r} has the score {score}; a run holds finite float32 scores")
        last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
        yield id, str(last)


def rows(path: Path, width: int, wanted: str) -> Iterator[tuple[str, list[str]]]:
    """The place (FILE:LINE) and the fields of each line that is not empty."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read the TREC file {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if fields and len(fields) != width:
            raise StoreError(f"{path}:{number} has {len(fields)} fields; wanted {width}: {wanted}")
        if fields:
            yield f"{path}:{number}", fields


def number(kind: type[Number], text: str, place: str) -> Number:
    try:
        value = kind(text)
    except ValueError:
        raise StoreError(f"{place}: {text!r} is no {kind.__name__}") from None
    if not abs(value) <= LARGEST:
        raise StoreError(f"{place}: {text} is not a finite float32")
    return value


def field(text: str) -> str:
    if text.split() != [text]:
        raise SpecError(f"the id {text!r} is empty or holds white space, which separates the fields of a TREC file")
    return text


def save(path: Path, lines: Iterable[str]) -> None:
    write_bytes(path, "".join(line + "\n" for line in lines).encode())
