"""`morgana list`: the parts there are, from the registry."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any

import typer

from morgana.cli.inputs import AsJSON
from morgana.cli.output import say, say_json, table

app = typer.Typer()


@app.command("list", short_help="List the parts, or explain one.")
def list_parts(
    name: Annotated[
        str | None, typer.Argument(metavar="[KIND|PART]", help="A kind (attack, threat, …) or one part.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the README.")] = False,
    json: AsJSON = False,
) -> None:
    """List the parts that can be named in a spec, or explain one of them.

    \b
    Examples:
      morgana list
      morgana list attack
      morgana list PGD
      morgana list --json
    """
    from morgana.spec import KINDS, components, find, nearest, registry
    from morgana.types import SpecError

    if name is not None and name not in KINDS:
        parts = {part.lower(): part for part in registry()}
        if name.islower() and name not in parts:
            raise SpecError(f"no kind or part is called {name!r}{nearest(name, [*KINDS, *parts])}; see `morgana list`")
        return explain(find(parts.get(name.lower(), name)), json)
    kinds = [name] if name else list(KINDS)
    found = [(kind, cls) for kind in kinds for cls in components(kind)]
    if json:
        say_json([describe(kind, cls) for kind, cls in found])
    elif markdown:
        say(as_markdown(found))
    else:
        table("", ("kind", "part", "what it is"), [[kind, call(cls), summary(cls)] for kind, cls in found])


def as_markdown(found: list[tuple[str, type[Any]]]) -> str:
    """A Markdown table of (kind, part) pairs."""
    rows = [f"| {kind} | `{call(cls)}` | {summary(cls).replace('|', chr(92) + '|')} |" for kind, cls in found]
    return "\n".join(["| kind | part | what it is |", "|---|---|---|", *rows])


def explain(cls: type[Any], json: bool) -> None:
    from morgana.spec import KINDS, components

    kind = next(kind for kind in KINDS if cls in components(kind))
    if json:
        say_json(describe(kind, cls))
        return
    say(f"{call(cls)}  ({kind}, {cls.__module__})\n")
    say(inspect.getdoc(cls) or "")
    if arguments(cls):
        table("", ("argument", "type", "default"), [[a["name"], a["type"], a["default"]] for a in arguments(cls)])


def describe(kind: str, cls: type[Any]) -> dict[str, Any]:
    about = {"kind": kind, "name": cls.__name__, "call": call(cls), "summary": summary(cls)}
    return about | {"module": cls.__module__, "arguments": arguments(cls)}


def arguments(cls: type[Any]) -> list[dict[str, str]]:
    """Name, type and default of each argument, as source; the default of one that must be given is empty."""
    from dataclasses import MISSING, fields

    from morgana.spec import literal

    found = []
    for f in fields(cls):
        given = f.default_factory() if f.default_factory is not MISSING else f.default
        default = "" if given is MISSING else literal(given)
        if f.init:
            found.append({"name": f.name, "type": str(f.type), "default": default})
    return found


def call(cls: type[Any], most: int = 3) -> str:
    """The part with its first few arguments: PGD(steps=40, rate=0.1, …)."""
    shown = [a["name"] + (f"={a['default']}" if a["default"] else "") for a in arguments(cls)]
    return f"{cls.__name__}({', '.join(shown[:most] + ['…'] * (len(shown) > most))})"


def summary(cls: type[Any]) -> str:
    """The first sentence of the part's docstring, or what stands before its colon."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    head = re.split(r"(?<!\beq)\. (?=[A-Z`(])", text)[0].rstrip(".")
    return re.split(r"; (?![^\[(]*[\])])", head)[0] if len(head) > 140 else head
