"""An instance of any registered part: its required arguments are filled in by their types."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from morgana.spec import KINDS, components, parse

BY_TYPE = {
    "str": "x",
    "int": 2,
    "float": 0.5,
    "bool": True,
    "Encoder": parse("HashEncoder()"),
    "Generator": parse("HF('x')"),
    "Intervention": parse("BAIR()"),
    "Corpus": parse("Atlas(sites=2)"),
    "tuple[Retriever, ...]": (parse("Dense('x')"), parse("Sparse('x')")),
}


def example(cls: type[Any]) -> Any:
    """A part with defaults where it has them."""
    return cls(**{f.name: value(cls, f) for f in fields(cls) if f.init and required(f)})


def required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def value(cls: type[Any], field: Field[Any]) -> Any:
    if str(field.type) in BY_TYPE:
        return BY_TYPE[str(field.type)]
    if field.name in KINDS:  # Composed(goal, threat, search)
        return example(components(field.name)[0])
    raise AssertionError(
        f"{cls.__name__}.{field.name} is a {field.type}, which tests/examples.py cannot make; give it a default, "
        "or teach BY_TYPE"
    )
