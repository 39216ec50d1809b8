"""The cells of a study as tasks of a Ray cluster: indexes first, then attacked images, then the judging.

Each piece of work is done once, by whoever; results lie in the run's folder, which all workers must see under one path,
and are those of a run on one machine. A task whose worker dies is given to another, which goes on from the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from morgana.cluster import Cluster, built, spelled
from morgana.eval.bench import Bench
from morgana.eval.experiment import Experiment
from morgana.eval.progress import steps
from morgana.eval.records import load
from morgana.eval.runner import begun, run


class Work(NamedTuple):
    """What travels to a worker."""

    folder: str
    experiment: str  # its spec
    what: str  # index, attack or judge


UNITS = {"index": "indexes", "attack": "attacks", "judge": "cells"}


def spread(
    experiments: Sequence[Experiment], bench: Bench, cluster: Cluster, *, resume: bool = True, progress: bool = True
) -> dict[str, dict[str, float]]:
    """Carry out all experiments on the cluster; the seconds that each step of each took, by experiment id."""
    each = {e.id: e for e in experiments}
    for id in each:
        folder = bench.folder / "cells" / id
        if not resume and (count := len(load(folder / "records.jsonl"))):
            raise begun(folder, count)
    clean = {bench.index_folder(e.clean): e.clean for e in each.values()}
    attacked = {bench.attacked(e): e for e in each.values() if e.attack is not None}
    poisoned = {bench.index_folder(e): e for e in each.values() if bench.poison(e)}
    for what, some in (("index", clean), ("attack", attacked), ("index", poisoned)):
        carry_out(what, some.values(), bench.folder, cluster, progress)
    return dict(zip(each, carry_out("judge", each.values(), bench.folder, cluster, progress), strict=True))


def carry_out(
    what: str, experiments: Iterable[Experiment], folder: Path, cluster: Cluster, progress: bool
) -> list[dict[str, float]]:
    todo = [Work(str(folder), spelled(e), what) for e in experiments]
    done = []
    with steps(f"{what} on the cluster", len(todo), unit=UNITS[what], shown=progress) as advance:
        for seconds in cluster.map(work, todo):
            done.append(seconds)
            advance(1)
    return done


def work(asked: Work) -> dict[str, float]:
    """A task, in a worker; the seconds of its steps."""
    experiment: Experiment = built(asked.experiment)
    bench = bench_of(asked.folder)
    if asked.what == "index":
        bench.index(experiment)
    elif asked.what == "attack":
        bench.prepare(experiment, progress=False)
    else:
        return run(experiment, bench.folder, progress=False, bench=bench).seconds
    return {}


@cache
def bench_of(folder: str) -> Bench:
    """What a worker remembers between tasks of one run."""
    return Bench(Path(folder))
