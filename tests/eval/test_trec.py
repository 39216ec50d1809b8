from __future__ import annotations

from itertools import pairwise

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morgana.eval.trec import falling, read_qrels, read_run, trec_order, write_qrels, write_run
from morgana.types import SpecError, StoreError

ids = st.text(alphabet="abcDÉ-_/.0 1é漢", min_size=1, max_size=6).filter(
    lambda t: len(t.split()) == 1 and t == t.strip()
)
rankings = st.lists(st.tuples(ids, st.floats(-1, 1)), unique_by=lambda pair: pair[0], max_size=12)


def test_the_files_are_those_of_trec(tmp_path):
    write_run(tmp_path / "out" / "run.txt", {"q1": [("d2", 0.5), ("d1", 0.25)]}, tag="dense")
    write_qrels(tmp_path / "out" / "qrels.txt", {"q1": {"d1": 2, "d3": 0}})
    assert (tmp_path / "out" / "run.txt").read_text() == "q1 Q0 d2 1 0.5 dense\nq1 Q0 d1 2 0.25 dense\n"
    assert (tmp_path / "out" / "qrels.txt").read_text() == "q1 0 d1 2\nq1 0 d3 0\n"
    assert read_qrels(tmp_path / "out" / "qrels.txt") == {"q1": {"d1": 2, "d3": 0}}


def test_ir_measures_reads_them_and_agrees(tmp_path):
    write_run(tmp_path / "run.txt", {"q": [("d1", 0.5), ("d9", 0.5), ("d5", 0.7)]})  # our order, whatever the scores
    write_qrels(tmp_path / "qrels.txt", {"q": {"d9": 1}})
    run = ir_measures.read_trec_run(str(tmp_path / "run.txt"))
    qrels = ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt"))
    assert ir_measures.calc_aggregate([ir_measures.RR], qrels, run) == {ir_measures.RR: 0.5}


@given(st.dictionaries(ids, rankings, max_size=3))
def test_any_list_comes_back_in_its_order(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("trec") / "run.txt"
    write_run(path, run)
    found = read_run(path)
    assert {q: [i for i, _ in r] for q, r in found.items()} == {q: [i for i, _ in r] for q, r in run.items() if r}


@given(rankings)
def test_written_scores_fall_and_stay_close(ranking):
    scores = [float(text) for _, text in falling(ranking)]
    assert all(a > b for a, b in pairwise(scores))
    lowest = np.minimum.accumulate([score for _, score in ranking]) if ranking else []
    assert scores == pytest.approx(list(lowest), abs=1e-5)


def test_ties_are_broken_as_trec_eval_does():
    ranking = [("d1", 0.5), ("d10", 0.5), ("d2", 0.5 + 1e-9), ("z", 0.1), ("é", 0.5)]
    assert [i for i, _ in trec_order(ranking)] == ["é", "d2", "d10", "d1", "z"]  # 1e-9 is lost in float32


@pytest.mark.parametrize("bad", ["", "two words", " d", "d\n", "d\u00a0e"])
def test_ids_that_would_break_a_line_are_refused(tmp_path, bad):
    with pytest.raises(SpecError, match="white space"):
        write_run(tmp_path / "run.txt", {"q": [(bad, 1.0)]})
    with pytest.raises(SpecError, match="white space"):
        write_qrels(tmp_path / "qrels.txt", {bad: {"d": 1}})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e300])
def test_scores_that_sort_nowhere_are_refused(tmp_path, score):
    with pytest.raises(SpecError, match="finite float32 scores"):
        write_run(tmp_path / "run.txt", {"q": [("d", score)]})
    assert not (tmp_path / "run.txt").exists()


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_run, "q Q0 d 1 0.5 t\nq Q0 d 0.5\n", ":2 has 4 fields; wanted 6"),
        (read_run, "q Q0 d 1 high t\n", ":1: 'high' is no float"),
        (read_run, "q Q0 d 1 nan t\n", ":1: nan is not a finite float32"),
        (read_run, "q Q0 d 1 1e99 t\n", ":1: 1e99 is not a finite float32"),
        (read_qrels, "q 0 d 1.5\n", ":1: '1.5' is no int"),
        (read_qrels, "q d 1\n", "has 3 fields; wanted 4"),
    ],
)
def test_broken_lines_are_named(tmp_path, read, content, message):
    (tmp_path / "file").write_text(content)
    with pytest.raises(StoreError, match=message):
        read(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot read the TREC file"):
        read(tmp_path / "missing")


def test_vaswanis_judgements_are_read(shared_data):
    qrels = read_qrels(shared_data / "vaswani" / "qrels")
    assert len(qrels) == 93
    assert sum(len(found) for found in qrels.values()) == 2083
