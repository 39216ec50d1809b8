from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morgana.eval.records import Record, append, load, read_json, write_json
from morgana.types import StoreError

RECORD = Record(
    sample="a",
    cluster="1",
    kind="knowledge",
    image="attacks/x/a.png",
    retrieved=(("d1", 0.1 + 0.2), ("d2", -1.0)),
    refined=(("d1", 0.3),),
    answer="Ça va <b>\n\u2028",
    scores={"retrieved": {"Hit(1)": 1.0}, "answer": {"TokenF1()": 1 / 3}},
    perturbation={"linf": 8 / 255},
)


def test_what_was_appended_is_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    append(path, [RECORD])
    append(path, [replace(RECORD, sample="b", answer=None, image=None)])
    assert load(path) == [RECORD, replace(RECORD, sample="b", answer=None, image=None)]


@given(cut=st.integers(1, 300))
def test_wherever_a_line_is_torn_the_whole_ones_survive(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "records.jsonl"
    append(path, [RECORD, replace(RECORD, sample="b")])
    whole = path.read_bytes()
    path.write_bytes(whole[: -min(cut, len(whole) // 2 - 1)])
    assert load(path) == [RECORD]
    append(path, [replace(RECORD, sample="b")])
    assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, [RECORD])
    path.write_bytes(b'{"sample": 1}\n' + path.read_bytes())
    with pytest.raises(StoreError, match=r"records.jsonl, line 1, is no record .*; delete that line"):
        load(path)


def test_of_two_records_of_a_sample_the_first_counts(tmp_path: Path) -> None:
    append(tmp_path / "r", [RECORD, replace(RECORD, answer="later")])
    assert load(tmp_path / "r") == [RECORD]


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(tmp_path / "r", [replace(RECORD, scores={"answer": {"TokenF1()": float("nan")}})])
    assert load(tmp_path / "r") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("{", "is not JSON"), ('{"schema": 99}', "has schema 99, this version reads 1")],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StoreError, match=message):
        read_json(path, 1)


def test_json_replaces_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"schema": 1, "a": "é"})
    write_json(tmp_path / "x.json", {"schema": 1, "a": "b"})
    assert json.loads((tmp_path / "x.json").read_text()) == {"schema": 1, "a": "b"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
