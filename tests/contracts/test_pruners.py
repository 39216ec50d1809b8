"""What every pruner obeys in a model: every one of them in two families, two cheap ones in all."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from families import BUILDERS

from morgana.generation.generators.hf import HF
from morgana.generation.prompts import image_token
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
from morgana.spec import components
from morgana.types import Document, Hit, Query, SpecError

FAMILIES = ("llava", "qwen2_vl", *(name for name in BUILDERS if name != "paligemma"))  # which sees its prompt in full
TWO = ("llava", "llava_next")  # with all that a pruner may read
NAMES = {cls.__name__: cls for cls in components("pruner")}
CHEAP = {"UniformGrid": UniformGrid, "FastV": FastV}  # before and inside the model
QUERY, HITS = (
    Query("q", "Who operates the harbour?"),
    (Hit(Document("d", "It is Bluewater Holdings since 1987."), 1.0),),
)
DEPTH = 3


def made(name, keep):
    cls = NAMES[name]
    if name == "ToDRELate":
        return cls(keep if keep in (1.0, 400) else 0, tau=1.1)  # always due
    return cls(**({"keep": keep} if any(f.name == "keep" for f in fields(cls)) else {"pruner": FastV(keep)}))


CASES = [(family, name) for name in NAMES for family in FAMILIES if family in TWO or name in CHEAP]


class Model:
    """A generator of one family with its batch of two prompts that differ in layout."""

    def __init__(self, family: str, folder: str) -> None:
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.family, self.folder = family, folder
        self.batch = [images[:1], images[1:]], [QUERY, Query("b", "1987?")], [HITS, ()]
        self.plain = HF(folder, max_new_tokens=3)
        self.prompt = self.plain.write(*self.batch)
        self.forced = self.plain._shared(images[:1], QUERY, HITS, "Bluewater")
        self.logits = self.plain.prefill(*self.batch)
        self.words = self.plain.generate(*self.batch)

    @torch.no_grad()
    def passed(self, pruner, prompt, **changed):
        prompt = replace(prompt, inputs={**prompt.inputs, **changed})
        with pruning(self.plain.network, (pruner,), prompt.spans) as kept:
            return self.plain.network(**prompt.inputs, use_cache=False).logits, kept


@pytest.fixture(scope="module")
def models(families):
    class Models(dict):
        def __missing__(self, family):
            self[family] = Model(family, families[family])
            return self[family]

    return Models()


@pytest.fixture
def model(request, models):
    return models[request.param]


@pytest.mark.parametrize(("model", "name"), CASES, indirect=["model"])
class TestPruner:
    def test_keeping_all_changes_no_bit_and_no_word(self, model, name):
        for keep in (1.0, 400):
            pruned = HF(model.folder, max_new_tokens=3, pruner=made(name, keep))
            assert torch.equal(pruned.prefill(*model.batch), model.logits)
        assert pruned.generate(*model.batch) == model.words

    def test_it_keeps_unique_places_in_order_and_the_same_again(self, model, name):
        logits, kept = model.passed(made(name, 0.4), model.prompt)
        again, twice = model.passed(made(name, 0.4), model.prompt)
        assert torch.equal(logits, again)
        assert logits.isfinite().all()
        for layer in range(DEPTH):
            for row, same, spans in zip(kept.images(layer), twice.images(layer), kept.spans, strict=True):
                for found, other, (first, last) in zip(row, same, spans.image, strict=True):
                    assert torch.equal(found, other)
                    assert found.tolist() == sorted(set(found.tolist()))
                    assert not len(found) or 0 <= found[0] <= found[-1] < last - first
        (first, last), *_ = kept.spans[0].image
        assert len(kept.images(DEPTH - 1)[0][0]) < last - first

    def test_under_autocast_it_keeps_as_many(self, model, name):
        _, plain = model.passed(made(name, 0.4), model.prompt)
        with torch.autocast("cpu", torch.bfloat16):
            logits, kept = model.passed(made(name, 0.4), model.prompt)
        assert logits.isfinite().all()
        for layer in range(DEPTH):
            for row, wanted in zip(kept.images(layer), plain.images(layer), strict=True):
                assert [len(found) for found in row] == [len(found) for found in wanted]

    def test_a_later_token_never_moves_an_earlier_logit(self, model, name):
        ids = model.forced.inputs["input_ids"].clone()
        ids[:, -1] = ids[:, -1] % 200 + 20
        first, _ = model.passed(made(name, 0.4), model.forced)
        later, _ = model.passed(made(name, 0.4), model.forced, input_ids=ids)
        assert torch.equal(first[:, :-1], later[:, :-1])
        assert not torch.equal(first[:, -1], later[:, -1])

    @torch.no_grad()
    def test_cached_decoding_is_one_uncached_pass(self, model, name):
        network, prompt, pruner = model.plain.network, model.prompt, made(name, 0.4)
        with pruning(network, (pruner,), prompt.spans):
            cached = network.generate(
                **prompt.inputs,
                generation_config=model.plain._greedy,
                suppress_tokens=control(model.plain.processor),  # a random model may say <image>
                output_logits=True,
                return_dict_in_generate=True,
            )
        length = prompt.inputs["input_ids"].shape[1]
        new = cached.sequences[:, length:]
        inputs = {}
        for key, value in prompt.inputs.items():
            if value.shape == (2, length):
                fill = {"input_ids": new, "mm_token_type_ids": torch.zeros_like(new)}.get(key, torch.ones_like(new))
                inputs[key] = torch.cat([value, fill], 1)
        spans = tuple(replace(span, length=length + new.shape[1]) for span in prompt.spans)
        once, _ = model.passed(pruner, replace(prompt, spans=spans), **inputs)
        once = once[:, -new.shape[1] - 1 : -1]
        torch.testing.assert_close(torch.stack(cached.logits, 1), once, atol=2e-3, rtol=1e-3)


def control(processor):
    return [*processor.tokenizer.all_special_ids, image_token(processor)]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_question_the_words_behind_the_image_say_what_matters(models, name):
    """Whatever reads the question: neither NaN nor the first tokens for want of it."""
    model, pruner = models["llava"], made(name, 4)
    prompt = model.plain.write([model.batch[0][0]], [Query("q")], [HITS])
    assert prompt.spans[0].question[0] == prompt.spans[0].question[1]
    logits, kept = model.passed(pruner, prompt)
    assert logits.isfinite().all()
    if name not in ("ToDRELate", "SEATS"):  # which leave none
        assert kept.images(DEPTH - 1)[0][0].tolist() != [0, 1, 2, 3]


@pytest.mark.parametrize("name", [name for name in NAMES if made(name, 4).stages(DEPTH) == ((0, 1.0),)])
def test_behind_another_it_chooses_among_what_that_left(models, name):
    from morgana.generation.pruning.random_tokens import RandomTokens

    model = models["llava"]

    def kept(*pruners):
        with torch.no_grad(), pruning(model.plain.network, pruners, model.prompt.spans) as found:
            model.plain.network(**model.prompt.inputs)
        return [set(row[0].tolist()) for row in found.images(0)]

    if name == "FourierVLM":
        with pytest.raises(SpecError, match="needs the whole image"):
            kept(RandomTokens(12), made(name, 4))
        return
    before, after = kept(RandomTokens(12)), kept(RandomTokens(12), made(name, 4))
    assert all(len(few) == 4 and few < many for few, many in zip(after, before, strict=True))
