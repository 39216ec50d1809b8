import numpy as np
import pytest
import torch
from fakes import ConvEncoder

from morgana.corpus.images import load, save
from morgana.index import build
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.retrieval.retrievers.dense import Dense
from morgana.spec import parse
from morgana.types import Document, Query, SpecError, StoreError

ENCODER = ConvEncoder(16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    draw = torch.Generator().manual_seed(0)
    for n in range(12):
        save(torch.rand(1, 3, *((8, 8), (9, 13))[n % 2], generator=draw), folder / f"{n}.png")
    documents = [Document(f"i{n}", image=folder / f"{n}.png") for n in range(12)]
    documents += [Document(f"t{n}", f"text number {n}") for n in range(12)]
    build(documents, ENCODER, folder / "index", progress=False)
    return folder


def test_it_finds_what_raw_faiss_finds(folder):
    import faiss

    queries = [Query(f"q{n}", "ignored", folder / f"{n}.png") for n in range(12)]
    found = Dense(str(folder / "index"), ENCODER, batch_size=5)(queries, 4)
    raw = faiss.IndexFlatIP(16)
    raw.add(np.load(folder / "index/segments/000001/vectors.npy").astype(np.float32))
    embedded = torch.cat([ENCODER.encode_image(load(q.image)) for q in queries]).detach().numpy()
    scores, rows = raw.search(np.ascontiguousarray(embedded), 4)
    names = [f"i{n}" for n in range(12)] + [f"t{n}" for n in range(12)]
    assert [[h.document.id for h in hits] for hits in found] == [[names[r] for r in row] for row in rows]
    assert [[h.score for h in hits] for hits in found] == [pytest.approx(row, abs=1e-5) for row in scores.clip(max=1)]


def test_a_query_is_embedded_by_its_image_else_by_its_text(folder):
    queries = [
        Query("a", "text number 3", folder / "5.png"),
        Query("b", "text number 3"),
        Query("c", image=folder / "4.png"),
    ]
    found = Dense(str(folder / "index"), ENCODER)(queries, 1)
    assert [hits[0].document.id for hits in found] == ["i5", "t3", "i4"]
    assert all(hits[0].score > 0.999 for hits in found)


def test_no_queries_have_no_hits(folder):
    assert Dense(str(folder / "index"), ENCODER)([], 3) == []


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (Query("q"), SpecError, "the query 'q' has neither an image nor a text"),
        (Query("q", "a\0"), SpecError, "the query 'q': the text has a NUL character"),
        (Query("q", "a" * 1_000_000), SpecError, "the query 'q': the text has 1000000 characters"),
    ],
    ids=["empty", "nul", "megabyte"],
)
def test_queries_that_cannot_be_asked_are_refused(folder, query, error, message):
    with pytest.raises(error, match=message):
        Dense(str(folder / "index"), ENCODER)([query], 3)


def test_a_bad_image_and_a_bad_k_are_named(folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"bad\.png is not an image"):
        Dense(str(folder / "index"), ENCODER)([Query("q", image=tmp_path / "bad.png")], 3)
    with pytest.raises(SpecError, match="k=0"):
        Dense(str(folder / "index"), ENCODER)([Query("q", "x")], 0)
    with pytest.raises(SpecError, match="batch_size=0"):
        Dense(str(folder / "index"), batch_size=0)


def test_it_is_cheap_to_name_and_checked_at_first_use(tmp_path):
    retriever = Dense(str(tmp_path / "nowhere"), OpenCLIP("atlas"))
    assert parse(repr(retriever)) == retriever
    with pytest.raises(StoreError, match="there is no index at"):
        retriever([Query("q", "x")], 1)


def test_with_a_real_clip_the_index_builds_its_own_encoder_and_refuses_another(
    tiny_clip_folder, other_clip_folder, folder, tmp_path
):
    encoder, other = OpenCLIP(str(tiny_clip_folder)), OpenCLIP(str(other_clip_folder))
    documents = [Document(str(n), image=folder / f"{n}.png") for n in range(6)] + [Document("t", "a harbour")]
    build(documents, encoder, tmp_path / "index", progress=False)
    queries = [Query("a", image=folder / "3.png"), Query("b", "a harbour")]
    found = Dense(str(tmp_path / "index"))(queries, 1)
    assert [hits[0].document.id for hits in found] == ["3", "t"]
    with pytest.raises(StoreError) as raised:
        Dense(str(tmp_path / "index"), other)(queries, 1)
    for name in (repr(encoder), repr(other), "morgana index build CORPUS --encoder"):
        assert name in str(raised.value)


def test_a_filter_and_a_source_narrow_the_search(tmp_path):
    documents = [Document(f"d{n}", f"text {n}", metadata={"year": str(1980 + n)}) for n in range(8)]
    build(documents, ConvEncoder(16), tmp_path / "x", progress=False)
    dense = Dense(str(tmp_path / "x"), ConvEncoder(16), where="year >= 1984 and year != 1985", source="text")
    (hits,) = dense([Query("q", "text 1")], 8)
    assert {h.document.id for h in hits} == {"d4", "d6", "d7"}
    assert parse(repr(Dense("x", where="a == 1", source="text"))) == Dense("x", where="a == 1", source="text")
    with pytest.raises(SpecError, match="cannot read the filter"):
        Dense("x", where="year >=")
    with pytest.raises(SpecError, match="source='sound'"):
        Dense("x", source="sound")
