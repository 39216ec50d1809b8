from __future__ import annotations

import math

import pytest
import torch

from morgana.eval.metrics.closing import closing
from morgana.types import SpecError


@pytest.fixture
def clean():
    return torch.full((2, 3, 4, 4), 128 / 255)


def test_the_largest_change_of_the_batch_closes_the_attack(clean):
    attacked = clean.clone()
    attacked[1, 0, 0, 0] += 8 / 255
    attacked[1, 1, 0, 0] -= 6 / 255
    attacked[0, 2, 3, 3] += 2 / 255
    line = closing(clean, attacked)
    assert line.linf * 255 == pytest.approx(8, abs=1e-4)
    assert line.l2 * 255 == pytest.approx(10, abs=1e-4)  # of one image, not of the batch
    assert line.legal
    assert line.within(8 / 255)
    assert not line.within(7.9 / 255)
    assert str(line) == "largest perturbation 8.000/255 (Linf), 0.0392 (L2); NaN 0; min 0.4784, max 0.5333"


def test_nothing_changed(clean):
    assert (closing(clean, clean).linf, closing(clean, clean).l2) == (0, 0)


def test_broken_and_illegal_pixels_are_told(clean):
    attacked = clean.clone()
    attacked[0, 0, 0, 0], attacked[0, 0, 0, 1] = math.nan, math.inf
    line = closing(clean, attacked)
    assert (line.broken, line.linf, line.legal) == (2, 0, False)
    assert not line.within(1)
    assert not closing(clean, clean + 0.6).legal
    assert not closing(clean, clean - 0.6).legal
    assert math.isnan(closing(clean, clean * math.nan).low)


def test_batches_must_match(clean):
    with pytest.raises(SpecError, match=r"clean \(2, 3, 4, 4\) and attacked \(1, 3, 4, 4\)"):
        closing(clean, clean[:1])
    with pytest.raises(SpecError, match="wanted equal shapes"):
        closing(clean[:0], clean[:0])
