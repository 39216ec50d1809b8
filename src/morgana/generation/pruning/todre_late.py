"""ToDRE, stage 2 (2025, arXiv 2505.18757): late in the model, all visual tokens go at once."""

from __future__ import annotations

from morgana.generation.pruner import Choice, Keep, Stage, Watched, at, checked
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class ToDRELate:
    """Before layer 7/8 of the depth, every visual token goes if attention of text to image and of image to text, each
    as a share of what the rows give, both lie below `tau` one layer earlier.

    How the paper averages is not published; we take the mean over heads and rows. What stays is all or nothing:
    `keep` counts only where it keeps every token (1.0, or a count of no fewer), and then leaves the prompt alone.
    """

    keep: Keep = 0.25
    tau: float = 0.1
    layer: float = 0.875  # of the language model's depth

    def __post_init__(self) -> None:
        checked(self.keep)
        if not self.tau >= 0:
            raise SpecError(f"tau={self.tau} is no share of attention; give one of at least 0")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return (Stage(at(self.layer, depth), 2.0),)

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(text=(at(self.layer, depth) - 1,))

    def due(self, sights: tuple[Sight, ...]) -> bool:
        sight = sights[0]
        text = sight.text[sight.text > sight.visual[0]]
        seen = sight.attention(sight.layer - 1, text, sight.visual).sum(-1).mean()
        read = sight.attention(sight.layer - 1, sight.visual, sight.text).sum(-1).mean()
        return bool(seen < self.tau) and bool(read < self.tau)

    def choose(self, sight: Sight, count: int) -> Choice:
        return Choice(sight.tokens[:0])
