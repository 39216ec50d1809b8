"""TAM (Li et al., ICCV 2025, arXiv 2506.23270): token activation maps, rid of what earlier words light up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morgana.generation.saying import Said, said
from morgana.spec import part
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class TAM:
    """For each word of the answer, its logit at every visual position, at least 0, less what other words explain.

    The interference of a word is the mean of the maps of earlier words that differ from it, weighted by their text
    relevance: this word's logit at their own positions, at least 0, as its map is its logit at visual ones. It is
    scaled by least squares, subtracted, and cut at 0. A 3 × 3 filter follows, Gaussian over ranks with sigma = std /
    mean. The answer's map is the mean over its words. The paper's words are all earlier tokens; these are those of the
    question and of the answer.
    """

    smooth: bool = True

    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        found = said(generator, pixels, query, hits, text)
        if not found.spoken:
            return torch.zeros(found.maps.shape[1:])
        left = [clear(found, k) for k in found.answer]
        return torch.stack([ranked(one) if self.smooth else one for one in left]).mean(0).cpu()


def clear(found: Said, k: int) -> Tensor:
    """(rows, columns) of word `k` without what earlier words explain; a word does not subtract itself."""
    before = [i for i in range(k) if found.ids[i] != found.ids[k]]
    weight = found.here[before, found.ids[k]].relu()
    return rid(found.maps[k], found.maps[before], weight)


def rid(own: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """A map without the weighted mean of others (B, …), scaled by least squares; at least 0."""
    other = torch.tensordot(weight / weight.sum().clamp(min=1e-12), others, 1)
    made: Tensor = (own - scale(own.flatten(), other.flatten()) * other).relu()
    return made


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
