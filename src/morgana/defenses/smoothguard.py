"""SmoothGuard (arXiv 2510.26830): answer noisy copies of the image, and let the majority of answers speak."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morgana.corpus.images import load
from morgana.defenses._noise import check_noise, noisy
from morgana.defenses._vote import Audit, vote
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.seeds import derive
from morgana.spec import part
from morgana.types import Answer, Encoder, Generator, Hits, Pixels, Query


@part
class SmoothGuard:
    """A generator around a generator: n noisy copies and the image itself are answered, two clusters vote.

    Of the larger cluster of answer embeddings the medoid is returned, as in the public code; a tie goes to
    the cluster of the first noisy copy, as it does there. Noise is in pixel units and clipped to [0, 1]
    before the model's own processor (the public code adds it after). With n = 0, sigma = 0 or no image the
    inner generator answers alone.

    Answers are compared by `HashEncoder`, which is deterministic, offline and independent of any trained
    model, and tells names and numbers apart by spelling; any text encoder may take its place. Noise depends
    on `seed` and the query's id, so an answer does not depend on the batch. `loss` draws fresh noise from the
    current seeded scope: attacking a SmoothGuard is the adaptive (EOT) attack.
    """

    generator: Generator
    sigma: float = 0.1  # pixel units
    n: int = 10  # noisy copies
    encoder: Encoder = HashEncoder()
    seed: int = 0

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.n, self)

    @property
    def copies(self) -> int:
        return self.n if self.sigma else 0

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        pixels = [load(query.image) if query.image else None for query in queries]
        answers = self.generate(pixels, queries, hits)
        return [Answer(text, tuple(found)) for text, found in zip(answers, hits, strict=True)]

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        return [audit.chosen for audit in self.explain(pixels, queries, hits)]

    def explain(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[Audit]:
        """What every copy was answered and how the vote went; one call of the inner generator for them all."""
        images = [self.candidates(image, query) for image, query in zip(pixels, queries, strict=True)]
        asked = [(query, found) for query, found in zip(queries, hits, strict=True)]
        flat = [(image, *ask) for group, ask in zip(images, asked, strict=True) for image in group]
        answers = iter(
            self.generator.generate([i for i, _, _ in flat], [q for _, q, _ in flat], [h for _, _, h in flat])
        )
        return [vote([next(answers) for _ in group], self.encoder) for group in images]

    def candidates(self, image: Pixels | None, query: Query) -> list[Pixels | None]:
        """(1, 3, H, W) each: the noisy copies, then the image itself; None alone if there is no image."""
        if image is None:
            return [None]
        source = torch.Generator().manual_seed(derive(self.seed, "SmoothGuard", query.id))
        return [*noisy(image, self.sigma, self.copies, source).transpose(0, 1), image]

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """Mean of the inner loss over fresh noisy copies and the image itself, (B,): expectation over noise."""
        copies = torch.cat([noisy(pixels, self.sigma, self.copies), pixels.unsqueeze(1)], dim=1)
        losses = self.generator.loss(copies.flatten(0, 1), query, hits, text)
        return losses.reshape(copies.shape[:2]).mean(dim=1)
