import json
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from building import quietly, reseal, texts
from fakes import ConvEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.corpus.jsonlines import write_jsonlines
from morgana.index import Index, build, verify
from morgana.index.kinds.flat import Flat
from morgana.index.kinds.sq8 import SQ8
from morgana.index.ranking import Stack, rank
from morgana.index.segment import Candidates
from morgana.spec import components
from morgana.types import Document, SpecError, StoreError

ENCODER = ConvEncoder(16)
VECTORS = "segments/000001/vectors.npy"


class Table:
    """An encoder of known vectors: text `n` is row n."""

    def __init__(self, rows):
        self.rows = torch.nn.functional.normalize(torch.as_tensor(rows, dtype=torch.float32), dim=1)
        self.dimension, self.image_size, self.fingerprint = self.rows.shape[1], 0, "table"

    def encode_text(self, texts):
        return self.rows[[int(t) for t in texts]]


def indexed(path, rows):
    documents = [Document(f"d{n}", str(n)) for n in range(len(rows))]
    return build(documents, Table(rows), path, progress=False, overwrite=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    documents = [Document(f"d{n}", f"text number {n}", metadata={"topic": f"t{n % 3}"}) for n in range(50)]
    return build(documents, ENCODER, tmp_path_factory.mktemp("made") / "index", progress=False)


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made.path, tmp_path / "index"))


small = st.integers(-2, 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_order_is_that_of_brute_force_with_ties_by_insertion(tmp_path_factory, data):
    count, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 50))
    rows = data.draw(st.lists(st.tuples(small, small, small).filter(any), min_size=count, max_size=count))
    queries = torch.tensor(
        data.draw(st.lists(st.tuples(small, small, small).filter(any), min_size=1, max_size=4))
    ).float()
    index = indexed(tmp_path_factory.mktemp("brute") / "index", rows)
    vectors = index.embeddings.vectors.double()
    unit = (queries.numpy() / np.linalg.norm(queries.numpy(), axis=1, keepdims=True)).astype(np.float64)
    for hits, query in zip(index.search(queries, k), unit, strict=True):
        scores = np.clip((vectors.numpy() * query).sum(axis=1).astype(np.float32), -1, 1)
        expected = sorted(range(count), key=lambda n: (-scores[n], n))[:k]
        assert [h.document.id for h in hits] == [f"d{n}" for n in expected]
        assert [h.score for h in hits] == pytest.approx([float(scores[n]) for n in expected], abs=1e-6)
        assert all(-1 <= h.score <= 1 for h in hits)


def test_many_equal_documents_come_in_order_of_insertion(tmp_path):
    index = indexed(tmp_path / "index", [(1, 2)] * 500)
    (hits,) = index.search(torch.tensor([[1.0, 2.0]]), 5)
    assert [h.document.id for h in hits] == ["d0", "d1", "d2", "d3", "d4"]


def test_a_document_counts_by_its_best_vector():
    class Two:
        about = SimpleNamespace(vectors=4, documents=2)
        vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], dtype=np.float32)
        owners = np.array([0, 0, 1, 1])

        def search(self, queries, many, thorough, only):
            scores = queries @ self.vectors.T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :many]
            return Candidates(scores, order, np.full(len(queries), -np.inf))

    queries = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    (first, second) = rank(Stack([Two()], 2).propose, queries, k=2, each=2, size=4)
    assert first == [(0, 1.0), (1, pytest.approx(0.8))]
    assert second == [(1, pytest.approx(1.0)), (0, pytest.approx(0.8))]


def test_k_larger_than_the_index_gives_what_there_is(made):
    (hits,) = made.search(ENCODER.encode_text(["text number 7"]), 1000)
    assert len(hits) == 50
    assert hits[0].document == Document("d7", "text number 7", metadata={"topic": "t1"})


@pytest.mark.parametrize(
    ("vectors", "k", "message"),
    [
        (torch.ones(1, 16), 0, "k=0; ask for at least 1"),
        (torch.ones(1, 5), 3, r"query vectors of shape \(1, 5\); .* wants \(B, 16\), as ConvEncoder\("),
        (torch.ones(16), 3, r"wants \(B, 16\)"),
        (torch.zeros(1, 16), 3, "a query vector is zero or holds NaN"),
        (torch.full((1, 16), float("nan")), 3, "a query vector is zero or holds NaN"),
    ],
    ids=["k", "dimension", "one-row", "zero", "nan"],
)
def test_other_queries_are_refused(made, vectors, k, message):
    with pytest.raises(SpecError, match=message):
        made.search(vectors, k)


def test_no_queries_have_no_hits(made):
    assert made.search(torch.zeros(0, 16), 3) == []


def test_an_unknown_document_is_answered_with_the_nearest(made):
    assert made.document("d7").text == "text number 7"
    with pytest.raises(StoreError, match=r"holds no document 'd77' \(did you mean d7\?\)"):
        made.document("d77")
    with pytest.raises(StoreError, match=r"holds no document 'zzz'$"):
        made.vectors(["d1", "zzz"])


def test_vectors_are_those_of_the_named_documents(made):
    assert torch.allclose(
        made.vectors(["d9", "d3"]), ENCODER.encode_text(["text number 9", "text number 3"]), atol=3e-4
    )
    assert made.vectors([]).shape == (0, 16)


def test_the_command_that_rebuilds_says_all_that_built_it(tmp_path):
    made = quietly(texts(8), ENCODER, tmp_path / "index", kind=SQ8(), embed="both", sparse=True)
    for command in (made.manifest.rebuild(made.path), made.manifest.rebuild(made.path, "Other()")):
        assert command.endswith(" --embed both --kind 'SQ8()' --sparse")
    (made.path / "segments/000001/rows.npy").unlink()
    with pytest.raises(StoreError, match=r"--embed both --kind 'SQ8\(\)' --sparse --overwrite"):
        Index.open(made.path)


