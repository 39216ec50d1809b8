import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.corpus.images import save
from morgana.corpus.jsonlines import JSONLines, write_jsonlines
from morgana.spec import parse
from morgana.types import Document, Query, SpecError, StoreError


def folder(root, documents, queries=None, qrels=None):
    root.mkdir(parents=True, exist_ok=True)
    write(root / "corpus.jsonl", documents)
    if queries is not None:
        write(root / "queries.jsonl", queries)
    if qrels is not None:
        (root / "qrels").mkdir(exist_ok=True)
        (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return JSONLines(str(root))


def write(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


class Listed:
    def __init__(self, documents, queries=(), qrels=None):
        self._all = tuple(documents), tuple(queries), qrels or {}

    def documents(self):
        return self._all[0]

    def queries(self):
        return self._all[1]

    def qrels(self):
        return self._all[2]


def test_beirs_folder_is_read(tmp_path):
    save(torch.zeros(1, 3, 2, 2), tmp_path / "images" / "a.png")
    corpus = folder(
        tmp_path,
        [
            {
                "_id": "d1",
                "title": "Calmouth",
                "text": "A harbour.",
                "image": "images/a.png",
                "metadata": {"topic": "sea"},
            },
            {"_id": "d2", "text": "Fog."},
        ],
        [{"_id": "q1", "text": "Where?"}, {"_id": "q2", "image": "images/a.png"}],
        "q1\td1\t2\nq1\td2\t0\r\nq2\td2\t1\n\n",
    )
    metadata = {"topic": "sea", "title": "Calmouth"}
    image = tmp_path / "images" / "a.png"
    assert corpus.documents() == (Document("d1", "Calmouth\nA harbour.", image, metadata), Document("d2", "Fog."))
    assert corpus.queries() == (Query("q1", "Where?"), Query("q2", "", image))
    assert corpus.qrels() == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert parse(repr(corpus)) == corpus


def test_flashrags_documents_are_read(tmp_path):
    corpus = folder(tmp_path, [{"id": 7, "contents": "Calmouth\nA harbour."}])
    assert corpus.documents() == (Document("7", "Calmouth\nA harbour."),)
    assert (corpus.queries(), corpus.qrels()) == ((), {})


printable = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
ids = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=8)
document = st.tuples(printable, st.sampled_from(("", "a title")), st.dictionaries(ids, printable, max_size=2))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(ids, document, min_size=1, max_size=5), st.integers(1, 3))
def test_what_is_written_is_read_back(tmp_path_factory, rows, score):
    made = [
        Document(id, "\n".join(filter(None, (title, text))), None, more | ({"title": title} if title else {}))
        for id, (text, title, more) in rows.items()
    ]
    corpus = Listed(made, [Query("q", "?")], {"q": {made[0].id: score}})
    back = write_jsonlines(corpus, tmp_path_factory.mktemp("back"))
    assert (back.documents(), back.queries(), back.qrels()) == (corpus.documents(), corpus.queries(), corpus.qrels())


def test_images_are_copied_once_and_byte_for_byte(tmp_path):
    source = tmp_path / "a.PNG"
    save(torch.rand(1, 3, 4, 4), source)
    corpus = Listed([Document("d", image=source), Document("e", image=source)], [Query("q", image=source)])
    back = write_jsonlines(corpus, tmp_path / "out")
    (image,) = {item.image for item in (*back.documents(), *back.queries())}
    assert image.read_bytes() == source.read_bytes()
    assert image.parent == tmp_path / "out" / "images"


