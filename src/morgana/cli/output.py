"""What a command shows: results on stdout, everything else on stderr; tables on a terminal and in a pipe alike."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from morgana.types import Hits

LONGEST = 600  # characters of an error
PIPE = 160  # columns of a table that nobody looks at on a terminal


def tell(text: str) -> None:
    """A line for the person at the keyboard, on stderr."""
    typer.echo(text, err=True)


def say(text: str = "") -> None:
    """A line of the result, on stdout."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """The result for a program, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def one_line(text: str) -> str:
    """The text on one line, without control characters, and not endless."""
    flat = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def console() -> Console:
    """A rich console on stdout, as wide as the terminal or COLUMNS; else wide enough for a table, without colours."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console()
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else PIPE
    return Console(width=width, no_color=True, force_terminal=False)


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table; the columns numbered in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    console().print(made)


def escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def hit_rows(hits: Hits) -> list[list[str]]:
    """Rank, score, topic, id and title of each hit."""
    return [
        [str(rank), f"{hit.score:.3f}", hit.document.metadata.get("topic", ""), hit.document.id, headline(hit)]
        for rank, hit in enumerate(hits, 1)
    ]


HIT_HEADS = ("rank", "score", "topic", "document", "title")


def headline(hit: Any, longest: int = 70) -> str:
    """A document's title, or how its text begins."""
    text = one_line(hit.document.metadata.get("title", "") or hit.document.text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def hit_json(hits: Hits) -> list[dict[str, Any]]:
    return [
        {"rank": rank, "id": h.document.id, "score": round(float(h.score), 6), "title": headline(h)}
        | {"metadata": dict(h.document.metadata)}
        for rank, h in enumerate(hits, 1)
    ]


class Stopped(Exception):
    """Ctrl-C, with how to go on."""


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Within the block Ctrl-C ends the command with status 130 and a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(how) from None
