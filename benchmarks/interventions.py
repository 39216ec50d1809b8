"""Prefill under every intervention (calibration apart), against SDPA and eager attention, on 24 tiny layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from _measure import Result, Setting, fastest
from bair import PATCH, QUESTION, SIDE, random_llava

from morgana.generation.attention import calibrating, intervening
from morgana.generation.prompts import Spans
from morgana.generation.view import Reference
from morgana.generation.visual import Probe
from morgana.spec import parse

FEW = ("BAIR()", "MADRAG()", "GIFT()")  # they edit the last prompt row, or the question's
MANY = (
    *("VAR(mass=0.0, tau=1.0, rho=1.0)", "CMAI()", "DropHeads()"),  # scores of every text row
    *("AIF(0.5)", "DropLayers(0)", "DebiasedAttention()"),  # the mask of every text row
    *("ModalityMutual()", "NAAViT()", "NeighbourAware()"),  # the mask of every image row
    "PositionScaling()",
)


def bench(setting: Setting) -> list[Result]:
    model = random_llava(setting.choose(24, 8))  # GIFT's depths need eight
    found = []
    for tokens in (1000, setting.choose(4000, 1200)):
        found += at(model, tokens, setting.choose(3, 1))
    return found


def at(model: Any, tokens: int, rounds: int) -> list[Result]:
    """Ratios at a prompt of this many tokens; every run is compared with SDPA and eager runs of its own turn."""
    seen = (SIDE // PATCH) ** 2
    ids = torch.randint(4, 500, (1, tokens), generator=torch.Generator().manual_seed(0))
    ids[0, 5 : 5 + seen] = 3
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": image}
    question = (tokens - 2 * QUESTION, tokens - QUESTION)
    spans = (Spans(0, tokens, tokens, ((5, 5 + seen),), ((5 + seen, question[0]),), question),)

    def prefill(parts: Sequence[Any] = (), reference: Reference | None = None) -> None:
        with torch.no_grad(), intervening(model, parts, spans, reference):
            model(**inputs, logits_to_keep=1, use_cache=False)

    def eager() -> None:
        model.set_attn_implementation({"text_config": "eager"})
        try:
            prefill()
        finally:
            model.set_attn_implementation({"text_config": "sdpa"})

    def calibrated(part: Any) -> Reference:
        probe = Probe()
        prefill((probe,))
        reference = probe.reference()
        if part.needs.calibration == "whole":
            with torch.no_grad(), calibrating(model, (part,), spans, reference.notes):
                model(**inputs, logits_to_keep=1, use_cache=False)
        return reference

    found = []
    for name in (*FEW, *MANY):
        part = parse(name)
        reference = calibrated(part)
        runs = {"ours": lambda p=part, r=reference: prefill((p,), r), "sdpa": prefill, "eager": eager}
        seconds = fastest(rounds, **runs)
        detail = ", ".join(f"{key} {1000 * spent:.0f} ms" for key, spent in seconds.items())
        goal = 1.1 if name in FEW else 1.5
        found += [
            Result(f"{part!r} / SDPA, {tokens:,} tokens", seconds["ours"] / seconds["sdpa"], goal, detail=detail),
            Result(f"{part!r} / eager, {tokens:,} tokens", seconds["ours"] / seconds["eager"], 1.0),
        ]
    return found
