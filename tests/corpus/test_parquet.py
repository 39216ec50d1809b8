import io

import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from morgana.corpus.images import load
from morgana.corpus.parquet import Parquet
from morgana.types import StoreError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "cache"))


def png(level=0):
    made = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(made, "PNG")
    return made.getvalue()


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path)
    return str(path)


def test_rows_become_documents_and_other_columns_metadata(tmp_path):
    root = write(tmp_path / "a.parquet", id=[7, 8], text=["fog", None], topic=["weather", None], n=[1, 2])
    first, second = Parquet(root).documents()
    assert (first.id, first.text, dict(first.metadata)) == ("7", "fog", {"topic": "weather", "n": "1"})
    assert (second.id, second.text, dict(second.metadata)) == ("8", "", {"n": "2"})
    assert tuple(Parquet(root).stream()) == Parquet(root).documents()


def test_images_are_paths_bytes_or_both(tmp_path):
    (tmp_path / "x.png").write_bytes(png())
    paths = write(tmp_path / "a.parquet", image=["x.png", None])
    held = write(tmp_path / "b.parquet", image=[png(9)])
    both = write(tmp_path / "c.parquet", image=[{"bytes": png(9), "path": "../../evil.png"}])
    first, second = Parquet(paths).documents()
    assert (first.id, first.image, second.image) == ("a.parquet:0", tmp_path / "x.png", None)
    (from_bytes,), (from_both,) = Parquet(held).documents(), Parquet(both).documents()
    assert load(from_bytes.image).shape == (1, 3, 4, 4)
    assert from_both.image.suffix == ".png"
    assert from_both.image.read_bytes() == png(9)
    assert (tmp_path / "cache") in from_both.image.parents


def test_a_folder_is_read_in_order_of_name(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / "set" / f"{name}.parquet", text=[f"{name}0", f"{name}1"])
    assert [d.text for d in Parquet(str(tmp_path / "set")).stream()] == ["a0", "a1", "b0", "b1"]


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(StoreError, match="there is no Parquet file at"):
        Parquet(str(tmp_path / "nothing")).documents()
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"cannot read .*x\.parquet"):
        Parquet(str(tmp_path / "x.parquet")).documents()
    root = write(tmp_path / "y.parquet", txt=["a"])
    with pytest.raises(StoreError, match=r"has no column 'text' \(did you mean txt\?\)"):
        Parquet(root).documents()
    root = write(tmp_path / "z.parquet", image=["../../outside.png"])
    with pytest.raises(StoreError, match="lies outside"):
        Parquet(root).documents()
    root = write(tmp_path / "w.parquet", text=[3])
    with pytest.raises(StoreError, match=r"w\.parquet:0: 'text' is a int"):
        Parquet(root).documents()
