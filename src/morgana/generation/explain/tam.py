"""TAM (Li et al., ICCV 2025): token activation maps, rid of what earlier words light up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morgana.generation.explaining import square
from morgana.spec import part
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class TAM:
    """For each word of the answer, its logit at every visual position, at least 0, less what other words explain.

    The interference of a word is the mean of the maps of earlier words that differ from it, weighted by how like their
    logits at the word's place are; it is scaled by least squares, subtracted, and cut at 0. A 3 × 3 filter follows,
    Gaussian over ranks with sigma = std / mean. The answer's map is the mean over its words. The paper's words are all
    earlier tokens; these are those of the question and of the answer.
    """

    smooth: bool = True

    @torch.no_grad()
    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        prompt = generator._shared(pixels, query, hits, text)
        (spans,) = prompt.spans
        logits = generator.network(**prompt.inputs, use_cache=False).logits[0].float()
        ids = prompt.inputs["input_ids"][0]
        first, last = spans.image[0]
        answer = range(spans.stop, spans.length - 1)  # the end token is no word
        words = [*range(*spans.question), *answer]
        maps = logits[first:last, ids[words]].relu().T  # (W, N)
        found = []
        for k in range(len(words) - len(answer), len(words)):
            before = [i for i in range(k) if ids[words[i]] != ids[words[k]]]
            weight = logits[words[k] - 1, ids[words]][before].relu() if before else logits.new_zeros(0)
            other = (weight / weight.sum().clamp(min=1e-12)) @ maps[before] if before else maps[k] * 0
            found.append((maps[k] - scale(maps[k], other) * other).relu().reshape(square(last - first)))
        whole = torch.stack([ranked(one) if self.smooth else one for one in found]).mean(0) if found else None
        return torch.zeros(square(last - first)) if whole is None else whole.cpu()


def scale(own: Tensor, other: Tensor) -> Tensor:
    """The factor s that makes |own − s other| least."""
    return (own @ other) / (other @ other).clamp(min=1e-12)


def ranked(heat: Tensor) -> Tensor:
    """Each cell as the mean of its sorted 3 × 3 neighbourhood, weighted by a Gaussian around the middle rank."""
    window = torch.nn.functional.unfold(torch.nn.functional.pad(heat[None, None], (1, 1, 1, 1), mode="replicate"), 3)[0]
    values = window.sort(0).values  # (9, N)
    sigma = (values.std(0) / values.mean(0).clamp(min=1e-12)).clamp(min=1e-6)
    offset = torch.arange(-4.0, 5.0, device=heat.device)[:, None]
    weight = (-0.5 * (offset / sigma).square()).exp()
    made: Tensor = ((values * weight).sum(0) / weight.sum(0)).reshape(heat.shape)
    return made
