"""The `morgana` command: its sub-commands, and how it ends.

Exit status 0: done. 1: a mistake of the input, said in one line. 2: a command line that cannot be read.
130: stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from morgana.cli import asking, atlas, changing, demo, evaluating, exchanging, indexing, listing, training
from morgana.cli.output import Stopped, one_line, tell

app = typer.Typer(
    name="morgana",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in changing.COMMANDS:
    indexing.index.command()(command)
for name, exchange in exchanging.COMMANDS.items():
    indexing.index.command(name)(exchange)
for group in (demo, indexing, asking, evaluating, listing, training, atlas):
    app.add_typer(group.app)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"morgana {version('morgana')}")
        raise typer.Exit


@app.callback()
def morgana(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Build a multimodal RAG pipeline, then attack, defend and measure it.

    Parts are named by the call that builds them, as in Python:
    PGD(steps=40), Smoothed(OpenCLIP("atlas"), sigma=0.1). `morgana list` shows them all.

    \b
    Begin here:
      morgana demo --out demo
      morgana ask demo/atlas.index --image demo/tile.png "Which company operates the car park?"
      morgana index build FOLDER --out my.index
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, and leave the process with its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns about every fork
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")  # such images are refused by name
    sys.exit(run([word for word in words if word != "--debug"], "--debug" in words))


def run(words: Sequence[str], debug: bool) -> int:
    """The exit status; what went wrong is told on stderr, in one line unless `debug`."""
    try:
        status = app(list(words), prog_name="morgana", standalone_mode=False)
        sys.stdout.flush()
        return stopped("nothing is lost") if status == 130 else int(status or 0)
    except KeyboardInterrupt:
        return stopped("nothing is lost")
    except Stopped as error:
        return stopped(str(error))
    except BrokenPipeError:  # the reader of our output has gone: `morgana list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (typer.Abort, typer.TyperException) as error:
        return misread(error)
    except Exception as error:  # the last line of defence: a user should never meet a traceback unasked
        if debug:
            traceback.print_exc()
        return blame(error, debug)


def stopped(how: str) -> int:
    """Ctrl-C."""
    tell(f"stopped; {how}")
    return 130


def misread(error: Exception) -> int:
    """A command line that cannot be read."""
    message = error.format_message() + given(error) if isinstance(error, typer.TyperException) else "nothing was typed"
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "morgana"
    if message.startswith("Usage: "):  # nothing was typed after the command: its help is the answer
        tell(message)
    elif message:
        tell(f"error: {one_line(message)} (`{command} --help` shows what it takes)")
    return 2


def given(error: Exception) -> str:
    """The value that did not fit, which pydantic knows and typer does not say."""
    errors = getattr(error.__cause__, "errors", None)
    return f"; {errors()[0]['input']} was given" if errors else ""


def blame(error: Exception, debug: bool) -> int:
    from morgana.types import MorganaError

    text = one_line(str(error))
    if isinstance(error, MorganaError):
        tell(f"error: {text}")
    else:
        again = "" if debug else "; run again with --debug for the traceback"
        tell(f"error: {type(error).__name__}: {text}{again}")
    return 1
