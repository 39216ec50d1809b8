"""A kind that is chosen by measuring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morgana.index.kinds._base import Kind, Searcher
from morgana.index.vectors import Half, Stored
from morgana.spec import part


@part
class Auto:
    """Chooses."""

    memory: str = "2GB"
    latency: str = "10ms"

    @property
    def exact(self) -> bool:
        return False

    def choose(self, vectors: Stored, folder: Path) -> tuple[Kind, Mapping[str, Any]]:
        raise NotImplementedError

    def write(self, vectors: Stored, folder: Path) -> None:
        raise NotImplementedError

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        raise NotImplementedError
