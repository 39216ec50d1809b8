"""Filters by metadata, and what they should say, the long way."""

from hypothesis import strategies as st

FIELDS = {"colour": ("red", "green", "1"), "year": ("1980", "1999.5", "-3", "soon")}
WORDS = st.sampled_from(['"red"', '"green"', '"1"', "1", "1980", "1999.5", "-3"])
PAIRS = st.tuples(st.sampled_from(list(FIELDS)), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), WORDS)
metadata = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()})


def joined(inner):
    return st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    )


filters = st.recursive(PAIRS, joined, max_leaves=6)


def written(tree):
    """Its text, with every parenthesis."""
    if tree[0] in ("and", "or"):
        return f"({written(tree[1])}) {tree[0]} ({written(tree[2])})"
    return f"not ({written(tree[1])})" if tree[0] == "not" else " ".join(tree)


def judged(tree, row):
    """What it should say of one document, the long way."""
    if tree[0] == "and":
        return judged(tree[1], row) and judged(tree[2], row)
    if tree[0] == "or":
        return judged(tree[1], row) or judged(tree[2], row)
    if tree[0] == "not":
        return not judged(tree[1], row)
    held, sign, value = row.get(tree[0]), tree[1], tree[2]
    if value.startswith('"'):
        value = value.strip('"')
    else:
        held = float(held) if held in ("1", "1980", "1999.5", "-3") else None
        value = float(value)
    if held is None:
        return sign == "!="
    signs = {"==": held == value, "!=": held != value, "<": held < value, "<=": held <= value, ">": held > value}
    return signs.get(sign, held >= value)
