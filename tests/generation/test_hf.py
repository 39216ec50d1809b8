import shutil
from dataclasses import replace

import pytest
import torch

from morgana.generation.generators.hf import HF
from morgana.generation.interventions.bair import BAIR
from morgana.spec import parse
from morgana.types import Query, SpecError, StoreError


def test_the_name_of_a_generator_builds_it_again():
    part = HF("atlas", max_new_tokens=8, interventions=(BAIR(alpha_v=1.0),), batch_size=3)
    assert repr(part) == "HF('atlas', max_new_tokens=8, interventions=(BAIR(alpha_v=1.0),))"
    assert parse(repr(part)) == part


@pytest.mark.parametrize("interventions", [(), (BAIR(),)], ids=repr)
def test_a_batch_answers_as_its_rows_do_one_by_one_and_in_order(folder, interventions, pixels, query, hits):
    asked = [query, Query("b", "1987?"), Query("c", "What?"), Query("d", "Fog?"), query]
    images = [pixels[:1], None, pixels[1:], pixels[:1], pixels[:1]]
    read = [hits, hits[:1], (), hits[1:], hits]
    one = HF(folder, max_new_tokens=5, interventions=interventions, batch_size=1)
    all_at_once = HF(folder, max_new_tokens=5, interventions=interventions)
    alone = one.generate(images, asked, read)
    assert alone == all_at_once.generate(images, asked, read)
    assert alone == HF(folder, max_new_tokens=5, interventions=interventions, batch_size=2).generate(
        images, asked, read
    )
    assert alone[0] == alone[4]
    assert len(set(alone)) > 2
    together = all_at_once.prefill(images, asked, read)
    for i, row in enumerate(together):
        torch.testing.assert_close(one.prefill([images[i]], [asked[i]], [read[i]])[0], row, atol=2e-4, rtol=1e-4)


def test_the_call_reads_the_image_file(generator, pixels, query, hits, tmp_path):
    from morgana.corpus.images import load, save

    save(pixels[:1], tmp_path / "tile.png")
    asked = Query("q", query.text, tmp_path / "tile.png")
    answers = generator([asked, query], [hits, hits])
    assert [a.hits for a in answers] == [hits, hits]
    wanted = generator.generate([load(tmp_path / "tile.png"), None], [asked, query], [hits, hits])
    assert [a.text for a in answers] == wanted
    assert generator([], []) == []


@pytest.mark.parametrize("interventions", [(), (BAIR(),)], ids=repr)
def test_the_loss_is_per_image_and_its_gradient_reaches_every_pixel(folder, interventions, pixels, query, hits):
    generator = HF(folder, interventions=interventions)
    pixels.requires_grad_()
    loss = generator.loss(pixels, query, hits, "Bluewater Holdings")
    assert loss.shape == (2,)
    loss[0].backward()
    assert (pixels.grad[0] != 0).all()
    assert (pixels.grad[1] == 0).all()
    alone = torch.cat([generator.loss(pixels[i : i + 1], query, hits, "Bluewater Holdings") for i in range(2)])
    torch.testing.assert_close(loss, alone, atol=1e-4, rtol=1e-4)


def test_the_gradient_is_the_slope_of_the_loss_even_through_the_calibration(folder, pixels, query, hits):
    generator = HF(folder, interventions=(BAIR(alpha_v=0.7),))
    start = pixels[:1].clone().requires_grad_()
    generator.loss(start, query, hits, "Bluewater").sum().backward()
    direction = start.grad / start.grad.norm()
    with torch.no_grad():
        up, down = (generator.loss(pixels[:1] + s * direction, query, hits, "Bluewater") for s in (2e-3, -2e-3))
    torch.testing.assert_close((up - down) / 4e-3, start.grad.norm()[None], rtol=0.05, atol=1e-3)


def test_the_loss_is_that_of_the_answer_and_its_end(generator, pixels, query, hits):
    logits = generator.logits(pixels, query, hits, "Bluewater Holdings")
    tokenizer = generator.processor.tokenizer
    gap = " " if "USER" in tokenizer.decode(generator.write([None], [query], [()]).inputs["input_ids"][0]) else ""
    wanted = [*tokenizer.encode(f"{gap}Bluewater Holdings", add_special_tokens=False), generator._end]
    assert logits.shape[:2] == (2, len(wanted))
    log_p = logits.log_softmax(-1)[:, torch.arange(len(wanted)), torch.tensor(wanted)]
    torch.testing.assert_close(generator.loss(pixels, query, hits, "Bluewater Holdings"), -log_p.mean(1))
    assert generator.logits(pixels, query, hits, "").shape[1] == 1


