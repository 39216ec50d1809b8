"""The commands that change an index, as a user types them."""

import json

import pytest

from morgana.cli.app import run
from morgana.corpus.jsonlines import write_jsonlines
from morgana.types import Document

ENCODER = "HashEncoder(dimension=64)"


class Few:
    def __init__(self, *rows):
        self.rows = tuple(Document(id, text) for id, text in rows)

    def documents(self):
        return self.rows

    def queries(self):
        return ()

    def qrels(self):
        return {}


@pytest.fixture
def index(tmp_path, capsys):
    write_jsonlines(Few(*((f"d{n}", f"text number {n}") for n in range(6))), tmp_path / "old")
    write_jsonlines(Few(("n1", "a new one"), ("n2", "another new one"), ("n3", "a new one")), tmp_path / "new")
    assert (
        run(["index", "build", str(tmp_path / "old"), "--encoder", ENCODER, "--out", str(tmp_path / "x.index")], True)
        == 0
    )
    capsys.readouterr()
    return str(tmp_path / "x.index")


def told(capsys, *words):
    status = run([str(word) for word in words], False)
    said = capsys.readouterr()
    return status, said.out, said.err


def documents(capsys, *words):
    status, out, err = told(capsys, *words, "--json")
    assert status == 0, err
    return json.loads(out)["documents"]


def test_an_index_is_changed_from_the_command_line(index, tmp_path, capsys):
    new, old = tmp_path / "new", tmp_path / "old"
    assert documents(capsys, "index", "add", index, new, "--fold") == 8
    status, _, err = told(capsys, "index", "add", index, new)
    assert (status, "holds 'n1'" in err, "upsert replaces" in err) == (1, True, True)
    assert documents(capsys, "index", "upsert", index, old) == 8
    assert documents(capsys, "index", "delete", index, "d1", "n2") == 6
    status, _, err = told(capsys, "index", "delete", index, "d2", "d1")
    assert (status, "holds no document 'd1'" in err, "nothing was deleted" in err) == (1, True, True)
    status, _, err = told(capsys, "index", "delete", index, "n1")
    assert (status, "'n3' would go too" in err) == (1, True)
    assert documents(capsys, "index", "compact", index) == 6
    assert told(capsys, "index", "verify", index)[:2] == (0, f"{index} is whole\n")
    other = str(tmp_path / "other.index")
    assert run(["index", "build", str(new), "--encoder", ENCODER, "--out", other], True) == 0
    capsys.readouterr()
    status, _, err = told(capsys, "index", "merge", index, other)
    assert (status, "both hold" in err) == (1, True)
    assert documents(capsys, "index", "delete", index, "n1", "n3") == 5
    assert documents(capsys, "index", "merge", index, other) == 8
    assert "segments     2, generation 7" in told(capsys, "index", "info", index)[1]


def test_what_is_damaged_is_said_with_what_mends_it(index, tmp_path, capsys):
    path = tmp_path / "x.index/segments/000001/vectors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, out, _ = told(capsys, "index", "verify", index, "--json")
    assert status == 1
    found = json.loads(out)
    assert found["wrong"] == ["segments/000001/vectors.npy was changed after it was written"]
    assert found["mend"].startswith("restore the file from a copy, or rebuild it: morgana index build 'JSONLines(")


def test_parquet_and_tars_are_named_by_their_path(tmp_path, capsys, monkeypatch):
    import io
    import tarfile

    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": ["a"], "text": ["fog"]}), tmp_path / "x.parquet")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("b.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"mist\n"))
    for name, kind in (("x.parquet", "Parquet"), ("x.tar", "WebDataset")):
        out = tmp_path / f"{kind}.index"
        words = ["index", "build", str(tmp_path / name), "--encoder", ENCODER, "--out", str(out), "--json"]
        assert run(words, True) == 0
        assert json.loads(capsys.readouterr().out)["corpus"].startswith(kind)


def test_a_search_is_filtered(tmp_path, capsys):
    rows = [Document(f"d{n}", f"text {n}", metadata={"year": str(1980 + n)}) for n in range(6)]
    few = Few()
    few.rows = tuple(rows)
    write_jsonlines(few, tmp_path / "corpus")
    index = str(tmp_path / "y.index")
    assert run(["index", "build", str(tmp_path / "corpus"), "--encoder", ENCODER, "--out", index], True) == 0
    capsys.readouterr()
    words = ("search", index, "--text", "text 5", "--where")
    status, out, err = told(capsys, *words, "year > 1981 and year < 1984", "--json")
    assert (status, {h["id"] for h in json.loads(out)["hits"]}) == (0, {"d2", "d3"})
    assert "2 documents match, fewer than the 5" in told(capsys, *words, "1981 < year < 1984")[2]
    assert told(capsys, *words, "year == 1981")[2] == "1 document matches, fewer than the 5 that were asked for\n"
    status, _, err = told(capsys, *words, "year > 0", "--by", "fused")
    assert (status, "keeps no words to search for" in err, "--sparse" in err) == (1, True, True)
    assert run(["index", "compact", index, "--sparse"], True) == 0
    assert "sparse       words" in capsys.readouterr().out
    for by in ("sparse", "fused"):
        status, out, _ = told(capsys, "search", index, "--text", "5", "--where", "year > 1980", "--by", by, "--json")
        assert (status, json.loads(out)["hits"][0]["id"]) == (0, "d5")
    assert "--by both; choose one of dense" in told(capsys, *words, "year > 0", "--by", "both")[2]
    status, out, err = told(capsys, *words, "yaer == 1981")
    assert (status, out) == (1, "")
    assert "no document has the field 'yaer' (did you mean year?)" in err
