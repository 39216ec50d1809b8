import json

import numpy as np
import pytest
import torch
from building import ENCODER, content, pictures, quietly, texts
from fakes import ConvEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.corpus.images import save
from morgana.files import locked
from morgana.index import Index, add, compact, delete, merge, upsert, verify
from morgana.types import Document, StoreError


@pytest.fixture
def index(tmp_path):
    return quietly(texts(20), ENCODER, tmp_path / "index")


def others(count, start=100):
    return [Document(f"d{n}", f"other text {n}") for n in range(start, start + count)]


def ids(index):
    return [d.id for d in index.documents()]


def found(index, text, k=3):
    return [h.document.id for h in index.search(ENCODER.encode_text([text]), k)[0]]


def test_what_is_added_is_found_and_nothing_else_is_rewritten(index):
    before = content(index.path)
    made = add(index.path, others(5), ENCODER)
    after = content(index.path)
    assert ids(made) == [f"d{n}" for n in (*range(20), *range(100, 105))]
    assert found(made, "other text 103", 1) == ["d103"]
    assert found(made, "text number 7", 1) == ["d7"]
    assert {name for name in before if after[name] != before[name]} == {"manifest.json"}
    assert (verify(index.path), made.manifest.generation) == ([], 2)
    assert made.embeddings.ids == tuple(ids(made))
    assert torch.equal(made.vectors(["d103", "d7"]), made.embeddings.vectors[[23, 7]])


def test_known_ids_are_named_and_nothing_is_added(index):
    before = content(index.path)
    with pytest.raises(StoreError, match=r"holds 'd7', 'd3' already; nothing was added: upsert replaces"):
        add(index.path, [*others(3), Document("d7", "a"), Document("d3", "b")], ENCODER)
    with pytest.raises(StoreError, match="what is added has two documents 'x'"):
        add(index.path, [Document("x", "a"), Document("x", "b")], ENCODER, batch_size=1)
    assert content(index.path) == before


def test_nothing_to_add_is_said(index):
    before = content(index.path)
    with pytest.raises(StoreError, match="there are no documents to add"):
        add(index.path, [], ENCODER)
    with pytest.raises(
        StoreError, match=r"none of the 1 documents can be indexed, the first: .*neither text nor image"
    ):
        add(index.path, [Document("x")], ENCODER)
    assert content(index.path) == before


def test_upsert_replaces_and_moves_to_the_end(index):
    made = upsert(index.path, [Document("d3", "something else"), Document("new", "quite new")], ENCODER)
    assert ids(made) == [*(f"d{n}" for n in range(20) if n != 3), "d3", "new"]
    assert made.document("d3").text == "something else"
    assert found(made, "something else", 1) == ["d3"]
    assert "d3" not in found(made, "text number 3", 19) or len(ids(made)) == 21
    assert (made.manifest.documents, verify(index.path)) == (21, [])


def test_a_bad_replacement_leaves_the_old_document(index):
    made = upsert(index.path, [Document("d3", "a\0b"), Document("d4", "new four")], ENCODER)
    assert (made.document("d3").text, made.document("d4").text) == ("text number 3", "new four")
    assert [id for id, _ in made.quarantine()] == ["d3"]


def test_a_document_that_was_repaired_leaves_the_quarantine(index):
    bad = [Document("d3", "a\0b"), Document("x", "a\0b"), Document("y", "\0"), Document("\ud800", "no id")]
    for many in (4, 4):  # refused twice, listed once
        made = upsert(index.path, [*bad, *others(1)], ENCODER)
        assert [id for id, _ in made.quarantine()] == ["d3", "x", "y", "\ud800"]
        assert made.info()["quarantined"] == many
    made = upsert(index.path, [Document("x", "now fine")], ENCODER)
    assert [id for id, _ in made.quarantine()] == ["d3", "y", "\ud800"]
    made = compact(index.path)
    assert [id for id, _ in made.quarantine()] == ["d3", "y", "\ud800"]  # the d3 that is there is the one before
    assert (made.manifest.quarantined, verify(index.path)) == (3, [])
    assert upsert(index.path, [Document("d3", "fine too")], ENCODER).info()["quarantined"] == 2
    with pytest.raises(StoreError, match="holds no document"):
        made.document("\ud800")


def test_what_is_deleted_is_not_found(index):
    made = delete(index.path, ["d7", "d0", "d19"])
    assert ids(made) == [f"d{n}" for n in range(1, 19) if n != 7]
    assert "d7" not in found(made, "text number 7", 20)
    assert len(found(made, "text number 7", 20)) == 17
    with pytest.raises(StoreError, match="holds no document 'd7'"):
        made.document("d7")
    assert (made.manifest.documents, made.manifest.vectors, verify(index.path)) == (17, 17, [])
    assert add(index.path, [Document("d7", "back again")], ENCODER).document("d7").text == "back again"


