"""Which doubts of `eval.sanity` apply to which cells of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from morgana.eval.experiment import Experiment
from morgana.eval.labels import defended
from morgana.eval.records import Record
from morgana.eval.sanity import Doubt, adaptive_weaker, budget_helps_defender, noise_beats_gradients, unbounded_loses
from morgana.eval.scoring import Figure
from morgana.eval.summary import Cell, Summary


def doubts(experiments: Sequence[Experiment], summary: Summary, records: Mapping[str, Sequence[Record]]) -> list[Doubt]:
    """Signs that an attack was too weak: noise beats it, knowing the defense hurts it, a larger budget hurts it."""
    main = [f for f in summary.figures if not f.good][:1]
    if not main:
        return []
    success = {e.id: values(main[0], records[e.id]) for e in experiments}
    found: list[Doubt] = []
    for cell, experiment in zip(summary.cells, experiments, strict=True):
        found += [named(doubt, cell) for doubt in against(experiment, success)]
    return found + budgets(experiments, success)


def against(experiment: Experiment, success: Mapping[str, Mapping[str, float]]) -> list[Doubt]:
    e, own = experiment, success[experiment.id]
    found: list[Doubt] = []
    if e.member != "optimised":
        return found
    noise = success.get(replace(e, member="random", knowledge="naive").id)
    if noise and (e.knowledge == "adaptive" or not defended(e)):
        found += noise_beats_gradients(*aligned(own, noise))
    naive = success.get(replace(e, knowledge="naive").id)
    if e.knowledge == "adaptive" and naive:
        found += adaptive_weaker(*aligned(naive, own))
    return found


def budgets(experiments: Sequence[Experiment], success: Mapping[str, Mapping[str, float]]) -> list[Doubt]:
    """Undefended attacks that differ in epsilon alone; one whose ε allows every image must win."""
    families: dict[str, dict[float, Mapping[str, float]]] = {}
    for e in experiments:
        threat = getattr(e.attack, "threat", None)
        epsilon = getattr(threat, "epsilon", None)
        if epsilon is not None and e.member == "optimised" and not defended(e):
            name = repr(e).replace(repr(threat), type(threat).__name__)
            families.setdefault(name, {})[epsilon] = success[e.id]
    found: list[Doubt] = []
    for family in families.values():
        shared = sorted(set.intersection(*(set(v) for v in family.values())))
        found += budget_helps_defender({eps: [v[s] for s in shared] for eps, v in family.items()})
        found += [doubt for eps, v in family.items() if eps >= 1 for doubt in unbounded_loses(list(v.values()))]
    return found


def values(figure: Figure, records: Sequence[Record]) -> dict[str, float]:
    found = {r.sample: r.value(figure.stage, figure.metric) for r in records}
    return {sample: value for sample, value in found.items() if value is not None}


def aligned(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[list[float], list[float]]:
    shared = [s for s in first if s in second]
    return [first[s] for s in shared], [second[s] for s in shared]


def named(doubt: Doubt, cell: Cell) -> Doubt:
    where = ", ".join(f"{k} {v}" for k, v in cell.axes.items())
    return replace(doubt, message=f"{where}: {doubt.message}")
