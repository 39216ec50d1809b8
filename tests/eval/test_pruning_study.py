"""The study of pruners: each at every budget on the same questions, judged beside tokens by lot and on a grid."""

from __future__ import annotations

from rich.console import Console

from morgana.eval.records import Record
from morgana.eval.studies import execute, load_study, locate, run_study
from morgana.generation.cost import Cost
from morgana.generation.generators.hf import HF
from morgana.spec import components, parse

STUDY = execute(locate("pruning"))


def row(pruner, values, kind="visual"):
    records = [
        Record(f"s{i}", f"tile{i}", kind, None, (), (), "", {"answer": {"Contains()": float(v)}})
        for i, v in enumerate(values)
    ]
    generator = HF("x", pruner=parse(pruner)) if pruner else HF("x")
    return STUDY.Row(generator, {kind: records}, Cost(0.5 if pruner else 1.0, 512 if pruner else 1024, (4.0,)))


def test_every_pruner_meets_every_budget_on_the_same_questions():
    found = load_study("pruning", each=7).experiments
    pruners = {type(e.generator.pruner).__name__ for e in found}
    assert pruners == {cls.__name__ for cls in components("pruner")} | {"tuple"}
    assert all(parse(repr(e)) == e for e in found)
    assert len({(e.k, e.stages, e.limit, e.seed, e.generator.max_new_tokens) for e in found}) == 1
    budgets = {e.generator.pruner.keep for e in found if type(e.generator.pruner).__name__ == "FastV"}
    assert budgets == set(STUDY.KEEPS[1:])


def test_a_pruner_is_above_the_floor_only_where_both_floors_are_beaten_for_sure():
    lot, grid = row("RandomTokens(0.25)", [0] * 12), row("UniformGrid(0.25)", [0] * 6 + [1] * 6)
    best, even, worst = (row("FastV(0.25)", values) for values in ([1] * 12, [0] * 5 + [1] * 7, [0] * 12))
    assert STUDY.verdict([lot, grid, best], best) == "above both"
    assert STUDY.verdict([lot, grid, even], even) == "not told apart"
    assert STUDY.verdict([lot, grid, worst], worst) == "below"
    assert STUDY.verdict([lot, grid, best], lot) == ""
    assert STUDY.verdict([row("RandomTokens(0.5)", [0] * 12), best], best) == ""  # another budget is no floor


def test_changes_are_paired_and_costs_are_shares_of_the_whole_image():
    whole, few = row("", [1, 1, 0, 0]), row("FastV(0.25)", [1, 0, 0, 0])
    assert STUDY.kept(few, whole, "visual").startswith("25 [")
    assert "; -25 [" in STUDY.kept(few, whole, "visual")
    assert STUDY.spent(few, whole) == ("500 ms (0.50)", "0 KiB (0.50)", "4.0")
    assert STUDY.kept(few, whole, "presence") == "–; –"


def test_it_runs_and_prints_a_line_a_generator(tmp_path, tiny_llava_folder):
    only = "RandomTokens,UniformGrid,FastV"
    options = {"sites": 2, "each": 1, "only": only, "keeps": "0.25", "kinds": "visual", "model": str(tiny_llava_folder)}
    made = load_study("pruning", **options)
    run_study(made, tmp_path)
    rows = STUDY.measured(made.experiments, tmp_path)
    assert [r.name for r in rows[1:]] == only.split(",")
    assert all(r.right("visual") is not None for r in rows)
    assert rows[3].cost.cache_bytes < rows[0].cost.cache_bytes
    console = Console(width=200, record=True)
    console.print(STUDY.shown(rows))
    assert "whole image" in console.export_text()
    assert STUDY.summary(rows).count("\n") == 2 + 3
    assert STUDY.everything(rows).count("\n") == 2 + 4
