"""POPE's question files: JSON lines with `question_id`, `image`, `text` and a `label` of yes or no."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read the POPE questions {path}: {error}") from None
    return [question(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def question(line: str, path: Path, number: int) -> PopeQuestion:
    try:
        raw = json.loads(line)
        present = {"yes": True, "no": False}[str(raw["label"]).strip().lower()]
        return PopeQuestion(str(raw["question_id"]), str(raw["image"]), str(raw["text"]), present)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}, line {number}, is no POPE question ({type(error).__name__}: {error}); wanted "
            '{"question_id", "image", "text", "label": "yes" or "no"}'
        ) from None
