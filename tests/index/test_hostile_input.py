"""Specs and documents from a stranger: Morgana's errors or none, no code run, nothing outside the folder touched."""

import json
import os
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from building import ENCODER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morgana.corpus.jsonlines import JSONLines
from morgana.index import build, verify
from morgana.spec import LONGEST, parse, registry
from morgana.types import Document, MorganaError, SpecError

FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
watching = threading.local()


def heard(event, arguments):
    """An audit hook, which sees what no wrapper would; it cannot be taken out again, so it is asleep by default."""
    seen = getattr(watching, "seen", None)
    if seen is None:
        return
    if event in FORBIDDEN:
        seen.append((event, str(arguments)[:100]))
    if event in ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "sqlite3.connect"):
        paths = arguments[:2] if event in ("os.rename", "os.symlink") else arguments[:1]
        seen += [(event, os.fsdecode(a)) for a in paths if isinstance(a, (str, bytes, os.PathLike))]


sys.addaudithook(heard)


@contextmanager
def watched():
    """What was run, opened, removed or renamed within the block, by this thread."""
    watching.seen = []
    try:
        yield watching.seen
    finally:
        watching.seen = None


def test_the_watch_sees_what_it_is_for(tmp_path):
    (tmp_path / "a").write_text("x")
    with watched() as seen, (tmp_path / "a").open():
        os.system("true")
    assert [event for event, _ in seen] == ["open", "os.system"]
    assert str(tmp_path / "a") in dict(seen)["open"]


BAIT = ("__import__('os').system('touch {0}')", "open('{0}', 'w')", "().__class__.__bases__", "exec('x')", "eval('1')")
NAMES = sorted(registry())
leaves = st.one_of(
    st.sampled_from(
        ["0", "-1", "8/255", "1/0", "None", "True", "'x'", "()", "b'x'", "1j", "9" * 400, "lambda: 0", "..."]
    ),
    st.text(max_size=6).map(repr),
    st.sampled_from(BAIT),
    st.sampled_from(NAMES),
    st.floats().map(repr),
)
specs = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds("{}({})".format, st.sampled_from([*NAMES, "PGDD", "os"]), st.lists(inner, max_size=3).map(", ".join)),
        st.builds(
            "{}({}={})".format, st.sampled_from(NAMES), st.sampled_from(["seed", "k", "root", "__class__"]), inner
        ),
        st.builds("({}, {})".format, inner, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "/", "or", "if", ".", "@", ":=", ";"]), inner),
        st.builds("-{}".format, inner),
        inner.map(lambda text: "(" * 150 + text),
    ),
    max_leaves=8,
)


def parses(text, folder):
    marker = folder / "run"
    with watched() as seen, suppress(SpecError):
        made = parse(text.replace("{0}", str(marker)))
        assert isinstance(made, (bool, int, float, str, tuple, type(None), *registry().values()))
    assert [name for event, name in seen if event in FORBIDDEN] == []
    assert not marker.exists()


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.one_of(specs, st.text(max_size=60)))
def test_hostile_specs(tmp_path_factory, text):
    parses(text, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(st.one_of(specs, st.text(max_size=LONGEST // 50)))
def test_ten_thousand_hostile_specs(tmp_path_factory, text):
    parses(text, tmp_path_factory.getbasetemp())


OUT = (
    "../secret.png",
    "/etc/passwd",
    "link/secret.png",
    "a/../../secret.png",
    "secret\0.png",
    "~/x.png",
    "..",
    ".",
    "",
)
text = st.text(max_size=12) | st.sampled_from(["\0", "\ud800", "x" * 300_000, "$(touch run)", "{0.__class__}", "%s%n"])
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(OUT),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
row = st.fixed_dictionaries(
    {},
    optional={
        "_id": text | st.integers() | value,
        "text": text | value,
        "title": text | value,
        "image": st.sampled_from([*OUT, "good.png", "bad.png", "gone.png"]) | value,
        "metadata": st.dictionaries(st.text(max_size=5), value, max_size=2) | value,
    },
)
torn = st.sampled_from([b"{", b'{"_id": 1', b"\xff\xfe", b"[1]", b"null", b"[" * 5000, b'{"_id": NaN}', b"\0", b""])
line = row.map(lambda made: json.dumps(made).encode()) | torn


def prepared(folder):
    """A corpus folder with a good image, a bad one, a link that leads out, and what must not be touched."""
    corpus = folder / "corpus"
    corpus.mkdir()
    (folder / "secret.png").write_bytes(b"precious")
    (corpus / "link").symlink_to(folder)
    (corpus / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    import torch

    from morgana.corpus.images import save

    save(torch.rand(1, 3, 8, 8), corpus / "good.png")
    return corpus


def builds(folder, documents):
    """Build from what is hostile: only Morgana's errors, and nothing beyond the corpus and the index is opened."""
    index = folder / "x" / "index"
    with watched() as seen, suppress(MorganaError):
        build(documents(), ENCODER, index, embed="both", batch_size=2, progress=False, workers=1)
    inside = (str(folder / "corpus") + "/", str(folder / "x"))
    assert [name for event, name in seen if event in FORBIDDEN] == []
    strange = [name for _, name in seen if str(folder) in name and not name.replace("file://", "").startswith(inside)]
    assert strange == []
    assert (folder / "secret.png").read_bytes() == b"precious"
    assert {p.name for p in folder.iterdir()} <= {"corpus", "x", "secret.png"}
    if (index / "manifest.json").exists():
        assert verify(index) == []


def from_lines(folder, lines):
    corpus = prepared(folder)
    (corpus / "corpus.jsonl").write_bytes(b"\n".join(lines))
    builds(folder, lambda: JSONLines(str(corpus)))


def from_list(folder, documents):
    corpus = prepared(folder)
    placed = [replace(d, image=corpus / f"{'good' if n % 2 else 'bad'}.png") for n, d in enumerate(documents)]
    builds(folder, lambda: placed)


wild = st.builds(
    Document,
    st.text(max_size=8) | st.sampled_from(["\0", "\ud800", "", "../x", "a" * 5000]),
    text,
    st.none(),
    st.dictionaries(st.text(max_size=5), value | st.just({1, 2}) | st.just(b"x"), max_size=2),
)


def every(count):
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


@every(120)
@given(st.lists(line, max_size=5))
def test_hostile_lines(tmp_path_factory, lines):
    from_lines(tmp_path_factory.mktemp("h"), lines)


@every(80)
@given(st.lists(wild, max_size=5))
def test_hostile_documents(tmp_path_factory, documents):
    from_list(tmp_path_factory.mktemp("h"), documents)


@pytest.mark.slow
@every(5_000)
@given(st.lists(line, max_size=5))
def test_five_thousand_hostile_corpora(tmp_path_factory, lines):
    from_lines(tmp_path_factory.mktemp("h"), lines)


@pytest.mark.slow
@every(5_000)
@given(st.lists(wild, max_size=5))
def test_five_thousand_hostile_lists(tmp_path_factory, documents):
    from_list(tmp_path_factory.mktemp("h"), documents)
