"""A sentence matters as much as the answer's probability falls without it."""

from __future__ import annotations

import torch

from morgana.eval.cards import shades
from morgana.eval.grounds import Grounds, overlay
from morgana.generation.reading import rests_on, sentences
from morgana.types import Document, Hit, Query


class Witness:
    """Its loss is 2 nats, less what each of two words in the articles is worth to it."""

    def loss(self, pixels, query, hits, text):
        said = " ".join(hit.document.text for hit in hits)
        return torch.tensor([2.0 - 1.5 * ("Bluewater" in said) - 0.25 * ("quay" in said)])


HITS = (
    Hit(Document("a", "It has a quay. Bluewater runs it. It is old."), 0.9),
    Hit(Document("b", "Fog is cloud on the ground."), 0.5),
)


def test_what_is_lost_without_a_sentence_is_its_weight():
    found = rests_on(Witness(), torch.zeros(1, 3, 4, 4), Query("q", "Who runs it?"), HITS, "Bluewater")
    assert [[s.text for s in row] for row in found] == [
        ["It has a quay.", "Bluewater runs it.", "It is old."],
        ["Fog is cloud on the ground."],
    ]
    assert [[round(s.loss, 4) for s in row] for row in found] == [[0.25, 1.5, 0.0], [0.0]]


def test_what_is_said_twice_is_not_missed_once():
    twice = (*HITS, Hit(Document("c", "Bluewater is a company."), 0.1))
    found = rests_on(Witness(), torch.zeros(1, 3, 4, 4), Query("q", "Who runs it?"), twice, "Bluewater")
    assert {s.loss for row in found for s in row if "Bluewater" in s.text} == {0.0}


def test_the_darkest_sentence_is_the_one_that_matters_and_noise_stays_light():
    found = rests_on(Witness(), torch.zeros(1, 3, 4, 4), Query("q", "Who runs it?"), HITS, "Bluewater")
    first, second = shades(Grounds(torch.ones(2, 2), found))
    assert [round(s.share, 3) for s in first] == [0.167, 1.0, 0.0]
    faint = tuple(tuple(s._replace(loss=s.loss / 100) for s in row) for row in found)
    assert max(s.share for row in shades(Grounds(torch.ones(2, 2), faint)) for s in row) < 0.2
    assert [s.share for s in second] == [0.0]
    assert shades(None) == ()


def test_sentences_end_at_marks_and_lines_and_not_inside_numbers():
    assert sentences("Pier 4\nIt has 3.5 km of quays. Who runs it?  Bluewater.\n") == [
        "Pier 4",
        "It has 3.5 km of quays.",
        "Who runs it?",
        "Bluewater.",
    ]
    assert sentences("") == []


def test_the_heat_is_brightest_where_it_is_hottest(tmp_path):
    import io

    import numpy as np
    from PIL import Image

    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "tile.png")
    heat = torch.zeros(4, 4)
    heat[0, 3] = 2.0
    seen = np.asarray(Image.open(io.BytesIO(overlay(tmp_path / "tile.png", heat)))).astype(int).sum(2)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert row < 12
    assert column > 28
    still = np.asarray(Image.open(io.BytesIO(overlay(tmp_path / "tile.png", heat * 0))))
    assert (still == still[0, 0]).all()
