"""The contact sheet shows its tiles unchanged, and the poster is a picture on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morgana.corpus.atlas.preview import MARGIN, contact_sheet, write_preview
from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import site, view
from morgana.types import SpecError, StoreError


def test_a_sheet_holds_every_tile_as_rendered() -> None:
    views = [view(0, site(0, n), 0) for n in range(5)]
    sheet = np.asarray(contact_sheet(views, 64, columns=3, captions=[f"no {n}" for n in range(5)]))
    assert np.array_equal(sheet[MARGIN : MARGIN + 64, MARGIN : MARGIN + 64], render(views[0], 64))
    assert sheet.shape[1] > 3 * 64
    assert sheet.shape[0] > 2 * 64


@pytest.mark.parametrize(("views", "columns"), [(0, 3), (2, 0)])
def test_an_empty_sheet_is_refused(views: int, columns: int) -> None:
    with pytest.raises(SpecError, match="it needs at least one of both"):
        contact_sheet([view(0, site(0, n), 0) for n in range(views)], columns=columns)


def test_the_poster_is_written_and_varied(tmp_path: Path) -> None:
    path = write_preview(tmp_path / "new" / "atlas.png")
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert 900 < sheet.width < 1600
        assert np.asarray(sheet).std() > 30


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match=r"cannot write the preview to .*file"):
        write_preview(blocked / "atlas.png")
