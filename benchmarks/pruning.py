"""One-shot pruning to 11 %: prefill against the ideal of a prompt of that length, and what selection alone costs."""

from __future__ import annotations

import time
from typing import Any

import torch
from _measure import Result, Setting, fastest
from bair import PATCH, QUESTION, SIDE, random_llava

from morgana.generation.prompts import Spans
from morgana.generation.pruner import Pruner
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.hiprune import HiPrune
from morgana.generation.pruning.mmtok import MMTok
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning

KEEP = 0.11
PRUNERS = (UniformGrid(KEEP), FasterVLM(KEEP), HiPrune(KEEP), MMTok(KEEP))


class Clocked:
    """A pruner, and the seconds of its fastest choice."""

    def __init__(self, pruner: Pruner) -> None:
        self.pruner, self.seconds = pruner, float("inf")
        self.keep, self.stages, self.watched = pruner.keep, pruner.stages, pruner.watched

    def choose(self, sight: Any, count: int) -> Any:
        start = time.perf_counter()
        chosen = self.pruner.choose(sight, count)
        self.seconds = min(self.seconds, time.perf_counter() - start)
        return chosen


def bench(setting: Setting) -> list[Result]:
    tokens, model = 1000, random_llava(setting.choose(24, 4))
    seen = (SIDE // PATCH) ** 2
    ids = torch.randint(4, 500, (1, tokens))
    ids[0, 5 : 5 + seen] = 3
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    spans = (Spans(0, tokens, tokens, ((5, 5 + seen),), (), (tokens - 2 * QUESTION, tokens - QUESTION)),)
    short = torch.randn(1, tokens - seen + round(KEEP * seen), model.config.get_text_config().hidden_size)
    clocked = {type(pruner).__name__: Clocked(pruner) for pruner in PRUNERS}

    def prefill(pruner: Any = None) -> None:
        with torch.no_grad(), pruning(model, () if pruner is None else (pruner,), spans):
            model(**inputs, logits_to_keep=1, use_cache=False)

    def ideal() -> None:
        with torch.no_grad():
            model.get_image_features(inputs["pixel_values"])
            model.lm_head(model.get_decoder()(inputs_embeds=short, use_cache=False).last_hidden_state[:, -1:])

    runs: dict[str, Any] = {name: (lambda pruner=pruner: prefill(pruner)) for name, pruner in clocked.items()}
    seconds = fastest(setting.choose(5, 1), whole=prefill, ideal=ideal, **runs)
    results = []
    for name, pruner in clocked.items():
        detail = (
            f"{1000 * seconds[name]:.0f} ms, ideal {1000 * seconds['ideal']:.0f}, whole {1000 * seconds['whole']:.0f}"
        )
        speed = seconds["ideal"] / seconds[name]
        results.append(Result(f"{name}({KEEP}): speed / ideal", speed, 0.8, more_is_better=True, detail=detail))
        share = pruner.seconds / seconds["whole"]
        results.append(
            Result(f"{name}({KEEP}): selection / prefill", share, 0.03, detail=f"{1e3 * pruner.seconds:.1f} ms")
        )
    return results
