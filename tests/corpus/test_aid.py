import json

import pytest

from morgana.corpus.aid import AID
from morgana.corpus.images import load
from morgana.spec import parse
from morgana.types import StoreError


def tile(name, label, split, captions=(), haze=False):
    return {"image": f"images/{name}", "label": label, "split": split, "captions": list(captions), "haze": haze}


def manifest(root, rows):
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return AID(str(root))


@pytest.fixture
def small(tmp_path):
    return manifest(
        tmp_path,
        [
            tile("a", "Port", "train", ["many boats ."]),
            tile("b", "Port", "dev", ["many boats .", "a pier ."], haze=True),
            tile("c", "Park", "dev", ["green trees .", "a pier ."]),
            tile("d", "Desert", "dev"),
        ],
    )


def test_captions_of_every_split_are_documents_each_once(small):
    found = [(d.text, d.metadata["labels"]) for d in small.documents()]
    assert found == [("many boats .", "Port"), ("a pier .", "Park;Port"), ("green trees .", "Park")]


def test_relevant_is_a_caption_of_the_same_label(small, tmp_path):
    assert [q.id for q in small.queries()] == ["images/b", "images/c", "images/d"]
    assert small.queries()[0].image == tmp_path / "images" / "b"
    assert small.qrels() == {
        "images/b": {"caption-0000": 1, "caption-0001": 1},
        "images/c": {"caption-0001": 1, "caption-0002": 1},
    }


def test_hazy_tiles_are_told_apart(small):
    assert [q.id for q in AID(small.root, haze=True).queries()] == ["images/b"]
    assert [q.id for q in AID(small.root, haze=False).queries()] == ["images/c", "images/d"]
    assert parse(repr(AID(small.root, haze=True))) == AID(small.root, haze=True)


def test_what_is_missing_is_named(tmp_path, small):
    with pytest.raises(StoreError, match=r"has no tiles; the manifest has the splits dev, train"):
        AID(small.root, split="test").queries()
    with pytest.raises(StoreError, match=r"there is no .*nowhere/manifest\.jsonl; name the folder"):
        AID(str(tmp_path / "nowhere")).documents()
    with pytest.raises(StoreError, match="is empty"):
        manifest(tmp_path, []).documents()
    with pytest.raises(StoreError, match="has no captions"):
        manifest(tmp_path, [tile("a", "Port", "dev")]).documents()
    with pytest.raises(StoreError, match=r"manifest\.jsonl:1: 'label' is None; write a string"):
        manifest(tmp_path, [tile("a", None, "dev")]).documents()
    with pytest.raises(StoreError, match="lies outside"):
        manifest(tmp_path, [tile("../../a", "Port", "dev")]).documents()


def test_the_real_data_are_read(shared_data):
    if not (shared_data / "aid").is_dir():
        pytest.skip("AID is not among the real data")
    corpus = AID(str(shared_data / "aid"))
    queries, qrels = corpus.queries(), corpus.qrels()
    assert (len(corpus.documents()), len(queries), len(qrels)) == (2848, 892, 892)
    assert load(queries[0].image).shape[1] == 3
