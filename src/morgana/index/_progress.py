"""Progress on a terminal as a bar, in a pipe as one line every ten seconds; always on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 10.0  # seconds between lines in a pipe


@contextmanager
def progress(title: str, total: int | None, done: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more are done."""
    if not shown:
        yield lambda more: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with (bar if console.is_terminal else lines)(console, title, total, done) as advance:
        yield advance


@contextmanager
def bar(console: object, title: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    from rich import progress as rich
    from rich.console import Console

    assert isinstance(console, Console)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=total, completed=done)
        yield lambda more: shown.advance(task, more)


@contextmanager
def lines(console: object, title: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console

    assert isinstance(console, Console)
    started, last, count = time.monotonic(), time.monotonic(), done

    def tell() -> None:
        rate = (count - done) / max(time.monotonic() - started, 1e-9)
        of = "" if total is None else f" of {total}"
        left = f", {duration((total - count) / rate)} left" if total and rate and count < total else ""
        console.print(f"{title}: {count}{of}, {rate:.0f} a second{left}", highlight=False)

    def advance(more: int) -> None:
        nonlocal count, last
        count += more
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            tell()

    yield advance
    tell()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
