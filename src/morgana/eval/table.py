"""The table of a study on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from morgana.eval.summary import Row, Summary


def print_table(summary: Summary, console: Console | None = None) -> None:
    """One line an experiment: its labels, then each headline figure in percent with its 95 % interval, and n."""
    (console or Console()).print(make(summary))


def make(summary: Summary) -> Table:
    table = Table(title=summary.name, title_justify="left", caption="percent [95 % interval]", caption_justify="left")
    for name in summary.cells[0].axes if summary.cells else ():
        table.add_column(name)
    for figure in summary.figures:
        table.add_column(f"{figure.title} {'↑' if figure.good else '↓'}", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    for cell in summary.cells:
        rows = [cell.figure(f) for f in summary.figures]
        count = max((row.estimate.n for row in rows if row), default=0)
        labels = [Text(label) for label in cell.axes.values()]  # Text: brackets in a label are no markup
        table.add_row(*labels, *(Text(spelled(row)) for row in rows), str(count))
    return table


def spelled(row: Row | None) -> str:
    if row is None:
        return "–"
    e = row.estimate
    return f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
