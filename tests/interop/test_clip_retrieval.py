"""clip-retrieval's folders, both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from building import content, quietly, texts
from fakes import ConvEncoder

from morgana.cli.app import run
from morgana.corpus.images import save
from morgana.index import Index, delete, upsert
from morgana.interop.clip_retrieval import read, write
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import Document, SpecError, StoreError

EYE = ConvEncoder(16)


def theirs(folder, rows=(3, 2), dtype=np.float16):
    """What clip-retrieval's OutputSink writes: arrays by numpy, metadata by pandas."""
    draw, first = np.random.default_rng(0), 0
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, many in enumerate(rows):
        for name in ("img_emb", "text_emb"):
            np.save(folder / name / f"{name}_{number}.npy", draw.normal(size=(many, 16)).astype(dtype))
        these = range(first, first + many)
        about = {"image_path": [f"{n:03d}.png" for n in these], "caption": [f"picture {n}" for n in these]}
        pd.DataFrame(about | {"width": [256 + n for n in these], "key": [f"{n}" for n in these]}).to_parquet(
            folder / "metadata" / f"metadata_{number}.parquet"
        )
        first += many
    return folder


def test_what_clip_retrieval_wrote_becomes_an_index(tmp_path):
    folder = theirs(tmp_path / "clip")
    index = read(folder, EYE, tmp_path / "x.index", images=tmp_path / "pictures")
    vectors = np.concatenate([np.load(folder / "img_emb" / f"img_emb_{n}.npy") for n in (0, 1)]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [d.id for d in index.documents()] == [f"{n:03d}.png" for n in range(5)]
    np.testing.assert_allclose(index.embeddings.vectors.numpy(), vectors, atol=1e-3)
    last = index.document("004.png")
    assert last == Document("004.png", "picture 4", tmp_path / "pictures" / "004.png", {"width": 260, "key": "4"})
    (hits,) = index.search(torch.from_numpy(vectors[3:4]), 1)
    assert hits[0].document.id == "003.png"
    assert index.verify() == []


def test_the_texts_can_be_read_instead(tmp_path):
    folder = theirs(tmp_path / "clip", dtype=np.float32)
    index = read(folder, EYE, tmp_path / "x.index", embed="text")
    first = np.load(folder / "text_emb" / "text_emb_0.npy")[0]
    np.testing.assert_allclose(index.vectors(["000.png"])[0], first / np.linalg.norm(first), atol=1e-3)
    assert index.document("000.png").image is None
    assert index.document("000.png").metadata["image_path"] == "000.png"


@pytest.mark.parametrize("embed", ["text", "image", "both"])
def test_there_and_back_nothing_is_lost(embed, tmp_path):
    import faiss

    pictures = tmp_path / "pictures"
    documents = []
    for n in range(7):
        save(torch.rand(1, 3, 8, 8), pictures / f"{n}.png")
        about = {"topic": f"t{n % 2}", "n": n, "mixed": n if n % 2 else "x"} | ({"rare": "y"} if n == 3 else {})
        documents.append(Document(f"d{n}", f"text {n}", pictures / f"{n}.png", about))
    index = quietly(documents, EYE, tmp_path / "x.index", embed=embed)
    delete(index.path, ["d1"])
    index = upsert(index.path, [Document("d2", "another text", pictures / "2.png", {"topic": "new"})], EYE)
    assert write(index, tmp_path / "clip", part=2) == 6
    for source in ("text", "image"):
        if embed not in (source, "both"):
            assert not (tmp_path / "clip" / f"{source}.index").exists()
            continue
        again = read(tmp_path / "clip", EYE, tmp_path / f"{source}.index", embed=source, images=pictures)
        wanted = {d.id: d for d in index.documents()}
        assert [d.id for d in again.documents()] == list(wanted)
        for document in again.documents():
            before = wanted[document.id]
            assert (document.text, document.image) == (before.text, before.image)
            mixed = {"mixed": str(before.metadata["mixed"])} if before.metadata.get("mixed") == "x" else {}
            assert {k: v for k, v in document.metadata.items() if k != "mixed"} == {
                k: v for k, v in before.metadata.items() if k != "mixed"
            }
            assert not mixed or document.metadata["mixed"] in ("x", '"x"')
        rows = again.embeddings.vectors
        if embed != "both":
            np.testing.assert_allclose(rows.numpy(), index.embeddings.vectors.numpy(), atol=1e-3)
        theirs_ = faiss.read_index(str(tmp_path / "clip" / f"{source}.index"))
        scores, found = theirs_.search(rows.numpy()[:3], 1)
        assert found[:, 0].tolist() == [0, 1, 2]
        assert scores[:, 0] == pytest.approx(1, abs=2e-3)


def test_documents_that_differ_need_a_choice(tmp_path):
    save(torch.rand(1, 3, 8, 8), tmp_path / "p.png")
    index = quietly([*texts(3), Document("p", image=tmp_path / "p.png")], EYE, tmp_path / "x.index")
    with pytest.raises(SpecError, match=r"1 by image and 3 by text; choose source='image'"):
        write(index, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
    assert write(index, tmp_path / "clip", source="text") == 3


def test_a_failed_export_leaves_nothing(tmp_path, little_space):
    index = quietly(texts(200), HashEncoder(64), tmp_path / "x.index")
    with little_space(3000), pytest.raises(StoreError, match="cannot write"):
        write(index, tmp_path / "clip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.index"]
    write(index, tmp_path / "clip")
    before = content(tmp_path / "clip")
    with pytest.raises(StoreError, match="in the way"):
        write(index, tmp_path / "clip")
    assert content(tmp_path / "clip") == before


def shorten(folder):
    np.save(folder / "img_emb" / "img_emb_1.npy", np.ones((1, 16), np.float16))


def widen(folder):
    np.save(folder / "img_emb" / "img_emb_1.npy", np.ones((2, 17), np.float16))


def pickle(folder):
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array([{"x": 1}] * 3, dtype=object))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "metadata" / "metadata_1.parquet").unlink(), "part 1 has vectors in img_emb or rows"),
        (lambda f: (f / "metadata" / "metadata_1.parquet").write_bytes(b"no"), "cannot read .*metadata_1.parquet"),
        (lambda f: (f / "img_emb" / "img_emb_0.npy").rename(f / "img_emb" / "img_emb_x.npy"), "end in a number"),
        (shorten, "has 1 rows and .* 2; they are not of one run"),
        (widen, "rows of \\[16, 17\\] dimensions"),
        (pickle, "is not an array"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(damage, reason, tmp_path):
    folder = theirs(tmp_path / "clip")
    damage(folder)
    with pytest.raises(StoreError, match=reason):
        read(folder, EYE, tmp_path / "x.index")
    assert not (tmp_path / "x.index").exists()


def test_other_encoders_sides_and_places_are_refused(tmp_path):
    folder = theirs(tmp_path / "clip")
    with pytest.raises(SpecError, match="rows of 8 dimensions"):
        read(folder, ConvEncoder(8), tmp_path / "x.index")
    with pytest.raises(SpecError, match="choose image or text"):
        read(folder, EYE, tmp_path / "x.index", embed="both")
    with pytest.raises(StoreError, match="holds no img_emb"):
        read(tmp_path, EYE, tmp_path / "x.index")
    pd.DataFrame({"image_path": ["../../secret.png"] * 2}).to_parquet(folder / "metadata" / "metadata_1.parquet")
    with pytest.raises(StoreError, match="lies outside"):
        read(folder, EYE, tmp_path / "x.index", images=tmp_path)


def test_the_commands_do_the_same(tmp_path, capsys):
    encoder = "HashEncoder(dimension=16)"
    quietly(texts(4), HashEncoder(16), tmp_path / "x.index")
    assert run(["index", "export", str(tmp_path / "x.index"), str(tmp_path / "clip")], debug=True) == 0
    out = str(tmp_path / "y.index")
    words = ["index", "import", str(tmp_path / "clip"), "--out", out, "--encoder", encoder, "--embed", "text"]
    assert run(words, debug=True) == 0
    assert "4 documents" in capsys.readouterr().out
    assert [d.id for d in Index.open(out).documents()] == ["d0", "d1", "d2", "d3"]
    assert run(words, debug=False) == 1
    assert "--overwrite" in capsys.readouterr().err
