"""What the last prompt token looks at, by layer and head, without attention matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from morgana.generation.visual import Probe
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


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
        generator.prefill([pixels], [query], [hits], probe=probe)
    layers = sorted(probe.log_odds)
    return Diagnosis(
        torch.stack([probe.log_odds[i][0].sigmoid() for i in layers]),
        torch.stack([probe.sharpness[i][0] for i in layers]),
        torch.stack([probe.boundary[i][0] for i in layers]),
    )
