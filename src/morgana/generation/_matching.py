"""Whether spans describe the very prompts that a model is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from morgana.generation.prompts import Spans
from morgana.types import SpecError


def watched(model: Any, spans: Sequence[Spans]) -> Any:
    """A hook by which every pass over whole prompts is checked; the handle that removes it."""
    return model.register_forward_pre_hook(partial(check, tuple(spans)), with_kwargs=True)


def check(spans: tuple[Spans, ...], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """SpecError where the image tokens among the model's input ids are not those that the spans name."""
    ids = args[0] if args else kwargs.get("input_ids")
    token = getattr(model.config, "image_token_id", getattr(model.config, "image_token_index", None))
    if ids is None or token is None or tuple(ids.shape) != (len(spans), spans[0].length):
        return
    for i, (row, span) in enumerate(zip((ids == token).cpu(), spans, strict=True)):
        found = tuple(runs(row.nonzero().flatten().tolist()))
        if found != joined(span.image):
            raise SpecError(
                f"the spans say that the image of prompt {i} is its tokens {told(joined(span.image))}, the model was "
                f"given image tokens at {told(found)}; pass the spans of this very batch"
            )


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending places as half-open runs.

    >>> runs([2, 3, 4, 7])
    [(2, 5), (7, 8)]
    """
    return list(joined([(place, place + 1) for place in places]))


def joined(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Runs that touch, as one."""
    made: list[tuple[int, int]] = []
    for first, last in spans:
        if made and made[-1][1] == first:
            made[-1] = made[-1][0], last
        else:
            made.append((first, last))
    return tuple(made)


def told(spans: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{first} to {last - 1}" for first, last in spans) or "no place"
