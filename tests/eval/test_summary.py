from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from toyworld import Eye, Reader, ToyWorld

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.composed import Composed
from morgana.attacks.goals.hide import Hide
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.l2 import L2
from morgana.attacks.threats.linf import Linf
from morgana.defenses.smoothed import Smoothed
from morgana.defenses.smoothguard import SmoothGuard
from morgana.eval.experiment import Experiment
from morgana.eval.labels import axes
from morgana.eval.propagation import cells, propagation
from morgana.eval.records import Record
from morgana.eval.summary import from_json, summarise, to_json
from morgana.eval.suspicion import doubts
from morgana.eval.table import make
from morgana.eval.verdict import verdict
from morgana.types import SpecError

WEATHER = "Topic('weather', k=2)"
CLEAN = Experiment(ToyWorld("nowhere"), Eye(), Reader(), k=2)
CLOUDS = replace(CLEAN, attack=CloudWeb(), member="optimised")
RANDOM = replace(CLEAN, attack=CloudWeb(), member="random")


def records(values: Sequence[float], metric: str = WEATHER, stage: str = "retrieved", a_tile: int = 1) -> list[Record]:
    """One sample a value; `a_tile` samples in a row share a tile."""
    return [
        Record(f"s{i}", f"tile{i // a_tile}", "knowledge", None, (), (), "It is so.", {stage: {metric: float(v)}})
        for i, v in enumerate(values)
    ]


def test_differences_are_paired_with_the_clean_run_sample_by_sample() -> None:
    made = summarise([CLEAN, CLOUDS], {CLEAN.id: records([0, 0, 1, 0]), CLOUDS.id: records([1, 1, 0, 0])[::-1]})
    row = made.cells[1].row("retrieved", WEATHER)
    assert row
    assert row.difference
    assert row.mcnemar
    assert (row.estimate.value, row.estimate.n) == (0.5, 4)
    assert row.difference.value == 0.25
    assert row.difference.low < 0 < row.difference.high
    assert (row.mcnemar.lost, row.mcnemar.won, row.mcnemar.p) == (1, 2, 1.0)
    assert made.cells[1].baseline == CLEAN.id
    assert made.cells[0].baseline is None


def test_what_optimising_adds_to_chance_is_paired_too() -> None:
    values = {CLEAN.id: [0, 0, 0, 0], RANDOM.id: [1, 0, 0, 0], CLOUDS.id: [1, 1, 1, 0]}
    found = {id: records(v) for id, v in values.items()}
    drawn, optimised = (summarise([CLEAN, RANDOM, CLOUDS], found).cells[i].row("retrieved", WEATHER) for i in (1, 2))
    assert drawn
    assert optimised
    assert optimised.gain
    assert (optimised.gain.value, optimised.gain.n) == (0.5, 4)
    assert drawn.gain is None
    alone = summarise([CLEAN, CLOUDS], found).cells[1].row("retrieved", WEATHER)
    assert alone
    assert alone.gain is None


def test_samples_of_one_tile_count_as_one() -> None:
    before, after = [0.0] * 24, [1.0] * 6 + [0.0] * 18
    apart = summarise([CLEAN, CLOUDS], {CLEAN.id: records(before), CLOUDS.id: records(after)})
    shared = summarise([CLEAN, CLOUDS], {CLEAN.id: records(before, a_tile=6), CLOUDS.id: records(after, a_tile=6)})
    wide, narrow = (s.cells[1].row("retrieved", WEATHER) for s in (shared, apart))
    assert wide
    assert narrow
    assert wide.difference
    assert narrow.difference
    assert wide.mcnemar
    assert narrow.mcnemar
    assert wide.difference.value == narrow.difference.value == 0.25
    assert wide.difference.high - wide.difference.low > narrow.difference.high - narrow.difference.low
    assert (narrow.mcnemar.won, wide.mcnemar.won) == (6, 1)


