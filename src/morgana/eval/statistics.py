"""Numbers with intervals: proportions, means and ratios by cluster, paired differences, McNemar.

Values are per-sample numbers with None where a metric does not apply; such samples are left out. Where
nothing is left the result is None. Tiles that were asked about several times are not independent, so whole
clusters are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from morgana.seeds import rng
from morgana.types import SpecError

Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Sequence[float | None]
DRAWS = 2000  # bootstrap resamples
AT_ONCE = 2_000_000  # numbers held while resampling
SAME = 1e-9  # means of clusters that differ by less are equal but for rounding


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval (of 95 % by default) and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


class Interval(NamedTuple):
    """Two-sided bounds, one a proportion."""

    low: Floats
    high: Floats


@dataclass(frozen=True)
class McNemar:
    """How many samples went from right to wrong and from wrong to right, and the exact two-sided p."""

    lost: int
    won: int
    p: float


def wilson(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> Interval:
    """Wilson's score interval, not corrected for continuity; broadcasts."""
    from scipy import stats  # takes a second, and every index that is opened looks up its kind among all parts

    k, n = counts(successes, trials)
    z = stats.norm.isf((1 - checked(confidence)) / 2)
    p, shrink = k / n, 1 + z**2 / n
    middle = (p + z**2 / (2 * n)) / shrink
    half = z / shrink * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Interval(np.where(k == 0, 0.0, middle - half), np.where(k == n, 1.0, middle + half))


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval: each bound misses with at most half of 1 - confidence; broadcasts."""
    alpha = (1 - checked(confidence)) / 2
    k, n = counts(successes, trials)
    return Interval(lower_bound(k, n, alpha), 1 - lower_bound(n - k, n, alpha))


def lower_bound(successes: ArrayLike, trials: ArrayLike, alpha: float) -> Floats:
    """Clopper and Pearson's one-sided lower bound, wrong with probability at most alpha; broadcasts.

    >>> round(float(lower_bound(480, 500, 0.001)), 6)
    0.925286
    """
    from scipy import stats

    k, n = counts(successes, trials)
    bound = stats.beta.ppf(checked(alpha), np.maximum(k, 1), n - k + 1)  # for k = n this is alpha ** (1 / n)
    return np.where(k == 0, 0.0, bound)


def proportion(successes: int, trials: int, confidence: float = 0.95) -> Estimate | None:
    """A proportion of independent trials with Wilson's interval; None without trials."""
    if trials == 0:
        return None
    low, high = wilson(successes, trials, confidence)
    return Estimate(successes / trials, float(low), float(high), trials)


def estimate(
    values: Values,
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    name: str = "",
) -> Estimate | None:
    """The mean, with Wilson's interval for independent 0/1 values, else with a clustered bootstrap."""
    return ratio(values, [1.0] * len(values), clusters, confidence=confidence, seed=seed, name=name)


def ratio(
    top: Values,
    bottom: Values,
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    name: str = "",
) -> Estimate | None:
    """sum(top) / sum(bottom) with an interval; precision, F1 and conditional rates are of this form.

    Independent 0/1 outcomes get Wilson's interval, everything else a percentile bootstrap over clusters.
    Outcomes that are all 0 or all 1 give the bootstrap nothing to resample, so they get Wilson's with one
    trial a cluster. Samples whose bottom is 0 are left out. `name` names the random stream, so two figures do
    not share their luck.
    """
    kept, names = complete((top, bottom), clusters)
    use = kept[1] > 0
    over, under, names = kept[0][use], kept[1][use], names[use]
    if not len(over):
        return None
    groups = np.unique(names, return_inverse=True)[1]
    distinct = int(groups.max()) + 1
    value = float(over.sum() / under.sum())
    binary = bool((under == 1).all() and np.isin(over, (0, 1)).all())
    if binary and (distinct == len(over) or value in (0.0, 1.0)):
        low, high = map(float, wilson(value * distinct, distinct, confidence))
    else:
        spread = resample(groups, over, under, seed, name)
        low, high = percentiles(spread, confidence)
    return Estimate(value, low, high, len(over))


