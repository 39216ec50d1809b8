"""BAIR (Jung and Wang, 2026, arXiv 2605.05594): give the last prompt token its sight back, and calm the text's ends."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from morgana.generation.layout import Layout
from morgana.generation.needs import Needs
from morgana.generation.view import View
from morgana.generation.visual import log_sum
from morgana.spec import part
from morgana.types import SpecError

# T lies between two of SCALES, then of FINER scales between those; Newton's STEPS end within 1e-6 in sharpness
# (4e-6 in float32), where the paper allows 1e-4.
SCALES = (1e-6, *(0.05 * 2000 ** (n / 10) for n in range(11)))  # to 100
FINER = 12
STEPS = 2
SHARPEST = 0.99
LEAST = 1e-9  # nats: an entropy that is none
FAINT = -80.0  # e to this is no weight; below it are numbers that a processor is slow with
COLD = -1e9  # the score of filling: it has no weight at any scale, and its square times e to FAINT is none


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
        whole = layout.visual.full and (view.clear or float(scores.detach().min()) > -math.inf)
        wanted = targets(view, self.gamma_s, scores) if self.alpha_v else None
        if whole and (self.alpha_v or self.alpha_t) and (rows := compiled(scores, layout, wanted)):
            ends = layout.ends(scores.dtype, self.safe_tail)
            return rows(scores, layout.visual.run, wanted, ends, self.alpha_v, self.alpha_t)
        seen, text, edited = layout.visual.take(scores), layout.text.take(scores), scores
        hidden = None if whole else seen.isneginf()
        if wanted:
            log_odds, sharp = wanted
            level = log_odds + log_sum(text)
            clear = seen if hidden is None else seen.masked_fill(hidden, 0)
            restored = restore(clear, sharp, hidden) + level.nan_to_num_(neginf=0.0, posinf=0.0)
            mixed = torch.lerp(clear, restored, self.alpha_v)
            edited = layout.visual.put(edited, mixed if hidden is None else mixed.masked_fill(hidden, float("-inf")))
        if self.alpha_t:
            lost = penalty(scores if whole else level_headed(scores, text), layout, self.safe_tail)
            edited = edited.sub(lost, alpha=self.alpha_t)
        return edited if layout.visual.full else torch.where(layout.visual.count > 0, edited, scores)


def compiled(scores: Tensor, layout: Layout, wanted: tuple[Tensor, Tensor] | None) -> Callable[..., Tensor] | None:
    """The loop over rows, where it serves: even prompts on a CPU, when nobody differentiates, with numba."""
    even = layout.even and scores.shape[-1] == layout.length
    fits = even and scores.dtype == torch.float32 and scores.device.type == "cpu"
    return loop() if fits and all(map(bare, (scores, *(wanted or ())))) else None


def bare(x: Tensor) -> bool:
    """It is numbers and nothing else: no gradient is wanted, backward or forward, and `vmap` has not wrapped it."""
    if x.requires_grad or unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        return False
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


@cache
def loop() -> Callable[..., Tensor] | None:
    """The compiled loop over rows, tried once; None where numba is not installed or, with a warning, where it fails."""
    try:
        from morgana.generation.interventions._bair_rows import edit

        zeros = torch.zeros(1, 1, 2, 2, dtype=torch.float32, device="cpu")
        edit(zeros[..., :1, :], slice(0, 1), None, (zeros[0], zeros[0]), 1.0, 1.0)
    except ModuleNotFoundError:
        return None
    except Exception as error:  # a numba of another numpy, a full disk, a compiled file that was cut off, …
        kept = f"*.nbi and *.nbc in {Path(__file__).parent / '__pycache__'}, or in NUMBA_CACHE_DIR"
        warnings.warn(
            f"numba cannot compile BAIR's loop ({type(error).__name__}: {error}); torch does its work, more slowly. "
            f"Install a numba that fits this numpy; delete what numba keeps, {kept}",
            stacklevel=2,
        )
        return None
    return edit


def targets(view: View, gamma_s: float, scores: Tensor) -> tuple[Tensor, Tensor]:
    """log(M*/(1-M*)) and min(0.99, gamma_s S*) of a layer, (B, H, 1, 1)."""
    reference, layer, known = view.reference, view.layer, view.memory
    if reference is None:
        raise SpecError("BAIR needs a calibration pass without documents: use HF(..., interventions=(BAIR(),))")
    if layer not in reference.log_odds or reference.log_odds[layer].shape != scores.shape[:2]:
        raise SpecError(
            f"BAIR's calibration pass does not fit layer {layer} of {tuple(scores.shape[:2])} batch x heads"
        )
    if not known:  # of all layers, while the code is in the processor's caches
        for each, odds in reference.log_odds.items():
            sharp = (gamma_s * reference.sharpness[each]).nan_to_num().clamp_(0, SHARPEST)
            known[each] = odds[..., None, None], sharp[..., None, None]
    return known[layer]  # type: ignore[no-any-return]


def restore(seen: Tensor, sharp: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Visual scores (B, H, R, V) of the sharpness wanted, T* SiLU(Z), less what makes their weights add up to 1.

    What is `hidden` takes no part; None: nothing is.
    """
    count: int | Tensor = seen.shape[-1]
    free: int | Tensor = max(1, seen.shape[-1] - 1)
    if hidden is not None:
        real = (~hidden).sum(-1, keepdim=True)
        count, free = real.clamp(min=1), (real - 1).clamp(min=1)
    apart = seen - seen.sum(-1, keepdim=True) / count
    apart = apart if hidden is None else apart.masked_fill(hidden, 0)
    spread = (apart * apart).sum(-1, keepdim=True) / free
    shape = torch.nn.functional.silu(apart * spread.clamp(min=1e-12).rsqrt())
    shape = shape if hidden is None else shape.masked_fill(hidden, COLD)
    return (solve(shape, sharp, hidden) * shape).log_softmax(-1)


