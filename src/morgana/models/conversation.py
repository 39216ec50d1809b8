"""Lessons as token ids with a loss weight each, padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from morgana.corpus.atlas.language import caption
from morgana.models.lessons import Lesson
from morgana.models.tokenizer import IMAGE, PAD

PATCHES = 144  # visual tokens of the reference model
READING = 0.2  # weight of the loss on article tokens; answers weigh 1 (we chose)


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids (B, N), attention mask (B, N), loss weights (B, N) of each token as a target."""

    ids: Tensor
    mask: Tensor
    weights: Tensor


class Writer:
    """Writes lessons in the reference model's chat template, token for token as its processor would."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image = int(tokenizer.token_to_id(IMAGE) or 0)
        self.pad = int(tokenizer.token_to_id(PAD) or 0)
        self.size = int(tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def conversation(self, lesson: Lesson, sight: str | None) -> tuple[list[int], list[float]]:
        """Token ids and weights; `sight` stands where the image would, None puts the visual tokens there."""
        articles = "".join(f"Article {i}: {text}\n" for i, text in enumerate(lesson.articles, 1))
        if sight is None:
            ids = self.encode("USER: ") + [self.image] * PATCHES + self.encode(f"\n{articles}")
        else:
            ids = self.encode(f"USER: {sight}\n{articles}" if sight else f"USER: {articles}")
        weights = [0.0 if token == self.image else READING for token in ids]
        for turn, question in enumerate(lesson.questions):
            asked = self.encode(f"{'USER: ' if turn else ''}Question: {question.text} ASSISTANT:")
            answer = self.encode(f" {question.answer}</s>")
            ids += asked + answer
            weights += [0.0] * len(asked) + [1.0] * len(answer)
        return ids, weights

    def twice(self, lesson: Lesson) -> tuple[list[int], list[float]]:
        """The articles, and the same again: the plainest exercise in copying."""
        once = self.encode("".join(f"Article {i}: {text}\n" for i, text in enumerate(lesson.articles, 1)))
        return once + once, [READING] * len(once) + [1.0] * len(once)

    def batch(self, rows: Sequence[tuple[list[int], list[float]]]) -> Batch:
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), self.pad)
        weights = torch.zeros(len(rows), longest)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, (row, weight) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, : len(row)] = torch.tensor(weight)
            mask[i, : len(row)] = 1
        return Batch(ids, mask, weights)


def sight(lesson: Lesson, draw: np.random.Generator) -> str:
    """The caption that stands for the image while the model learns language."""
    return caption(lesson.view, draw)


def weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of every next token, averaged with the batch's weights."""
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
    )
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()
