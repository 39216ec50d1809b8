import pytest
import torch
from building import ENCODER, pictures, quietly, texts

from morgana.corpus.images import load
from morgana.index import build, delete
from morgana.index.verifying import mend
from morgana.types import Document, MorganaError, SpecError, StoreError


def test_the_vectors_are_those_of_the_encoder_in_order_of_insertion(tmp_path):
    documents = texts(10) + pictures(tmp_path, 5, sizes=((8, 8), (12, 7)))
    index = quietly(documents, ENCODER, tmp_path / "index", batch_size=4)
    ids, vectors = index.embeddings
    assert ids == tuple(d.id for d in documents)
    assert torch.allclose(vectors[:10], ENCODER.encode_text([d.text for d in documents[:10]]), atol=3e-4)
    for row, document in zip(vectors[10:], documents[10:], strict=True):
        assert torch.allclose(row, ENCODER.encode_image(load(document.image))[0], atol=3e-4)
    assert index.documents() == tuple(documents)
    assert (index.verify(), index.quarantine()) == ([], ())


@pytest.mark.parametrize(("embed", "rows"), [("text", 1), ("image", 1), ("both", 2)])
def test_what_is_embedded_of_a_document_with_both_is_chosen(tmp_path, embed, rows):
    (picture,) = pictures(tmp_path, 1)
    both = Document("b", "a boat", picture.image)
    index = quietly([both], ENCODER, tmp_path / "index", embed=embed)
    by_text = ENCODER.encode_text(["a boat"])
    hits = index.search(by_text, 5)[0]
    assert index.embeddings.vectors.shape[0] == rows
    assert [h.document for h in hits] == [both]
    assert (hits[0].score > 0.999) == (embed != "image")


def test_bad_documents_are_listed_and_the_others_built(tmp_path):
    good = pictures(tmp_path, 2)
    (tmp_path / "cut.png").write_bytes(good[0].image.read_bytes()[:60])
    bad = [
        Document("cut", image=tmp_path / "cut.png"),
        Document("gone", image=tmp_path / "gone.png"),
        Document("nul", "a\0b"),
        Document("long", "a" * 1_000_000),
        Document("surrogate", "\ud800"),
        Document("mixed", "a", metadata={1: "a", "b": "c"}),  # keys that cannot be put in order
        Document("nothing"),
    ]
    index = quietly([*bad[:3], *good, *bad[3:]], ENCODER, tmp_path / "index", batch_size=2)
    assert [d.id for d in index.documents()] == ["i0", "i1"]
    reasons = dict(index.quarantine())
    assert list(reasons) == [d.id for d in bad]
    assert "cut.png" in reasons["cut"]
    assert "there is no image file" in reasons["gone"]
    assert "NUL character at 1" in reasons["nul"]
    assert "1000000 characters" in reasons["long"]
    assert "surrogates" in reasons["surrogate"]
    assert "cannot be written as JSON" in reasons["mixed"]
    assert "neither text nor image" in reasons["nothing"]
    assert index.info()["quarantined"] == 7


@pytest.mark.parametrize("embed", ["text", "both"])
def test_of_documents_with_one_id_the_last_that_can_be_embedded_is_kept_as_asked(tmp_path, embed):
    same = pictures(tmp_path, 3)
    given = [*texts(10), Document("d3", "again"), *same, Document("d3", "at last"), Document(same[1].id, "a boat")]
    given += [Document("d5", "", tmp_path / "broken.png")]
    (tmp_path / "broken.png").write_bytes(b"no image")
    index = quietly(given, ENCODER, tmp_path / "index", batch_size=2, replace=True, embed=embed)
    wanted = [d for d in texts(10) if d.id != "d3"] + [same[0], same[2], *given[-3:-1]]
    assert index.documents() == tuple(wanted)
    assert index.quarantine()[0][0] == "d5"
    assert index.embeddings.ids == tuple(d.id for d in wanted)
    assert torch.allclose(index.vectors(["d3"]), ENCODER.encode_text(["at last"]), atol=3e-4)
    assert index.verify() == []
    assert " --replace --overwrite" in mend(index.path, ["x"])
    with pytest.raises(SpecError, match="choose one of them"):
        quietly(given, ENCODER, tmp_path / "other", replace=True, fold=True)


