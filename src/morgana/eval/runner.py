"""Run experiments: attack, retrieve, refine, answer, score; resumable at any moment.

What is judged is what was saved: an attacked image exists only as the PNG in the run's folder, and clean and attacked
queries then go the same way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from morgana.eval.bench import Bench
from morgana.eval.experiment import Experiment, bare, reseeded
from morgana.eval.labels import NOTHING, axes
from morgana.eval.progress import steps
from morgana.eval.records import Record, append, load, ranking, read_json, write_json
from morgana.eval.samples import Sample
from morgana.eval.scoring import mean, score
from morgana.pipeline import Pipeline
from morgana.seeds import seeded
from morgana.spec import whole
from morgana.types import Answer, Hits, StoreError

SCHEMA = 1
AT_ONCE = 16  # samples judged in one batch; always the same ones, so a resumed run repeats itself exactly


@dataclass(frozen=True)
class Run:
    """An experiment that was carried out: its records in sample order, and the seconds that each step took now."""

    experiment: Experiment
    folder: Path
    records: tuple[Record, ...]
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = True,
    progress: bool = True,
    bench: Bench | None = None,
    name: str = "",
) -> Run:
    """Judge every sample that has no record yet, and return all records.

    `out` is the run's folder, which experiments of one study share; records lie in `out/cells/ID/records.jsonl`.
    With `resume=False` a cell that has records already is refused with StoreError. Interrupt it at any moment: the next
    call goes on where this one stopped, and ends in the same records. Progress tells of it as `name`.
    """
    bench = bench or Bench(Path(out))
    folder = bench.folder / "cells" / experiment.id
    path = folder / "records.jsonl"
    done = {r.sample: r for r in load(path)}
    if done and not resume:
        raise begun(folder, len(done))
    guard(experiment, folder)
    clock: dict[str, float] = {}
    name = name or titles([experiment])[0]
    samples = bench.samples(experiment)
    batches = [samples[i : i + AT_ONCE] for i in range(0, len(samples), AT_ONCE)]
    if any(s.id not in done for s in samples):
        with timed(clock, "attack"):
            bench.prepare(experiment, progress=progress, name=name)
        with steps(f"judging {name}", len(samples), len(done), unit="questions", shown=progress) as advance:
            for batch in batches:
                missing = [s.id for s in batch if s.id not in done]
                if missing:
                    fresh = [r for r in judge(experiment, batch, bench, clock) if r.sample in missing]
                    append(path, fresh)
                    done.update({r.sample: r for r in fresh})
                    advance(len(fresh))
    return Run(experiment, folder, tuple(done[s.id] for s in samples), clock)


def titles(experiments: Sequence[Experiment]) -> list[str]:
    """The experiments in words, as in their table: 'CloudWeb, defense Smoothed, attacker adaptive'."""
    return [
        ", ".join(
            [
                labels.get("attack") or axes([experiment])[0]["attack"],
                *(f"{axis} {label}" for axis, label in labels.items() if axis != "attack" and tells(label)),
            ]
        )
        for experiment, labels in zip(experiments, axes(experiments), strict=True)
    ]


def tells(label: str) -> bool:
    return label not in ("none", "both", NOTHING)


def begun(folder: Path, count: int) -> StoreError:
    return StoreError(f"{folder} holds {count} records already; pass --resume, or another --out")


def guard(experiment: Experiment, folder: Path) -> None:
    """Write down what the cell is; StoreError if records under the same name were made with other parts or weights."""
    path, now = folder / "experiment.json", identity(experiment)
    if not path.exists():
        write_json(path, {"schema": SCHEMA, "spec": repr(experiment), **now})
        return
    then = read_json(path, SCHEMA)
    for name, value in now.items():
        if then.get(name) != value:
            raise StoreError(
                f"{folder} was begun with {name} {then.get(name)}, and this is {value}; "
                "remove that folder or use another --out"
            )


def identity(experiment: Experiment) -> dict[str, str]:
    """What a spec leaves open: the fields that have their defaults, and the weights behind the names."""
    found = {"encoder weights": experiment.encoder.fingerprint}
    if (weights := getattr(bare(experiment.generator), "fingerprint", None)) is not None:
        found["generator weights"] = weights
    return {**found, "settings": whole(experiment)}


def judge(experiment: Experiment, batch: Sequence[Sample], bench: Bench, clock: dict[str, float]) -> list[Record]:
    """Records of one batch; scores are averaged over the repeats, lists and answers are those of the first."""
    rounds = []
    for number in range(experiment.repeats):
        with seeded(experiment.seed, "judge", batch[0].id, number):
            rounds.append(look(experiment, batch, bench, clock, number))
    retrieved, refined, answers = rounds[0]
    scores = [score(experiment, batch, *seen) for seen in rounds]
    return [
        Record(
            sample=sample.id,
            cluster=sample.cluster,
            kind=sample.kind,
            image=bench.judged(experiment, sample),
            retrieved=ranking(retrieved[row]),
            refined=ranking(refined[row]),
            answer=answers[row].text if answers is not None else None,
            scores=mean([round_[row] for round_ in scores]),
            perturbation=bench.perturbation(experiment, sample),
        )
        for row, sample in enumerate(batch)
    ]


def look(
    experiment: Experiment, batch: Sequence[Sample], bench: Bench, clock: dict[str, float], number: int
) -> tuple[list[Hits], list[Hits], list[Answer] | None]:
    """Hits, refined hits and answers; each part sees the attacked image only if the attack reaches it."""
    encoder, generator = reseeded(experiment.encoder, number), reseeded(experiment.generator, number)
    found = bench.queries(experiment, batch, reached=experiment.reach != "generation")
    seen = bench.queries(experiment, batch, reached=experiment.reach != "retrieval")
    pipeline = Pipeline(bench.retriever(experiment, encoder), experiment.stages, generator)
    with timed(clock, "retrieve"):
        retrieved = bench.retrieve(experiment, encoder, found)
    with timed(clock, "refine"):
        refined = pipeline.refine(found, retrieved)
    with timed(clock, "generate"):
        answers = None if generator is None else bench.answer(generator, seen, refined)
    return retrieved, refined, answers


@contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        clock[name] = clock.get(name, 0.0) + time.perf_counter() - start
