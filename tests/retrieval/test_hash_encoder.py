from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import SpecError


@given(st.lists(st.text(), max_size=6), st.sampled_from([1, 2, 16, 1024]))
def test_any_text_has_a_vector_of_unit_length(texts, dimension):
    vectors = HashEncoder(dimension).encode_text(texts)
    assert vectors.shape == (len(texts), dimension)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(texts)))


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_vector_depends_on_its_text_alone(texts):
    encoder = HashEncoder()
    together = encoder.encode_text(texts)
    assert all(torch.equal(encoder.encode_text([text])[0], row) for text, row in zip(texts, together, strict=True))


def test_the_vectors_are_the_same_on_every_machine():
    (vector,) = HashEncoder(8).encode_text(["a red boat"])
    wanted = [0.6, 0.2, 0.4, -0.2, 0.0, 0.6, 0.2, 0.0]
    torch.testing.assert_close(vector, torch.tensor(wanted), atol=1e-6, rtol=0)


def test_like_spelling_is_near_and_the_empty_text_is_far():
    encoder = HashEncoder()
    boat, boats, fog, empty, again = encoder.encode_text(
        ["there is a red boat", "there is a red boat.", "thick fog", "", "There is  a RED boat"]
    )
    assert float(boat @ boats) > 0.8
    assert float(boat @ fog) < 0.2
    assert abs(float(boat @ empty)) < 0.2
    assert torch.equal(boat, again)  # case and spacing do not count


def test_numbers_and_names_are_told_apart():
    one, two = HashEncoder().encode_text(["This harbour opened in 1961.", "This harbour opened in 1962."])
    assert float(one @ two) < 0.999


def test_other_settings_have_other_fingerprints():
    made = [HashEncoder(), HashEncoder(512), HashEncoder(shortest=2), HashEncoder(longest=4)]
    assert len({encoder.fingerprint for encoder in made}) == 4
    assert HashEncoder().fingerprint == HashEncoder(1024).fingerprint


def test_images_are_refused_with_a_way_out():
    with pytest.raises(SpecError, match="text only and got images; use OpenCLIP"):
        HashEncoder().encode_image(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("arguments", [{"dimension": 0}, {"shortest": 0}, {"shortest": 6}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(SpecError, match="wants dimension >= 1"):
        HashEncoder(**arguments)
