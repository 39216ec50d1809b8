"""How much of its sight can a model lose? Every pruner of visual tokens at equal budgets, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.experiment import Experiment
from morgana.eval.records import Record, load
from morgana.eval.statistics import Estimate, estimate, paired
from morgana.generation.cost import Cost, prefill_cost
from morgana.generation.generators.hf import HF
from morgana.generation.pruner import Pruner
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.retrieval.stages.oracle import Oracle
from morgana.spec import components
from morgana.types import Hit

KEEPS = (1.0, 0.5, 0.25, 0.11, 0.05)
KINDS = ("visual", "knowledge", "presence")
ROUNDS = 5  # prefills timed, the fastest counts
METRIC = {"presence": "PresenceAccuracy()"}  # of the others: Contains()
app = typer.Typer(no_args_is_help=True, add_completion=False)


def pruning(
    model: str = "atlas", sites: int = 240, limit: int = 300, k: int = 1, seed: int = 0, only: str = ""
) -> Iterator[Experiment]:
    """Every pruner at 50, 25, 11 and 5 % of the visual tokens, beside the whole image; `only` names some, by comma.

    Expect random tokens and an even grid to be hard to beat where what is asked for is large or repeated, and chosen
    tokens to win at 11 and 5 % on counts and presence of small things; knowledge questions to lose nothing, as they
    need the article; and merging (AIMMerge, VMTC, Turbo) to blur counts. Pruners inside the model keep the whole image
    in their first layers, so at an equal `keep` they cost more: the table prints what.
    """
    world = Atlas(sites=sites, seed=seed, weather="clear")
    for generator in generators(model, only):
        yield Experiment(
            world,
            OpenCLIP("atlas"),
            generator,
            stages=(Oracle(world, "first"),),
            k=k,
            kinds=KINDS,
            limit=limit,
            seed=seed,
        )


def generators(model: str, only: str = "") -> Iterator[HF]:
    """The whole image first, then every pruner with the most tokens first."""
    yield HF(model)
    names = [name for name in only.split(",") if name]
    for cls in components("pruner"):
        if not names or cls.__name__ in names:
            yield from (HF(model, pruner=pruner) for pruner in budgets(cls))


def budgets(cls: type[Any]) -> Iterator[Pruner]:
    """One pruner at every budget below all; those that have no budget of their own, once."""
    if cls.__name__ == "ToDRELate":
        yield cls()
        return
    inner = {f.name: f for f in fields(cls)}.get("pruner")
    for keep in KEEPS[1:]:
        yield cls(type(inner.default)(keep)) if inner is not None else cls(keep)


@app.callback()
def main() -> None:
    """Every pruner of visual tokens at equal budgets."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on where it stopped.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples a condition.")] = None,
    sites: Annotated[int, typer.Option(min=2, help="Sites of the world.")] = 240,
    only: Annotated[str, typer.Option(help="Pruners by name, with commas between; none: all.")] = "",
    model: Annotated[str, typer.Option(help="A transformers model or folder.")] = "atlas",
) -> None:
    """Run the study and print accuracy, what it lost against the whole image, and what a prefill costs."""
    from morgana.eval.studies import run_study, study

    made = study("pruning", pruning, {"sites": sites, "only": only, "model": model}).limited(limit)
    run_study(made, out, limit=limit)
    show(made.experiments, out)


def show(experiments: Sequence[Experiment], out: Path) -> None:
    records = {e: load(out / "cells" / e.id / "records.jsonl") for e in experiments}
    whole, costs = records[experiments[0]], costs_of(experiments)
    table = Table(title="accuracy in %, [95 % interval]; change against the whole image, paired by tile")
    for heading in ("pruner", *KINDS, "prefill", "cache", "tokens a layer"):
        table.add_column(heading)
    for experiment in experiments:
        cells = [cell(records[experiment], whole, kind, experiment is experiments[0]) for kind in KINDS]
        cost, first = costs[experiment], costs[experiments[0]]
        table.add_row(
            label(experiment),
            *cells,
            f"{1000 * cost.seconds:.1f} ms ({cost.seconds / first.seconds:.2f})",
            f"{cost.cache_bytes / 1024:.0f} KiB ({cost.cache_bytes / first.cache_bytes:.2f})",
            f"{sum(cost.tokens) / len(cost.tokens):.1f}",
        )
    Console(width=200).print(table)


def label(experiment: Experiment) -> str:
    pruner = experiment.generator.pruner if isinstance(experiment.generator, HF) else ()
    return repr(pruner) if pruner else "whole image"


def cell(now: Sequence[Record], before: Sequence[Record], kind: str, first: bool) -> str:
    """Accuracy on the questions of a kind, and the paired change."""
    metric = METRIC.get(kind, "Contains()")
    was = {r.sample: r.value("answer", metric) for r in before if r.kind == kind}
    rows = [r for r in now if r.kind == kind and r.sample in was]
    values, clusters = [r.value("answer", metric) for r in rows], [r.cluster for r in rows]
    right = estimate(values, clusters)
    change = None if first else paired([was[r.sample] for r in rows], values, clusters)
    return percent(right) + ("" if change is None else f"  {percent(change, signed=True)}")


def percent(found: Estimate | None, *, signed: bool = False) -> str:
    if found is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * found.value:{sign}.1f} [{100 * found.low:{sign}.1f}, {100 * found.high:{sign}.1f}]"


def costs_of(experiments: Sequence[Experiment]) -> dict[Experiment, Cost]:
    """The fastest of some prefills of one prompt, article included, taken in turns."""
    world = experiments[0].corpus
    documents = {d.id: d for d in world.documents()}
    query = next(q for q in world.queries() if q.image is not None and world.qrels().get(q.id))
    hits = tuple(Hit(documents[i], 1.0) for i in list(world.qrels()[query.id])[:1])
    best: dict[Experiment, Cost] = {}
    for _ in range(ROUNDS):
        for experiment in experiments:
            reader = experiment.generator
            assert isinstance(reader, HF)
            cost = prefill_cost(reader, [reader.look(query)], [query], [hits])
            best[experiment] = min(cost, best.get(experiment, cost))
    return best


if __name__ == "__main__":
    app()
