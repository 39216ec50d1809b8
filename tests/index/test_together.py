"""Two writers, a writer that dies, and readers beside a writer."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from building import ENCODER, quietly, texts

from morgana.index import Index, add, compact, delete, verify
from morgana.types import Document, StoreError

HOLDING = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holding():
    """Starts a process that holds an index as a writer does."""
    started = []

    def start(path):
        started.append(subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_writer_is_told_at_once_and_a_dead_one_is_in_nobodys_way(tmp_path, holding):
    index = quietly(texts(20), ENCODER, tmp_path / "index")
    other = holding(index.path)
    changes = (
        lambda: add(index.path, [Document("x", "mine")], ENCODER),
        lambda: delete(index.path, ["d1"]),
        lambda: compact(index.path),
        lambda: quietly(texts(3), ENCODER, index.path, overwrite=True),
    )
    for change in changes:
        with pytest.raises(StoreError, match=r"another process is writing to .*index; wait for it, or stop it"):
            change()
    assert Index.open(index.path).documents() == index.documents()
    other.send_signal(signal.SIGKILL)
    other.wait()
    made = add(index.path, [Document("x", "mine")], ENCODER)
    assert [d.id for d in made.documents()] == [*(f"d{n}" for n in range(20)), "x"]
    assert verify(index.path) == []


def test_readers_see_the_same_while_an_index_is_compacted_again_and_again(tmp_path):
    path = quietly(texts(200), ENCODER, tmp_path / "index").path
    delete(path, ["d3"])
    old = Index.open(path)
    queries = ENCODER.encode_text(["text number 3", "text number 77"])
    expected, documents = old.search(queries, 5), old.documents()
    enough, failed = threading.Event(), []

    def write():
        try:
            while not enough.is_set():
                compact(path)
        except Exception as error:  # told below
            failed.append(error)

    writer, generations, until = threading.Thread(target=write), set(), time.monotonic() + 120
    writer.start()
    try:
        while len(generations) < 4 and time.monotonic() < until:
            fresh = Index.open(path)
            generations.add(fresh.manifest.generation)
            for index in (old, fresh):
                assert index.search(queries, 5) == expected
            assert fresh.documents() == documents
    finally:
        enough.set()
        writer.join()
    assert failed == []
    assert len(generations) >= 4
