"""LangChain's stores and retrievers as retrievers of Morgana's, and under attack."""

from __future__ import annotations

import math

import pytest
import torch
from langchain_core.documents import Document as LC
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from toyworld import Eye, ToyWorld

from morgana.corpus.images import load, save
from morgana.index import build
from morgana.interop.langchain import Embeddings, Theirs, VectorStore, fill
from morgana.retrieval.retrievers.dense import Dense
from morgana.types import Document, Query, SpecError


@pytest.fixture
def world(tmp_path):
    return ToyWorld(str(tmp_path), sites=6)


@pytest.fixture
def ours(world, tmp_path):
    return build(world, Eye(), tmp_path / "x.index", progress=False)


def same(found, wanted):
    assert [[h.document.id for h in row] for row in found] == [[h.document.id for h in row] for row in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=2e-3)  # ours are stored as float16


def texts(world):
    return [Query(f"t{i}", f"rgb {' '.join(map(str, world.colour(i)))}") for i in range(3)]


def test_the_store_in_memory_finds_by_text_what_our_index_finds(world, ours, tmp_path):
    store = InMemoryVectorStore(Embeddings(Eye()))
    assert fill(store, world) == len(world.documents())
    found = Theirs(store)(texts(world), 4)
    same(found, Dense(str(tmp_path / "x.index"), Eye())(texts(world), 4))
    assert found[0][0].document.metadata["topic"] == "place"


def test_it_finds_by_image_too(world, ours, tmp_path):
    store = InMemoryVectorStore(Embeddings(Eye()))
    fill(store, world)
    queries = world.queries()[::2]
    same(Theirs(store, Eye())(queries, 3), Dense(str(tmp_path / "x.index"), Eye())(queries, 3))


class Five(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [LC(f"{query} {n}", metadata={"n": n}) for n in range(5)]


def test_a_retriever_is_asked_by_text_and_cut_at_k():
    (hits,) = Theirs(Five())([Query("q", "x")], 2)
    assert [h.document.text for h in hits] == ["x 0", "x 1"]
    assert [h.score for h in hits] == [1, 1 / 2]  # their places, as it gives no scores
    assert hits[0].document.id == Theirs(Five())([Query("q", "x")], 1)[0][0].document.id  # made from the text
    assert hits[0].document.id != hits[1].document.id
    store = VectorStore("HashEncoder(dimension=16)")
    store.add_texts([f"text {n}" for n in range(6)])
    assert len(Theirs(store.as_retriever())([Query("q", "text 3")], 6)[0]) == 6  # more than its own k


class Distances(InMemoryVectorStore):
    """Squared Euclidean distances, as LangChain's FAISS store gives them: lower is better."""

    def similarity_search_with_score(self, query, k=4, **kwargs):
        return [(d, 2 - 2 * s) for d, s in super().similarity_search_with_score(query, k=k, **kwargs)]


def test_distances_are_not_taken_for_cosines(world, ours, tmp_path):
    store = Distances(Embeddings(Eye()))
    fill(store, world)
    with pytest.raises(SpecError, match=r"no cosines, best first.*cosine=lambda"):
        Theirs(store)(texts(world), 4)
    same(
        Theirs(store, cosine=lambda d: 1 - d / 2)(texts(world), 4),
        Dense(str(tmp_path / "x.index"), Eye())(texts(world), 4),
    )


def test_what_cannot_be_asked_is_refused(world):
    store = InMemoryVectorStore(Embeddings(Eye()))
    (query,) = world.queries()[:1]
    with pytest.raises(SpecError, match="say what embeds it"):
        Theirs(store)([query], 1)
    with pytest.raises(SpecError, match="finds by text only"):
        Theirs(Five())([query], 1)
    with pytest.raises(SpecError, match="neither an image nor a text"):
        Theirs(store)([Query("q")], 1)
    with pytest.raises(SpecError, match="'x' has no text"):
        fill(store, [Document("x")])


@pytest.fixture
def qdrant(world):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    module = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    client = QdrantClient(":memory:")
    client.create_collection("world", VectorParams(size=3, distance=Distance.COSINE))
    store = module.QdrantVectorStore(client, "world", Embeddings(Eye()), validate_collection_config=False)
    fill(store, world)
    yield store
    client.close()


def test_qdrant_finds_what_our_index_finds(qdrant, world, ours, tmp_path):
    queries = [*world.queries()[::2], *texts(world)]
    same(Theirs(qdrant, Eye())(queries, 5), Dense(str(tmp_path / "x.index"), Eye())(queries, 5))


def test_qdrant_is_hijacked_by_an_image_that_was_made_against_a_copy(qdrant, world, ours, tmp_path):
    from morgana.attacks.composed import Composed
    from morgana.attacks.goals.hijack import Hijack
    from morgana.attacks.searches.pgd import PGD
    from morgana.attacks.target import Surroundings, aim
    from morgana.attacks.threats.linf import Linf

    query = world.queries()[0]
    clean = load(query.image)
    theirs = Theirs(qdrant, Eye())
    assert theirs([query], 1)[0][0].document.metadata["topic"] == "place"
    target = aim(Surroundings(ours), Eye(), clean, [query], world.qrels(), k=3)
    made = Composed(Hijack("weather"), Linf(64 / 255), PGD(steps=20)).attack(clean, Eye(), target)
    save(made.pixels, tmp_path / "attacked.png")
    (hits,) = theirs([Query("attacked", query.text, tmp_path / "attacked.png")], 3)
    assert hits[0].document.metadata["topic"] == "weather"
    assert float((load(tmp_path / "attacked.png") - clean).abs().max()) <= 64 / 255 + 1e-6
    assert not math.isnan(hits[0].score)
    assert torch.isfinite(made.pixels).all()
