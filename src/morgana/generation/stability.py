"""Does a pruner's ranking survive? Its scores and what it keeps, of images and of changed copies of them.

That rankings of tokens are unstable is what attacks on pruned models live on (CAA, arXiv 2601.12042).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from morgana.generation.pruner import Choice, Pruner, Scored, Stage, Watched
from morgana.generation.sight import Sight
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


class Stability(NamedTuple):
    """Each (B,), by image, 1 where nothing changed: what is left of a pruner's ranking, and of its choice.

    `spearman` and `kendall` (tau-b) correlate the scores of its first stage, where every token is still there; of
    several views they are the mean, and NaN where one has no scores, or equal ones. `jaccard` is |A ∩ B| / |A ∪ B| of
    the tokens kept in the end, and `kept` |A ∩ B| / |A|: a choice by lot of k from n gives k / n. CAA reports rank
    correlation and how much of the best 100 stays; the budget instead of 100, Jaccard, and the stage are our choice.
    """

    spearman: Tensor
    kendall: Tensor
    jaccard: Tensor
    kept: Tensor


def stability(
    generator: HF, query: Query, hits: Hits, pixels: Pixels, changed: Pixels, other: HF | None = None
) -> Stability:
    """Of images (B, 3, H, W) and their copies, asked the same; `other` prunes the copies (another seed, or layer).

    Of several pruners the first gives the scores. SpecError without one, or where it keeps all or nothing.
    """
    if pixels.shape != changed.shape:
        raise SpecError(f"images of shape {tuple(pixels.shape)} and copies of {tuple(changed.shape)}; give one for one")
    rows = []
    for before, after in zip(torch.split(pixels, 1), torch.split(changed, 1), strict=True):
        was, now = ranking(generator, before, query, hits), ranking(other or generator, after, query, hits)
        if [x.shape for x in was.scores] != [x.shape for x in now.scores]:
            raise SpecError(f"{generator.pruner!r} and {other!r} do not rank the same tokens; give pruners of a kind")
        both = [correlations(a, b) for a, b in zip(was.scores, now.scores, strict=True)]
        rows.append((*torch.tensor(both or [[torch.nan] * 2]).mean(0).tolist(), *agreement(was.kept, now.kept)))
    return Stability(*torch.tensor(rows).T)


class Ranking(NamedTuple):
    """Scores by view, none where the pruner has none, and the places in the prompt of the tokens that it keeps."""

    scores: tuple[Tensor, ...]
    kept: frozenset[int]


@torch.no_grad()
def ranking(generator: HF, pixels: Pixels, query: Query, hits: Hits) -> Ranking:
    """What a generator's pruners make of one image (1, 3, H, W), its interventions at work."""
    if not generator.pruners:
        raise SpecError(f"{generator!r} prunes nothing, so there is no ranking; give it a pruner")
    prompt, ear = generator.write([pixels], [query], [hits]), Ear(generator.pruners[0])
    reference = generator._calibrate([pixels], [query], prompt)
    listening = replace(generator, pruner=(ear, *generator.pruners))
    with listening._at_work(generator.interventions, prompt, reference) as kept:
        generator.network(**prompt.inputs, use_cache=False, logits_to_keep=1)
    partial = [act.layer for act in kept.acts if act.done <= 1 and act.pruner is not ear]
    if not partial:
        raise SpecError(f"{generator.pruner!r} keeps all tokens or none, which is no ranking; use FastV or FasterVLM")
    (images,) = kept.images(max(partial))
    starts = (first for first, _ in prompt.spans[0].image)
    return Ranking(tuple(ear.scores), frozenset(t + a for a, x in zip(starts, images, strict=True) for t in x.tolist()))


@dataclass(eq=False)
class Ear:
    """A pruner that takes nothing out: it listens to the scores of another, before the first stage of that."""

    pruner: Pruner
    scores: list[Tensor] = field(default_factory=list)
    keep: int = 0  # or there were nothing to ask about

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return (Stage(self.pruner.stages(depth)[0].layer, 1.0),)

    def watched(self, depth: int, eyes: int) -> Watched:
        return self.pruner.watched(depth, eyes)

    def due(self, sights: tuple[Sight, ...]) -> bool:
        if isinstance(self.pruner, Scored):
            self.scores += [self.pruner.scores(sight).double().cpu() for sight in sights]
        return False

    def choose(self, sight: Sight, count: int) -> Choice:
        raise AssertionError("never due")


def correlations(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Spearman's and Kendall's (tau-b) of scores (n,); 1 for equal scores, NaN where only one of both ranks.

    >>> correlations(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))[0]
    0.5
    """
    from scipy import stats

    if torch.equal(before, after):
        return 1.0, 1.0
    if any(bool((x == x[0]).all()) for x in (before, after)):
        return float("nan"), float("nan")
    return float(stats.spearmanr(before, after).statistic), float(stats.kendalltau(before, after).statistic)


def agreement(before: frozenset[int], after: frozenset[int]) -> tuple[float, float]:
    """|A ∩ B| / |A ∪ B| and |A ∩ B| / |A|; 1 of nothing.

    >>> agreement(frozenset({1, 2}), frozenset({2, 3}))
    (0.3333333333333333, 0.5)
    """
    both = len(before & after)
    return both / len(before | after) if before | after else 1.0, both / len(before) if before else 1.0
