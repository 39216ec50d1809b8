"""Batches drawn by a worker while the model learns; batch s depends on the seed and s alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class Feed(torch.utils.data.IterableDataset[Any]):
    """`make(step)` for every step from `first` on."""

    def __init__(self, make: Callable[[int], Any], first: int, steps: int) -> None:
        self.make, self.first, self.steps = make, first, steps

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.first, self.steps):
            yield self.make(step)


def feed(make: Callable[[int], Item], first: int, steps: int) -> Iterator[Item]:
    """The items of `make`, made ahead of time by one worker process."""
    loader = torch.utils.data.DataLoader(Feed(make, first, steps), batch_size=None, num_workers=1, prefetch_factor=4)
    return iter(loader)


def behind(work: Path) -> int:
    """Steps that the checkpoint in `work` has behind it."""
    from safetensors import safe_open

    path = work / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(str(path), framework="pt") as file:
        return int(file.metadata()["step"])