GOOD = {"_id": "d1", "text": "A harbour."}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "corpus.jsonl is empty; write one JSON object a document"),
        (["", "  "], "corpus.jsonl is empty"),
        ([GOOD, '{"_id": "d2"'], r"corpus\.jsonl:2 is not JSON in UTF-8"),
        (["[" * 100_000], r"corpus\.jsonl:1 is not JSON in UTF-8"),
        (["[1]"], r"corpus\.jsonl:1 holds a list; write one JSON object a line"),
        ([{"text": "no id"}], r"corpus\.jsonl:1: the id is None; give each line an '_id'"),
        ([{"_id": "a\tb"}], r"the id is 'a\\tb'"),
        ([{"_id": "a\0"}], r"the id is 'a\\x00'"),
        ([GOOD, GOOD], r"corpus\.jsonl:2: the id 'd1' is taken by .*corpus\.jsonl:1"),
        ([{"_id": "d", "text": 5}], r"corpus\.jsonl:1: 'text' is a int; write a string"),
        ([{"_id": "d", "metadata": "x"}], "metadata is a str; write an object"),
        ([{"_id": "d", "image": "../../etc/passwd"}], r"the image '../../etc/passwd' lies outside"),
        ([{"_id": "d", "image": "/etc/passwd"}], "the image '/etc/passwd' lies outside"),
        ([{"_id": "d", "image": "a\0.png"}], r"the image path is 'a\\x00.png'"),
        ([{"_id": "d", "image": "\ud800.png"}], r"the image path '\\ud800\.png' cannot be one: .*name a file below"),
        ([{"_id": "d", "image": 3}], "the image path is 3; write a path relative to"),
    ],
    ids=str,
)
def test_broken_documents_are_named_by_line(tmp_path, rows, message):
    with pytest.raises(StoreError, match=message):
        folder(tmp_path, rows).documents()


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(StoreError, match=r"the image 'a\.png' lies outside .*keep images below the corpus folder"):
        folder(tmp_path / "corpus", [GOOD | {"image": "a.png"}]).documents()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"_id": "q", "text": "a\0b"}, r"queries\.jsonl:1: the text has a NUL character at 1; remove it"),
        ({"_id": "q", "text": "a" * 1_000_000}, r"the text has 1000000 characters, at most 200000 are taken; split it"),
        ({"_id": "q", "text": "\ud800"}, "the text has lone surrogates"),
    ],
    ids=["nul", "megabyte", "surrogate"],
)
def test_queries_that_cannot_be_asked_are_refused_and_such_documents_left_to_quarantine(tmp_path, query, message):
    corpus = folder(tmp_path, [GOOD, query], [query])
    with pytest.raises(StoreError, match=message):
        corpus.queries()
    assert len(corpus.documents()) == 2


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1\td2\t1\n", r"test\.tsv:2: no document has the id 'd2' \(did you mean d1\?\)"),
        ("q9\td1\t1\n", r"test\.tsv:2: no query has the id 'q9' \(did you mean q1\?\)"),
        ("q1 d1 1\n", r"test\.tsv:2 is 'q1 d1 1'; write query-id, corpus-id and a whole score"),
        ("q1\td1\thigh\n", r"test\.tsv:2 is"),
    ],
)
def test_broken_judgements_are_named_by_line(tmp_path, qrels, message):
    corpus = folder(tmp_path, [GOOD], [{"_id": "q1", "text": "?"}], qrels)
    with pytest.raises(StoreError, match=message):
        corpus.qrels()


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"there is no corpus folder .*nowhere; it should hold corpus\.jsonl"):
        JSONLines(str(tmp_path / "nowhere")).documents()
    with pytest.raises(StoreError, match=r"holds no corpus\.jsonl"):
        JSONLines(str(tmp_path)).documents()


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "corpus.jsonl").write_bytes('{"_id": "d", "text": "Él"}'.encode("latin-1"))
    with pytest.raises(StoreError, match=r"corpus\.jsonl:1 is not JSON in UTF-8"):
        JSONLines(str(tmp_path)).documents()


def test_no_space_left_says_so(tmp_path, little_space):
    corpus = Listed([Document(str(n), "word " * 100) for n in range(100)])
    with little_space(4000), pytest.raises(StoreError, match=r"cannot write .*corpus\.jsonl: File too large"):
        write_jsonlines(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "corpus.jsonl").exists()


def test_an_argument_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(SpecError, match=r"JSONLines has no argument 'rot' \(did you mean root\?\)"):
        parse("JSONLines(rot='x')")


def test_a_stream_gives_the_same_documents(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "fog"}\n\n{"_id": "b", "text": "mist"}\n')
    corpus = JSONLines(str(tmp_path))
    assert tuple(corpus.stream()) == corpus.documents()
