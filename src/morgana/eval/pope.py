"""POPE's question files: JSON lines with `question_id`, `image`, `text` and a `label` of yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morgana.files import json_lines
from morgana.types import StoreError


@dataclass(frozen=True)
class PopeQuestion:
    """Is this object in this image?"""

    id: str
    image: str  # a file name
    text: str
    present: bool


def read_pope(path: Path) -> list[PopeQuestion]:
    """All questions of a file; StoreError names the line that is none."""
    return [question(raw, place) for place, raw in json_lines(path)]


def question(raw: Mapping[str, Any], place: str) -> PopeQuestion:
    try:
        present = {"yes": True, "no": False}[str(raw["label"]).strip().lower()]
        return PopeQuestion(str(raw["question_id"]), str(raw["image"]), str(raw["text"]), present)
    except KeyError as error:
        wanted = '{"question_id", "image", "text", "label": "yes" or "no"}'
        raise StoreError(f"{place} is no POPE question ({error} fits not); wanted {wanted}") from None
