"""A spec is read as it was written, and nothing in it is run."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import fields

import pytest
from examples import example, required
from hypothesis import given
from hypothesis import strategies as st

from morgana.spec import DEEPEST, LONGEST, components, find, literal, parse, registry, whole
from morgana.types import SpecError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-255, 255).map(lambda level: level / 255)
    | st.text(max_size=40)
)
literals = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def alike(a: object, b: object) -> bool:
    """Equal in value, type and, for floats, sign."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return type(a) is type(b) and a == b


@given(literals)
def test_every_literal_comes_back(value):
    assert alike(parse(literal(value)), value)


@pytest.mark.parametrize("cls", registry().values(), ids=lambda cls: cls.__name__)
def test_every_part_comes_back(cls):
    part = example(cls)
    assert parse(repr(part)) == part
    assert type(parse(repr(part))) is cls
    assert parse(whole(part)) == part
    assert all(f"{f.name}=" in whole(part) for f in fields(cls) if f.init and f.repr)


@given(st.data())
def test_parts_come_back_with_other_arguments(data):
    free = [c for c in registry().values() if not any(map(required, c.__dataclass_fields__.values()))]
    cls = data.draw(st.sampled_from(sorted(free, key=lambda c: c.__name__)))
    changed = {
        f.name: data.draw(st.integers(0, 9) if isinstance(f.default, int) else st.floats(0, 1))
        for f in cls.__dataclass_fields__.values()
        if type(f.default) in (int, float) and f.repr
    }
    try:
        part = cls(**changed)
    except SpecError:  # out of the range that the part allows
        return
    assert parse(repr(part)) == part


def test_a_grey_level_keeps_its_spelling():
    assert repr(parse("Linf(epsilon=8/255)")) == repr(parse("Linf(8/255)"))
    assert "4/255" in repr(parse("Linf(4/255)"))


def test_a_bare_name_is_a_call_without_arguments():
    assert parse("PGD") == parse("PGD()")


@pytest.mark.parametrize(
    "text", ["InHeads(0)", "PGD(steps='x')", f"{10**400} / 7", f"Scaled(HashEncoder(), {10**400})"]
)
def test_arguments_of_another_kind_are_refused_or_kept_and_break_nothing(text):
    with suppress(SpecError):
        parse(text)


def test_a_number_where_a_part_belongs_is_said():
    with pytest.raises(SpecError, match=r"cannot build 'InHeads\(0\)': .*; InHeads takes intervention, heads"):
        parse("InHeads(0)")


def test_parts_nest():
    text = "Smoothed(Smoothed(HashEncoder(), sigma=0.25), sigma=0.5)"
    assert repr(parse(text)) == text


HOSTILE = {
    "code": "__import__('os').system('touch {marker}')",
    "open": "open('{marker}', 'w')",
    "attribute": "PGD().__class__",
    "attribute of an argument": "Hijack('a'.__class__)",
    "deep attribute": "a" + ".b" * 3000,
    "subscript": "(1, 2)[0]",
    "lambda": "PGD(steps=(lambda: 1)())",
    "comprehension": "[x for x in (1, 2)]",
    "f-string": "f'{1}'",
    "star": "PGD(*(1,))",
    "double star": "PGD(**{'steps': 1})",
    "walrus": "(a := 1)",
    "dictionary": "{'a': 1}",
    "bytes": "b'x'",
    "complex": "1j",
    "ellipsis": "...",
    "power": "9**9**9",
    "sum": "1+1",
    "long sum": "1+" * 3000 + "1",
    "division by zero": "1/0",
    "division of text": "'a'/2",
    "call of a call": "PGD()()",
    "statement": "import os",
    "two expressions": "PGD(); PGD()",
    "unfinished": "PGD(steps=",
    "the same argument twice": "PGD(steps=1, steps=2)",
    "too many arguments": "PGD(" + "1, " * 50 + "1)",
    "nothing": "",
    "spaces": "   \n",
    "NUL": "PGD(steps=1\0)",
    "surrogate": "PGD('\ud800')",
    "huge": "x" * 1_000_000,
    "huge number": "9" * 9_000,
    "nested parentheses": "(" * 4000 + ")" * 4000,
    "nested calls": "Smoothed(" * (DEEPEST + 5) + "HashEncoder()" + ")" * (DEEPEST + 5),
    "nested minus": "-" * 4000 + "1",
    "nested not": "not " * 2000 + "1",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_spec_is_refused_in_a_few_words_and_not_run(text, tmp_path):
    marker = tmp_path / "executed"
    with pytest.raises(SpecError) as error:
        parse(text.replace("{marker}", str(marker)))
    assert not os.path.exists(marker)
    assert len(str(error.value)) < 1000
    assert str(error.value).strip()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("PDG(steps=3)", "did you mean PGD?"),
        ("cloudweb()", "did you mean CloudWeb?"),
        ("PGD(step=3)", "did you mean steps?"),
        ("Frobnicate()", "`morgana list` shows them all"),
        ("Composed(Hijack('weather'), Lnif(8/255), PGD())", "did you mean Linf?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(text, hint):
    with pytest.raises(SpecError) as error:
        parse(text)
    assert hint in str(error.value)


def test_the_longest_spec_is_still_read():
    text = "'" + "x" * (LONGEST - 2) + "'"
    assert parse(text) == text[1:-1]


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(SpecError, match="did you mean attack"):
        components("atack")


def test_find_gives_the_class():
    assert find("PGD").__name__ == "PGD"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('Atlas(sites="a")', "Atlas takes sites of type int: 'a' is of type str"),
        ("CloudOverlay(softness=0.2)", r"softness of type tuple\[float, float\]: 0.2 is of type float$"),
        ("PGD(2.5)", "PGD takes steps of type int: 2.5 is of type float"),
        ("PGD(steps=True)", "PGD takes steps of type int: True is of type bool"),
        (
            'HF("atlas", interventions=BAIR())',
            r"interventions of type tuple.*: BAIR\(\) is of type BAIR; write \(BAIR\(\),\)",
        ),
    ],
)
def test_a_literal_of_another_type_is_named_with_its_argument(spec, message):
    with pytest.raises(SpecError, match=message):
        parse(spec)
