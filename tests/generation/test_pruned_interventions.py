"""Interventions on a prompt that a pruner shortens inside the model."""

from dataclasses import replace

import pytest
import torch
from fakes import Kept

from morgana.generation.attention import intervening
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.aif import AIF
from morgana.generation.interventions.debiased_attention import DebiasedAttention
from morgana.generation.interventions.dropping import DropLayers
from morgana.generation.interventions.gift import GIFT
from morgana.generation.interventions.image_masks import NeighbourAware
from morgana.generation.interventions.mad_rag import MADRAG
from morgana.generation.interventions.position_scaling import PositionScaling
from morgana.generation.interventions.wrappers import InLayers
from morgana.generation.needs import Needs, every
from morgana.generation.pruner import Choice
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
from morgana.types import Query, SpecError


class Moody(Kept):
    def choose(self, sight, budget):
        start = 0 if len(sight.text) > 50 else len(sight.tokens) - budget
        return Choice(torch.arange(start, start + budget))


PRUNERS = {"inside": (Kept((1, 2, 15), 1, 3),), "twice": (Kept((0, 3, 9, 11), 0, 4), Kept((1, 3), 2, 2))}


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], pixels[1:], None], [query, Query("b", "1987?"), query], [hits, hits[:1], ()]


def passed(generator, prompt, parts=(), **changed):
    with (
        torch.no_grad(),
        pruning(generator.network, generator.pruners, prompt.spans),
        intervening(generator.network, parts, prompt.spans),
    ):
        return generator.network(**{**prompt.inputs, **changed}, use_cache=False).logits


@pytest.mark.parametrize("name", PRUNERS)
def test_scaled_positions_of_what_is_left_are_those_of_a_model_given_them(tiny_llava_folder, pixels, query, hits, name):
    generator = HF(str(tiny_llava_folder), pruner=PRUNERS[name])
    prompt = generator.write([pixels[:1]], [query], [hits])
    position = torch.arange(prompt.spans[0].length)[None]
    wanted = passed(generator, prompt, position_ids=position / 1.6)
    made = passed(generator, prompt, (PositionScaling(1.6, 1.6, first=0),))
    torch.testing.assert_close(made[:, -1], wanted[:, -1], atol=2e-4, rtol=1e-4)
    assert not torch.allclose(made[:, -1], passed(generator, prompt)[:, -1], atol=1e-2)


@pytest.mark.parametrize("name", PRUNERS)
def test_positions_are_scaled_alike_in_cached_decoding(folder, batch, name):
    part = PositionScaling(1.3, 1.9, first=0)
    generator = HF(folder, max_new_tokens=4, interventions=(part,), pruner=PRUNERS[name])
    network, prompt = generator.network, generator.write(*batch)
    length = prompt.spans[0].length
    with torch.no_grad(), generator._at_work((part,), prompt, None):
        made = network.generate(
            **prompt.inputs,
            generation_config=generator._greedy,
            suppress_tokens=generator.processor.tokenizer.all_special_ids,  # nobody ends early
            output_logits=True,
            return_dict_in_generate=True,
        )
    new, whole = made.sequences[:, length:], dict(prompt.inputs)
    for key, value in prompt.inputs.items():
        if value.shape == (3, length):
            fill = {"input_ids": new, "attention_mask": torch.ones_like(new)}.get(key, torch.zeros_like(new))
            whole[key] = torch.cat([value, fill], 1)
    longer = tuple(replace(spans, length=length + new.shape[1]) for spans in prompt.spans)
    once = passed(generator, replace(prompt, inputs=whole, spans=longer), (part,))[:, -new.shape[1] - 1 : -1]
    torch.testing.assert_close(torch.stack(made.logits, 1), once, atol=2e-3, rtol=1e-3)


def test_aif_says_that_tokens_left_and_works_where_none_leaves(folder, batch):
    with pytest.raises(SpecError, match="layer 1 has fewer than those before it; prune before the language model"):
        HF(folder, interventions=(AIF(),), pruner=FastV(4, layer=1)).prefill(*batch)
    pruned = HF(folder, pruner=FastV(4, layer=1))
    for part, pruner in ((AIF(0.5, first=1), FastV(4, layer=1)), (AIF(0.5), UniformGrid(4))):
        made = HF(folder, interventions=(part,), pruner=pruner).prefill(*batch)
        assert made.isfinite().all()
        assert not torch.equal(made[0], replace(pruned, pruner=pruner).prefill(*batch)[0])


