"""BAIR (Jung and Wang, 2026, arXiv 2605.05594): give the last prompt token its sight back, and calm the text's ends."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from morgana.generation.layout import Columns, Layout
from morgana.generation.needs import Needs
from morgana.generation.view import Reference, View
from morgana.spec import part
from morgana.types import SpecError

SCALES = (1e-6, 0.01, 0.2, 1.0, 3.0, 8.0, 25.0, 100.0)  # T lies between two of these,
FINER = (8, 8)  # then of so many between those, and so on
STEPS = 2  # and then: to 1e-6 in sharpness; the paper allows 1e-4
SHARPEST = 0.99
COLD = -1e15  # the score of filling: it has no weight at any scale, and its square is finite


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
        if not layout.visual.index.shape[1]:
            return scores
        edited, hidden = scores, scores.isneginf()
        whole = scores.masked_fill(hidden, 0)  # so that arithmetic on what is not seen stays finite
        if self.alpha_v:
            log_odds, sharp = targets(view.reference, view.layer, scores)
            seen = layout.visual.take(whole)
            seen = seen if layout.visual.full else seen.masked_fill(~layout.visual.mask, 0)
            level = log_odds + layout.text.take(scores).logsumexp(-1, keepdim=True)
            restored = restore(seen, layout, self.gamma_s * sharp) + level.nan_to_num_(neginf=0.0, posinf=0.0)
            edited = layout.visual.put(edited, torch.lerp(seen, restored, self.alpha_v))
        if self.alpha_t:
            edited = edited.sub(penalty(whole, layout, self.safe_tail), alpha=self.alpha_t)
        if edited is scores:
            return scores
        edited = edited.masked_fill(hidden, float("-inf"))
        return edited if layout.visual.full else torch.where(layout.visual.count > 0, edited, scores)


def targets(reference: Reference | None, layer: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    """log(M*/(1-M*)) and S* of a layer, (B, H, 1, 1)."""
    if reference is None:
        raise SpecError("BAIR needs a calibration pass without documents: use HF(..., interventions=(BAIR(),))")
    if layer not in reference.log_odds or reference.log_odds[layer].shape != scores.shape[:2]:
        raise SpecError(
            f"BAIR's calibration pass does not fit layer {layer} of {tuple(scores.shape[:2])} batch x heads"
        )
    return reference.log_odds[layer][..., None, None], reference.sharpness[layer][..., None, None]


def restore(seen: Tensor, layout: Layout, sharp: Tensor) -> Tensor:
    """Visual scores (B, H, R, V) of the sharpness wanted, T* SiLU(Z), less what makes their weights add up to 1."""
    mask, count, full = layout.visual.mask, layout.visual.count, layout.visual.full
    if full:
        spread, mean = torch.var_mean(seen, -1, correction=min(1, seen.shape[-1] - 1), keepdim=True)
    else:
        mean = seen.sum(-1, keepdim=True) / count.clamp(min=1)
        spread = ((seen - mean).square() * mask).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    shape = torch.nn.functional.silu((seen - mean) * spread.clamp(min=1e-12).rsqrt())
    made = solve(shape, layout.visual, sharp.nan_to_num().clamp_(0, SHARPEST)) * shape
    made = made if full else made.masked_fill(~mask, COLD)
    return made.log_softmax(-1)


def solve(shape: Tensor, columns: Columns, sharp: Tensor) -> Tensor:
    """T of at most 100 with sharpness(softmax(T shape)) = sharp, for every row at once, (B, H, R, 1).

    Sharpness rises with T, so that T is bracketed, by many scales at once; Newton's steps begin where a line through
    the bracket's ends says. A row that cannot be that sharp gets 100. The gradient is that of the implicit function.
    """
    shape = shape if columns.full else shape.masked_fill(~columns.mask, COLD)
    along = (shape - shape.amax(-1, keepdim=True)).flatten(0, 2)[:, None]  # (rows, 1, V)
    moments = torch.cat([torch.ones_like(along), along, along.square()], 1).transpose(1, 2)
    widest = columns.widest.to(shape.dtype)
    asked, widest = (x.expand(*shape.shape[:3], 1).reshape(-1, 1) for x in (sharp * widest, widest))

    def at(scale: Tensor) -> tuple[Tensor, Tensor]:  # sharpness x log N at scales (rows, K), and its slope / scale
        total, first, second = ((scale[..., None] * along).exp_() @ moments).unbind(-1)
        mean = first / total
        return torch.addcmul(widest, scale, mean) - total.log(), torch.addcmul(second / total, mean, mean, value=-1)

    with torch.no_grad():
        scales, *ramps, ends = brackets(shape.dtype, shape.device)
        points = scales.expand(len(asked), -1)
        for ramp in (*ramps, None):
            found = at(points)[0]
            place = torch.searchsorted(found, asked).clamp_(1, found.shape[1] - 1) + ends
            low, high = points.gather(1, place).chunk(2, 1)
            points = points if ramp is None else torch.lerp(low, high, ramp)
        under, over = found.gather(1, place).chunk(2, 1)
        scale = torch.lerp(low, high, ((asked - under) / (over - under).clamp_(min=1e-12)).clamp_(0, 1))
        for _ in range(STEPS):
            found, bend = at(scale)
            scale = torch.addcdiv(scale, asked - found, (scale * bend).clamp_(min=1e-12)).clamp_(low, high)
    if shape.requires_grad or sharp.requires_grad:
        found, bend = at(scale)
        slope = scale * bend.detach()
        step = torch.where(slope > 1e-6 * widest, (found - asked) / slope.clamp(min=1e-12), 0.0)
        scale = scale - (step - step.detach())
    return scale.view(*shape.shape[:3], 1)


@cache
def brackets(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The first scales; where the next ones lie between two of them, and so on; and the steps to these two."""
    ramps = (torch.linspace(0, 1, count, dtype=dtype, device=device) for count in FINER)
    return torch.tensor(SCALES, dtype=dtype, device=device), *ramps, torch.arange(-1, 1, device=device)


def penalty(scores: Tensor, layout: Layout, safe_tail: int) -> Tensor:
    """What scores (B, H, R, N) lose: text, by how much its first and last fifth exceed its mean, rising to the ends."""
    over, slopes = layout.ends(scores.dtype, safe_tail)
    return ((scores.flatten(1, 2) @ over).relu() @ slopes).view_as(scores)
