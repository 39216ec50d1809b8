"""From records to rows: every metric with its interval, and its paired difference from the clean run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morgana.eval.experiment import Experiment
from morgana.eval.labels import axes
from morgana.eval.records import STAGES, Record
from morgana.eval.statistics import Estimate, McNemar, estimate, mcnemar, paired


@dataclass(frozen=True)
class Row:
    """One metric of one experiment, over all samples or those of one kind."""

    stage: str
    metric: str
    kind: str  # of question; empty: all
    estimate: Estimate
    difference: Estimate | None = None  # from the baseline, on the samples that both have
    mcnemar: McNemar | None = None  # where every value is 0 or 1


@dataclass(frozen=True)
class Cell:
    """An experiment with its rows."""

    experiment: Experiment
    axes: Mapping[str, str]
    baseline: str | None  # id of the experiment that differences are taken from
    rows: tuple[Row, ...]
    perturbation: Mapping[str, float]

    def row(self, stage: str, metric: str, kind: str = "") -> Row | None:
        return next((r for r in self.rows if (r.stage, r.metric, r.kind) == (stage, metric, kind)), None)


@dataclass(frozen=True)
class Summary:
    """A study's cells in the order in which it yields them."""

    name: str
    about: str
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()

    def cell(self, id: str) -> Cell | None:
        return next((c for c in self.cells if c.experiment.id == id), None)


def summarise(
    experiments: Sequence[Experiment],
    records: Mapping[str, Sequence[Record]],  # by experiment id
    name: str = "",
    about: str = "",
    warnings: Sequence[str] = (),
) -> Summary:
    """Rows for every experiment; its baseline is its clean counterpart, or the study's first where there is none."""
    cells = []
    for experiment, labels in zip(experiments, axes(experiments), strict=True):
        base = baseline(experiment, experiments)
        before = records[base.id] if base else ()
        rows = tuple(compare(records[experiment.id], before, experiment.seed))
        change = perturbation(records[experiment.id])
        cells.append(Cell(experiment, labels, base.id if base else None, rows, change))
    return Summary(name, about, tuple(cells), tuple(warnings))


def baseline(experiment: Experiment, experiments: Sequence[Experiment]) -> Experiment | None:
    if experiment.attack is not None and experiment.clean in experiments:
        return experiment.clean
    return experiments[0] if experiment != experiments[0] else None


def compare(after: Sequence[Record], before: Sequence[Record], seed: int) -> list[Row]:
    """Rows over all samples, and over each kind of question if there are several."""
    kinds = sorted({r.kind for r in after})
    rows = []
    for kind in ["", *(kinds if len(kinds) > 1 else [])]:
        chosen = [r for r in after if not kind or r.kind == kind]
        for stage, metric in measured(chosen):
            row = compared(stage, metric, kind, chosen, {r.sample: r for r in before}, seed)
            rows += [row] if row else []
    return rows


def measured(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(stage, metric) pairs in the order of the stages, metrics as recorded."""
    found = dict.fromkeys(pair for r in records for pair in r.flat)
    return sorted(found, key=lambda pair: STAGES.index(pair[0]))


def compared(
    stage: str, metric: str, kind: str, records: Sequence[Record], before: Mapping[str, Record], seed: int
) -> Row | None:
    values = [r.flat.get((stage, metric)) for r in records]
    clusters = [r.cluster for r in records]
    stream = f"{stage} {metric} {kind}"
    mean = estimate(values, clusters, seed=seed, name=stream)
    if mean is None:
        return None
    was = [before[r.sample].flat.get((stage, metric)) if r.sample in before else None for r in records]
    both = [v for pair in zip(was, values, strict=True) if None not in pair for v in pair]
    change = paired(was, values, clusters, seed=seed, name=stream)
    test = mcnemar(was, values) if both and set(both) <= {0.0, 1.0} else None
    return Row(stage, metric, kind, mean, change, test)


def perturbation(records: Sequence[Record]) -> dict[str, float]:
    """Over the judged images: the largest L∞, the mean of everything else."""
    by_image = {r.image: r.perturbation for r in records if r.perturbation}
    names = sorted({name for change in by_image.values() for name in change})
    found = {n: [c[n] for c in by_image.values() if n in c] for n in names}
    return {n: max(v) if n == "linf" else sum(v) / len(v) for n, v in found.items()}


def to_json(cell: Cell) -> dict[str, Any]:
    """Metrics as {value, ci_low, ci_high, n}, by stage, metric and kind ("all" where it is over all)."""
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for row in cell.rows:
        value: dict[str, Any] = numbers(row.estimate)
        if row.difference:
            value["difference"] = numbers(row.difference)
        if row.mcnemar:
            value["mcnemar"] = {"lost": row.mcnemar.lost, "won": row.mcnemar.won, "p": row.mcnemar.p}
        metrics.setdefault(row.stage, {}).setdefault(row.metric, {})[row.kind or "all"] = value
    return {
        "metrics": metrics,
        "perturbation": dict(cell.perturbation),
        "baseline": cell.baseline,
        "axes": dict(cell.axes),
    }


def numbers(estimate: Estimate) -> dict[str, float | int]:
    return {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high, "n": estimate.n}
