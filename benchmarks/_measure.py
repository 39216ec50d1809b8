"""Interleaved timings, and what they are compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler that counts memory is talkative
import torch

from morgana.corpus.atlas import Atlas
from morgana.corpus.images import load


@dataclass(frozen=True)
class Setting:
    """What the benchmarks run on; `tiny` only shows that they run."""

    encoder: str  # for OpenCLIP(…)
    generator: str  # for HF(…)
    tiny: bool
    folder: Path  # for what they write
    long: bool = False  # also the longest prompts

    def choose(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Result:
    """A ratio, and the target that it should not miss."""

    name: str
    ratio: float
    target: float
    more_is_better: bool = False
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.ratio >= self.target if self.more_is_better else self.ratio <= self.target

    def __str__(self) -> str:
        sign = "≥" if self.more_is_better else "≤"
        return (
            f"{'OK  ' if self.ok else 'slow'}  {self.ratio:7.3f}  {sign} {self.target:<5g}  {self.name}  {self.detail}"
        )


def fastest(rounds: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Seconds of the fastest of `rounds` runs of each, taken in turns so that a slow minute hits them all."""
    found = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def peak_bytes(run: Callable[[], object]) -> int:
    """What torch held at once during `run`, beyond what it held before: on the GPU if there is one."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True) as seen:
        run()
    changes = [(e.start_ns(), e.nbytes()) for e in seen.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate((size for _, size in sorted(changes, key=lambda c: c[0])), initial=0))


def tiles(count: int) -> list[Path]:
    return list(Atlas(sites=count, weather="clear").tiles())


def batches(paths: list[Path], size: int) -> Iterator[torch.Tensor]:
    """Ready tensors."""
    for start in range(0, len(paths), size):
        yield torch.cat([load(path) for path in paths[start : start + size]])
