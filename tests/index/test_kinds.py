import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.corpus._stream import Spoiled
from morgana.index import Index, add, compact, verify
from morgana.index.kinds.auto import Auto, size
from morgana.index.kinds.factory import Factory
from morgana.index.kinds.flat import Flat
from morgana.index.kinds.hnsw import HNSW
from morgana.index.kinds.ivf import IVF, even
from morgana.index.kinds.ivfpq import IVFPQ
from morgana.index.kinds.sq8 import SQ8
from morgana.index.ready import from_vectors
from morgana.index.vectors import Stored, header, not_unit
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.spec import parse
from morgana.types import Document, SpecError, StoreError

COUNT, DIMENSION = 1000, 32
ENCODER = HashEncoder(dimension=DIMENSION)
KINDS = (
    Flat(),
    SQ8(),
    HNSW(m=16),
    IVF(probe=32),
    IVFPQ(bytes_=16, probe=32),
    Factory("IVF32,SQ8", probe=16),
    Factory("OPQ8,PQ8np"),
)


def rows(count=COUNT, seed=0):
    """Unit vectors in clusters, as embeddings are."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((40, DIMENSION))
    made = centres[draw.integers(0, 40, count)] + 0.7 * draw.standard_normal((count, DIMENSION))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def documents(count=COUNT, prefix="v"):
    return (Document(f"{prefix}{n}", f"vector {n}") for n in range(count))


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return from_vectors(documents(), rows(), ENCODER, tmp_path_factory.mktemp("exact") / "index")


def ranked(index, queries, k=10):
    return [[h.document.id for h in hits] for hits in index.search(torch.from_numpy(queries), k)]


def recall(found, expected):
    return np.mean([len(set(f) & set(e)) / len(e) for f, e in zip(found, expected, strict=True)])


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_every_kind_finds_nearly_what_exact_search_finds_and_scores_it_exactly(tmp_path, exact, kind):
    index = from_vectors(documents(), rows(), ENCODER, tmp_path / "index", kind=kind)
    queries = rows(30, seed=1)
    expected = ranked(exact, queries)
    assert recall(ranked(index, queries), expected) >= (1 if kind == Flat() else 0.55 if "PQ8" in repr(kind) else 0.9)
    scores = {h.document.id: h.score for h in exact.search(torch.from_numpy(queries[:1]), 300)[0]}
    for hit in index.search(torch.from_numpy(queries[:1]), 10)[0]:
        slack = 2e-7 if index.segments[0].searcher.final else 0  # FAISS sums in float32
        assert hit.score == pytest.approx(scores[hit.document.id], abs=slack, rel=0)
    assert index.manifest.kind == repr(kind)
    assert verify(index.path) == []


@pytest.mark.parametrize("kind", [IVF(lists=8, probe=4), HNSW()], ids=repr)
def test_equal_rows_score_equally_and_come_in_order_of_insertion_every_time(tmp_path, kind):
    """Threads share the lists of one query, and may not choose among equals."""
    few = rows(60)
    index = from_vectors(documents(1200), np.concatenate([few] * 20), ENCODER, tmp_path / "index", kind=kind)
    assert index.segments[0].searcher.final
    found = [ranked(index, few[:5], k) for k in (10, 10, 10, 25)]
    assert found[0] == found[1] == found[2]
    for query, (first, more) in enumerate(zip(found[0], found[3], strict=True)):
        assert first == more[:10] == [f"v{query + 60 * copy}" for copy in range(10)]
    (hits,) = index.search(torch.from_numpy(few[:1]), 20)
    assert len({hit.score for hit in hits}) == 1


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_deleted_rows_never_come_back_and_k_is_met(tmp_path, kind):
    from morgana.index import delete

    index = from_vectors(
        documents(600), rows(600), ENCODER, tmp_path / "index", kind=kind if "OPQ" not in repr(kind) else SQ8()
    )
    (query,) = rows(1, seed=2)
    best = ranked(index, query[None], 300)[0]
    index = delete(index.path, best[:250])
    left = ranked(index, query[None], 350)[0]
    assert len(left) == 350
    assert not set(left) & set(best[:250])
    assert left[:40] == best[250:290] or kind != Flat()


def test_flat_is_searched_in_the_mapped_vectors(exact):
    assert {p.name for p in (exact.path / "segments/000001").iterdir()}.isdisjoint({"vectors.faiss"})
    (segment,) = exact.segments
    assert isinstance(segment.vectors.base, np.memmap)
    scores, found = segment.searcher.search(rows()[:3], 1)
    assert found[:, 0].tolist() == [0, 1, 2]
    assert np.allclose(scores, 1, atol=1e-3)


def test_a_graph_is_stored_without_the_vectors(tmp_path):
    index = from_vectors(documents(), rows(), ENCODER, tmp_path / "index", kind=HNSW(m=8))
    assert (index.path / "segments/000001/vectors.faiss").stat().st_size < COUNT * 2 * DIMENSION * 1.6


def test_a_small_segment_is_exact_until_it_is_compacted(tmp_path):
    index = from_vectors(documents(), rows(), ENCODER, tmp_path / "index", kind=IVF())
    index = add(index.path, [Document(f"n{n}", f"new {n}") for n in range(5)], ENCODER)
    assert [s.about.kind for s in index.segments] == ["IVF()", "Flat()"]
    assert [s.about.kind for s in compact(index.path).segments] == ["IVF()"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Factory('nonsense')", "FAISS makes no index of 32 dimensions from 'nonsense'"),
        ("Factory('IVF9999,Flat')", r"cannot be trained on 1000 vectors.*choose fewer lists"),
        ("IVFPQ(bytes_=5)", "5 bytes do not divide 32 dimensions"),
    ],
)
def test_what_faiss_cannot_make_is_said(tmp_path, spec, message):
    with pytest.raises(SpecError, match=message):
        from_vectors(documents(), rows(), ENCODER, tmp_path / "index", kind=parse(spec))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    "spec",
    ["HNSW(m=0)", "IVF(probe=0)", "IVF(lists=-1)", "Factory('Flat', width=0)", "Auto('2 apples')", "Auto(recall=0)"],
)
def test_arguments_out_of_range_are_refused(spec):
    with pytest.raises(SpecError):
        parse(spec)


def test_auto_measures_and_writes_what_it_measured(tmp_path, exact):
    index = from_vectors(documents(), rows(), ENCODER, tmp_path / "index", kind=Auto(latency="5s"))
    measured = Index.open(index.path).manifest.measured
    assert (measured["chosen"], measured["recall@10"]) == ("Flat()", 1.0)
    assert measured["latency_ms"] > 0
    assert (index.manifest.kind, index.segments[0].about.kind) == ("Auto(latency='5s')", "Flat()")
    assert ranked(index, rows(5, 1)) == ranked(exact, rows(5, 1))


def test_auto_compresses_where_memory_is_short(tmp_path):
    many = 3 * COUNT
    memory = size(IVFPQ(bytes_=16), many, DIMENSION) + 1
    index = from_vectors(
        documents(many), rows(many), ENCODER, tmp_path / "index", kind=Auto(memory=f"{memory}B", latency="5s")
    )
    measured = index.manifest.measured
    assert measured["chosen"].startswith("IVFPQ(")
    assert 0.3 < measured["recall@10"] <= 1
    assert not measured["tried"]["Flat()"]["fits"]
    assert verify(index.path) == []


def test_training_reads_a_bounded_sample(tmp_path):
    (tmp_path / "v").write_bytes(header(1000, 4) + np.arange(4000, dtype="<f2").tobytes())
    stored = Stored(tmp_path / "v", 1000, 4)
    assert np.load(tmp_path / "v", mmap_mode="r").shape == (1000, 4)
    assert stored.sample(100).shape == (100, 4)
    assert stored.sample(100)[:, 0].tolist() == [float(np.float16(n)) for n in range(0, 4000, 40)]
    assert np.concatenate(list(stored.chunks())).shape == (1000, 4)
    assert even(1_000_000) == 4000


@given(st.integers(0, 10**12), st.integers(1, 10**6))
@settings(max_examples=50)
def test_the_header_is_numpys(count, dimension):
    from io import BytesIO

    made = BytesIO(header(count, dimension))
    version = np.lib.format.read_magic(made)
    assert version == (1, 0)
    assert np.lib.format.read_array_header_1_0(made) == ((count, dimension), False, np.dtype("<f2"))
    assert made.tell() == 128


@pytest.mark.parametrize(
    ("row", "why"),
    [([0, 0], "length but 0"), ([np.nan, 1], "NaN"), ([np.inf, 0], "infinity"), ([3, 4], "length but 5")],
)
def test_what_is_no_unit_vector_is_told(row, why):
    found = not_unit(np.array([[1, 0], row], dtype=np.float32))
    assert found[0] == 1
    assert why in found[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_ready_vectors_without_direction_are_refused_by_row_and_id(tmp_path, value):
    vectors = rows(5)
    vectors[3] = value
    with pytest.raises(SpecError, match=r"row 3, of 'v3'"):
        from_vectors(documents(5), vectors, ENCODER, tmp_path / "index")
    assert not (tmp_path / "index").exists()


UNKEPT = {
    "no id": (Document("", "a text"), "id is empty"),
    "a number as id": (Document(7, "a text"), "id is empty or cannot be written"),
    "surrogates in the id": (Document("v\ud800", "a text"), "cannot be written in UTF-8"),
    "NUL": (Document("v150", "a\0text"), "NUL character at 1"),
    "surrogates": (Document("v150", "a \udc00 text"), "lone surrogates"),
    "too long": (Document("v150", "a" * 200_001), "200001 characters"),
    "metadata": (Document("v150", "a text", metadata={"of": object()}), "cannot be written as JSON"),
    "no text": (Document("v150", None), "its text is a NoneType; give a string"),
    "bytes as text": (Document("v150", b"a text"), "its text is a bytes; give a string"),
    "a number as image": (Document("v150", image=7), "its image is 7; give a path"),
    "NUL in a path": (Document("v150", image=Path("a\0.png")), "give a path that can be written in UTF-8"),
    "a path that is no UTF-8": (
        Document("v150", image=Path("a\udcff.png")),
        "give a path that can be written in UTF-8",
    ),
    "a spoiled row": (Spoiled("v150", why="its line is no JSON"), "its line is no JSON"),
}


@pytest.mark.parametrize("why", UNKEPT)
def test_of_ready_documents_the_one_that_cannot_be_stored_is_named(tmp_path, why):
    bad, message = UNKEPT[why]
    given = [*documents(150), bad, Document("v151\ud800", "a later one")]
    with pytest.raises(StoreError, match=f"{re.escape(repr(bad.id))}: .*{message}"):
        from_vectors(given, rows(152), ENCODER, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["v3", None, {"id": "v3"}, ("v3", "a text")])
def test_what_is_no_document_is_named_by_its_row(tmp_path, given):
    with pytest.raises(StoreError, match=f"row 3 has {re.escape(repr(given))} as its document"):
        from_vectors([*documents(3), given, *documents(1, "w")], rows(5), ENCODER, tmp_path / "index")


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-22, 1e-18, 1e18, 1e22, 1e30, 1e37])
def test_ready_vectors_of_any_finite_length_are_made_unit_length(tmp_path, scale):
    given = rows(50)
    given[::7] *= scale
    index = from_vectors(documents(50), given, ENCODER, tmp_path / "index")
    exact = from_vectors(documents(50), rows(50), ENCODER, tmp_path / "exact")
    theirs, ours = (np.asarray(one.segments[0].vectors, dtype=np.float32) for one in (exact, index))
    np.testing.assert_allclose(ours, theirs, atol=2e-3 if scale < 1e-38 else 1e-6)


def test_ready_documents_stand_in_their_order_with_all_that_they_have(tmp_path):
    """Many more than one statement inserts, and no multiple of that."""
    given = [Document(f"v{n}", f"größe {n}", metadata={"n": str(n)} if n % 3 else {}) for n in range(1_300)]
    from_vectors(given, rows(1_300), ENCODER, tmp_path / "index")
    index = Index.open(tmp_path / "index", ENCODER)
    assert [(d.id, d.text, dict(d.metadata)) for d in index.documents()] == [
        (d.id, d.text, dict(d.metadata)) for d in given
    ]
    assert verify(tmp_path / "index") == []


def test_ready_vectors_and_documents_go_together(tmp_path):
    with pytest.raises(StoreError, match="5 vectors and 4 documents"):
        from_vectors(documents(4), rows(5), ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match="4 vectors and more documents"):
        from_vectors(documents(5), rows(4), ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match="two documents 'v1'"):
        from_vectors([Document("v1", "a"), Document("v1", "b")], rows(2), ENCODER, tmp_path / "index")
    with pytest.raises(SpecError, match=r"\(5, 3\).*32 dimensions"):
        from_vectors(documents(5), rows(5)[:, :3], ENCODER, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_auto_measures_what_it_takes_where_nothing_fits(tmp_path):
    about = from_vectors(documents(), rows(), ENCODER, tmp_path / "a", kind=Auto(memory="1KB")).manifest.measured
    assert about["fits"] is False
    assert 0 < about["recall@10"] <= 1
    assert about["latency_ms"] > 0
    assert about["memory"] == min(found["memory"] for found in about["tried"].values())


@pytest.mark.parametrize("spec", ["IVFPQ()", 'Factory("OPQ8,PQ8np")', 'Factory("HNSW16_PQ8")', "IVF()"])
def test_few_rows_are_no_reason_for_faiss_to_warn(tmp_path, capfd, spec):
    from_vectors(documents(300), rows(300), ENCODER, tmp_path / "index", kind=parse(spec))
    assert "WARNING" not in "".join(capfd.readouterr())
