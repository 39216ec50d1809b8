"""What a pruner sees of one image in one prompt: tokens, and attention in either tower, computed when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from morgana.generation.watching import Taken
from morgana.types import SpecError


@dataclass(frozen=True, eq=False)
class Eye:
    """What the vision tower did with one image; layers count from 0, or from the end if negative."""

    taken: dict[int, Taken]  # layer -> operands of this image, batch 1
    depth: int
    tokens: int  # visual tokens that the language model gets
    grid: tuple[int, int] | None = None  # rows and columns of them
    projected: Tensor | None = None  # (P, d) what goes into the projector
    project: Any = None
    open: Tensor | None = None  # (P,) the tower's tokens that were not closed in it
    scores: Tensor | None = None  # (P,) what the pruner that closed them said last
    runs: bool = False  # patches that became one token stand in a row (Qwen2-VL), not in a square (InternVL, Idefics3)
    picked: Tensor | None = None  # (N,) which of the tower's tokens they are, where it has another order (Qwen2.5-VL)
    full: int | None = None  # or more: tokens of a view of an image of any resolution, with its padding
    blind: str = ""  # why neither layers nor grid can be told for these tokens

    def operands(self, layer: int) -> Taken:
        if self.blind:
            raise SpecError(self.blind)
        found = layer % self.depth if -self.depth <= layer < self.depth else None
        if found not in self.taken:
            raise SpecError(
                f"layer {layer} of the vision tower was not watched; it has {self.depth} layers, and watched are "
                f"{sorted(self.taken)}"
            )
        return self.taken[found]

    def group(self, patches: int) -> tuple[int, int]:
        """How many tokens stand before the patches (CLS), and how many patches make a visual token."""
        tokens = self.full or self.tokens
        if patches == tokens + 1:
            return 1, 1
        for before in (0, 1):
            if (patches - before) % tokens == 0:
                return before, (patches - before) // tokens
        raise SpecError(
            f"the vision tower has {patches} tokens for {self.tokens} visual tokens; attention of patches cannot be "
            "given to visual tokens, so use a pruner that reads none (MMTok, ToDRE, IDPruner) or one inside the model"
        )

    def tokenwise(self, patches: Tensor) -> Tensor:
        """(…, P) of patches to (…, N) of visual tokens, those that were merged by their mean."""
        before, group = self.group(patches.shape[-1])
        lead, made = patches.shape[:-1], patches[..., before:]
        if group > 1 and self.runs:
            made = made.reshape(*lead, -1, group).mean(-1)
        elif group > 1:
            side, edge = round(made.shape[-1] ** 0.5), round(group**0.5)
            if side * side != made.shape[-1] or edge * edge != group:
                raise SpecError(f"{made.shape[-1]} patches for {self.tokens} visual tokens are no squares of squares")
            made = made.reshape(*lead, side // edge, edge, side // edge, edge).mean((-3, -1)).flatten(-2)
        return self.pick(made)

    def pick(self, tokens: Tensor) -> Tensor:
        """(…, N) of the tower's tokens, those that are in the prompt, in its order."""
        return tokens if self.picked is None else tokens[..., self.picked.to(tokens.device)]

    def cls(self, layer: int) -> Tensor:
        """(N,) attention of CLS to each visual token, mean over heads. SpecError where there is no CLS."""
        taken = self.operands(layer)
        before, _ = self.group(taken.key.shape[2])
        if not before:
            raise SpecError("this model's vision tower has no CLS token; use a pruner that needs none (HiPrune, FoPru)")
        return self.tokenwise(probabilities(taken, torch.zeros(1, dtype=torch.long)).mean(0)[0])

    def received(self, layer: int) -> Tensor:
        """(N,) attention that each visual token gets, mean over heads and over every query of the tower."""
        taken = self.operands(layer)
        rows = torch.arange(taken.query.shape[2])
        return self.tokenwise(probabilities(taken, rows).mean((0, 1)))

    def keys(self, layer: int) -> Tensor:
        """(N, H d) keys of the visual tokens."""
        key = self.operands(layer).key[0].transpose(0, 1).flatten(1)
        return self.tokenwise(key.float().T).T

    def values(self, layer: int) -> Tensor:
        """(P, H d) values of every token of the tower, CLS too."""
        return self.operands(layer).value[0].transpose(0, 1).flatten(1).float()


@dataclass(frozen=True, eq=False)
class Operands:
    """Attention of one layer of the language model for one prompt, and which tokens of the prompt were still there."""

    taken: Taken  # batch 1
    index: Tensor  # (M,) their places in the prompt's row, -1 for filling


