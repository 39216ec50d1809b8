"""A study: a Python function that yields experiments, and the folder that comes of running it.

`cloudweb` names the function `cloudweb` in `experiments/cloudweb.py`; its docstring says what to expect. The folder:

    run.json            what was run, with which libraries, and every figure with its interval
    samples.json        what was asked; documents.json: what was retrieved
    cells/ID/           one experiment: experiment.json, records.jsonl, result.json
    attacks/KEY/        attacked images as judged, their opacity maps, and what was changed
    tiles/              the clean images; indexes/: the indexes, which later runs reuse
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from morgana.arguments import fits
from morgana.cluster import Cluster
from morgana.eval.bench import Bench
from morgana.eval.cells import spread
from morgana.eval.experiment import Experiment
from morgana.eval.folder import write_run
from morgana.eval.progress import note
from morgana.eval.records import load
from morgana.eval.runner import Run, run, titles
from morgana.eval.summary import Summary
from morgana.files import locked
from morgana.spec import literal, nearest, parse
from morgana.types import SpecError


@dataclass(frozen=True)
class Study:
    """A named sequence of experiments; the first is what the others are compared with where no clean run is theirs."""

    name: str
    about: str
    experiments: tuple[Experiment, ...]

    def limited(self, limit: int | None) -> Study:
        """The same study on at most `limit` samples."""
        if limit is None:
            return self
        return replace(self, experiments=tuple(replace(e, limit=least(e.limit, limit)) for e in self.experiments))


def run_study(
    study: Study,
    out: Path | str,
    *,
    resume: bool = True,
    progress: bool = True,
    limit: int | None = None,
    cluster: Cluster | None = None,
) -> Summary:
    """Run every experiment and write the folder; interrupted, it continues where it stopped.

    On a `cluster` cells are tasks of its workers, which must see `out` under the same path. StoreError when another
    process is running a study in `out`.
    """
    study, bench = study.limited(limit), Bench(Path(out).resolve())
    runs: dict[str, Run] = {}
    with locked(bench.folder, "is running a study in"):
        if resume and progress and (others := strangers(study, bench)):
            note(others)
        if cluster is not None:
            seconds = spread(study.experiments, bench, cluster, resume=resume, progress=progress)
            for experiment in study.experiments:
                made = run(experiment, bench.folder, progress=progress, bench=bench)
                runs[experiment.id] = replace(made, seconds=seconds.get(experiment.id, {}))
        for number, (experiment, title) in enumerate(zip(study.experiments, titles(study.experiments), strict=True), 1):
            if experiment.id not in runs:
                name = f"{title} (cell {number} of {len(study.experiments)})"
                runs[experiment.id] = run(
                    experiment, bench.folder, resume=resume, progress=progress, bench=bench, name=name
                )
        return write_run(study.name, study.about, list(runs.values()), bench)


def strangers(study: Study, bench: Bench) -> str:
    """What to say of cells in the folder that the study does not have; empty if there are none."""
    mine, cells = {e.id for e in study.experiments}, bench.folder / "cells"
    count = sum(p.is_dir() and p.name not in mine for p in cells.glob("*"))
    if not count:
        return ""
    done = sum(judged(e, bench) for e in study.experiments)
    others = f"{count} of other settings left alone"
    return f"going on in {bench.folder}: {done} of this study's {len(mine)} cells done, {others}"


def judged(experiment: Experiment, bench: Bench) -> bool:
    """Every sample of the experiment has a record."""
    there = {r.sample for r in load(bench.folder / "cells" / experiment.id / "records.jsonl")}
    return bool(there) and all(sample.id in there for sample in bench.samples(experiment))


def load_study(name_or_path: str | Path, **options: object) -> Study:
    """The study of this name, or in this Python file, made with `options`.

    Raises SpecError naming the known studies, a file without the function, or an option that it does not take.
    """
    name, function = opened(str(name_or_path))
    parameters(name, function, options)
    return study(name, function, options)


def spelled_study(name_or_path: str | Path, options: Mapping[str, str]) -> Study:
    """The study made with options as they are typed; SpecError also for a value that is none for its option."""
    name, function = opened(str(name_or_path))
    taken = parameters(name, function, options)
    return study(name, function, {option: read(option, text, taken[option]) for option, text in options.items()})


def opened(name_or_path: str) -> tuple[str, Callable[..., Iterable[Experiment]]]:
    """A study's name and function."""
    path = locate(name_or_path)
    function = getattr(execute(path), path.stem, None)
    if not callable(function):
        raise SpecError(f"{path} has no function {path.stem}(); a study is a function named like its file")
    return path.stem, function


