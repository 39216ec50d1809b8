"""Inside `pruning(...)`, a model goes on with fewer visual tokens: their rows leave the sequence, and the KV cache too.

The tokens that stay keep the position ids that they had. Rows of a batch that lose unequal numbers are filled up on
the left. Keeping all changes nothing: the model is not touched at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from morgana.generation._block import current
from morgana.generation._matching import watched
from morgana.generation.dropping import Scene
from morgana.generation.layout import Layout
from morgana.generation.plan import Kept, union
from morgana.generation.prompts import Spans, visual
from morgana.generation.pruner import Pruner
from morgana.generation.vision import seeing
from morgana.generation.watching import blocks, watching
from morgana.types import SpecError


@contextmanager
def pruning(model: Any, pruners: Sequence[Pruner], spans: Sequence[Spans]) -> Iterator[Kept]:
    """Let the pruners shorten the prompts that `spans` describe; hooks are gone after the block in any case.

    SpecError when no forward pass came, or when the model is given other prompts than `spans` describes.
    """
    tower, eye = model.get_decoder(), model.get_encoder(modality="image")
    depth = len(blocks(tower))
    kept = Kept(pruners, spans, depth)
    if kept.idle:
        with ExitStack() as stack:
            if not any(span.image for span in spans):  # else the model stays as it is
                stack.callback(watched(model, spans).remove)
            yield kept
        return
    wanted = union([pruner.watched(depth, 0 if eye is model else len(blocks(eye))) for pruner in pruners])
    with ExitStack() as stack:
        eyes = stack.enter_context(seeing(model, wanted, pruners))
        watch = stack.enter_context(watching(model, "text", tower, wanted.text))
        run = Run(tower, Scene(kept, eyes, watch))
        stack.callback(run.release)
        stack.callback(watched(model, spans).remove)
        run.install(model, wanted.moves)
        yield kept
    if not kept.fired:
        raise SpecError(f"{tuple(pruners)} did not fire: no forward pass of {type(model).__name__} in the block")


class Run:
    """The hooks of one block, and what they know of the pass that is under way."""

    def __init__(self, tower: Any, scene: Scene) -> None:
        self.tower, self.scene, self.kept = tower, scene, scene.kept
        self.layers = blocks(tower)
        self.index = self.kept.whole()  # (B, M) of the layer under way
        self.decoding = False
        self.tail: Tensor | None = None  # (B, t) mask of what was decoded
        self.told = False  # the caller gives positions; else those of decoding go on from the prompt's `last` (…, B, 1)
        self.last = torch.zeros(1, 1, dtype=torch.long)
        self.cache: Any = None
        self.handles: list[Any] = []
        self.layouts: list[tuple[Tensor, Layout, Tensor | None]] = []

    def install(self, model: Any, moves: tuple[int, ...]) -> None:
        self.handles.append(model.register_forward_pre_hook(self.called, with_kwargs=True))
        self.handles.append(self.tower.register_forward_pre_hook(self.enter, with_kwargs=True))
        if any(act.layer for act in self.kept.acts):
            for number, layer in enumerate(self.layers):
                self.handles.append(layer.register_forward_pre_hook(self.layer_hook(number), with_kwargs=True))
        for number in moves:
            for name in ("self_attn", "mlp"):
                part = getattr(self.layers[number], name, None)
                if part is None:
                    raise SpecError(f"layer {number} of {type(self.tower).__name__} has no {name} to be watched")
                self.handles.append(part.register_forward_hook(self.move_hook(number), with_kwargs=True))

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.scene.clear()

    def called(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.told = kwargs.get("position_ids") is not None

    def enter(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the language model: the first stage in a pass over the prompts; a shorter mask in decoding."""
        embeds, mask, cache = (kwargs.get(k) for k in ("inputs_embeds", "attention_mask", "past_key_values"))
        spans, past = self.kept.spans, 0 if cache is None else int(cache.get_seq_length())
        if embeds is None or (mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2)):
            raise SpecError("pruning needs input embeddings and a mask of two dimensions; use no compiled cache")
        length, given = spans[0].length, embeds.shape[1]
        if len(embeds) != len(spans) or given != (1 if past else length):
            raise SpecError(
                f"the spans describe {len(spans)} rows of {length} tokens, the model was given {len(embeds)} rows of "
                f"{given} with {past} cached; pass the spans of this very batch"
            )
        self.cache, self.decoding = cache, past > 0
        return args, {**kwargs, **(self.decode(embeds, kwargs) if past else self.first(embeds, kwargs))}

    def show(self, index: Tensor) -> None:
        """Let interventions know which tokens are there."""
        found = next((one for one in self.layouts if one[0] is index), None)
        if found is None:
            rows, first = zip(self.kept.spans, index.cpu(), strict=True), self.kept.at(0)
            seen = visual(self.kept.spans, index.device)
            left = (seen.cumsum(-1) - 1).gather(1, index.clamp(min=0))
            layout = Layout(tuple(moved(s, row) for s, row in rows), index.device, left, seen.sum(-1))
            found = index, layout, None if index is first else among(index, first)
            self.layouts.append(found)
        relay(*found[1:])

    def first(self, embeds: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A new pass over the prompts: everything is there, until the first stage."""
        self.scene.clear()
        self.index = self.kept.whole(embeds.device)
        positions = kwargs.get("position_ids")
        positions = torch.arange(embeds.shape[1], device=embeds.device)[None] if positions is None else positions
        self.last = positions[..., -1:]
        self.kept.index, self.kept.fired = {0: self.index}, True
        self.layouts.clear()
        self.show(self.index)
        shorter, index = self.act(0, embeds)
        if shorter is embeds:
            return {}
        return {"inputs_embeds": shorter, "attention_mask": index >= 0, "position_ids": along(positions, index, -1)}

    def decode(self, embeds: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """One more token: it stands where it would without pruning, and sees what is left."""
        first, mask, length = self.kept.at(0), kwargs.get("attention_mask"), self.kept.spans[0].length
        self.show(first)
        count = self.cache.get_seq_length() + 1 - first.shape[1] if mask is None else mask.shape[1] - length
        self.tail = torch.ones(len(embeds), count, dtype=torch.bool, device=embeds.device)
        positions = kwargs.get("position_ids") if self.told else None
        positions = self.last + count if positions is None else positions
        return {"attention_mask": torch.cat([first >= 0, self.tail], 1), "position_ids": positions}

    def layer_hook(self, number: int) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            first = self.kept.at(0)
            if self.decoding:
                index = self.kept.at(number)
                self.show(index)
                changed = {} if index is first else {"attention_mask": self.mask(args[0], index, number)}
                return args, {**kwargs, **changed}
            hidden, index = self.act(number, args[0]) if number else (args[0], self.index)
            self.scene.before[number] = index
            if index is first:
                return None
            return (hidden, *args[1:]), {**kwargs, **self.shorter(hidden, index, first, number, kwargs)}

        return hook

    def shorter(
        self, hidden: Tensor, index: Tensor, first: Tensor, layer: int, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """What a layer is given beside its states, for the tokens `index` of those that the model began with."""
        local = among(index, first)
        cos, sin = kwargs["position_embeddings"]
        positions = kwargs.get("position_ids")
        return {
            "position_embeddings": (along(cos, local, -2), along(sin, local, -2)),
            "position_ids": None if positions is None else along(positions, local, -1),
            "attention_mask": self.mask(hidden, index, layer),
        }

    def mask(self, hidden: Tensor, index: Tensor, layer: int) -> Any:
        """The mask of one layer, in the form that the attention in use takes."""
        from transformers.masking_utils import create_causal_mask

        kinds = getattr(self.tower.config, "layer_types", None)
        if kinds is not None and kinds[layer] != "full_attention":
            raise SpecError(f"layer {layer} has {kinds[layer]}; prune before the language model (FasterVLM, MMTok)")
        seen = index >= 0
        seen = torch.cat([seen, self.tail], 1) if self.decoding and self.tail is not None else seen
        return create_causal_mask(self.tower.config, hidden, seen, self.cache, layer_idx=layer)

    def move_hook(self, number: int) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not self.decoding:
                given = args[0] if args else kwargs["hidden_states"]
                made = output[0] if isinstance(output, tuple) else output
                self.scene.moves.setdefault(number, []).append((given, made))

        return hook

    def act(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, M, D) and their places after every stage before `layer`; the very same where none is."""
        for one in self.kept.acts:
            if one.layer == layer:
                states, index = self.scene.drop(one, states, self.index)
                if index is not self.index:
                    self.index = self.kept.index[layer] = index
                    self.show(index)
        return states, self.index


def along(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Values (…, B or 1, N, …) of the places `index` (B, M) on axis `dim` (from the end), the batch just before it."""
    batch, rest = dim - 1, values.shape[values.ndim + dim + 1 :]
    values = values.expand(*values.shape[:batch], len(index), *values.shape[dim:])
    index = index.clamp(min=0).reshape(*index.shape, *[1] * len(rest))
    return values.gather(dim, index.expand(*values.shape[:batch], *index.shape[:2], *rest))


def among(index: Tensor, first: Tensor) -> Tensor:
    """(B, M) where in `first` (B, N) each of the places `index` (B, M) stands; 0 for filling."""
    found = torch.stack([torch.searchsorted(b, i) for b, i in zip(first, index, strict=True)])
    return found.masked_fill(index < 0, 0)


def relay(layout: Layout, left: Tensor | None) -> None:
    """Tell the attention seam, if it is at work, where everything lies now."""
    block = current.get()
    if block is not None and block.layout is not layout:
        block.layout, block.among = layout, left
        block.known.clear()


def moved(spans: Spans, index: Tensor) -> Spans:
    """The spans of a row of which only the tokens `index` (M,) are left, -1 for filling."""

    def to(place: int) -> int:
        return int(torch.searchsorted(index, place))

    def both(span: tuple[int, int]) -> tuple[int, int]:
        return to(span[0]), to(span[1])

    return replace(
        spans,
        start=to(spans.start),
        stop=to(spans.stop),
        length=len(index),
        image=tuple(run for run in map(both, spans.image) if run[0] < run[1]),
        documents=tuple(map(both, spans.documents)),
        question=both(spans.question),
    )
