"""The shape of the bundled MLLM, a small LLaVA in transformers' own formats, and its eye from open_clip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from morgana.types import SpecError, StoreError

IMAGE_SIZE, PATCH = 96, 8  # pixels; (96 / 8)² = 144 visual tokens
MEAN, STD = 0.5, 0.25  # of every channel, in [0, 1]
PAD, BEGIN, END, IMAGE = "<pad>", "<s>", "</s>", "<image>"
TEMPLATE = (  # USER: <image>\n… ASSISTANT: …</s>
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<image>\n{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %} {% else %}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def reference_processor(tokenizer_file: Path | str, folder: Path | str) -> Any:
    """Write the LlavaProcessor of a `tokenizers` JSON file to `folder`, and return it.

    The tokenizer must hold `<pad> <s> </s> <image>`; StoreError names those it lacks.
    """
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    check(Path(tokenizer_file))
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_file=str(tokenizer_file),
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        split_special_tokens=False,
    )
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    make: Any = LlavaProcessor
    processor = make(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLS, which "default" then drops
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(str(folder))
    return processor


def check(tokenizer_file: Path) -> None:
    """StoreError unless the file is a tokenizer that holds the four special tokens."""
    from tokenizers import Tokenizer

    if not tokenizer_file.is_file():
        raise StoreError(f"there is no tokenizer file {tokenizer_file}; train one, or name another")
    known = Tokenizer.from_file(str(tokenizer_file))
    if missing := [token for token in (PAD, BEGIN, END, IMAGE) if known.token_to_id(token) is None]:
        raise StoreError(f"the tokenizer {tokenizer_file} lacks the special tokens {missing}; train with them")


def reference_config(
    vocab_size: int,
    pad: int = 0,
    begin: int = 1,
    end: int = 2,
    image: int = 3,
    **text: Any,
) -> Any:
    """The LlavaConfig of the bundled model: CLIP ViT 6 × 192 of 144 patches, Llama 4 × 256, tied embeddings.

    `pad`, `begin`, `end` and `image` are ids of the special tokens; `text` overrides LlamaConfig's fields.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        projection_dim=192,
        hidden_act="gelu",
    )
    words = {
        "vocab_size": vocab_size,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "tie_word_embeddings": True,
        "pad_token_id": pad,
        "bos_token_id": begin,
        "eos_token_id": end,
    }
    make: Any = LlavaConfig
    return make(
        vision_config=vision,
        text_config=LlamaConfig(**{**words, **text}),
        image_token_index=image,
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=begin,
        eos_token_id=end,
    )


RENAMED = (
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^conv1\.weight$", "embeddings.patch_embedding.weight"),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^transformer\.resblocks\.(\d+)\.ln_1\.", r"encoder.layers.\1.layer_norm1."),
    (r"^transformer\.resblocks\.(\d+)\.ln_2\.", r"encoder.layers.\1.layer_norm2."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
)


def vision_from_openclip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of transformers' CLIPVisionModel from that of an open_clip CLIP with a plain ViT tower.

    Takes the whole model's state (keys `visual.…`) or the tower's alone, and leaves the projection out. They
    agree where open_clip uses exact GELU and the config says `hidden_act="gelu"`. SpecError for another make.
    """
    whole = any(key.startswith("visual.") for key in weights)
    tower = {k.removeprefix("visual."): v for k, v in weights.items() if not whole or k.startswith("visual.")}
    made: dict[str, Tensor] = {}
    for key, value in tower.items():
        if key == "proj":
            continue
        if joint := re.match(r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$", key):
            for name, piece in zip("qkv", value.chunk(3), strict=True):
                made[f"encoder.layers.{joint[1]}.self_attn.{name}_proj.{joint[2]}"] = piece.clone()
            continue
        made[renamed(key)] = value.clone()
    if "pre_layrnorm.weight" not in made:
        raise SpecError("this open_clip tower has no ln_pre; only a plain ViT (no timm, no no_ln_pre) converts")
    return made


def renamed(key: str) -> str:
    for pattern, name in RENAMED:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    raise SpecError(f"the open_clip weight {key!r} has no counterpart in CLIPVisionModel; only a plain ViT converts")
