import json
from pathlib import Path

import pytest
import torch

from morgana.generation.reference import IMAGE, reference_config, reference_processor, vision_from_openclip
from morgana.types import SpecError, StoreError


def word_tokenizer(path: Path, special: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<image>")) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["USER: Article 1: the harbour\nQuestion: what is it? ASSISTANT: a harbour"] * 4, trainer)
    made.save(str(path))
    return path


def test_the_processor_is_read_back_and_expands_the_image_to_144_tokens(tmp_path):
    from transformers import AutoProcessor

    made = reference_processor(word_tokenizer(tmp_path / "t.json"), tmp_path / "made")
    read = AutoProcessor.from_pretrained(str(tmp_path / "made"))
    assert type(read) is type(made)
    assert read.tokenizer.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<image>"]) == [0, 1, 2, 3]
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Question: what is it?"}]},
    ]
    text = read.apply_chat_template(talk, add_generation_prompt=True)
    assert text == "USER: <image>\nQuestion: what is it? ASSISTANT:"
    full = read.apply_chat_template([*talk, {"role": "assistant", "content": [{"type": "text", "text": "a harbour"}]}])
    assert full == "USER: <image>\nQuestion: what is it? ASSISTANT: a harbour</s>"
    pixels = torch.rand(1, 3, 96, 96)
    batch = read(images=pixels, text=[text], return_tensors="pt", do_rescale=False)
    assert int((batch["input_ids"] == 3).sum()) == 144
    torch.testing.assert_close(batch["pixel_values"], (pixels - 0.5) / 0.25)
    assert read.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == text.replace(IMAGE, "")
    assert json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())["padding_side"] == "left"


def test_a_tokenizer_without_the_special_tokens_is_refused_by_name(tmp_path):
    with pytest.raises(StoreError, match="<image>"):
        reference_processor(word_tokenizer(tmp_path / "t.json", ("<pad>", "<s>", "</s>")), tmp_path / "made")
    with pytest.raises(StoreError, match="no tokenizer file"):
        reference_processor(tmp_path / "absent.json", tmp_path / "made")


def test_the_config_builds_the_bundled_model():
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration(reference_config(400))
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    pixels = torch.rand(1, 3, 96, 96)
    ids = torch.tensor([[5, *[3] * 144, 6]])
    assert model(input_ids=ids, pixel_values=pixels).logits.shape == (1, 146, 400)


def test_the_vision_tower_of_openclip_gives_the_same_hidden_states():
    from open_clip.model import CLIP
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    peer = CLIP(
        64,
        {"image_size": 32, "patch_size": 8, "width": 128, "layers": 3, "head_width": 64},
        {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 1, "layers": 1},
    ).eval()
    for p in peer.parameters():
        torch.nn.init.normal_(p, std=0.1) if p.dim() < 2 else None
    config = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        hidden_act="gelu",
    )
    mine = CLIPVisionModel(config).eval()
    mine.load_state_dict(vision_from_openclip(peer.state_dict()))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states = mine(pixels, output_hidden_states=True)
        theirs = peer.visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
        for i in range(3):
            torch.testing.assert_close(
                states.hidden_states[i + 1][:, 1:], theirs["image_intermediates"][i], atol=1e-5, rtol=1e-5
            )
        torch.testing.assert_close(
            states.pooler_output @ peer.visual.proj, theirs["image_features"], atol=1e-5, rtol=1e-4
        )
    alone = vision_from_openclip(peer.visual.state_dict())
    assert all(torch.equal(alone[k], v) for k, v in mine.state_dict().items())
    with pytest.raises(SpecError, match="trunk"):
        vision_from_openclip({"visual.trunk.blocks.0.weight": torch.zeros(1)})


def test_the_prompt_is_token_for_token_what_the_bundled_model_is_trained_on(tmp_path):
    from types import SimpleNamespace

    from tokenizers import Tokenizer

    from morgana.generation.prompts import write
    from morgana.models.conversation import Writer
    from morgana.types import Document, Hit, Query

    file = word_tokenizer(tmp_path / "t.json")
    articles = ["The harbour of Calmouth, 1987.", "Fog is a cloud."]
    turn = SimpleNamespace(text="What is it?", answer="A harbour.")
    taught, _ = Writer(Tokenizer.from_file(str(file))).conversation(
        SimpleNamespace(articles=articles, questions=[turn]), None
    )
    hits = tuple(Hit(Document(text, text), 1.0) for text in articles)
    processor = reference_processor(file, tmp_path / "made")
    image = torch.rand(1, 3, 96, 96)
    asked = write(processor, [image], [Query("q", turn.text)], [hits], answer=turn.answer, end=2)
    assert asked.inputs["input_ids"][0].tolist() == taught
