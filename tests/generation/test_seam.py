"""The seam beyond the last row: other places, all rows, autocast, gradients, pieces, and what is left behind."""

import math
from dataclasses import dataclass, replace
from unittest.mock import Mock

import pytest
import torch

from morgana.generation import _parts, _redoing, _rows, attention
from morgana.generation._drawn import Drawn
from morgana.generation._products import corner
from morgana.generation._sparing import beginning, needed
from morgana.generation.attention import intervening
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.generation.interventions.cmai import CMAI
from morgana.generation.interventions.contrastive import VisualContrast
from morgana.generation.interventions.dropping import DropHeads, DropLayers
from morgana.generation.interventions.gift import GIFT
from morgana.generation.interventions.image_masks import NAAViT
from morgana.generation.interventions.position_scaling import PositionScaling
from morgana.generation.interventions.var import VAR
from morgana.generation.interventions.wrappers import InHeads, InLayers, Scaled
from morgana.generation.needs import Layers, Needs, after_image, answering, every
from morgana.generation.prompts import Spans
from morgana.generation.visual import Probe
from morgana.types import Document, Hit, Query, SpecError

ROWS = (
    VAR(tau=1.5, mass=0.0, rho=0.9, first=0, stop=None),
    GIFT(source=0, first=1, stop=None),
    CMAI(),
    DropHeads(),
    NAAViT(),
    PositionScaling(first=0),
    VisualContrast(beta=0.0),
)


@dataclass(frozen=True)
class Edit:
    """Any edit at any place."""

    change: object
    asks: Needs

    @property
    def needs(self):
        return self.asks

    def edit(self, x, view):
        return self.change(x, view)


def fail(x, view):
    raise RuntimeError("no")


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], pixels[1:], None], [query, Query("b", "1987?"), query], [hits, hits[:1], ()]


def passed(generator, prompt, parts=(), **more):
    with torch.no_grad(), intervening(generator.network, parts, prompt.spans):
        return generator.network(**prompt.inputs, use_cache=False, **more).logits


@pytest.mark.parametrize("part", ROWS, ids=repr)
def test_the_gradient_through_edited_rows_is_the_slope(request, folder, pixels, query, hits, part):
    """In float64, and so near that no choice of tokens changes: CMAI's jumps between 1e-4 and 1e-3 from here."""
    generator, step = HF(folder, interventions=(part,)), 1e-4
    request.addfinalizer(generator.network.float)  # the network is shared
    generator.network.double()
    start = pixels[:1].double().requires_grad_()
    generator.loss(start, query, hits, "Bluewater").sum().backward()
    size = start.grad.norm()
    with torch.no_grad():
        ends = [generator.loss(start + s * start.grad / size, query, hits, "Bluewater") for s in (step, -step)]
    assert start.grad.isfinite().all()
    assert (start.grad != 0).float().mean() > 0.9
    torch.testing.assert_close((ends[0] - ends[1])[0] / (2 * step), size, rtol=2e-3, atol=0)


def test_a_ragged_batch_has_finite_gradients(generator, pixels, query, hits):
    prompt = generator.write([pixels[:1].clone().requires_grad_(), pixels[1:]], [query, Query("b", "?")], [hits, ()])
    with intervening(generator.network, (CMAI(), NAAViT()), prompt.spans):
        made = generator.network(**prompt.inputs, use_cache=False, logits_to_keep=1).logits
    (grad,) = torch.autograd.grad(made.square().sum(), prompt.inputs["pixel_values"])
    assert grad.isfinite().all()
    assert (grad != 0).any()


@pytest.mark.parametrize("part", [*ROWS, BAIR(0.0, 1.0)], ids=repr)
def test_autocast_changes_the_precision_and_nothing_else(folder, batch, part):
    generator = HF(folder)
    prompt = generator.write(*batch)
    rest = Edit(lambda x, view: x.clone(), Needs(rows=every, at=part.needs.at))
    exact = passed(generator, prompt, (part,))
    with torch.autocast("cpu", torch.bfloat16):
        plain = passed(generator, prompt)
        rough = passed(generator, prompt, (part,))
        same = passed(generator, prompt, (rest,))
    assert torch.equal(same[:, -1], plain[:, -1])
    assert rough.isfinite().all()
    assert not torch.equal(rough[:, -1], plain[:, -1])
    near, far = ((x[:2, -1] - exact[:2, -1]).norm() for x in (rough, plain))
    assert near < 2 * far + 1


