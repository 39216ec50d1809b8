"""BAIR's edit of whole rows in one compiled loop, which says what `bair.py` says, without gradients.

On a CPU an operation of torch that the rest of a layer does not use costs some 20 µs, as its code has left the
processor's caches, and BAIR's edit has forty of them; a row's arithmetic takes half as long as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]
F = TypeVar("F", bound=Callable[..., Any])

# written here and not taken from `bair`: what numba keeps is made anew when this file changes, and for no other's sake
LOWEST, HIGHEST = 1e-6, 100.0
FAINT = -80.0  # e to this is no weight
LEAST = 1e-12  # of what is divided by, or whose logarithm is taken
CLOSE, NEAR = 1e-5, 1e-2  # of an entropy, and of a scale: one step more squares both
TIGHT = 1e-7  # of a scale
STEPS = 60  # Newton's and halvings; on most rows four

# sums in any order and no error for a quotient, so that loops become vectors; infinity and NaN keep their meaning
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def compiled(function: F) -> F:
    """Compile it when it is first called, and keep that for other runs, beside this file or in the user's own cache."""
    try:
        made = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither can be written
        made = numba.njit(**OPTIONS)(function)
    return cast(F, made)


def edit(
    scores: Tensor,
    visual: slice,
    targets: tuple[Tensor, Tensor] | None,
    ends: tuple[Tensor, Tensor],
    alpha_v: float,
    alpha_t: float,
) -> Tensor:
    """Scores (B, H, R, N), nothing but visual columns and text, edited.

    `targets` are (B, H, 1, 1), None where `alpha_v` is 0; `ends` are those of `Layout.ends`.
    """
    wanted = targets or 2 * (scores.new_zeros(1, 1, 1, 1),)
    given, odds, sharp, over, slopes = (x.detach().float().contiguous().numpy() for x in (scores, *wanted, *ends))
    made = edited(given, odds, sharp, over, slopes, visual.start, visual.stop, float(alpha_v), float(alpha_t))
    return torch.from_numpy(made)


@compiled
def edited(
    scores: Floats,
    log_odds: Floats,
    sharp: Floats,
    over: Floats,
    slopes: Floats,
    start: int,
    stop: int,
    alpha_v: float,
    alpha_t: float,
) -> Floats:
    """Scores (B, H, R, N) whose visual columns are `start` to `stop` and whose others are text, edited."""
    batch, heads, rows, _ = scores.shape
    made = scores.copy()
    shape = np.empty(stop - start, np.float64)
    for b in range(batch):
        for h in range(heads):
            for r in range(rows):
                row, fresh = scores[b, h, r], made[b, h, r]
                if alpha_v > 0:
                    level = log_odds[b, h, 0, 0] + log_sum(row, start, stop)
                    level = level if abs(level) < math.inf else 0.0  # `isfinite` is folded away
                    mix(fresh[start:stop], shape, sharp[b, h, 0, 0], level, alpha_v)
                if alpha_t > 0:
                    lower(fresh, row, over[b], slopes[b], alpha_t)
    return made


@compiled
def lower(fresh: Floats, row: Floats, over: Floats, slopes: Floats, alpha_t: float) -> None:
    """Take the penalty of a row from `fresh`."""
    first = last = 0.0
    for n in range(len(row)):
        first += row[n] * over[n, 0]
        last += row[n] * over[n, 1]
    first, last = alpha_t * max(first, 0.0), alpha_t * max(last, 0.0)
    for n in range(len(row)):
        fresh[n] -= first * slopes[0, n] + last * slopes[1, n]


@compiled
def mix(seen: Floats, shape: Floats, sharp: float, level: float, alpha_v: float) -> None:
    """Move visual scores, written over, by `alpha_v` towards those of `sharp` whose weights add up to e to `level`."""
    spread = standing(seen, shape)
    scale = solve(shape, sharp, spread)
    shift = level - math.log(weigh(shape, scale)[0])
    for n in range(len(seen)):
        seen[n] = (1 - alpha_v) * seen[n] + alpha_v * (scale * shape[n] + shift)


@compiled
def standing(seen: Floats, shape: Floats) -> float:
    """Set `shape` to SiLU of the standardised scores, less the greatest of them; its variance."""
    count = len(seen)
    mean, spread = moments(seen)
    unit = 1 / math.sqrt(max(spread * count / max(1, count - 1), LEAST))
    for n in range(count):
        apart = (seen[n] - mean) * unit
        shape[n] = apart / (1 + power(-apart))
    top = shape.max()
    for n in range(count):
        shape[n] -= top
    return moments(shape)[1]


@compiled
def moments(row: Floats) -> tuple[float, float]:
    """Mean and variance."""
    mean = spread = 0.0
    for n in range(len(row)):
        mean += row[n]
    mean /= len(row)
    for n in range(len(row)):
        spread += (row[n] - mean) ** 2
    return mean, spread / len(row)


@compiled
def solve(shape: Floats, sharp: float, spread: float) -> float:
    """T of at most 100 with sharpness(softmax(T shape)) = sharp: Newton's steps in the logarithm of the entropy.

    They begin where it would end if entropy fell as it does at first, with `spread`, the variance of the shape, and
    halve the bracket where they leave it. The last step is not looked at: it is short, from an entropy that is CLOSE
    (on a plateau of the entropy, where a few tokens stand out, a step from there can be long).
    """
    most = math.log(max(2, len(shape)))
    asked = (1 - sharp) * most
    low, high = LOWEST, HIGHEST
    scale = min(max(math.sqrt(2 * sharp * most / max(spread, LEAST)), low), high)
    for _ in range(STEPS):
        total, first, second = weigh(shape, scale)
        mean = first / total
        entropy = max(math.log(total) - scale * mean, LEAST)
        if entropy > asked:
            low = scale
        else:
            high = scale
        fall = scale * (second / total - mean * mean)
        gap = math.log(entropy) - math.log(max(asked, LEAST))
        before, scale = scale, scale + gap * entropy / max(fall, LEAST)
        if not low < scale < high:
            scale = math.sqrt(low * high)
        elif abs(gap) < CLOSE and abs(scale - before) < NEAR * before:
            break
        if high - low < TIGHT * high:
            break
    return scale


@compiled
def weigh(shape: Floats, scale: float) -> tuple[float, float, float]:
    """Sums of the weights e to (scale shape), and of these times shape, and times its square."""
    total = first = second = 0.0
    for n in range(len(shape)):
        weight = power(scale * shape[n])
        total += weight
        first += weight * shape[n]
        second += weight * shape[n] * shape[n]
    return total, first, second


@compiled
def log_sum(row: Floats, start: int, stop: int) -> float:
    """Logarithm of the sum of e to what lies outside of `start` to `stop`; -inf where nothing does."""
    before, behind = row[:start], row[stop:]
    top = max(before.max() if start else -np.inf, behind.max() if len(behind) else -np.inf)
    total = 0.0
    for n in range(len(before)):
        total += power(before[n] - top)
    for n in range(len(behind)):
        total += power(behind[n] - top)
    return math.log(total) + top if total > 0 else -np.inf


@compiled
def power(x: float) -> float:
    """e to x of at least FAINT, within 3e-8: e to x/256, squared eight times; unlike `exp`, done to many at once."""
    x = max(x, FAINT) / 256
    made = 1 + x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8)))))))
    for _ in range(8):
        made *= made
    return made
