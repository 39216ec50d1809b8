"""BAIR's own prefill (calibration apart), against SDPA and against eager attention, at 1,000 tokens and 24 layers."""

from __future__ import annotations

from typing import Any

import torch
from _measure import Result, Setting, fastest

from morgana.generation.attention import intervening
from morgana.generation.interventions.bair import BAIR
from morgana.generation.prompts import Spans
from morgana.generation.visual import Probe

SIDE, PATCH, QUESTION = 192, 8, 8
TINY = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8, "num_key_value_heads": 8}
QWEN = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}  # 0.5B


def bench(setting: Setting) -> list[Result]:
    tokens, model = 1000, random_llava(setting.choose(24, 4))
    seen = (SIDE // PATCH) ** 2
    ids = torch.randint(4, 500, (1, tokens))
    ids[0, 5 : 5 + seen] = 3
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    spans = (Spans(0, tokens, tokens, ((5, 5 + seen),), (), (tokens - 2 * QUESTION, tokens - QUESTION)),)

    def prefill(parts: tuple[Any, ...] = (), reference: Any = None) -> None:
        with torch.no_grad(), intervening(model, parts, spans, reference):
            model(**inputs, logits_to_keep=1, use_cache=False)

    def eager() -> None:
        model.set_attn_implementation({"text_config": "eager"})
        try:
            prefill()
        finally:
            model.set_attn_implementation({"text_config": "sdpa"})

    probe = Probe()
    prefill((probe,))
    reference = probe.reference()
    runs = {"ours": lambda: prefill((BAIR(),), reference), "sdpa": prefill, "eager": eager}
    seconds = fastest(setting.choose(5, 1), **runs)
    detail = ", ".join(f"{name} {1000 * spent:.0f} ms" for name, spent in seconds.items())
    return [
        Result("BAIR prefill / SDPA prefill", seconds["ours"] / seconds["sdpa"], 1.1, detail=detail),
        Result("BAIR prefill / eager prefill", seconds["ours"] / seconds["eager"], 1.0, detail=detail),
    ]


def random_llava(layers: int, sizes: dict[str, int] = TINY) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=500,
        num_hidden_layers=layers,
        max_position_embeddings=8192,
        **sizes,
    )
    made: Any = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    return made.eval().requires_grad_(False)
