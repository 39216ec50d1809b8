"""Fourier-VLM (2025, arXiv 2508.06038): low frequencies of the image's embeddings, on a coarser grid."""

from __future__ import annotations

import torch

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked
from morgana.generation.pruning.uniform_grid import spread
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class FourierVLM:
    """A discrete cosine transform over the grid, its low frequencies only, and back onto a smaller grid of at most the
    budget; each of its points stands at the nearest token's place.

    The paper, known to us second-hand, trains the model for it; without that, expect little. How the spectrum is cut
    and points are placed is ours. The grid has the image's shape as nearly as the budget allows: fewer may stay.
    """

    keep: Keep = 0.25

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(grid=True)

    def choose(self, sight: Sight, count: int) -> Choice:
        rows, columns = sight.grid
        if len(sight.tokens) != rows * columns:
            raise SpecError(
                f"{self!r} needs the whole image, and {len(sight.tokens)} of {rows * columns} tokens are left; "
                "let it come first"
            )
        height = min(rows, count, max(1, int((count * rows / columns) ** 0.5)))
        width = min(columns, max(1, count // height))
        states = sight.states
        down, across = (resample(n, m).to(states) for n, m in ((rows, height), (columns, width)))
        made = torch.einsum("ar,bc,rcd->abd", down, across, states.reshape(rows, columns, -1)).flatten(0, 1)
        place = [r * columns + c for r in spread(rows, height) for c in spread(columns, width)]
        return Choice(torch.tensor(place, device=states.device), made)


def resample(size: int, fewer: int) -> torch.Tensor:
    """(fewer, size): an orthonormal DCT-II, the first `fewer` frequencies, and its inverse on `fewer` points."""
    made: torch.Tensor = (fewer / size) ** 0.5 * dct(fewer).T @ dct(size)[:fewer]
    return made


def dct(size: int) -> torch.Tensor:
    """(size, size) orthonormal DCT-II, float64; rows are frequencies."""
    place = torch.arange(size, dtype=torch.float64)
    made: torch.Tensor = torch.cos(torch.pi / size * (place + 0.5) * place[:, None]) * (2 / size) ** 0.5
    made[0] /= 2**0.5
    return made
