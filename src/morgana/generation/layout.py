"""Where visual tokens and text tokens lie in a left-padded batch, as columns of its attention scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from morgana.generation.prompts import Spans

EDGE = 0.2  # of the text at either end: the boundary tokens of BAIR


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of every row of the batch: `index` (B, K), of which `valid` (B, K) are real; the rest is filling.

    `run` is where they follow one another, at the same place in every prompt: a slice then, much faster than a choice.
    """

    index: Tensor
    valid: Tensor
    full: bool  # nothing is filling
    run: slice | None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device) -> Columns:
        widest = max(map(len, rows))
        index = torch.zeros(len(rows), widest, dtype=torch.long)
        valid = torch.zeros(len(rows), widest, dtype=torch.bool)
        for i, row in enumerate(rows):
            index[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            valid[i, : len(row)] = True
        first = list(rows[0])
        even = (
            all(list(row) == first for row in rows) and first == list(range(first[0], first[-1] + 1))
            if first
            else False
        )
        run = slice(first[0], first[-1] + 1) if even else None
        return cls(index.to(device), valid.to(device), all(len(row) == widest for row in rows), run)

    @cached_property
    def mask(self) -> Tensor:
        """(B, 1, 1, K), to go with scores."""
        return self.valid[:, None, None]

    @cached_property
    def count(self) -> Tensor:
        """(B, 1, 1, 1) real columns a row."""
        return self.valid.sum(-1)[:, None, None, None]

    @cached_property
    def sizes(self) -> list[int]:
        """Real columns a row."""
        return self.valid.sum(-1).tolist()

    @cached_property
    def stop(self) -> int:
        """Columns up to the last of these."""
        return int(self.index.max()) + 1 if self.index.shape[1] else 0

    def take(self, scores: Tensor) -> Tensor:
        """(B, H, R, K) scores of these columns, -inf where they are filling."""
        if self.run is not None:
            return scores[..., self.run]
        index = self.index[:, None, None].expand(-1, *scores.shape[1:3], -1)
        taken = scores.gather(-1, index)
        return taken if self.full else taken.masked_fill(~self.mask, float("-inf"))

    def add(self, scores: Tensor, values: Tensor) -> Tensor:
        """Scores (B, H, R, N) with `values`, broadcastable to (B, H, R, K), added in these columns."""
        if self.run is not None:
            made = scores.clone()
            made[..., self.run].add_(values)
            return made
        return self.put(scores, self.take(scores) + values)

    def multiply(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weights (B, H, R, N), written over, times `values`, broadcastable to (B, H, R, K), in these columns."""
        if self.run is None:
            return self.put(weights, self.take(weights) * values)
        weights[..., self.run].mul_(values)
        return weights

    def sum(self, weights: Tensor) -> Tensor:
        """(B, H, R, 1) what these columns have of weights (B, H, R, N)."""
        if self.run is not None:
            return weights[..., self.run].sum(-1, keepdim=True)
        return weights @ self.among(weights.shape[-1]).to(weights.dtype).transpose(2, 3)

    def among(self, count: int) -> Tensor:
        """(B, 1, 1, N) which of N columns these are."""
        made = torch.zeros(len(self.index), count + 1, dtype=torch.bool, device=self.index.device)
        made.scatter_(1, self.index.masked_fill(~self.valid, count), True)
        return made[:, None, None, :count]

    def spread(self, values: Tensor, count: int) -> Tensor:
        """(…, N) zeros with `values` (…, K) in these columns, for values (B, H, R, K)."""
        return self.put(values.new_zeros(*values.shape[:-1], count), values)

    def put(self, scores: Tensor, values: Tensor) -> Tensor:
        """Scores (B, H, R, N) with `values` (B, H, R, K) in these columns."""
        if self.run is not None:
            return scores.slice_scatter(values, -1, self.run.start, self.run.stop)
        index = self.index[:, None, None].expand(-1, *scores.shape[1:3], -1)
        if self.full:
            return scores.scatter(-1, index, values)
        beyond = scores.shape[-1]  # filling goes to a column that is cut off again
        wide = torch.nn.functional.pad(scores, (0, 1))
        return wide.scatter(-1, index.masked_fill(~self.mask, beyond), values)[..., :beyond]


@dataclass(frozen=True, eq=False)
class Layout:
    """The spans of a batch of prompts, and their columns on the device of the model.

    Where pruners are at work, `left` (B, M) says which of the prompt's visual tokens each token is, and `whole` (B,)
    how many they were.
    """

    spans: tuple[Spans, ...]
    device: torch.device
    left: Tensor | None = None
    whole: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens of every row: padding, prompt and answer."""
        return self.spans[0].length

    @cached_property
    def visual(self) -> Columns:
        return Columns.of([[t for first, last in s.image for t in range(first, last)] for s in self.spans], self.device)

    @cached_property
    def question(self) -> Columns:
        return Columns.of([range(*s.question) for s in self.spans], self.device)

    @cached_property
    def documents(self) -> Columns:
        rows = [[t for first, last in s.documents for t in range(first, last)] for s in self.spans]
        return Columns.of(rows, self.device)

    @cached_property
    def text(self) -> Columns:
        """Every other token of the prompt, in order, padding left out."""
        return Columns.of([words(s) for s in self.spans], self.device)

    @cached_property
    def even(self) -> bool:
        """Every prompt is text around one run of visual tokens, at the same place in all, without padding."""
        return self.visual.run is not None and self.visual.index.shape[1] + min(self.text.sizes) == self.length

    @cached_property
    def patches(self) -> Tensor:
        """(B, V) which of the prompt's visual tokens the visual columns are, from 0, whatever pruners took out."""
        index = self.visual.index
        order = torch.arange(index.shape[1], device=index.device).expand_as(index)
        return order if self.left is None else self.left.gather(1, index)

    @cached_property
    def tokens(self) -> Tensor:
        """(B,) how many visual tokens each prompt has, or had."""
        return self.visual.valid.sum(-1) if self.whole is None else self.whole

    @cached_property
    def _ends(self) -> dict[tuple[torch.dtype, int], tuple[Tensor, Tensor]]:
        return {}

    def ends(self, dtype: torch.dtype, safe_tail: int) -> tuple[Tensor, Tensor]:
        """The text's two ends, as matrices over all columns: (B, N, 2) and (B, 2, N); 0 where there is no text.

        The first takes by how much the mean of the first and of the last of them exceeds the mean of all; the second
        holds slopes, relu(1 - 2j/L)² and relu(2j/L - 1)² for j from 1 to L - safe_tail.
        """
        if (dtype, safe_tail) not in self._ends:
            place = torch.arange(1, self.text.index.shape[1] + 1, device=self.device)
            count, mask, width = self.text.count.double(), self.text.mask, edge(self.text.count).double()
            first, last = place <= width, (place > count - width) & mask
            over = torch.cat([x / width - mask / count.clamp(min=1) for x in (first, last)], 2)
            along, risky = 1 - 2 * place / count, mask & (place <= count - safe_tail)
            slopes = torch.cat([x.relu().square() * risky for x in (along, -along)], 2)
            over, slopes = (self.text.spread(x, self.length).to(dtype)[:, 0] for x in (over, slopes))
            self._ends[dtype, safe_tail] = (over.transpose(1, 2).contiguous(), slopes)
        return self._ends[dtype, safe_tail]


def edge(count: Tensor) -> Tensor:
    """Tokens in each boundary of a text of so many: a fifth, rounded down, at least one."""
    return (count * EDGE).floor().clamp(min=1)


def words(spans: Spans) -> list[int]:
    seen = {t for first, last in spans.image for t in range(first, last)}
    return [t for t in range(spans.start, spans.stop) if t not in seen]
