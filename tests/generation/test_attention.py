import math
from dataclasses import dataclass

import pytest
import torch

from morgana.generation.attention import NAME, intervening
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.generation.needs import Needs
from morgana.generation.prompts import Prompt
from morgana.generation.visual import Probe
from morgana.types import Query, SpecError


@dataclass(frozen=True)
class Faint:
    """Multiplies the odds of every visual token, on the last `count` prompt rows."""

    factor: float
    count: int = 1

    @property
    def needs(self):
        return Needs(rows=lambda spans: range(max(spans.start, spans.stop - self.count), spans.stop))

    def edit(self, scores, view):
        layout = view.layout
        seen = layout.visual.take(scores)
        return (
            layout.visual.put(scores, seen + math.log(self.factor))
            if self.factor
            else layout.visual.put(scores, torch.full_like(seen, float("-inf")))
        )


class Broken(Faint):
    def edit(self, scores, view):
        raise RuntimeError("no")


class Nowhere(Faint):
    @property
    def needs(self):
        return Needs(rows=lambda spans: range(0))


@pytest.fixture
def batch(pixels, query, hits):
    return [pixels[:1], pixels[1:], None], [query, Query("b", "1987?"), query], [hits, hits[:1], ()]


def passed(generator, prompt, parts=(), **changed):
    with torch.no_grad(), intervening(generator.network, parts, prompt.spans):
        return generator.network(**{**prompt.inputs, **changed}, use_cache=False).logits


@pytest.mark.parametrize("part", [Faint(1.0), Faint(1.0, 7), BAIR(0.0, 0.0), Probe()], ids=str)
def test_a_part_that_changes_nothing_changes_no_bit(folder, batch, part):
    plain, with_part = HF(folder, max_new_tokens=5), HF(folder, max_new_tokens=5, interventions=(part,))
    prompt = plain.write(*batch)
    assert torch.equal(passed(plain, prompt), passed(plain, prompt, (part,)))
    assert torch.equal(plain.prefill(*batch), with_part.prefill(*batch))
    assert plain.generate(*batch) == with_part.generate(*batch)
    rows = (batch[0][0], batch[1][0], batch[2][0], "Bluewater")
    assert torch.equal(plain.logits(*rows), with_part.logits(*rows))


@pytest.mark.parametrize("count", [1, 4, 20])
def test_editing_scores_equals_a_bias_in_the_mask(tiny_llava_folder, pixels, query, hits, count):
    """An independent way to the same numbers: transformers' own attention with an additive mask of our making."""
    generator = HF(str(tiny_llava_folder))
    prompt = generator.write([pixels[:1], pixels[1:]], [query, Query("b", "1987?")], [hits, hits[:1]])
    length = prompt.inputs["input_ids"].shape[1]
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros(2, 1, length, length).masked_fill(~torch.ones(length, length).tril().bool(), lowest)
    for i, spans in enumerate(prompt.spans):
        mask[i, :, :, : spans.start] = lowest
        mask[i, :, range(spans.start), range(spans.start)] = 0
        for first, last in spans.image:
            mask[i, :, max(spans.start, length - count) :, first:last] += math.log(0.2)
        assert length - count > spans.image[-1][1]
    edited = passed(generator, prompt, (Faint(0.2, count),))
    position = torch.arange(length)[None]
    wanted = passed(generator, prompt, attention_mask=mask, position_ids=position)
    for i, spans in enumerate(prompt.spans):
        torch.testing.assert_close(edited[i, spans.start :], wanted[i, spans.start :], atol=3e-4, rtol=1e-4)
    assert not torch.allclose(edited[:, -1], passed(generator, prompt)[:, -1], atol=1e-2)


def test_a_masked_image_leaves_no_trace_in_the_rows_after_it(generator, pixels, query, hits):
    made = []
    for image in (pixels[:1], pixels[1:]):
        prompt = generator.write([image], [query], [hits])
        after = prompt.spans[0].stop - prompt.spans[0].image[-1][1]
        made.append(passed(generator, prompt, (Faint(0.0, after),))[:, -after:])
    assert torch.equal(*made)
    with torch.no_grad():
        assert not torch.equal(*(generator.prefill([image], [query], [hits]) for image in (pixels[:1], pixels[1:])))


