"""A part is named by the call that builds it: `parse(repr(part)) == part`.

The registry is the packages themselves: a part is a class decorated with `@part` in a module of one of `KINDS`.
A new file is a new part; there is no list to edit.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any, TypeVar, dataclass_transform

from morgana.arguments import judge, mistake
from morgana.types import MorganaError, SpecError

KINDS = {
    "corpus": "morgana.corpus",
    "index": "morgana.index.kinds",
    "encoder": "morgana.retrieval.encoders",
    "retriever": "morgana.retrieval.retrievers",
    "stage": "morgana.retrieval.stages",
    "generator": "morgana.generation.generators",
    "intervention": "morgana.generation.interventions",
    "pruner": "morgana.generation.pruning",
    "explainer": "morgana.generation.explain",
    "attack": "morgana.attacks",
    "goal": "morgana.attacks.goals",
    "threat": "morgana.attacks.threats",
    "search": "morgana.attacks.searches",
    "defense": "morgana.defenses",
    "metric": "morgana.eval.metrics",
    "study": "morgana.eval",
}
LONGEST = 10_000  # characters in a spec
DEEPEST = 20  # nested calls

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def part(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass whose `repr` is the call that builds it, and let the registry find it.

    Arguments that are not of the types annotated raise SpecError, see `arguments`.
    """
    own = getattr(cls, "__post_init__", None)
    cls.__post_init__ = lambda self: judge(self, own)  # type: ignore[attr-defined]
    made = dataclass(frozen=True, repr=False)(cls)
    made.__repr__ = spell  # type: ignore[method-assign]
    made.__morgana_part__ = True  # type: ignore[attr-defined]
    return made


def spell(self: Any) -> str:
    """The call that builds a part: fields without a default by position, the others by name where they differ."""
    arguments, by_position = [], True
    for field in fields(self):
        if not field.init or not field.repr:
            continue
        value = getattr(self, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is MISSING and by_position:
            arguments.append(literal(value))
        elif default is MISSING or not same(value, default):
            by_position = False
            arguments.append(f"{field.name}={literal(value)}")
    return f"{type(self).__name__}({', '.join(arguments)})"


def whole(value: object) -> str:
    """Like `repr`, with every field that has its default too: what a part still means after a default was changed."""
    return literal(value, spell_whole)


def spell_whole(value: object) -> str:
    if not getattr(value, "__morgana_part__", False):
        return repr(value)
    told = (f"{f.name}={whole(getattr(value, f.name))}" for f in fields(value) if f.init and f.repr)  # type: ignore[arg-type]
    return f"{type(value).__name__}({', '.join(told)})"


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


def literal(value: object, other: Callable[[object], str] = repr) -> str:
    """Python source for a value; grey levels keep the field's spelling.

    >>> literal(8 / 255), literal((1, 0.5)), literal("x")
    ('8/255', '(1, 0.5)', "'x'")
    """
    if isinstance(value, float) and 0 < abs(value) < 1:
        levels = round(value * 255)
        if levels and levels / 255 == value and len(repr(value)) > len(f"{levels}/255"):
            return f"{levels}/255"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(literal(item, other) for item in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return other(value)


def parse(text: str) -> Any:
    """Build the part (or literal) that `text` spells; calls to registered names and literals, nothing else.

    Raises SpecError naming what was not understood, with the nearest known name.

    >>> parse("8/255") == 8 / 255
    True
    """
    if len(text) > LONGEST:
        raise SpecError(f"a spec of {len(text)} characters; at most {LONGEST} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(
            f"cannot read the spec {short(text)}: {error}; write it as a Python call, PGD(steps=40)"
        ) from None
    return build(tree.body, text, 0)


def build(node: ast.expr, text: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise SpecError(f"the spec {short(text)} nests deeper than {DEEPEST} calls")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(build(item, text, depth + 1) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=inner) if isinstance(
            number := build(inner, text, depth + 1), (int, float)
        ):
            return -number
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            return divide(build(left, text, depth + 1), build(right, text, depth + 1), text)
        case ast.Name(id=name):  # `Hide` reads as `Hide()`
            return call(find(name), (), {}, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(k.arg for k in keywords):
            if len({k.arg for k in keywords}) < len(keywords):
                raise SpecError(f"{name} is given an argument twice in {short(text)}")
            values = tuple(build(a, text, depth + 1) for a in args)
            named = {str(k.arg): build(k.value, text, depth + 1) for k in keywords}
            return call(find(name), values, named, text)
    raise SpecError(
        f"{short(ast.get_source_segment(text.strip(), node) or text)} in {short(text)} is not allowed: "
        "a spec holds literals, tuples, 8/255 and calls to parts"
    )


def divide(left: object, right: object, text: str) -> float:
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)) or not right:
        raise SpecError(f"only numbers divide, and not by zero, in {short(text)}")
    try:
        return left / right
    except OverflowError as error:
        raise SpecError(f"{error} in {short(text)}") from None


def call(cls: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], text: str) -> Any:
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    for name in named:
        if name not in known:
            raise SpecError(
                f"{cls.__name__} has no argument {name!r}{nearest(name, known)}; it has {', '.join(known) or 'none'}"
            )
    if told := mistake(cls, dict(zip(known, args, strict=False)) | named):  # type: ignore[arg-type]
        raise SpecError(told)
    try:
        return cls(*args, **named)
    except MorganaError:
        raise
    except (TypeError, AttributeError, ValueError, ArithmeticError, LookupError) as error:  # a number where a part goes
        raise SpecError(
            f"cannot build {short(text)}: {error}; {cls.__name__} takes {', '.join(known) or 'nothing'}"
        ) from None


def find(name: str) -> type[Any]:
    """The registered part of this name; SpecError with the nearest name if there is none."""
    known = registry()
    if name not in known:
        raise SpecError(f"no part is called {name!r}{nearest(name, list(known))}; `morgana list` shows them all")
    return known[name]


def nearest(name: str, known: list[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


def short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")


def modules(package: str) -> Iterator[ModuleType]:
    """The package and the modules directly in it, subpackages that are kinds of their own left out."""
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and package.startswith(error.name):
            return
        raise
    yield root
    for info in pkgutil.iter_modules(getattr(root, "__path__", [])):
        name = f"{package}.{info.name}"
        if name not in KINDS.values() and not info.name.startswith("_"):
            yield importlib.import_module(name)


@cache
def components(kind: str) -> tuple[type[Any], ...]:
    """Every part of a kind, by name."""
    if kind not in KINDS:
        raise SpecError(f"no kind is called {kind!r}{nearest(kind, list(KINDS))}; the kinds are {', '.join(KINDS)}")
    found: dict[str, type[Any]] = {}
    for module in modules(KINDS[kind]):
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and getattr(value, "__morgana_part__", False)
                and (value.__module__ == module.__name__ or value.__module__.startswith(module.__name__ + "."))
            ):
                found[value.__name__] = value
    return tuple(found[name] for name in sorted(found))


@cache
def registry() -> dict[str, type[Any]]:
    """Every part of every kind, by name."""
    return {cls.__name__: cls for kind in KINDS for cls in components(kind)}