@dataclass(frozen=True, eq=False)
class Sight:
    """One image of one prompt, before `layer` of the language model (0: before the model).

    Tokens are named by their places in the row of the whole prompt. `places` says which of the image's tokens are left.
    """

    layer: int
    tokens: Tensor  # (n,) places of this image's visual tokens that are left
    places: Tensor  # (n,) the same, counted from the image's first token
    states: Tensor  # (n, D) the visual embeddings, or what the layer is given
    text: Tensor  # (T,) places of the prompt's text
    question: Tensor  # (Q,) places of the question in it
    visual: Tensor  # (V,) places of the visual tokens of all images that are left
    row: Tensor  # (M, D) states of everything that is left
    index: Tensor  # (M,) places of those, -1 for filling
    eye: Eye
    number: int = 0  # of the image in the prompt
    siblings: list[Sight] = field(default_factory=list)  # of every image of the prompt
    stage: int = 0  # of the pruner
    mosaic: tuple[int, int] | None = None  # rows and columns of the views of an image of any resolution
    operands: dict[int, Operands] = field(default_factory=dict)
    moves: dict[int, tuple[tuple[Tensor, Tensor], ...]] = field(default_factory=dict)
    # layer -> (in, out) of its attention and its MLP, each (M, D) beside the places in `moved`
    moved: dict[int, Tensor] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image's tokens, pruned or not. SpecError where they are several views."""
        if self.eye.blind:
            raise SpecError(self.eye.blind)
        if self.eye.grid is not None:
            return self.eye.grid
        side = round(self.eye.tokens**0.5)
        if side * side != self.eye.tokens:
            raise SpecError(
                f"{self.eye.tokens} visual tokens are no square and the model names no grid; use a pruner without one"
            )
        return side, side

    @cached_property
    def behind(self) -> Tensor:
        """(W,) places of the words behind the images."""
        return self.text[self.text > self.visual[-1]]

    @cached_property
    def last(self) -> Tensor:
        """(1,) the prompt's last token."""
        return self.text[-1:]

    def of(self, places: Tensor) -> Tensor:
        """(K, D) states of tokens by their places in the prompt."""
        return self.row[locate(self.index, places)]

    def here(self, scores: Tensor) -> Tensor:
        """Of (N,) scores of all tokens of the image, those that are left."""
        return scores[self.places]

    def cls(self, layer: int) -> Tensor:
        return self.here(self.eye.cls(layer))

    def received(self, layer: int) -> Tensor:
        return self.here(self.eye.received(layer))

    def attention(self, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """(H, R, C) probabilities in a layer of the language model, over all that the rows see."""
        found = self._operands(layer)
        return probabilities(found.taken, locate(found.index, rows), causal=True, index=found.index)[
            :, :, locate(found.index, columns)
        ]

    def logits(self, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """(H, R, C) scaled products in a layer of the language model, no mask."""
        found = self._operands(layer)
        return products(found.taken, locate(found.index, rows), locate(found.index, columns))

    def keys(self, layer: int, places: Tensor) -> Tensor:
        """(K, G d) rotated keys in a layer of the language model."""
        found = self._operands(layer)
        return found.taken.key[0][:, locate(found.index, places)].transpose(0, 1).flatten(1).float()

    def _operands(self, layer: int) -> Operands:
        if layer not in self.operands:
            raise SpecError(f"layer {layer} of the language model was not watched; watched are {sorted(self.operands)}")
        return self.operands[layer]


def locate(index: Tensor, places: Tensor) -> Tensor:
    """Where `places` stand in a row that holds the tokens `index`, ascending behind its filling."""
    return torch.searchsorted(index, places.to(index.device))


def products(taken: Taken, rows: Tensor, columns: Tensor | None = None) -> Tensor:
    """(H, R, C) scaled products of a batch of one, in float32 at least."""
    query, key = taken.query[0][:, rows], taken.key[0]
    key = key if columns is None else key[:, columns]
    groups = query.shape[0] // key.shape[0]
    made = (query.reshape(-1, groups, *query.shape[1:]) * taken.scaling) @ key[:, None].transpose(-1, -2)
    made = made.flatten(0, 1)
    return made if made.dtype == torch.float64 else made.float()


def probabilities(taken: Taken, rows: Tensor, *, causal: bool = False, index: Tensor | None = None) -> Tensor:
    """(H, R, K) attention of some rows of a batch of one; causal, and blind to filling (`index` < 0) where asked.

    Rows see their own part only, where there are several.
    """
    scores = products(taken, rows)
    if taken.parts:
        part = torch.arange(len(taken.parts)).repeat_interleave(torch.tensor(taken.parts)).to(scores.device)
        scores = scores.masked_fill(part[rows.to(scores.device)][:, None] != part, float("-inf"))
    if causal:
        column = torch.arange(scores.shape[-1], device=scores.device)
        seen = column <= rows.to(scores.device)[:, None]
        if index is not None:
            seen = seen & (index >= 0)
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1)
