from dataclasses import dataclass, field

import pytest
import torch

from morgana.generation.explain.eagle import EAGLE
from morgana.generation.explain.msea import MSEA, opened, overlap, shrunk
from morgana.generation.explain.rollout import Rollout
from morgana.generation.explain.tam import TAM, ranked, scale
from morgana.generation.faithfulness import Curves, area, curves, shown
from morgana.generation.generators.hf import HF
from morgana.spec import components
from morgana.types import Query, SpecError


@dataclass
class Seer:
    """Answers with a probability that is the share of red in the right place; the rest of the image says nothing."""

    places: tuple[int, ...]
    asked: list[int] = field(default_factory=list)

    def loss(self, pixels, query, hits, text):
        self.asked.append(len(pixels))
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels[:, 0], 4).flatten(1)[:, list(self.places)]
        return -((cells - 0.5).clamp(min=0) * 2).mean(1).clamp(min=1e-6).log()


QUERY = Query("q", "What is red?")


@pytest.fixture
def red():
    return torch.ones(1, 3, 16, 16)


@pytest.mark.parametrize("cls", components("explainer"), ids=lambda c: c.__name__)
def test_a_map_is_finite_and_lies_on_a_grid(tiny_llava_folder, cls, pixels, query, hits):
    part = cls(side=2) if cls is EAGLE else cls()
    heat = part(HF(str(tiny_llava_folder)), pixels[:1], query, hits, "Bluewater Holdings")
    assert heat.shape == ((2, 2) if cls is EAGLE else (4, 4))
    assert torch.isfinite(heat).all()
    assert (heat >= 0).all()
    assert heat.max() > 0
    again = part(HF(str(tiny_llava_folder)), pixels[:1], query, hits, "Bluewater Holdings")
    assert torch.equal(heat, again)


def test_rollout_is_the_product_of_half_attention(tiny_llava_folder, pixels, query, hits):
    generator = HF(str(tiny_llava_folder))
    network, prompt = generator.network, generator.write([pixels[:1]], [query], [hits])
    try:
        network.set_attn_implementation("eager")
        with torch.no_grad():
            layers = network(**prompt.inputs, output_attentions=True).attentions
    finally:
        network.set_attn_implementation("sdpa")
    product = torch.eye(prompt.spans[0].length)
    for attention in layers:
        product = (attention[0].mean(0) + torch.eye(len(product))) / 2 @ product
    first, last = prompt.spans[0].image[0]
    heat = Rollout()(generator, pixels[:1], query, hits, "")
    torch.testing.assert_close(heat.flatten(), product[-1, first:last], atol=1e-6, rtol=1e-4)
    assert product[-1].sum() == pytest.approx(1, abs=1e-5)


def test_eagle_finds_the_planted_region_first(red):
    heat = EAGLE()(Seer((6,)), red, QUERY, (), "red")
    assert int(heat.argmax()) == 6
    assert sorted(heat.flatten().tolist()) == [i / 16 for i in range(1, 17)]
    both = EAGLE()(Seer((3, 12)), red, QUERY, (), "red").flatten()
    assert set(both.topk(2).indices.tolist()) == {3, 12}


def test_a_true_map_rises_early_and_falls_early(red):
    true, false = torch.zeros(4, 4), torch.ones(4, 4)
    true[1, 2], false[1, 2] = 1, 0
    good, bad = (curves(Seer((6,)), red, QUERY, (), "red", heat, steps=16) for heat in (true, false))
    assert good.inserted > 0.9 > 0.1 > bad.inserted
    assert good.deleted < 0.1 < 0.9 < bad.deleted
    for made in (good, bad):
        assert len(made.insertion) == len(made.deletion) == 17
        assert made.insertion[-1] == made.deletion[0] == 1
        assert (made.insertion.diff() >= 0).all()