def test_gift_says_that_tokens_left_between_its_layers_and_that_its_source_was_not_read(folder, batch):
    gift = GIFT(source=0, first=1, stop=None)
    with pytest.raises(SpecError, match="watched 16 visual tokens, and layer 1 has 4; prune before the language model"):
        HF(folder, interventions=(gift,), pruner=FastV(4, layer=1)).prefill(*batch)
    with pytest.raises(SpecError, match="has not read the question: layer 0 is not among its layers here"):
        HF(folder, interventions=(InLayers(gift, 1),)).prefill(*batch)
    assert HF(folder, interventions=(gift,), pruner=UniformGrid(4)).prefill(*batch).isfinite().all()


def test_mad_rag_averages_the_same_patches_or_says_that_it_cannot(folder, batch):
    """`Moody` keeps other tokens of the image alone than beside documents, but as many."""

    def made(*pruners):
        return HF(folder, interventions=(InLayers(MADRAG(), 1),), pruner=pruners).prefill(*batch)

    assert made(UniformGrid(4)).isfinite().all()
    assert made(Kept((1, 2, 15), 1, 3)).isfinite().all()
    with pytest.raises(SpecError, match="other visual tokens beside the documents than without"):
        made(Moody((), 1, 3))


@pytest.mark.parametrize("spans_of", [intervening, pruning], ids=["intervening", "pruning"])
def test_an_image_elsewhere_than_the_spans_say_is_refused_naming_both(family, pixels, query, hits, spans_of):
    generator = HF(family[1])
    prompt = generator.write([pixels[:1]], [query], [hits])
    ((first, last), *more) = prompt.spans[0].image
    wrong = replace(prompt.spans[0], image=((first + 1, last + 1), *more))
    part = DropLayers(0) if spans_of is intervening else UniformGrid(1)
    with (
        pytest.raises(SpecError, match=rf"tokens {first + 1} to .*given image tokens at {first} to"),
        torch.no_grad(),
        spans_of(generator.network, (part,), (wrong,)),
    ):
        generator.network(**prompt.inputs)


@pytest.mark.parametrize("pruner", [FasterVLM(4), FastV(4, layer=1), UniformGrid(5)], ids=repr)
@pytest.mark.parametrize("part", [NeighbourAware(1), DebiasedAttention(0.3, aspect=2.0)], ids=repr)
def test_what_a_pruner_leaves_stands_where_it_stood_in_the_image(tiny_llava_folder, pixels, query, hits, part, pruner):
    """The mask of those that are left is the whole prompt's, without the rows and columns of those that are not."""
    generator, given = HF(str(tiny_llava_folder)), {}

    class Mask:
        needs = Needs(rows=every, at="mask")

        def edit(self, mask, view):
            given[view.layer] = mask.clone()
            return mask

    prompt, reads = generator.write([pixels[:1]], [query], [hits]), (part, Mask())
    with torch.no_grad(), intervening(generator.network, reads, prompt.spans):
        generator.network(**prompt.inputs)
    whole = dict(given)
    with (
        torch.no_grad(),
        pruning(generator.network, (pruner,), prompt.spans) as kept,
        intervening(generator.network, reads, prompt.spans),
    ):
        generator.network(**prompt.inputs)
    for layer in range(3):
        left = kept.at(layer)[0]
        assert torch.equal(given[layer], whole[layer][:, :, left][..., left])
    assert len(kept.at(2)[0]) < len(kept.whole()[0])


def test_spans_of_no_image_are_refused_by_pruning_too(folder, pixels, query, hits):
    generator = HF(folder)
    prompt = generator.write([pixels[:1]], [query], [hits])
    blind = replace(prompt.spans[0], image=())
    with (
        pytest.raises(SpecError, match="image of prompt 0 is its tokens no place"),
        torch.no_grad(),
        pruning(generator.network, (UniformGrid(4),), (blind,)),
    ):
        generator.network(**prompt.inputs)
