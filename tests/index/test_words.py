"""BM25 over an index that changes is bm25s over the documents that live."""

import json
import shutil
from contextlib import suppress

import bm25s
import numpy as np
import pytest
from building import ENCODER, content, pictures, quietly, reseal, texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morgana.index import Index, _counting, add, compact, delete, from_vectors, lexical, merge, upsert, verify
from morgana.index.verifying import mend
from morgana.index.words import FILES, Words, cut
from morgana.types import Document, SpecError, StoreError

SOME = ("fog over the harbour", "the quarry", "Harbour harbour HARBOUR boats", "a lake, a lake and fog", "ice 1987 ice")


def documents(numbers, step=0):
    return [Document(f"d{n}", f"{SOME[(n + step) % 5]} {'wide ' * (n % 3)}sea{n % 4}") for n in numbers]


def judged(held, query, k1, b):
    """Scores by bm25s itself, over documents as they are now: id -> score, those above 0."""
    corpus = bm25s.tokenize(list(held.values()), token_pattern=r"(?u)\b\w+\b", stopwords=None, show_progress=False)
    engine = bm25s.BM25(method="lucene", k1=k1, b=b)
    engine.index(corpus, show_progress=False)
    words = [word for word in cut(query) if word in corpus.vocab]
    scores = engine.get_scores(words) if words else np.zeros(len(held))
    return {id: float(score) for id, score in zip(held, scores, strict=True) if score}


def same(index, held, query, k, k1=1.5, b=0.75):
    (hits,) = index.match([query], k, k1=k1, b=b)
    wanted = judged(held, query, k1, b)
    assert len(hits) == min(k, len(wanted))
    assert [h.score for h in hits] == pytest.approx(sorted(wanted.values(), reverse=True)[:k], rel=1e-5)
    assert {h.document.id: h.score for h in hits} == pytest.approx({h.document.id: wanted[h.document.id] for h in hits})


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.5, 2.5]), max_size=300),
    st.integers(1, 20),
    st.sampled_from([2, 64]),
)
def test_the_best_are_those_of_a_full_sort(scores, k, rows):
    held = np.array(scores, dtype=np.float32)
    wanted = sorted((-score, place) for place, score in enumerate(scores) if score)
    least = -wanted[min(k, len(wanted)) - 1][0] if wanted else 0
    expected = [place for place, score in enumerate(scores) if score and score >= least]
    before, lexical.ROWS = lexical.ROWS, rows
    try:
        assert lexical.best(held, k).tolist() == expected
    finally:
        lexical.ROWS = before


small = st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=4)
changes = st.lists(st.tuples(st.sampled_from(["add", "upsert", "delete", "compact"]), small), max_size=5)


@settings(max_examples=6, deadline=None)
@given(changes, st.sampled_from([(1.5, 0.75), (0.9, 0.4), (0, 0), (2.0, 1.0)]), st.integers(1, 12))
def test_any_changes_leave_the_scores_of_the_living(tmp_path_factory, steps, settings, k):
    path = tmp_path_factory.mktemp("words") / "index"
    held = {d.id: d.text for d in documents(range(6))}
    quietly(documents(range(6)), ENCODER, path, sparse=True)
    for number, (what, numbers) in enumerate(steps, 1):
        new = documents(numbers, number)
        known = [d.id for d in new if d.id in held]
        if what == "upsert" or (what == "add" and not known):
            (upsert if what == "upsert" else add)(path, new, ENCODER)
            held = {id: text for id, text in held.items() if id not in known} | {d.id: d.text for d in new}
        elif what == "delete" and len(known) == len(new) < len(held):
            delete(path, known)
            held = {id: text for id, text in held.items() if id not in known}
        elif what == "compact":
            compact(path)
    index = Index.open(path)
    for query in ("harbour fog", "the the lake sea1", "ICE", "nothing of it", "", "wide wide harbour 1987"):
        same(index, held, query, k, *settings)
    assert verify(path) == []


