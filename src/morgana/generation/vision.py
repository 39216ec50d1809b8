"""What the vision tower did, image by image, for the pruners that ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from morgana.generation.pruner import Pruner, Watched
from morgana.generation.sight import Eye
from morgana.generation.watching import Taken, Watch, blocks, watching
from morgana.types import SpecError

PROJECTORS = ("multi_modal_projector", "mm_projector", "merger", "connector", "aligner", "projector")


@dataclass(eq=False)
class Eyes:
    """The eyes of a batch; filled by the pass under way."""

    watch: Watch | None = None
    depth: int = 0
    grids: Tensor | None = None  # (I, 3) frames, rows and columns of patches
    projected: Tensor | None = None
    projector: Any = None
    handles: list[Any] = field(default_factory=list)

    def of(self, image: int, tokens: int) -> Eye:
        """The eye of one image of the batch."""
        taken = {} if self.watch is None else {i: one(calls, image) for i, calls in self.watch.taken.items()}
        grid = None
        if self.grids is not None:
            frames, rows, columns = (int(x) for x in self.grids[image])
            side = round((frames * rows * columns / tokens) ** 0.5)
            grid = rows // side, columns // side
        return Eye(taken, self.depth, tokens, grid, self._projected(image, tokens), self.projector)

    def _projected(self, image: int, tokens: int) -> Tensor | None:
        if self.projected is None:
            return None
        if self.projected.ndim == 3:
            return self.projected[image]
        size = self.projected.shape[0] * tokens
        if self.grids is None:
            raise SpecError("the projector's input names no images; use a pruner that does not read it")
        patches = self.grids.prod(-1)
        del size
        first = int(patches[:image].sum())
        return self.projected[first : first + int(patches[image])]


def one(calls: Sequence[Taken], image: int) -> Taken:
    """The operands of one image, whether a call held all of the batch or each held one."""
    for call in calls:
        if image < len(call.query):
            query, key, value = (x[image : image + 1] for x in call[:3])
            return Taken(query, key, value, call.scaling)
        image -= len(call.query)
    raise SpecError(
        "the vision tower saw fewer images than the prompts hold; it cuts them into tiles, which pruners "
        "that read its attention do not know yet; use one that reads none (MMTok, ToDRE, IDPruner)"
    )


@contextmanager
def seeing(model: Any, wanted: Watched, pruners: Sequence[Pruner], kept: Any) -> Iterator[Eyes]:
    """Watch the vision tower and what goes into the projector, as far as somebody asks."""
    tower = model.get_encoder(modality="image")
    eyes = Eyes()

    def forget(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if eyes.watch is not None:
            eyes.watch.taken.clear()
        eyes.grids = kwargs.get("grid_thw", kwargs.get("image_grid_thw"))

    def project(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        eyes.projected = args[0].detach() if args else None

    handles = []
    try:
        if tower is not model:
            handles.append(tower.register_forward_pre_hook(forget, with_kwargs=True))
            eyes.depth = len(blocks(tower))
        elif wanted.vision or wanted.projector:
            raise SpecError(f"{type(model).__name__} has no vision tower of its own; use a pruner that reads none")
        if wanted.projector:
            eyes.projector = projector(model)
            handles.append(eyes.projector.register_forward_pre_hook(project, with_kwargs=True))
        layers = tuple(sorted({inside(i, eyes.depth) for i in wanted.vision}))
        if not layers:
            yield eyes
            return
        with watching(model, "vision", tower, layers) as eyes.watch:
            yield eyes
    finally:
        for handle in handles:
            handle.remove()


def inside(layer: int, depth: int) -> int:
    if not -depth <= layer < depth:
        raise SpecError(f"layer {layer} of a vision tower of {depth} layers; give {-depth} to {depth - 1}")
    return layer % depth


def projector(model: Any) -> Any:
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in PROJECTORS:
            return module
    raise SpecError(f"{type(model).__name__} has no module called {', '.join(PROJECTORS)}; use another pruner")
