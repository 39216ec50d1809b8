import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from fakes import ConvEncoder

from morgana.corpus.image_folder import ImageFolder
from morgana.corpus.images import save
from morgana.index import Index, build
from morgana.index.manifest import staging
from morgana.types import Document, SpecError, StoreError

ENCODER = ConvEncoder(16)


def texts(count):
    return [Document(f"d{n}", f"text number {n}", metadata={"topic": f"t{n % 3}"}) for n in range(count)]


def pictures(folder, count, sizes=((8, 8),)):
    draw = torch.Generator().manual_seed(0)
    for n in range(count):
        save(torch.rand(1, 3, *sizes[n % len(sizes)], generator=draw), folder / f"{n:03d}.png")
    return [Document(f"i{n}", image=folder / f"{n:03d}.png") for n in range(count)]


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def quietly(*args, **options):
    return build(*args, progress=False, **options)


class Stopping:
    """Documents that stop as Ctrl-C does, after some."""

    def __init__(self, documents, after):
        self.all, self.after = documents, after

    def __len__(self):
        return len(self.all)

    def __contains__(self, document):
        return document in self.all

    def __iter__(self):
        for n, document in enumerate(self.all):
            if n == self.after:
                raise KeyboardInterrupt
            yield document


def test_the_vectors_are_those_of_the_encoder_in_order_of_insertion(tmp_path):
    documents = texts(10) + pictures(tmp_path, 5, sizes=((8, 8), (12, 7)))
    index = quietly(documents, ENCODER, tmp_path / "index", batch_size=4)
    ids, vectors = index.embeddings
    assert ids == tuple(d.id for d in documents)
    assert torch.allclose(vectors[:10], ENCODER.encode_text([d.text for d in documents[:10]]), atol=1e-6)
    from morgana.corpus.images import load

    for row, document in zip(vectors[10:], documents[10:], strict=True):
        assert torch.allclose(row, ENCODER.encode_image(load(document.image))[0], atol=1e-6)
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
    assert "neither text nor image" in reasons["nothing"]
    assert index.info()["quarantined"] == 6


