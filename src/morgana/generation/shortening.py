"""Inside `pruning(...)`, a model goes on with fewer visual tokens: their rows leave the sequence, and the KV cache too.

The tokens that stay keep the position ids that they had. Rows of a batch that lose unequal numbers are filled up on
the left. Keeping all changes nothing: the model is not touched at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from morgana.generation import attention, vision
from morgana.generation.layout import Layout, words
from morgana.generation.prompts import Spans
from morgana.generation.pruner import Choice, Pruner, Sharing, Watched, budget
from morgana.generation.sight import Operands, Sight
from morgana.generation.watching import Taken, Watch, blocks, watching
from morgana.types import SpecError


class Act(NamedTuple):
    """One stage of one pruner."""

    layer: int
    done: float
    pruner: Pruner
    number: int  # of the stage


class Kept:
    """What stayed: places in the prompts' rows by layer of the language model, -1 for filling."""

    def __init__(self, pruners: Sequence[Pruner], spans: Sequence[Spans], depth: int) -> None:
        self.spans = tuple(spans)
        self.acts = acts(pruners, depth)
        self.index: dict[int, Tensor] = {}  # first layer -> (B, M), valid until the next
        self.fired = False

    def at(self, layer: int) -> Tensor:
        """(B, M) places of the tokens that `layer` works on."""
        return self.index[max(first for first in self.index if first <= layer)]

    def images(self, layer: int) -> list[list[Tensor]]:
        """By prompt and image: which of the image's visual tokens `layer` works on, (k,) counted from its first."""
        return [
            [row[(row >= first) & (row < last)] - first for first, last in spans.image]
            for row, spans in zip(self.at(layer), self.spans, strict=True)
        ]

    def count(self, tokens: int, act: Act) -> int:
        """How many of an image's tokens a stage leaves."""
        return tokens - round((tokens - budget(act.pruner.keep, tokens)) * act.done)

    @property
    def idle(self) -> bool:
        """Whether every stage leaves every token."""
        sizes = {last - first for spans in self.spans for first, last in spans.image}
        return all(self.count(size, act) >= size for size in sizes for act in self.acts)


def acts(pruners: Sequence[Pruner], depth: int) -> list[Act]:
    found = [Act(*stage, pruner, i) for pruner in pruners for i, stage in enumerate(pruner.stages(depth))]
    if sorted(found, key=lambda act: act.layer) != found:
        raise SpecError(f"{tuple(pruners)} prune before layers {[a.layer for a in found]}; put the earlier first")
    if strange := [act for act in found if not 0 <= act.layer < depth]:
        raise SpecError(f"{strange[0].pruner!r} prunes before layer {strange[0].layer} of a model of {depth} layers")
    return found


@contextmanager
def pruning(model: Any, pruners: Sequence[Pruner], spans: Sequence[Spans]) -> Iterator[Kept]:
    """Let the pruners shorten the prompts that `spans` describe; hooks are gone after the block in any case.

    SpecError when no forward pass came, or when the model is given other prompts than `spans` describes.
    """
    tower = model.get_decoder()
    depth = len(blocks(tower))
    kept = Kept(pruners, spans, depth)
    if kept.idle:
        whole = torch.arange(spans[0].length) if spans else torch.arange(0)
        kept.index[0] = torch.stack([whole.masked_fill(whole < s.start, -1) for s in spans]) if spans else whole[None]
        yield kept
        return
    wanted = union([pruner.watched(depth) for pruner in pruners])
    with ExitStack() as stack:
        eyes = stack.enter_context(vision.seeing(model, wanted, pruners, kept))
        watch = stack.enter_context(watching(model, "text", tower, wanted.text))
        run = Run(tower, kept, eyes, watch)
        stack.callback(run.release)
        run.install(wanted.moves)
        yield kept
    if not kept.fired:
        raise SpecError(f"{tuple(pruners)} did not fire: no forward pass of {type(model).__name__} in the block")


