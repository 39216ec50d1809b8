"""Interventions on a prompt that a pruner shortens inside the model."""

from dataclasses import replace

import pytest
import torch
from fakes import Kept

from morgana.generation.attention import intervening
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.aif import AIF
from morgana.generation.interventions.position_scaling import PositionScaling
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
from morgana.types import Query, SpecError

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
