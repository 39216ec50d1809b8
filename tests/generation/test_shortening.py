from dataclasses import replace

import pytest
import torch
from fakes import Kept

from morgana.generation.attention import intervening
from morgana.generation.cost import cache_bytes, prefill_cost
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.generation.prompts import image_token
from morgana.generation.pruner import BEFORE, Stage, top
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.random_tokens import RandomTokens
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import moved, pruning
from morgana.spec import parse
from morgana.types import Query, SpecError


class Broken(Kept):
    def choose(self, sight, count):
        raise RuntimeError("no")


def fixed(index, layer=0):
    return Kept(tuple(index), layer, len(index))


FAMILY = [fixed((0, 3, 9)), fixed((1, 2, 15), 2), (RandomTokens(9), fixed((2, 4), 1), fixed((0,), 2))]


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], pixels[1:], None], [query, Query("b", "1987?"), query], [hits, hits[:1], ()]


def passed(generator, prompt, pruner, parts=(), **changed):
    pruners = pruner if isinstance(pruner, tuple) else (pruner,)
    with (
        torch.no_grad(),
        pruning(generator.network, pruners, prompt.spans) as kept,
        intervening(generator.network, parts, prompt.spans),
    ):
        return generator.network(**{**prompt.inputs, **changed}), kept


def test_the_name_of_a_pruned_generator_builds_it_again():
    part = HF("x", pruner=(FasterVLM(0.5), FastV(16, layer=3)))
    assert repr(part) == "HF('x', pruner=(FasterVLM(keep=0.5), FastV(keep=16, layer=3)))"
    assert parse(repr(part)) == part
    assert parse("HF('x', pruner=UniformGrid)") == HF("x", pruner=UniformGrid())
    with pytest.raises(SpecError, match="3 is no pruner"):
        HF("x", pruner=3)


@pytest.mark.parametrize("pruner", [RandomTokens(16), UniformGrid(1.0), FastV(400), FastV(1.0, layer=1)], ids=repr)
def test_keeping_all_changes_no_bit(folder, batch, pruner):
    plain, pruned = HF(folder, max_new_tokens=5), HF(folder, max_new_tokens=5, pruner=pruner)
    assert torch.equal(plain.prefill(*batch), pruned.prefill(*batch))
    assert plain.generate(*batch) == pruned.generate(*batch)
    prompt = plain.write(*batch)
    with pruning(plain.network, (pruner,), prompt.spans):
        assert not any(module._forward_pre_hooks for module in plain.network.modules())


def test_dropped_tokens_before_the_model_equal_a_prompt_made_by_hand(folder, pixels, query, hits):
    """An independent way: embeddings without those rows, and the position ids that the others had."""
    generator = HF(folder)
    network, prompt = generator.network, generator.write([pixels[:1]], [query], [hits])
    (spans,), caught = prompt.spans, {}
    handle = network.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: caught.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        network(**prompt.inputs)
    handle.remove()
    first, last = spans.image[0]
    gone = set(range(first, last)) - {first + i for i in (0, 3, 9)}
    stays = torch.tensor([i for i in range(spans.length) if i not in gone])
    positions = caught.get("position_ids")
    positions = torch.arange(spans.length)[None] if positions is None else positions
    with torch.no_grad():
        states = network.get_decoder()(
            inputs_embeds=caught["inputs_embeds"][:, stays], position_ids=positions[..., stays]
        ).last_hidden_state
        wanted = network.lm_head(states)
    made, kept = passed(generator, prompt, fixed((0, 3, 9)))
    torch.testing.assert_close(made.logits, wanted, atol=1e-5, rtol=1e-5)
    assert [i.tolist() for i in kept.images(2)[0]] == [[0, 3, 9]]


