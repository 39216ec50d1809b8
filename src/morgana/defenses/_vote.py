"""Majority among answers: two clusters of their embeddings, and the medoid of the larger (SmoothGuard)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from morgana.types import Encoder

DIGITS = 9  # to which distances are compared, so that ties are ties on every machine
ROUNDS = 100  # of Lloyd's iteration
EXACT = 12  # different answers up to which every split is tried: 2^11


@dataclass(frozen=True)
class Audit:
    """Everything a vote saw. Clusters are numbered by first appearance among the candidates."""

    candidates: tuple[str, ...]  # the answer to each noisy copy, then to the image as it came
    labels: tuple[int, ...]  # the cluster of each candidate, 0 or 1
    sizes: tuple[int, int]
    agreement: float  # share of the candidates in the larger cluster
    chosen: str  # one of the candidates


def vote(candidates: Sequence[str], encoder: Encoder) -> Audit:
    """The candidate nearest in cosine to the centroid of the larger of two clusters.

    A tie of the sizes goes to the cluster of the first candidate, and a tie of the cosines to the earlier
    one. Equal texts are embedded once and weigh as often as they came; if all embed alike there is one
    cluster.
    """
    counts = Counter(candidates)
    texts = list(counts)  # in order of first appearance
    if len(texts) == 1:
        return Audit(tuple(candidates), (0,) * len(candidates), (len(candidates), 0), 1.0, texts[0])
    vectors = encoder.encode_text(texts).detach().double().cpu()
    weights = torch.tensor([counts[text] for text in texts], dtype=torch.float64)
    label = two_means(vectors, weights)
    size = [int(weights[label == which].sum()) for which in (0, 1)]
    larger = 0 if size[0] >= size[1] else 1
    inside = label == larger
    centroid = (weights * inside) @ vectors
    near = cosine_similarity(vectors, centroid.unsqueeze(0)).round(decimals=DIGITS)
    chosen = texts[int(near.masked_fill(~inside, -torch.inf).argmax())]
    labels = dict(zip(texts, label.tolist(), strict=True))
    share = size[larger] / len(candidates)
    return Audit(tuple(candidates), tuple(labels[text] for text in candidates), (size[0], size[1]), share, chosen)


def two_means(points: Tensor, weights: Tensor) -> Tensor:
    """The cluster, 0 or 1, of each of (N, D) weighted points; point 0 is in cluster 0. No randomness.

    Exact for up to `EXACT` points; for more, the best of Lloyd's iteration from every pair of points as
    centres (memory grows with N², N being the number of different answers). The least within-cluster sum of
    squares wins, the first of equals.
    """
    size = len(points)
    points = torch.linalg.qr(points.T).R.T  # the same distances in at most N dimensions
    first, second = torch.combinations(torch.arange(size)).unbind(1)
    label = splits(size) if size <= EXACT else assign(points, points[first], points[second])
    for _ in range(ROUNDS if size > EXACT else 0):
        before, label = label, assign(points, mean(points, weights * (1 - label)), mean(points, weights * label))
        if label.equal(before):
            break
    left, right = mean(points, weights * (1 - label)), mean(points, weights * label)
    squares = torch.where(label == 0, torch.cdist(left, points), torch.cdist(right, points)).square() @ weights
    found = label[int(squares.round(decimals=DIGITS).argmin())]
    return (found != found[0]).long()


def splits(size: int) -> Tensor:
    """(2^(size - 1), size) labels: every way to put points into two clusters, all of them together first."""
    return torch.arange(0, 2**size, 2).unsqueeze(1) >> torch.arange(size) & 1


def assign(points: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(P, N) labels: 1 where a point is nearer to the right centre of a pair, 0 otherwise."""
    closer = torch.cdist(left, points) - torch.cdist(right, points)
    return (closer.round(decimals=DIGITS) > 0).long()


def mean(points: Tensor, weights: Tensor) -> Tensor:
    """(P, D) weighted means; a cluster without members sits at the origin."""
    return weights @ points / weights.sum(1, keepdim=True).clamp_min(1e-12)