def test_a_cell_survives_json() -> None:
    made = summarise([CLEAN, CLOUDS], {CLEAN.id: records([0, 1, 0]), CLOUDS.id: records([1, 1, 0.5])})
    assert tuple(from_json(json.loads(json.dumps(to_json(c)))) for c in made.cells) == made.cells


def test_every_kind_of_question_has_its_row() -> None:
    mixed = [replace(r, kind="presence" if i % 2 else "knowledge") for i, r in enumerate(records([1, 0, 1, 0]))]
    cell = summarise([CLEAN], {CLEAN.id: mixed}).cells[0]
    rows = {r.kind: r.estimate.value for r in cell.rows if r.metric == WEATHER}
    assert rows == {"": 0.5, "knowledge": 1.0, "presence": 0.0}


def test_the_damage_is_split_exactly() -> None:
    """Typed by hand: four samples on two tiles; retrieval spoils two, the eye one, and one needs both."""
    typed = {"clean": [1, 1, 1, 1], "retrieval": [0, 0, 1, 1], "generation": [1, 1, 0, 1], "both": [0, 0, 0, 0]}
    seen = {name: records(v, "Contains()", "answer", a_tile=2) for name, v in typed.items()}
    split = propagation(seen, "Contains()")
    assert split
    parts = [split.retrieval.value, split.image.value, split.together.value]
    assert parts == [-0.5, -0.25, -0.25]
    assert split.total.value == sum(parts) == -1
    assert (split.retrieval.low, split.retrieval.high) == (-1, 0)  # one tile of two: all or nothing
    assert propagation({**seen, "both": []}, "Contains()") is None


def test_propagation_needs_an_attacked_query() -> None:
    assert [e.reach for e in cells(CLOUDS).values()] == ["both", "retrieval", "generation", "both"]
    assert cells(CLOUDS)["clean"] == CLEAN
    with pytest.raises(SpecError, match="this experiment is clean or attacks the corpus"):
        cells(CLEAN)


def test_labels_say_what_differs_and_no_more() -> None:
    pgd = [replace(CLOUDS, attack=Composed(Hide(), Linf(n / 255), PGD())) for n in (4, 8)]
    guarded = replace(CLOUDS, generator=SmoothGuard(Reader(), n=2))
    smoothed = replace(CLOUDS, encoder=Smoothed(Eye()), knowledge="adaptive")
    fixed = replace(RANDOM, member="fixed:cirrus")
    shown = axes([CLEAN, RANDOM, fixed, CLOUDS, *pgd, guarded, smoothed, replace(CLOUDS, reach="retrieval")])
    assert [tuple(row.values()) for row in shown] == [
        ("clean", "none", "–", "–"),
        ("random CloudOverlay", "none", "–", "both"),
        ("fixed cirrus", "none", "–", "both"),
        ("CloudWeb", "none", "–", "both"),
        ("PGD Linf(4/255)", "none", "–", "both"),
        ("PGD Linf(8/255)", "none", "–", "both"),
        ("CloudWeb", "SmoothGuard", "naive", "both"),
        ("CloudWeb", "Smoothed", "adaptive", "both"),
        ("CloudWeb", "none", "–", "the retriever"),
    ]
    assert axes([CLEAN]) == [{"attack": "clean"}]


def test_a_norm_always_shows_its_radius() -> None:
    pgd = replace(CLOUDS, attack=Composed(Hide(), Linf(4 / 255), PGD()))
    drawn = replace(CLOUDS, attack=Composed(Hide(), L2(), PGD()), member="random")
    assert [row["attack"] for row in axes([CLEAN, pgd, drawn])] == ["clean", "PGD Linf(4/255)", "random L2(1.0)"]


def test_defenses_of_one_name_are_told_apart() -> None:
    weak, strong = (replace(CLOUDS, encoder=Smoothed(Eye(), sigma=s)) for s in (0.1, 0.25))
    assert [row["defense"] for row in axes([weak, strong])] == [
        "Smoothed(sigma=0.1, n=10, seed=0)",
        "Smoothed(sigma=0.25, n=10, seed=0)",
    ]


