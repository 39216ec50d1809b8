"""Tiny random models of the families that the seam must serve, each with a processor made offline.

Images of 32 x 32, text towers of 3 layers, 4 heads and 2 key heads, 32 wide; the weights are large enough that
attention is far from uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import QWEN_TEMPLATE, byte_level

SIDE, PATCH = 32, 8
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.25,
}
EYES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
SIZE = {"height": SIDE, "width": SIDE}
PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def template(image: str, user: str, assistant: str, end: str) -> str:
    return (
        "{% for message in messages %}{% if message['role'] == 'user' %}" + user + "{% else %}" + assistant + " "
        "{% endif %}{% for item in message['content'] %}{% if item['type'] == 'image' %}" + image + "\n{% else %}"
        "{{ item['text'] }}{% endif %}{% endfor %}" + end + "{% endfor %}{% if add_generation_prompt %}" + assistant
        + "{% endif %}"
    )  # fmt: skip


def tokenizer(folder: Path, pad: str, bos: str | None, eos: str, media: dict[str, str], more: tuple[str, ...] = ()):
    from transformers import PreTrainedTokenizerFast

    special = tuple(dict.fromkeys([pad, *([bos] if bos else []), eos, *media.values(), *more]))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(byte_level(folder / "bpe.json", special)),
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=media if media else list(more),
        additional_special_tokens=list(more),
    )


def text(words: Any, **more: Any) -> dict[str, Any]:
    return {
        **TEXT,
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        **more,
    }


def save(folder: Path, processor: Any, model: Callable[[Any], Any], config: Any) -> None:
    import torch

    processor.save_pretrained(str(folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(config).save_pretrained(str(folder))


def llava_next(folder: Path) -> None:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    words = tokenizer(folder, "<pad>", "<s>", "</s>", {"image_token": "<image>"})
    seen = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE, image_grid_pinpoints=PINPOINTS)
    processor = LlavaNextProcessor(
        seen,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>", "USER: ", " ASSISTANT:", ""),
    )
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**EYES),
        text_config=LlamaConfig(**text(words)),
        image_token_index=words.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    save(folder, processor, LlavaNextForConditionalGeneration, config)


def llava_onevision(folder: Path) -> None:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    media = {"image_token": "<image>", "video_token": "<video>"}
    words = tokenizer(folder, "<|endoftext|>", None, "<|im_end|>", media, ("<|im_start|>",))
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=PINPOINTS),
        words,
        LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>", "<|im_start|>user ", "<|im_start|>assistant\n", "<|im_end|>\n"),
    )
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**EYES, vision_use_head=False),
        text_config=Qwen2Config(**text(words)),
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=PINPOINTS,
    )
    save(folder, processor, LlavaOnevisionForConditionalGeneration, config)


def qwen2_5_vl(folder: Path) -> None:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    more = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(folder, "<|endoftext|>", None, "<|im_end|>", {}, more)
    grid = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **grid),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(size=size, **grid),
        chat_template=QWEN_TEMPLATE,
    )
    ids = dict(zip(more, words.convert_tokens_to_ids(list(more)), strict=True))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        text_config=text(words, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    save(folder, processor, Qwen2_5_VLForConditionalGeneration, config)


def internvl(folder: Path) -> None:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        Qwen2Config,
    )

    media = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(folder, "<|endoftext|>", None, "<|im_end|>", media, ("<|im_start|>",))
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=SIZE, crop_to_patches=True, min_patches=1, max_patches=4),
        words,
        InternVLVideoProcessor(size=SIZE),
        image_seq_length=16,
        chat_template=template("<IMG_CONTEXT>", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"),
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**{**EYES, "patch_size": 4}),
        text_config=Qwen2Config(**text(words)),
        image_token_id=words.context_image_token_id,
        image_seq_length=16,
    )
    save(folder, processor, InternVLForConditionalGeneration, config)


def idefics(folder: Path, *, smol: bool) -> None:
    import transformers as hf

    tiles = tuple(f"<row_{i + 1}_col_{j + 1}>" for i in range(2) for j in range(2))
    more = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles)
    words = tokenizer(folder, "<pad>", "<s>", "</s>", {"image_token": "<image>"}, more)
    edges: dict[str, Any] = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    spoken = template("<image>", "User:", "Assistant:", "<end_of_utterance>\n")
    shared: dict[str, Any] = {"image_seq_len": 4, "chat_template": spoken}
    if smol:
        seen = hf.SmolVLMImageProcessor(**edges, do_image_splitting=True)
        film = hf.SmolVLMVideoProcessor(**edges, video_sampling={"fps": 1, "max_frames": 4})
        processor = hf.SmolVLMProcessor(seen, words, film, **shared)
    else:
        processor = hf.Idefics3Processor(hf.Idefics3ImageProcessor(**edges, do_image_splitting=True), words, **shared)
    family, eyes = (hf.SmolVLMConfig, hf.SmolVLMVisionConfig) if smol else (hf.Idefics3Config, hf.Idefics3VisionConfig)
    config = family(
        vision_config=eyes(**EYES),
        text_config=hf.LlamaConfig(**text(words)),
        image_token_id=words.image_token_id,
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    kind = hf.SmolVLMForConditionalGeneration if smol else hf.Idefics3ForConditionalGeneration
    save(folder, processor, kind, config)


def paligemma(folder: Path) -> None:
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    words = tokenizer(folder, "<pad>", "<bos>", "<eos>", {"image_token": "<image>"})
    seen = SiglipImageProcessor(size=SIZE)
    seen.image_seq_length = 16
    processor = PaliGemmaProcessor(seen, words)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**EYES, vision_use_head=False),
        text_config=GemmaConfig(**text(words), head_dim=8),
        image_token_index=words.image_token_id,
        vocab_size=len(words),
        projection_dim=32,
        hidden_size=32,
    )
    save(folder, processor, PaliGemmaForConditionalGeneration, config)


def idefics3(folder: Path) -> None:
    idefics(folder, smol=False)


def smolvlm(folder: Path) -> None:
    idefics(folder, smol=True)


BUILDERS = {
    made.__name__: made
    for made in (llava_next, llava_onevision, qwen2_5_vl, internvl, idefics3, smolvlm, paligemma)
}  # fmt: skip
