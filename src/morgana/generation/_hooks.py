"""What the seam hooks beside attention: what layers are given and give, and the logits. Gone with the block."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from morgana.generation._block import Block, current, merged
from morgana.generation._positions import listen
from morgana.types import SpecError


@contextmanager
def hooked(block: Block) -> Iterator[None]:
    """The hooks that the block's interventions need, and no others."""
    handles: list[Any] = []
    wanted = [needs.at for needs in block.needs]
    rest = ExitStack()
    try:
        handles.append(decoder(block.model).register_forward_pre_hook(partial(keep, block), with_kwargs=True))
        for layer, module in enumerate(decoder(block.model).layers):
            if any(needs.hidden and layer in needs.layers.of(block.depth) for needs in block.needs):
                handles.append(module.register_forward_pre_hook(partial(notice, block), with_kwargs=True))
            if block.active("states", layer):
                handles.append(module.register_forward_hook(partial(steer, block, layer)))
        if "logits" in wanted:
            handles.append(block.model.register_forward_hook(partial(speak, block), with_kwargs=True))
            rest.enter_context(seeing(block))
        if "positions" in wanted:
            handles.append(listen(block, decoder(block.model)))
        yield
    finally:
        rest.close()
        for handle in handles:
            handle.remove()


@contextmanager
def seeing(block: Block) -> Iterator[None]:
    """Remember what the eyes are given: `generate` opens them before it calls the model."""
    body = block.model.base_model
    look = getattr(body, "get_image_features", None)
    if look is None:
        yield
        return

    @wraps(look)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if current.get() is block:
            given = inspect.signature(look).bind(*args, **kwargs).arguments
            more = given.pop("kwargs", {})
            block.sight = {**given, **more}
        return look(*args, **kwargs)

    body.get_image_features = watched
    try:
        yield
    finally:
        del body.get_image_features


def decoder(model: Any) -> Any:
    """The text tower, whose `layers` follow one another; SpecError if transformers does not say which it is."""
    found = model.get_decoder()
    if not isinstance(getattr(found, "layers", None), torch.nn.ModuleList):
        raise SpecError(f"{type(model).__name__}'s text tower {type(found).__name__} has no list of layers")
    return found


def running(block: Block) -> Block | None:
    """The block that a hook of `block` acts for: itself, or a branch that reads again for it."""
    now = current.get()
    return now if now is not None and block in (now, now.root) else None


def keep(block: Block, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if now := running(block):
        wanted = kwargs.get("use_cache")
        wanted = module.config.use_cache if wanted is None else wanted
        now.cached = bool(wanted) or kwargs.get("past_key_values") is not None


def notice(block: Block, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if now := running(block):
        now.hidden = args[0] if args else kwargs["hidden_states"]


def steer(block: Block, layer: int, module: Any, args: tuple[Any, ...], output: Any) -> Any:
    now = running(block)
    if now is None:
        return output
    states = output[0] if isinstance(output, tuple) else output
    active = now.active("states", layer)
    made = over_rows(now, states, layer, active, {})
    return (made, *output[1:]) if isinstance(output, tuple) else made


def speak(block: Block, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    if current.get() is not block:
        return output
    if args:
        raise SpecError("an intervention on logits needs the model to be called with keywords, model(input_ids=…)")
    active = [i for i, needs in enumerate(block.needs) if needs.at == "logits"]
    inputs = {**block.sight, **kwargs} if block.first == 0 else kwargs
    more = {i: {"inputs": inputs, "again": partial(again, block, i, kwargs)} for i in active}
    output.logits = over_rows(block, output.logits, block.depth - 1, active, more)
    return output


def over_rows(block: Block, x: Tensor, layer: int, active: Any, more: dict[int, dict[str, Any]]) -> Tensor:
    """(B, R, …) of the pass's last R rows, edited."""
    index = torch.arange(block.stop - x.shape[1], block.stop, device=x.device).expand(len(x), -1)
    rows = block.rows(active)
    for place, i in enumerate(active):
        mine = (index[:, :, None] == rows.index[:, None]) & rows.owned[place][:, None]
        own = mine.any(-1)
        if own.any():
            after = block.edit(i, x, layer, index, own, **more.get(i, {}))
            x = merged(x, after, own[..., None], whole=bool(own.all()))
    return x


def again(block: Block, i: int, inputs: dict[str, Any], changed: dict[str, Any]) -> Tensor:
    """The logits of the running pass with some inputs changed, with a cache of its own that follows the answer."""
    from transformers import DynamicCache

    cache: Callable[..., Any] = DynamicCache
    if block.first == 0:
        kept = cache() if block.cached else None
        parts = tuple(part for part in block.interventions if part.needs.at != "logits")
        block.branches[i] = (Block(block.model, parts, block.layout, block.reference, block.base, root=block), kept)
    branch, kept = block.branches[i]
    token = current.set(branch)
    try:
        seen = inputs.get("mm_encoder_outputs")
        if seen and "pixel_values" in changed:
            fresh = block.model.base_model.get_image_features(**{**block.sight, **changed})
            changed = {"mm_encoder_outputs": {**seen, "image": fresh}}
        made: Tensor = block.model(**{**inputs, **changed, "past_key_values": kept}).logits
    finally:
        current.reset(token)
    return made
