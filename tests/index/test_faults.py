import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from building import ENCODER, content, quietly, texts

from morgana.index import Index, add, compact, delete, upsert, verify
from morgana.index.verifying import mend
from morgana.types import Document, StoreError

HERE = Path(__file__).parent
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing is lost there that a kill could lose


SOME = [f"{change}:some" for change in ("build", "rebuild", "add", "upsert", "delete", "compact")]
EVERY = [word.replace("some", "all") for word in SOME]
ANY = ("build", "add", "delete", "compact")


@pytest.mark.parametrize(
    ("stepped", "times"),
    [(SOME, 4), pytest.param(EVERY, 50, marks=pytest.mark.slow)],
    ids=["some", "every step and 50 instants"],
)
def test_killed_at_any_moment_nothing_is_lost_and_nothing_doubled(stepped, times):
    """Processes that write are ended before a write, sync, rename or removal, or by kill -9 at a random instant.

    Each time the folder must hold the old state or the new; and the new, byte for byte, when the change is asked for
    again.
    """
    instants = [f"{change}:{times}" for change in ANY]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        command = [sys.executable, str(HERE / "killing.py"), folder, *stepped, *instants]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {*stepped, *instants}
    assert {change: result["wrong"] for change, result in found.items() if result["wrong"]} == {}
    assert all(found[word]["kills"] >= 8 for word in stepped)
    assert sum(found[word]["kills"] for word in instants) >= 2 * times  # the others had ended by then


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


def flipped(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_in_a_search_file_is_found(tmp_path):
    from morgana.index.kinds.sq8 import SQ8

    index = quietly(texts(30), ENCODER, tmp_path / "index", kind=SQ8())
    path = index.path / "segments/000001/vectors.faiss"
    for place in np.linspace(0, path.stat().st_size - 1, 40).astype(int):
        flipped(path, place)
        assert verify(index.path) == ["segments/000001/vectors.faiss was changed after it was written"]
        flipped(path, place)
    assert verify(index.path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 512 KiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"a file system cannot be mounted here, for which one must be root: {done and done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk, left):
    """A file that leaves so many KiB free."""
    free = shutil.disk_usage(disk).free - (left << 10)
    (disk / "ballast").write_bytes(b"x" * free)
    return disk / "ballast"


@pytest.mark.parametrize("left", [0, 4, 16, 40])  # KiB
def test_a_full_disk_stops_a_build_which_goes_on_when_there_is_space(small_disk, left, tmp_path):
    ballast = fill(small_disk, left)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device; free some space or choose"):
        quietly(texts(400), ENCODER, small_disk / "index", batch_size=16, seconds=0)
    assert not (small_disk / "index").exists()
    ballast.unlink()
    index = quietly(texts(400), ENCODER, small_disk / "index", batch_size=16)
    assert content(index.path) == content(quietly(texts(400), ENCODER, tmp_path / "whole", batch_size=16).path)


@pytest.mark.parametrize("change", ["add", "upsert", "delete", "compact"])
@pytest.mark.parametrize("left", [0, 4, 12, 28])  # KiB
def test_a_full_disk_leaves_an_index_as_it_was(small_disk, change, left):
    path = quietly(texts(40), ENCODER, small_disk / "index").path
    new = [Document(f"n{n}", f"new text {n}" * 40) for n in range(100)]
    before, ballast = Index.open(path).documents(), fill(small_disk, left)
    changes = {
        "add": lambda: add(path, new, ENCODER),
        "upsert": lambda: upsert(path, [*new, Document("d1", "another")], ENCODER),
        "delete": lambda: delete(path, ["d1", "d2"]),
        "compact": lambda: compact(path),
    }
    said = outcome(changes[change])
    assert not said or ("cannot write" in said and "free some space" in said), said
    assert verify(path) == []
    assert not said or Index.open(path).documents() == before
    assert said or left >= 4, "there was no space for this"
    ballast.unlink()
    if said:
        changes[change]()
    assert verify(path) == []
