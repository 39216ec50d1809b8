"""What a model looks at, by layer, without attention matrices: at the last prompt token, and while it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from morgana.generation.listening import Once
from morgana.generation.needs import Needs, answering, every
from morgana.generation.view import View
from morgana.generation.visual import Probe
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF

STAGES = ("early", "middle", "late")  # thirds of the layers


class Diagnosis(NamedTuple):
    """Each (layers, heads): attention of the last prompt row, after the generator's own interventions.

    `m_vis` is the mass on visual tokens, `s_vis` its sharpness 1 - H / log N (NaN without an image), and `boundary` the
    mass on the first and last fifth of the text (BAIR, arXiv 2605.05594).
    """

    m_vis: Tensor
    s_vis: Tensor
    boundary: Tensor


def diagnose(generator: HF, query: Query, hits: Hits, pixels: Pixels | None = None) -> Diagnosis:
    """Measure one prompt; `pixels` (1, 3, H, W) stand in for the query's image file."""
    probe = Probe()
    pixels = generator.look(query) if pixels is None else pixels
    with torch.no_grad():
        generator.prefill([pixels], [query], [hits], probe=Once(probe))
    layers = sorted(probe.log_odds)
    return Diagnosis(
        torch.stack([probe.log_odds[i][0].sigmoid() for i in layers]),
        torch.stack([probe.sharpness[i][0] for i in layers]),
        torch.stack([probe.boundary[i][0] for i in layers]),
    )


class Dominance(NamedTuple):
    """How much more attention a text token gets than a visual one while the model answers (arXiv 2508.10552).

    `mdi` = (A_T / |T|) / (A_O / |O|), and AEI = share of the attention / share of the tokens, of text and of the image;
    each by stage (3,), the thirds of the layers, whose attention is added up over heads, layers and answering rows, and
    whose tokens over layers, as pruners leave them. 1 is even-handed; mdi = aei_text / aei_image, infinite where the
    image gets nothing; mdi and aei_image are NaN in a stage that no visual token reaches. T is the prompt's text: the
    paper does not say whether the answer so far counts, and here it does not.
    """

    mdi: Tensor
    aei_text: Tensor
    aei_image: Tensor


def dominance(generator: HF, query: Query, hits: Hits, pixels: Pixels | None = None) -> Dominance:
    """Let the generator answer, and measure text dominance by layer stage; SpecError without an image."""
    pixels = generator.look(query) if pixels is None else pixels
    if pixels is None:
        raise SpecError(f"query {query.id!r} has no image, so that no modality can dominate; give pixels")
    scale = Scale()
    replace(generator, interventions=(*generator.interventions, Once(scale))).generate([pixels], [query], [hits])
    return scale.balance()


def balance(text: Tensor, image: Tensor, words: Tensor | int, patches: Tensor | int) -> Dominance:
    """Dominance from attention by layer (L,), and numbers of tokens, by layer or of every layer.

    >>> balance(torch.tensor([3.0]), torch.tensor([1.0]), 10, 10).mdi
    tensor([3., 3., 3.])
    """
    parts, depth = stages(len(text)), len(text)
    by_layer = (torch.as_tensor(x, dtype=torch.float64).expand(depth) for x in (text, image, words, patches))
    a_text, a_image, t, o = (torch.stack([x[p].sum() for p in parts]) for x in by_layer)
    whole, count = a_text + a_image, t + o
    made = Dominance((a_text / t) / (a_image / o), a_text / whole * count / t, a_image / whole * count / o)
    return Dominance(*(x.float() for x in made))


def stages(count: int) -> list[slice]:
    """Early, middle and late layers; of fewer than three layers, stages share."""
    edges = [round(i * count / len(STAGES)) for i in range(len(STAGES) + 1)]
    return [slice(min(a, count - 1), max(b, min(a, count - 1) + 1)) for a, b in pairwise(edges)]


@dataclass(eq=False)
class Scale:
    """An intervention that changes nothing and adds up what answering rows give to text and to the image."""

    given: dict[int, Tensor] = field(default_factory=dict)  # layer -> (2,) attention of text and of the image
    tokens: dict[int, Tensor] = field(default_factory=dict)  # layer -> (2,) how many of either it works on

    @property
    def needs(self) -> Needs:
        return Needs(rows=answering)

    def edit(self, scores: Tensor, view: View) -> Tensor:
        weight, mine = scores.softmax(-1), view.mine[:, None, :, None]
        parts = view.layout.text, view.layout.visual
        found = torch.stack([(columns.take(weight) * mine).sum() for columns in parts]).cpu()
        self.given[view.layer] = self.given.get(view.layer, 0) + found
        self.tokens[view.layer] = torch.stack([columns.valid.sum() for columns in parts]).cpu()
        return scores

    def balance(self) -> Dominance:
        given, tokens = (torch.stack([x[i] for i in sorted(x)]).T for x in (self.given, self.tokens))
        return balance(*given, *tokens)


def alignment(generator: HF, query: Query, hits: Hits, pixels: Pixels | None = None) -> Tensor:
    """Modality alignment score by layer, (L,): mean over the question's tokens of the largest cosine to a visual token.

    Published scores differ; ours is FILIP's text-to-image similarity (arXiv 2111.07783) on a layer's output, of states
    whose mean over the prompt is taken off, since states of one layer all lean one way. NaN in a layer that no visual
    token reaches.
    """
    pixels = generator.look(query) if pixels is None else pixels
    if pixels is None or not query.text:
        raise SpecError(f"query {query.id!r} needs an image and a question to align; give pixels")
    heard = Meeting()
    with torch.no_grad():
        generator.prefill([pixels], [query], [hits], probe=Once(heard))
    return torch.stack([heard.score[i] for i in sorted(heard.score)])


@dataclass(eq=False)
class Meeting:
    """An intervention that changes nothing and compares states of the question with those of the image."""

    score: dict[int, Tensor] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(rows=every, at="states")

    def edit(self, states: Tensor, view: View) -> Tensor:
        (spans,) = view.layout.spans
        centred = torch.nn.functional.normalize((states[0] - states[0].mean(0)).float(), dim=-1)
        seen = centred[[t for first, last in spans.image for t in range(first, last)]]
        alike = (centred[slice(*spans.question)] @ seen.T).cpu()
        self.score[view.layer] = alike.amax(-1).mean() if len(seen) else alike.new_tensor(torch.nan)
        return states
