"""A reader without its eyes."""

import pytest
import torch

from morgana.generation.generators.blind import Blind
from morgana.generation.generators.hf import HF
from morgana.types import Query, SpecError


def test_it_answers_as_the_generator_does_without_an_image(generator, folder, pixels, query, hits, tmp_path):
    blind = Blind(HF(folder, max_new_tokens=5))
    (wanted,) = generator.generate([None], [query], [hits])
    assert blind.generate([pixels[:1]], [query], [hits]) == [wanted]
    asked = Query("q", query.text, image=tmp_path / "nobody looks here.png")
    assert [answer.text for answer in blind([asked], [hits])] == [wanted]
    assert blind.fingerprint == generator.fingerprint


def test_no_attack_can_aim_at_it(folder, query, hits):
    with pytest.raises(SpecError, match="sees no image"):
        Blind(HF(folder)).loss(torch.rand(1, 3, 32, 32), query, hits, "x")
