"""Recorruption of a study: what articles do to answers that were given without them, and what a method cures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from morgana.eval.experiment import Experiment
from morgana.eval.metrics.recorruption import recorruption
from morgana.eval.records import Record
from morgana.eval.summary import numbers
from morgana.retrieval.stages.oracle import Oracle

METRIC = "Contains()"  # what counts as right


def recoveries(experiments: Sequence[Experiment], records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """For each experiment with articles its recorruption against the one without, over all samples and by kind."""
    alone = next((e for e in experiments if any(isinstance(s, Oracle) and s.at == "none" for s in e.stages)), None)
    found = []
    for experiment in experiments if alone else ():
        if alone is None or experiment == alone:
            continue
        articles = replace(experiment, generator=alone.generator)
        method = None if articles == experiment else records[experiment.id]
        read = records.get(articles.id)
        if read is not None:
            kinds = ["", *sorted({r.kind for r in read})]
            rows = [row(records[alone.id], read, method, kind, alone.seed) for kind in kinds]
            found.append({"id": experiment.id, "rows": rows})
    return found


def row(
    alone: Sequence[Record], articles: Sequence[Record], method: Sequence[Record] | None, kind: str, seed: int
) -> dict[str, Any]:
    chosen = [r for r in articles if not kind or r.kind == kind]
    clusters = [r.cluster for r in chosen]
    told = recorruption(
        values(alone, chosen),
        values(articles, chosen),
        None if method is None else values(method, chosen),
        clusters,
        seed,
    )
    named = {f.name: getattr(told, f.name) for f in fields(told)}
    return {"kind": kind or "all", **{name: numbers(e) if e else None for name, e in named.items()}}


def values(records: Sequence[Record], chosen: Sequence[Record]) -> list[float | None]:
    """The scores of the chosen samples, in their order."""
    by_sample = {r.sample: r.value("answer", METRIC) for r in records}
    return [by_sample.get(r.sample) for r in chosen]
