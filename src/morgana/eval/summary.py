"""From records to rows: every metric with its interval, and its paired difference from the clean run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from morgana.eval.experiment import Experiment
from morgana.eval.labels import axes, defended
from morgana.eval.metrics.shift import SemanticShift
from morgana.eval.outcome import Outcome
from morgana.eval.records import STAGES, Record
from morgana.eval.scoring import Figure, headline
from morgana.eval.statistics import Estimate, McNemar, Values, estimate, mcnemar, paired


@dataclass(frozen=True)
class Row:
    """One metric of one experiment, over all samples or those of one kind."""

    stage: str
    metric: str
    kind: str  # of question; empty: all
    estimate: Estimate
    difference: Estimate | None = None  # from the baseline, on the samples that both have
    mcnemar: McNemar | None = None  # of clusters, where every value is 0 or 1
    gain: Estimate | None = None  # of an optimised attack over the random member of its threat, paired


@dataclass(frozen=True)
class Cell:
    """An experiment in plain words, with its rows."""

    id: str
    spec: str
    axes: Mapping[str, str]  # what tells it from the study's other cells
    attack: str  # repr; empty: clean
    member: str
    knowledge: str
    reach: str
    defended: bool
    baseline: str | None  # id of the cell that differences are taken from
    figures: tuple[Figure, ...]
    perturbation: Mapping[str, float]
    rows: tuple[Row, ...]

    def row(self, stage: str, metric: str, kind: str = "") -> Row | None:
        return next((r for r in self.rows if (r.stage, r.metric, r.kind) == (stage, metric, kind)), None)

    def figure(self, figure: Figure) -> Row | None:
        return self.row(figure.stage, figure.metric)


@dataclass(frozen=True)
class Summary:
    """A study's cells in the order in which it yields them."""

    name: str
    about: str
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()

    @property
    def figures(self) -> list[Figure]:
        """The headline metrics that any cell has; hijacks first if there is an attack, else answers."""
        known = dict.fromkeys(f for cell in self.cells for f in cell.figures if cell.figure(f))
        return list(known) if any(cell.attack for cell in self.cells) else list(known)[::-1]


def summarise(
    experiments: Sequence[Experiment],
    records: Mapping[str, Sequence[Record]],  # by experiment id
    name: str = "",
    about: str = "",
) -> Summary:
    """Rows for every experiment; its baseline is its clean counterpart, or the study's first where there is none."""
    cells = []
    for e, labels in zip(experiments, axes(experiments), strict=True):
        base, drawn = baseline(e, experiments), chance(e, experiments)
        before = records[base.id] if base else ()
        random = records[drawn.id] if drawn else ()
        cells.append(
            Cell(
                id=e.id,
                spec=repr(e),
                axes=labels,
                attack="" if e.attack is None else repr(e.attack),
                member=e.member,
                knowledge=e.knowledge,
                reach=e.reach,
                defended=defended(e),
                baseline=base.id if base else None,
                figures=headline(e),
                perturbation=perturbation(records[e.id]),
                rows=tuple(compare(shifted(records[e.id], before), before, e.seed, random)),
            )
        )
    return Summary(name, about, tuple(cells))


def shifted(after: Sequence[Record], before: Sequence[Record]) -> list[Record]:
    """The records with the semantic shift of each answer from the baseline's answer to the same sample."""
    clean = {r.sample: r.answer for r in before}
    metric = SemanticShift()
    values = metric([Outcome(r.sample, answer=r.answer, clean=clean.get(r.sample)) for r in after])
    return [
        r if v is None else replace(r, scores={**r.scores, "answer": {**r.scores.get("answer", {}), repr(metric): v}})
        for r, v in zip(after, values, strict=True)
    ]


def baseline(experiment: Experiment, experiments: Sequence[Experiment]) -> Experiment | None:
    if experiment.attack is not None and experiment.clean in experiments:
        return experiment.clean
    return experiments[0] if experiment != experiments[0] else None


def chance(experiment: Experiment, experiments: Sequence[Experiment]) -> Experiment | None:
    """The same attack with a member drawn at random instead of the one searched for, if the study has it."""
    if experiment.member != "optimised":
        return None
    drawn = replace(experiment, member="random", knowledge="naive")
    return drawn if drawn in experiments else None


