"""Attention rollout (Abnar and Zuidema, ACL 2020, arXiv 2005.00928): the baseline that explanations must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morgana.generation.explaining import square
from morgana.generation.sight import probabilities
from morgana.generation.watching import blocks, watching
from morgana.spec import part
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class Rollout:
    """How much of the prompt's last token comes from each visual token, if every layer were (A + I) / 2.

    A is attention, mean over heads. The text of the answer is not read: the map is that of the first token to come.
    """

    @torch.no_grad()
    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        network, prompt = generator.network, generator.write([pixels], [query], [hits])
        (spans,) = prompt.spans
        tower = network.get_decoder()
        depth = len(blocks(tower))
        with watching(network, "text", tower, tuple(range(depth))) as watch:
            network(**prompt.inputs, use_cache=False, logits_to_keep=1)
        rows = torch.arange(spans.length, device=network.device)
        flow = torch.zeros(spans.length, device=network.device)
        flow[-1] = 1
        for layer in reversed(range(depth)):
            attention = probabilities(watch.taken[layer][0], rows, causal=True).mean(0)
            flow = (flow + flow @ attention) / 2
        first, last = spans.image[0]
        return flow[first:last].reshape(square(last - first)).cpu()
