"""Where real data lie: `$MORGANA_DATA`, or `shared/data` beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

from morgana.types import StoreError


def real_data(name: str) -> Path:
    """The folder of a real data set; StoreError saying where it was looked for."""
    named = os.environ.get("MORGANA_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = root / name
    if not folder.is_dir():
        raise StoreError(f"there is no {folder}; real data are not part of the repository: set MORGANA_DATA to theirs")
    return folder
