"""Randomness comes from a named scope and leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morgana.seeds import derive, rng, seeded


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_derived_seed_is_the_same_on_every_machine():
    assert derive(0, "poison", "doc-1") == 2082036260186823814


@given(st.integers(0, 2**32), st.text(), st.text())
def test_a_derived_seed_fits_63_bits_and_tells_scopes_apart(seed, a, b):
    assert 0 <= derive(seed, a) < 2**63
    assert (derive(seed, a) == derive(seed, b)) == (a == b)
    assert derive(seed, a, b) != derive(seed, a + b)
    assert derive(seed, a) != derive(seed + 1, a)


def test_a_scope_draws_the_same_whatever_ran_before():
    with seeded(3, "scope"):
        first = draws()
    draws()
    with seeded(3, "scope"):
        assert draws() == first
    with seeded(3, "other"):
        assert draws() != first


def test_the_states_come_back_even_after_an_error():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="inside"), seeded(0, "scope"):
        raise RuntimeError(f"inside: {draws()}")
    assert draws() == expected


def test_an_inner_scope_does_not_disturb_the_outer_one():
    with seeded(0, "outer"):
        first = draws()
        rest = draws()
    with seeded(0, "outer"):
        assert draws() == first
        with seeded(0, "inner"):
            draws()
        assert draws() == rest


def test_the_block_gets_its_seed():
    with seeded(5, "x") as value:
        assert value == derive(5, "x") == torch.initial_seed()


def test_an_rng_is_its_own():
    one, other = rng(0, "a"), rng(0, "a")
    assert one.random() == other.random()
    state = np.random.get_state()[1].tolist()
    one.random(10)
    assert np.random.get_state()[1].tolist() == state