def parameters(name: str, function: Callable[..., object], options: Iterable[str]) -> Mapping[str, inspect.Parameter]:
    """What the study takes; SpecError if one of the options is not among it."""
    taken = inspect.signature(function).parameters
    for option in options:
        if option not in taken:
            known = list(taken)
            raise SpecError(
                f"the study {name} has no option {option!r}{nearest(option, known)}; it has {', '.join(known)}"
            )
    return taken


PLAIN = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text in quotes"}


def read(option: str, text: str, parameter: inspect.Parameter) -> object:
    """The value that `text` spells; SpecError naming the option and what it wants, told by its type or its default.

    A word that spells no part is a text.
    """
    default, kind = parameter.default, parameter.annotation
    if kind is parameter.empty:
        kind = type(default)
    kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    what = PLAIN.get(kind)
    unsaid = default in (parameter.empty, None, "") or isinstance(default, bool)
    like = "" if unsaid else f" like {literal(default)}"
    try:
        value: object = parse(text)
    except SpecError as error:
        if not what:
            raise SpecError(f"{option}={text}: {error}") from None
        value = text
    if what and value is not None and not fits(value, kind):
        raise SpecError(f"{option}={text}: {option} wants {what}{like}")
    return value


def study(name: str, function: Callable[..., Iterable[Experiment]], options: Mapping[str, object]) -> Study:
    experiments = tuple(dict.fromkeys(function(**options)))
    if not experiments:
        raise SpecError(f"the study {name} yields no experiment with {dict(options)!r}")
    return Study(name, inspect.getdoc(function) or inspect.getdoc(inspect.getmodule(function)) or "", experiments)


def studies() -> dict[str, Path]:
    """Every study by name: `experiments/` of the working folder, of the repository, of the installed package.

    A study is a function that is named like its file.
    """
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.py")):
            hidden = path.name.startswith((".", "_")) or not path.is_file()
            if not hidden and f"\ndef {path.stem}(" in path.read_text(encoding="utf-8", errors="replace"):
                found.setdefault(path.stem, path)
    return found


def folders() -> Iterator[Path]:
    package = Path(__file__).resolve().parents[1]
    yield from (Path("experiments"), package.parents[1] / "experiments", package / "experiments")


def locate(name: str) -> Path:
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise SpecError(f"there is no study file {name}; name a study ({', '.join(studies())}) or a Python file")
    known = studies()
    if name not in known:
        raise SpecError(
            f"no study is called {name!r}{nearest(name, list(known))}; there are {', '.join(known) or 'none'}"
        )
    return known[name]


def execute(path: Path) -> ModuleType:
    """The module of a study file, which is the user's own code."""
    found = importlib.util.spec_from_file_location(f"morgana_study_{path.stem}", path)
    if found is None or found.loader is None:
        raise SpecError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # a dataclass looks its own module up there
    found.loader.exec_module(module)
    return module


def least(*limits: int | None) -> int | None:
    return min((n for n in limits if n is not None), default=None)


def alone(experiment: Experiment) -> Study:
    """One experiment as a study, beside its clean counterpart: what `morgana eval SPEC` runs."""
    both: Sequence[Experiment] = (experiment.clean, experiment) if experiment.attack is not None else (experiment,)
    return Study(type(experiment.attack).__name__ if experiment.attack else "clean", repr(experiment), tuple(both))
