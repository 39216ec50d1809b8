"""The folder of a run: what is written when all cells are judged, and read again by the report."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from morgana.eval.bench import Bench
from morgana.eval.experiment import Experiment
from morgana.eval.propagation import CELLS, cells, propagation
from morgana.eval.records import Record, read_json, write_json
from morgana.eval.recovery import recoveries
from morgana.eval.runner import SCHEMA, Run
from morgana.eval.scoring import headline
from morgana.eval.summary import Summary, from_json, numbers, summarise, to_json
from morgana.eval.suspicion import doubts
from morgana.files import storing
from morgana.spec import whole

LIBRARIES = ("morgana", "torch", "open_clip_torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy")


def write_run(name: str, about: str, runs: Sequence[Run], bench: Bench) -> Summary:
    """Summarise the runs, and write run.json, a result.json for each cell, samples, documents and clean tiles."""
    experiments = [run.experiment for run in runs]
    records = {run.experiment.id: run.records for run in runs}
    plain = summarise(experiments, records, name, about)
    summary = replace(plain, warnings=tuple(str(d) for d in doubts(experiments, plain, records)))
    common = {"schema": SCHEMA, "written": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions()}
    listed = []
    for run, cell in zip(runs, summary.cells, strict=True):
        described = {**configuration(run), **to_json(cell)}
        write_json(run.folder / "result.json", {**common, **described})
        listed.append(described)
    whole = {
        "study": name,
        "about": about,
        "warnings": list(summary.warnings),
        "propagation": splits(experiments, records),
        "recorruption": recoveries(experiments, records),
    }
    write_json(bench.folder / "run.json", {**common, **whole, "experiments": listed})
    write_json(bench.folder / "samples.json", {"schema": SCHEMA, "samples": asked(experiments, bench)})
    write_json(bench.folder / "documents.json", {"schema": SCHEMA, "documents": shelved(runs)})
    return summary


def configuration(run: Run) -> dict[str, Any]:
    """Everything that the run depended on, as specs that can be parsed, and how long each step took."""
    e = run.experiment
    return {
        "configuration": {f.name: whole(getattr(e, f.name)) for f in fields(e)},
        "seeds": {"experiment": e.seed},
        "n": len(run.records),
        "seconds": {name: round(spent, 3) for name, spent in run.seconds.items()},
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found


def splits(experiments: Sequence[Experiment], records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """Propagation of every attack whose four cells were run, for each headline metric of the answer."""
    found = []
    for experiment in experiments:
        if experiment.attack is None or experiment.reach != "both" or experiment.surface != "query":
            continue
        four = {name: records.get(e.id) for name, e in cells(experiment).items()}
        if any(four[name] is None for name in CELLS):
            continue
        known = {name: seen for name, seen in four.items() if seen is not None}
        for figure in headline(experiment):
            split = propagation(known, figure.metric, figure.stage) if figure.stage == "answer" else None
            if split:
                parts = {f.name: numbers(getattr(split, f.name)) for f in fields(split)}
                found.append({"id": experiment.id, **asdict(figure), **parts})
    return found


def asked(experiments: Sequence[Experiment], bench: Bench) -> dict[str, Any]:
    """Every sample of any experiment, with its clean image copied into `tiles/`."""
    found: dict[str, Any] = {}
    for sample in (s for e in experiments for s in bench.samples(e)):
        if sample.id in found:
            continue
        found[sample.id] = {
            "question": sample.query.text,
            "kind": sample.kind,
            "cluster": sample.cluster,
            "references": list(sample.references),
            "relevant": sorted(sample.relevant),
            "tile": copy(sample.query.image, bench.folder / "tiles", sample.tile, bench.folder),
        }
    return found


def copy(image: Path | None, folder: Path, name: str, root: Path) -> str | None:
    if image is None:
        return None
    path = folder / f"{name}{image.suffix.lower()}"
    if not path.exists():
        with storing(path):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, path)
    return path.relative_to(root).as_posix()


def shelved(runs: Sequence[Run]) -> dict[str, Any]:
    """Title, opening and topic of every document that was retrieved or read."""
    seen = {id for run in runs for r in run.records for id, _ in (*r.retrieved, *r.refined)}
    corpora = {repr(run.experiment.corpus): run.experiment.corpus for run in runs}
    return {
        d.id: {"title": d.metadata.get("title", ""), "text": d.text[:280], "topic": d.metadata.get("topic", "")}
        for corpus in corpora.values()
        for d in corpus.documents()
        if d.id in seen
    }


def read_run(folder: Path) -> tuple[dict[str, Any], Summary]:
    """run.json, raw and as the summary that it holds; parts that no longer exist do no harm."""
    raw = read_json(folder / "run.json", SCHEMA)
    return raw, Summary(raw["study"], raw["about"], tuple(map(from_json, raw["experiments"])), tuple(raw["warnings"]))
