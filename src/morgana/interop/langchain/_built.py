"""A field that holds a part, or its spec."""

from __future__ import annotations

from typing import Any

from morgana.spec import parse
from morgana.types import SpecError


def built(given: Any, kind: str) -> Any:
    """The part that `given` is or spells; SpecError for what cannot be called."""
    found = parse(given) if isinstance(given, str) else given
    if not callable(found):
        raise SpecError(f"{given!r} is no {kind}; `morgana list {kind}` shows those there are")
    return found
