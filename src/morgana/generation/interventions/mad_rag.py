"""MAD-RAG (arXiv 2602.00344), a baseline of BAIR: attention as it was without documents, mixed into the last row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.layout import Columns
from morgana.generation.needs import Needs
from morgana.generation.view import View
from morgana.generation.visual import log_sum
from morgana.spec import part
from morgana.types import SpecError


@part
class MADRAG:
    """On the last prompt row, attention to image and question is averaged with a pass without documents.

    As BAIR's authors run it: `mix` 0.5 of the reference, attention to documents times `documents`, then renormalised.
    Layers are not named in what we could read: all of them. A prompt whose reference has another number of visual or
    question tokens is refused.
    """

    mix: float = 0.5
    documents: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1 or not 0 <= self.documents < math.inf:
            raise SpecError(f"{self!r}: mix lies in [0, 1], and documents is at least 0")

    @property
    def needs(self) -> Needs:
        return Needs(calibration="bare" if self.mix else "none")

    def edit(self, scores: Tensor, view: View) -> Tensor:
        layout, made = view.layout, scores
        if self.mix:
            level = log_sum(scores)
            for name in ("visual", "question"):
                columns: Columns = getattr(layout, name)
                if columns.index.shape[-1]:
                    theirs = without_documents(view, name, columns, self.mix) + level
                    mine = columns.take(scores) + (math.log(1 - self.mix) if self.mix < 1 else -math.inf)
                    made = columns.put(made, torch.logaddexp(mine, theirs))
        if self.documents != 1 and layout.documents.index.shape[-1]:
            lost = math.log(self.documents) if self.documents else -math.inf
            made = layout.documents.put(made, layout.documents.take(made) + lost)
        return made


def without_documents(view: View, name: str, columns: Columns, mix: float) -> Tensor:
    """(B, H, 1, K) log of `mix` times the reference's attention to the same tokens."""
    known: dict[int, Tensor] = view.memory.setdefault((name, view.layout), {})
    if view.layer not in known:  # of all layers alike, while the code is in the processor's caches
        theirs, scores = fitting(view, name, columns)
        alike = (n for n, x in scores.items() if x.shape == scores[view.layer].shape)
        known.update((n, theirs.take(scores[n].log_softmax(-1)) + math.log(mix)) for n in alike)
    return known[view.layer]


def fitting(view: View, name: str, columns: Columns) -> tuple[Columns, dict[int, Tensor]]:
    """Where the reference has the tokens that are `columns` here, and its scores; SpecError where it has others."""
    reference = view.reference
    if reference is None or reference.layout is None:
        raise SpecError("MADRAG needs a calibration pass without documents: use HF(..., interventions=(MADRAG(),))")
    theirs: Columns = getattr(reference.layout, name)
    if theirs.index.shape != columns.index.shape or not torch.equal(theirs.valid, columns.valid):
        mend = "calibrate with the same image and question, and prune before the language model if at all"
        raise SpecError(
            f"MADRAG: layer {view.layer} has {columns.count.flatten().tolist()} {name} tokens, its reference "
            f"{theirs.count.flatten().tolist()}; {mend}"
        )
    pruned = name == "visual" and view.layout.left is not None
    if pruned and (view.layout.patches != reference.layout.patches)[columns.valid].any():
        raise SpecError(
            "MADRAG: a pruner keeps other visual tokens beside the documents than without; prune before the language "
            "model by what asks for no text (FasterVLM, MMTok)"
        )
    return theirs, reference.scores
