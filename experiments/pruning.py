"""How much of its sight can a model lose? Every pruner of visual tokens at equal budgets, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
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
SIGHT = ("visual", "presence")  # cannot be answered without the image
FLOORS = ("RandomTokens", "UniformGrid")
ROUNDS = 5  # prefills timed, the fastest counts
METRIC = {"presence": "PresenceAccuracy()"}  # of the others: Contains()
app = typer.Typer(no_args_is_help=True, add_completion=False)


def pruning(
    model: str = "atlas",
    sites: int = 240,
    each: int = 100,
    seed: int = 0,
    only: str = "",
    keeps: str = "",
    kinds: str = "",
) -> Iterator[Experiment]:
    """Every pruner at 50, 25, 11 and 5 % of the visual tokens, beside the whole image, on the same `each` questions
    of every kind; `only`, `keeps` and `kinds` name some, by comma.

    Expect random tokens and an even grid to be hard to beat where what is asked for is large or repeated, and chosen
    tokens to win at 11 and 5 % on counts and presence of small things; knowledge questions to lose nothing, as they
    need the article; and merging (AIMMerge, VMTC, Turbo) to blur counts. Pruners inside the model keep the whole image
    in their first layers, so at an equal `keep` they cost more: the table prints what.
    """
    world = Atlas(sites=sites, seed=seed, weather="clear")
    for generator in generators(model, only, keeps):
        for kind in some(kinds, KINDS):
            yield Experiment(
                world,
                OpenCLIP("atlas"),
                generator,
                stages=(Oracle(world, "first"),),
                k=1,
                kinds=(kind,),
                limit=each,
                seed=seed,
            )


def some(names: str, known: Sequence[str]) -> tuple[str, ...]:
    """Those named, or all."""
    return tuple(name for name in names.split(",") if name) or tuple(known)


def generators(model: str, only: str = "", keeps: str = "") -> Iterator[HF]:
    """The whole image first, then every pruner with the most tokens first."""
    yield HF(model)
    shares = [float(keep) for keep in some(keeps, [str(keep) for keep in KEEPS[1:]])]
    parts = {cls.__name__: cls for cls in components("pruner")}
    for name in some(only, list(parts)):
        yield from (HF(model, pruner=pruner) for pruner in budgets(parts[name], shares))


def budgets(cls: type[Any], keeps: Sequence[float]) -> Iterator[Pruner]:
    """One pruner at every budget below all; those that have no budget of their own, once."""
    if cls.__name__ == "ToDRELate":
        yield cls()
        return
    inner = {f.name: f for f in fields(cls)}.get("pruner")
    for keep in keeps:
        yield cls(type(inner.default)(keep)) if inner is not None else cls(keep)


@app.callback()
def main() -> None:
    """Every pruner of visual tokens at equal budgets."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on where it stopped.")],
    each: Annotated[int, typer.Option(min=1, help="At most so many questions of a kind.")] = 100,
    sites: Annotated[int, typer.Option(min=2, help="Sites of the world.")] = 240,
    only: Annotated[str, typer.Option(help="Pruners by name, with commas between; none: all.")] = "",
    keeps: Annotated[str, typer.Option(help="Shares of the visual tokens, with commas between.")] = "",
    kinds: Annotated[str, typer.Option(help="Of questions, with commas between.")] = "",
    model: Annotated[str, typer.Option(help="A transformers model or folder.")] = "atlas",
) -> None:
    """Run the study; print accuracy, what pruning changed, and what a prefill costs; write table.md and cells.md."""
    from morgana.eval.studies import run_study, study

    made = study(
        "pruning", pruning, {"sites": sites, "each": each, "only": only, "keeps": keeps, "kinds": kinds, "model": model}
    )
    run_study(made, out)
    rows = measured(made.experiments, out)
    Console(width=200).print(shown(rows))
    (out / "table.md").write_text(summary(rows), encoding="utf-8")
    (out / "cells.md").write_text(everything(rows), encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """One generator: its records by kind, and its cost."""

    generator: HF
    records: Mapping[str, Sequence[Record]]
    cost: Cost

    @property
    def label(self) -> str:
        return repr(self.generator.pruner) if self.generator.pruner else "whole image"

    @property
    def name(self) -> str:
        """Without its budget."""
        inner = getattr(self.generator.pruner, "pruner", None)
        named = type(self.generator.pruner).__name__
        return f"{named}({type(inner).__name__})" if inner is not None else named

    @property
    def keep(self) -> Any:
        pruner = self.generator.pruner
        return None if isinstance(pruner, tuple) or self.name == "ToDRELate" else pruner.keep

    def values(self, kinds: Sequence[str]) -> dict[str, tuple[float | None, str]]:
        """By sample: right or not, and its tile."""
        return {
            r.sample: (r.value("answer", METRIC.get(r.kind, "Contains()")), r.cluster)
            for kind in kinds
            for r in self.records.get(kind, ())
        }

    def right(self, *kinds: str) -> Estimate | None:
        found = self.values(kinds).values()
        return estimate([value for value, _ in found], [cluster for _, cluster in found])

    def against(self, other: Row, *kinds: str) -> Estimate | None:
        """The paired change from `other` on the samples that both have."""
        mine, theirs = self.values(kinds), other.values(kinds)
        both = [s for s in mine if s in theirs]
        return paired([theirs[s][0] for s in both], [mine[s][0] for s in both], [mine[s][1] for s in both])


def measured(experiments: Sequence[Experiment], out: Path) -> list[Row]:
    costs, found = costs_of(experiments), {}
    for e in experiments:
        found.setdefault(e.generator, {})[e.kinds[0]] = load(out / "cells" / e.id / "records.jsonl")
    return [Row(generator, records, costs[generator]) for generator, records in found.items()]


def costs_of(experiments: Sequence[Experiment]) -> dict[HF, Cost]:
    """The fastest of some prefills of one prompt, article included, taken in turns."""
    world = experiments[0].corpus
    documents = {d.id: d for d in world.documents()}
    query = next(q for q in world.queries() if q.image is not None and world.qrels().get(q.id))
    hits = tuple(Hit(documents[i], 1.0) for i in list(world.qrels()[query.id])[:1])
    best: dict[HF, Cost] = {}
    for _ in range(ROUNDS):
        for reader in dict.fromkeys(e.generator for e in experiments):
            cost = prefill_cost(reader, [reader.look(query)], [query], [hits])
            best[reader] = min(cost, best.get(reader, cost))
    return best


def floors(rows: Sequence[Row], row: Row) -> list[Row]:
    """Tokens by lot and on a grid, at the same budget."""
    return [r for r in rows if r.name in FLOORS and r.keep == row.keep and r is not row]


def verdict(rows: Sequence[Row], row: Row) -> str:
    """Beside both floors on questions of sight: above or below where the interval of the change leaves 0 out."""
    found = [row.against(floor, *SIGHT) for floor in floors(rows, row)]
    if not found or row.name in FLOORS:
        return ""
    if all(f is not None and f.low > 0 for f in found):
        return "above both"
    return "below" if any(f is not None and f.high < 0 for f in found) else "not told apart"


def shown(rows: Sequence[Row]) -> Table:
    table = Table(title="accuracy in %, [95 % interval]; change against the whole image, paired by tile")
    for heading in ("pruner", *KINDS, "floor", "prefill", "cache", "tokens a layer"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.label, *(kept(row, rows[0], kind) for kind in KINDS), verdict(rows, row), *spent(row, rows[0])
        )
    return table


def kept(row: Row, whole: Row, *kinds: str) -> str:
    change = "" if row is whole else f"; {percent(row.against(whole, *kinds), signed=True)}"
    return percent(row.right(*kinds)) + change


def spent(row: Row, whole: Row) -> tuple[str, str, str]:
    cost, first = row.cost, whole.cost
    return (
        f"{1000 * cost.seconds:.0f} ms ({cost.seconds / first.seconds:.2f})",
        f"{cost.cache_bytes / 1024:.0f} KiB ({cost.cache_bytes / first.cache_bytes:.2f})",
        f"{sum(cost.tokens) / len(cost.tokens):.1f}",
    )


def everything(rows: Sequence[Row]) -> str:
    """Markdown: every pruner at every budget."""
    lines = [("pruner", *KINDS, "prefill", "cache", "tokens a layer")]
    lines += [(f"`{r.label}`", *(kept(r, rows[0], kind) for kind in KINDS), *spent(r, rows[0])) for r in rows]
    return markdown(lines)


def summary(rows: Sequence[Row]) -> str:
    """Markdown: questions of sight, by pruner and budget, with the change against tokens by lot."""
    keeps = sorted({r.keep for r in rows if r.keep is not None}, reverse=True)
    heads = [(f"{100 * keep:g} %", "− lot", "beside the floor") for keep in keeps]
    lines: list[Sequence[str]] = [("pruner", *(head for three in heads for head in three))]
    for name in dict.fromkeys(r.name for r in rows if r.keep is not None):
        cells = [beside(rows, next((r for r in rows if (r.name, r.keep) == (name, keep)), None)) for keep in keeps]
        lines.append((f"`{name}`", *(cell for three in cells for cell in three)))
    return markdown(lines)


def beside(rows: Sequence[Row], row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    lot = next((f for f in floors(rows, row) if f.name == FLOORS[0]), None)
    change = "" if lot is None else percent(row.against(lot, *SIGHT), signed=True)
    return percent(row.right(*SIGHT)), change, verdict(rows, row)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]]) + "\n"


def percent(found: Estimate | None, *, signed: bool = False) -> str:
    if found is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * found.value:{sign}.0f} [{100 * found.low:{sign}.0f}, {100 * found.high:{sign}.0f}]"


if __name__ == "__main__":
    app()