def paired(
    before: Values,
    after: Values,
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    name: str = "",
) -> Estimate | None:
    """The mean of after - before on the same samples, with a clustered percentile bootstrap.

    Clusters that all changed by the same give the bootstrap nothing to resample. Wilson's lower bound w for n of n
    clusters then says how many at least are like them; the others may have changed by nothing or by twice as much, so
    the interval is the mean -+ (1 - w) times the mean absolute change, within [-1, 1] if the mean is. It is [0, 0] only
    where no sample changed at all.
    """
    (was, now), names = complete((before, after), clusters)
    if not len(was):
        return None
    change = now - was
    value = float(change.mean())
    groups = np.unique(names, return_inverse=True)[1]
    means = np.bincount(groups, change) / np.bincount(groups)
    if np.ptp(means) < SAME:
        others = 1 - float(wilson(len(means), len(means), confidence).low)
        half, end = others * float(np.abs(change).mean()), max(1.0, abs(value))
        low, high = max(value - half, -end), min(value + half, end)
    else:
        low, high = percentiles(resample(groups, change, np.ones_like(was), seed, name), confidence)
    return Estimate(value, low, high, len(was))


def mcnemar(before: Values, after: Values) -> McNemar:
    """McNemar's exact test of paired 0/1 outcomes: are losses and wins equally likely?"""
    from scipy import stats

    (was, now), _ = complete((before, after), None)
    if not np.isin((was, now), (0, 1)).all():
        raise SpecError("McNemar's test compares outcomes that are 0 or 1; use `paired` for other values")
    lost, won = int(((was == 1) & (now == 0)).sum()), int(((was == 0) & (now == 1)).sum())
    p = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    return McNemar(lost, won, float(p))


def resample(groups: NDArray[np.intp], over: Floats, under: Floats, seed: int, name: str) -> Floats:
    """sum(top) / sum(bottom) over `DRAWS` resamples of the clusters; draws without a bottom are left out."""
    top, bottom = np.bincount(groups, over), np.bincount(groups, under)
    size, draw = len(top), rng(seed, "bootstrap", name)
    done, rows = [], max(1, AT_ONCE // size)
    for start in range(0, DRAWS, rows):
        chosen = draw.integers(size, size=(min(rows, DRAWS - start), size))
        above, below = top[chosen].sum(1), bottom[chosen].sum(1)
        done.append(above[below > 0] / below[below > 0])
    return np.concatenate(done)


def percentiles(spread: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - checked(confidence)) / 2
    low, high = np.quantile(spread, (tail, 1 - tail))
    return float(low), float(high)


def complete(columns: Sequence[Values], clusters: Sequence[str] | None) -> tuple[list[Floats], NDArray[np.str_]]:
    """The columns as arrays without the rows where one is None, and the cluster of each row that is left."""
    rows = len(columns[0])
    names = [str(c) for c in clusters] if clusters is not None else [str(i) for i in range(rows)]
    lengths = {len(names), *map(len, columns)}
    if len(lengths) > 1:
        raise SpecError(f"columns of {sorted(lengths)} samples; values, and clusters if any, go sample by sample")
    kept = [i for i in range(rows) if all(column[i] is not None for column in columns)]
    arrays = [np.array([column[i] for i in kept], dtype=np.float64) for column in columns]
    if not all(np.isfinite(a).all() for a in arrays):
        raise SpecError("a value is NaN or infinite; a metric that does not apply gives None")
    return arrays, np.array([names[i] for i in kept], dtype=np.str_)


def counts(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if not ((k >= 0) & (k <= n) & (n > 0)).all():
        raise SpecError(f"{successes!r} of {trials!r}: wanted 0 <= successes <= trials and at least one trial")
    return k, n


def checked(probability: float) -> float:
    if not 0 < probability < 1:
        raise SpecError(f"{probability} is no confidence or error level; it lies between 0 and 1, as 0.95")
    return probability
