"""Clouds over real aerial photographs: does a few per cent of cloud make a retriever find the weather?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.composed import Composed
from morgana.attacks.goals.hijack import Hijack
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.linf import Linf
from morgana.corpus._real import real_data
from morgana.corpus.aid import AID
from morgana.corpus.clouds import Clouded
from morgana.corpus.weathered import Weathered
from morgana.defenses.smoothed import Smoothed
from morgana.eval.experiment import Experiment
from morgana.eval.looks import Look, look, real_maps, separated, told_apart
from morgana.eval.pictures import Shot, contact_sheet, curves
from morgana.eval.records import Record, load
from morgana.eval.statistics import Estimate, estimate, paired
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import StoreError

WEIGHTS = Path.home() / ".cache" / "morgana" / "aid-clip"
LEVELS = (2, 4, 8)  # L∞, in grey levels
SKIES = ("cumulus", "cirrus", "veil")
COVERS = (0.03, 0.06, 0.12, 0.2)  # mean opacity, of the trade-off curve
NATURAL = (0.0, 0.2, 0.8)  # weights of the naturalness penalty, beside the default
HIT, SHARE, FIRST, FIVE = "Topic('weather')", "TopicShare('weather')", "Hit(1)", "Hit(5)"
NONE = "–"
REAL = 300  # views of real maps that the classifier sees
app = typer.Typer(no_args_is_help=True, add_completion=False)


def aid_cloudweb(
    weights: str = str(WEIGHTS),
    steps: int = 60,
    pgd_steps: int = 20,
    cover: float = 0.12,
    sigma: float = 0.05,
    copies: int = 8,
    few: int = 120,
    curve: int = 160,
    seed: int = 0,
) -> Iterator[Experiment]:
    """CloudWeb against a retriever of AID's photographs, beside everything that is cloudy without an attacker.

    Clean dev tiles; naturally hazy ones (eight in dev, and the 103 that training left out); real clouds, random and
    fixed members of the family at the same mean cover; CloudWeb and L∞ PGD; and the same through `Smoothed`, by an
    attacker who does not know of it and, on the first `few` tiles, one who does. Then the budget from 3 % to 20 %,
    and the weight of naturalness, on the first `curve` tiles. Expect the paper's order, clean < random and fixed <
    optimised, with intervals apart at a cover of 20 %, while at 12 % the first two may touch; L∞ PGD at 8/255 to be as
    strong as clouds at 20 %; noise smoothing to weaken both, and neither to be undone by it.
    """
    data, clouds = str(real_data("aid")), str(real_data("clouds"))
    tiles, encoder = Weathered(AID(data)), OpenCLIP(weights)
    plain = Experiment(tiles, encoder, seed=seed)
    yield plain
    for split in ("dev", "train"):
        yield replace(plain, corpus=Weathered(AID(data, split=split, haze=True)))
    yield replace(plain, corpus=Clouded(tiles, clouds, cover))
    sky = CloudWeb(steps=steps, max_cover=cover)
    norms = [Composed(Hijack("weather"), Linf(level / 255), PGD(steps=pgd_steps)) for level in LEVELS]
    yield replace(plain, attack=sky, member="random")
    for name in SKIES:
        yield replace(plain, attack=sky, member=f"fixed:{name}")
    yield replace(plain, attack=norms[-1], member="random")
    for attack in (sky, *norms):
        yield replace(plain, attack=attack, member="optimised")
    smooth = replace(plain, encoder=Smoothed(encoder, sigma=sigma, n=copies))
    yield smooth
    yield replace(smooth, attack=sky, member="random")
    for attack in (sky, *norms):
        yield replace(smooth, attack=attack, member="optimised")
    for attack in (sky, norms[1]):
        yield replace(smooth, attack=attack, member="optimised", knowledge="adaptive", limit=few)
    for budget in COVERS:
        if budget != cover:
            for member in ("random", "optimised"):
                yield replace(plain, attack=replace(sky, max_cover=budget), member=member, limit=curve)
    for weight in NATURAL:
        yield replace(plain, attack=replace(sky, natural=weight), member="optimised", limit=curve)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The model folder, outside the repository; resumes.")] = WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 128 images.")] = 5000,
    seed: int = 0,
    device: str = "cpu",
    limit: Annotated[int | None, typer.Option(help="At most so many tiles, for a quick look.")] = None,
) -> None:
    """Train the retriever: about an hour and a quarter of one core."""
    from morgana.models.aid import train_aid

    train_aid(real_data("aid"), real_data("clouds"), out, steps, seed, device, limit)


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on where it stopped.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tiles a condition.")] = None,
    weights: Annotated[Path, typer.Option(help="What `train` wrote.")] = WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="Adam steps of CloudWeb.")] = 60,
    cover: Annotated[float, typer.Option(min=0.01, max=1, help="Mean opacity of the clouds on all tiles.")] = 0.12,
    few: Annotated[int, typer.Option(min=1, help="Tiles of the adaptive attacks, the dearest ones.")] = 120,
    curve: Annotated[int, typer.Option(min=1, help="Tiles of every point of the trade-off curves.")] = 160,
) -> None:
    """Run the study, print its table, and write pictures (trade-offs, contact sheet) and report.html beside it."""
    from morgana.eval.report import write_report
    from morgana.eval.studies import run_study, study

    if not (weights / "open_clip_model.safetensors").is_file():
        raise StoreError(f"there is no trained model in {weights}; train it: python experiments/aid_cloudweb.py train")
    sizes = {"weights": str(weights), "steps": steps, "cover": cover, "few": few, "curve": curve}
    made = study("aid_cloudweb", aid_cloudweb, sizes).limited(limit)
    run_study(made, out, limit=limit)
    write_report(out)
    Results(made.experiments, out.resolve()).show()


class Results:
    """The records of a run, and how natural its images look."""

    def __init__(self, experiments: Sequence[Experiment], out: Path) -> None:
        self.experiments, self.out = experiments, out
        self.records = {e: load(out / "cells" / e.id / "records.jsonl") for e in experiments}
        self.clean = experiments[0]
        self.tiles = {q.id: q.image for q in self.clean.corpus.queries()}
        self.looks = {e: self.look(e) for e in experiments}
        self.cut: dict[float, tuple[Any, tuple[str, ...]]] = {}
        self.aucs = {e: self.auc(e) for e in experiments}

    def look(self, experiment: Experiment) -> Look | None:
        """None for clean images."""
        images = self.judged(experiment)
        changed = {i: (self.tiles[i], path) for i, path in images.items() if i in self.tiles and path != self.tiles[i]}
        return look(changed) if changed else None

    def judged(self, experiment: Experiment) -> dict[str, Path]:
        own = {q.id: q.image for q in experiment.corpus.queries()}
        return {r.sample: self.out / r.image if r.image else own[r.sample] for r in self.records[experiment]}

    def values(self, experiment: Experiment, metric: str) -> dict[str, float | None]:
        return {r.sample: r.value("retrieved", metric) for r in self.records[experiment]}

    def figure(self, experiment: Experiment, metric: str) -> Estimate | None:
        return estimate(list(self.values(experiment, metric).values()), name=metric)

    def change(self, experiment: Experiment, metric: str = HIT) -> Estimate | None:
        """The paired difference from the clean images through the same encoder."""
        base = replace(experiment, corpus=self.clean.corpus, limit=self.clean.limit).clean
        if experiment.attack is None and cover(experiment) is None:
            return None
        before, after = self.values(base, metric), self.values(experiment, metric)
        shared = [s for s in after if s in before]
        return paired([before[s] for s in shared], [after[s] for s in shared], shared, name=metric)

    def auc(self, experiment: Experiment) -> tuple[Estimate | None, Estimate | None]:
        """The opacity maps told from random members of their family, and from real maps at the same cover."""
        mine, budget = self.looks[experiment], cover(experiment)
        if mine is None or budget is None or experiment.member.startswith("fixed"):
            return None, None
        other = self.random(budget)
        family = told_apart(mine, self.looks[other]) if other and experiment.member != "random" else None
        if experiment.attack is None:  # these are the real ones
            return family, None
        return family, separated((mine.maps, mine.groups), self.real(budget))

    def random(self, budget: float) -> Experiment | None:
        """The random clouds of this mean opacity on the undefended system."""
        found = (e for e in self.experiments if e.member == "random" and e.encoder == self.clean.encoder)
        return next((e for e in found if cover(e) == budget and self.looks[e]), None)

    def real(self, budget: float) -> tuple[Any, tuple[str, ...]]:
        if budget not in self.cut:
            self.cut[budget] = real_maps(real_data("clouds"), REAL, budget)
        return self.cut[budget]

    def show(self) -> None:
        from rich.console import Console
        from rich.table import Table

        heads = ("label hit@1", "label hit@5", "Weather@5", "share", "Δ Weather@5", "cover", "SSIM")
        title = "AID, per cent [95 %]; of an AUC of 0.5 the maps cannot be told apart"
        table = Table("condition", "defense", "n", *heads, "AUC from random", "AUC from real", title=title)
        for e in self.experiments:
            seen, (family, real) = self.looks[e], self.aucs[e]
            percents = [percent(self.figure(e, m)) for m in (FIRST, FIVE, HIT, SHARE)]
            natural = [percent(seen.cover if seen else None), plain(seen.ssim if seen else None)]
            row = [*percents, percent(self.change(e), signed=True), *natural, plain(family), plain(real)]
            table.add_row(name(e), defense(e), str(len(self.records[e])), *row)
        Console(width=230).print(table)
        self.curves()
        self.sheet()
        Console().print(f"{self.out}/tradeoff.png, naturalness.png, contact.png, report.html")

    def curves(self) -> None:
        """Success and naturalness of undefended clouds against the budget, and against the weight of naturalness."""
        budgets: dict[str, dict[str, dict[float, Estimate]]] = {}
        weights: dict[str, dict[str, dict[float, Estimate]]] = {}
        for e in self.experiments:
            budget = cover(e)
            if not isinstance(e.attack, CloudWeb) or budget is None or defense(e) != NONE or e.member[:5] == "fixed":
                continue
            if e.attack.natural == CloudWeb().natural:
                self.enter(budgets, e, budget)
            if budget == cover(self.middle) and e.member == "optimised":
                self.enter(weights, e, e.attack.natural)
        curves(budgets, "mean opacity", self.out / "tradeoff.png", "What a budget of cloud buys, and how it looks")
        curves(weights, "weight of naturalness", self.out / "naturalness.png", "What looking natural costs")

    @property
    def middle(self) -> Experiment:
        """The study's main attack."""
        return next(e for e in self.experiments if isinstance(e.attack, CloudWeb) and e.member == "optimised")

    def enter(self, panels: dict[str, dict[str, dict[float, Estimate]]], e: Experiment, x: float) -> None:
        kind, seen, (family, real) = "CloudWeb" if e.member == "optimised" else e.member, self.looks[e], self.aucs[e]
        for panel, curve, value in (
            ("Weather@5", kind, self.figure(e, HIT)),
            ("AUC (0.5: cannot be told apart)", f"{kind} from random", family),
            ("AUC (0.5: cannot be told apart)", f"{kind} from real", real),
            ("SSIM to the clean tile", kind, seen.ssim if seen else None),
        ):
            if value:
                panels.setdefault(panel, {}).setdefault(curve, {})[x] = value

    def sheet(self, tiles: int = 10) -> None:
        """The first tiles under each undefended condition, with what was found first and how much weather."""
        whole = [e for e in self.experiments if e.encoder == self.clean.encoder and e.limit == self.clean.limit]
        shown = [e for e in whole if set(self.values(e, HIT)) >= set(list(self.values(self.clean, HIT))[:tiles])]
        documents = {d.id: d for d in self.clean.corpus.documents()}
        by_id = {e: {r.sample: r for r in self.records[e]} for e in shown}
        images = {e: self.judged(e) for e in shown}
        rows = [
            [Shot(images[e][s], told(by_id[e][s], documents), bool(by_id[e][s].value("retrieved", HIT))) for e in shown]
            for s in list(by_id[self.clean])[:tiles]
        ]
        contact_sheet(rows, [name(e) for e in shown], self.out / "contact.png")


