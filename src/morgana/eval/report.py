"""One self-contained HTML file about a run: no network, no script, nothing that a reader could not check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from morgana.eval.cards import Album
from morgana.eval.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, charts
from morgana.eval.folder import read_run
from morgana.eval.grounds import Explaining
from morgana.eval.labels import NOTHING
from morgana.eval.records import read_json
from morgana.eval.runner import SCHEMA
from morgana.eval.scoring import Figure
from morgana.eval.summary import Cell, Row, Summary, interval
from morgana.eval.verdict import p_value, verdict
from morgana.files import write_bytes
from morgana.generation.explaining import Explainer


@dataclass(frozen=True)
class Line:
    """A row of the main table: labels, and for each headline figure its row or None."""

    labels: tuple[str, ...]
    rest: str  # the labels after the first that say something, for a narrow screen
    figures: tuple[Row | None, ...]
    attacked: bool
    defended: bool


def write_report(folder: Path | str, explainer: Explainer | None = None, device: str | None = None) -> Path:
    """Write `report.html` into a run's folder and return its path.

    With an `explainer` its samples show what the answers rest on: heat over the image, and a shade on every sentence
    that was read; the generators of the run are loaded and asked again. Raises StoreError if the folder holds no
    finished run.
    """
    folder = Path(folder)
    raw, summary = read_run(folder)
    page = render(view(folder, raw, summary, explainer, device))
    path = folder / "report.html"
    write_bytes(path, page.encode())
    return path


def render(values: dict[str, Any]) -> str:
    """Everything that is put into the page is escaped; the template holds the only markup."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, points=points, p_value=p_value, tight=tight)
    template = files("morgana.eval").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(**values)


def view(
    folder: Path,
    raw: dict[str, Any],
    summary: Summary,
    explainer: Explainer | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    samples = read_json(folder / "samples.json", SCHEMA)["samples"]
    documents = read_json(folder / "documents.json", SCHEMA)["documents"]
    topic = topics(raw)
    explain = Explaining(explainer, {e["id"]: e for e in raw["experiments"]}, device) if explainer is not None else None
    return {
        "title": summary.name,
        "about": [" ".join(block.split()) for block in re.split(r"\n\s*\n", summary.about) if block.strip()],
        "ran": [("study", summary.name), *ran(summary)],
        "written": raw["written"],
        "versions": raw["versions"],
        "verdict": verdict(summary),
        "warnings": summary.warnings,
        "axes": tuple(summary.cells[0].axes) if summary.cells else (),
        "figures": summary.figures,
        "tested": any(r.mcnemar for c in summary.cells for f in summary.figures if (r := c.figure(f))),
        "lines": [line(cell, summary.figures) for cell in summary.cells],
        "charts": charts(summary),
        "splits": [split(s, summary) for s in raw["propagation"]],
        "recoveries": [{**r, "labels": labelled(r["id"], summary)} for r in raw["recorruption"]],
        "cards": Album(folder, summary, samples, documents, explain).cards(topic),
        "explainer": repr(explainer) if explainer is not None else "",
        "cells": summary.cells,
        "unrefined": {e["id"] for e in raw["experiments"] if e["configuration"]["stages"] == "()"},
        "topic": topic,
        "plot": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    }


def line(cell: Cell, figures: list[Figure]) -> Line:
    others = list(cell.axes.items())[1:]
    rest = ", ".join(f"{axis} {label}" for axis, label in others if label not in ("none", NOTHING, "both"))
    return Line(
        tuple(cell.axes.values()), rest, tuple(cell.figure(f) for f in figures), bool(cell.attack), cell.defended
    )


def labelled(id: str, summary: Summary) -> tuple[str, ...]:
    return next(tuple(c.axes.values()) for c in summary.cells if c.id == id)


def ran(summary: Summary) -> Iterator[tuple[str, str]]:
    """What was run, as the undefended experiments spell it: corpus, encoder and generator, the first of several."""
    for number, name in enumerate(("corpus", "encoder", "generator")):
        bare = [c for c in summary.cells if not c.defended] or summary.cells
        parts = list(dict.fromkeys(part for c in bare if (part := argument(c.spec, number, name))))
        if parts:
            yield name, parts[0] + (f" and {len(parts) - 1} more" if parts[1:] else "")


def argument(spec: str, number: int, name: str) -> str:
    """An argument of a call as it is written there, by its place or its name; empty where it is not given."""
    try:
        call = ast.parse(spec, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    if not isinstance(call, ast.Call):
        return ""
    named = next((k.value for k in call.keywords if k.arg == name), None)
    found = call.args[number] if number < len(call.args) else named
    return (ast.get_source_segment(spec, found) if found else None) or ""


def topics(raw: dict[str, Any]) -> str:
    """The topic that the study counts as hijacked."""
    return str(raw["experiments"][0]["configuration"]["topic"]).strip("'") if raw["experiments"] else ""


def split(raw: dict[str, Any], summary: Summary) -> dict[str, Any]:
    """A propagation, its parts as estimates in the order in which they are read."""
    cell = next(c for c in summary.cells if c.id == raw["id"])
    names = {
        "retrieval": "through retrieval alone",
        "image": "through the seen image alone",
        "together": "only both together",
        "total": "in all",
    }
    parts = [(label, interval(raw[name])) for name, label in names.items()]
    return {"labels": list(cell.axes.items()), "title": raw["title"], "parts": parts}


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A signed difference in percentage points, with a real minus."""
    return f"{100 * value:+.1f}".replace("-", "−")


def tight(text: str) -> str:
    """Numbers stay with their sign."""
    return text.replace(" %", "\u00a0%").replace("p < ", "p\u00a0<\u00a0").replace("p = ", "p\u00a0=\u00a0")
