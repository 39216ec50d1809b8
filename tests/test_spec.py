"""A spec is read as it was written, and nothing in it is run."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from examples import example, required
from hypothesis import given
from hypothesis import strategies as st

from morgana.arguments import flaw, resolved
from morgana.spec import DEEPEST, LONGEST, components, find, literal, parse, part, registry, whole
from morgana.types import Encoder, SpecError

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
    with pytest.raises(SpecError, match=r"InHeads takes intervention of type Intervention: 0 is of type int$"):
        parse("InHeads(0)")


def test_an_argument_that_is_missing_is_said():
    with pytest.raises(SpecError, match=r"cannot build 'InHeads\(\)': .*; InHeads takes intervention, heads"):
        parse("InHeads()")


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


@part
class Sample:
    """A part with an argument of every type."""

    count: int = 1
    share: float = 0.5
    either: int | float = 1
    name: str | None = None
    flag: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    inner: Sample | None = None
    encoder: Encoder | None = None
    encoders: Encoder | tuple[Encoder, ...] = ()
    anything: Any = None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": "two"}, "count of type int: 'two' is of type str"),
        ({"count": 2.5}, "count of type int: 2.5 is of type float"),
        ({"count": None}, "count of type int: None is of type NoneType"),
        ({"share": True}, "share of type float: True is of type bool"),
        ({"share": math.nan}, "share of type float: nan is no number"),
        ({"either": math.nan}, "either of type int | float: nan is no number"),
        ({"either": (1,)}, "either of type int | float: (1,) is of type tuple"),
        ({"name": 3}, "name of type str | None: 3 is of type int"),
        ({"flag": 1}, "flag of type bool: 1 is of type int"),
        ({"pair": (1.0,)}, "pair of type tuple[float, float]: (1.0,) has 1 entries, not 2"),
        ({"pair": (1.0, "x")}, "pair of type tuple[float, float]: in (1.0, 'x'), 'x' is of type str"),
        ({"many": 2}, "many of type tuple[int, ...]: 2 is of type int; write (2,)"),
        ({"many": "x"}, "many of type tuple[int, ...]: 'x' is of type str"),
        ({"many": [1, 2]}, "many of type tuple[int, ...]: [1, 2] is of type list; write (1, 2)"),
        ({"many": (0.5,)}, "many of type tuple[int, ...]: in (0.5,), 0.5 is of type float"),
        ({"inner": find("PGD")}, "inner of type Sample | None: PGD is a class; write PGD()"),
        ({"encoder": 3}, "encoder of type Encoder | None: 3 is of type int"),
        (
            {"encoder": find("HashEncoder")},
            "encoder of type Encoder | None: HashEncoder is a class; write HashEncoder()",
        ),
        ({"encoders": (3,)}, "encoders of type Encoder | tuple[Encoder, ...]: in (3,), 3 is of type int"),
        ({"anything": find("PGD")}, "anything of type Any: PGD is a class; write PGD()"),
    ],
)
def test_an_argument_of_another_type_is_named_in_python_as_in_a_spec(arguments, message):
    with pytest.raises(SpecError) as built:
        Sample(**arguments)
    with pytest.raises(SpecError) as changed:
        replace(Sample(), **arguments)
    assert str(built.value) == str(changed.value) == f"Sample takes {message}"


def test_what_stands_for_a_type_is_taken():
    encoder = parse("HashEncoder()")
    Sample(2, 1, 0.5, "x", True, (0, 1), (1, 2), Sample(), encoder, (encoder, encoder), object())
    Sample(share=math.inf, name=Path("x"), encoder=object(), encoders=encoder, anything=int)


def test_a_class_has_the_first_word_on_its_arguments():
    @part
    class Positive:
        """Says what it wants."""

        count: int = 1

        def __post_init__(self) -> None:
            if isinstance(self.count, float) or self.count < 1:
                raise SpecError(f"{self.count} is no whole number of at least 1")

    with pytest.raises(SpecError, match="no whole number"):
        Positive(2.5)
    with pytest.raises(SpecError, match="Positive takes count of type int: 'x' is of type str"):
        Positive("x")


def test_a_check_that_is_inherited_still_runs():
    class Bounded:
        def __post_init__(self) -> None:
            if self.count < 1:
                raise SpecError("at least 1")

    @part
    class Few(Bounded):
        """Has at least one."""

        count: int = 1

    with pytest.raises(SpecError, match="at least 1"):
        Few(0)


def test_a_fault_of_a_class_is_not_hidden():
    @part
    class Broken:
        """Divides by nothing."""

        count: int = 0

        def __post_init__(self) -> None:
            1 / self.count

    with pytest.raises(ZeroDivisionError):
        Broken()


def test_a_name_that_only_checkers_know_is_taken_for_anything():
    assert resolved("Unknown | None", {}) is Any
    assert not flaw(3, Any)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("FasterVLM", {"keep": 16, "layer": "two"}, "layer of type int: 'two'"),
        ("FasterVLM", {"keep": 16, "layer": 0.5}, "layer of type int: 0.5"),
        ("AdaptInfer", {"layers": 0.5}, r"layers of type tuple\[float, ...\]: 0.5 is of type float; write \(0.5,\)"),
        ("VTCCLS", {"first": "a"}, "first of type float: 'a'"),
        ("ZerothOrder", {"samples": 2.5}, "samples of type int: 2.5"),
        ("CMAI", {"first": "x"}, "first of type Depth: 'x'"),
        ("CMAI", {"quantile": "x"}, "quantile of type float: 'x'"),
        ("CMAI", {"first": math.nan}, "first of type Depth: nan is no number"),
        ("BAIR", {"alpha_v": "x"}, "alpha_v of type float: 'x'"),
        ("Scaled", {"intervention": parse("CMAI()"), "factor": "x"}, "factor of type float: 'x'"),
        ("Debiased", {"last": "x"}, "last of type float: 'x'"),
        ("InHeads", {"intervention": 3}, "intervention of type Intervention: 3"),
        ("InHeads", {"intervention": parse("CMAI()"), "heads": 2}, r"2 is of type int; write \(2,\)"),
        ("InHeads", {"intervention": parse("CMAI()"), "heads": [0]}, r"\[0\] is of type list; write \(0,\)"),
        ("InHeads", {"intervention": parse("CMAI()"), "heads": (0.5,)}, r"in \(0.5,\), 0.5 is of type float"),
        ("InLayers", {"intervention": find("CMAI")}, r"CMAI is a class; write CMAI\(\)"),
        ("HF", {"model": "atlas", "pruner": find("FastV")}, r"FastV is a class; write FastV\(\)"),
        ("ClinicalContrast", {"tokens": (1,), "odds": ("x",)}, r"in \('x',\), 'x' is of type str"),
        ("ClinicalContrast", {"expert": 3}, r"expert of type Expert \| None: 3"),
    ],
)
def test_slips_that_came_late_or_in_silence_are_named(name, arguments, message):
    with pytest.raises(SpecError, match=message):
        find(name)(**arguments)