def test_the_verdict_has_three_sentences_and_no_more_certainty_than_the_figures() -> None:
    smoothed = replace(CLOUDS, encoder=Smoothed(Eye()))
    cells_ = [CLEAN, RANDOM, CLOUDS, smoothed, replace(smoothed, knowledge="adaptive")]
    values = [[0] * 20, [1] * 2 + [0] * 18, [1] * 18 + [0] * 2, [1] * 4 + [0] * 16, [1] * 16 + [0] * 4]
    said = verdict(summarise(cells_, {e.id: records(v) for e, v in zip(cells_, values, strict=True)}))
    assert len(said) == 3
    assert said[0].startswith("On clean images Weather@2 is 0.0 % [0.0, 16.1] of 20 samples")
    assert said[1].startswith("CloudWeb takes it to 90.0 % [69.9, 97.2] (+90 points [75, 100], McNemar p < 0.001)")
    assert "random CloudOverlay gives most, 10.0 %" in said[1]
    assert said[1].endswith("and optimising adds +80 points [60, 95] to what a random one does.")
    assert said[2].startswith("Smoothed brings it to 20.0 %")
    assert "to 80.0 %" in said[2]
    assert said[2].endswith("against one who does.")


def test_the_verdict_does_not_praise_what_does_not_help() -> None:
    smoothed = replace(CLOUDS, encoder=Smoothed(Eye()))
    values = {CLEAN.id: records([0] * 9), CLOUDS.id: records([1] + [0] * 8), smoothed.id: records([1] * 9)}
    said = verdict(summarise([CLEAN, CLOUDS, smoothed], values))
    assert "chance could explain it" in said[1]
    assert said[2].startswith("No defense that was tried helps against CloudWeb: at best Weather@2 stays at 100.0 %")


def test_an_attack_that_noise_beats_is_doubted() -> None:
    strong = replace(CLOUDS, encoder=Smoothed(Eye()), knowledge="adaptive")
    naive = replace(strong, knowledge="naive")
    experiments = [CLEAN, RANDOM, CLOUDS, naive, strong]
    values = [[0] * 8, [1] * 8, [0] * 8, [1] * 8, [0] * 8]
    found = {e.id: records(v) for e, v in zip(experiments, values, strict=True)}
    raised = [d.check for d in doubts(experiments, summarise(experiments, found), found)]
    assert sorted(raised) == ["adaptive_weaker", "noise_beats_gradients"]


def test_a_smaller_budget_that_does_better_is_doubted() -> None:
    small, large = (replace(CLOUDS, attack=Composed(Hide(), Linf(n / 255), PGD())) for n in (2, 8))
    found = {small.id: records([1] * 8), large.id: records([0] * 8), CLEAN.id: records([0] * 8)}
    experiments = [CLEAN, large, small]
    (doubt,) = doubts(experiments, summarise(experiments, found), found)
    assert doubt.check == "budget_helps_defender"
    assert doubt.sure


def test_an_attack_that_is_allowed_everything_and_loses_is_doubted() -> None:
    boundless = replace(CLOUDS, attack=Composed(Hide(), Linf(1.0), PGD()))
    for losses, wanted in ((0, []), (3, ["unbounded_loses"])):
        found = {boundless.id: records([0] * losses + [1] * (8 - losses)), CLEAN.id: records([0] * 8)}
        experiments = [CLEAN, boundless]
        assert [d.check for d in doubts(experiments, summarise(experiments, found), found)] == wanted


def test_the_terminal_table_has_a_line_an_experiment() -> None:
    from rich.console import Console

    made = summarise([CLEAN, CLOUDS], {CLEAN.id: records([0] * 9), CLOUDS.id: records([1] * 9)}, "toy")
    console = Console(width=100, record=True, file=StringIO())
    console.print(make(made))
    text = console.export_text()
    assert "Weather@2 ↓" in text
    assert "0.0 [0.0, 29.9]" in text
    assert "100.0 [70.1, 100.0]" in text