def test_unknown_ids_are_named_and_nothing_is_deleted(index):
    with pytest.raises(
        StoreError, match=r"holds no document 'd33' \(did you mean d3\?\), nor 'z'; nothing was deleted"
    ):
        delete(index.path, ["d1", "d33", "z"])
    assert len(Index.open(index.path).documents()) == 20


def test_everything_may_be_deleted(index):
    made = delete(index.path, ids(index))
    assert made.search(torch.ones(2, 16), 3) == [(), ()]
    assert (made.documents(), made.embeddings.vectors.shape) == ((), (0, 16))
    empty = compact(index.path)
    assert (empty.segments, empty.search(torch.ones(1, 16), 3), verify(index.path)) == ((), [()], [])
    assert ids(add(index.path, others(2), ENCODER)) == ["d100", "d101"]


def test_compact_keeps_what_can_be_found_and_frees_the_rest(index):
    add(index.path, others(5), ENCODER)
    delete(index.path, ["d3", "d101"])
    before = Index.open(index.path)
    made = compact(index.path)
    assert made.documents() == before.documents()
    assert torch.equal(made.embeddings.vectors, before.embeddings.vectors)
    assert [p.name for p in (index.path / "segments").iterdir()] == ["000004"]
    assert list((index.path / "tombstones").iterdir()) == []
    assert verify(index.path) == []


def test_a_document_with_two_vectors_goes_with_both(tmp_path):
    (picture,) = pictures(tmp_path, 1)
    both = Document("b", "a boat", picture.image)
    quietly([both, *texts(3)], ENCODER, tmp_path / "index", embed="both")
    made = delete(tmp_path / "index", ["b"])
    assert (made.manifest.vectors, made.embeddings.ids, verify(made.path)) == (3, ("d0", "d1", "d2"), [])
    made = compact(add(made.path, [both], ENCODER).path)
    assert made.embeddings.ids == ("d0", "d1", "d2", "b", "b")
    assert torch.allclose(made.vectors(["b"]), ENCODER.encode_text(["a boat"]), atol=3e-4)


def test_indexes_of_one_encoder_are_merged(index, tmp_path):
    other = quietly(others(6), ENCODER, tmp_path / "other")
    delete(other.path, ["d102"])
    made = merge(index.path, other.path)
    assert ids(made) == [*(f"d{n}" for n in range(20)), "d100", "d101", "d103", "d104", "d105"]
    assert torch.equal(made.vectors(["d104"]), other.vectors(["d104"]))
    assert verify(index.path) == []
    with pytest.raises(StoreError, match=r"both hold 'd100', 'd101'.*nothing was merged"):
        merge(index.path, other.path)
    assert ids(merge(index.path, other.path, replace=True)) == ids(made)


def test_what_cannot_be_merged_is_refused(index, tmp_path):
    other = quietly(others(3), ConvEncoder(16, seed=1), tmp_path / "other")
    with pytest.raises(StoreError, match="their vectors cannot be compared"):
        merge(index.path, other.path)
    with pytest.raises(StoreError, match="cannot be merged into itself"):
        merge(index.path, index.path)


def test_another_encoder_may_not_add(index):
    with pytest.raises(StoreError, match="was built with"):
        add(index.path, others(1), ConvEncoder(16, seed=1))


def test_one_writer_at_a_time_and_readers_never_wait(index):
    with locked(index.path):
        with pytest.raises(StoreError, match="another process is writing to"):
            delete(index.path, ["d1"])
        assert len(Index.open(index.path).documents()) == 20
    delete(index.path, ["d1"])


def test_a_reader_keeps_its_snapshot_while_everything_changes(index):
    expected = (ids(index), found(index, "text number 3"), index.embeddings.vectors)
    delete(index.path, ["d3"])
    add(index.path, others(3), ENCODER)
    compact(index.path)
    quietly(others(2), ENCODER, index.path, overwrite=True)
    assert (ids(index), found(index, "text number 3")) == expected[:2]
    assert torch.equal(index.embeddings.vectors, expected[2])
    assert index.document("d3").text == "text number 3"
    assert ids(Index.open(index.path)) == ["d100", "d101"]
    assert len(list((index.path / "segments").iterdir())) == 1


