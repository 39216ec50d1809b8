"""Run the console sessions of a page and write down what they print; `--check` only compares.

A session is an indented block with `$` before each command. The commands of a page run in order, in one folder that is
empty at first. Blocks without `$` are examples for the reader's own files and machines, and are left as they are.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from morgana.cli.app import run

SESSION = re.compile(r"^    \$ (?P<command>(?:.*\\\n)*.*\n)(?P<output>(?:    (?!\$ ).*\S.*\n)*)", flags=re.M)
VARYING = re.compile(r"[\d.,]+(?= a second\b)|(?<=^latency_ms   )[\d.]+$", flags=re.M)  # by machine and by hour
WIDTH = 116  # columns of an output; longer lines are broken


def replayed(page: str) -> str:
    """The page with what its commands print now; an output that differs in figures that vary stays as it is."""

    def session(found: re.Match[str]) -> str:
        before = re.sub("^    ", "", found["output"], flags=re.M)
        now = abridged(printed(found["command"]), before)
        if VARYING.sub("N", now) == VARYING.sub("N", before):
            return found[0]
        return f"    $ {found['command']}" + textwrap.indent(now, "    ")

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return SESSION.sub(session, page)


def printed(command: str) -> str:
    """What a command prints, without blank lines; Morgana's run in this process, which has loaded its libraries."""
    if not command.startswith("morgana "):
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        text = done.stdout
    else:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            run(shlex.split(command.replace("\\\n", ""))[1:], debug=False)
        text = said.getvalue()
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line.rstrip(), WIDTH, break_on_hyphens=False)]
    return "".join(f"{line}\n" for line in lines)


def abridged(text: str, before: str) -> str:
    """The text as short as it was `before`: if that has `...`, only lines that begin with a word it shows are kept."""
    if "..." not in before.splitlines():
        return text
    words = {line.split()[0] for line in before.splitlines()}
    kept = "".join(line if line.split()[0] in words else "...\n" for line in text.splitlines(keepends=True))
    return re.sub(r"(^\.\.\.\n)+", "...\n", kept, flags=re.M)


def main() -> int:
    stale = 0
    for name in [word for word in sys.argv[1:] if word != "--check"]:
        path = Path(name)
        before = path.read_text(encoding="utf-8")
        after = replayed(before)
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
        elif before != after:
            sys.stderr.write(f"{name} shows what its commands do not print: run `make docs`\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
