"""A row that cannot be read is listed with its reason, and everything good is indexed, whatever the corpus."""

import io
import json
import tarfile

import pyarrow as arrow
import pytest
from building import ENCODER, pictures, quietly
from pyarrow import parquet

from morgana.corpus.image_folder import ImageFolder
from morgana.corpus.jsonlines import JSONLines
from morgana.corpus.parquet import Parquet
from morgana.corpus.webdataset import WebDataset
from morgana.types import StoreError


def folder(root):
    pictures(root, 3)
    (root / "000.txt").write_text("a harbour")
    (root / "001.txt").write_bytes(b"caf\xe9")
    return ImageFolder(str(root)), "001.png", "save it as UTF-8"


def lines(root):
    rows = [b'{"_id": "a", "text": "fog"}', b'{"_id": "b", "tex', b'{"_id": "c", "text": "mist"}']
    (root / "corpus.jsonl").write_bytes(b"\n".join(rows))
    return JSONLines(str(root)), f"{root / 'corpus.jsonl'}:2", "is not JSON in UTF-8"


def outside(root):
    rows = [{"_id": "a", "text": "fog"}, {"_id": "b", "image": "../../x.png"}, {"_id": "c", "text": "mist"}]
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return JSONLines(str(root)), f"{root / 'corpus.jsonl'}:2", "lies outside"


def rows(root):
    path = root / "a.parquet"
    parquet.write_table(arrow.table({"text": ["fog", "", "mist"], "image": [None, "/etc/passwd", None]}), path)
    return Parquet(str(path)), f"{path}:1", "lies outside"


def tar(root):
    path = root / "a.tar"
    with tarfile.open(path, "w") as file:
        for name, data in [("a.txt", b"fog"), ("b.txt", b"caf\xe9"), ("b.json", b"{}"), ("c.txt", b"mist")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return WebDataset(str(path)), f"{path}:b", "its caption is not UTF-8"


@pytest.mark.parametrize("make", [folder, lines, outside, rows, tar], ids=lambda make: make.__name__)
@pytest.mark.parametrize("fold", [False, True], ids=["", "folded"])
def test_a_bad_row_is_listed_and_the_others_are_built(tmp_path, make, fold):
    (tmp_path / "data").mkdir()
    corpus, place, reason = make(tmp_path / "data")
    index = quietly(corpus, ENCODER, tmp_path / "index", fold=fold)
    assert len(index.documents()) == 2
    ((named, why),) = index.quarantine()
    assert named == place
    assert reason in why
    with pytest.raises(StoreError, match=reason):
        corpus.documents()


def test_a_full_disk_is_no_fault_of_a_row(tmp_path, little_space):
    parquet.write_table(arrow.table({"image": [b"x" * 100_000], "text": ["fog"]}), tmp_path / "a.parquet")
    with little_space(50_000), pytest.raises(StoreError, match="cannot write"):
        quietly(Parquet(str(tmp_path / "a.parquet")), ENCODER, tmp_path / "index")
