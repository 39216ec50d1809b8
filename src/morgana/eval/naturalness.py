"""Does it still look like weather? Cover, SSIM, and whether a classifier tells one kind of cloud map from another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor
from torch.nn import functional

from morgana.eval.statistics import DRAWS, Estimate
from morgana.seeds import rng
from morgana.types import Pixels, SpecError

Floats: TypeAlias = NDArray[np.float64]
WINDOW, SPREAD = 11, 1.5  # pixels: Wang et al.'s Gaussian window
STABLE = (0.01**2, 0.03**2)  # their C₁ and C₂ for a range of 1
FIELD = 64  # side at which maps are compared
RINGS = 12  # of the spectrum
QUANTILES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
RIDGE = 1.0
FOLDS = 5


def ssim(first: Pixels, second: Pixels) -> Tensor:
    """Structural similarity (Wang et al., 2004) of images in [0, 1], (B,); the mean over channels and whole windows.

    An 11 × 11 Gaussian window of σ = 1.5, without padding: scikit-image's value with `gaussian_weights=True` and
    `use_sample_covariance=False`.
    """
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[2:]) < WINDOW:
        raise SpecError(
            f"SSIM of {tuple(first.shape)} and {tuple(second.shape)}; wanted equal (B, C, H, W) of 11 pixels or more"
        )
    line = torch.exp(-0.5 * ((torch.arange(WINDOW).double() - WINDOW // 2) / SPREAD) ** 2).to(first.device)
    line = line / line.sum()

    def local(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        means = functional.conv2d(functional.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
        return means.reshape(*values.shape[:2], *means.shape[2:])

    x, y = first.double(), second.double()
    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    shared = local(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + STABLE[0]) / (mean_x**2 + mean_y**2 + STABLE[0])
    structure = (2 * shared + STABLE[1]) / (var_x + var_y + STABLE[1])
    return (light * structure).flatten(1).mean(1)


def features(maps: Tensor) -> Floats:
    """(B, F) of opacity maps (B, 1, H, W): spectrum, histogram and gradients of the shape, and its strength.

    The spectrum is the log power in rings of frequency of the map made to mean 0 and variance 1; the histogram is
    quantiles; gradients are log moments of slopes and bends, whose tails show hard edges. The mean opacity is left
    out: it is a budget, and printed on its own.
    """
    small = functional.interpolate(maps.double(), (FIELD, FIELD), mode="bilinear", antialias=True)
    centred = small - small.mean((1, 2, 3), keepdim=True)
    strength = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
    shape = centred / strength.clamp_min(1e-6)
    return np.concatenate(
        [
            rings(shape),
            torch.quantile(shape.flatten(1), torch.tensor(QUANTILES).double(), dim=1).T.numpy(),
            edges(shape),
            torch.cat([strength.flatten(1), small.flatten(1).amax(1)[:, None]], 1),
        ],
        axis=1,
    )


def rings(shape: Tensor) -> Floats:
    """(B, RINGS) log power in rings of frequency, evenly spaced in its logarithm."""
    window = torch.hann_window(FIELD, periodic=False, dtype=torch.float64)
    power = torch.fft.fft2(shape[:, 0] * window[:, None] * window).abs().square()
    axis = torch.fft.fftfreq(FIELD, 1 / FIELD).double()
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    bounds = np.geomspace(0.99, FIELD / 2**0.5 + 0.01, RINGS + 1).tolist()
    inside = [(radius >= low) & (radius < high) for low, high in pairwise(bounds)]
    kept = [mask for mask in inside if mask.any()]
    return torch.stack([power[:, mask].mean(1) for mask in kept], 1).clamp_min(1e-9).log().numpy()


def edges(shape: Tensor) -> Floats:
    """(B, 8) log mean, mean square and tails of slopes and bends."""
    slope = torch.cat([shape.diff(dim=2)[..., :, :-1].flatten(1), shape.diff(dim=3)[..., :-1, :].flatten(1)], 1).abs()
    bend = torch.cat([shape.diff(n=2, dim=2).flatten(1), shape.diff(n=2, dim=3).flatten(1)], 1).abs()
    tails = torch.tensor([0.95, 0.99]).double()
    found = [
        torch.cat([v.mean(1, keepdim=True), v.square().mean(1, keepdim=True), torch.quantile(v, tails, dim=1).T], 1)
        for v in (slope, bend)
    ]
    return torch.cat(found, 1).clamp_min(1e-6).log().numpy()


def tell_apart(
    first: Tensor,
    second: Tensor,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """How well a classifier tells the first maps (B, 1, H, W) from the second: the AUC, with 0.5 for not at all.

    Ridge logistic regression on `features`, each map judged by a model that saw no map of its group (its tile, or the
    real map it was cut from), and a percentile bootstrap over groups. Below 0.5 is luck.
    """
    names = np.array([*map(str, groups[0]), *map(str, groups[1])] if groups else range(len(first) + len(second)))
    if len(names) != len(first) + len(second) or len(np.unique(names)) < 2 * folds:
        raise SpecError(
            f"{len(first)} and {len(second)} maps in {len(np.unique(names))} groups for {folds} folds; "
            "give a group for each map, and at least two groups a fold"
        )
    labels = np.repeat((1.0, 0.0), (len(first), len(second)))
    values = np.concatenate([features(first), features(second)])
    scores = cross_validated(values, labels, names, folds, seed)
    draws = resampled_auc(scores, labels, names, seed)
    low, high = np.quantile(draws, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Estimate(auc(scores, labels), float(low), float(high), len(labels))


def cross_validated(values: Floats, labels: Floats, groups: NDArray[np.str_], folds: int, seed: int) -> Floats:
    """Out-of-fold log odds of label 1; groups are dealt to the folds whole."""
    distinct, place = np.unique(groups, return_inverse=True)
    fold = rng(seed, "naturalness", "folds").permutation(len(distinct))[place] % folds
    scores = np.zeros(len(labels))
    for number in range(folds):
        train, test = fold != number, fold == number
        if len(np.unique(labels[train])) < 2:
            raise SpecError("a fold leaves only one kind of map to learn from; give more groups of both")
        middle, spread = values[train].mean(0), values[train].std(0) + 1e-9
        weights = logistic((values[train] - middle) / spread, labels[train])
        scores[test] = (values[test] - middle) / spread @ weights[1:] + weights[0]
    return scores


def logistic(values: Floats, labels: Floats, ridge: float = RIDGE) -> Floats:
    """Intercept and weights of ridge logistic regression; the kinds weigh the same however many there are."""
    weight = np.where(labels > 0, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    design = np.column_stack([np.ones(len(values)), values])

    def loss(beta: Floats) -> tuple[float, Floats]:
        odds = design @ beta
        error = weight * (1 / (1 + np.exp(-np.clip(odds, -500, 500))) - labels)
        penalty = ridge * np.concatenate([[0.0], beta[1:]])
        value = (weight * (np.logaddexp(0, odds) - labels * odds)).sum() + 0.5 * penalty @ beta
        return float(value), design.T @ error + penalty

    found = optimize.minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    result: Floats = found.x
    return result


def auc(scores: Floats, labels: Floats) -> float:
    """The chance that a random map of label 1 scores above one of label 0, ties counting half (Mann and Whitney)."""
    ones = labels > 0
    count, rest = int(ones.sum()), int((~ones).sum())
    return float((stats.rankdata(scores)[ones].sum() - count * (count + 1) / 2) / (count * rest))


def resampled_auc(scores: Floats, labels: Floats, groups: NDArray[np.str_], seed: int, draws: int = DRAWS) -> Floats:
    """AUCs of `draws` bootstrap samples of whole groups; those with one kind of map only are left out."""
    _, place = np.unique(groups, return_inverse=True)
    count = int(place.max()) + 1
    source, found = rng(seed, "naturalness", "bootstrap"), []
    order = np.argsort(scores, kind="stable")
    ranked, ones = place[order], labels[order] > 0
    _, tied = np.unique(scores[order], return_inverse=True)
    for _ in range(draws):
        weight = np.bincount(source.integers(0, count, count), minlength=count)[ranked].astype(float)
        yes, no = np.bincount(tied, weight * ones), np.bincount(tied, weight * ~ones)
        if yes.sum() and no.sum():
            found.append((yes * (np.cumsum(no) - no / 2)).sum() / (yes.sum() * no.sum()))
    return np.array(found)