def compare(after: Sequence[Record], before: Sequence[Record], seed: int, random: Sequence[Record] = ()) -> list[Row]:
    """Rows over all samples, and over each kind of question if there are several."""
    kinds = sorted({r.kind for r in after})
    rows = []
    for kind in ["", *(kinds if len(kinds) > 1 else [])]:
        chosen = [r for r in after if not kind or r.kind == kind]
        for stage, metric in measured(chosen):
            row = compared(stage, metric, kind, chosen, before, seed, random)
            rows += [row] if row else []
    return rows


def measured(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(stage, metric) pairs in the order of the stages, metrics as recorded."""
    found = dict.fromkeys((stage, metric) for r in records for stage, named in r.scores.items() for metric in named)
    return sorted(found, key=lambda pair: STAGES.index(pair[0]))


def compared(
    stage: str,
    metric: str,
    kind: str,
    records: Sequence[Record],
    before: Sequence[Record],
    seed: int,
    random: Sequence[Record] = (),
) -> Row | None:
    values = [r.value(stage, metric) for r in records]
    clusters = [r.cluster for r in records]
    stream = f"{stage} {metric} {kind}"
    mean = estimate(values, clusters, seed=seed, name=stream)
    if mean is None:
        return None
    was, drawn = (on(records, others, stage, metric) for others in (before, random))
    change = paired(was, values, clusters, seed=seed, name=stream)
    gain = paired(drawn, values, clusters, seed=seed, name=stream)
    return Row(stage, metric, kind, mean, change, turned(was, values, clusters), gain)


def on(records: Sequence[Record], others: Sequence[Record], stage: str, metric: str) -> list[float | None]:
    """What the others scored on the samples of the records."""
    known = {r.sample: r.value(stage, metric) for r in others}
    return [known.get(r.sample) for r in records]


def turned(before: Values, after: Values, clusters: Sequence[str]) -> McNemar | None:
    """McNemar's exact test where every value is 0 or 1, each cluster counted once, by the sign of its net change.

    With one sample a cluster this is McNemar's test; with more, a sign test of clusters. Questions about one tile
    share what was retrieved, so counting them one by one would make chance look sure.
    """
    pairs = [(c, b, a) for c, b, a in zip(clusters, before, after, strict=True) if b is not None and a is not None]
    if not pairs or not {v for _, b, a in pairs for v in (b, a)} <= {0.0, 1.0}:
        return None
    net: dict[str, float] = {}
    for cluster, was, now in pairs:
        net[cluster] = net.get(cluster, 0.0) + now - was
    return mcnemar([float(v < 0) for v in net.values()], [float(v > 0) for v in net.values()])


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
            value["mcnemar"] = asdict(row.mcnemar)
        if row.gain:
            value["gain"] = numbers(row.gain)
        metrics.setdefault(row.stage, {}).setdefault(row.metric, {})[row.kind or "all"] = value
    plain = {
        f.name: getattr(cell, f.name) for f in fields(cell) if f.name not in ("rows", "figures", "axes", "perturbation")
    }
    return {
        **plain,
        "axes": dict(cell.axes),
        "perturbation": dict(cell.perturbation),
        "figures": [asdict(f) for f in cell.figures],
        "metrics": metrics,
    }


def from_json(raw: Mapping[str, Any]) -> Cell:
    """The cell that `to_json` wrote."""
    rows = tuple(
        Row(
            stage,
            metric,
            "" if kind == "all" else kind,
            interval(value),
            interval(value["difference"]) if "difference" in value else None,
            McNemar(**value["mcnemar"]) if "mcnemar" in value else None,
            interval(value["gain"]) if "gain" in value else None,
        )
        for stage, named in raw["metrics"].items()
        for metric, kinds in named.items()
        for kind, value in kinds.items()
    )
    plain = {f.name: raw[f.name] for f in fields(Cell) if f.name not in ("rows", "figures")}
    return Cell(**plain, rows=rows, figures=tuple(Figure(**f) for f in raw["figures"]))


def numbers(estimate: Estimate) -> dict[str, float | int]:
    return {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high, "n": estimate.n}


def interval(raw: Mapping[str, Any]) -> Estimate:
    return Estimate(raw["value"], raw["ci_low"], raw["ci_high"], raw["n"])