def told(record: Record, documents: Mapping[str, Any]) -> str:
    """How many of five are weather, and the first document."""
    first = documents[record.retrieved[0][0]]
    return f"{5 * (record.value('retrieved', SHARE) or 0):.0f}/5 weather: {first.metadata.get('title') or first.text}"


def cover(e: Experiment) -> float | None:
    """The mean opacity that the condition allows; None without clouds."""
    found: float | None = getattr(getattr(e.attack, "threat", e.corpus), "max_cover", getattr(e.corpus, "cover", None))
    return found


def name(e: Experiment) -> str:
    if isinstance(e.corpus, Clouded):
        return f"real clouds at {e.corpus.cover:.0%}"
    if e.attack is None:
        hazy = isinstance(e.corpus, Weathered) and isinstance(e.corpus.corpus, AID) and e.corpus.corpus.haze
        return f"hazy, {e.corpus.corpus.split}" if hazy else "clean"
    if isinstance(e.attack, CloudWeb):
        kind = {"optimised": "CloudWeb", "random": "random"}.get(e.member, e.member.replace("fixed:", "fixed "))
        weight = "" if e.attack.natural == CloudWeb().natural else f", natural {e.attack.natural:g}"
        return f"{kind} at {e.attack.max_cover:.0%}{weight}"
    return f"{'PGD' if e.member == 'optimised' else 'noise'} {255 * e.attack.threat.epsilon:.0f}/255"


def defense(e: Experiment) -> str:
    if not isinstance(e.encoder, Smoothed):
        return NONE
    return f"Smoothed, {e.knowledge}" if e.member == "optimised" else "Smoothed"


def percent(value: Estimate | None, signed: bool = False) -> str:
    if value is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * value.value:{sign}.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def plain(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


if __name__ == "__main__":
    app()
