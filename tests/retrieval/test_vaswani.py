import importlib.util
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[2] / "experiments" / "vaswani.py"


@pytest.fixture(scope="module")
def vaswani():
    spec = importlib.util.spec_from_file_location("vaswani", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_average_precision_is_that_of_a_page_of_paper(vaswani):
    from morgana.types import Document, Hit

    hits = tuple(Hit(Document(id), 0.0) for id in "abcd")
    assert vaswani.precision(hits, {"b": 1, "d": 2, "z": 1, "a": 0}) == pytest.approx((1 / 2 + 2 / 4) / 3)


def test_bm25_ranks_as_others_do(vaswani, shared_data):
    found = vaswani.measure(shared_data / "vaswani")
    assert found == pytest.approx(vaswani.SETTINGS, abs=0.003)
