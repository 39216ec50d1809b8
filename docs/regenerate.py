"""Write the generated parts of the README: the tables of commands and parts. `--check` only compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

from morgana.cli.app import app
from morgana.cli.listing import as_markdown
from morgana.spec import KINDS, components

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> dict[str, str]:
    """Every command, as typed, with the first sentence of its help."""
    found: dict[str, str] = {}

    def walk(command: object, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name] = " ".join(str(getattr(command, "help", "")).split("\n\n")[0].split())
        for word, sub in (inner or {}).items():
            walk(sub, f"{name} {word}")

    walk(typer.main.get_command(app), "morgana")
    return found


def generated() -> dict[str, str]:
    rows = [f"| `{name}` | {text} |" for name, text in commands().items()]
    return {
        "commands": "\n".join(["| command | what it does |", "|---|---|", *rows]),
        "parts": as_markdown([(kind, cls) for kind in KINDS for cls in components(kind)]),
    }


def regenerated(text: str) -> str:
    """The text with everything between `<!-- name -->` and `<!-- /name -->` written anew."""
    for name, made in generated().items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, t=made: m[1] + t + "\n" + m[2], text, flags=re.S
        )
    return text


def main() -> int:
    before = README.read_text(encoding="utf-8")
    after = regenerated(before)
    if "--check" not in sys.argv:
        README.write_text(after, encoding="utf-8")
    elif before != after:
        sys.stderr.write("README.md is out of date: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
