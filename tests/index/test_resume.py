import json
import os
import signal
import subprocess
import sys
import time

import pytest
from building import ENCODER, content, pictures, quietly, texts
from fakes import ConvEncoder

from morgana.corpus.image_folder import ImageFolder
from morgana.files import locked
from morgana.index import Index
from morgana.index.manifest import staging
from morgana.types import Document, StoreError


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


def test_two_builds_of_one_folder_do_not_mix(tmp_path):
    with (
        locked(staging(tmp_path / "index")),
        pytest.raises(StoreError, match="another process is building in"),
    ):
        quietly(texts(3), ENCODER, tmp_path / "index")