def test_an_id_that_comes_twice_is_named(tmp_path):
    with pytest.raises(
        StoreError,
        match=r"the corpus has two documents 'd3'; give each an id of its own \(they are number 4 and number 11\)",
    ):
        quietly([*texts(10), Document("d3", "again")], ENCODER, tmp_path / "index", batch_size=2)


def test_an_empty_corpus_and_one_of_bad_documents_are_refused(tmp_path):
    with pytest.raises(StoreError, match="nothing of the corpus can be indexed: it has no documents"):
        quietly([], ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match=r"all 1 documents were refused, the first: .*NUL character"):
        quietly([Document("d", "\0")], ENCODER, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_replaced_only_when_asked(tmp_path):
    quietly(texts(3), ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match=r"replace it with --overwrite \(overwrite=True in Python\)"):
        quietly(texts(5), ENCODER, tmp_path / "index")
    assert len(quietly(texts(5), ENCODER, tmp_path / "index", overwrite=True).documents()) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_index_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is in the way and is not an index"):
        quietly(texts(3), ENCODER, tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


class Wrong:
    """An encoder that gives the same row for every text."""

    def __init__(self, rows):
        self.rows, self.dimension, self.image_size, self.fingerprint = rows, 16, 8, "wrong"

    def __repr__(self):
        return "Wrong()"

    def encode_text(self, texts):
        return self.rows.expand(len(texts), -1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.full((1, 16), float("nan")), r"Wrong\(\) gave a vector for 'd0' that holds NaN or infinity"),
        (torch.ones(1, 16), "that is not of unit length but 4"),
        (torch.zeros(1, 16), "not of unit length but 0"),
        (torch.ones(1, 5), r"gave vectors of shape \(3, 5\), not \(3, 16\)"),
    ],
    ids=["nan", "long", "zero", "dimension"],
)
def test_vectors_that_are_no_unit_vectors_stop_the_build(tmp_path, rows, message):
    with pytest.raises(SpecError, match=message):
        quietly(texts(3), Wrong(rows), tmp_path / "index")


@pytest.mark.parametrize(
    ("option", "message"), [({"embed": "all"}, "choose one of text"), ({"batch_size": 0}, "at least 1")]
)
def test_other_arguments_are_refused(tmp_path, option, message):
    with pytest.raises(SpecError, match=message):
        quietly(texts(3), ENCODER, tmp_path / "index", **option)


def test_progress_in_a_pipe_is_plain_lines(tmp_path, capsys):
    build(texts(3), ENCODER, tmp_path / "index")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("indexing: 3 of 3, ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(torch.ones(1, 16), "3"), "k='3'; ask for at least 1"),
        (lambda index: index.search(torch.ones(1, 16), 2.5), "k=2.5; ask for at least 1"),
        (lambda index: index.search(torch.ones(1, 16), 2, where=3), "where=3; write a filter such as"),
        (lambda index: quietly(["x"], ENCODER, index.path / "other"), "gave 'x' as number 1; give it as a Document"),
    ],
)
def test_what_is_no_number_filter_or_document_is_told(tmp_path, call, message):
    index = quietly(texts(3), ENCODER, tmp_path / "index")
    with pytest.raises(MorganaError, match=message):
        call(index)


def test_vectors_of_numpy_are_searched_too(tmp_path):
    index = quietly(texts(3), ENCODER, tmp_path / "index")
    vectors = ENCODER.encode_text(["text number 1"])
    assert index.search(vectors.double().numpy(), 2) == index.search(vectors, 2)


def test_a_rebuild_is_not_said_to_bring_back_what_was_changed_since(tmp_path):
    index = quietly(texts(3), ENCODER, tmp_path / "index")
    assert "not in that corpus" not in mend(index.path, ["segments/000001/vectors.npy"])
    delete(index.path, ["d1"])
    assert "--overwrite (what was added, replaced or deleted since is not in that corpus)" in mend(index.path, ["x"])
