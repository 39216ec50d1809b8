"""FlexAC (NeurIPS 2025, arXiv 2510.11190): steering how freely a model associates, by a direction in middle layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, answering
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import Hits, Pixels, Query, SpecError, StoreError


@part
class FlexAC:
    """Adds `alpha` times a steering vector to the states of the rows that answer; negative keeps closer to the image.

    `vectors` is a safetensors file with one (L, D) tensor "vectors", which `steering_vectors` makes. The strength
    adapts to the state: it is alpha (1 - cos(h, v)) / 2 of the state's own norm, and the norm is kept. The public code
    (ylhz/FlexAC) keeps the norm too, and adds its vector as long as it is, times sigmoid(100 max(0, -cos(h, v))), after
    three middle layers of 32; strength, `alpha` and the middle half of the layers are our choice.
    """

    vectors: str
    alpha: float = -0.1
    first: Depth = 0.25
    stop: Depth | None = 0.75

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise SpecError(f"FlexAC's alpha is {self.alpha}; it must be a finite number")

    @property
    def needs(self) -> Needs:
        return Needs(rows=answering, layers=Layers(self.first, self.stop), at="states")

    @cached_property
    def _directions(self) -> Tensor:
        from safetensors.torch import load_file

        try:
            made = load_file(self.vectors)["vectors"]
        except (OSError, KeyError, ValueError) as error:
            raise StoreError(f"no steering vectors in {self.vectors}: {error}; make them: steering_vectors") from error
        return torch.nn.functional.normalize(made.float(), dim=-1)

    def edit(self, states: Tensor, view: View) -> Tensor:
        if self.alpha == 0:
            return states
        known = self._directions
        if known.shape != (view.depth, states.shape[-1]):
            raise SpecError(
                f"the steering vectors of {self.vectors} are {tuple(known.shape)}, the model has "
                f"{view.depth} layers of {states.shape[-1]}"
            )
        way, size = known[view.layer].to(states), states.norm(dim=-1, keepdim=True)
        toward = (states * way).sum(-1, keepdim=True) / size.clamp(min=1e-12)
        moved = states + self.alpha * (1 - toward) / 2 * size * way
        kept: Tensor = moved * (size / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        return kept


class Listening:
    """An intervention that changes nothing and remembers the mean state of the last prompt row at every layer."""

    def __init__(self) -> None:
        self.heard: dict[int, Tensor] = {}

    @property
    def needs(self) -> Needs:
        return Needs(at="states")

    def edit(self, states: Tensor, view: View) -> Tensor:
        self.heard[view.layer] = states[view.mine].mean(0)
        return states


def steering_vectors(
    generator: Any, pixels: Sequence[Pixels], queries: Sequence[Query], hits: Sequence[Hits], path: str | Path
) -> Tensor:
    """(L, D) from seeing to guessing: the state with a grey image, less that with the true one, over all samples.

    Written to `path`. The paper induces hallucination to find its direction; taking the image away is our way to.
    """
    from safetensors.torch import save_file

    states = []
    for images in ([torch.full_like(image, 0.5) for image in pixels], list(pixels)):
        probe = Listening()
        with torch.no_grad():
            generator.prefill(images, queries, hits, probe=probe)
        states.append(torch.stack([probe.heard[layer] for layer in sorted(probe.heard)]))
    made = (states[0] - states[1]).float().cpu()
    save_file({"vectors": made.contiguous()}, str(path))
    return made