def test_what_a_killed_writer_left_is_removed_by_the_next(index):
    (index.path / "segments/000002").mkdir()
    (index.path / "segments/000002/vectors.npy").write_bytes(b"half")
    (index.path / "tombstones").mkdir()
    (index.path / "tombstones/000001-000002.npy").write_bytes(b"half")
    (index.path / ".manifest.json.part").write_bytes(b"{")
    assert verify(index.path) == []
    delete(index.path, ["d1"])
    assert sorted(p.name for p in index.path.iterdir()) == ["manifest.json", "segments", "tombstones"]
    assert [p.name for p in (index.path / "segments").iterdir()] == ["000001"]
    assert verify(index.path) == []


def test_equal_content_is_folded_when_asked(tmp_path):
    pixels = torch.rand(1, 3, 8, 8)
    save(pixels, tmp_path / "a.png")
    save(pixels, tmp_path / "b.png")
    documents = [
        Document("a", image=tmp_path / "a.png"),
        Document("b", image=tmp_path / "b.png"),
        Document("c", "fog"),
        Document("d", "fog", metadata={"x": "y"}),
        Document("e", "fog ", image=tmp_path / "a.png"),
        Document("f", "a\0"),
        Document("g", "a\0"),
    ]
    index = quietly(documents, ENCODER, tmp_path / "index", fold=True, batch_size=2)
    assert ids(index) == ["a", "c", "e"]
    assert index.aliases == {"b": "a", "d": "c"}
    assert index.document("b").id == "a"
    assert [id for id, _ in index.quarantine()] == ["f", "g"]
    assert "content is that of 'f', which was refused" in dict(index.quarantine())["g"]
    with pytest.raises(StoreError, match="holds 'b' already"):
        add(index.path, [Document("b", "x")], ENCODER)
    with pytest.raises(StoreError, match="'b' would go too, folded into one document"):
        delete(index.path, ["a"])
    assert compact(index.path).aliases == index.aliases
    assert ids(delete(index.path, ["b", "a"])) == ["c", "e"]
    assert verify(index.path) == []


def test_an_interrupted_build_that_folds_ends_in_the_same_bytes(tmp_path):
    documents = [Document(f"d{n}", f"text {n % 7}") for n in range(40)]

    def stopping():
        yield from documents[:25]
        raise KeyboardInterrupt

    whole = quietly(documents, ENCODER, tmp_path / "whole", fold=True, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        quietly(stopping(), ENCODER, tmp_path / "index", fold=True, batch_size=4)
    index = quietly(documents, ENCODER, tmp_path / "index", fold=True, batch_size=4)
    assert (len(index.documents()), len(index.aliases)) == (7, 33)
    assert content(index.path) == content(whole.path)


small = st.integers(0, 9)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(small, unique=True, max_size=4)),
        st.tuples(st.just("upsert"), st.lists(small, unique=True, max_size=4)),
        st.tuples(st.just("delete"), st.lists(small, unique=True, max_size=4)),
        st.tuples(st.just("compact"), st.just([])),
    ),
    max_size=6,
)


@settings(max_examples=12, deadline=None)
@given(changes)
def test_any_changes_leave_what_a_dictionary_would_hold(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("changes") / "index"
    held = {d.id: d.text for d in texts(5)}
    quietly(texts(5), ENCODER, path)
    for number, (what, numbers) in enumerate(steps):
        names = [f"d{n}" for n in numbers]
        new = [Document(name, f"{name} of step {number}") for name in names]
        bad = (not names, bool(set(names) & set(held)), not set(names) <= set(held))
        if what == "add" and not bad[0] and not bad[1]:
            add(path, new, ENCODER)
            held |= {d.id: d.text for d in new}
        elif what == "upsert" and not bad[0]:
            upsert(path, new, ENCODER)
            held = {id: text for id, text in held.items() if id not in names} | {d.id: d.text for d in new}
        elif what == "delete" and not bad[2]:
            delete(path, names)
            held = {id: text for id, text in held.items() if id not in names}
        elif what == "compact":
            compact(path)
    index = Index.open(path)
    assert [(d.id, d.text) for d in index.documents()] == list(held.items())
    assert verify(path) == []
    for id, text in held.items():
        (hits,) = index.search(ENCODER.encode_text([text]), len(held))
        assert {h.document.id for h in hits} == set(held)
        assert hits[0].document.id == id or hits[0].score - {h.document.id: h.score for h in hits}[id] < 1e-3


def test_tombstones_are_readable_by_other_tools(index):
    delete(index.path, ["d4", "d2"])
    made = delete(index.path, ["d9"])
    (entry,) = json.loads((index.path / "manifest.json").read_text())["segments"]
    assert np.load(index.path / "tombstones" / entry["tombstones"]).tolist() == [2, 4, 9]
    assert len(list((index.path / "tombstones").iterdir())) == 1
    assert made.info()["segments"][0]["deleted"] == 3
