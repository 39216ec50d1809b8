import numpy as np
import pytest
from filtering import filters, judged, metadata, written
from hypothesis import given
from hypothesis import strategies as st

from morgana.index.filters import Where
from morgana.types import SpecError

HARBOUR = {"operator": "Bluewater", "year": "1987", "depth": "-3.5", "open": "true", "site name": "Calmouth"}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('operator == "Bluewater"', True),
        ("operator == 'bluewater'", False),
        ('operator != "Bluewater"', False),
        ("year == 1987", True),
        ('year == "1987"', True),
        ("year == 1987.0", True),
        ("1980 <= year < 1987", False),
        ("1980 < year <= 1987", True),
        ("1987 == year", True),
        ("depth < -3 and depth > -4", True),
        ("operator > 5", False),
        ("not operator > 5", True),
        ('operator >= "B" and operator < "C"', True),
        ('operator in ("x", "Bluewater")', True),
        ('operator not in ["x", "Bluewater"]', False),
        ("year in {1, 1987}", True),
        ("year in ()", False),
        ("open == True and open != False", True),
        ('metadata["site name"] == "Calmouth"', True),
        ('missing == "x"', False),
        ('missing != "x"', True),
        ("missing == None and year != None", True),
        ("missing < 5 or missing >= 5", False),
        ('missing not in ("x",)', True),
        ('year == 1 or (year == 1987 and not operator == "x")', True),
        (f"year < {10**400} and year > -{10**400} and year != {10**400}", True),
        ('  year == 1987\n  and operator == "Bluewater"\n', True),
    ],
)
def test_what_passes(text, passes):
    assert Where(text).matches(HARBOUR) is passes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the filter is ''"),
        ("operator = 'x'", r"at character \d+: .*=="),
        ("year == 1 and && 2", r"at character 15"),
        ("operator == Bluewater", r"'Bluewater' at character 13: Bluewater is a field; .* in quotes"),
        ("year > 1 and operator", "'operator' at character 14: 'operator' alone is no test"),
        ("1 == 1", "'1' at character 6: here a field is wanted"),
        ("year.month == 'x'", "'year.month' at character 1: here a field is wanted"),
        ("a == b", "b is a field"),
        ("f(x) == 1", "f"),
        ("a.b == 1", "a field is wanted"),
        ("a is None", "compare with =="),
        ('a in "text"', "comes a list"),
        ("a in (1, b)", "b is a field"),
        ("a < None", "cannot stand beside <"),
        ("a < True", "cannot stand beside <"),
        ("a == 1e999", "cannot stand"),
        ("a == b'x'", "cannot stand"),
        ('a == f"{b}"', "cannot stand"),
        ("a == 1j", "cannot stand"),
        ("a == (1,)", "cannot stand"),
        ("[x for x in y]", "is no test"),
        ("lambda: 1", "is no test"),
        ("(a := 1) == 1", "here a field is wanted|cannot"),
        ("__import__('os').system('x') == 1", "here a field is wanted|no test"),
        ("metadata[0] == 1", "here a field is wanted"),
        ("a\0 == 1", "cannot read the filter"),
        ("(" * 250 + "a == 1" + ")" * 250, "cannot read the filter"),
        ("not " * 60 + "a == 1", "nests deeper than 50"),
        ("a == 1 or " * 2000 + "a == 1", "at most 10000"),
    ],
)
def test_mistakes_are_named_with_their_place(text, said):
    with pytest.raises(SpecError, match=said):
        Where(text)


def test_a_filter_is_a_value():
    assert Where("a == 1") == Where("a == 1") != Where("a == 2")
    assert repr(Where("a == 'x'")) == "Where(\"a == 'x'\")"
    assert Where('b > 1 and not (a == 1 or metadata["c d"] == 2)').fields == ("a", "b", "c d")
    assert len({Where("a == 1"), Where("a == 1")}) == 1


@pytest.mark.parametrize("text", ["1_000", "nan", "inf", "1e999", "", "0x10", "9" * 5000])
def test_what_spells_no_number_is_in_no_order(text):
    where = Where("not (n < 5 or n >= 5)")
    assert where.matches({"n": text})


def test_large_whole_numbers_are_exact():
    assert not Where("n == 9007199254740993").matches({"n": "9007199254740992"})
    assert Where("n == 9007199254740993").matches({"n": "9007199254740993"})


@given(filters, metadata)
def test_every_filter_says_what_its_parts_say(tree, row):
    assert Where(written(tree)).matches(row) == judged(tree, row)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_mistake_of_the_input(text):
    try:
        where = Where(text)
    except SpecError:
        return
    assert where.matches({}) in (True, False)


def test_a_column_holds_every_value_once():
    from morgana.index.columns import Columns

    passes = []

    class Rows:
        def __iter__(self):
            passes.append(1)
            return iter([{"a": "x"}, {}, {"a": "x", "b": "y"}])

    columns = Columns(Rows())
    found = columns.take(["a", "z"])
    assert found["a"].values == ("x", None)
    assert found["a"].codes.tolist() == [0, 1, 0]
    assert found["z"].values == (None,)
    assert columns.known == {"a", "b"}
    columns.take(["a"])
    assert len(passes) == 1
    assert np.array_equal(Where("b == None").mask(columns.take(["b"]), 3), [True, True, False])