def solve(shape: Tensor, sharp: Tensor, hidden: Tensor | None = None) -> Tensor:
    """T of at most 100 with sharpness(softmax(T shape)) = sharp, for every row at once, (B, H, R, 1).

    Entropy falls with T, so that T is bracketed, by many scales at once; Newton's steps begin where a line through the
    bracket's ends, in the entropy's logarithm, says. A row that cannot be that sharp gets 100. The gradient is that of
    the implicit function. What is `hidden` has the shape COLD. Shapes are of standardised scores.
    """
    along = (shape - shape.amax(-1, keepdim=True)).view(-1, 1, shape.shape[-1])
    moments = torch.cat([torch.ones_like(along), along, along.square()], 1).transpose(1, 2)
    most = math.log(max(2, shape.shape[-1])) if hidden is None else entropy_at_most(hidden).to(shape.dtype)
    asked = ((1 - sharp) * most).expand(*shape.shape[:3], 1).reshape(-1, 1)

    def at(scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # entropy at scales (rows, K), and what it is of
        weights = (scale[..., None] * along).clamp_(min=FAINT).exp_()
        total, first, second = torch.bmm(weights, moments).unbind(-1)
        mean = first / total
        return torch.addcmul(total.log(), scale, mean, value=-1), mean, second, total

    def near(points: Tensor) -> tuple[Tensor, Tensor]:  # entropies of scales (rows, K), places of two neighbours
        entropy, *_ = at(points)
        return entropy, (entropy > asked).sum(-1, keepdim=True).clamp_(1, points.shape[1] - 1) + ends

    def step(scale: Tensor) -> tuple[Tensor, Tensor]:  # entropy less what is asked, and how fast it falls
        entropy, mean, second, total = at(scale)
        return entropy - asked, torch.addcmul(second / total, mean, mean, value=-1).mul_(scale)

    with torch.no_grad():
        scales, ramp, ends = brackets(shape.dtype, shape.device)
        _, place = near(scales.expand(len(asked), -1))
        low, high = scales.take(place).chunk(2, 1)
        points = torch.lerp(low, high, ramp)
        entropy, place = near(points)
        (low, high), around = points.gather(1, place).chunk(2, 1), entropy.gather(1, place).clamp_(min=LEAST).log_()
        above, below = around.chunk(2, 1)
        scale = torch.lerp(low, high, ((above - asked.log()) / (above - below).clamp_(min=1e-12)).clamp_(0, 1))
        for _ in range(STEPS):
            gap, slope = step(scale)
            scale = torch.addcdiv(scale, gap, slope.clamp_(min=1e-12)).clamp_(low, high)
    if shape.requires_grad or sharp.requires_grad:
        gap, slope = step(scale)
        slope = slope.detach()
        reached = (slope > 1e-6) & (scale < SCALES[-1])  # a row that stays short of it stays at 100
        error = torch.where(reached, gap / slope.clamp(min=1e-12), 0.0)
        scale = scale + (error - error.detach())
    return scale.view(*shape.shape[:3], 1)


def entropy_at_most(hidden: Tensor) -> Tensor:
    """log N of the N columns that each row sees, of two at least, (B, H, R, 1)."""
    return (~hidden).sum(-1, keepdim=True).clamp(min=2).double().log()


@cache
def brackets(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The first scales; where the next ones lie between two of them; and the places of these two."""
    ramp = torch.linspace(0, 1, FINER, dtype=dtype, device=device)
    return torch.tensor(SCALES, dtype=dtype, device=device), ramp, torch.arange(-1, 1, device=device)


def level_headed(scores: Tensor, text: Tensor) -> Tensor:
    """Scores (B, H, R, N) with the mean of the text (B, H, R, L) that a row sees in place of what it does not."""
    hidden = text.isneginf()
    mean = text.masked_fill(hidden, 0).sum(-1, keepdim=True) / (~hidden).sum(-1, keepdim=True).clamp(min=1)
    return torch.where(scores.isneginf(), mean, scores)


def penalty(scores: Tensor, layout: Layout, safe_tail: int) -> Tensor:
    """What scores (B, H, R, N) lose: text, by how much its first and last fifth exceed its mean, rising to the ends."""
    over, slopes = layout.ends(scores.dtype, safe_tail)
    return torch.bmm(torch.bmm(scores.flatten(1, 2), over).relu(), slopes).view_as(scores)