@pytest.mark.parametrize("interventions", [(), (BAIR(),)], ids=repr)
def test_cached_decoding_agrees_with_one_uncached_pass(folder, interventions, pixels, query, hits):
    from morgana.generation.attention import intervening

    generator = HF(folder, max_new_tokens=6, interventions=interventions)
    network = generator.network
    images, asked, read = [pixels[:1], pixels[1:]], [query, Query("b", "1987?")], [hits, hits[:1]]
    prompt = generator.write(images, asked, read)
    reference = generator._calibrate(images, asked)
    length = prompt.inputs["input_ids"].shape[1]
    with torch.no_grad():
        with intervening(network, interventions, prompt.spans, reference):
            made = network.generate(
                **prompt.inputs,
                generation_config=generator._greedy,
                output_logits=True,
                return_dict_in_generate=True,
            )
        step, new = torch.stack(made.logits, 1), made.sequences[:, length:]
        whole = {k: v for k, v in prompt.inputs.items() if v.shape[:1] != (2,) or v.ndim != 2}
        for key in prompt.inputs.keys() - whole.keys():
            fill = {"input_ids": new, "attention_mask": torch.ones_like(new)}.get(key, torch.zeros_like(new))
            grows = prompt.inputs[key].shape == (2, length)
            whole[key] = torch.cat([prompt.inputs[key], fill], 1) if grows else prompt.inputs[key]
        longer = [replace(spans, length=length + new.shape[1]) for spans in prompt.spans]
        with intervening(network, interventions, longer, reference):
            once = network(**whole, use_cache=False).logits[:, length - 1 : -1]
    alive = torch.cat([torch.ones(2, 1, dtype=torch.bool), (new[:, :-1] != generator._end).cumprod(1).bool()], 1)
    torch.testing.assert_close(step[alive], once[alive], atol=5e-4, rtol=1e-4)


def test_clean_pixels_and_a_gradient_take_the_same_path(generator, pixels, query, hits):
    plain = generator.write([pixels[:1]], [query], [hits]).inputs
    live = generator.write([pixels[:1].clone().requires_grad_()], [query], [hits]).inputs
    assert all(torch.equal(plain[key], live[key]) for key in plain)
    assert live["pixel_values"].requires_grad


def test_a_progress_bar_changes_nothing(folder, query, hits):
    plain, bar = HF(folder, max_new_tokens=3), HF(folder, max_new_tokens=3, progress=True)
    assert plain.generate([None] * 2, [query] * 2, [hits] * 2) == bar.generate([None] * 2, [query] * 2, [hits] * 2)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(3, 32, 32), r"shape \(3, 32, 32\)"),
        (torch.rand(2, 3, 32, 32), r"shape \(2, 3, 32, 32\)"),
        (torch.full((1, 3, 32, 32), float("nan")), "pixels from nan"),
        (torch.full((1, 3, 32, 32), 200.0), "divide grey levels by 255"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 3, 0, 32), "shape"),
    ],
    ids=["rank", "batch", "nan", "levels", "bytes", "empty"],
)
def test_pixels_that_are_none_are_refused(tiny_llava_folder, query, pixels, message):
    with pytest.raises(SpecError, match=message):
        HF(str(tiny_llava_folder)).generate([pixels], [query], [()])


def test_lists_of_unequal_length_and_impossible_settings_are_refused(tiny_llava_folder, query):
    generator = HF(str(tiny_llava_folder))
    with pytest.raises(SpecError, match="1 queries for 2 lists"):
        generator([query], [(), ()])
    with pytest.raises(SpecError, match="2 images for 1 queries"):
        generator.generate([None, None], [query], [()])
    with pytest.raises(SpecError, match="at least 1"):
        HF("atlas", max_new_tokens=0)
    with pytest.raises(SpecError, match="no intervention"):
        HF("atlas", interventions=(3,))


def test_a_model_that_is_not_there_is_named_with_what_works_offline(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r'no folder .*absent; .*"atlas"'):
        HF(str(tmp_path / "absent")).network  # noqa: B018
    with pytest.raises(StoreError, match=r"no config.json.*local folder"):
        HF(str(tmp_path)).network  # noqa: B018
    with pytest.raises(StoreError, match=r'cannot load the model \'nobody/nothing\'.*"atlas"'):
        HF("nobody/nothing", local_files_only=True).network  # noqa: B018
    monkeypatch.setattr("morgana.generation.generators._checkpoint.BUNDLED", tmp_path)
    with pytest.raises(StoreError, match="morgana train generator"):
        HF("atlas").network  # noqa: B018


def broken(folder, path, change):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, path)
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


def test_broken_weights_are_refused_by_the_tensor_that_is_broken(tiny_llava_folder, tmp_path):
    key = "language_model.lm_head.weight"  # as transformers writes it
    nan = broken(tiny_llava_folder, tmp_path / "nan", lambda w: w[key].__setitem__((0, 0), float("nan")))
    with pytest.raises(StoreError, match="NaN or infinity in lm_head"):
        HF(nan).network  # noqa: B018
    less = broken(tiny_llava_folder, tmp_path / "less", lambda w: w.pop(key))
    with pytest.raises(StoreError, match=r"lack .*lm_head"):
        HF(less).network  # noqa: B018
    cut = tmp_path / "cut"
    shutil.copytree(tiny_llava_folder, cut)
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="cannot load the model"):
        HF(str(cut)).network  # noqa: B018


def test_a_model_trained_anew_is_read_anew(tiny_llava_folder, tmp_path):
    copy = broken(tiny_llava_folder, tmp_path / "copy", lambda w: None)
    before = HF(copy).network.lm_head.weight.clone()
    assert HF(copy).network is HF(copy).network
    shutil.rmtree(copy)
    broken(tiny_llava_folder, tmp_path / "copy", lambda w: w["language_model.lm_head.weight"].mul_(2))
    torch.testing.assert_close(HF(copy).network.lm_head.weight, before * 2)
