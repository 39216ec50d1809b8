"""Which query rows of a pass somebody edits, in pieces small enough to hold their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from morgana.generation._products import corner
from morgana.generation.layout import Layout
from morgana.generation.needs import RowSet
from morgana.types import SpecError

PIECE = {"cpu": 1_400_000, "cuda": 1 << 22}  # scores (batch x heads x rows x keys) that are held at once
FEWEST = 16  # rows of a piece: fewer cost more calls than they save memory
QUICK = 96  # of all prompts together on a CPU: products of smaller matrices are slow
RUN = 512  # rows of a piece of which nobody holds the scores


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that are edited: `index` (B, R), tokens of the prompt rows, of which `valid` (B, R) are no filling.

    `first` is the token of the pass's first query: 0 in prefill, the newest in decoding. `owned` (B, R) holds for each
    intervention which rows are its own, `all_owned` whether all are, and `any_owned` whether any is.
    """

    index: Tensor
    valid: Tensor
    first: int
    owned: tuple[Tensor, ...]
    all_owned: tuple[bool, ...]
    any_owned: tuple[bool, ...]
    even: tuple[int, int] | None  # half-open: the queries that `index` is, the same in every prompt

    @classmethod
    def of(cls, wanted: Sequence[RowSet], layout: Layout, first: int, stop: int) -> Rows:
        """The rows of queries `first` to `stop` that each of `wanted` asks for."""
        spans = [replace(s, length=stop) for s in layout.spans]
        asked = [[clipped(rows(s), first, stop) for s in spans] for rows in wanted]
        union = [sorted(set().union(*rows)) for rows in zip(*asked, strict=True)] if asked else [[] for _ in spans]
        widest = max(map(len, union))
        index = torch.full((len(spans), widest), stop - 1)  # filling is a row that sees something: no NaN
        valid = torch.zeros(len(spans), widest, dtype=torch.bool)
        for i, row in enumerate(union):
            index[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            valid[i, : len(row)] = True
        place = range(union[0][0] - first, union[0][-1] + 1 - first) if widest else range(0)
        even = (place.start, place.stop) if all(row == union[0] for row in union) and len(place) == widest else None
        owned = [among(index, rows) & valid for rows in asked]
        full, some = (tuple(bool(of(mine)) for mine in owned) for of in (torch.all, torch.any))
        device = layout.device
        return cls(index.to(device), valid.to(device), first, tuple(o.to(device) for o in owned), full, some, even)

    @cached_property
    def place(self) -> Tensor:
        """(B, R) which query of the pass each row is."""
        return self.index - self.first

    @cached_property
    def real(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every row that is no filling: its batch row, its place in `index`, and its query."""
        batch, place = self.valid.nonzero(as_tuple=True)
        return batch, place, self.place[batch, place]

    @cached_property
    def among(self) -> Tensor:
        """(R, R) the part of the causal mask by which rows that follow one another hide one from another."""
        return corner(self.index.shape[1], self.index.device)

    def run(self, place: int) -> slice | None:
        """The tokens that the rows are, where all are owned at this place and the same run in every prompt."""
        if self.even is None or not self.all_owned[place]:
            return None
        return slice(self.first + self.even[0], self.first + self.even[1])

    @cached_property
    def _pieces(self) -> dict[tuple[int, int], list[Rows]]:
        return {}

    def pieces(self, heads: int, keys: int) -> list[Rows]:
        """The rows in order, each piece with at most PIECE scores, or FEWEST rows, on a CPU QUICK."""
        if (heads, keys) not in self._pieces:
            device, prompts = self.index.device.type, max(1, len(self.index))
            fewest = max(FEWEST, QUICK // prompts) if device == "cpu" else FEWEST
            most = PIECE.get(device, PIECE["cuda"]) // (prompts * heads * keys)
            self._pieces[heads, keys] = self._cut(max(fewest, most))
        return self._pieces[heads, keys]

    @cached_property
    def runs(self) -> list[Rows]:
        """The rows in order, RUN a piece, whatever the keys."""
        return self._cut(RUN)

    def _cut(self, most: int) -> list[Rows]:
        """In pieces of at most so many rows, alike in size."""
        count = self.index.shape[1]
        if count <= most:
            return [self] if count else []
        size = math.ceil(count / math.ceil(count / most))
        return [self.cut(start, min(start + size, count)) for start in range(0, count, size)]

    def cut(self, start: int, stop: int) -> Rows:
        even = None if self.even is None else (self.even[0] + start, self.even[0] + stop)
        owned = tuple(o[:, start:stop] for o in self.owned)
        here = slice(start, stop)
        index, valid = self.index[:, here], self.valid[:, here]
        return Rows(index, valid, self.first, owned, self.all_owned, self.any_owned, even)

    def take(self, query: Tensor) -> Tensor:
        """(B, H, R, D) these rows of (B, H, Q, D)."""
        if self.even is not None:
            return query[:, :, self.even[0] : self.even[1]]
        return query.gather(2, self.place[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))

    def put(self, out: Tensor, fresh: Tensor, changed: Tensor | None) -> Tensor:
        """`out` (B, Q, H, D) with the `changed` (B, R, H or 1) of `fresh` (B, R, H, D) in these rows; None: all."""
        fresh = fresh.to(out.dtype)
        if self.even is not None and not out.requires_grad and not fresh.requires_grad:
            here = out[:, self.even[0] : self.even[1]]
            here.copy_(fresh if changed is None else torch.where(changed[..., None], fresh, here))
            return out
        batch, place, row = self.real
        new = fresh[batch, place]
        if changed is not None:
            new = torch.where(changed[batch, place][..., None], new, out[batch, row])
        return out.index_put((batch, row), new)


def clipped(rows: range, first: int, stop: int) -> range:
    if not isinstance(rows, range) or rows.step != 1:
        raise SpecError(f"the rows asked for are {rows!r}; give a range without a step, such as range(first, last + 1)")
    return range(max(rows.start, first), min(rows.stop, stop))


def among(index: Tensor, rows: Sequence[range]) -> Tensor:
    """(B, R) which of `index` lie in each prompt's range."""
    first = torch.tensor([r.start for r in rows], device=index.device)[:, None]
    stop = torch.tensor([max(r.start, r.stop) for r in rows], device=index.device)[:, None]
    return (index >= first) & (index < stop)
