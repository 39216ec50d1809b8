"""What an explainer is asked: a heat map over an image's cells, for one answer; and the cells that a model has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from morgana.generation.prompts import Prompt
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


class Explainer(Protocol):
    """Says which cells of the image an answer rests on."""

    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """(rows, columns), at least 0, larger where `text` rests more; `pixels` is one image (1, 3, H, W)."""
        ...


def grid(prompt: Prompt) -> tuple[int, int]:
    """Rows and columns of the visual tokens of a prompt's one image, pruned or not.

    From the processor's own grid (Qwen2-VL), else a square. SpecError where they are several views of the image
    (SmolVLM, LLaVA-NeXT, tiled InternVL), or no rectangle.
    """
    (spans,) = prompt.spans
    runs, tokens = len(spans.image), sum(last - first for first, last in spans.image)
    patches, seen = prompt.inputs.get("image_grid_thw"), prompt.inputs.get("pixel_values")
    views = 1 if patches is not None or seen is None else seen.shape[:-3].numel()
    side = round(tokens**0.5)
    if runs == 1 and patches is not None:
        frames, rows, columns = (int(x) for x in patches[0])
        edge = round((frames * rows * columns / tokens) ** 0.5)  # patches that become one token, along a side
        if frames == 1 and rows * columns == tokens * edge**2:
            return rows // edge, columns // edge
    elif runs == views == 1 and side * side == tokens:
        return side, side
    raise SpecError(
        f"the image is {tokens} visual tokens in {runs} runs, of {views} views: no one grid that a map could lie on; "
        "use EAGLE, which hides pixels, or a processor that does not split images"
    )
