"""`morgana eval` and `morgana report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morgana.cli import inputs
from morgana.cli.inputs import Address, AsJSON, BatchSize, Device, EngineName, Gpus
from morgana.cli.output import resumable, say, say_json, table

if TYPE_CHECKING:
    from morgana.eval.studies import Study
    from morgana.eval.summary import Summary
    from morgana.generation.explaining import Explainer

app = typer.Typer()


@app.command("eval", short_help="Run a study, clean and attacked.")
def evaluate(
    study: Annotated[
        str, typer.Argument(metavar="STUDY|SPEC", help="A study's name or Python file, or one Experiment(…).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the run.")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the study; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many samples.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in --out.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Where all randomness comes from.")] = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus: Gpus = 0.0,
    batch_size: BatchSize = None,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Run a study, clean and attacked, on the same samples; write records, figures and report.html.

    \b
    Examples:
      morgana eval cloudweb --out runs/cloudweb --limit 100
      morgana eval cloudweb --out runs/cloudweb --limit 100 --resume
      morgana eval cloudweb --out /shared/cloudweb --engine ray --address 10.0.0.1:6379 --gpus 1
      morgana eval 'Experiment(Atlas(), OpenCLIP("atlas"), attack=CloudWeb(), member="optimised")' --out runs/one
    """
    with resumable("the same command with --resume goes on where it was"):
        from morgana.eval.studies import run_study

        chosen = read_study(study, options or [])
        settings = {"device": device, "batch_size": batch_size}
        experiments = tuple(inputs.placed(e, **settings) for e in chosen.experiments)
        if seed is not None:
            experiments = tuple(replace(e, seed=seed) for e in experiments)
        chosen = replace(chosen, experiments=experiments)
        cluster = inputs.cluster(engine, address, gpus)
        summary = run_study(chosen, out, resume=resume, limit=limit, cluster=cluster)
        page = write_page(out)
    show(summary, out, page, json)


@app.command(short_help="Print a run's table and write report.html.")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    explain: Annotated[
        str | None, typer.Option("--explain", help="Show what answers rest on: TAM(), Rollout(), EAGLE(), MSEA().")
    ] = None,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Print a run's table, and write its report.html: one file, without network.

    With --explain the samples get heat maps over the image, and sentences of the articles are shaded by how much less
    likely the answer is without them.

    \b
    Examples:
      morgana report runs/cloudweb
      morgana report runs/cloudweb --explain "TAM()"
    """
    from morgana.eval.folder import read_run

    _, summary = read_run(run)
    explainer = inputs.kind_of("explainer", explain, device) if explain else None
    show(summary, run, write_page(run, explainer, device), json)


def read_study(text: str, options: list[str]) -> Study:
    """A study by name or file, made with `options`; or one experiment beside its clean counterpart."""
    from morgana.eval.experiment import Experiment
    from morgana.eval.studies import alone, spelled_study
    from morgana.spec import parse
    from morgana.types import SpecError

    if "(" not in text:
        return spelled_study(text, dict(map(option, options)))
    made = parse(text)
    if not isinstance(made, Experiment):
        raise SpecError(f"{text!r} is no experiment; name a study, or write Experiment(corpus, encoder, …)")
    if options:
        raise SpecError(f"--set {options[0]} is for studies; change the spec instead")
    return alone(made)


def option(text: str) -> tuple[str, str]:
    """A name and the text of a value from NAME=VALUE."""
    from morgana.types import SpecError

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SpecError(f"--set {text} is not NAME=VALUE; write --set steps=40")
    return name, value


def write_page(out: Path, explainer: Explainer | None = None, device: str | None = None) -> Path:
    from morgana.eval.report import write_report

    return write_report(out, explainer, device)


def show(summary: Summary, out: Path, page: Path, json: bool) -> None:
    """The verdict, the table of headline figures with intervals, and where the rest is."""
    from morgana.eval.verdict import verdict

    if json:
        say_json(as_json(summary, out, page))
        return
    for sentence in verdict(summary):
        say(sentence)
    heads, rows = figures_table(summary)
    table("", heads, rows)
    for warning in summary.warnings:
        say(f"doubt: {warning}")
    say(f"records and figures: {out}")
    say(f"report: {page}")


def figures_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """A row for each experiment: its labels, the headline figures with their 95 % intervals, and n."""
    from morgana.eval.verdict import spread

    shown = summary.figures
    labels = list(dict.fromkeys(name for cell in summary.cells for name in cell.axes))
    heads = [*labels, *(f"{f.title} [95 %]" for f in shown), "n"]
    rows = []
    for cell in summary.cells:
        found = [cell.figure(f) for f in shown]
        n = max((row.estimate.n for row in found if row), default=0)
        values = [spread(row.estimate) if row else "–" for row in found]
        rows.append([*(cell.axes.get(name, "") for name in labels), *values, str(n)])
    return heads, rows


def as_json(summary: Summary, out: Path, page: Path) -> dict[str, Any]:
    from morgana.eval.summary import to_json
    from morgana.eval.verdict import verdict

    about = {"study": summary.name, "run": str(out), "report": str(page), "verdict": verdict(summary)}
    return about | {"warnings": list(summary.warnings), "experiments": [to_json(c) for c in summary.cells]}
