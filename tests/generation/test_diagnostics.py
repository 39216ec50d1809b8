import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morgana.generation.diagnostics import alignment, balance, diagnose, dominance, stages
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.types import Query, SpecError


def test_it_measures_what_eager_attention_shows(generator, pixels, query, hits):
    found = diagnose(generator, query, hits, pixels[:1])
    prompt = generator.write([pixels[:1]], [query], [hits])
    network = generator.network
    (key,) = [k for k in network.config.sub_configs if getattr(network.config, k) is network.config.get_text_config()]
    network.set_attn_implementation({key: "eager"})
    with torch.no_grad():
        shown = network(**prompt.inputs, output_attentions=True).attentions
    network.set_attn_implementation({key: "sdpa"})
    (first, last), stop = prompt.spans[0].image[0], prompt.spans[0].stop
    text = [*range(first), *range(last, stop)]
    fifth = len(text) // 5
    for layer, attention in enumerate(shown):
        row = attention[0, :, -1]
        seen = row[:, first:last]
        p = seen / seen.sum(-1, keepdim=True)
        wanted = seen.sum(-1), 1 + (p * p.log()).sum(-1) / math.log(16), row[:, text[:fifth] + text[-fifth:]].sum(-1)
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.shape == (3, 4)
            torch.testing.assert_close(mine[layer], theirs, atol=1e-5, rtol=1e-4)


def test_it_sees_what_the_interventions_did_and_reads_the_file(folder, pixels, query, hits, tmp_path):
    from morgana.corpus.images import save

    save(pixels[:1], tmp_path / "tile.png")
    asked = Query("q", query.text, tmp_path / "tile.png")
    bare = diagnose(HF(folder), asked, ())
    restored = diagnose(HF(folder, interventions=(BAIR(1.0, 0.0),)), asked, hits)
    torch.testing.assert_close(restored.m_vis, bare.m_vis, atol=2e-6, rtol=0)
    assert not torch.allclose(diagnose(HF(folder), asked, hits).m_vis, bare.m_vis, atol=1e-3)


def test_without_an_image_there_is_no_visual_mass(generator, query, hits):
    found = diagnose(generator, query, hits)
    assert (found.m_vis == 0).all()
    assert found.s_vis.isnan().all()
    assert ((found.boundary > 0) & (found.boundary <= 1)).all()


def test_text_dominance_is_what_eager_attention_gives_while_answering(generator, pixels, query, hits):
    found = dominance(generator, query, hits, pixels[:1])
    prompt = generator.write([pixels[:1]], [query], [hits])
    network, text, image = generator.network, 0, 0
    (key,) = [k for k in network.config.sub_configs if getattr(network.config, k) is network.config.get_text_config()]
    network.set_attn_implementation({key: "eager"})
    with torch.no_grad():
        made = network.generate(
            **prompt.inputs,
            generation_config=generator._greedy,
            output_attentions=True,
            return_dict_in_generate=True,
        )
    network.set_attn_implementation({key: "sdpa"})
    (first, last), stop = prompt.spans[0].image[0], prompt.spans[0].stop
    for step in made.attentions:
        rows = torch.stack([layer[0, :, -1].sum(0) for layer in step])  # (L, N)
        image = image + rows[:, first:last].sum(-1)
        text = text + rows[:, :first].sum(-1) + rows[:, last:stop].sum(-1)
    words, patches = stop - (last - first), last - first
    torch.testing.assert_close(found.mdi, (text / words) / (image / patches), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.mdi, found.aei_text / found.aei_image)


@given(
    st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1, max_size=7),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_mdi_is_the_ratio_of_the_efficiencies_and_both_agree_on_who_dominates(masses, words, patches):
    text, image = (torch.tensor(x) for x in zip(*masses, strict=True))
    found = balance(text, image, words, patches)
    torch.testing.assert_close(found.mdi, found.aei_text / found.aei_image)
    clear = (found.mdi - 1).abs() > 1e-4
    assert ((found.mdi > 1) == (found.aei_text > 1))[clear].all()
    assert ((found.mdi > 1) == (found.aei_image < 1))[clear].all()


def test_even_attention_is_one_and_a_blind_model_infinite():
    even = balance(torch.full((6,), 20.0), torch.full((6,), 10.0), 20, 10)
    for each in even:
        torch.testing.assert_close(each, torch.ones(3))
    assert balance(torch.ones(3), torch.zeros(3), 5, 5).mdi.isposinf().all()
    assert [s.stop - s.start for s in stages(24)] == [8, 8, 8]
    assert [s.stop - s.start for s in stages(1)] == [1, 1, 1]


def test_alignment_is_the_cosine_of_hidden_states(generator, pixels, query, hits):
    found = alignment(generator, query, hits, pixels[:1])
    prompt = generator.write([pixels[:1]], [query], [hits])
    with torch.no_grad():
        states = generator.network(**prompt.inputs, output_hidden_states=True).hidden_states[1:-1]
    (span,), asked = prompt.spans[0].image, prompt.spans[0].question
    for layer, state in enumerate(states):  # the last one is normalised by then
        centred = state[0] - state[0].mean(0)
        cosine = torch.nn.functional.cosine_similarity(
            centred[slice(*asked), None], centred[None, slice(*span)], dim=-1
        )
        torch.testing.assert_close(found[layer], cosine.amax(1).mean(), atol=1e-5, rtol=1e-4)
    assert found.shape == (3,)


@pytest.mark.parametrize("measure", [dominance, alignment])
def test_without_an_image_nothing_can_dominate_or_align(generator, query, hits, measure):
    with pytest.raises(SpecError, match="image"):
        measure(generator, query, hits)