@pytest.mark.parametrize("layer", [1, 2])
def test_dropped_tokens_inside_the_model_equal_masked_columns(folder, batch, layer):
    """An independent way: every token stays, and later layers are forbidden to look at those that should be gone."""
    generator = HF(folder)
    network, prompt = generator.network, generator.write(*batch)
    length = prompt.spans[0].length
    keep = (1, 2, 15)

    def forbid(module, args, kwargs):
        seen = torch.ones(length, length, dtype=torch.bool).tril().repeat(3, 1, 1, 1)
        for b, spans in enumerate(prompt.spans):
            for first, last in spans.image:
                seen[b, :, :, [i for i in range(first, last) if i - first not in keep]] = False
            seen[b, :, :, : spans.start] = False
        seen |= torch.eye(length, dtype=torch.bool)
        return args, {**kwargs, "attention_mask": seen}

    layers = list(network.get_decoder().layers)[layer:]
    handles = [part.register_forward_pre_hook(forbid, with_kwargs=True) for part in layers]
    with torch.no_grad():
        wanted = network(**prompt.inputs).logits[:, -1]
    for handle in handles:
        handle.remove()
    made, _ = passed(generator, prompt, fixed(keep, layer))
    torch.testing.assert_close(made.logits[:, -1], wanted, atol=2e-4, rtol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(wanted, network(**prompt.inputs).logits[:, -1], atol=1e-3)


@pytest.mark.parametrize(
    ("pruner", "parts"), [(FAMILY[0], ()), (FAMILY[1], ()), (FAMILY[2], (BAIR(0.5, 1.0),))], ids=str
)
def test_a_batch_answers_as_its_rows_do_one_by_one(folder, batch, pruner, parts):
    one = HF(folder, max_new_tokens=5, pruner=pruner, batch_size=1, interventions=parts)
    many = HF(folder, max_new_tokens=5, pruner=pruner, interventions=parts)
    assert one.generate(*batch) == many.generate(*batch)
    rows = many.prefill(*batch)
    for i, row in enumerate(rows):
        alone = one.prefill(*([given[i]] for given in batch))[0]
        torch.testing.assert_close(alone, row, atol=3e-4, rtol=1e-4)
    plain = HF(folder, interventions=parts).prefill(*batch)
    assert not torch.allclose(rows[0], plain[0], atol=1e-3)
    torch.testing.assert_close(rows[2], plain[2], atol=3e-4, rtol=1e-4)  # no image


@pytest.mark.parametrize("pruner", [UniformGrid(4), FastV(4, layer=1)], ids=repr)
def test_a_loop_of_ones_own_decodes_where_it_would_without_pruning(family, pixels, query, hits, pruner):
    """Only the new token and the cache are given; some families count positions from the length of the cache."""
    if family[0] == "paligemma":  # its prompts see all of themselves; no pruner takes that mask
        with pytest.raises(SpecError, match="a mask of two dimensions"):
            HF(family[1], pruner=pruner).prefill([pixels[:1]], [query], [hits])
        return
    generator = HF(family[1], max_new_tokens=4, pruner=pruner)
    network, prompt = generator.network, generator.write([pixels[:1]], [query], [hits])
    length = prompt.inputs["input_ids"].shape[1]
    with torch.no_grad():
        with pruning(network, generator.pruners, prompt.spans):
            made = network.generate(
                **prompt.inputs,
                generation_config=generator._greedy,
                suppress_tokens=[*generator.processor.tokenizer.all_special_ids, image_token(generator.processor)],
                output_logits=True,
                return_dict_in_generate=True,
            )
        new = made.sequences[:, length:]
        with pruning(network, generator.pruners, prompt.spans):
            step = network(**prompt.inputs, use_cache=True)
            for place, wanted in enumerate(made.logits):
                torch.testing.assert_close(step.logits[:, -1], wanted, atol=5e-4, rtol=1e-4)
                cache = step.past_key_values
                step = network(input_ids=new[:, place : place + 1], past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("pruner", FAMILY, ids=str)
def test_cached_decoding_agrees_with_one_uncached_pass(folder, batch, pruner):
    generator = HF(folder, max_new_tokens=6, pruner=pruner)
    network, prompt = generator.network, generator.write(*batch)
    length, rows = prompt.inputs["input_ids"].shape[1], 3
    with torch.no_grad():
        with pruning(network, generator.pruners, prompt.spans):
            made = network.generate(
                **prompt.inputs,
                generation_config=generator._greedy,
                output_logits=True,
                return_dict_in_generate=True,
            )
        step, new = torch.stack(made.logits, 1), made.sequences[:, length:]
        whole = dict(prompt.inputs)
        for key, value in prompt.inputs.items():
            if value.shape == (rows, length):
                fill = {"input_ids": new, "attention_mask": torch.ones_like(new)}.get(key, torch.zeros_like(new))
                whole[key] = torch.cat([value, fill], 1)
        longer = [replace(spans, length=length + new.shape[1]) for spans in prompt.spans]
        with pruning(network, generator.pruners, longer):
            once = network(**whole, use_cache=False, logits_to_keep=new.shape[1] + 1).logits[:, :-1]
    alive = torch.cat([torch.ones(rows, 1, dtype=torch.bool), (new[:, :-1] != generator._end).cumprod(1).bool()], 1)
    torch.testing.assert_close(step[alive], once[alive], atol=5e-4, rtol=1e-4)


def test_the_cache_is_truly_shorter_and_its_bytes_say_so(folder, pixels, query, hits):
    ask = [pixels[:1]], [query], [hits]
    whole = prefill_cost(HF(folder), *ask)
    assert whole.tokens == (16, 16, 16)
    token = whole.cache_bytes // HF(folder).write(*ask).spans[0].length  # of three layers
    before = prefill_cost(HF(folder, pruner=UniformGrid(4)), *ask)
    assert (before.tokens, whole.cache_bytes - before.cache_bytes) == ((4, 4, 4), 12 * token)
    inside = prefill_cost(HF(folder, pruner=FastV(4, layer=1)), *ask)
    assert (inside.tokens, whole.cache_bytes - inside.cache_bytes) == ((16, 4, 4), 12 * token // 3 * 2)
    generator = HF(folder)
    prompt = generator.write(*ask)
    made, _ = passed(generator, prompt, fixed((1,), 2), use_cache=True)
    assert [layer.keys.shape[2] for layer in made.past_key_values.layers] == [
        prompt.spans[0].length - gone for gone in (0, 0, 15)
    ]
    assert cache_bytes(made.past_key_values) == whole.cache_bytes - 15 * token // 3


@pytest.mark.parametrize("pruner", [UniformGrid(4), FastV(4, layer=1)], ids=repr)
def test_gradients_pass_through_what_is_left(folder, pixels, query, hits, pruner):
    generator = HF(folder, pruner=pruner)
    pixels.requires_grad_()
    generator.loss(pixels, query, hits, "Bluewater").sum().backward()
    assert pixels.grad.abs().amax() > 0
    plain = HF(folder).loss(pixels, query, hits, "Bluewater")
    assert not torch.allclose(plain, generator.loss(pixels, query, hits, "Bluewater"), atol=1e-4)


def test_the_model_is_restored_whatever_happens(generator, batch):
    network, prompt = generator.network, generator.write(*batch)

    def state():
        hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules()]
        return hooks, [
            network.config.vision_config._attn_implementation,
            network.config.get_text_config()._attn_implementation,
        ]

    before = state()
    for pruner in (FastV(3), fixed((0,)), Broken((), 0), Broken((), 2), Broken((), 1)):
        if isinstance(pruner, Broken):
            with pytest.raises(RuntimeError, match="no"):
                passed(generator, prompt, replace(pruner, keep=3))
        else:
            passed(generator, prompt, pruner)
        assert state() == before


def test_a_choice_outside_its_budget_is_refused(generator, batch):
    prompt = generator.write(*batch)
    for index in ((0, 1, 2, 3), (3, 1), (1, 1), (-1, 2), (3, 16)):
        with pytest.raises(SpecError, match="with a budget of 3"):
            passed(generator, prompt, Kept(index, 0, 3))


def test_other_prompts_and_no_pass_at_all_raise(generator, batch, pixels, query):
    prompt, other = generator.write(*batch), generator.write([pixels[:1]], [query], [()])
    with pytest.raises(SpecError, match=r"describe 1 rows of \d+ tokens, the model was given 3 rows"):
        passed(generator, replace(prompt, spans=other.spans), UniformGrid(3))
    with (
        pytest.raises(SpecError, match="did not fire"),
        pruning(generator.network, (UniformGrid(3),), prompt.spans),
    ):
        pass


@pytest.mark.parametrize("keep", [0.0, 1.5, -1, True, "x"])
def test_a_budget_that_is_none_is_refused(keep):
    with pytest.raises(SpecError, match="neither a count"):
        UniformGrid(keep)


def test_a_layer_that_is_not_there_is_named(generator, batch):
    for pruner, message in ((FastV(3, layer=3), "layer 3"), (FastV(3, layer=0), "layer 0")):
        with pytest.raises(SpecError, match=message):
            HF(generator.model, pruner=pruner).prefill(*batch)
    with pytest.raises(SpecError, match="put the earlier first"):
        HF(generator.model, pruner=(FastV(3), UniformGrid(3))).prefill(*batch)


def test_what_a_model_lacks_is_named(tiny_qwen2vl_folder, batch):
    with pytest.raises(SpecError, match="no CLS token"):
        HF(str(tiny_qwen2vl_folder), pruner=FasterVLM(3)).prefill(*batch)
    with pytest.raises(SpecError, match="vision tower of 2 layers"):
        HF(str(tiny_qwen2vl_folder), pruner=FasterVLM(3, layer=-9)).prefill(*batch)


def test_spans_move_with_the_tokens_that_are_left(generator, batch):
    spans = generator.write(*batch).spans[0]
    first, last = spans.image[0]
    index = torch.tensor([-1, -1, *(i for i in range(spans.start, spans.length) if not first + 3 <= i < last)])
    now = moved(spans, index)
    shift = (last - first - 3) + spans.start - 2
    assert now.image == ((first - spans.start + 2, first - spans.start + 5),)
    assert now.question == tuple(t - shift for t in spans.question)
    assert (now.start, now.length) == (2, len(index))


def test_top_breaks_ties_by_place_and_keeps_the_order():
    assert top(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3).index.tolist() == [0, 1, 3]
    assert (Stage(0, 1.0),) == BEFORE
