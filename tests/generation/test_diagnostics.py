import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morgana.eval.studies import execute, locate
from morgana.generation.diagnostics import alignment, balance, diagnose, dominance, stages
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.generation.interventions.contrastive import VisualContrast
from morgana.generation.pruner import Scored
from morgana.generation.pruning.fastv import FastV
from morgana.generation.pruning.random_tokens import RandomTokens
from morgana.generation.pruning.seats import SEATS
from morgana.generation.pruning.todre_late import ToDRELate
from morgana.generation.stability import agreement, correlations, stability
from morgana.spec import components
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


def test_each_stage_counts_the_tokens_that_pruners_leave_it(folder, pixels, query, hits):
    plain = dominance(HF(folder, max_new_tokens=1), query, hits, pixels[:1])
    pruned = HF(folder, max_new_tokens=1, pruner=FastV(4, layer=1))
    found, cut = (x(pruned, query, hits, pixels[:1]) for x in (dominance, attended))
    for mine, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(mine[0], theirs[0])  # layer 0 sees all 16
    for layer, left in enumerate((16, 4, 4)):
        text, image, words = cut[layer]
        assert float(found.mdi[layer]) == pytest.approx((text / words) / (image / left), rel=1e-4)
        assert float(found.aei_text[layer]) == pytest.approx(text / (text + image) * (words + left) / words, rel=1e-4)


def attended(generator, query, hits, pixels):
    """By layer: attention of the last prompt row to text and image, added over heads, and the tokens of text."""
    found = diagnose(generator, query, hits, pixels)
    (spans,) = generator.write([pixels], [query], [hits]).spans
    words = spans.stop - spans.start - 16
    return [(float((1 - m).sum()), float(m.sum()), words) for m in found.m_vis]


def test_dominance_is_undefined_only_where_no_visual_token_is_left(tiny_llava_folder, pixels, query, hits):
    found = dominance(HF(str(tiny_llava_folder), pruner=SEATS(4)), query, hits, pixels[:1])
    assert found.mdi[:2].isfinite().all()
    assert (found.mdi[:2] > 0).all()
    assert found.mdi[2].isnan()  # SEATS takes out the rest before the last layer
    assert found.aei_image[2].isnan()
    assert found.aei_text[2] == 1
    by_layer = balance(torch.tensor([6.0, 3.0, 8.0]), torch.tensor([2.0, 1.0, 0.0]), 4, torch.tensor([4, 2, 0]))
    assert by_layer.mdi[:2].tolist() == [3.0, 1.5]
    joined = balance(torch.tensor([6.0, 2.0]), torch.tensor([1.0, 1.0]), 4, torch.tensor([6, 2]))
    assert joined.mdi.tolist() == pytest.approx([9.0, 1.0, 1.0])  # two layers: stages share


@pytest.mark.parametrize("measure", [diagnose, dominance, alignment])
def test_what_is_measured_is_the_prompt_and_not_what_it_is_contrasted_with(folder, pixels, query, hits, measure):
    plain, contrasted = (HF(folder, max_new_tokens=1, interventions=x) for x in ((), (VisualContrast(),)))
    found, wanted = (measure(one, query, hits, pixels[:1]) for one in (contrasted, plain))
    torch.testing.assert_close(found, wanted)


def test_alignment_is_undefined_only_where_no_visual_token_is_left(tiny_llava_folder, pixels, query, hits):
    found = alignment(HF(str(tiny_llava_folder), pruner=SEATS(4)), query, hits, pixels[:1])
    assert found.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("measure", [dominance, alignment])
def test_without_an_image_nothing_can_dominate_or_align(generator, query, hits, measure):
    with pytest.raises(SpecError, match="image"):
        measure(generator, query, hits)


RANKERS = [cls for cls in components("pruner") if issubclass(cls, Scored) and cls.__name__ != "Debiased"]


