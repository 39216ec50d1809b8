"""Reading a transformers image-text model and its processor, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from morgana import weights
from morgana.types import SpecError, StoreError

BUNDLED = Path(__file__).parents[2] / "models" / "atlas-mllm"
OFFLINE = 'without a network, use the bundled "atlas" or the path of a local folder'


def load(name: str, revision: str | None, local_files_only: bool, device: str | None) -> tuple[Any, Any]:
    """The model in eval mode, without parameter gradients, and its processor; equal arguments share one model.

    `device` None is the first CUDA device, or else the CPU; on the CPU weights are float32, elsewhere as stored.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = BUNDLED if name == "atlas" else Path(name)
    if name == "atlas" and not (folder / "config.json").is_file():
        raise StoreError(f"the bundled model is not in {folder}; make it: morgana train generator")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise StoreError(f"{folder} holds no config.json, so it is no transformers model; {OFFLINE}")
        stamp = tuple(sorted((f.name, f.stat().st_mtime_ns) for f in folder.glob("*.*")))
        return read(str(folder), stamp, None, True, place)
    if folder.is_absolute() or name.startswith((".", "~")):
        raise StoreError(f"there is no folder {name}; {OFFLINE}, or a hub name such as llava-hf/llava-1.5-7b-hf")
    return read(name, (), revision, local_files_only, place)


@lru_cache(maxsize=2)
def read(
    name: str, stamp: tuple[tuple[str, int], ...], revision: str | None, local_files_only: bool, device: str
) -> tuple[Any, Any]:
    """`stamp` is when the files were written, so that a model trained anew is read anew."""
    del stamp
    from transformers import AutoModelForImageTextToText, AutoProcessor

    writer: Any = AutoProcessor
    network: Any = AutoModelForImageTextToText
    where = {"revision": revision, "local_files_only": local_files_only}
    where = {key: value for key, value in where.items() if value}
    try:
        with quiet(), weights.hub(name):
            processor = writer.from_pretrained(name, **where)
            model, report = network.from_pretrained(
                name,
                dtype=torch.float32 if device == "cpu" else "auto",
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
                **where,
            )
    except Exception as error:  # the hub, the network, JSON and safetensors each raise their own
        line = str(error).strip().split("\n")[0][:300]
        raise StoreError(f"cannot load the model {name!r}: {line or type(error).__name__}; {OFFLINE}") from error
    if lost := sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"]))):
        raise StoreError(f"the weights of {name} lack {lost[0]} and {len(lost) - 1} more; fetch or train it again")
    check(model, name)
    if getattr(processor, "tokenizer", None) is None:
        raise SpecError(f"{name} has no tokenizer in its processor; {OFFLINE}")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model.to(device).eval().requires_grad_(False), processor


@lru_cache(maxsize=2)
def fingerprint(model: Any, processor: Any) -> str:
    """A hash of the weights and the tokenizer's work, made once for all generators that share the model."""
    return weights.fingerprint(model, processor.tokenizer(weights.PROBE)["input_ids"])


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar of transformers' own."""
    from transformers.utils import logging

    bars: Any = logging
    if not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


def check(model: Any, name: str) -> None:
    """StoreError naming the first tensor that holds NaN or an infinity."""
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise StoreError(f"the weights of {name} hold NaN or infinity in {key}; fetch or train the model again")