def test_embeddings_are_a_copy(made):
    made.embeddings.vectors.zero_()
    assert made.embeddings.vectors.norm(dim=1).min() > 0.99


def test_the_folder_is_what_other_tools_can_read(made):
    segment = made.path / "segments" / "000001"
    names = {"segment.json", "documents.sqlite", "vectors.npy", "rows.npy", "quarantine.jsonl"}
    assert {p.name for p in made.path.iterdir()} == {"manifest.json", "segments"}
    assert {p.name for p in segment.iterdir()} == names
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert (manifest["encoder"], manifest["metric"], manifest["documents"]) == (repr(ENCODER), "cosine", 50)
    vectors = np.load(segment / "vectors.npy")
    assert (vectors.shape, vectors.dtype) == ((50, 16), np.float16)
    with sqlite3.connect(segment / "documents.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == (50,)
    connection.close()
    assert json.loads(json.dumps(made.info()))["vectors"] == 50


def test_the_encoder_that_did_not_build_it_is_refused_with_the_command_that_rebuilds(made, tmp_path):
    other = ConvEncoder(16, seed=1)
    with pytest.raises(StoreError) as raised:
        Index.open(made.path, other)
    told = str(raised.value)
    assert f"was built with {ENCODER!r}, not with {other!r}" in told
    assert f"morgana index build CORPUS --encoder '{other!r}' --out {made.path} --overwrite" in told
    assert Index.open(made.path, ConvEncoder(16)).info() == made.info()


def test_the_command_names_the_corpus(tmp_path):
    class One:
        def documents(self):
            return (Document("d", "fog"),)

        def queries(self):
            return ()

        def qrels(self):
            return {}

    corpus = write_jsonlines(One(), tmp_path / "corpus")
    index = build(corpus, ENCODER, tmp_path / "index", progress=False)
    assert index.manifest.corpus == repr(corpus)
    with pytest.raises(StoreError) as raised:
        Index.open(index.path, ConvEncoder(16, seed=1))
    assert f"""morgana index build 'JSONLines('"'"'{corpus.root}'"'"')' --encoder""" in str(raised.value)


def test_an_encoder_around_the_one_that_built_it_may_search(made):
    from morgana.defenses.smoothed import Smoothed

    assert Index.open(made.path, Smoothed(ENCODER, sigma=0.1, n=2)).info() == made.info()
    with pytest.raises(StoreError, match=r"not with Smoothed\("):
        Index.open(made.path, Smoothed(ConvEncoder(16, seed=1), sigma=0.1, n=2))


def test_the_same_name_with_other_weights_is_told(copy):
    class Retrained(ConvEncoder):
        fingerprint = "retrained"

        def __repr__(self):
            return repr(ENCODER)

    with pytest.raises(StoreError, match="when its weights were others"):
        Index.open(copy, Retrained(16))


def test_vectors_with_nan_are_found_even_when_the_checksums_agree(copy):
    vectors = np.load(copy / VECTORS)
    vectors[7, 3] = np.nan
    np.save(copy / VECTORS, vectors)
    reseal(copy)
    with pytest.raises(StoreError, match=r"vectors\.npy: row 7 holds NaN or infinity"):
        Index.open(copy)
    assert verify(copy) == ["segments/000001/vectors.npy: row 7 holds NaN or infinity"]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((50, 5), np.float16), r"holds float16 of shape \(50, 5\), not float16 \(50, 16\)"),
        (np.ones((50, 16), np.float32), r"holds float32"),
        (np.asfortranarray(np.ones((50, 16), np.float16)), r"holds float16"),
        (np.array([{}]), "is not an array"),
    ],
    ids=["dimension", "type", "order", "objects"],
)
def test_vectors_of_another_shape_are_refused(copy, vectors, message):
    np.save(copy / VECTORS, vectors, allow_pickle=True)
    reseal(copy)
    with pytest.raises(StoreError, match=message):
        Index.open(copy)


@pytest.mark.parametrize(("number", "advice"), [(3, "upgrade Morgana, or rebuild"), (1, "rebuild the index")])
def test_another_format_is_told(copy, number, advice):
    reseal(copy, format=number)
    with pytest.raises(StoreError, match=f"has format {number}, this Morgana reads format 2; {advice}"):
        Index.open(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not an index, or half of one: it has no manifest.json"),
        ("", r"manifest\.json is empty; restore .* rebuild the index: morgana index build CORPUS .* --overwrite"),
        ('{"form', r"manifest\.json is not JSON; restore .* rebuild the index: morgana index build .* --overwrite"),
        ("[]", "is not the manifest of an index"),
        ('{"format": 2}', "was changed after it was written"),
    ],
    ids=["none", "empty", "garbled", "list", "little"],
)
def test_half_an_index_is_not_opened(copy, content, message):
    (copy / "manifest.json").unlink()
    if content is not None:
        (copy / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        Index.open(copy)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RelativeThreshold()", r"names the kind 'RelativeThreshold\(\)', which is no kind of index"),
        ("__import__('os')", "no part is called '__import__'"),
    ],
)
def test_a_kind_that_is_no_kind_is_refused(copy, kind, message):
    path = copy / "segments/000001/segment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": kind}))
    reseal(copy)
    with pytest.raises(StoreError, match=message):
        Index.open(copy)
    assert Flat in components("index")


def test_no_index_says_how_to_build_one(tmp_path):
    with pytest.raises(StoreError, match=r"there is no index at .*nowhere; build it: morgana index build CORPUS"):
        Index.open(tmp_path / "nowhere")
