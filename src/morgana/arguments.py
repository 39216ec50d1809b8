"""The arguments of a part are of the types that it annotates, however it is built: from a spec or in Python.

Literals, tuples of them and None are checked in full, and NaN is refused: it equals nothing, and no spec spells it. Of
a protocol only what is certain: no literal and no class plays a part. The rest is left to the class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from inspect import formatannotation
from os import PathLike
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from morgana.types import MorganaError, SpecError

PLAIN: dict[object, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str, PathLike),
    bool: (bool,),
    NoneType: (NoneType,),
}
NO_PART = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, NoneType)
BRIEF = 200  # characters of a value in a message

T = TypeVar("T")


def judge(part: T, own: Callable[[T], None] | None) -> None:
    """Run a part's own check; SpecError for an argument of another type, unless that check had better words for it.

    >>> from morgana.attacks.goals.hijack import Hijack
    >>> Hijack(3)
    Traceback (most recent call last):
        ...
    morgana.types.SpecError: Hijack takes topic of type str: 3 is of type int
    """
    told = mistake(type(part), vars(part))
    try:
        if own:
            own(part)
    except MorganaError:
        raise
    except Exception:
        if not told:
            raise
    if told:
        raise SpecError(told)


def mistake(cls: type[Any], values: Mapping[str, object]) -> str:
    """The first argument that is not of its type, what came, and how to write it where that is known; else empty."""
    for name, (wanted, spelled) in annotated(cls).items():  # type: ignore[arg-type]
        if name in values and (told := flaw(values[name], wanted)):
            return f"{cls.__name__} takes {name} of type {spelled}: {told}"
    return ""


@cache
def annotated(cls: type[Any]) -> dict[str, tuple[object, str]]:
    """The type of every argument of a part, and how it is spelled."""
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    return {
        f.name: (resolved(f.type, names), f.type if isinstance(f.type, str) else formatannotation(f.type))
        for f in fields(cls)
        if f.init
    }


def resolved(annotation: object, names: dict[str, Any]) -> object:
    """The type that an annotation spells; Any where its names are a function's own, or known to checkers only."""
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any


def fits(value: object, wanted: object) -> bool:
    """Whether an argument may be of this value; `wanted` is a type or its spelling.

    >>> fits(3, "str"), fits(3, "float | None"), fits(True, "int"), fits((1, 2), "tuple[int, ...]")
    (False, True, False, True)
    """
    return not flaw(value, resolved(wanted, {}))


def flaw(value: object, wanted: object) -> str:
    """Why a value is not what is wanted; empty if it is."""
    kind, inside = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        told = [flaw(value, one) for one in inside]
        return next((why for why in told if why != of_type(value)), told[0]) if all(told) else ""
    if isinstance(value, type):
        return f"{value.__name__} is a class; write {value.__name__}()" if misplaced(value, kind) else ""
    if kind is tuple and inside:
        return entries(value, inside)
    if kind not in PLAIN:
        return of_type(value) if getattr(kind, "_is_protocol", False) and isinstance(value, NO_PART) else ""
    if not isinstance(value, PLAIN[kind]) or (type(value) is bool and kind is not bool):
        return of_type(value)
    return f"{value!r} is no number" if value != value else ""


def misplaced(value: type, kind: object) -> bool:
    """Whether a class stands where an instance belongs."""
    if kind in (type, object, Callable):
        return False
    return hasattr(value, "__morgana_part__") or (kind is not Any and isinstance(kind, type))


def entries(value: object, inside: tuple[Any, ...]) -> str:
    """What is wrong with a tuple of these types."""
    each = inside[0] if inside[-1] is ... else None
    if isinstance(value, list):
        return f"{of_type(value)}; write {brief(tuple(value))}"
    if not isinstance(value, tuple):
        return of_type(value) + (f"; write ({brief(value)},)" if each and not flaw(value, each) else "")
    if not each and len(value) != len(inside):
        return f"{brief(value)} has {len(value)} entries, not {len(inside)}"
    told = (flaw(x, each or inside[i]) for i, x in enumerate(value))
    return next((f"in {brief(value)}, {why}" for why in told if why), "")


def of_type(value: object) -> str:
    return f"{brief(value)} is of type {type(value).__name__}"


def brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= BRIEF else text[: BRIEF - 3] + "..."
