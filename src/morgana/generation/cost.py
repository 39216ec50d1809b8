"""What a prompt costs a generator: seconds of its prefill, and bytes of the key-value cache that it leaves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from morgana.generation.attention import intervening
from morgana.generation.shortening import pruning
from morgana.types import Hits, Pixels, Query

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


class Cost(NamedTuple):
    """Of one prefill: wall-clock seconds, bytes of keys and values, and visual tokens by layer, mean over prompts."""

    seconds: float
    cache_bytes: int
    tokens: tuple[float, ...]


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a transformers cache holds."""
    held = [x for layer in cache.layers for x in (layer.keys, layer.values) if x is not None]
    return sum(x.numel() * x.element_size() for x in held)


def wait(network: Any) -> None:
    """Until the device has done what it was told."""
    if network.device.type == "cuda":
        torch.cuda.synchronize(network.device)


@torch.no_grad()
def prefill_cost(
    generator: HF, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]
) -> Cost:
    """Measure one prefill of a batch, calibration apart."""
    prompt = generator.write(pixels, queries, hits)
    reference = generator._calibrate(pixels, queries, prompt)
    network = generator.network
    wait(network)
    start = time.perf_counter()
    with (
        pruning(network, generator.pruners, prompt.spans) as kept,
        intervening(network, generator.interventions, prompt.spans, reference),
    ):
        cache = network(**prompt.inputs, use_cache=True, logits_to_keep=1).past_key_values
    wait(network)
    seconds = time.perf_counter() - start
    depth = network.config.get_text_config().num_hidden_layers
    by_layer = ([sum(len(x) for x in row) for row in kept.images(layer)] for layer in range(depth))
    return Cost(seconds, cache_bytes(cache), tuple(sum(counts) / len(counts) for counts in by_layer))
