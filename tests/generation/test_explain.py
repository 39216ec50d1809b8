import math
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.studies import execute, locate
from morgana.generation.attention import intervening
from morgana.generation.explain.eagle import EAGLE
from morgana.generation.explain.msea import MSEA, opened, overlap, shrunk
from morgana.generation.explain.rollout import Rollout
from morgana.generation.explain.tam import TAM, ranked, scale
from morgana.generation.faithfulness import Curves, area, curves, shown
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.contrastive import VisualContrast
from morgana.generation.interventions.debiased_attention import DebiasedAttention
from morgana.generation.interventions.dropping import DropHeads, DropLayers
from morgana.generation.interventions.position_scaling import PositionScaling
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.seats import SEATS
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
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


ANSWER = "Bluewater runs it."


def filtered(heat):
    """The rank-Gaussian filter cell by cell: the sorted 3 x 3 neighbourhood under exp(-(rank - 4)^2 / 2 sigma^2)."""
    side = len(heat)
    made = [[0.0] * side for _ in heat]
    for r in range(side):
        for c in range(side):
            near = [
                (min(max(r + i, 0), side - 1), min(max(c + j, 0), side - 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)
            ]
            values = sorted(heat[a][b] for a, b in near)
            mean = sum(values) / 9
            sigma = max(math.sqrt(sum((v - mean) ** 2 for v in values) / 8) / max(mean, 1e-12), 1e-6)
            weight = [math.exp(-0.5 * ((rank - 4) / sigma) ** 2) for rank in range(9)]
            made[r][c] = sum(w * v for w, v in zip(weight, values, strict=True)) / sum(weight)
    return made


def rid_of(own, others, weight):
    """max(own - s other, 0), other the weighted mean and s = own . other / other . other."""
    total = sum(weight) or 1.0
    other = [sum(w * o[n] for w, o in zip(weight, others, strict=True)) / total for n in range(len(own))]
    s = sum(a * b for a, b in zip(own, other, strict=True)) / max(sum(b * b for b in other), 1e-12)
    return [max(a - s * b, 0.0) for a, b in zip(own, other, strict=True)]


def words_of(prompt):
    (spans,) = prompt.spans
    answer = list(range(spans.stop, spans.length - 1))
    return list(range(*spans.question)) + answer, len(answer)


def lit(logits, prompt, left):
    """(W, N) by word: max(logit, 0) at every visual token that is left, else 0; `logits` by place."""
    (first, last), ids = prompt.spans[0].image[0], prompt.inputs["input_ids"][0].tolist()
    words, _ = words_of(prompt)
    return [[max(logits[v][ids[w]], 0.0) if v in left else 0.0 for v in range(first, last)] for w in words]


def tam(logits, prompt, left):
    """TAM's equations in plain float64 numbers."""
    ids, (words, spoken) = prompt.inputs["input_ids"][0].tolist(), words_of(prompt)
    maps, side = lit(logits, prompt, left), round(len(lit(logits, prompt, left)[0]) ** 0.5)
    total = [[0.0] * side for _ in range(side)]
    for k in range(len(words) - spoken, len(words)):
        before = [i for i in range(k) if ids[words[i]] != ids[words[k]]]
        weight = [max(logits[words[i]][ids[words[k]]], 0.0) for i in before]
        own = rid_of(maps[k], [maps[i] for i in before], weight)
        smooth = filtered([own[r * side : (r + 1) * side] for r in range(side)])
        total = [[t + v / spoken for t, v in zip(*rows, strict=True)] for rows in zip(total, smooth, strict=True)]
    return torch.tensor(total)


def biased(left, right, p):
    """Rank-biased overlap to the depth of the lists, over its largest value."""
    weight = [p**d for d in range(len(left))]
    shared = [len(set(left[: d + 1]) & set(right[: d + 1])) / (d + 1) for d in range(len(left))]
    return sum(w * s for w, s in zip(weight, shared, strict=True)) / sum(weight)


def msea(logits, maps, prompt):
    """ARC's equations for maps (W, N) that are averaged over sizes already; `logits` are of the largest."""
    ids, (words, spoken) = prompt.inputs["input_ids"][0].tolist(), words_of(prompt)
    best = [sorted(range(len(logits[w - 1])), key=lambda t: -logits[w - 1][t])[:50] for w in words]
    total = [0.0] * len(maps[0])
    for k in range(len(words) - spoken, len(words)):
        before = [i for i in range(k) if ids[words[i]] != ids[words[k]]]
        own = rid_of(maps[k], [maps[i] for i in before], [biased(best[i], best[k], 0.9) for i in before])
        total = [t + v / spoken for t, v in zip(total, own, strict=True)]
    return torch.tensor(total)


def seen(generator, prompt, gone=(), **more):
    """The network's outputs by place, with the tokens `gone` hidden from everybody and no pruner."""
    mask = torch.ones_like(prompt.inputs["attention_mask"])
    mask[:, list(gone)] = 0
    place = torch.arange(mask.shape[1])[None]
    with torch.no_grad():
        return generator.network(**{**prompt.inputs, "attention_mask": mask}, position_ids=place, **more)


@pytest.fixture
def plain(tiny_llava_folder):
    return HF(str(tiny_llava_folder))


def test_tam_is_its_equations(plain, pixels, query, hits):
    prompt = plain._shared(pixels[:1], query, hits, ANSWER)
    logits = seen(plain, prompt).logits[0].double().tolist()
    left = range(*prompt.spans[0].image[0])
    found = TAM()(plain, pixels[:1], query, hits, ANSWER)
    torch.testing.assert_close(found, tam(logits, prompt, left), atol=1e-4, rtol=1e-3)


def test_msea_is_its_equations(plain, pixels, query, hits):
    prompt = plain._shared(pixels[:1], query, hits, ANSWER)
    logits, left = seen(plain, prompt).logits[0].double().tolist(), range(*prompt.spans[0].image[0])
    found = MSEA(sizes=(1.0,))(plain, pixels[:1], query, hits, ANSWER)
    wanted = msea(logits, lit(logits, prompt, left), prompt).reshape(4, 4)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    small = plain._shared(shrunk(pixels[:1], 0.5), query, hits, ANSWER)
    other = torch.tensor(lit(seen(plain, small).logits[0].double().tolist(), small, left)).reshape(-1, 4, 4)
    # the small image lies in the middle: the cells' centres are at 3/4, 5/4, 7/4 and 9/4 cells of its map
    across = torch.tensor([[0.25, 0.75, 0, 0], [0, 0.75, 0.25, 0], [0, 0.25, 0.75, 0], [0, 0, 0.75, 0.25]])
    maps = (torch.tensor(lit(logits, prompt, left)) + (across @ other @ across.T).flatten(1)) / 2
    for sizes in ((1.0, 0.5), (0.5, 1.0)):  # whichever comes first, the larger one ranks
        found = MSEA(sizes=sizes)(plain, pixels[:1], query, hits, ANSWER)
        wanted = msea(logits, maps.tolist(), prompt).reshape(4, 4)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.fixture
def planted(tiny_llava_folder, tmp_path, query):
    """A model whose every word of `ANSWER` is what one red patch on grey leaves in the last layer, wherever it lies."""
    plain, images = HF(str(tiny_llava_folder)), [red_at(cell) for cell in range(16)]
    prompt = plain._shared(images[0], query, (), ANSWER)
    first, last = prompt.spans[0].image[0]
    carried = []
    for cell, image in enumerate(images):
        given = plain._shared(image, query, (), ANSWER).inputs
        with torch.no_grad():
            states = plain.network(**given, output_hidden_states=True).hidden_states[-1][0, first:last]
        carried.append(states[cell] - states.mean(0))
    folder = tmp_path / "planted"
    shutil.copytree(tiny_llava_folder, folder)
    network = type(plain.network).from_pretrained(str(folder))
    with torch.no_grad():
        network.lm_head.weight[prompt.answer[:-1].unique()] = torch.stack(carried).mean(0)
    network.save_pretrained(str(folder))
    return HF(str(folder))


def red_at(cell, side=32):
    image, edge = torch.full((1, 3, side, side), 0.5), side // 4
    row, column = divmod(cell, 4)
    image[0, :, row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = torch.tensor([1.0, 0, 0])[
        :, None, None
    ]
    return image


@pytest.mark.parametrize("part", [TAM(smooth=False), TAM(), MSEA(sizes=(1.0,)), MSEA()], ids=repr)
def test_the_patch_that_carries_the_answer_is_the_hottest(planted, query, part):
    maps = [part(planted, red_at(cell), query, (), ANSWER).flatten() for cell in range(16)]
    assert all(heat[cell] > heat.max() - 1e-5 > 0 for cell, heat in enumerate(maps))
    if part != TAM():  # whose filter gives one hot cell's rank to all around it
        assert [int(heat.argmax()) for heat in maps] == list(range(16))


@pytest.mark.parametrize("pruner", [UniformGrid(2), FastV(5, layer=1)], ids=repr)
@pytest.mark.parametrize("part", [TAM(), MSEA(sizes=(1.0,)), Rollout()], ids=repr)
def test_a_map_is_that_of_the_pruned_model(tiny_llava_folder, plain, pixels, query, hits, part, pruner):
    pruned = HF(str(tiny_llava_folder), pruner=pruner)
    text = "" if part == Rollout() else ANSWER
    prompt = pruned._shared(pixels[:1], query, hits, text) if text else pruned.write([pixels[:1]], [query], [hits])
    first, last = prompt.spans[0].image[0]
    with torch.no_grad(), pruning(pruned.network, pruned.pruners, prompt.spans) as kept:
        pruned.network(**prompt.inputs)
    left = {first + int(i) for i in kept.images(2)[0][0]}
    gone = set(range(first, last)) - left
    heat = part(pruned, pixels[:1], query, hits, text)
    assert not torch.allclose(heat, part(plain, pixels[:1], query, hits, text), atol=1e-4)
    if pruner == UniformGrid(2):  # as if nobody saw those that are gone
        assert len(left) == 2
        with eager(plain.network):
            hidden = seen(plain, prompt, gone, output_attentions=True)
        logits = hidden.logits[0].double().tolist()
        if isinstance(part, Rollout):
            wanted = rolled([a[0] for a in hidden.attentions])[-1, first:last].reshape(4, 4)
        else:
            maps = lit(logits, prompt, left)
            wanted = tam(logits, prompt, left) if text and part == TAM() else msea(logits, maps, prompt).reshape(4, 4)
        torch.testing.assert_close(heat, wanted.to(heat), atol=1e-4, rtol=1e-3)
    elif isinstance(part, Rollout):
        assert (heat > 0).all()  # the first layer saw them all
    else:
        assert len(left) == 5
        raw = TAM(smooth=False)(pruned, pixels[:1], query, hits, ANSWER).flatten() if part == TAM() else heat.flatten()
        assert (raw[[v - first for v in gone]] == 0).all()


def rolled(attentions):
    product = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    for attention in attentions:
        product = (attention.double().mean(0) + torch.eye(len(product))) / 2 @ product
    return product


@contextmanager
def eager(network):
    try:
        network.set_attn_implementation("eager")
        yield
    finally:
        network.set_attn_implementation("sdpa")


STEERED = ((DropLayers(0),), (DropHeads(),), (PositionScaling(first=0),), (DebiasedAttention(),))


@pytest.mark.parametrize("parts", STEERED, ids=repr)
def test_a_map_is_that_of_the_steered_model(tiny_llava_folder, plain, pixels, query, hits, parts):
    steered = HF(str(tiny_llava_folder), interventions=parts)
    prompt = steered._shared(pixels[:1], query, hits, ANSWER)
    left = range(*prompt.spans[0].image[0])
    with torch.no_grad(), intervening(steered.network, parts, prompt.spans, steered._calibrate([pixels[:1]], [query])):
        logits = steered.network(**prompt.inputs).logits[0].double().tolist()
    found = TAM()(steered, pixels[:1], query, hits, ANSWER)
    torch.testing.assert_close(found, tam(logits, prompt, left), atol=1e-4, rtol=1e-3)
    found = MSEA(sizes=(1.0,))(steered, pixels[:1], query, hits, ANSWER).flatten()
    torch.testing.assert_close(found, msea(logits, lit(logits, prompt, left), prompt), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(
        TAM()(plain, pixels[:1], query, hits, ANSWER), TAM()(steered, pixels[:1], query, hits, ANSWER)
    )
    heat = Rollout()(steered, pixels[:1], query, hits, "")
    assert not torch.allclose(heat, Rollout()(plain, pixels[:1], query, hits, ""), rtol=1e-3)
    if parts == (DropLayers(0),):
        assert (heat == 0).all()  # no text sees the image


def test_rollout_is_of_the_image_and_not_of_what_it_is_contrasted_with(tiny_llava_folder, plain, pixels, query, hits):
    contrasted = HF(str(tiny_llava_folder), interventions=(VisualContrast(),))
    found, wanted = (Rollout()(one, pixels[:1], query, hits, "") for one in (contrasted, plain))
    torch.testing.assert_close(found, wanted)


def test_no_token_left_is_no_map_but_for_rollout(tiny_llava_folder, pixels, query, hits):
    blind = HF(str(tiny_llava_folder), pruner=SEATS(4))
    for part in (TAM(), MSEA()):
        with pytest.raises(SpecError, match=r"SEATS.*no visual token.*Rollout or EAGLE"):
            part(blind, pixels[:1], query, hits, ANSWER)
    heat = Rollout()(blind, pixels[:1], query, hits, "")
    assert 0 < (heat > 0).sum() < 16


@pytest.mark.parametrize("name", ["smolvlm", "idefics3", "llava_next", "llava_onevision", "internvl"])
@pytest.mark.parametrize("part", [TAM(), MSEA(), Rollout()], ids=repr)
def test_several_views_of_an_image_are_no_grid(families, query, name, part):
    wide = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SpecError, match=r"visual tokens in . runs, of . views.*EAGLE"):
        part(HF(families[name]), wide, query, (), ANSWER)
    assert EAGLE(side=2)(HF(families[name]), wide, query, (), "x").shape == (2, 2)


@pytest.mark.parametrize("part", [TAM(), MSEA(), Rollout()], ids=repr)
def test_a_map_has_the_grid_that_the_processor_names(families, tiny_qwen2vl_folder, query, part):
    wide = torch.rand(1, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    for folder in (families["qwen2_5_vl"], str(tiny_qwen2vl_folder)):
        assert part(HF(folder), wide, query, (), ANSWER).shape == (2, 8)  # 16 tokens, no square of 4
    assert part(HF(families["internvl"]), torch.rand(1, 3, 32, 32), query, (), ANSWER).shape == (4, 4)  # one view
    assert part(HF(families["paligemma"]), torch.rand(1, 3, 32, 32), query, (), ANSWER).shape == (4, 4)


def test_the_study_finds_what_is_planted_and_goes_on_where_it_stopped(tiny_llava_folder, tmp_path):
    study = execute(locate("pruning").with_name("explanations.py"))
    rows = [
        {"tile": f"t{i}", "maps": {name: {"side": 4, "seconds": 1.0, "inserted": a + i / 99, "deleted": b - i / 99}
                                   for name, a, b in (("lot 4", 0.5, 0.5), ("True", 0.9, 0.1), ("Same", 0.5, 0.5))}}
        for i in range(9)
    ]  # fmt: skip
    lines = {line.split("|")[1].strip(): line for line in study.table(rows).splitlines()}
    assert "insertion better, deletion better" in lines["`True`"]
    assert "+40.0 [" in lines["`True`"]
    assert "not told apart" in lines["`Same`"]
    assert list(lines)[-1] == "by lot"
    generator, questions = HF(str(tiny_llava_folder), max_new_tokens=2), study.asked(Atlas(sites=3, weather="clear"))
    assert len({q.tile for q in questions}) == len(questions) == 3
    study.LEAST = -1  # a random model needs no image
    first = list(study.records(tmp_path, generator, questions[:1]))
    assert list(study.records(tmp_path, None, questions[:1])) == first  # from the file
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"sample": "cut off')  # a process that died
    assert list(study.records(tmp_path, None, questions[:1])) == first
    assert set(first[0]["maps"]) == {"EAGLE", "MSEA", "Rollout", "TAM", "lot 4"}
    study.LEAST = 2
    assert next(iter(study.records(tmp_path, generator, questions[1:])))["maps"] is None
