"""Whether spans describe the very prompts that a model is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from morgana.generation.prompts import Spans, runs, visual
from morgana.types import SpecError


def image_tokens(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """(B, N) which of the input ids of a call are images; None if it has none, or the model names no such token."""
    ids = args[0] if args else kwargs.get("input_ids")
    token = getattr(model.config, "image_token_id", getattr(model.config, "image_token_index", None))
    return None if ids is None or token is None else ids == token


def watched(model: Any, spans: Sequence[Spans]) -> Any:
    """A hook by which every pass over whole prompts is checked; the handle that removes it."""
    return model.register_forward_pre_hook(partial(check, tuple(spans)), with_kwargs=True)


def check(spans: tuple[Spans, ...], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """SpecError where the image tokens among the model's input ids are not those that the spans name."""
    seen = image_tokens(model, args, kwargs)
    if seen is None or tuple(seen.shape) != (len(spans), spans[0].length):
        return
    for i, (row, named) in enumerate(zip(seen.cpu(), visual(spans), strict=True)):
        if not named.equal(row):
            raise SpecError(
                f"the spans say that the image of prompt {i} is its tokens {told(named)}, the model was given image "
                f"tokens at {told(row)}; pass the spans of this very batch"
            )


def told(places: Tensor) -> str:
    return ", ".join(f"{first} to {last - 1}" for first, last in runs(places)) or "no place"
