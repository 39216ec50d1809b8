"""Search on a GPU, where FAISS was built for it and finds one; what a GPU's FAISS cannot do is done on the CPU."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morgana.index.kinds._base import Bits, Faiss, Searcher, library, why
from morgana.index.vectors import Rows
from morgana.types import SpecError

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
MOST = 2_048  # rows that FAISS finds on a GPU
SLACK = 1e-3  # queries of length 1 are rounded to float16 there: a cosine is off by 2^-11 at most


class OnGPU:
    """An index on a GPU, with the same one `here`, on the CPU, for selected rows and for more than 2,048 found."""

    final = False

    def __init__(self, moved: Searcher, here: Searcher) -> None:
        self.moved, self.here = moved, here
        self.size, self.selects, self.slack = here.size, here.selects, here.slack + SLACK

    def search(self, queries: Rows, k: int, only: Bits | None = None) -> tuple[Rows, NDArray[np.int64]]:
        if only is None and k <= MOST:
            try:
                return self.moved.search(queries, k)
            except RuntimeError as error:  # lists to probe, memory, …
                refused("this search", error)
        return self.here.search(queries, k, only)


def on(index: Any, device: str) -> Faiss | None:
    """A copy of a FAISS index on a GPU; None where no GPU is asked for or found, or FAISS refuses, with a warning."""
    number = asked(device)
    if number is None:
        return None
    try:
        return Faiss(library().index_cpu_to_gpu(scratch(number), number, index))
    except RuntimeError as error:  # HNSW, SQ8, long codes, memory, …
        refused(type(index).__name__, error)
    return None


@cache
def scratch(number: int) -> Any:
    """The memory that all indexes on one GPU work in."""
    return library().StandardGpuResources()


def refused(what: str, error: RuntimeError) -> None:
    warnings.warn(f"FAISS refuses {what} on the GPU ({why(error)}); it is searched on the CPU", stacklevel=2)


def either(moved: Faiss | None, here: Searcher) -> Searcher:
    return here if moved is None else OnGPU(moved, here)


def asked(device: str) -> int | None:
    """The GPU that `device` names, by FAISS's number; None for the CPU. SpecError where there is no such device."""
    device = str(device)  # torch's too
    if not DEVICE.fullmatch(device):
        raise SpecError(f"device={device!r}; an index is searched on 'cpu', 'cuda' or one GPU of several, 'cuda:1'")
    count = 0 if device == "cpu" else getattr(library(), "get_num_gpus", int)()  # FAISS for CPUs has no such function
    if not count:
        return None
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        raise SpecError(f"device={device!r}; the GPUs that FAISS finds are 'cuda:0' to 'cuda:{count - 1}'")
    return number
