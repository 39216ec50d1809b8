import math

import torch

from morgana.generation.diagnostics import diagnose
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.types import Query


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
