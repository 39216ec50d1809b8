"""What a model says at every token while it answers: the words' logits, its pruners and interventions at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from morgana.generation.explaining import grid
from morgana.generation.sight import locate
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


class Said(NamedTuple):
    """Of W words, the question's and behind them the `spoken` of the answer, without its end.

    `maps` (W, rows, columns) are each word's logit at every visual token, at least 0, and 0 at tokens that a pruner
    took out; `ids` (W,) the words; `here` (W, V) the logits at each word, `before` (W, V) those at the token before.
    """

    maps: Tensor
    ids: Tensor
    here: Tensor
    before: Tensor
    spoken: int

    @property
    def answer(self) -> range:
        """Which words are the answer's."""
        return range(len(self.ids) - self.spoken, len(self.ids))


@torch.no_grad()
def said(generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Said:
    """One pass over a prompt and `text`, the very one of `generator.loss`; `pixels` is one image (1, 3, H, W).

    SpecError where the image's tokens are no grid, or none is left in the last layer.
    """
    prompt = generator._shared(pixels, query, hits, text)
    reference = generator._referred(pixels, query, hits)
    (spans,), network, shape = prompt.spans, generator.network, grid(prompt)
    with generator._at_work(generator.interventions, prompt, reference) as kept:
        logits = network(**prompt.inputs, use_cache=False).logits[0].float()
    (left,), (first, last) = kept.at(kept.depth).to(logits.device), spans.image[0]
    seen = ((left >= first) & (left < last)).nonzero().flatten()
    if not len(seen):
        raise SpecError(
            f"{generator.pruner!r} leaves no visual token in the last layer, where words are read off them; "
            "use Rollout or EAGLE, or explain without it"
        )
    answer = range(spans.stop, spans.length - 1)
    words = torch.tensor([*range(*spans.question), *answer], dtype=torch.long)
    ids = prompt.inputs["input_ids"][0, words]
    maps = logits.new_zeros(len(words), last - first)
    maps[:, left[seen] - first] = logits[seen][:, ids].relu().T
    here, before = (logits[locate(left, places)] for places in (words, words - 1))
    return Said(maps.reshape(-1, *shape), ids, here, before, len(answer))
