"""A generator of each family on tiny random weights, and something to ask it."""

from __future__ import annotations

import pytest
import torch
from families import BUILDERS

from morgana.generation.generators.hf import HF
from morgana.types import Document, Hit, Hits, Query


@pytest.fixture(params=["tiny_llava_folder", "tiny_qwen2vl_folder"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def generator(folder: str) -> HF:
    return HF(folder, max_new_tokens=5)


@pytest.fixture
def query() -> Query:
    return Query("q", "Who operates the harbour in this image?")


@pytest.fixture
def hits() -> Hits:
    texts = ("The harbour of Calmouth is operated by Bluewater Holdings since 1987.", "Fog is a cloud at the ground.")
    return tuple(Hit(Document(str(i), text), 0.5) for i, text in enumerate(texts))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["llava", "qwen2_vl", *BUILDERS])
def family(request: pytest.FixtureRequest, families: dict[str, str]) -> tuple[str, str]:
    return request.param, families[request.param]
