"""What the vector store promises beyond LangChain's standard suite."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from fakes import ConvEncoder
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from morgana.corpus.images import save
from morgana.index import Index
from morgana.interop.langchain import Embeddings, VectorStore
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import SpecError, StoreError

ENCODER = HashEncoder(dimension=128)
TEXTS = ["the harbour of Calmouth", "a forest in autumn", "the harbour of Oldport", "clouds over the sea"]


@pytest.fixture
def store(tmp_path):
    metadatas = [{"topic": "site", "rank": n, "tags": ["a", n]} for n in range(3)] + [{"topic": "weather"}]
    return VectorStore.from_texts(
        TEXTS, Embeddings(ENCODER), metadatas, ids=["c", "f", "o", "w"], path=tmp_path / "x.index"
    )


def test_importing_morgana_does_not_import_langchain():
    code = (
        "import sys, morgana, morgana.index, morgana.pipeline, morgana.cli; sys.exit('langchain_core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_is_an_index_folder_and_stays(store, tmp_path):
    again = VectorStore.open(tmp_path / "x.index")
    assert again.similarity_search("harbour of Oldport", k=1) == store.get_by_ids(["o"])
    assert again.get_by_ids(["o"])[0].metadata == {"topic": "site", "rank": 2, "tags": ["a", 2]}
    assert Index.open(tmp_path / "x.index").verify() == []
    assert not [p for p in (tmp_path / "x.index").rglob("*") if p.suffix in (".pkl", ".pickle")]


def test_scores_are_cosines_and_relevance_lies_between_0_and_1(store):
    found = store.similarity_search_with_score("harbour of Calmouth", k=4)
    rows = ENCODER.encode_text(["harbour of Calmouth", *(document.page_content for document, _ in found)])
    assert [score for _, score in found] == pytest.approx((rows[1:] @ rows[0]).tolist(), abs=1e-3)  # stored as float16
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    relevance = store.similarity_search_with_relevance_scores("harbour of Calmouth", k=4)
    assert [r for _, r in relevance] == pytest.approx([(1 + s) / 2 for _, s in found])


def test_a_filter_finds_the_best_of_those_that_pass(tmp_path):
    texts = [f"harbour {'x ' * n}" for n in range(40)]
    made = VectorStore.from_texts(texts, ENCODER, [{"n": n} for n in range(40)], path=tmp_path / "x.index")
    every = [d.metadata["n"] for d in made.similarity_search("harbour", k=40)]
    odd = made.similarity_search("harbour", k=3, filter=lambda document: document.metadata["n"] % 2)
    assert [d.metadata["n"] for d in odd] == [n for n in every if n % 2][:3]
    assert [d.metadata["n"] for d in made.similarity_search("harbour", k=3, filter={"n": every[-1]})] == [every[-1]]
    assert made.similarity_search("harbour", filter={"n": 99}) == []


FILTERS = (
    ('kind == "mill" and 1900 <= year < 1950', lambda m: m["kind"] == "mill" and 1900 <= m["year"] < 1950),
    ('kind in ("mill", "weir") or year == 1850', lambda m: m["kind"] in ("mill", "weir") or m["year"] == 1850),
    ({"kind": "mill", "year": 1901}, lambda m: m["kind"] == "mill" and m["year"] == 1901),
    ({"kind": "weir", "old": True}, lambda m: m["kind"] == "weir" and m["old"]),
    ({"tags": ("weir", 1)}, lambda m: m["tags"] == ["weir", 1]),
    ({"the name": 'a "b"\u2028\\'}, lambda m: m.get("the name") == 'a "b"\u2028\\'),
    ({"the name": None}, lambda m: "the name" not in m),
    ({"year": 1}, lambda m: False),
    ({}, lambda m: True),
)


@pytest.fixture(scope="module", params=["Flat()", "IVF()"])
def many(request, tmp_path_factory):
    """A store of 300 documents in two segments, some of them deleted, and what is left with its vectors."""
    embedding = DeterministicFakeEmbedding(size=16)
    kinds, texts = ("mill", "weir", "lock"), [f"text {n}" for n in range(300)]
    metadatas = [
        {"kind": kinds[n % 3], "year": 1850 + n % 150, "old": n % 150 < 50, "tags": [kinds[n % 3], n % 5]}
        | ({"the name": 'a "b"\u2028\\'} if n % 7 == 0 else {})
        for n in range(300)
    ]
    path = tmp_path_factory.mktemp("many") / "x.index"
    made = VectorStore(embedding, path, kind=request.param)
    for start in (0, 200):
        part = slice(start, start + 200)
        made.add_texts(texts[part], metadatas[part], ids=[str(n) for n in range(300)[part]])
    made.delete([str(n) for n in range(0, 300, 11)])
    left = [n for n in range(300) if n % 11]
    rows = torch.tensor(embedding.embed_documents([texts[n] for n in left]))
    return made, [metadatas[n] for n in left], [str(n) for n in left], torch.nn.functional.normalize(rows)


@pytest.mark.parametrize(("filter", "passes"), FILTERS, ids=[str(f) for f, _ in FILTERS])
def test_filters_find_the_k_best_of_those_that_pass_as_brute_force_does(many, filter, passes):
    made, metadatas, ids, rows = many
    asked = made.embeddings.embed_query("where is it?")
    cosines = rows @ torch.nn.functional.normalize(torch.tensor(asked), dim=0)
    passing = [i for i, metadata in enumerate(metadatas) if passes(metadata)]
    best = sorted(passing, key=lambda i: -cosines[i])[:6]
    for given in (filter, lambda document: passes(document.metadata)):
        found = made.similarity_search_with_score("where is it?", k=6, filter=given)
        if filter or made.kind.exact:  # without a filter IVF looks into some of its lists
            assert [d.id for d, _ in found] == [ids[i] for i in best]
            assert [score for _, score in found] == pytest.approx([float(cosines[i]) for i in best], abs=1e-3)


def test_a_filter_by_metadata_reads_the_documents_that_are_found_and_no_others(many):
    made, *_ = many
    wanted: dict[str, object] = {"kind": "mill", "year": 1901}
    made.similarity_search("x", k=2, filter=wanted)  # the first reads the fields of all
    read: list[str] = []
    for segment in made.index.segments:
        segment.shelf.connection.set_trace_callback(read.append)
    found = made.similarity_search("where is it?", k=2, filter=wanted)
    for segment in made.index.segments:
        segment.shelf.connection.set_trace_callback(None)
    assert {d.id for d in found} == {"51", "201"}
    assert read == [f"SELECT * FROM documents WHERE position IN ({place})" for place in (51, 1)]


@pytest.mark.parametrize(
    ("filter", "reason"),
    [
        ("kind =", "cannot read the filter"),
        ({"knd": "mill"}, "did you mean kind"),
        ({"kind": object()}, "no document holds"),
        ({"year": float("nan")}, "is a field"),
    ],
)
def test_what_is_no_filter_is_refused(many, filter, reason):
    with pytest.raises(SpecError, match=reason):
        many[0].similarity_search("x", filter=filter)


def test_marginal_relevance_prefers_what_is_new(store):
    near = store.similarity_search("the harbour of Calmouth", k=2)
    assert [d.id for d in near] == ["c", "o"]
    diverse = store.max_marginal_relevance_search("the harbour of Calmouth", k=2, lambda_mult=0.1)
    assert diverse[0].id == "c"
    assert diverse[1].id != "o"
    greedy = store.max_marginal_relevance_search("the harbour of Calmouth", k=2, lambda_mult=1.0)
    assert [d.id for d in greedy] == ["c", "o"]


def test_a_change_of_another_process_is_seen(store, tmp_path):
    other = VectorStore(ENCODER, tmp_path / "x.index")
    other.add_documents([Document("the harbour of Newhaven", id="n")])
    assert store.get_by_ids(["n"]) == [Document("the harbour of Newhaven", id="n")]
    other.delete(["n", "never there"])
    assert store.get_by_ids(["n"]) == []


def test_deleting_without_ids_empties_the_store_which_can_be_filled_again(store):
    assert store.delete()
    assert store.similarity_search("harbour") == []
    assert store.add_texts(["a lake"], ids=["l"]) == ["l"]
    assert [d.id for d in store.similarity_search("harbour")] == ["l"]


def test_of_two_with_one_id_the_last_stays_and_ids_are_made(store):
    ids = store.add_documents([Document("first", id="same"), Document("second", id="same"), Document("third")])
    assert ids[:2] == ["same", "same"]
    assert store.get_by_ids(["same"])[0].page_content == "second"
    assert store.get_by_ids([ids[2]])[0].page_content == "third"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("  ", id="e"), "neither text nor image"),
        (Document("x", id="j", metadata={"when": object()}), "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(store, document, reason):
    before = store.index.manifest.generation
    with pytest.raises(SpecError, match=reason):
        store.add_documents([Document("good", id="g"), document])
    assert store.index.manifest.generation == before
    assert store.get_by_ids(["g"]) == []


def test_other_numbers_of_ids_are_refused(store):
    with pytest.raises(SpecError, match="2 ids for 1 documents"):
        store.add_documents([Document("x")], ids=["a", "b"])


def test_another_embedding_is_refused_by_name(store, tmp_path):
    other = VectorStore(DeterministicFakeEmbedding(size=128), tmp_path / "x.index")
    with pytest.raises(StoreError, match=r"built with HashEncoder\(dimension=128\), not with Foreign"):
        other.similarity_search("x")


def test_embeddings_of_langchain_build_an_index_and_name_no_secrets(tmp_path):
    class Secretive(DeterministicFakeEmbedding):
        key: str = "sk-1234"

    made = VectorStore(Secretive(size=16), tmp_path / "x.index")
    made.add_texts(["alpha", "beta"], ids=["a", "b"])
    assert made.similarity_search("alpha", k=1)[0].id == "a"
    assert "sk-1234" not in (tmp_path / "x.index" / "manifest.json").read_text()
    with pytest.raises(SpecError, match="embeds text only"):
        made.encoder.encode_image(torch.zeros(1, 3, 8, 8))


def test_images_are_found_by_images_and_by_texts(tmp_path):
    eye = ConvEncoder(16)
    for name, level in (("dark", 0.1), ("light", 0.9)):
        save(torch.full((1, 3, 8, 8), level), tmp_path / f"{name}.png")
    documents = [Document(n, id=n, metadata={"image": str(tmp_path / f"{n}.png")}) for n in ("dark", "light")]
    made = VectorStore(eye, tmp_path / "x.index", embed="image")
    made.add_documents(documents)
    found = made.similarity_search_by_image(tmp_path / "light.png", k=2)
    assert found[0][0] == documents[1]
    assert found[0][1] == pytest.approx(1, abs=1e-3)
    assert made.index.document("dark").image == tmp_path / "dark.png"


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_in(tmp_path):
    save(torch.rand(1, 3, 8, 8), tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    made = VectorStore(ConvEncoder(16), tmp_path / "x.index", embed="image")
    with pytest.raises(StoreError, match=r"1 of 2 documents were left out, the first 'bad': .*bad\.png"):
        made.add_documents(
            [Document("", id=n, metadata={"image": str(tmp_path / f"{n}.png")}) for n in ("good", "bad")]
        )
    assert [d.id for d in made.get_by_ids(["good", "bad"])] == ["good"]


def test_a_store_without_a_path_leaves_nothing_behind():
    made = VectorStore("HashEncoder(dimension=16)", kind="HNSW()")
    made.add_texts(["a", "b"])
    folder = made.path.parent
    assert made.index.manifest.kind == "HNSW()"
    del made
    assert not folder.exists()
