"""What happened to each sample, as JSON lines that only ever grow.

A line is written whole, in one append, and forced to disk. A process that dies leaves at most one torn last line, which
reading ignores and the next append removes; a broken line anywhere else is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from morgana.files import storing
from morgana.types import Hits, StoreError

Ranking: TypeAlias = tuple[tuple[str, float], ...]  # document ids with scores, best first
Scores: TypeAlias = dict[str, dict[str, float]]  # stage -> metric -> value
STAGES = ("retrieved", "refined", "answer")


@dataclass(frozen=True)
class Record:
    """One sample in one experiment: what was retrieved, refined and answered, and how each was scored."""

    sample: str
    cluster: str  # samples of one cluster are not independent: they share a tile or a site
    kind: str
    image: str | None  # the PNG that was judged, relative to the run folder; None: the corpus's own image
    retrieved: Ranking
    refined: Ranking
    answer: str | None
    scores: Scores
    perturbation: dict[str, float] = field(default_factory=dict)  # of the judged image against the clean one

    def value(self, stage: str, metric: str) -> float | None:
        """None where the metric does not apply."""
        return self.scores.get(stage, {}).get(metric)


def ranking(hits: Hits) -> Ranking:
    return tuple((hit.document.id, float(hit.score)) for hit in hits)


def append(path: Path, records: Iterable[Record]) -> None:
    """Add whole lines at the end of the file, and force them to disk; a torn last line goes first."""
    lines = "".join(json.dumps(asdict(r), ensure_ascii=False, allow_nan=False) + "\n" for r in records).encode()
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with storing(path), path.open("ab+") as file:
        mend(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def mend(file: Any) -> None:
    """Cut what stands after the last line end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    whole = file.read(size).rfind(b"\n") + 1
    if whole < size:
        file.truncate(whole)
    file.seek(0, os.SEEK_END)


def load(path: Path) -> list[Record]:
    """The records of a file, first one of each sample; empty if there is no file. StoreError names a broken line."""
    if not path.exists():
        return []
    found: dict[str, Record] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end was never finished
        record = decode(line, path, number)
        found.setdefault(record.sample, record)
    return list(found.values())


def decode(line: bytes, path: Path, number: int) -> Record:
    try:
        raw: Mapping[str, Any] = json.loads(line)
        pairs = {name: tuple((str(i), float(s)) for i, s in raw[name]) for name in ("retrieved", "refined")}
        return Record(**{**raw, **pairs})
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path}, line {number}, is no record ({error}); delete that line to have the sample judged again"
        ) from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: readers see the old one or the new one."""
    draft = path.with_name(path.name + ".tmp")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(draft, path)


def read_json(path: Path, schema: int) -> dict[str, Any]:
    """A JSON file of this schema version; StoreError says what is wrong with another."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"{path} does not exist; is {path.parent} the folder of a finished `morgana eval … --out`?"
        ) from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error}); run `morgana eval` with --resume to write it again") from None
    if value.get("schema") != schema:
        raise StoreError(
            f"{path} has schema {value.get('schema')!r}, this version reads {schema}; run `morgana eval` again"
        )
    return value
