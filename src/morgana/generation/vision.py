"""What the vision tower did, image by image, for the pruners that ask; and closing tokens inside it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from morgana.generation._matching import image_tokens
from morgana.generation._packs import Pack, counted, packing
from morgana.generation.prompts import runs
from morgana.generation.pruner import Narrowing, Pruner, Watched
from morgana.generation.sight import Eye
from morgana.generation.watching import Taken, Watch, blocks, joined, watching
from morgana.types import SpecError

PROJECTORS = ("multi_modal_projector", "mm_projector", "merger", "connector", "aligner", "projector")


@dataclass(eq=False)
class Eyes:
    """The eyes of a batch; filled by the pass under way."""

    watch: Watch | None = None
    depth: int = 0
    grids: Tensor | None = None  # (I, 3) frames, rows and columns of patches
    order: Tensor | None = None  # of the tower's tokens, where it works in windows
    projected: Tensor | None = None
    projector: Any = None
    packs: list[Pack] = field(default_factory=list)  # by image, where a model puts several views into one
    visual: Tensor | None = None  # (B, N) which tokens of the prompts are visual
    pixels: Tensor | None = None  # (V, 3, H, W) the views that the tower was given, until they are counted
    open: list[Tensor] = field(default_factory=list)  # (P,) by row of the tower
    scores: list[Tensor | None] = field(default_factory=list)

    def of(self, image: int, tokens: int) -> Eye:
        """The eye of one image of the batch, blind where that is several views."""
        blind = self.blind(image, tokens)
        return Eye({}, self.depth, tokens, blind=blind) if blind else self.row(self.first(image), tokens)

    def blind(self, image: int, tokens: int) -> str:
        """Why an image cannot be looked at as one picture; nothing if it can."""
        try:
            packs = self.known()
        except SpecError as error:
            return str(error)
        if not packs or packs[image].views == 1:
            return ""
        way = "mix them" if packs[image].index is None else "are no one picture (Watched(grid=True) shows each)"
        return (
            f"the image's {tokens} tokens are of {packs[image].views} views and {way}; use a pruner that reads neither "
            "the vision tower nor the grid (MMTok, FastV)"
        )

    def known(self) -> list[Pack]:
        """The packs; views are counted where the model does not pack. SpecError where they do not fit the tokens."""
        if not self.packs and self.visual is not None and self.pixels is not None:
            tokens = [last - first for row in self.visual for first, last in runs(row)]
            self.packs += counted(tokens, self.pixels) if tokens else []
            self.pixels = None
        return self.packs

    def first(self, image: int) -> int:
        """The row of the tower that holds an image's first view."""
        return sum(pack.views for pack in self.packs[:image]) if self.packs else image

    def row(self, image: int, tokens: int) -> Eye:
        """The eye of one row of the tower: an image, or a view of one."""
        taken = {i: self._one(calls, image) for i, calls in self.watch.taken.items()} if self.watch else {}
        grid = None
        if self.grids is not None:
            frames, rows, columns = (int(x) for x in self.grids[image])
            side = round((frames * rows * columns / tokens) ** 0.5)
            grid = rows // side, columns // side
        closed = (self.open[image], self.scores[image]) if self.open else (None, None)
        return Eye(
            taken,
            self.depth,
            tokens,
            grid,
            self._projected(image),
            self.projector,
            open=closed[0],
            scores=closed[1],
            runs=self.grids is not None,
            picked=None if self.order is None or self.grids is None else self._ordered(image, tokens),
        )

    def _one(self, calls: Sequence[Taken], image: int) -> Taken:
        """The operands of one image, whether it is a row of a call, a call, or several: windows, frames."""
        if self.grids is None:
            return one(calls, image)
        patches = self.grids.prod(-1).tolist()
        first, start, found = sum(patches[:image]), 0, []
        for call in calls:
            if first <= start < first + patches[image]:
                found.append(call)
            start += call.query.shape[2]
        if sum(call.query.shape[2] for call in found) != patches[image]:
            raise SpecError(
                f"the vision tower attends to {[call.query.shape[2] for call in calls]} patches at once, not image by "
                f"image ({patches}); use a pruner that does not read its attention (MMTok, ToDRE, CATP)"
            )
        return joined(found)

    def _ordered(self, image: int, tokens: int) -> Tensor:
        """(N,) where the tokens of one image stand in the tower, counted from its first."""
        assert self.order is not None
        assert self.grids is not None
        patches = self.grids.prod(-1)
        first = int(patches[:image].sum()) * tokens // int(patches[image])
        return self.order[first : first + tokens] - first

    def views(self, image: int) -> list[tuple[Tensor, Eye]] | None:
        """The overview and the tiles of one image, where it has any: which of its tokens (n,) each is, and its eye."""
        if not self.known() or self.packs[image].index is None:
            return None
        found = []
        for view in self.packs[image].order:
            where, patch = self.packs[image].of(view)
            eye = self.row(self.first(image) + view, len(patch))
            grid = self.packs[image].grid(patch)
            found.append((where, replace(eye, grid=grid, picked=patch, full=self.packs[image].size)))
        return found

    def _projected(self, image: int) -> Tensor | None:
        if self.projected is None or self.projected.ndim == 3:
            return None if self.projected is None else self.projected[image : image + 1]
        if self.grids is None:
            raise SpecError("the projector's input does not tell images apart; use a pruner that does not read it")
        patches = self.grids.prod(-1)
        first = int(patches[:image].sum())
        return self.projected[first : first + int(patches[image])]

    def read(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """The model is given prompts, which say how many tokens every image has."""
        self.visual = image_tokens(module, args, kwargs)

    def forget(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """A new pass over images begins."""
        if self.watch is not None:
            self.watch.taken.clear()
        self.packs.clear()
        given = args[0] if args else kwargs.get("pixel_values")
        self.pixels = given if isinstance(given, Tensor) and given.ndim == 4 else None
        self.open.clear()
        self.scores.clear()
        self.grids = kwargs.get("grid_thw", kwargs.get("image_grid_thw"))
        self.order = None
        if self.grids is not None and hasattr(module, "window_size"):
            from transformers.vision_utils import get_vision_window_index

            sizes = (module.spatial_merge_size, module.window_size, module.patch_size)
            self.order = get_vision_window_index(self.grids, *sizes)[0].argsort()

    def narrow(self, pruner: Narrowing, layer: int, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before a layer of the vision tower: what the pruner closed after the one before is seen no more."""
        calls = [] if self.watch is None else self.watch.taken.get(layer - 1, [])
        if len(calls) != 1 or args[0].ndim != 3:
            raise SpecError(
                f"{pruner!r} works in vision towers that take a batch of images (CLIP, SigLIP), not this one"
            )
        count, width = args[0].shape[:2]
        if not self.open:
            self.open = [torch.ones(width, dtype=torch.bool, device=args[0].device) for _ in range(count)]
            self.scores = [None] * count
        for i in range(count):
            made = pruner.narrow(layer - 1, one(calls, i), self.open[i], self.scores[i], self.depth)
            self.open[i], self.scores[i] = made
        mask = torch.stack(self.open)[:, None, None].expand(-1, 1, width, -1)
        if self.watch is not None and self.watch.base == "eager":
            low = torch.finfo(args[0].dtype).min
            mask = torch.zeros_like(mask, dtype=args[0].dtype).masked_fill(~mask, low)
        return (args[0], mask, *args[2:]), {k: v for k, v in kwargs.items() if k != "attention_mask"}


def one(calls: Sequence[Taken], image: int) -> Taken:
    """The operands of one image, whether a call held all of the batch or each held one."""
    for call in calls:
        if image < len(call.query):
            return call.of(image)
        image -= len(call.query)
    raise SpecError(
        "the vision tower saw fewer images than the prompts hold; use a pruner that does not read its attention "
        "(MMTok, ToDRE, CATP)"
    )


@contextmanager
def seeing(model: Any, wanted: Watched, pruners: Sequence[Pruner]) -> Iterator[Eyes]:
    """Watch the vision tower and what goes into the projector, as far as somebody asks."""
    tower = model.get_encoder(modality="image")
    eyes = Eyes()
    if tower is model:
        if wanted.vision or wanted.projector:
            raise SpecError(f"{type(model).__name__} has no vision tower of its own; use a pruner that reads none")
        yield eyes
        return
    layers = blocks(tower)
    eyes.depth = len(layers)
    handles = [
        model.register_forward_pre_hook(eyes.read, with_kwargs=True),
        tower.register_forward_pre_hook(eyes.forget, with_kwargs=True),
    ]
    try:
        if wanted.projector:
            eyes.projector = projector(model)
            handles.append(eyes.projector.register_forward_pre_hook(lambda m, args: note(eyes, args)))
        for pruner in pruners:
            if isinstance(pruner, Narrowing):
                if "attention_mask" not in inspect.signature(layers[0].forward).parameters:
                    raise SpecError(
                        f"{pruner!r} works in vision towers that take a batch of images and a mask (CLIP, SigLIP), "
                        "not this one"
                    )
                handles += [
                    layers[i + 1].register_forward_pre_hook(closer(eyes, pruner, i + 1), with_kwargs=True)
                    for i in pruner.watched(0, eyes.depth).vision
                ]
        layers_read = tuple(sorted({inside(i, eyes.depth) for i in wanted.vision}))
        with packing(model, eyes.packs), watching(model, "vision", tower, layers_read) as watch:
            eyes.watch = watch
            yield eyes
    finally:
        for handle in handles:
            handle.remove()


def note(eyes: Eyes, args: Any) -> None:
    eyes.projected = args[0]


def closer(eyes: Eyes, pruner: Narrowing, layer: int) -> Any:
    return lambda module, args, kwargs: eyes.narrow(pruner, layer, args, kwargs)


def inside(layer: int, depth: int) -> int:
    if not -depth <= layer < depth:
        raise SpecError(f"layer {layer} of a vision tower of {depth} layers; give {-depth} to {depth - 1}")
    return layer % depth


def projector(model: Any) -> Any:
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in PROJECTORS:
            return module
    raise SpecError(f"{type(model).__name__} has no module called {', '.join(PROJECTORS)}; use another pruner")