@pytest.mark.parametrize("part", ROWS[:5], ids=repr)
def test_rows_in_pieces_are_the_rows_at_once(generator, batch, part, monkeypatch):
    prompt = generator.write(*batch)
    whole = passed(generator, prompt, (part,))
    monkeypatch.setattr(_rows, "PIECE", {"cuda": 0, "cpu": 0})
    monkeypatch.setattr(_rows, "FEWEST", 3)
    monkeypatch.setattr(_rows, "QUICK", 0)
    cut = passed(generator, prompt, (part,))
    for i, spans in enumerate(prompt.spans):
        torch.testing.assert_close(cut[i, spans.start :], whole[i, spans.start :], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("part", [VAR(tau=1.5, mass=0.0, rho=0.9, first=0, stop=None), DropHeads()], ids=repr)
def test_attention_part_by_part_is_attention_with_edited_weights(folder, pixels, query, hits, part, monkeypatch):
    """One prompt, and two of one length; the rows that attend to nothing of a part are in the test below."""
    generator = HF(folder)
    request = [Query("a", query.text), Query("b", query.text)]
    for images, queries in ((pixels[:1], request[:1]), (pixels[:2], request)):
        prompt = generator.write(list(images.split(1)), queries, [hits] * len(queries))
        flash = Mock(wraps=_parts.FLASH)
        monkeypatch.setattr(_parts, "FLASH", flash)
        fast = passed(generator, prompt, (part,))
        monkeypatch.setattr(_redoing, "FLASH", None)
        slow = passed(generator, prompt, (part,))
        monkeypatch.undo()
        assert flash.called
        torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)
        assert not torch.allclose(fast[:, -1], passed(generator, prompt)[:, -1], atol=1e-3)


@pytest.mark.parametrize("part", [VAR(tau=1.5, mass=0.0, rho=0.9, first=0, stop=None), DropHeads()], ids=repr)
def test_attention_part_by_part_works_under_autocast(generator, pixels, query, hits, part, monkeypatch):
    """Values are in bfloat16 there, queries and keys in float32."""
    prompt, flash = generator.write([pixels[:1]], [query], [hits]), Mock(wraps=_parts.FLASH)
    exact = passed(generator, prompt, (part,))
    monkeypatch.setattr(_parts, "FLASH", flash)
    with torch.autocast("cpu", torch.bfloat16):
        plain, rough = passed(generator, prompt), passed(generator, prompt, (part,))
    assert flash.called
    near, far = ((x[:, -1] - exact[:, -1]).norm() for x in (rough, plain))
    assert near < far


