"""BAIR (Jung and Wang, 2026, arXiv 2605.05594): give the last prompt token its sight back, and calm the text's ends."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.layout import Layout
from morgana.generation.needs import Needs
from morgana.generation.view import Reference, View
from morgana.spec import part
from morgana.types import SpecError

SCALES = (1e-6, 0.01, 0.2, 1.0, 3.0, 8.0, 25.0, 100.0)  # T lies between two of these, and of as many between those
STEPS = 5  # then: to 1e-6 in sharpness on 4,000 random rows, a heavy-tailed quarter of them; the paper allows 1e-4
SHARPEST = 0.99
COLD = -1e15  # the score of filling: its weight is none at any scale but 0, and its square is finite


@part
class BAIR:
    """Bottleneck Attention Intervention for Recovery, on the last prompt row of every layer and head.

    Visual scores are moved by `alpha_v` towards ones whose mass and sharpness are those of a pass without documents
    (`gamma_s` scales that sharpness); text scores lose `alpha_t` times a penalty that rises to both ends of the text,
    except on its last `safe_tail` tokens. Prompts without an image are left alone. The paper does not say which
    deviation standardises the scores (we take the sample's, at least 1e-6), nor how 20 % of the text is rounded (we
    round down, at least one token), nor whose tail is safe (we take the prompt's).
    """

    alpha_v: float = 0.5
    alpha_t: float = 1.0
    gamma_s: float = 1.0
    safe_tail: int = 0  # tokens

    def __post_init__(self) -> None:
        for name in ("alpha_v", "alpha_t", "gamma_s", "safe_tail"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise SpecError(f"BAIR's {name} is {value}; it must be a number of at least 0")

    @property
    def needs(self) -> Needs:
        return Needs(calibration="bare" if self.alpha_v else "none")

    def edit(self, scores: Tensor, view: View) -> Tensor:
        layout = view.layout
        seen, text = layout.visual.take(scores), layout.text.take(scores)
        if not seen.shape[-1]:
            return scores
        edited = scores
        if self.alpha_v:
            log_odds, sharp = targets(view.reference, view.layer, scores)
            restored = restore(seen, text, layout, log_odds, self.gamma_s * sharp)
            edited = layout.visual.put(edited, torch.lerp(clear(seen), restored, self.alpha_v))
        if self.alpha_t:
            edited = layout.text.put(edited, text - self.alpha_t * penalty(text, layout, self.safe_tail))
        return torch.where(layout.visual.count > 0, edited, scores)


def targets(reference: Reference | None, layer: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    """log(M*/(1-M*)) and S* of a layer, (B, H, 1, 1)."""
    if reference is None:
        raise SpecError("BAIR needs a calibration pass without documents: use HF(..., interventions=(BAIR(),))")
    if layer not in reference.log_odds or reference.log_odds[layer].shape != scores.shape[:2]:
        raise SpecError(
            f"BAIR's calibration pass does not fit layer {layer} of {tuple(scores.shape[:2])} batch x heads"
        )
    return reference.log_odds[layer][..., None, None], reference.sharpness[layer][..., None, None]


def clear(logits: Tensor) -> Tensor:
    """Zero for filling, so that arithmetic on it stays finite."""
    return logits.masked_fill(logits.isneginf(), 0)


def restore(seen: Tensor, text: Tensor, layout: Layout, log_odds: Tensor, sharp: Tensor) -> Tensor:
    """Visual scores (B, H, R, V) with the mass and sharpness wanted: T* SiLU(Z) + a0."""
    mask, count = layout.visual.mask, layout.visual.count
    whole = clear(seen)
    mean = whole.sum(-1, keepdim=True) / count.clamp(min=1)
    spread = ((whole - mean).square() * mask).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    shape = torch.nn.functional.silu((whole - mean) / spread.clamp(min=1e-12).sqrt())
    scale = solve(shape, mask, count, sharp.nan_to_num().clamp(0, SHARPEST))
    made = scale * shape
    level = made.masked_fill(~mask, float("-inf")).logsumexp(-1, keepdim=True)
    return made + (log_odds + text.logsumexp(-1, keepdim=True) - level).nan_to_num(neginf=0.0, posinf=0.0)


def solve(shape: Tensor, mask: Tensor, count: Tensor, sharp: Tensor) -> Tensor:
    """T of at most 100 with sharpness(softmax(T shape)) = sharp, for every row at once, (B, H, R, 1).

    Newton's steps on the root of the sharpness, which begins as a line, between two near scales and from where the line
    between them says; a wild one is halved. A row that cannot be that sharp gets 100. The gradient is that of the
    implicit function.
    """
    peak = shape.masked_fill(~mask, float("-inf")).amax(-1, keepdim=True)
    along = (shape - peak).masked_fill(~mask, COLD)[..., None, :]
    widest = count.clamp(min=2).to(shape.dtype).log()

    def at(scale: Tensor) -> tuple[Tensor, Tensor]:  # sharpness x log N, and its slope, at scales (B, H, R, K)
        weight = (scale[..., None] * along).exp()
        total = weight.sum(-1).clamp(min=1)  # the peak's own weight; less only where nothing is
        once = weight * along
        mean = once.sum(-1) / total
        return widest - total.log() + scale * mean, scale * ((once * along).sum(-1) / total - mean.square())

    asked = sharp * widest
    with torch.no_grad():
        root, under = asked.sqrt(), shape.new_zeros((*shape.shape[:-1], 1))
        points = torch.tensor(SCALES, dtype=shape.dtype, device=shape.device).expand(*shape.shape[:-1], -1)
        ramp = torch.linspace(0, 1, len(SCALES), dtype=shape.dtype, device=shape.device)
        for _ in range(2):
            roots = torch.cat([under, at(points[..., 1:])[0].clamp_(min=0).sqrt_()], -1)
            place = (roots[..., 1:] < root).sum(-1, keepdim=True)
            above = (place + 1).clamp_(max=len(SCALES) - 1)
            (low, high), (under, over) = ((x.gather(-1, place), x.gather(-1, above)) for x in (points, roots))
            points = low + (high - low) * ramp
        scale = low + (high - low) * ((root - under) / (over - under).clamp_(min=1e-12)).clamp_(0, 1)
        wanted = 2 * root
        for _ in range(STEPS):
            found, slope = at(scale)
            short = found < asked
            low, high = torch.where(short, scale, low), torch.where(short, high, scale)
            root = found.clamp_(min=0).sqrt_()
            guess = scale + (wanted - 2 * root) * root / slope.clamp_(min=1e-12)
            near = guess.clamp(low, high)  # a step a little beyond an end stops there, a wild one is halved instead
            scale = torch.where((guess - near).abs_() > (high - low) / 100, (low + high) / 2, near)
    if not (shape.requires_grad or sharp.requires_grad):
        return scale
    found, slope = at(scale)
    slope = slope.detach() / widest
    step = torch.where(slope > 1e-6, (found - asked) / widest / slope.clamp(min=1e-6), 0.0)
    return scale - (step - step.detach())


def penalty(text: Tensor, layout: Layout, safe_tail: int) -> Tensor:
    """What text scores (B, H, R, L) lose: by how much the first and last fifth exceed the mean, rising to the ends."""
    mask, count = layout.text.mask, layout.text.count
    first, last, rising, falling = layout.ends(text.dtype)
    whole = clear(text)
    mean = (whole * mask).sum(-1, keepdim=True) / count
    made = ((whole @ first - mean).relu() * falling) + ((whole @ last - mean).relu() * rising)
    if not safe_tail:
        return made
    place = torch.arange(1, text.shape[-1] + 1, device=text.device)
    return made * (place <= count - safe_tail)
