from __future__ import annotations

from pathlib import Path

import pytest
from toyworld import ToyWorld

from morgana.retrieval.stages.oracle import Oracle
from morgana.types import Document, Hit, Query, SpecError


def ids(hits: tuple[Hit, ...]) -> list[str]:
    return [hit.document.id for hit in hits]


@pytest.mark.parametrize(
    ("at", "found", "wanted"),
    [
        ("first", ["a", "b", "c"], ["place-0", "a", "b"]),
        ("middle", ["a", "b", "c"], ["a", "place-0", "b"]),
        ("last", ["a", "b", "c"], ["a", "b", "place-0"]),
        ("last", ["place-0", "a", "b"], ["a", "b", "place-0"]),
        ("first", ["a"], ["place-0"]),
        ("none", ["a", "b", "c"], []),
        ("first", [], []),
    ],
)
def test_the_right_article_stands_where_it_was_put(
    tmp_path: Path, at: str, found: list[str], wanted: list[str]
) -> None:
    hits = tuple(Hit(Document(id), 1 - i / 10) for i, id in enumerate(found))
    (made,) = Oracle(ToyWorld(str(tmp_path)), at)([Query("0/who")], [hits])
    assert ids(made) == wanted
    assert [hit.score for hit in made] == [hit.score for hit in hits][: len(made)]


def test_a_query_without_a_right_article_keeps_its_hits(tmp_path: Path) -> None:
    hits = (Hit(Document("a"), 1.0),)
    assert Oracle(ToyWorld(str(tmp_path)))([Query("unknown")], [hits]) == [hits]


def test_an_unknown_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="choose one of none, first, middle, last"):
        Oracle(ToyWorld(str(tmp_path)), "second")
