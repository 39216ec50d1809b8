"""Filters by metadata: `operator == "Bluewater" and 1980 <= year < 2000`, read without running anything.

    test     FIELD == VALUE, !=, <, <=, >, >=, FIELD in (VALUE, …), FIELD not in (…); also VALUE < FIELD <= VALUE
    filter   a test, not FILTER, FILTER and FILTER, FILTER or FILTER, (FILTER)
    FIELD    a name, or metadata["any name"]
    VALUE    a string, a number, True, False, or None, which a missing field equals

Metadata are strings. A number is compared with what a string spells as a number, a string by code point. Every order
is false of a missing field and of a string that spells no number; `!=` and `not in` are exactly the negations of `==`
and `in`, so they hold for a missing field.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from morgana.index._tests import SIGNS, All, Either, Filter, Not, Test, Value, spelled
from morgana.index.columns import Column
from morgana.spec import LONGEST, short
from morgana.types import SpecError

SINGLE = re.compile(r"(?<![=!<>])=(?!=)")
DEEPEST = 50  # nested parentheses
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
HINT = 'a filter holds tests such as year >= 1980 or operator in ("a", "b"), joined by and, or, not and parentheses'


@dataclass(frozen=True)
class Where:
    """A filter by metadata, as a value; SpecError naming the place for a text that is none.

    >>> Where('year >= 1980 and operator != "x"').matches({"year": "1987"})
    True
    """

    text: str
    tree: Filter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", Reader(self.text).read())

    def __repr__(self) -> str:
        return f"Where({self.text!r})"

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are looked at, sorted."""
        return tuple(sorted(self.tree.fields()))

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether one document passes."""
        columns = {name: Column.of([spelled(metadata.get(name))]) for name in self.fields}
        return bool(self.mask(columns, 1)[0])

    def mask(self, columns: Mapping[str, Column], count: int) -> NDArray[np.bool_]:
        """Which of `count` documents pass, (count,), from a column for each of `fields`."""
        return self.tree.mask(columns, count)


def equalities(wanted: Mapping[str, Any]) -> Where | None:
    """The filter by which every entry must equal; None for none. SpecError for a value that no document can hold.

    >>> equalities({"kind": "mill", "site name": None})
    Where("metadata['kind'] == 'mill' and metadata['site name'] == None")
    """
    tests = []
    for name, value in wanted.items():
        try:
            held = value if isinstance(value, (int, float)) else spelled(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SpecError(
                f"the filter's {name!r} is {short(repr(value))}, which no document holds: {error}"
            ) from None
        tests.append(f"metadata[{str(name)!r}] == {held!r}")
    return Where(" and ".join(tests)) if tests else None


class Reader:
    """Walks the syntax tree of a filter; what is not in the language is refused with its place."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text.strip():
            raise SpecError(f"the filter is {text!r}; {HINT}")
        if len(text) > LONGEST:
            raise SpecError(f"a filter of {len(text)} characters; at most {LONGEST} are read")
        self.text = " ".join(text.splitlines()).strip()

    def read(self) -> Filter:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, about odd escapes
                tree = ast.parse(self.text, mode="eval")
        except SyntaxError as error:
            place = f" at character {error.offset}" if error.offset else ""
            raise SpecError(f"cannot read the filter {short(self.text)}{place}: {self.mended(error.msg)}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise SpecError(f"cannot read the filter {short(self.text)}: {error}; {HINT}") from None
        return self.filter(tree.body, 0)

    def mended(self, why: str) -> str:
        """What Python says of the text, and what to do."""
        return f"{why}; write == to compare; {HINT}" if SINGLE.search(self.text) else f"{why}; {HINT}"

    def filter(self, node: ast.expr, depth: int) -> Filter:
        if depth > DEEPEST:
            raise SpecError(f"the filter {short(self.text)} nests deeper than {DEEPEST} parentheses")
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                return All(tuple(self.filter(part, depth + 1) for part in parts))
            case ast.BoolOp(op=ast.Or(), values=parts):
                return Either(tuple(self.filter(part, depth + 1) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return Not(self.filter(inner, depth + 1))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                tests = tuple(
                    self.test(a, type(op).__name__, b, node)
                    for a, op, b in zip(sides, ops, others, strict=False)  # one side more than signs
                )
                return tests[0] if len(tests) == 1 else All(tests)
            case ast.Name() | ast.Subscript():
                self.refuse(node, f"{self.field(node)!r} alone is no test; compare it with something")
        self.refuse(node, "this is no test")

    def test(self, left: ast.expr, name: str, right: ast.expr, node: ast.expr) -> Filter:
        sign = SIGNS.get(name)
        if sign is None:
            self.refuse(node, "compare with == != < <= > >= in or not in")
        if sign in ("in", "not in"):
            found: Filter = Test(self.field(left), "in", self.values(right))
        elif not isinstance(left, (ast.Constant, ast.UnaryOp)):
            found = Test(self.field(left), sign, self.value(right, sign))
        else:
            found = Test(self.field(right), FLIPPED[sign], self.value(left, sign))
        return Not(found) if sign == "not in" else found

    def field(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Subscript(value=ast.Name(id="metadata"), slice=ast.Constant(value=str() as name)):
                return name
        self.refuse(node, 'here a field is wanted: a name, or metadata["any name"]')

    def values(self, node: ast.expr) -> tuple[Value, ...]:
        if not isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            self.refuse(node, 'after `in` comes a list: ("a", "b")')
        return tuple(self.value(item, "==") for item in node.elts)

    def value(self, node: ast.expr, sign: str) -> Value:
        match node:
            case ast.Constant(value=str() | bool() | None as value) if sign in ("==", "!=") or isinstance(value, str):
                return value
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and value < math.inf:
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value < math.inf:
                return -value
            case ast.Name(id=name):
                self.refuse(node, f'{name} is a field; a value is a number or stands in quotes: "{name}"')
        self.refuse(node, f"this cannot stand beside {sign}; a value is a string or a number")

    def refuse(self, node: ast.expr, why: str) -> NoReturn:
        what = ast.get_source_segment(self.text, node) or self.text
        before = self.text.encode()[: node.col_offset].decode(errors="replace")
        place = f"{short(what)} at character {len(before) + 1}"
        raise SpecError(f"in the filter {short(self.text)}, {place}: {why}; {HINT}")