def test_parts_alone_are_attention_to_these_keys_alone():
    """Against plain softmaxes in float64: parts before, among and behind the rows, an empty one, shared keys' heads."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, h, n, 8, dtype=torch.float64, generator=draw) for h, n in ((4, 20), (2, 30), (2, 30))
    )
    kind = torch.randint(0, 3, (2, 30), generator=draw)
    kind[:, 25:] = 3  # only the last rows see these
    parts = torch.stack([kind == p for p in range(5)], 1)[:, None]
    rows, shares = _parts.Parted(key, value, parts, 4).split(query, 10, 0.3)
    scores = 0.3 * query @ key.repeat_interleave(2, 1).transpose(2, 3)
    scores = scores.masked_fill(torch.arange(30) > torch.arange(10, 30)[:, None], -torch.inf)
    weights = scores.softmax(-1)
    for p in range(5):
        mine = weights * parts[:, :, p][:, :, None]
        torch.testing.assert_close(shares[..., p], mine.sum(-1), atol=1e-12, rtol=0)
        alone = mine / mine.sum(-1, keepdim=True).clamp(min=1e-30)
        torch.testing.assert_close(rows[p], alone @ value.repeat_interleave(2, 1), atol=1e-12, rtol=0)


def written_over(x, view, seen):
    """Head 0 looks at its second key as much as it did at its third, and the other way round."""
    seen.append(view.spent)
    made = x.detach() if view.spent else x.clone()
    made[:, 0, :, [1, 2]] = made[:, 0, :, [2, 1]]
    return made


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_may_be_written_over_where_the_seam_is_done_with_them(generator, pixels, query, hits, wrapped):
    prompt, spent, kept = generator.write([pixels[:1]], [query], [hits]), [], []
    asks = Needs(rows=every, at="weights")
    part = Edit(lambda x, view: written_over(x, view, spent), asks)
    over = passed(generator, prompt, (Scaled(part, 1.0) if wrapped else part,))
    both = (Edit(lambda x, view: written_over(x, view, kept), asks), Edit(lambda x, view: x, asks))
    assert torch.equal(over, passed(generator, prompt, both))
    assert not torch.equal(over, passed(generator, prompt))
    assert spent == [not wrapped] * len(spent)
    assert kept == [False] * len(spent)


def test_shares_are_never_written_over(generator, pixels, query, hits):
    prompt, seen = generator.write([pixels[:1]], [query], [hits]), []

    def parts(view):
        image = view.layout.visual.among(view.keys)
        return torch.cat([image, ~image], 2)

    def more(x, view):
        seen.append(view.spent)
        return x

    passed(generator, prompt, (Edit(more, Needs(at="shares", parts=parts)),))
    assert seen == [False] * 3


@pytest.mark.parametrize("at_first", [torch.inference_mode, torch.no_grad])
def test_decoding_goes_on_from_a_long_prefill(generator, pixels, query, at_first):
    """Rows that plain attention did not serve, and gazes that were made in inference mode, are there for the answer."""
    prompt = generator.write([pixels[:1]], [query], [(Hit(Document("d", "harbour " * 1200), 0.5),)])
    part, length = CMAI(), prompt.spans[0].length
    with intervening(generator.network, (part,), prompt.spans):
        with at_first():
            first = generator.network(**prompt.inputs, use_cache=True, logits_to_keep=1)
        with torch.no_grad():
            said = first.logits.argmax(-1)
            cached = generator.network(input_ids=said, past_key_values=first.past_key_values, use_cache=True)
    ids = torch.cat([prompt.inputs["input_ids"], said], 1)
    more = {k: torch.cat([v, v[:, -1:]], 1) for k, v in prompt.inputs.items() if v.shape == (1, length)}
    spans = (replace(prompt.spans[0], length=length + 1),)
    with torch.no_grad(), intervening(generator.network, (part,), spans):
        whole = generator.network(**{**prompt.inputs, **more, "input_ids": ids}, use_cache=False, logits_to_keep=1)
    torch.testing.assert_close(cached.logits, whole.logits, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("hidden", [-1.0, float("-inf")])
def test_a_mask_that_is_kept_takes_the_room_of_a_row_and_is_the_same(hidden):
    own = corner(5, torch.device("cpu"))
    plain = torch.nn.functional.pad(own, (20, 0)).expand(2, 1, 5, 25)
    alike, ragged = plain.clone(), plain.clone()
    alike[..., 3:9], ragged[0, 0, 2, 4] = hidden, hidden
    for mask, room in ((alike, 2 * 20), (ragged, 2 * 5 * 25)):
        packed = Drawn(mask, (mask != plain).any(-1), slice(25)).packed()
        assert packed.shown.numel() == room
        assert packed.shown.untyped_storage().nbytes() == room * (1 if math.isinf(hidden) else 4)
        assert torch.equal(packed.mask, mask == 0 if math.isinf(hidden) else mask)
    few = Drawn(alike[..., :3], alike[..., 0] != 0, slice(3))
    assert torch.equal(few.packed().mask, few.shown == 0)


@pytest.mark.parametrize("count", [769, 1000, 1300])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_the_first_rows_have_the_bits_of_a_whole_pass(count, kind):
    draw = torch.Generator().manual_seed(0)
    states = tuple(torch.randn(2, count, 4, 64, generator=draw).to(kind).transpose(1, 2) for _ in range(3))
    whole = torch.nn.functional.scaled_dot_product_attention(*states, is_causal=True)
    first = torch.nn.functional.scaled_dot_product_attention(*beginning(states, 768), is_causal=True)
    assert torch.equal(first, whole[:, :, :768])


REPLACING = (CMAI(), DropLayers(0), DropHeads(), VAR(tau=1.5, mass=0.0, rho=1.0, first=0, stop=None))


@pytest.mark.parametrize("part", [*REPLACING, *(InHeads(part, (1,)) for part in REPLACING)], ids=repr)
def test_rows_that_are_replaced_need_no_plain_attention(generator, pixels, query, part, monkeypatch):
    """The same bits, whether plain attention serves them first, not at all, or late since some stay as they were."""
    prompt = generator.write([pixels[:1]], [query], [(Hit(Document("d", "harbour " * 1200), 0.5),)])
    length, counts = prompt.spans[0].length, []
    monkeypatch.setattr(attention, "needed", lambda *args: counts.append(needed(*args)) or counts[-1])
    made = passed(generator, prompt, (part,), logits_to_keep=0)
    assert length > 1024
    late = isinstance(part, InHeads) and "VAR" not in repr(part)  # VAR edits head 1 of every row here
    assert counts == ([768, length, length] if late else [768] * 3)
    monkeypatch.setattr(attention, "needed", lambda *args: length)
    assert torch.equal(made, passed(generator, prompt, (part,), logits_to_keep=0))


def test_rows_of_which_no_share_moves_keep_their_bits(generator, pixels, query, hits):
    """Odd rows give half of what the image has in head 0 to the rest."""
    prompt = generator.write([pixels[:1]], [query], [hits])

    def halved(x, view):
        made = x.clone()
        moved = x[:, 0, :, 0] * (view.rows % 2) / 2
        made[:, 0, :, 0] -= moved
        made[:, 0, :, 1] += moved
        return made

    def parts(view):
        seen = view.layout.visual.among(view.keys)
        return torch.cat([seen, ~seen], 2)

    asks = Needs(rows=after_image, at="shares", parts=parts, layers=Layers(-1))
    plain = passed(generator, prompt, logits_to_keep=0)
    made = passed(generator, prompt, (Edit(halved, asks),), logits_to_keep=0)
    odd = [i for i in after_image(prompt.spans[0]) if i % 2]
    even = [i for i in range(prompt.spans[0].length) if i not in odd]
    assert torch.equal(made[:, even], plain[:, even])
    assert (made[:, odd] != plain[:, odd]).any(-1).all()
    same = passed(generator, prompt, (Edit(lambda x, view: x * torch.ones(()), asks),), logits_to_keep=0)
    assert torch.equal(same, plain)


def test_a_layer_without_parts_to_edit_costs_nothing(generator, pixels, query, hits, monkeypatch):
    """Nobody is a sink at 1,000 times the mean; and where all visual tokens are sinks, none of them can get."""
    prompt, flash = generator.write([pixels[:1]], [query], [hits]), Mock(wraps=_parts.FLASH)
    monkeypatch.setattr(_parts, "FLASH", flash)
    monkeypatch.setattr(_redoing, "scores", Mock(side_effect=RuntimeError))
    plain = passed(generator, prompt, logits_to_keep=0)
    for tau in (1000.0, 0.0):
        part = VAR(tau=tau, mass=0.0, rho=1.0, first=0, stop=None)
        assert torch.equal(passed(generator, prompt, (part,), logits_to_keep=0), plain)
        monkeypatch.setattr(_redoing, "FLASH", None)
        assert torch.equal(passed(generator, prompt, (part,), logits_to_keep=0), plain)
        monkeypatch.setattr(_redoing, "FLASH", flash)
    assert not flash.called


def test_gazes_are_kept_for_the_answer_and_no_longer(generator, pixels, query, hits):
    prompt, memories = generator.write([pixels[:1]], [query], [hits]), []

    def watched(x, view):
        memories.append(view.memory)
        return CMAI().edit(x, view)

    part = Edit(watched, CMAI().needs)
    passed(generator, prompt, (part,))
    assert memories[-1] == {}
    with torch.no_grad(), intervening(generator.network, (part,), prompt.spans):
        generator.network(**prompt.inputs, use_cache=True)
    assert list(memories[-1]) == [0, 1, 2]


def test_pieces_are_alike_in_size():
    spans = Spans(0, 1000, 1000, ((5, 581),), (), (980, 990))
    rows = _rows.Rows.of([after_image], attention.Layout((spans,), torch.device("cpu")), 0, 1000)
    assert [piece.index.shape[1] for piece in rows.pieces(8, 1000)] == [140, 140, 139]
    assert [piece.index.shape[1] for piece in rows.pieces(32, 1000)] == [84, 84, 84, 84, 83]
    assert [tuple(piece.index[0, [0, -1]].tolist()) for piece in rows.runs] == [(581, 999)]


@pytest.mark.parametrize("at", ["scores", "weights", "mask", "states", "positions", "logits"])
def test_nothing_is_left_behind_after_an_exception_at_any_place(generator, batch, at):
    network, prompt = generator.network, generator.write(*batch)
    plain = passed(generator, prompt)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    with pytest.raises(RuntimeError, match="no"):
        passed(generator, prompt, (Edit(fail, Needs(rows=every, at=at, hidden=True)),))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    assert "get_image_features" not in vars(network.base_model)
    assert torch.equal(passed(generator, prompt), plain)


def test_decode_rows_are_asked_one_by_one_and_memory_lasts_as_long_as_the_answer(generator, batch):
    prompt, seen = generator.write(*batch), []

    def watch(x, view):
        view.memory["steps"] = view.memory.get("steps", 0) + 1
        seen.append((view.layer, view.rows[0].tolist(), view.memory["steps"], tuple(x.shape[2:])))
        return x

    part = Edit(watch, Needs(rows=answering, layers=Layers(-1)))
    with torch.no_grad(), intervening(generator.network, (part,), prompt.spans):
        for _ in range(2):
            generator.network.generate(**prompt.inputs, generation_config=generator._greedy)
    length = prompt.spans[0].length
    once = [(2, [length - 1 + i], i + 1, (1, length + i)) for i in range(5)]
    assert seen[: len(seen) // 2] == once[: len(seen) // 2]
    assert seen[len(seen) // 2 :] == seen[: len(seen) // 2], "a new prompt begins with an empty memory"


def test_hidden_states_are_what_the_layer_was_given(generator, batch):
    prompt, heard = generator.write(*batch), {}

    def hear(x, view):
        heard[view.layer] = view.hidden
        return x

    passed(generator, prompt, (Edit(hear, Needs(hidden=True, layers=Layers(1))),))
    with torch.no_grad():
        shown = generator.network(**prompt.inputs, output_hidden_states=True).hidden_states
    assert sorted(heard) == [1, 2]
    for layer, states in heard.items():
        torch.testing.assert_close(states[:, -1], shown[layer][:, -1])


def test_positions_moved_back_are_where_they_were_and_a_uniform_shift_of_none(generator, batch):
    """Rotary attention sees differences: the same shift for all tokens changes nothing but rounding."""
    prompt = generator.write(*batch)
    plain = passed(generator, prompt)
    scaled = passed(generator, prompt, (PositionScaling(2.0, 2.0, first=0),))
    halved = Edit(lambda x, view: x * 0.5, Needs(rows=every, at="positions"))
    torch.testing.assert_close(scaled[:, -1], passed(generator, prompt, (halved,))[:, -1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scaled[:, -1], plain[:, -1], atol=1e-2)


def test_scaled_positions_are_those_of_a_model_that_is_given_them(tiny_llava_folder, pixels, query, hits):
    generator = HF(str(tiny_llava_folder))
    prompt = generator.write([pixels[:1]], [query], [hits])
    position = torch.arange(prompt.spans[0].length)[None] / 1.6
    with torch.no_grad():
        wanted = generator.network(**prompt.inputs, position_ids=position, use_cache=False).logits
    torch.testing.assert_close(
        passed(generator, prompt, (PositionScaling(1.6, 1.6, first=0),)), wanted, atol=2e-4, rtol=1e-4
    )


def test_masks_are_settled_before_scores_and_these_before_weights_whatever_the_order(generator, batch):
    prompt, half = generator.write(*batch), Edit(lambda x, view: x / 2, Needs(rows=every))
    parts = (DropLayers(1), half, VAR_)
    one, two = (passed(generator, prompt, order) for order in (parts, parts[::-1]))
    assert torch.equal(one, two)
    assert not torch.equal(one, passed(generator, prompt, parts[:2]))
    assert not torch.equal(one, passed(generator, prompt, parts[1:]))


def test_weights_are_the_softmax_of_the_scores_as_far_as_the_rows_see(generator, batch):
    prompt, seen = generator.write(*batch), {}

    def watch(x, view):
        seen[view.rows[:, -1].tolist()[0], view.layer] = x.clone()
        return x

    def soften(x, view):
        wide = seen[view.rows[:, -1].tolist()[0], view.layer]
        torch.testing.assert_close(x, wide.softmax(-1)[..., : x.shape[-1]])
        assert (wide[..., x.shape[-1] :].isneginf()).all()
        assert x.shape[-1] >= view.layout.visual.stop
        return x

    passed(generator, prompt, (Edit(watch, Needs(rows=after_image)),))
    passed(generator, prompt, (Edit(soften, Needs(rows=after_image, at="weights")),))
    assert seen


VAR_ = VAR(tau=1.5, mass=0.0, rho=0.9, first=0, stop=None)


def test_layers_that_nobody_asks_for_are_not_touched(generator, batch):
    prompt, seen = generator.write(*batch), set()

    def watch(x, view):
        seen.add(view.layer)
        return x

    passed(generator, prompt, (InLayers(Edit(watch, Needs()), 0.4, -1),))
    assert seen == {1}
    with pytest.raises(SpecError, match="layers 7 to None are none of 3"):
        passed(generator, prompt, (InLayers(BAIR(), 7),))


def test_a_whole_calibration_wants_the_prompt(folder, batch):
    from morgana.generation.interventions.aif import AIF

    with pytest.raises(SpecError, match="whole prompt"):
        HF(folder, interventions=(AIF(),))._calibrate(*batch[:2])
    generator = HF(folder)
    with pytest.raises(SpecError, match="AIF needs a pass"):
        passed(generator, generator.write(*batch), (AIF(),))


def test_steering_vectors_are_made_from_a_generator_and_used(folder, pixels, query, hits, tmp_path):
    from morgana.generation.interventions.flexac import FlexAC, steering_vectors

    path = tmp_path / "vectors.safetensors"
    made = steering_vectors(HF(folder), [pixels[:1], pixels[1:]], [query, query], [hits, ()], path)
    assert made.shape == (3, 32)
    assert (made.norm(dim=1) > 0).all()
    part = FlexAC(str(path), -0.5, 0, None)
    view_rows = HF(folder, interventions=(part,)).prefill([pixels[:1]], [query], [hits])
    assert not torch.equal(view_rows, HF(folder).prefill([pixels[:1]], [query], [hits]))
    with pytest.raises(Exception, match="no steering vectors"):
        HF(folder, interventions=(FlexAC("absent", 0.5, 0),)).prefill([pixels[:1]], [query], [hits])


@pytest.fixture(scope="module")
def windowed():
    """A model whose first layer sees six tokens back, and whose second sees all."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
    window = {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
    text = Qwen2Config(**sizes, **window, num_key_value_heads=1, vocab_size=50)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    return LlavaForConditionalGeneration(config).eval().requires_grad_(False)


def through(model, ids, padding, parts, reference=None):
    spans = tuple(Spans(pad, 16, 16, ((pad + 1, pad + 5),), (), (14, 15)) for pad in padding)
    seen = torch.tensor([[column >= pad for column in range(16)] for pad in padding]).long()
    for row, pad in zip(ids, padding, strict=True):
        row[pad + 1 : pad + 5] = 3
    pixels = torch.zeros(len(ids), 3, 8, 8)
    with torch.no_grad(), intervening(model, parts, spans, reference):
        return model(input_ids=ids, attention_mask=seen, pixel_values=pixels, use_cache=False).logits


@pytest.mark.parametrize("padding", [(0, 0), (0, 3)])
def test_every_layer_keeps_its_own_window(windowed, padding):
    ids = torch.randint(4, 50, (2, 16), generator=torch.Generator().manual_seed(0))
    probe = Probe()
    plain = through(windowed, ids.clone(), padding, ())
    assert torch.equal(through(windowed, ids.clone(), padding, (probe,)), plain)
    for row, pad in enumerate(padding):
        near, far = probe.scores[0][row, :, 0], probe.scores[1][row, :, 0]
        assert near[:, :10].isneginf().all()
        assert near[:, 10:].isfinite().all()
        assert torch.equal(far.isneginf(), (torch.arange(16) < pad).expand_as(far))
    made = through(windowed, ids.clone(), padding, (BAIR(1.0, 1.0),), probe.reference())
    assert made.isfinite().all()
    assert torch.equal(made[:, :-1], plain[:, :-1])
    assert not torch.equal(made[:, -1], plain[:, -1])


def test_two_passes_of_one_block_have_their_own_masks(windowed):
    ids = torch.randint(4, 50, (1, 16), generator=torch.Generator().manual_seed(0))
    ids[:, 5:9] = 3
    spans, pixels, probe = (Spans(4, 16, 16, ((5, 9),), (), (14, 15)),), torch.zeros(1, 3, 8, 8), Probe()
    hidden = []
    with torch.no_grad(), intervening(windowed, (probe,), spans):
        for pad in (4, 2):
            seen = (torch.arange(16) >= pad).long()[None]
            windowed(input_ids=ids, attention_mask=seen, pixel_values=pixels, use_cache=False)
            hidden.append(int(probe.scores[1][0, 0, 0].isneginf().sum()))
    assert hidden == [4, 2]


@pytest.mark.parametrize("opened", [None, 3])
def test_a_steady_mask_is_asked_for_once_in_each_pass_and_gives_the_same(folder, batch, opened):
    """`opened` shows every row the key of a token behind it: the keys that are seen have a gap."""

    def change(x, view):
        asked.append(view.layer)
        hidden = x.masked_fill(torch.arange(x.shape[-1]) % 4 == 1, -torch.inf)
        return torch.where(torch.arange(x.shape[-1]) == x.shape[-1] - opened, 0.0, hidden) if opened else hidden

    generator, asked = HF(folder), []
    prompt, depth = generator.write(*batch), generator.network.config.get_text_config().num_hidden_layers
    with torch.no_grad(), intervening(generator.network, (Edit(change, Needs(every, at="mask")),), prompt.spans):
        each = generator.network(**prompt.inputs, use_cache=False).logits
    assert asked == list(range(depth))
    asked.clear()
    steady = Edit(change, Needs(every, at="mask", steady=True))
    with torch.no_grad(), intervening(generator.network, (steady,), prompt.spans):
        for _ in range(2):
            assert torch.equal(generator.network(**prompt.inputs, use_cache=False).logits, each)
    assert asked == [0, 0]
    assert not torch.equal(passed(generator, prompt), each)


def test_scores_are_called_clear_where_they_hold_no_hidden_token(folder, batch, query, hits):
    told = []

    def note(scores, view):
        told.append((view.clear, bool(scores.isneginf().any())))
        return scores

    def blind(scores, view):
        return scores.masked_fill(torch.arange(scores.shape[-1]) == 7, -torch.inf)

    generator, last_rows, some_rows = HF(folder), Needs(), Needs(rows=every)
    alone = generator.write(batch[0][:1], [query], [hits])
    passed(generator, alone, (Edit(note, last_rows),))
    assert set(told) == {(True, False)}
    for prompt, parts in (
        (alone, (Edit(blind, last_rows), Edit(note, last_rows))),
        (alone, (Edit(blind, Needs(at="mask")), Edit(note, last_rows))),
        (alone, (Edit(note, some_rows),)),
        (generator.write(*batch), (Edit(note, last_rows),)),
    ):
        told.clear()
        passed(generator, prompt, parts)
        assert set(told) == {(False, True)}


@pytest.mark.parametrize(
    ("change", "needs", "came"),
    [
        (
            lambda x, view: x[:, :, :1],
            Needs(rows=every),
            r"scores of shape \(3, 4, \d+, \d+\) and gave back \(3, 4, 1, ",
        ),
        (lambda x, view: x[:, :, :1], Needs(rows=every, at="weights"), "given weights of shape"),
        (lambda x, view: x[..., :1], Needs(rows=every, at="mask"), "given mask of shape"),
        (lambda x, view: x[..., :3], Needs(at="logits"), "given logits of shape"),
        (lambda x, view: None, Needs(at="states"), "gave back NoneType"),
        (lambda x, view: x.tolist(), Needs(rows=every, at="positions"), "gave back list"),
    ],
)
def test_what_comes_back_in_another_shape_is_refused(folder, batch, change, needs, came):
    generator = HF(folder)
    with pytest.raises(SpecError, match=came):
        passed(generator, generator.write(*batch), (Edit(change, needs),))


@pytest.mark.parametrize("rows", [range(3, 9, 2), [3, 4], 7])
def test_rows_that_are_no_run_are_refused(folder, batch, rows):
    generator = HF(folder)
    with pytest.raises(SpecError, match="give a range without a step"):
        passed(generator, generator.write(*batch), (Edit(lambda x, view: x, Needs(rows=lambda spans: rows)),))


@pytest.mark.parametrize(
    "wrong",
    [{"start": 9, "stop": 4}, {"stop": 41}, {"question": (36, 44)}, {"question": (38, 30)}, {"documents": ((12, 22),)}],
)
def test_spans_of_no_prompt_are_refused(wrong):
    fine = Spans(0, 40, 40, ((5, 15),), ((16, 20),), (30, 38))
    with pytest.raises(SpecError, match="are the spans of no prompt"):
        replace(fine, **wrong)
    with pytest.raises(SpecError, match="are the spans of no prompt"):
        replace(fine, image=((15, 5),))


def test_no_spans_at_all_are_refused(folder):
    with pytest.raises(SpecError, match="no spans"), intervening(HF(folder).network, (Probe(),), ()):
        pass


def test_contrast_follows_a_loop_of_ones_own(folder, pixels, query, hits):
    generator = HF(folder, max_new_tokens=3, interventions=(VisualContrast(beta=0.0),))
    prompt = generator.write([pixels[:1]], [query], [hits])
    length = prompt.spans[0].length
    with torch.no_grad():
        with intervening(generator.network, generator.interventions, prompt.spans):
            made = generator.network.generate(
                **prompt.inputs,
                generation_config=generator._greedy,
                suppress_tokens=generator.processor.tokenizer.all_special_ids,
                output_logits=True,
                return_dict_in_generate=True,
            )
        with intervening(generator.network, generator.interventions, prompt.spans):
            step = generator.network(**prompt.inputs, use_cache=True)
            for place, wanted in enumerate(made.logits):
                torch.testing.assert_close(step.logits[:, -1], wanted, atol=5e-4, rtol=1e-4)
                new, cache = made.sequences[:, length + place : length + place + 1], step.past_key_values
                step = generator.network(input_ids=new, past_key_values=cache, use_cache=True)
