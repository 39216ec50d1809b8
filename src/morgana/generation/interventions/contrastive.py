"""Contrastive decoding: what the model says beyond what it would have said without seeing, or what an expert knows."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from morgana.generation.needs import Needs, answering
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError

STEPS = 1000  # of the diffusion that blurs the image
FLAT = 1e-5, 5e-3  # the ends of its sigmoid schedule of betas


@part
class VisualContrast:
    """Visual contrastive decoding (Leng et al., CVPR 2024, arXiv 2311.16922): (1 + alpha) l - alpha l'.

    l' are the logits with the image noised by `step` of 1,000 diffusion steps, read with a cache of their own, so that
    decoding costs twice; tokens below `beta` times the likeliest one's probability are left out. Defaults, schedule and
    noise in the model's own normalised pixels are those of the public code (DAMO-NLP-SG/VCD); that the noise is the
    same for every image (`seed`) is our choice.
    """

    alpha: float = 1.0
    beta: float = 0.1
    step: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < math.inf and 0 <= self.beta <= 1 and 0 <= self.step < STEPS):
            raise SpecError(f"{self!r}: wanted a finite alpha >= 0, beta in [0, 1] and a step below {STEPS}")

    @property
    def needs(self) -> Needs:
        return Needs(rows=answering, at="logits")

    def edit(self, logits: Tensor, view: View) -> Tensor:
        if self.alpha == 0:
            return logits
        assert view.again is not None
        pixels = view.inputs.get("pixel_values")
        changed = {} if pixels is None else {"pixel_values": noised(pixels, images(view), self.step, self.seed)}
        other = view.again(changed)
        return plausible(logits, (1 + self.alpha) * logits - self.alpha * other, self.beta)


class Expert(Protocol):
    """Says which tokens the answer should hold: any classifier of the image, told in the model's own tokens."""

    def __call__(self, model: Any, inputs: dict[str, Any], logits: Tensor) -> Tensor:
        """Log-odds (B, V) or (V,) of every token, 0 where it has no opinion."""
        ...


@part
class ClinicalContrast:
    """Contrastive decoding with an expert's findings (after CCD, arXiv 2509.23379): logits plus bounded log-odds.

    CCD guides a radiology model by a classifier of symptoms, in two stages. Here log-odds of its findings, clipped to
    ± `bound`, times `alpha`, are added to the logits, within the plausible tokens (`beta`, as in visual contrast);
    findings in the prompt are a document. Formulas and defaults are our choice: we have not read the paper's. Without
    an `expert` the opinion is fixed: `odds[i]` are the log-odds of token `tokens[i]`.
    """

    tokens: tuple[int, ...] = ()
    odds: tuple[float, ...] = ()
    expert: Expert | None = None
    alpha: float = 1.0
    beta: float = 0.1
    bound: float = math.log(10)

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < math.inf and 0 <= self.beta <= 1 and self.bound >= 0):
            raise SpecError(f"{self!r}: wanted a finite alpha >= 0, beta in [0, 1] and a bound of at least 0")
        if len(self.tokens) != len(self.odds):
            raise SpecError(f"{len(self.tokens)} tokens and {len(self.odds)} odds; give as many")

    @property
    def needs(self) -> Needs:
        return Needs(rows=answering, at="logits")

    def edit(self, logits: Tensor, view: View) -> Tensor:
        odds = self.opinion(logits) if self.expert is None else self.expert(view.model, view.inputs, logits)
        odds = odds.to(logits).clamp(-self.bound, self.bound)
        if self.alpha == 0 or not odds.any():
            return logits
        return plausible(logits, logits + self.alpha * (odds if odds.dim() == 1 else odds[:, None]), self.beta)

    def opinion(self, logits: Tensor) -> Tensor:
        """(V,) the fixed odds."""
        size = logits.shape[-1]
        if strange := [token for token in self.tokens if not 0 <= token < size]:
            raise SpecError(f"token {strange[0]} is none of the model's vocabulary of {size}; give 0 to {size - 1}")
        made = logits.new_zeros(size)
        made[list(self.tokens)] = torch.tensor(self.odds, dtype=made.dtype, device=made.device)
        return made


def plausible(logits: Tensor, made: Tensor, beta: float) -> Tensor:
    """`made`, with the lowest number for tokens whose probability was below beta times the best one's."""
    if beta == 0:
        return made
    cut = logits.amax(-1, keepdim=True) + math.log(beta)
    return made.masked_fill(logits < cut, torch.finfo(made.dtype).min)


def noised(pixels: Tensor, count: int, step: int, seed: int) -> Tensor:
    """The forward diffusion of the model's pixels, with the same noise for each of `count` alike images."""
    low, high = FLAT
    betas = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (high - low) + low
    kept = float((1 - betas).log().cumsum(0)[step].exp())
    each = len(pixels) // count if count and len(pixels) % count == 0 else len(pixels)
    shape = (each, *pixels.shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pixels)
    noise = noise.repeat(len(pixels) // each, *[1] * (pixels.dim() - 1))
    return math.sqrt(kept) * pixels + math.sqrt(1 - kept) * noise


def images(view: View) -> int:
    return sum(bool(spans.image) for spans in view.layout.spans)
