"""One stage of pruning: show every image to the pruner, check what it chose, and take the rest out of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from morgana.generation.layout import words
from morgana.generation.plan import Act, Kept
from morgana.generation.pruner import Choice, Conditional, Sharing
from morgana.generation.sight import Operands, Sight
from morgana.generation.vision import Eyes
from morgana.generation.watching import Watch
from morgana.types import SpecError


@dataclass(eq=False)
class Scene:
    """What the pass under way has shown so far; `before` holds the tokens that each layer worked on."""

    kept: Kept
    eyes: Eyes
    watch: Watch
    before: dict[int, Tensor] = field(default_factory=dict)
    moves: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)  # layer -> in and out of its parts

    def clear(self) -> None:
        self.before.clear()
        self.moves.clear()
        self.watch.taken.clear()

    def drop(self, act: Act, states: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, M, D) of the tokens `index` (B, M) after a stage; the very same where nothing goes."""
        rows, places, changed, image = [], [], False, 0
        for b, spans in enumerate(self.kept.spans):
            sights = self.sights(b, image, states[b], index[b], act)
            image += len(spans.image)
            choices = self.choices(act, sights)
            row, stays = taken_out(states[b], index[b], sights, choices)
            rows.append(row[stays])
            places.append(index[b][stays])
            changed = changed or any(choice is not None for choice in choices)
        return (filled(rows, 0), filled(places, -1)) if changed else (states, index)

    def choices(self, act: Act, sights: tuple[Sight, ...]) -> list[Choice | None]:
        """What stays of each image; None where all of it does."""
        counts = tuple(min(len(s.tokens), self.kept.count(s.eye.tokens, act)) for s in sights)
        if all(n == len(s.tokens) for n, s in zip(counts, sights, strict=True)):
            return [None] * len(sights)
        if isinstance(act.pruner, Conditional) and not act.pruner.due(sights):
            return [None] * len(sights)
        if isinstance(act.pruner, Sharing) and len(counts) > 1:
            shared = act.pruner.share(sights, counts)
            if sum(shared) != sum(counts) or any(n > len(s.tokens) for n, s in zip(shared, sights, strict=True)):
                raise SpecError(
                    f"{act.pruner!r} shared {counts} among images of {[len(s.tokens) for s in sights]} "
                    f"tokens as {shared}"
                )
            counts = shared
        return [ask(act, sight, count) for sight, count in zip(sights, counts, strict=True)]

    def sights(self, b: int, image: int, row: Tensor, index: Tensor, act: Act) -> tuple[Sight, ...]:
        """Every image of row `b`; `image` is the number of its first one in the batch."""
        spans, device = self.kept.spans[b], index.device
        runs = [index[(index >= first) & (index < last)] for first, last in spans.image]
        operands = {
            layer: Operands(call.of(b), self.before[layer][b])
            for layer, (call, *_) in self.watch.taken.items()
            if layer in self.before
        }
        siblings: list[Sight] = []
        for number, ((first, last), tokens) in enumerate(zip(spans.image, runs, strict=True)):
            siblings.append(
                Sight(
                    layer=act.layer,
                    tokens=tokens,
                    places=tokens - first,
                    states=row[torch.searchsorted(index, tokens)],
                    text=torch.tensor(words(spans), dtype=torch.long, device=device),
                    question=torch.arange(*spans.question, device=device),
                    visual=torch.cat(runs),
                    row=row,
                    index=index,
                    eye=self.eyes.of(image + number, last - first),
                    number=number,
                    stage=act.number,
                    siblings=siblings,
                    operands=operands,
                    moves={i: tuple((x[b], y[b]) for x, y in found) for i, found in self.moves.items()},
                    moved={i: self.before[i][b] for i in self.moves},
                )
            )
        return tuple(siblings)


def ask(act: Act, sight: Sight, count: int) -> Choice | None:
    """The pruner's choice, or None where nothing goes. SpecError unless it is sorted, unique, inside, in its budget."""
    size = len(sight.tokens)
    if count >= size:
        return None
    if not count:
        return Choice(sight.tokens[:0])
    choice = act.pruner.choose(sight, count)
    index = choice.index
    inside = not len(index) or (int(index[0]) >= 0 and int(index[-1]) < size)
    if len(index) > count or not inside or not bool((index.diff() > 0).all()):
        raise SpecError(f"{act.pruner!r} chose {index.tolist()} of {size} tokens with a budget of {count}")
    return choice


def taken_out(
    row: Tensor, index: Tensor, sights: tuple[Sight, ...], choices: list[Choice | None]
) -> tuple[Tensor, Tensor]:
    """The row with merged states in it, and which of it stays (M,)."""
    stays = index >= 0
    for sight, choice in zip(sights, choices, strict=True):
        if choice is None:
            continue
        gone = torch.ones(len(sight.tokens), dtype=torch.bool, device=index.device)
        gone[choice.index] = False
        stays[torch.searchsorted(index, sight.tokens[gone])] = False
        if choice.states is not None:
            here = torch.searchsorted(index, sight.tokens[choice.index])
            row = row.index_copy(0, here, choice.states.to(row.dtype))
    return row, stays


def filled(rows: list[Tensor], value: float) -> Tensor:
    """Rows of unequal length as one tensor, filled up on the left."""
    widest = max(map(len, rows))
    made = [torch.cat([row.new_full((widest - len(row), *row.shape[1:]), value), row]) for row in rows]
    return torch.stack(made)