@pytest.mark.parametrize("parts", [(), (BAIR(1.0, 1.0),), (Faint(0.1, 5),)], ids=str)
def test_a_later_token_never_moves_an_earlier_logit(folder, batch, parts):
    generator = HF(folder)
    prompt = generator.write(*batch)
    reference = HF(folder, interventions=(BAIR(),))._calibrate(*batch[:2])
    ids = prompt.inputs["input_ids"].clone()
    ids[:, -1] = ids[:, -1] + 1
    with torch.no_grad(), intervening(generator.network, parts, prompt.spans, reference):
        before = generator.network(**prompt.inputs, use_cache=False).logits
        after = generator.network(**{**prompt.inputs, "input_ids": ids}, use_cache=False).logits
    for i, spans in enumerate(prompt.spans):
        assert torch.equal(before[i, spans.start : -1], after[i, spans.start : -1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_only_the_last_prompt_row_changes(folder, batch):
    generator = HF(folder)
    prompt = generator.write(*batch)
    reference = HF(folder, interventions=(BAIR(),))._calibrate(*batch[:2])
    plain = passed(generator, prompt)
    with torch.no_grad(), intervening(generator.network, (BAIR(),), prompt.spans, reference):
        edited = generator.network(**prompt.inputs, use_cache=False).logits
    for i, (spans, image) in enumerate(zip(prompt.spans, batch[0], strict=True)):
        assert torch.equal(edited[i, spans.start : -1], plain[i, spans.start : -1])
        assert torch.equal(edited[i, -1], plain[i, -1]) == (image is None)


def test_decode_steps_are_left_alone(generator, batch):
    prompt = generator.write(*batch)
    calls = []

    class Counting(Faint):
        def edit(self, scores, view):
            calls.append(tuple(scores.shape[2:]))
            return scores

    with torch.no_grad(), intervening(generator.network, (Counting(1.0),), prompt.spans):
        generator.network.generate(**prompt.inputs, generation_config=generator._greedy)
    assert calls == [(1, prompt.inputs["input_ids"].shape[1])] * 3


def test_the_model_is_restored_and_its_eyes_never_touched(generator, batch):
    network = generator.network
    eyes, text = network.config.vision_config, network.config.get_text_config()
    before = eyes._attn_implementation, text._attn_implementation, network.config._attn_implementation
    prompt = generator.write(*batch)
    plain = passed(generator, prompt)
    with intervening(network, (Probe(),), prompt.spans):
        assert text._attn_implementation == NAME
        assert (eyes._attn_implementation, network.config._attn_implementation) == (before[0], before[2])
        generator.network(**prompt.inputs)
    with pytest.raises(RuntimeError, match="no"):
        passed(generator, prompt, (Broken(0.5),))
    assert (eyes._attn_implementation, text._attn_implementation, network.config._attn_implementation) == before
    assert torch.equal(passed(generator, prompt), plain)


def test_blocks_nest(generator, batch):
    prompt = generator.write(*batch)
    wanted = passed(generator, prompt, (Faint(0.2),))
    with torch.no_grad(), intervening(generator.network, (Faint(0.2),), prompt.spans):
        inner = passed(generator, prompt, (Probe(),))
        outer = generator.network(**prompt.inputs, use_cache=False).logits
    assert torch.equal(inner, passed(generator, prompt))
    assert torch.equal(outer, wanted)


def test_parts_compose_in_order_each_on_its_own_rows(generator, batch):
    prompt = generator.write(*batch)
    twice = passed(generator, prompt, (Faint(0.5, 3), Faint(0.5, 3)))
    torch.testing.assert_close(twice, passed(generator, prompt, (Faint(0.25, 3),)), atol=1e-4, rtol=1e-4)
    mixed = passed(generator, prompt, (Faint(0.5, 3), Faint(1.0, 9)))
    assert torch.equal(mixed, passed(generator, prompt, (Faint(0.5, 3),)))


def test_an_intervention_that_did_not_fire_raises(generator, batch):
    prompt = generator.write(*batch)
    with (
        pytest.raises(SpecError, match=r"Faint\(factor=0\.5, count=1\) did not fire"),
        intervening(generator.network, (Faint(0.5),), prompt.spans),
    ):
        pass
    with pytest.raises(SpecError, match="did not fire"):
        passed(generator, prompt, (Probe(), Nowhere(0.5)))
    with pytest.raises(SpecError, match="did not fire"):
        passed(generator, prompt, (Nowhere(0.5),))


def test_spans_of_another_prompt_raise_naming_both(generator, batch, pixels, query):
    prompt, other = generator.write(*batch), generator.write([pixels[:1]], [query], [()])
    with pytest.raises(SpecError, match=r"describe 1 rows of \d+ tokens, the model was given 3 rows of \d+ queries"):
        passed(generator, Prompt(prompt.inputs, other.spans), (Probe(),))
    longer = generator.write([pixels[:1]], [query], [batch[2][0]])
    for inputs, spans in ((other.inputs, longer.spans), (longer.inputs, other.spans)):
        with pytest.raises(SpecError, match=r"the spans describe 1 rows"):
            passed(generator, Prompt(inputs, spans), (Probe(),))
