"""The command line: every command's `--help` shows an example."""

from morgana.cli.app import main

__all__ = ["main"]