@pytest.mark.parametrize("after", [0, 3, 4, 17, 29])
def test_after_ctrl_c_it_continues_and_ends_in_the_same_bytes(tmp_path, after):
    documents = texts(20) + pictures(tmp_path, 10)
    quietly(documents, ENCODER, tmp_path / "whole", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        quietly(Stopping(documents, after), ENCODER, tmp_path / "index", batch_size=4)
    assert not (tmp_path / "index").exists()
    with pytest.raises(StoreError, match="its build was interrupted: run the same `morgana index build` again"):
        Index.open(tmp_path / "index")
    quietly(documents, ENCODER, tmp_path / "index", batch_size=4)
    assert content(tmp_path / "index") == content(tmp_path / "whole")
    assert not staging(tmp_path / "index").exists()


class Counting:
    """An encoder that counts the texts it is given."""

    def __init__(self):
        self.seen, self.dimension, self.image_size, self.fingerprint = 0, 16, 8, "counting"

    def encode_text(self, texts):
        self.seen += len(texts)
        return ENCODER.encode_text(texts)


def test_what_was_embedded_is_not_embedded_again(tmp_path):
    encoder = Counting()
    with pytest.raises(KeyboardInterrupt):
        quietly(Stopping(texts(20), 16), encoder, tmp_path / "index", batch_size=2)
    before = encoder.seen
    quietly(texts(20), encoder, tmp_path / "index", batch_size=2)
    assert 0 < before < 20
    assert encoder.seen == 20


@pytest.mark.parametrize("change", ["text", "encoder", "batch_size", "resume"])
def test_another_build_does_not_continue_the_interrupted_one(tmp_path, change):
    documents = texts(20)
    with pytest.raises(KeyboardInterrupt):
        quietly(Stopping(documents, 12), ENCODER, tmp_path / "index", batch_size=4)
    encoder, options = ENCODER, {"batch_size": 4}
    if change == "text":
        documents[1] = Document("d1", "another text")
    elif change == "encoder":
        encoder = ConvEncoder(12)
    else:
        options |= {"batch_size": 5} if change == "batch_size" else {"resume": False}
    quietly(documents, encoder, tmp_path / "index", **options)
    quietly(documents, encoder, tmp_path / "whole", **options)
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_a_changed_iterator_that_cannot_start_again_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quietly(Stopping(texts(20), 12), ENCODER, tmp_path / "index", batch_size=4)
    with pytest.raises(StoreError, match=r"the documents are not those of the build in .*resume=False"):
        quietly(iter(texts(3)), ENCODER, tmp_path / "index", batch_size=4)


SLOWLY = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakes import ConvEncoder
from morgana.corpus.image_folder import ImageFolder
from morgana.index import build
class Slow(ConvEncoder):
    def encode_image(self, pixels):
        time.sleep(0.02)
        return super().encode_image(pixels)
    def __repr__(self):
        return repr(ConvEncoder(16))
build(ImageFolder(sys.argv[2]), Slow(16), Path(sys.argv[3]), batch_size=2, progress=False, seconds=0)
"""


def test_killed_at_any_moment_it_continues_and_ends_in_the_same_bytes(tmp_path):
    pictures(tmp_path / "pictures", 60)
    corpus = ImageFolder(str(tmp_path / "pictures"))
    quietly(corpus, ENCODER, tmp_path / "whole", batch_size=2)
    state = staging(tmp_path / "index") / "state.json"
    command = [sys.executable, "-c", SLOWLY, os.path.dirname(__file__) + "/..", corpus.root, str(tmp_path / "index")]
    with subprocess.Popen(command) as child:
        while child.poll() is None and not (state.exists() and json.loads(state.read_bytes())["batches"] >= 5):
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert 5 <= json.loads(state.read_bytes())["batches"] < 30
    with (state.parent / "vectors.raw").open("ab") as file:
        file.write(b"torn")  # what a checkpoint does not count
    quietly(corpus, ENCODER, tmp_path / "index", batch_size=2)
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_no_space_left_says_so_and_what_is_done_is_kept(tmp_path, little_space):
    documents = texts(400)
    quietly(documents, ENCODER, tmp_path / "whole", batch_size=16)
    with little_space(20_000), pytest.raises(StoreError, match=r"cannot write .*: File too large; free some space"):
        quietly(documents, ENCODER, tmp_path / "index", batch_size=16, seconds=0)
    assert not (tmp_path / "index").exists()
    assert json.loads((staging(tmp_path / "index") / "state.json").read_bytes())["documents"] > 0
    quietly(documents, ENCODER, tmp_path / "index", batch_size=16)
    assert content(tmp_path / "index") == content(tmp_path / "whole")


@pytest.mark.parametrize("size", [300, 3_000, 9_000, 30_000])
def test_no_space_left_at_any_point_is_a_store_error(tmp_path, little_space, size):
    with little_space(size), pytest.raises(StoreError, match="cannot write"):
        quietly(texts(400), ENCODER, tmp_path / "index", batch_size=400)
    assert not (tmp_path / "index").exists()


def test_an_id_that_comes_twice_is_named(tmp_path):
    with pytest.raises(StoreError, match="the corpus has two documents 'd3'; give each an id of its own"):
        quietly([*texts(10), Document("d3", "again")], ENCODER, tmp_path / "index", batch_size=2)


def test_an_empty_corpus_and_one_of_bad_documents_are_refused(tmp_path):
    with pytest.raises(StoreError, match="nothing of the corpus can be indexed: it has no documents"):
        quietly([], ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match=r"all 1 documents were refused, the first: .*NUL character"):
        quietly([Document("d", "\0")], ENCODER, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_replaced_only_when_asked(tmp_path):
    quietly(texts(3), ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match="holds an index; replace it with --overwrite"):
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


def test_killed_between_the_two_renames_the_old_index_comes_back(tmp_path):
    quietly(texts(3), ENCODER, tmp_path / "index")
    (tmp_path / "index").rename(tmp_path / ".index.old")
    with pytest.raises(StoreError, match="holds an index"):
        quietly(texts(5), ENCODER, tmp_path / "index")
    assert len(Index.open(tmp_path / "index").documents()) == 3


def test_two_builds_of_one_folder_do_not_mix(tmp_path):
    from morgana.index._staging import locked

    with (
        locked(staging(tmp_path / "index")),
        pytest.raises(StoreError, match="another process is building in"),
    ):
        quietly(texts(3), ENCODER, tmp_path / "index")


class Wrong(Counting):
    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def __repr__(self):
        return "Wrong()"

    def encode_text(self, texts):
        return self.rows.expand(len(texts), -1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.full((1, 16), float("nan")), r"Wrong\(\) gave vectors that hold NaN or infinity, first in row 0"),
        (torch.ones(1, 16), "are not of unit length, first row 0 of length 4"),
        (torch.zeros(1, 16), "of length 0"),
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
