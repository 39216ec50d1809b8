"""Attention rollout (Abnar and Zuidema, ACL 2020, arXiv 2005.00928): the baseline that explanations must beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morgana.generation.attention import View
from morgana.generation.explaining import grid
from morgana.generation.listening import Once
from morgana.generation.needs import Needs, every
from morgana.spec import part
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class Rollout:
    """How much of the prompt's last token comes from each visual token, if every layer were (A + I) / 2.

    A is attention, mean over heads, as the generator's interventions leave it, among the tokens that its pruners leave
    to the layer. The text of the answer is not read: the map is that of the first token to come.
    """

    @torch.no_grad()
    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        network, prompt, gaze = generator.network, generator.write([pixels], [query], [hits]), Gaze()
        (spans,), shape = prompt.spans, grid(prompt)
        reference = generator._calibrate([pixels], [query], prompt)
        with generator._at_work((*generator.interventions, Once(gaze)), prompt, reference) as kept:
            network(**prompt.inputs, use_cache=False, logits_to_keep=1)
        flow = gaze.whole(0).new_zeros(spans.length)
        flow[-1] = 1
        for layer in reversed(range(kept.depth)):
            (left,), attention = kept.at(layer).to(flow.device), gaze.whole(layer)
            flow[left] = (flow[left] + flow[left] @ attention) / 2
        return flow[slice(*spans.image[0])].reshape(shape).cpu()


@dataclass(eq=False)
class Gaze:
    """An intervention that changes nothing and keeps the attention of one prompt's rows, mean over heads."""

    pieces: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)  # layer -> rows (R,), (R, K)

    @property
    def needs(self) -> Needs:
        return Needs(rows=every, at="weights")

    def edit(self, weights: Tensor, view: View) -> Tensor:
        self.pieces.setdefault(view.layer, []).append((view.rows[0], weights[0].mean(0)))
        return weights

    def whole(self, layer: int) -> Tensor:
        """(M, M) of the M tokens that the layer worked on."""
        count = sum(len(rows) for rows, _ in self.pieces[layer])
        made = self.pieces[layer][0][1].new_zeros(count, count)
        for rows, seen in self.pieces[layer]:
            made[rows, : seen.shape[1]] = seen
        return made
