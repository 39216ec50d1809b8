import pytest
import torch

from morgana.corpus.image_folder import ImageFolder
from morgana.corpus.images import save
from morgana.spec import parse
from morgana.types import Document, StoreError


def test_captions_are_read_by_stem_and_order_is_that_of_paths(tmp_path):
    for name in ("b.png", "sub/a.png", "a.png"):
        save(torch.zeros(1, 3, 2, 2), tmp_path / name)
    (tmp_path / "b.txt").write_text("a boat\n")
    (tmp_path / "sub" / "a.caption").write_text("a plane")
    (tmp_path / "notes.md").write_text("not an image")
    corpus = ImageFolder(str(tmp_path))
    assert corpus.documents() == (
        Document("a.png", "", tmp_path / "a.png"),
        Document("b.png", "a boat", tmp_path / "b.png"),
        Document("sub/a.png", "a plane", tmp_path / "sub" / "a.png"),
    )
    assert (corpus.queries(), corpus.qrels()) == ((), {})
    assert parse(repr(corpus)) == corpus


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"there is no image folder .*nowhere; check the path"):
        ImageFolder(str(tmp_path / "nowhere")).documents()
    with pytest.raises(StoreError, match=r"holds no images; it should hold files ending in .*\.png"):
        ImageFolder(str(tmp_path)).documents()


def test_links_out_of_the_folder_and_captions_in_other_encodings_are_refused(tmp_path):
    root = tmp_path / "root"
    save(torch.zeros(1, 3, 2, 2), root / "a.png")
    (root / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StoreError, match=r"cannot read the caption .*a\.txt.*save it as UTF-8"):
        ImageFolder(str(root)).documents()
    (root / "a.txt").unlink()
    save(torch.zeros(1, 3, 2, 2), tmp_path / "b.png")
    (root / "b.png").symlink_to(tmp_path / "b.png")
    with pytest.raises(StoreError, match=r"the image 'b\.png' lies outside"):
        ImageFolder(str(root)).documents()