def union(asked: Sequence[Watched]) -> Watched:
    def all_of(layers: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(sorted({i for one in layers for i in one}))

    return Watched(
        all_of(one.vision for one in asked),
        all_of(one.text for one in asked),
        all_of(one.moves for one in asked),
        any(one.projector for one in asked),
    )


class Run:
    """The hooks of one block, and what they know of the pass that is under way."""

    def __init__(self, tower: Any, kept: Kept, eyes: vision.Eyes, watch: Watch) -> None:
        self.tower, self.kept, self.eyes, self.watch = tower, kept, eyes, watch
        self.layers = blocks(tower)
        self.index = torch.empty(0)  # (B, M) of the layer under way
        self.before: dict[int, Tensor] = {}  # layer -> the index that it worked on
        self.moves: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.decoding = False
        self.tail: Tensor | None = None  # (B, t) mask of what was decoded
        self.cache: Any = None
        self.handles: list[Any] = []

    def install(self, moves: tuple[int, ...]) -> None:
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

    def enter(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the language model: the first stage in a pass over the prompts; a shorter mask in decoding."""
        embeds, mask, positions = (kwargs.get(k) for k in ("inputs_embeds", "attention_mask", "position_ids"))
        spans, cache = self.kept.spans, kwargs.get("past_key_values")
        length, past = spans[0].length, 0 if cache is None else int(cache.get_seq_length())
        if embeds is None or (mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2)):
            raise SpecError("pruning needs input embeddings and a mask of two dimensions; use no compiled cache")
        given = embeds.shape[1]
        if len(embeds) != len(spans) or (given != length if not past else given != 1):
            raise SpecError(
                f"the spans describe {len(spans)} rows of {length} tokens, the model was given {len(embeds)} rows of "
                f"{given} with {past} cached; pass the spans of this very batch"
            )
        self.cache, self.decoding = cache, past > 0
        if self.decoding:
            first = self.kept.at(0)
            count = past + given - first.shape[1] if mask is None else mask.shape[1] - length
            self.tail = torch.ones(len(spans), count, dtype=torch.bool, device=embeds.device)
            if positions is None:
                positions = torch.arange(length + count - given, length + count, device=embeds.device)[None]
            mask = torch.cat([first >= 0, self.tail], 1)
            return args, {**kwargs, "attention_mask": mask, "position_ids": positions}
        self.start(embeds.device)
        shorter, index = self.act(0, embeds)
        if shorter is embeds:
            return args, kwargs
        if positions is None:
            positions = torch.arange(length, device=embeds.device)[None]
        positions = along(positions, index, -1)
        return args, {**kwargs, "inputs_embeds": shorter, "attention_mask": index >= 0, "position_ids": positions}

    def start(self, device: torch.device) -> None:
        """A new pass over the prompts: everything is there."""
        whole = torch.arange(self.kept.spans[0].length, device=device)
        self.index = torch.stack([whole.masked_fill(whole < s.start, -1) for s in self.kept.spans])
        self.kept.index = {0: self.index}
        self.kept.fired = True
        self.before, self.moves = {}, {}
        self.watch.taken.clear()
        relay(self.kept.spans, self.index)

    def layer_hook(self, number: int) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            if self.decoding:
                index = self.kept.at(number)
                if index is self.kept.at(0):
                    return None
                return args, {**kwargs, "attention_mask": self.mask(args[0], index, number)}
            old = self.index
            hidden, index = self.act(number, args[0]) if number else (args[0], old)
            self.before[number] = index
            if index is self.kept.at(0):
                return None
            cos, sin = kwargs["position_embeddings"]
            base = self.kept.at(0)
            local = torch.stack([torch.searchsorted(b, i.clamp(min=0)) for b, i in zip(base, index, strict=True)])
            local = local.masked_fill(index < 0, 0)
            kwargs = {**kwargs, "position_embeddings": (along(cos, local, -2), along(sin, local, -2))}
            if kwargs.get("position_ids") is not None:
                kwargs["position_ids"] = along(kwargs["position_ids"], local, -1)
            return (hidden, *args[1:]), {**kwargs, "attention_mask": self.mask(hidden, index, number)}

        return hook

    def mask(self, hidden: Tensor, index: Tensor, layer: int) -> Any:
        """The mask of one layer, in the form that the attention in use takes."""
        from transformers.masking_utils import create_causal_mask

        config = self.tower.config
        kinds = getattr(config, "layer_types", None)
        if kinds is not None and kinds[layer] != "full_attention":
            raise SpecError(f"layer {layer} has {kinds[layer]}; prune before the language model (FasterVLM, MMTok)")
        seen = index >= 0
        seen = torch.cat([seen, self.tail], 1) if self.decoding and self.tail is not None else seen
        return create_causal_mask(config, hidden, seen, self.cache, layer_idx=layer)

    def move_hook(self, number: int) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not self.decoding:
                given = args[0] if args else kwargs["hidden_states"]
                made = output[0] if isinstance(output, tuple) else output
                self.moves.setdefault(number, []).append((given, made))

        return hook

    def act(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, M, D) and their places after every stage before `layer`; the very same where none is."""
        for one in self.kept.acts:
            if one.layer == layer:
                states, self.index = self.drop(one, states)
                self.kept.index[layer] = self.index
                relay(self.kept.spans, self.index)
        return states, self.index

    def drop(self, act: Act, states: Tensor) -> tuple[Tensor, Tensor]:
        rows, places, changed = [], [], False
        image = 0
        for b, spans in enumerate(self.kept.spans):
            row, index = states[b], self.index[b]
            stays = index >= 0
            sights = tuple(self.sight(b, i, image + i, row, act) for i in range(len(spans.image)))
            image += len(sights)
            counts = self.counts(act, sights)
            for sight, count in zip(sights, counts, strict=True):
                if count >= len(sight.tokens):
                    continue
                choice = verified(act.pruner.choose(sight, count) if count else empty(sight), sight, count)
                gone = torch.ones(len(sight.tokens), dtype=torch.bool, device=index.device)
                gone[choice.index] = False
                stays[torch.searchsorted(index, sight.tokens[gone])] = False
                if choice.states is not None:
                    here = torch.searchsorted(index, sight.tokens[choice.index])
                    row = row.index_copy(0, here, choice.states.to(row.dtype))
                changed = True
            rows.append(row[stays])
            places.append(index[stays])
        if not changed:
            return states, self.index
        return filled(rows, 0), filled(places, -1)

    def counts(self, act: Act, sights: tuple[Sight, ...]) -> tuple[int, ...]:
        wanted = (min(len(s.tokens), self.kept.count(s.eye.tokens, act)) for s in sights)
        counts = tuple(wanted)
        if isinstance(act.pruner, Sharing) and len(counts) > 1:
            shared = act.pruner.share(sights, counts)
            if sum(shared) != sum(counts) or any(n > len(s.tokens) for n, s in zip(shared, sights, strict=True)):
                raise SpecError(f"{act.pruner!r} shared {counts} among images as {shared}")
            return shared
        return counts

    def sight(self, b: int, number: int, image: int, row: Tensor, act: Act) -> Sight:
        spans, index = self.kept.spans[b], self.index[b]
        first, last = spans.image[number]
        tokens = index[(index >= first) & (index < last)]
        device = index.device
        visual = [index[(index >= a) & (index < z)] for a, z in spans.image]
        operands = {
            layer: Operands(Taken(t.query[b : b + 1], t.key[b : b + 1], t.value[b : b + 1], t.scaling), where[b])
            for layer, (t, *_) in self.watch.taken.items()
            if (where := self.before.get(layer)) is not None
        }
        return Sight(
            layer=act.layer,
            tokens=tokens,
            places=tokens - first,
            states=row[torch.searchsorted(index, tokens)],
            text=torch.tensor(words(spans), dtype=torch.long, device=device),
            question=torch.arange(*spans.question, device=device),
            visual=torch.cat(visual),
            row=row,
            index=index,
            eye=self.eyes.of(image, last - first),
            number=number,
            stage=act.number,
            operands=operands,
            moves={i: tuple((x[b], y[b]) for x, y in found) for i, found in self.moves.items()},
            moved={i: self.before[i][b] for i in self.moves},
        )


def empty(sight: Sight) -> Choice:
    return Choice(torch.empty(0, dtype=torch.long, device=sight.tokens.device))


def verified(choice: Choice, sight: Sight, count: int) -> Choice:
    """SpecError unless the choice is sorted, unique, inside, and within its budget."""
    index = choice.index
    inside = not len(index) or (int(index[0]) >= 0 and int(index[-1]) < len(sight.tokens))
    if len(index) > count or not inside or not bool((index.diff() > 0).all()):
        raise SpecError(f"a pruner chose {index.tolist()} of {len(sight.tokens)} tokens with a budget of {count}")
    return choice


def filled(rows: list[Tensor], value: float) -> Tensor:
    """Rows of unequal length as one tensor, filled up on the left."""
    widest = max(map(len, rows))
    return torch.stack(
        [
            torch.cat([row.new_full((widest - len(row), *row.shape[1:]), value), row]) if len(row) < widest else row
            for row in rows
        ]
    )


def along(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Values (…, B or 1, N, …) of the places `index` (B, M) on axis `dim`, the batch just before it."""
    values = values.expand(*values.shape[: dim - 1], len(index), *values.shape[dim:])
    index = index.clamp(min=0)
    for _ in range(-dim - 1):
        index = index[..., None]
    index = index.expand(*values.shape[: dim - 1], *index.shape[:2], *values.shape[dim + 1 or values.ndim :])
    return values.gather(dim, index)


def relay(spans: Sequence[Spans], index: Tensor) -> None:
    """Tell the attention seam, if it is at work, where everything lies now."""
    block = attention._active.get()
    if block is not None:
        layout = Layout(tuple(moved(s, row) for s, row in zip(spans, index.cpu(), strict=True)), index.device)
        block.layout = layout
        block.__dict__.pop("rows", None)


def moved(spans: Spans, index: Tensor) -> Spans:
    """The spans of a row of which only the tokens `index` (M,) are left, -1 for filling."""

    def to(place: int) -> int:
        return int(torch.searchsorted(index, place))

    def both(span: tuple[int, int]) -> tuple[int, int]:
        return to(span[0]), to(span[1])

    images = tuple(run for run in map(both, spans.image) if run[0] < run[1])
    return replace(
        spans,
        start=to(spans.start),
        stop=to(spans.stop),
        length=len(index),
        image=images,
        documents=tuple(map(both, spans.documents)),
        question=both(spans.question),
    )
