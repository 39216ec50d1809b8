"""Where a model runs, whether its weights are numbers, and a hash that names them."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn

from morgana.types import SpecError, StoreError

PROBE = "A harbour with 3 red boats, seen under thin cloud; où? Él naïve 港 — it's BIG."  # shows what a tokenizer does


def device() -> torch.device:
    """Where encoders run: `MORGANA_DEVICE` if set, else the GPU if there is one, else the CPU."""
    named = os.environ.get("MORGANA_DEVICE")
    try:
        return torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise SpecError(
            f"MORGANA_DEVICE={named!r} is no device: {str(error).split('.')[0]}; try cpu or cuda:0"
        ) from None


@contextmanager
def hub(name: str) -> Iterator[None]:
    """Load `name`, a folder or a hub's; where the hub's host leads nowhere, at once from what is on this machine.

    The hub's library would try again for minutes. What libraries log is left to the error that they raise.
    """
    from huggingface_hub import constants

    offline, logged = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    local = offline or Path(name.removeprefix("local-dir:")).is_dir()
    constants.HF_HUB_OFFLINE = offline or not (local or reachable(str(urlsplit(constants.ENDPOINT).hostname)))
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logged)
        constants.HF_HUB_OFFLINE = offline


def reachable(host: str) -> bool:
    """Whether a host's name leads somewhere; behind a proxy that is the proxy's to know."""
    if getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def refused(error: Exception) -> str:
    """A library's reason for not loading a model, in one line."""
    reason = (str(error).split("\n")[0] or type(error).__name__)[:300]
    return f"{reason}; check its files, or the network for a hub name"


def ready(model: nn.Module, name: str) -> None:
    """Set for inference, with gradients to the input only; StoreError if a weight is NaN or infinite."""
    model.eval().requires_grad_(False)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise StoreError(f"the weights of {name} hold NaN or infinity, first in {key!r}; get the checkpoint again")


def fingerprint(model: nn.Module, *settings: Any) -> str:
    """A hash of every weight and of what else decides the vectors: preprocessing, tokens of a probe text."""
    made = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        made.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    made.update(repr(settings).encode())
    return made.hexdigest()
