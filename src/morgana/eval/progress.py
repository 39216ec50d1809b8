"""A bar on a terminal, one line a step in a pipe; both on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def steps(title: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Within the block, the function that is handed out says how many more of `total` are done."""
    console = Console(stderr=True)
    if not shown or done >= total:
        yield lambda count: None
        return
    if not console.is_terminal:
        console.print(f"{title}: {total - done} of {total} to do", highlight=False, markup=False)
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