def test_areas_and_masks_are_what_they_say(red):
    assert area(torch.ones(5)) == 1
    assert Curves(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 1.0, 0.0])).deleted == 0.75
    cells = torch.zeros(1, 2, 2, dtype=torch.bool)
    cells[0, 0, 1] = True
    made = shown(red, cells, 0.25)
    assert made[0, :, :8, 8:].eq(1).all()
    assert made[0, :, 8:].eq(0.25).all()
    with pytest.raises(SpecError, match="heat map of shape"):
        curves(Seer((6,)), red, QUERY, (), "red", torch.zeros(4))


def test_interference_is_fitted_and_the_filter_keeps_what_is_flat():
    own, other = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 1.0])
    factor = scale(own, other)
    assert abs(float((own - factor * other) @ other)) < 1e-6
    flat = torch.full((4, 4), 0.3)
    torch.testing.assert_close(ranked(flat), flat)
    noisy = flat.clone()
    noisy[1, 1] = 5
    assert ranked(noisy)[1, 1] < 5
    assert TAM().smooth


def test_rankings_overlap_as_the_sum_over_depths_says():
    left, right = torch.tensor([4, 1, 7, 2]), torch.tensor([1, 4, 9, 7])
    shared = [0, 2, 2, 3]  # of the first d of both
    weight = [0.9**d for d in range(4)]
    wanted = sum(w * s / (d + 1) for d, (w, s) in enumerate(zip(weight, shared, strict=True))) / sum(weight)
    assert float(overlap(left, right, 0.9)) == pytest.approx(wanted)
    assert float(overlap(left, left, 0.9)) == pytest.approx(1)
    assert float(overlap(left, left + 10, 0.9)) == 0
    assert overlap(left, torch.tensor([4, 0, 0, 0]), 0.5) > overlap(left, torch.tensor([0, 0, 0, 4]), 0.5)


def test_a_small_image_lies_in_the_middle_and_its_map_comes_back_whole(red):
    small = shrunk(red, 0.5)
    assert small.shape == red.shape
    assert small[..., 4:12, 4:12].eq(1).all()
    assert float((small - 0.5).sum()) == 3 * 64 * 0.5
    assert shrunk(red, 1.0) is red
    flat = torch.zeros(1, 8, 8)
    flat[:, 2:6, 2:6] = 0.7
    torch.testing.assert_close(opened(flat, 0.5)[:, 1:7, 1:7], torch.full((1, 6, 6), 0.7))
    assert opened(torch.eye(4)[None], 1.0).equal(torch.eye(4)[None])
    corner = torch.zeros(1, 4, 4)
    corner[0, 1, 1] = 1  # upper left of the middle: upper left of the image
    assert int(opened(corner, 0.5).flatten().argmax()) in (0, 1, 4, 5)
    assert opened(corner, 0.5)[0, 2:, 2:].amax() < 0.1


def test_only_words_that_rank_alike_explain_a_map_away(tiny_llava_folder, pixels, query, hits):
    generator = HF(str(tiny_llava_folder))
    heat = MSEA(sizes=(1.0,))._left(0, torch.tensor([[1.0, 2.0]]), torch.tensor([5]), torch.tensor([[1, 2]]))
    assert heat.tolist() == [1.0, 2.0]
    ranks = torch.tensor([[1, 2, 3], [9, 8, 7], [1, 2, 3]])
    maps = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    left = MSEA()._left(2, maps, torch.tensor([5, 6, 7]), ranks)
    assert left.tolist() == [1.0, 0.0, 1.0]  # the first word ranks alike and explains its place; the second does not
    again = MSEA()._left(2, maps, torch.tensor([7, 6, 7]), ranks)
    assert again.tolist() == [1.0, 1.0, 1.0]  # a word does not subtract itself
    one, three = (MSEA(sizes=s)(generator, pixels[:1], query, hits, "Bluewater") for s in ((1.0,), (1.0, 0.5)))
    assert not torch.allclose(one, three)
    for wrong in ({"sizes": ()}, {"sizes": (1.5,)}, {"top": 0}, {"persist": 1.0}):
        with pytest.raises(SpecError):
            MSEA(**wrong)