def test_equal_documents_tie_in_order_of_insertion_over_segments(tmp_path):
    path = tmp_path / "index"
    quietly([Document("z", "fog"), Document("y", "sea"), Document("x", "fog")], ENCODER, path, sparse=True)
    index = add(path, [Document("a", "fog"), Document("b", "fog")], ENCODER)
    assert [h.document.id for h in index.match(["fog"], 3)[0]] == ["z", "x", "a"]
    assert len({h.score for h in index.match(["fog"], 9)[0]}) == 1


def test_a_filter_narrows_the_match_and_leaves_the_scores(tmp_path):
    made = [Document(f"d{n}", f"fog {n % 3} sea", metadata={"year": str(n)}) for n in range(30)]
    index = quietly(made, ENCODER, tmp_path / "index", sparse=True)
    everything = {h.document.id: h.score for h in index.match(["fog 1"], 30)[0]}
    (hits,) = index.match(["fog 1"], 4, where="year >= 10 and year < 20")
    wanted = sorted((-everything[f"d{n}"], n) for n in range(10, 20))[:4]
    assert [h.document.id for h in hits] == [f"d{n}" for _, n in wanted]
    assert [h.score for h in hits] == [everything[h.document.id] for h in hits]


def test_documents_without_words_do_not_count(tmp_path):
    made = [*documents(range(6)), *pictures(tmp_path, 3), Document("dots", "... !")]
    index = quietly(made, ENCODER, tmp_path / "index", sparse=True)
    same(index, {d.id: d.text for d in documents(range(6))}, "harbour fog", 9)
    assert verify(index.path) == []
    only = quietly(pictures(tmp_path, 2), ENCODER, tmp_path / "only", sparse=True)
    assert only.match(["fog"], 3) == [()]
    assert verify(only.path) == []


def test_words_come_and_go_by_compact(tmp_path):
    index = quietly(texts(6), ENCODER, tmp_path / "index")
    with pytest.raises(StoreError, match=r"keeps no words to search for; add them: morgana index compact .* --sparse"):
        index.match(["text"], 3)
    made = compact(index.path, sparse=True)
    assert made.manifest.sparse == "words"
    assert len(made.match(["number 3"], 9)[0]) == 6
    assert compact(index.path).manifest.sparse == "words"
    plain = compact(index.path, sparse=False)
    assert "sparse" not in json.loads((index.path / "manifest.json").read_text())
    assert not [name for name in content(plain.path) if "sparse" in name]


def test_merging_takes_words_from_the_texts(tmp_path):
    index = quietly(documents(range(3)), ENCODER, tmp_path / "index", sparse=True)
    other = quietly(documents(range(3, 7)), ENCODER, tmp_path / "other")
    same(merge(index.path, other.path), {d.id: d.text for d in documents(range(7))}, "harbour fog", 9)


def test_everything_may_be_deleted(tmp_path):
    index = quietly(documents(range(3)), ENCODER, tmp_path / "index", sparse=True)
    assert delete(index.path, ["d0", "d1", "d2"]).match(["fog"], 3) == [()]
    assert compact(index.path).match(["fog"], 3) == [()]
    assert len(add(index.path, documents(range(2)), ENCODER).match(["harbour"], 3)[0]) == 1


def test_counts_are_turned_piece_by_piece_as_in_one(tmp_path, monkeypatch):
    whole = quietly(documents(range(40)), ENCODER, tmp_path / "whole", sparse=True)
    monkeypatch.setattr(_counting, "PIECE", 7)
    index = quietly(documents(range(40)), ENCODER, tmp_path / "index", sparse=True)
    assert content(index.path) == content(whole.path)
    words = index.segments[0].words
    assert [words.word(n) for n in range(len(words))] == sorted(
        {w.encode() for d in documents(range(40)) for w in cut(d.text)}
    )
    assert words.find("harbour") is not None
    assert words.find("harbou") is words.find("zzz") is words.find("") is None
    assert isinstance(words.indices.base, np.memmap)


