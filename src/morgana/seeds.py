"""Randomness from a named scope: no result depends on what ran before it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *scope: object) -> int:
    """A 63-bit seed that depends on `seed` and every name in `scope`, the same on every machine.

    >>> derive(0, "poison", "doc-1") == derive(0, "poison", "doc-1") != derive(0, "poison", "doc-2")
    True
    """
    digest = hashlib.blake2b(repr((seed, *map(str, scope))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rng(seed: int, *scope: object) -> np.random.Generator:
    """A NumPy generator of its own for the scope."""
    return np.random.default_rng(derive(seed, *scope))


@contextmanager
def seeded(seed: int, *scope: object) -> Iterator[int]:
    """Seed Python, NumPy and torch (every device) for the block, and put their states back afterwards."""
    value = derive(seed, *scope)
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.manual_seed(value)
        try:
            yield value
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
