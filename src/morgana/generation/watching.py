"""Watching a tower's attention: chosen modules leave their queries, keys and values; what they compute is untouched.

One function a tower is registered with transformers, inert outside a `watching` block: it calls the attention that the
tower had and keeps references. Probabilities are computed later, from the rows that somebody asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from morgana.types import SpecError

NAMES = {"vision": "morgana-watched-vision", "text": "morgana-watched-text"}


class Taken(NamedTuple):
    """One call of an attention: queries (B, H, Q, d), keys and values (B, G, K, d) whose heads may be fewer.

    Calls for windows or frames of one image may be `joined`: their lengths are `parts`, and none sees another.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    parts: tuple[int, ...] = ()

    def of(self, row: int) -> Taken:
        """One row of the batch, which keeps its axis."""
        query, key, value = (x[row : row + 1] for x in self[:3])
        return self._replace(query=query, key=key, value=value)


def joined(calls: Sequence[Taken]) -> Taken:
    """Calls of one layer, each a batch of one, as if they were one call in which nobody sees another's tokens."""
    if len(calls) == 1:
        return calls[0]
    return Taken(
        torch.cat([call.query for call in calls], 2),
        torch.cat([call.key for call in calls], 2),
        torch.cat([call.value for call in calls], 2),
        calls[0].scaling,
        tuple(call.query.shape[2] for call in calls),
    )


@dataclass(eq=False)
class Watch:
    """What the watched modules of one tower left, by layer; a module may be called once an image."""

    base: str
    layers: dict[int, int]  # id of a module -> its layer
    taken: dict[int, list[Taken]] = field(default_factory=dict)


_watches: ContextVar[dict[str, Watch] | None] = ContextVar("morgana_watches", default=None)


@contextmanager
def watching(model: Any, tower: str, module: nn.Module, layers: tuple[int, ...]) -> Iterator[Watch]:
    """Watch `layers` of the "vision" or "text" tower, whose module is given; the model is restored in any case."""
    key, before = sub_config(model, module)
    outer = _watches.get() or {}
    base = outer[tower].base if before == NAMES[tower] and tower in outer else before
    stack = blocks(module)
    owners = {id(part): i for i in layers for part in stack[i].modules()}
    watch = Watch(base, owners)
    if not layers:
        yield watch
        return
    register()
    token = _watches.set({**outer, tower: watch})
    try:
        model.set_attn_implementation({key: NAMES[tower]})
        yield watch
    finally:
        model.set_attn_implementation({key: before})
        _watches.reset(token)


def sub_config(model: Any, module: Any) -> tuple[str, str]:
    """The name of a tower's configuration in the model's own, and the attention that it uses."""
    for key in model.config.sub_configs:
        if getattr(model.config, key) is module.config:
            return key, module.config._attn_implementation
    raise SpecError(
        f"{type(model).__name__} has no tower of its own in {type(module).__name__}; use an image-text model"
    )


def blocks(tower: nn.Module) -> nn.ModuleList:
    """The transformer layers of a tower: its longest list of modules."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise SpecError(f"{type(tower).__name__} has no list of layers, so nothing in it can be watched or pruned")
    return max(lists, key=len)


@cache
def register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    for tower, name in NAMES.items():
        AttentionInterface.register(name, partial(attend, tower))
        AttentionMaskInterface.register(name, partial(mask, tower))


def base_name(tower: str) -> str:
    """The attention below; eager attention is each model's own and has no name, so SDPA stands in for it."""
    watch = (_watches.get() or {}).get(tower)
    return "sdpa" if watch is None or watch.base == "eager" else watch.base


def mask(tower: str, *args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    return ALL_MASK_ATTENTION_FUNCTIONS[base_name(tower)](*args, **kwargs)


def attend(
    tower: str, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The base's attention; in a block, the operands of watched layers are kept."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    watch = (_watches.get() or {}).get(tower)
    if watch is not None and (layer := watch.layers.get(id(module))) is not None and query.shape[2] > 1:
        scaling = kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        watch.taken.setdefault(layer, []).append(Taken(query, key, value, scaling))
    made: tuple[Tensor, Tensor | None] = ALL_ATTENTION_FUNCTIONS[base_name(tower)](
        module, query, key, value, attention_mask, **kwargs
    )
    return made
