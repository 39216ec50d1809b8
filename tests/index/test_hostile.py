"""An index folder from a stranger: whatever it says, only Morgana's errors, no code, nothing outside touched."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from building import ENCODER, content, quietly, reseal, texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morgana.index import Index, add, compact, delete, verify
from morgana.index.manifest import checksum, encode
from morgana.types import MorganaError, StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "index"
    quietly(texts(8), ENCODER, path)
    return delete(path, ["d3"]).path


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "index"))


def put(path, change):
    """A manifest that was changed by someone who knows how checksums are made."""
    content = json.loads((path / "manifest.json").read_bytes())
    change(content)
    content["checksum"] = checksum(content)
    (path / "manifest.json").write_bytes(encode(content))


EVIL = (
    "../secret",
    "../../etc",
    "/etc/passwd",
    "..",
    ".",
    "000001/../../secret",
    "",
    "a\0b",
    "x" * 5000,
    "con/../..",
    "~",
    "000001 ",
)


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("field", ["name", "tombstones"])
def test_a_name_that_leads_out_is_refused_and_nothing_there_is_touched(copy, tmp_path, name, field):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "vectors.npy").write_bytes(b"precious")
    if field == "tombstones" and not name:
        return  # no tombstones: then the counts disagree, below
    put(copy, lambda content: content["segments"][0].update({field: name}))
    for attempt in (Index.open, verify, compact, lambda path: delete(path, ["d1"])):
        with pytest.raises(StoreError, match="names a file that no index has"):
            attempt(copy)
    assert content(tmp_path / "secret") == {"vectors.npy": b"precious"}


@pytest.mark.parametrize("name", EVIL)
def test_a_segment_may_not_list_a_file_outside(copy, name):
    path = copy / "segments/000001/segment.json"
    about = json.loads(path.read_text())
    about["files"][name] = {"bytes": 1, "sha256": ""}
    path.write_text(json.dumps(about))
    put(copy, lambda content: content["segments"][0].update(sha256=digest(path)))
    with pytest.raises(StoreError, match=r"no plain file name; nothing there was touched|link"):
        Index.open(copy)
    assert len(verify(copy)) == 1


def digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "segments",
        "segments/000001",
        "segments/000001/vectors.npy",
        "segments/000001/segment.json",
        "tombstones",
        "manifest.json",
    ],
)
def test_a_link_that_leads_out_is_refused(copy, tmp_path, name):
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path) if not (tmp_path / "elsewhere").is_file() else (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(StoreError):
        Index.open(copy)
    with pytest.raises(StoreError):
        delete(copy, ["d1"])
    with pytest.raises(StoreError):
        compact(copy)
    assert (
        content(tmp_path) if not (tmp_path / "elsewhere").is_file() else (tmp_path / "elsewhere").read_bytes()
    ) == before


def test_a_link_among_what_a_killed_writer_left_is_removed_and_not_followed(copy, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"precious")
    (copy / "segments" / "000009").symlink_to(tmp_path / "outside")
    delete(copy, ["d1"])
    assert not (copy / "segments" / "000009").is_symlink()
    assert content(tmp_path / "outside") == {"precious": b"precious"}


@pytest.mark.parametrize(
    ("row", "message"),
    [([0, 0, 9], "names documents that are not there"), ([0, -1, 2], "names documents that are not")],
)
def test_rows_of_documents_that_are_not_there_are_refused(copy, row, message):
    path = copy / "segments/000001/rows.npy"
    rows = np.load(path)
    rows[0, : len(row)] = row
    np.save(path, rows)
    reseal(copy)
    with pytest.raises(StoreError, match=message):
        Index.open(copy)


@pytest.mark.parametrize("changes", [{"metric": "l2"}, {"generation": 0}])
def test_a_manifest_of_another_metric_or_of_no_generation_is_refused(copy, changes):
    put(copy, lambda content: content.update(changes))
    for attempt in (Index.open, verify):
        with pytest.raises(StoreError, match=r"its metric is '\w+' and its generation \d"):
            attempt(copy)


def test_a_kind_that_there_is_not_is_found(copy):
    put(copy, lambda content: content.update(kind="Nope()"))
    assert any("'Nope()'" in line for line in verify(copy))


def test_an_index_that_has_lost_its_segments_is_not_compacted_to_nothing(copy):
    put(copy, lambda content: content.update(segments=[]))
    before = content(copy)
    for attempt in (Index.open, compact, lambda path: delete(path, ["d1"])):
        with pytest.raises(StoreError, match="it counts other documents or vectors than its segments hold"):
            attempt(copy)
    assert content(copy) == before


@pytest.mark.parametrize("dead", [[0, 99], [-1], [2, 2], []])
def test_tombstones_of_documents_that_are_not_there_are_refused(copy, dead):
    (path,) = (copy / "tombstones").iterdir()
    np.save(path, np.array(dead, dtype="<i4"))

    def change(content):
        content["segments"][0].update(tombstones_sha256=digest(path), deleted=len(dead))
        content["documents"] = content["segments"][0]["documents"] - len(dead)

    put(copy, change)
    with pytest.raises(StoreError, match="damaged"):
        Index.open(copy)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(EVIL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SPECS = st.sampled_from(
    ["Flat()", "HNSW()", "Factory('IVF9999999,Flat')", "__import__('os').system('x')", "Auto()", "("]
)


@st.composite
def harm(draw):
    """(path into the manifest, new value) or a whole new manifest."""
    top = [
        "kind",
        "dimension",
        "documents",
        "vectors",
        "segments",
        "format",
        "generation",
        "measured",
        "encoder",
        "metric",
    ]
    inner = ["name", "documents", "vectors", "quarantined", "sha256", "deleted", "deleted_vectors", "tombstones"]
    kind = draw(st.sampled_from(["top", "segment", "spec", "whole", "drop", "twice"]))
    return kind, draw(st.sampled_from(inner if kind == "segment" else top)), draw(SPECS if kind == "spec" else anything)


def apply(content, kind, key, value):
    if kind == "whole":
        content.clear()
        content.update(value if isinstance(value, dict) else {"format": 2, "value": value})
    elif kind == "segment":
        content["segments"][0][key] = value
    elif kind == "drop":
        content.pop(key)
    elif kind == "twice":
        content["segments"] *= 2
    else:
        content["kind" if kind == "spec" else key] = value


def survives(made, folder, harms):
    """Open, search, verify and change the harmed copy: only Morgana's errors, and the neighbour is untouched."""
    path = Path(shutil.copytree(made, folder / "index"))
    (folder / "secret").write_bytes(b"precious")
    try:
        put(path, lambda content: [apply(content, *one) for one in harms])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, UnicodeEncodeError):
        return  # two harms that do not go together, or JSON that cannot be written
    for attempt in (
        lambda: Index.open(path).search(torch.ones(1, 16), 3),
        lambda: Index.open(path).info(),
        lambda: verify(path),
        lambda: compact(path),
        lambda: add(path, texts(1), ENCODER),
    ):
        with suppress(MorganaError):
            attempt()
    assert (folder / "secret").read_bytes() == b"precious"
    assert {p.name for p in folder.iterdir()} == {"index", "secret"}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(harm(), min_size=1, max_size=2))
def test_hostile_manifests(made, tmp_path_factory, harms):
    survives(made, tmp_path_factory.mktemp("h"), harms)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(harm(), min_size=1, max_size=3))
def test_ten_thousand_hostile_manifests(made, tmp_path_factory, harms):
    folder = tmp_path_factory.mktemp("h")
    survives(made, folder, harms)
    shutil.rmtree(folder)
