"""What every intervention obeys in a model of every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import BUILDERS
from interventions import at_rest, at_work

from morgana.generation.attention import intervening
from morgana.generation.generators.hf import HF
from morgana.generation.needs import Needs
from morgana.generation.prompts import image_token
from morgana.spec import components
from morgana.types import Document, Hit, Query

FAMILIES = ("llava", "qwen2_vl", *BUILDERS)
WORKING, RESTING = tuple(at_work(Path("VECTORS"))), tuple(at_rest(Path("VECTORS")))
QUERY, HITS = (
    Query("q", "Who operates the harbour?"),
    (Hit(Document("d", "It is Bluewater Holdings since 1987."), 1.0),),
)

ALREADY = {("paligemma", "ModalityMutual")}  # its image sees the question as it is


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("steering") / "vectors.safetensors"
    draw = torch.Generator().manual_seed(5)
    save_file({"vectors": torch.randn(3, 32, generator=draw)}, path)
    return path


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Model:
    """A generator of one family with its batch of two prompts that differ in layout, and the plain logits of it."""

    def __init__(self, family: str, folder: str, images: torch.Tensor) -> None:
        self.family = family
        self.folder, self.images = folder, [images[:1], images[1:]]
        self.queries, self.hits = [QUERY, Query("b", "1987?")], [HITS, ()]
        self.plain = HF(folder, max_new_tokens=3)
        self.prompt = self.plain.write(self.images, self.queries, self.hits)
        self.forced = self.plain._shared(images[:1], QUERY, HITS, "Bluewater")
        self.logits = self.passed(self.plain, self.prompt)

    def reference(self, generator, prompt):
        count = len(prompt.spans)
        return generator._calibrate(self.images[:count], self.queries[:count], self.prompt if count == 2 else None)

    @torch.no_grad()
    def passed(self, generator, prompt, reference=None):
        with intervening(generator.network, generator.interventions, prompt.spans, reference):
            return generator.network(**prompt.inputs, use_cache=False).logits


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, families, images) -> Model:
    return Model(request.param, families[request.param], images)


def real(logits, prompt):
    return torch.cat([row[spans.start :] for row, spans in zip(logits, prompt.spans, strict=True)])


def test_the_lists_name_every_intervention():
    assert set(WORKING) == {cls.__name__ for cls in components("intervention")}


@pytest.mark.parametrize("name", RESTING)
def test_settings_that_do_nothing_change_no_bit(model, vectors, name):
    part = HF(model.folder, interventions=(at_rest(vectors)[name],))
    reference = model.reference(part, model.prompt)
    assert torch.equal(
        real(model.passed(part, model.prompt, reference), model.prompt), real(model.logits, model.prompt)
    )


def test_all_of_them_together_change_no_word(model, vectors):
    parts = tuple(at_rest(vectors).values())
    rest = HF(model.folder, max_new_tokens=3, interventions=parts)
    assert rest.generate(model.images, model.queries, model.hits) == model.plain.generate(
        model.images, model.queries, model.hits
    )


@pytest.mark.parametrize("name", WORKING)
class TestAtWork:
    def test_it_acts_and_a_later_token_never_moves_an_earlier_logit(self, model, vectors, name):
        part = HF(model.folder, interventions=(at_work(vectors)[name],))
        prompt, bare = model.forced, [model.images[:1], [QUERY]]
        whole = model.plain.write(model.images[:1], [QUERY], [HITS])
        reference = part._calibrate(*bare, whole)
        first = model.passed(part, prompt, reference)
        ids = prompt.inputs["input_ids"].clone()
        ids[:, -1] = ids[:, -1] % 200 + 20
        later = model.passed(part, replace(prompt, inputs={**prompt.inputs, "input_ids": ids}), reference)
        assert torch.equal(first[:, :-1], later[:, :-1])
        assert not torch.equal(first[:, -1], later[:, -1])
        if (model.family, name) not in ALREADY:
            assert not torch.equal(first, model.passed(model.plain, prompt))
        assert first.isfinite().all()

    def test_cached_decoding_is_one_uncached_pass(self, model, vectors, name):
        part = HF(model.folder, max_new_tokens=3, interventions=(at_work(vectors)[name],))
        reference, prompt = model.reference(part, model.prompt), model.prompt
        length = prompt.inputs["input_ids"].shape[1]
        with torch.no_grad(), intervening(part.network, part.interventions, prompt.spans, reference):
            made = part.network.generate(
                **prompt.inputs,
                generation_config=part._greedy,
                suppress_tokens=control(part.processor),  # a random model may say <image>
                output_logits=True,
                return_dict_in_generate=True,
            )
        new = made.sequences[:, length:]
        inputs = dict(prompt.inputs)
        for key, value in prompt.inputs.items():
            if value.shape == (2, length):
                fill = {"input_ids": new, "mm_token_type_ids": torch.zeros_like(new)}.get(key, torch.ones_like(new))
                inputs[key] = torch.cat([value, fill], 1)
        spans = tuple(replace(span, length=length + new.shape[1]) for span in prompt.spans)
        once = model.passed(part, replace(prompt, inputs=inputs, spans=spans), reference)[:, length - 1 : -1]
        torch.testing.assert_close(torch.stack(made.logits, 1), once, atol=2e-3, rtol=1e-3)

    def test_a_prompt_is_read_alike_alone_and_in_a_batch_of_another_layout(self, model, vectors, name):
        part = HF(model.folder, interventions=(at_work(vectors)[name],))
        rows = part.prefill(model.images, model.queries, model.hits)
        for i, row in enumerate(rows):
            alone = part.prefill(model.images[i : i + 1], model.queries[i : i + 1], model.hits[i : i + 1])[0]
            torch.testing.assert_close(alone, row, atol=2e-3, rtol=1e-3)


def control(processor):
    return [*processor.tokenizer.all_special_ids, image_token(processor)]


class Sums:
    """Looks at every row of attention that the interventions before it left."""

    needs = Needs(rows=lambda spans: range(spans.start, spans.length), at="weights")

    def __init__(self):
        self.worst = 0.0

    def edit(self, weights, view):
        total = weights.sum(-1).masked_fill(~view.mine[:, None], 1)
        self.worst = max(self.worst, float((total - 1).abs().nan_to_num(nan=9.0).max()), float(-weights.min()))
        return weights


def worst(model, *parts):
    sums = Sums()
    part = HF(model.folder, interventions=(*parts, sums))
    model.passed(part, model.prompt, model.reference(part, model.prompt))
    return sums.worst


@pytest.mark.parametrize("name", WORKING)
def test_every_row_of_attention_sums_to_one(model, vectors, name):
    assert worst(model, at_work(vectors)[name]) < 1e-5


class Thrice:
    """A part that breaks the rule."""

    needs = Needs(at="weights")

    def edit(self, weights, view):
        return 3 * weights


def test_a_row_that_does_not_is_seen(model):
    assert worst(model, Thrice()) > 1


@pytest.mark.parametrize("name", WORKING)
def test_any_two_compose_and_a_row_does_not_depend_on_its_batch(families, images, vectors, name):
    model, parts = Model("llava", families["llava"], images), at_work(vectors)
    for other in WORKING[WORKING.index(name) + 1 :]:
        both = HF(model.folder, interventions=(parts[name], parts[other]))
        rows = both.prefill(model.images, model.queries, model.hits)
        alone = both.prefill(model.images[1:], model.queries[1:], model.hits[1:])[0]
        torch.testing.assert_close(
            rows[1], alone, atol=2e-3, rtol=1e-3, msg=lambda text, other=other: f"{other}: {text}"
        )
