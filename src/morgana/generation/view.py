"""What an intervention sees beside the tensor that it edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from morgana.generation.layout import Layout


@dataclass(frozen=True, eq=False)
class Reference:
    """What the last prompt row of a calibration pass gave to the image, by layer: each (B, H).

    `scores` (B, H, 1, N) are that row's, in the columns of `layout`; `notes` are memories of passes over the whole
    prompt, by intervention.
    """

    log_odds: dict[int, Tensor] = field(default_factory=dict)  # log of visual mass / text mass
    sharpness: dict[int, Tensor] = field(default_factory=dict)  # 1 - entropy / log N, in [0, 1]
    scores: dict[int, Tensor] = field(default_factory=dict)
    layout: Layout | None = None
    notes: dict[Any, dict[Any, Any]] = field(default_factory=dict)


@dataclass(eq=False)
class View:
    """One layer of one pass, as an intervention sees it.

    `rows` (B, R) says which token of its prompt row each row of the edited tensor is, and `mine` (B, R) which of them
    the intervention asked for; what it does to the others is dropped. `run` are these tokens, where all are its own
    and follow one another, alike in every prompt. `clear`: the scores that it edits are known to hold no -inf. `spent`:
    the weights that it edits may be written over, and given back as another tensor in the same memory. `memory` is its
    own, and lives from one prompt's first layer to the answer's last token.
    """

    layout: Layout
    layer: int
    reference: Reference | None = None
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    mine: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    run: slice | None = None
    clear: bool = False
    spent: bool = False
    depth: int = 0  # layers of the text tower
    heads: int = 0  # query heads of the text tower
    keys: int = 0  # tokens of the pass, cached ones too: N
    hidden: Tensor | None = None  # (B, Q, D) what the layer was given, if asked for
    memory: dict[Any, Any] = field(default_factory=dict)
    calibrating: bool = False
    cached: bool = True  # decoding may follow: what only a later pass asks for need not be kept otherwise
    model: Any = None
    states: tuple[Tensor, Tensor] | None = None  # queries and keys of the pass, for "positions"
    inputs: dict[str, Any] = field(default_factory=dict)  # of the model's call, for "logits"
    again: Callable[[dict[str, Any]], Tensor] | None = None  # logits of the same call with inputs changed
