"""One stage of pruning: show every image to the pruner, check what it chose, and take the rest out of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from morgana.generation.layout import words
from morgana.generation.plan import Act, Kept
from morgana.generation.pruner import Choice, Conditional, Sharing
from morgana.generation.sharing import fair
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
            groups = self.groups(b, image, states[b], index[b], act)
            image += len(spans.image)
            sights = tuple(sight for group in groups for sight in group)
            with torch.autocast(states.device.type, enabled=False):  # whoever runs the model in bf16 ranks in float32
                choices = [choice for group in groups for choice in self.choices(act, group)]
            row, stays = taken_out(states[b], index[b], sights, choices)
            rows.append(row[stays])
            places.append(index[b][stays])
            changed = changed or any(choice is not None for choice in choices)
        return (filled(rows, 0), filled(places, -1)) if changed else (states, index)

    def choices(self, act: Act, sights: tuple[Sight, ...]) -> list[Choice | None]:
        """What stays of each image, or of each view of one; None where all of it does."""
        counts = self.counts(act, sights)
        if all(n == len(s.tokens) for n, s in zip(counts, sights, strict=True)):
            return [None] * len(sights)
        if isinstance(act.pruner, Conditional) and not act.pruner.due(sights):
            return [None] * len(sights)
        if isinstance(act.pruner, Sharing) and len(counts) > 1:
            shared = act.pruner.share(sights, counts)
            most = [len(s.tokens) for s in sights]
            if not divides(shared, sum(counts), most):
                raise SpecError(
                    f"{act.pruner!r} shared {counts} among images of {most} tokens as {shared}; give as many counts, "
                    "of the same sum, none above its image's tokens"
                )
            counts = shared
        return [ask(act, sight, count) for sight, count in zip(sights, counts, strict=True)]

    def counts(self, act: Act, sights: tuple[Sight, ...]) -> tuple[int, ...]:
        """How many of each may stay; the views of one image divide its budget by their sizes."""
        sizes = [s.eye.tokens for s in sights]
        left = [len(s.tokens) for s in sights]
        if sights and sights[0].eye.full is not None:
            total = self.kept.count(sum(sizes), act)
            return fair(min(total, sum(left)), [total * n / sum(sizes) for n in sizes], left)
        return tuple(min(n, self.kept.count(size, act)) for size, n in zip(sizes, left, strict=True))

    def groups(self, b: int, image: int, row: Tensor, index: Tensor, act: Act) -> list[tuple[Sight, ...]]:
        """The images of row `b`, or the views of each; `image` is the number of its first one in the batch."""
        spans, device = self.kept.spans[b], index.device
        runs = [index[(index >= first) & (index < last)] for first, last in spans.image]
        operands = {
            layer: Operands(call.of(b), self.before[layer][b])
            for layer, (call, *_) in self.watch.taken.items()
            if layer in self.before
        }
        told: dict[str, Any] = {
            "layer": act.layer,
            "stage": act.number,
            "text": torch.tensor(words(spans), dtype=torch.long, device=device),
            "question": torch.arange(*spans.question, device=device),
            "visual": torch.cat(runs) if runs else index[:0],
            "row": row,
            "index": index,
            "operands": operands,
            "moves": {i: tuple((x[b], y[b]) for x, y in found) for i, found in self.moves.items()},
            "moved": {i: self.before[i][b] for i in self.moves},
        }
        groups: list[list[Sight]] = [[]]
        for number, ((first, last), tokens) in enumerate(zip(spans.image, runs, strict=True), image):
            views = self.eyes.views(number) if self.split(act) else None
            if views is not None:
                groups.append([])
                told["mosaic"] = self.eyes.packs[number].mosaic
            for where, eye in views or [(torch.arange(last - first), self.eyes.of(number, last - first))]:
                left = torch.isin(first + where.to(device), tokens).nonzero().flatten()
                here = first + where.to(device)[left]
                told |= {"tokens": here, "places": left, "states": row[torch.searchsorted(index, here)]}
                groups[-1].append(Sight(eye=eye, number=len(groups[-1]), siblings=groups[-1], **told))
        return [tuple(group) for group in groups if group]

    def split(self, act: Act) -> bool:
        """Whether a pruner is asked view by view."""
        asked = act.pruner.watched(self.kept.depth, self.eyes.depth)
        return bool(asked.vision) or asked.projector or asked.grid


def ask(act: Act, sight: Sight, count: int) -> Choice | None:
    """The pruner's choice, or None where nothing goes. SpecError unless it is sorted, unique, inside, in its budget."""
    size = len(sight.tokens)
    if count >= size:
        return None
    if not count:
        return Choice(sight.tokens[:0])
    choice = act.pruner.choose(sight, count)
    if strange := misshapen(choice, sight.states.shape[1]):
        raise SpecError(f"{act.pruner!r} made {strange}; return Choice(index), or Choice(index, states), of tensors")
    index = choice.index
    inside = not len(index) or (int(index[0]) >= 0 and int(index[-1]) < size)
    if len(index) > count or not inside or not bool((index.diff() > 0).all()):
        raise SpecError(f"{act.pruner!r} chose {index.tolist()} of {size} tokens with a budget of {count}")
    return choice


def divides(shared: object, total: int, most: list[int]) -> bool:
    """Whether these are whole numbers of this sum, one for each image and none above its tokens."""
    if not isinstance(shared, Sequence) or len(shared) != len(most) or not all(isinstance(n, int) for n in shared):
        return False
    return sum(shared) == total and all(0 <= n <= m for n, m in zip(shared, most, strict=True))


def misshapen(choice: object, width: int) -> str:
    """What is wrong with the form of a choice among states of this width; nothing if nothing is."""
    if not isinstance(choice, Choice):
        return f"{form(choice)}, not a Choice"
    index, states = choice.index, choice.states
    if not isinstance(index, Tensor) or index.ndim != 1 or index.dtype not in (torch.int64, torch.int32):
        return f"a Choice whose index is {form(index)}, not integers (k,)"
    fits = states is None or (isinstance(states, Tensor) and tuple(states.shape) == (len(index), width))
    return "" if fits else f"a Choice whose states are {form(states)}, not ({len(index)}, {width})"


def form(value: object) -> str:
    """What stands where a tensor was wanted, in a few words."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


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
