"""Rendering Atlas tiles, a process a core, against 500 tiles a second."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from _measure import Result, Setting

from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import site, view

WANTED = 500.0  # tiles a second on two cores
CORES = 2


def draw(first: int, count: int) -> float:
    """Seconds of processor time for these tiles."""
    start = time.process_time()
    for number in range(first, first + count):
        render(view(0, site(0, number), 0))
    return time.process_time() - start


def bench(setting: Setting) -> list[Result]:
    count = setting.choose(1000, 20)
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw, [0] * CORES, [8] * CORES))  # imports and tables are paid once
        start = time.perf_counter()
        spent = list(pool.map(draw, range(0, count * CORES, count), [count] * CORES))
        seconds = time.perf_counter() - start
    rate, alone = count * CORES / seconds, count * CORES / sum(spent)
    detail = f"{rate:.0f} tiles/s in {CORES} processes on {os.cpu_count()} cores, {alone:.0f} a core-second"
    return [Result("Atlas tiles / 500 a second", rate / WANTED, 1.0, True, detail)]
