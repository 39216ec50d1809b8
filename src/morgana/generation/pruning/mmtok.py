"""MMTok (ICLR 2026, arXiv 2508.18264): tokens that cover the question and the image, greedily."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, asked, checked, heats, weights
from morgana.generation.selecting import cosine, cover
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class MMTok:
    """Greedy maximum coverage of [P; alpha · Q], P = softmax_v(cos(text, visual) / 0.02) / m and
    Q = softmax_v(cos(visual, visual) / 0.2) / n: gains are what a token adds to the best that covers each row so far.

    The paper leaves stop words out of the question and takes CLIP's features for Q; we take every token of the question
    and the projected embeddings for both, as any model has them.
    """

    keep: Keep = 0.25
    alpha: float = 0.5
    text_heat: float = 0.02
    image_heat: float = 0.2

    def __post_init__(self) -> None:
        checked(self.keep)
        weights(alpha=self.alpha)
        heats(text_heat=self.text_heat, image_heat=self.image_heat)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched()

    def coverage(self, sight: Sight) -> Tensor:
        """(T + n, n) how well each token stands for each word and for each token."""
        question = sight.of(asked(sight))
        words = (cosine(question, sight.states) / self.text_heat).softmax(-1) / len(question)
        image = (cosine(sight.states) / self.image_heat).softmax(-1) / len(sight.states)
        return torch.cat([words, self.alpha * image])

    def choose(self, sight: Sight, count: int) -> Choice:
        return Choice(cover(self.coverage(sight), count))
