"""One-shot pruning to 11 %: prefill against the ideal of a prompt of that length, and what selection alone costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _measure import Result, Setting, fastest
from bair import PATCH, QUESTION, SIDE, random_llava

from morgana.generation.prompts import Spans
from morgana.generation.pruner import BEFORE, Narrowing, Pruner
from morgana.generation.pruning.fastervlm import FasterVLM
from morgana.generation.pruning.hiprune import HiPrune
from morgana.generation.pruning.mmtok import MMTok
from morgana.generation.pruning.uniform_grid import UniformGrid
from morgana.generation.shortening import pruning
from morgana.spec import components

KEEP = 0.11
PREFILLED = (UniformGrid(KEEP), FasterVLM(KEEP), HiPrune(KEEP), MMTok(KEEP))  # one by grid, CLS, all of attention, text


class Clocked:
    """A pruner that is asked everything `rounds` times, and the seconds of the fastest."""

    def __init__(self, pruner: Pruner, rounds: int) -> None:
        self.rounds, self.seconds = rounds, 0.0
        self.keep, self.stages, self.watched = pruner.keep, pruner.stages, pruner.watched
        self.choose = self.timed(pruner.choose)
        if isinstance(pruner, Narrowing):
            self.narrow = self.timed(pruner.narrow)

    def timed(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            made: list[Any] = []
            self.seconds += fastest(self.rounds, ask=lambda: made.append(ask(*args)))["ask"]
            return made[-1]

        return run


def before() -> list[Any]:
    """Every pruner that acts once, before the language model."""
    return [cls for cls in components("pruner") if cls().stages(24) == BEFORE]


def bench(setting: Setting) -> list[Result]:
    tokens, model = 1000, random_llava(setting.choose(24, 4))
    seen = (SIDE // PATCH) ** 2
    ids = torch.randint(4, 500, (1, tokens))
    ids[0, 5 : 5 + seen] = 3
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    spans = (Spans(0, tokens, tokens, ((5, 5 + seen),), (), (tokens - 2 * QUESTION, tokens - QUESTION)),)
    short = torch.randn(1, tokens - seen + round(KEEP * seen), model.config.get_text_config().hidden_size)

    def prefill(pruner: Any = None) -> None:
        with torch.no_grad(), pruning(model, () if pruner is None else (pruner,), spans):
            model(**inputs, logits_to_keep=1, use_cache=False)

    def ideal() -> None:
        with torch.no_grad():
            model.get_image_features(inputs["pixel_values"])
            model.lm_head(model.get_decoder()(inputs_embeds=short, use_cache=False).last_hidden_state[:, -1:])

    runs: dict[str, Any] = {type(pruner).__name__: (lambda pruner=pruner: prefill(pruner)) for pruner in PREFILLED}
    seconds = fastest(setting.choose(5, 1), whole=prefill, ideal=ideal, **runs)
    results = []
    for name in runs:
        detail = (
            f"{1000 * seconds[name]:.0f} ms, ideal {1000 * seconds['ideal']:.0f}, whole {1000 * seconds['whole']:.0f}"
        )
        speed = seconds["ideal"] / seconds[name]
        results.append(Result(f"{name}({KEEP}): speed / ideal", speed, 0.8, more_is_better=True, detail=detail))
    for cls in before():
        clocked = Clocked(cls(KEEP), setting.choose(5, 1))
        prefill(clocked)
        share = clocked.seconds / seconds["whole"]
        detail = f"{1e3 * clocked.seconds:.1f} ms"
        results.append(Result(f"{cls.__name__}({KEEP}): selection / prefill", share, 0.03, detail=detail))
    return results
