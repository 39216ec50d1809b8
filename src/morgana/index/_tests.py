"""What a filter is made of: tests of one field, and their combinations, over columns of metadata."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.index.columns import Column

Value: TypeAlias = str | int | float | bool | None
Mask: TypeAlias = NDArray[np.bool_]  # (documents,)
SIGNS = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "In": "in", "NotIn": "not in"}
ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Filter(Protocol):
    """Says which documents pass."""

    def fields(self) -> set[str]: ...
    def mask(self, columns: Mapping[str, Column], count: int) -> Mask: ...


@dataclass(frozen=True)
class Test:
    """One field against a value, or against several with `in`."""

    __test__ = False  # is not pytest's

    field: str
    sign: str
    value: Value | tuple[Value, ...]

    def fields(self) -> set[str]:
        return {self.field}

    def mask(self, columns: Mapping[str, Column], count: int) -> Mask:
        column = columns[self.field]
        passing = np.array([self.holds(held) for held in column.values], dtype=bool)
        found: Mask = passing[column.codes]
        return found

    def holds(self, held: str | None) -> bool:
        if self.sign == "in":
            return any(equal(held, value) for value in self.value)  # type: ignore[union-attr]
        if self.sign in ("==", "!="):
            return equal(held, self.value) == (self.sign == "==")
        if isinstance(self.value, str):
            return held is not None and ORDERS[self.sign](held, self.value)
        spelt = number(held)
        return spelt is not None and ORDERS[self.sign](spelt, self.value)


@dataclass(frozen=True)
class All:
    """Every part passes."""

    parts: tuple[Filter, ...]

    def fields(self) -> set[str]:
        return set().union(*(part.fields() for part in self.parts))

    def mask(self, columns: Mapping[str, Column], count: int) -> Mask:
        found: Mask = np.logical_and.reduce([part.mask(columns, count) for part in self.parts])
        return found


@dataclass(frozen=True)
class Either:
    """Some part passes."""

    parts: tuple[Filter, ...]

    def fields(self) -> set[str]:
        return set().union(*(part.fields() for part in self.parts))

    def mask(self, columns: Mapping[str, Column], count: int) -> Mask:
        found: Mask = np.logical_or.reduce([part.mask(columns, count) for part in self.parts])
        return found


@dataclass(frozen=True)
class Not:
    """The part does not pass."""

    part: Filter

    def fields(self) -> set[str]:
        return self.part.fields()

    def mask(self, columns: Mapping[str, Column], count: int) -> Mask:
        return ~self.part.mask(columns, count)


def equal(held: str | None, value: Any) -> bool:
    """Whether a field's content is the value; a missing field is None."""
    if held is None or value is None:
        return held is value
    if isinstance(value, bool):
        return held.lower() == str(value).lower()
    return held == value if isinstance(value, str) else number(held) == value


def number(held: str | None) -> int | float | None:
    """The finite number that a string spells; None if it spells none."""
    if held is None or "_" in held:
        return None
    try:
        return int(held)
    except ValueError:
        pass
    try:
        found = float(held)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def spelled(value: object) -> str | None:
    """A field's content as a string: other than strings as JSON; null is missing."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
