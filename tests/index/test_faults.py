import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from building import ENCODER, content, quietly, texts

from morgana.index import Index, add, compact, delete, upsert, verify
from morgana.index.verifying import mend
from morgana.types import Document, StoreError

HERE = Path(__file__).parent
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing is lost there that a kill could lose


def test_killed_at_any_step_nothing_is_lost_and_nothing_doubled():
    """Before every write, sync, rename and removal of six changes, a process is ended there; then some at random."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        command = [sys.executable, str(HERE / "killing.py"), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    at_random = found.pop("random")
    assert at_random["wrong"] == []
    assert at_random["rounds"] > 0
    assert set(found) == {"build", "rebuild", "add", "upsert", "delete", "compact"}
    assert {change: result["wrong"] for change, result in found.items() if result["wrong"]} == {}
    assert all(result["steps"] >= 8 for result in found.values())
    assert sum(result["steps"] for result in found.values()) > 150


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """An index of two segments, one with a tombstone."""
    path = tmp_path_factory.mktemp("changed") / "index"
    quietly([*texts(20), Document("bad")], ENCODER, path)
    add(path, [Document("x", "an extra one"), Document("nul", "\0")], ENCODER)
    delete(path, ["d3"])
    return path


@pytest.fixture
def copy(changed, tmp_path):
    return Path(shutil.copytree(changed, tmp_path / "index"))


NAMES = ("segment.json", "documents.sqlite", "vectors.npy", "rows.npy", "quarantine.jsonl")
FILES = (
    "manifest.json",
    "tombstones/000001-000003.npy",
    *(f"segments/{s}/{n}" for s in ("000001", "000002") for n in NAMES),
)


def test_these_are_the_files_of_an_index(changed):
    assert set(content(changed)) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_anywhere_is_found_and_its_file_named(copy, name):
    whole = (copy / name).read_bytes()
    for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        data = bytearray(whole)
        data[place] ^= 1
        (copy / name).write_bytes(data)
        try:
            (wrong,) = verify(copy)
        except StoreError as error:  # the manifest itself
            wrong = str(error)
            assert name == "manifest.json"
        assert name in wrong
        with pytest.raises(StoreError, match=Path(name).name):
            Index.open(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["cut", "remove", "folder"])
def test_a_file_that_is_cut_or_missing_is_named(copy, name, harm):
    if harm == "cut":
        (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    else:
        (copy / name).unlink()
    if harm == "folder":
        (copy / name).mkdir()
    with pytest.raises(StoreError, match=rf"(is damaged: .*)?{Path(name).name}.*(rebuild|build) "):
        Index.open(copy)


def test_what_is_wrong_comes_with_what_mends_it(copy):
    (copy / "segments/000002/vectors.npy").write_bytes(b"x")
    (copy / "segments/000001/rows.npy").unlink()
    wrong = verify(copy)
    assert wrong[0] == "segments/000001/rows.npy is missing"
    assert wrong[1].startswith("segments/000002/vectors.npy has 1 bytes, ")
    assert "rebuild it: morgana index build CORPUS --encoder" in mend(copy, wrong)


def test_a_damaged_search_file_is_mended_by_compact(tmp_path):
    from morgana.index.kinds.sq8 import SQ8

    index = quietly(texts(30), ENCODER, tmp_path / "index", kind=SQ8())
    (index.path / "segments/000001/vectors.faiss").write_bytes(b"x" * 100)
    wrong = verify(index.path)
    assert "vectors.faiss has 100 bytes" in wrong[0]
    assert f"morgana index compact {index.path}" in mend(index.path, wrong)
    made = compact(index.path)
    assert verify(index.path) == []
    assert made.documents() == index.documents()


def outcome(change):
    try:
        change()
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("size", [100, 1_500, 9_000, 13_000])
@pytest.mark.parametrize("change", ["add", "upsert", "delete", "compact"])
def test_no_space_left_leaves_the_index_as_it_was(copy, little_space, change, size):
    before = Index.open(copy).documents()
    new = [Document(f"n{n}", f"new text {n}" * 20) for n in range(100)]
    changes = {
        "add": lambda: add(copy, new, ENCODER),
        "upsert": lambda: upsert(copy, [*new, Document("d1", "another")], ENCODER),
        "delete": lambda: delete(copy, ["d1", "d2"]),
        "compact": lambda: compact(copy),
    }
    with little_space(size):
        said = outcome(changes[change])
    full = said.startswith("cannot write")
    assert full or not said
    assert verify(copy) == []
    assert full == (Index.open(copy).documents() == before) or change == "compact"
    assert full or (change, size) not in {("add", 13_000), ("compact", 100)}
    changes[change]() if full else None
    assert verify(copy) == []
