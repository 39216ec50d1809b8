"""A bar on a terminal, one line a step in a pipe; both on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def note(text: str) -> None:
    """One line on stderr, however long."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def steps(
    title: str, total: int, done: int = 0, *, unit: str = "", shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Within the block, the function that is handed out says how many more of `total` are done."""
    console = Console(stderr=True)
    if not shown or done >= total:
        yield lambda count: None
        return
    if not console.is_terminal:
        whole = f"{total} {unit}".strip()
        note(f"{title}: {total - done} of {whole} to do")
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
