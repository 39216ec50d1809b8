import io
import tarfile

import pytest
from PIL import Image

from morgana.corpus import _kept, webdataset
from morgana.corpus.images import load
from morgana.corpus.webdataset import WebDataset
from morgana.types import StoreError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "cache"))


def png(level=0):
    made = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(made, "PNG")
    return made.getvalue()


def write(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def test_members_of_one_stem_are_one_document(tmp_path):
    members = [
        ("a/0.png", png(1)),
        ("a/0.txt", b"a boat\n"),
        ("a/0.json", b'{"caption": "not this", "width": 4}'),
        ("a/1.png", png(2)),
        ("a/1.json", b'{"caption": "a quay"}'),
        ("2.txt", b"text alone"),
        ("2.cls", b"ignored"),
    ]
    found = WebDataset(write(tmp_path / "a.tar", members)).documents()
    assert [(d.id, d.text) for d in found] == [("a/0", "a boat"), ("a/1", "a quay"), ("2", "text alone")]
    assert dict(found[0].metadata) == {"caption": "not this", "width": "4"}
    assert [d.image is not None for d in found] == [True, True, False]
    assert load(found[0].image).shape == (1, 3, 4, 4)
    assert tuple(WebDataset(str(tmp_path / "a.tar")).stream()) == found


def test_a_folder_of_tars_is_read_in_order_compressed_or_not(tmp_path):
    write(tmp_path / "1.tar.gz", [("y.txt", b"second")], "w:gz")
    write(tmp_path / "0.tar", [("x.txt", b"first")])
    assert [d.text for d in WebDataset(str(tmp_path)).stream()] == ["first", "second"]


def test_names_that_lead_out_and_links_write_nothing_outside(tmp_path):
    path = tmp_path / "evil" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("../../outside.png", "/tmp/absolute.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png())
            tar.addfile(info, io.BytesIO(png()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = WebDataset(str(path)).documents()
    assert [d.id for d in found] == ["../../outside", "/tmp/absolute"]
    assert all((tmp_path / "cache") in d.image.parents for d in found)
    assert {p.name for p in tmp_path.iterdir()} == {"evil", "cache"}


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="there is no tar at"):
        WebDataset(str(tmp_path / "nothing")).documents()
    whole = write(tmp_path / "a.tar", [("a.png", png()), ("a.txt", b"x" * 5000)])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:2500])
    with pytest.raises(StoreError, match=r"cut\.tar"):
        WebDataset(str(tmp_path / "cut.tar")).documents()
    with pytest.raises(StoreError, match=r"b\.tar:b\.json is not JSON"):
        WebDataset(write(tmp_path / "b.tar", [("b.json", b"{")])).documents()
    with pytest.raises(StoreError, match="not UTF-8"):
        WebDataset(write(tmp_path / "c.tar", [("c.txt", b"\xff")])).documents()
    for module in (webdataset, _kept):
        monkeypatch.setattr(module, "LARGEST", 10)
    with pytest.raises(StoreError, match=r"a\.tar:a\.png has more than 10 bytes"):
        WebDataset(whole).documents()