def test_ready_vectors_may_come_with_words(tmp_path):
    rows = ENCODER.encode_text([d.text for d in documents(range(5))]).numpy()
    index = from_vectors(documents(range(5)), rows, ENCODER, tmp_path / "index", sparse=True)
    same(index, {d.id: d.text for d in documents(range(5))}, "fog", 5)


def test_a_reader_keeps_its_statistics_while_everything_changes(tmp_path):
    index = quietly(documents(range(6)), ENCODER, tmp_path / "index", sparse=True)
    delete(index.path, ["d0", "d1"])
    compact(index.path)
    same(index, {d.id: d.text for d in documents(range(6))}, "harbour fog", 9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return quietly(documents(range(9)), ENCODER, tmp_path_factory.mktemp("w") / "index", sparse=True).path


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_and_mended(made, tmp_path, name):
    copy = shutil.copytree(made, tmp_path / "index")
    path = copy / "segments/000001" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (wrong,) = verify(copy)
    assert name in wrong
    assert f"morgana index compact {copy}" in mend(copy, [wrong])
    compact(copy)
    assert verify(copy) == []
    assert len(Index.open(copy).match(["harbour"], 9)[0]) == 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("value", [-1, 0, 1, 2**30, -(2**31)])
def test_hostile_words_give_an_error_of_ours_or_none(made, tmp_path, name, value):
    copy = shutil.copytree(made, tmp_path / "index")
    path = copy / "segments/000001" / name
    rows = np.load(path)
    rows[len(rows) // 2] = np.array(value).astype(rows.dtype)
    np.save(path, rows)
    reseal(copy)
    found = verify(copy)
    assert found or np.array_equal(rows, np.load(made / "segments/000001" / name)) or name == "sparse.words.npy"
    with suppress(StoreError):
        Index.open(copy).match(["harbour fog the lake sea1 ice quarry wide"], 9)


def test_words_of_other_documents_are_found(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "index")
    other = quietly([Document(f"d{n}", "other") for n in range(9)], ENCODER, tmp_path / "other", sparse=True)
    for name in FILES:
        shutil.copy(other.path / "segments/000001" / name, copy / "segments/000001" / name)
    reseal(copy)
    (wrong,) = verify(copy)
    assert "sparse.lengths.npy counts 1 words of 'd0', it has others" in wrong


def test_a_promise_of_words_is_kept(made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "index")
    reseal(copy, sparse="letters")
    with pytest.raises(StoreError, match="cut by 'letters', which this Morgana does not know"):
        Index.open(copy)
    plain = quietly(texts(3), ENCODER, tmp_path / "plain")
    reseal(plain.path, sparse="words")
    assert "lacks the words of its documents" in verify(plain.path)[0]


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.text(max_size=20))
def test_any_texts_are_counted(tmp_path_factory, some, query):
    folder = tmp_path_factory.mktemp("any")
    counting = _counting.Counting(folder)
    counting.add(some)
    counting.finish()
    words = Words(folder, len(some))
    assert words.wrong() is None
    assert words.lengths.tolist() == [len(cut(text)) for text in some]
    for number in range(len(words)):
        word = words.word(number).decode("utf-8", "surrogatepass")
        assert words.find(word) == number
        place = words.documents(number)
        assert words.indices[place].tolist() == [n for n, text in enumerate(some) if word in cut(text)]
        assert words.counts[place].tolist() == [c for text in some if (c := cut(text).count(word))]
    assert all((words.find(word) is not None) == any(word in cut(t) for t in some) for word in cut(query))


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (float("nan"), 0.5), (float("inf"), 0), (1, 2), (1, -0.1)])
def test_senseless_settings_are_refused(made, k1, b):
    with pytest.raises(SpecError, match="k1 is at least 0, and b from 0 to 1"):
        Index.open(made).match(["fog"], 3, k1=k1, b=b)
    with pytest.raises(SpecError, match="k=0; ask for at least 1"):
        Index.open(made).match(["fog"], 0)