@pytest.fixture
def noisy(pixels):
    return (pixels + 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


@pytest.mark.parametrize("cls", RANKERS, ids=lambda cls: cls.__name__)
def test_a_ranking_of_the_same_image_is_perfectly_stable(tiny_llava_folder, pixels, noisy, query, cls):
    generator = HF(str(tiny_llava_folder), pruner=cls(4))
    assert all(x.tolist() == [1.0, 1.0] for x in stability(generator, query, (), pixels, pixels))
    found = stability(generator, query, (), pixels, noisy)
    for x in found:
        assert ((x >= -1) & (x <= 1)).all()
    assert (found.spearman < 1).all()


def test_stability_is_what_a_hand_count_gives(generator, pixels, noisy, query, hits):
    network = generator.network
    (key,) = [k for k in network.config.sub_configs if getattr(network.config, k) is network.config.get_text_config()]
    scores = []
    try:
        network.set_attn_implementation({key: "eager"})
        for image in (*pixels.split(1), *noisy.split(1)):
            prompt = generator.write([image], [query], [hits])
            with torch.no_grad():
                attention = network(**prompt.inputs, output_attentions=True).attentions[0]
            scores.append(attention[0, :, -1, slice(*prompt.spans[0].image[0])].mean(0).tolist())
    finally:
        network.set_attn_implementation({key: "sdpa"})
    found = stability(HF(generator.model, pruner=FastV(4, layer=1)), query, hits, pixels, noisy)
    for i, (before, after) in enumerate(zip(scores[:2], scores[2:], strict=True)):
        a, b = ({n: sorted(x, reverse=True).index(v) for n, v in enumerate(x)} for x in (before, after))
        squares = sum((a[n] - b[n]) ** 2 for n in a)
        pairs = [(a[n] - a[m]) * (b[n] - b[m]) > 0 for n, m in combinations(a, 2)]
        kept = [{n for n in x if x[n] < 4} for x in (a, b)]
        assert float(found.spearman[i]) == pytest.approx(1 - 6 * squares / (16 * 255), abs=1e-5)
        assert float(found.kendall[i]) == pytest.approx(2 * sum(pairs) / len(pairs) - 1, abs=1e-5)
        assert float(found.jaccard[i]) == pytest.approx(len(kept[0] & kept[1]) / len(kept[0] | kept[1]))
        assert float(found.kept[i]) == len(kept[0] & kept[1]) / 4
    assert found.kept.min() < 1


def test_a_lot_is_as_stable_as_its_seed(tiny_llava_folder, pixels, noisy, query):
    lots = [HF(str(tiny_llava_folder), pruner=RandomTokens(4, seed=seed)) for seed in range(41)]
    same = stability(lots[0], query, (), pixels, noisy)
    assert same.jaccard.tolist() == same.kept.tolist() == [1.0, 1.0]
    assert same.spearman.isnan().all()  # a lot has no scores
    other = [stability(lots[0], query, (), pixels[:1], pixels[:1], lot) for lot in lots[1:]]
    kept = torch.cat([x.kept for x in other])
    assert float(kept.mean()) == pytest.approx(4 / 16, abs=0.1)  # standard error 0.03
    torch.testing.assert_close(torch.cat([x.jaccard for x in other]), kept / (2 - kept))


def test_another_layer_is_another_ranking_and_a_deeper_one_still_asks_all_tokens(generator, pixels, query, hits):
    early, late = (HF(generator.model, pruner=FastV(4, layer=layer)) for layer in (1, 2))
    assert (stability(early, query, hits, pixels, pixels, late).spearman < 1).all()


def test_stability_counts_views_tiles_and_every_image_token(families, query):
    wide = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    for name in ("llava_next", "smolvlm", "internvl"):
        generator = HF(families[name], pruner=FastV(0.25, layer=1))
        assert all(x.tolist() == [1.0] for x in stability(generator, query, (), wide, wide))
        assert (stability(generator, query, (), wide, wide.flip(-1)).spearman < 1).all()


def test_agreement_and_correlations_at_their_ends():
    assert agreement(frozenset({1, 2, 3}), frozenset({3, 4, 5})) == (0.2, pytest.approx(1 / 3))
    assert agreement(frozenset(), frozenset()) == (1.0, 1.0)
    up, flat = torch.arange(5.0), torch.zeros(5)
    assert correlations(up, -up) == pytest.approx((-1, -1))
    assert correlations(flat, flat) == (1.0, 1.0)
    assert all(math.isnan(x) for x in correlations(up, flat))


def test_what_has_no_ranking_says_so(generator, pixels, query):
    with pytest.raises(SpecError, match="prunes nothing"):
        stability(generator, query, (), pixels, pixels)
    with pytest.raises(SpecError, match="all tokens or none"):
        stability(HF(generator.model, pruner=ToDRELate()), query, (), pixels, pixels)
    with pytest.raises(SpecError, match="one for one"):
        stability(HF(generator.model, pruner=FastV(4, 1)), query, (), pixels, pixels[:1])
    lot = HF(generator.model, pruner=RandomTokens(4))
    with pytest.raises(SpecError, match="same tokens"):
        stability(HF(generator.model, pruner=FastV(4, 1)), query, (), pixels, pixels, lot)


def test_the_script_prints_a_line_a_pruner_and_no_noise_is_no_change(tiny_llava_folder, capsys):
    script = execute(locate("pruning").with_name("ranking_stability.py"))
    script.main(2, 0, "FastV({k}, layer=1);MMTok({k})", "4", str(tiny_llava_folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| pruner | spearman | kendall | jaccard | kept |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| `FastV(4, layer=1)`", "| `MMTok(4)`"]
    assert lines[2].count("1.00 [") == 4
    assert lines[3].count("–") == 2
