"""The generator and its spans on every family of models; no family has a table of its own."""

import pytest
import torch

from morgana.generation.generators.hf import HF
from morgana.generation.prompts import image_token
from morgana.types import Document, Hit, Query

VISUAL = {
    "llava": 16,
    "qwen2_vl": 16,
    "llava_next": 36,
    "llava_onevision": 36,
    "qwen2_5_vl": 16,
    "internvl": 16,
    "idefics3": 20,
    "smolvlm": 20,
    "paligemma": 16,
}


def part_of(generator, prompt, row, span):
    return generator.processor.tokenizer.decode(prompt.inputs["input_ids"][row][slice(*span)]).strip()


def test_every_span_decodes_to_its_text_and_the_image_to_its_tokens(family, pixels):
    name, folder = family
    generator = HF(folder)
    documents = (("The harbour, 1987.", "Fog é 🙂"), (), ("x",))
    asked = [Query(str(i), text) for i, text in enumerate(("Who operates it?", "1987?", "What is it, then?"))]
    hits = [tuple(Hit(Document(t, t), 1.0) for t in texts) for texts in documents]
    prompt = generator.write([pixels[:1], pixels[1:], None], asked, hits)
    for row, spans in enumerate(prompt.spans):
        assert part_of(generator, prompt, row, spans.question) == asked[row].text
        assert tuple(part_of(generator, prompt, row, span) for span in spans.documents) == documents[row]
        assert spans.start == int((prompt.inputs["attention_mask"][row] == 0).sum())
        ids = prompt.inputs["input_ids"][row]
        seen = [t for first, last in spans.image for t in range(first, last)]
        assert seen == (ids == image_token(generator.processor)).nonzero().flatten().tolist()
        assert len(seen) == (VISUAL[name] if row < 2 else 0)
        assert spans.stop == spans.length == len(ids)


def test_a_batch_answers_as_its_rows_do_alone(family, pixels, query, hits):
    generator = HF(family[1], max_new_tokens=4)
    images, asked = [pixels[:1], None, pixels[1:]], [query, Query("b", "1987?"), query]
    read = [hits, hits[:1], ()]
    with torch.no_grad():
        together = generator.prefill(images, asked, read)
        for i, row in enumerate(together):
            alone = generator.prefill([images[i]], [asked[i]], [read[i]])[0]
            torch.testing.assert_close(alone, row, atol=5e-4, rtol=1e-3)
    assert not torch.equal(together[0], together[2])


def test_the_loss_reaches_every_pixel_of_its_own_image_and_gives_the_slope(family, pixels, query, hits):
    generator = HF(family[1])
    live = pixels.clone().requires_grad_()
    loss = generator.loss(live, query, hits, "Bluewater")
    loss[0].backward()
    assert (live.grad[0] != 0).float().mean() > 0.9
    assert (live.grad[1] == 0).all()
    direction = live.grad[:1] / live.grad[:1].norm()
    with torch.no_grad():
        up, down = (generator.loss(pixels[:1] + s * direction, query, hits, "Bluewater") for s in (2e-3, -2e-3))
    torch.testing.assert_close(((up - down) / 4e-3)[0], live.grad[:1].norm(), rtol=0.1, atol=5e-3)


def test_the_processors_own_prompt_of_a_prefix_model_is_ours(pixels, family):
    """PaliGemma has no chat template and prompts by itself; what we write in its stead is the same."""
    name, folder = family
    if name != "paligemma":
        pytest.skip("other families prompt by their chat template")
    generator = HF(folder)
    mine = generator.write([pixels[:1]], [Query("q", "What?")], [()]).inputs
    theirs = generator.processor(
        images=[pixels[0]], text=["<image>Question: What?"], do_rescale=False, return_tensors=None
    )
    for key in ("input_ids", "attention_mask", "token_type_ids"):
        assert mine[key].tolist() == theirs[key]
    assert torch.equal(mine["pixel_values"][0], theirs["pixel_values"][0])
