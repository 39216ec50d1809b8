"""Make attacked images: a member of the attack's threat for each image, saved as the PNG that will be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from morgana.attacks._saved import reread
from morgana.attacks.composed import Covering
from morgana.attacks.target import Surroundings, Target, aim
from morgana.corpus.images import load, save, save_cover
from morgana.eval.experiment import Experiment, bare, short_hash
from morgana.eval.metrics.closing import closing
from morgana.eval.records import read_json, write_json
from morgana.eval.samples import Sample, named
from morgana.seeds import seeded
from morgana.types import Document, Params, Pixels, Query, SpecError

SCHEMA = 1
AT_ONCE = 16  # images attacked in one batch, which are always the same ones


@dataclass(frozen=True)
class Unit:
    """One image to attack, for the sake of one query or of all queries that show it."""

    name: str
    image: Path
    query: Query
    relevant: Mapping[str, int]


@runtime_checkable
class Handmade(Protocol):
    """A threat with named fixed members."""

    def fixed(self, name: str, clean: Pixels) -> Params: ...


def units(experiment: Experiment, samples: Sequence[Sample], documents: Sequence[Document]) -> list[Unit]:
    """What this experiment attacks, in sample order: tiles, questions (for goals that read them) or documents."""
    if experiment.surface == "corpus":
        wanted = {id for s in samples for id in s.relevant}
        chosen = [(d, d.image) for d in documents if d.id in wanted and d.image is not None]
        if not chosen:
            raise SpecError(
                "surface='corpus' attacks images of relevant documents, and this corpus has none; use 'query'"
            )
        return [Unit(f"{named(image)}-{short_hash(d.id)}", image, Query(d.id), {d.id: 1}) for d, image in chosen]
    found: dict[str, Unit] = {}
    for sample in samples:
        image = sample.query.image
        if image is None:
            raise SpecError(
                f"sample {sample.id!r} has no image, so surface='query' has nothing to attack; use 'corpus'"
            )
        name = unit_name(experiment, sample)
        relevant = {**(found[name].relevant if name in found else {}), **sample.relevant}
        query = sample.query if asks(experiment) else Query(sample.tile, "", image)
        found[name] = Unit(name, image, query, relevant)
    return list(found.values())


def asks(experiment: Experiment) -> bool:
    """The goal depends on the question, not on the image alone."""
    return getattr(getattr(experiment.attack, "goal", None), "victim", "encoder") == "generator"


def unit_name(experiment: Experiment, sample: Sample) -> str:
    return f"{sample.tile}-{short_hash(sample.id)}" if asks(experiment) else sample.tile


def key(experiment: Experiment) -> str:
    """Names everything an attacked image depends on, so that cells with the same victim share it."""
    e = experiment
    knows = (e.victim, e.reader if asks(e) else None) if e.member == "optimised" else (None, None)
    scope = (
        e.corpus,
        e.index,
        e.embed,
        e.surface,
        e.kinds,
        e.limit,
        e.seed,
        e.k,
        *(() if e.each is None else (e.each,)),
    )
    weights = [getattr(bare(p), "fingerprint", "") for p in knows if p is not None]
    return short_hash(repr(e.attack), e.member, *map(repr, (*knows, *scope)), *weights)


def make(experiment: Experiment, batch: Sequence[Unit], number: int, around: Surroundings, folder: Path) -> None:
    """Attack one batch, and save each image, its opacity map if it has one, and what was changed.

    StoreError when a saved file is no longer a member of the threat.
    """
    clean = torch.cat([load(unit.image) for unit in batch])
    with seeded(experiment.seed, "attack", number):
        pixels, params, alpha = members(experiment, batch, clean, around)
    threat = experiment.attack.threat
    for row, unit in enumerate(batch):
        path, cover = folder / f"{unit.name}.png", None if alpha is None else alpha[row : row + 1]
        save(pixels[row : row + 1], path)
        if cover is not None:
            save_cover(cover, path)
        mine = {name: value[row : row + 1] for name, value in params.items()}
        saved, _ = reread(path, clean[row : row + 1], threat, mine)
        change = measure(clean[row : row + 1], saved, cover)
        write_json(folder / f"{unit.name}.json", {"schema": SCHEMA, **change})


def members(
    experiment: Experiment, batch: Sequence[Unit], clean: Pixels, around: Surroundings
) -> tuple[Pixels, Params, Tensor | None]:
    """The member that the experiment names, one row an image, and its opacity (B, 1, H, W) if the threat covers."""
    attack: Any = experiment.attack
    if experiment.member == "optimised":
        made = attack.attack(clean, believed(experiment), sight(experiment, batch, clean, around))
        return made.pixels, made.params, made.alpha
    if experiment.member == "random":
        rows = [one(attack.threat, clean[i : i + 1], unit.name) for i, unit in enumerate(batch)]
        params = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    elif isinstance(attack.threat, Handmade):
        params = attack.threat.fixed(experiment.member.removeprefix("fixed:"), clean)
    else:
        raise SpecError(f"{attack.threat!r} has no fixed members; use member='random' or 'optimised'")
    with torch.no_grad():
        covers = isinstance(attack.threat, Covering)
        alpha = attack.threat.alpha(params, (clean.shape[-2], clean.shape[-1])) if covers else None
        return attack.threat.finish(clean, params), params, alpha


def one(threat: Any, clean: Pixels, name: str) -> Params:
    with seeded(torch.initial_seed(), "random", name):
        params: Params = threat.project(clean, threat.start(clean))
        return params


def believed(experiment: Experiment) -> Any:
    """The part that the goal attacks, as the attacker believes it to be."""
    victim = experiment.reader if asks(experiment) else experiment.victim
    if victim is None:
        raise SpecError(f"{experiment.attack.goal!r} attacks a generator, and this experiment has none")
    return victim


def sight(experiment: Experiment, batch: Sequence[Unit], clean: Pixels, around: Surroundings) -> Target:
    queries, relevant = [u.query for u in batch], {u.query.id: u.relevant for u in batch}
    return aim(around, experiment.victim, clean, queries, relevant, experiment.k)


def measure(clean: Pixels, attacked: Pixels, alpha: Tensor | None) -> dict[str, float]:
    """What the saved file changed, in pixel units: largest and root-mean-square change, range, mean opacity."""
    line = closing(clean, attacked)
    rms = float((attacked - clean).square().mean().sqrt())
    found = {
        "linf": line.linf,
        "l2": line.l2,
        "rms": rms,
        "low": line.low,
        "high": line.high,
        "nan": float(line.broken),
    }
    return found if alpha is None else {**found, "cover": float(alpha.mean())}


def measured(folder: Path, name: str) -> dict[str, float]:
    """What `make` wrote down about an image."""
    return {k: float(v) for k, v in read_json(folder / f"{name}.json", SCHEMA).items() if k != "schema"}
