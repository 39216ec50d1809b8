"""The study of interventions: equal numbers of every kind, and each method beside none at the same places."""

from __future__ import annotations

from collections import Counter

import pytest

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.experiment import Experiment
from morgana.eval.records import Record
from morgana.eval.samples import samples
from morgana.eval.studies import execute, load_study, locate
from morgana.generation.generators.blind import Blind
from morgana.generation.generators.hf import HF
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.spec import parse
from morgana.types import SpecError


def test_each_keeps_so_many_of_every_kind_and_a_larger_one_only_adds():
    world, kinds = Atlas(sites=20, weather="clear"), ("visual", "conflict")
    few, more = (samples(world, 0, None, kinds, each) for each in (2, 3))
    assert Counter(s.kind for s in few) == {"visual": 2, "conflict": 2}
    assert {s.id for s in few} < {s.id for s in more}
    with pytest.raises(SpecError, match="each=0; wanted a whole number"):
        Experiment(world, OpenCLIP("atlas"), each=0)


def test_every_method_is_read_at_the_places_where_none_is():
    found = load_study("interventions", each=5, methods="BAIR();DropLayers(0)", steering="v.safetensors").experiments
    assert len(found) == 1 + 3 * 5
    found, blind = found[:-3], found[-3:]
    assert [e.generator for e in blind] == [Blind(HF("atlas"))] * 3
    assert {e.kinds for e in blind} == {("conflict",)}
    assert (
        [e.stages[0].at for e in found[1:4]]
        == [e.stages[0].at for e in blind]
        == [e.stages[0].at for e in found[4:7]]
        == ["first", "middle", "last"]
    )
    assert all(parse(repr(e)) == e for e in found)
    assert len({(e.k, e.kinds, e.each, e.seed, e.generator.max_new_tokens) for e in found}) == 1


def test_every_default_method_builds_and_what_is_not_run_is_said(tmp_path):
    study = execute(locate("interventions"))
    assert all(parse(name) for name in study.METHODS)
    with pytest.raises(SpecError, match="no finished cells"):
        list(study.tables(load_study("interventions", methods="BAIR()").experiments, tmp_path))


def record(sample, answer):
    return Record(sample, f"site {sample}", "conflict", None, (), (), answer, {})


def test_the_text_preference_ratio_counts_answers_that_image_and_text_disagree_on():
    alone = [record(s, a) for s, a in {"a": "red", "b": "blue", "c": "red", "d": "three"}.items()]
    blind = [[record(s, a) for s, a in {"a": "green", "b": "blue", "c": "green", "d": "four"}.items()]]
    mine = [[record(s, a) for s, a in {"a": "Green.", "b": "blue", "c": "red", "d": "none"}.items()]]
    found = execute(locate("interventions")).preference(alone, blind, mine)
    assert (found.value, found.n) == (0.5, 2)  # b says the same either way, d neither
