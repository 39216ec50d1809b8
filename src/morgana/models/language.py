"""The reference MLLM's first school: reading and copying, from text alone.

Copying a name out of an article is what a small decoder learns last and only suddenly, so everything here serves it:
rows are packed to one length, many questions follow each article, and early rows repeat themselves outright.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from morgana.models.conversation import Batch, Writer, sight, weighted_loss
from morgana.models.feed import behind, feed
from morgana.models.lessons import Lesson, lesson, reading
from morgana.models.loop import Recipe, train
from morgana.seeds import rng

ROWS, LENGTH = 12, 384  # packed rows a step, tokens a row
REPEATED = 0.25  # share of the steps in which some rows are plain repetition


def teach_language(model: Any, writer: Writer, work: Path, steps: int, seed: int, *, compiled: bool = False) -> None:
    """Train the decoder `model` (a LlamaForCausalLM) for `steps` packed batches."""
    forward = torch.compile(model.forward) if compiled else model.forward
    batches = feed(partial(packed, writer, seed, steps), behind(work), steps)
    device = next(model.parameters()).device

    def loss_of(step: int) -> Tensor:
        batch = to(next(batches), device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = forward(input_ids=batch.ids, use_cache=False).logits
        return weighted_loss(logits, batch)

    recipe = Recipe(steps=steps, rate=1e-3)
    train(model, loss_of, recipe, work, "language", seed, lambda _: examine(model, writer), report_every=200)


def packed(writer: Writer, seed: int, steps: int, step: int) -> Batch:
    """Rows of LENGTH tokens, conversation after conversation; articles grow from one to three as steps go by."""
    draw = rng(seed, "language", step)
    done = step / steps
    rows = []
    for _ in range(ROWS):
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < LENGTH:
            more, weigh = exercise(writer, draw, seed, done)
            ids += more
            weights += weigh
        rows.append((ids[:LENGTH], weights[:LENGTH]))
    return writer.batch(rows)


def exercise(writer: Writer, draw: np.random.Generator, seed: int, done: float) -> tuple[list[int], list[float]]:
    """One conversation or repetition, fit for how far the course is `done` (0 … 1)."""
    articles = 1 + int(draw.integers(1 if done < 0.1 else 2 if done < 0.3 else 3))
    chance = draw.random()
    if done < REPEATED and chance < 0.15:
        words = draw.integers(4, writer.size, int(draw.integers(8, 40))).tolist()
        return words + words, [0.0] * len(words) + [1.0] * len(words)
    if done < REPEATED and chance < 0.3:
        return writer.twice(lesson(draw, seed, 1 + int(draw.integers(2)), 4))
    if chance < 0.7:
        return writer.conversation(reading(draw, seed, articles, 5 if articles == 1 else 9), "")
    taught = lesson(draw, seed, articles, 7)
    return writer.conversation(taught, sight(taught, draw))


def to(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.ids.to(device), batch.mask.to(device), batch.weights.to(device))


@torch.no_grad()
def examine(model: Any, writer: Writer, lessons: int = 120) -> str:
    """Share of held-out answers that are right in every token, teacher-forced, by kind of question."""
    draw = rng(1, "language", "examination")
    rows, kinds = [], []
    for _ in range(lessons):
        taught = reading(draw, 1, 3, 1)
        rows.append(writer.conversation(taught, ""))
        kinds.append(taught.questions[0].about)
        seen = lesson(draw, 1, 1, 3)
        rows.append(writer.conversation(Lesson(seen.view, seen.articles, seen.questions[:1]), sight(seen, draw)))
        kinds.append("seen")
    right = []
    device = next(model.parameters()).device
    for i in range(0, len(rows), 24):
        batch = to(writer.batch(rows[i : i + 24]), device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            best = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.argmax(-1)
        right += ((best[:, :-1] == batch.ids[:, 1:]) | (batch.weights[:, 1:] < 1)).all(1).tolist()
    names = sorted(set(kinds))
    shares = {k: [r for r, kind in zip(right, kinds, strict=True) if kind == k] for k in names}
    return ", ".join(f"{k} {sum(v) / len(v):.2f}" for k, v in shares.items())
