"""The command line: what it prints, what it refuses in one line, and how it is stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from morgana.cli.app import run

TEXT = "HashEncoder(dimension=64)"


@pytest.fixture(autouse=True)
def tiles(tmp_path_factory, monkeypatch):
    """Tiles are rendered into a cache of the tests' own, once for all of them."""
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A BEIR-style folder of twelve texts, two of them about the weather."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, 12)
    return folder


def write_corpus(folder: Path, count: int) -> None:
    topics = ["weather" if i < 2 else "site" for i in range(count)]
    rows = [
        {"_id": f"d{i}", "title": f"Place {i}", "text": f"harbour number {i} " * 3, "metadata": {"topic": topic}}
        for i, topic in enumerate(topics)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def texts(corpus, tmp_path_factory):
    """An index of the twelve texts by spelling."""
    out = tmp_path_factory.mktemp("indexes") / "texts.index"
    assert run(["index", "build", str(corpus), "--encoder", TEXT, "--out", str(out)], debug=True) == 0
    return out


@pytest.fixture(scope="module")
def seen(corpus, tiny_clip_folder, tmp_path_factory):
    """An index of the twelve texts by a tiny CLIP, which can be asked by image."""
    out = tmp_path_factory.mktemp("indexes") / "seen.index"
    encoder = f"OpenCLIP({str(tiny_clip_folder)!r})"
    assert run(["index", "build", str(corpus), "--encoder", encoder, "--out", str(out)], debug=True) == 0
    return out


@pytest.fixture
def tile(tmp_path):
    return picture(tmp_path / "tile.png")


def picture(path: Path, mode: str = "RGB", size: int = 40) -> Path:
    grey = Image.linear_gradient("L").resize((size, size))
    grey.convert(mode).save(path)
    return path


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line that the command says on stderr; its status is 1 or 2 and it prints nothing else."""
    capsys.readouterr()
    assert run(words, debug=False) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


# what it prints ------------------------------------------------------------------------------------------------------


def test_an_index_is_built_described_checked_and_searched(texts, capsys):
    assert run(["index", "info", str(texts), "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 12
    assert run(["index", "verify", str(texts)], debug=True) == 0
    assert "is whole" in capsys.readouterr().out
    assert run(["search", str(texts), "--text", "harbour number 7", "--k", "3", "--json"], debug=True) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert hits[0]["id"] == "d7"
    assert [h["rank"] for h in hits] == [1, 2, 3]
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
    assert run(["search", str(texts), "--text", "harbour number 7"], debug=True) == 0
    assert "Place 7" in capsys.readouterr().out


def test_asking_for_more_documents_than_there_are_gives_all_and_says_so(texts, capsys):
    assert run(["search", str(texts), "--text", "harbour", "--k", "50"], debug=True) == 0
    out, err = capsys.readouterr()
    assert "d11" in out
    assert "holds 12 documents, fewer than the 50" in err
    assert run(["search", str(texts), "--text", "harbour", "--k", "50", "--json"], debug=True) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["hits"]) == 12
    assert "holds 12 documents, fewer than the 50" in err


def test_a_table_is_as_wide_as_columns_says_and_nothing_of_it_is_lost(monkeypatch, capsys):
    def widest() -> tuple[int, str]:
        assert run(["list", "goal"], debug=True) == 0
        out = capsys.readouterr().out
        return max(map(len, out.splitlines())), "".join(out.split())

    wide, _ = widest()
    monkeypatch.setenv("COLUMNS", "60")
    narrow, text = widest()
    assert narrow <= 60 < wide <= 160
    assert "…" not in text.replace(",…)", "")
    monkeypatch.setenv("COLUMNS", "")
    assert widest()[0] == wide


def test_a_question_is_answered_from_its_documents(seen, tile, tiny_llava_folder, capsys):
    generator = f"HF({str(tiny_llava_folder)!r}, max_new_tokens=3)"
    words = [
        "ask",
        str(seen),
        "Who operates this?",
        "--image",
        str(tile),
        "--generator",
        generator,
        "--k",
        "2",
        "--json",
    ]
    assert run(words, debug=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["hits"]) == 2
    assert isinstance(said["answer"], str)
    assert said["question"] == "Who operates this?"


def test_an_attack_saves_the_file_that_it_judges(seen, tile, tmp_path, capsys):
    out = tmp_path / "attacked.png"
    attack = 'Composed(Hijack("weather"), Linf(8/255), PGD(steps=3))'
    words = ["attack", str(seen), "--image", str(tile), "--attack", attack, "--out", str(out), "--json"]
    assert run(words, debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    from morgana.corpus.images import load

    moved = float((load(out) - load(tile)).abs().max())
    assert 0 < moved <= 8 / 255 + 1e-6
    assert found["linf"] == pytest.approx(moved)
    assert found["attack"] == "Composed(Hijack('weather'), Linf(), PGD(steps=3))"
    assert len(found["hits"]["attacked"]) == 5
    assert not out.with_suffix(".cover.png").exists()


def test_clouds_leave_a_map_of_their_opacity(seen, tile, tmp_path, capsys):
    out = tmp_path / "cloudy.png"
    words = ["attack", str(seen), "--image", str(tile), "--attack", "CloudWeb(steps=2)", "--out", str(out), "--json"]
    assert run(words, debug=True) == 0
    from morgana.corpus.images import load

    drawn = load(tmp_path / "cloudy.cover.png")
    assert drawn.shape == load(out).shape
    assert float(drawn.mean()) == pytest.approx(json.loads(capsys.readouterr().out)["cover"], abs=0.01)


def test_the_same_attack_gives_the_same_file(seen, tile, tmp_path, tiny_clip_folder):
    smoothed = f"Smoothed(OpenCLIP({str(tiny_clip_folder)!r}), n=2)"
    attack = 'Composed(Hijack("weather"), Linf(8/255), PGD(steps=2))'
    for name in ("a.png", "b.png"):
        torch.rand(3)
        words = ["attack", str(seen), "--image", str(tile), "--attack", attack, "--out", str(tmp_path / name)]
        assert run([*words, "--encoder", smoothed], debug=True) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_a_command_there_is_help(capsys):
    assert run([], debug=True) == 2
    assert "morgana demo" in "".join(capsys.readouterr())


def test_a_part_is_explained(capsys):
    assert run(["list", "PGD", "--json"], debug=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "search"
    assert "steps" in [a["name"] for a in said["arguments"]]
    assert run(["list", "pgd", "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out) == said
    assert run(["list", "attack"], debug=True) == 0
    assert "CloudWeb" in capsys.readouterr().out


def test_the_preview_is_written(tmp_path, capsys):
    assert run(["atlas", "preview", "--out", str(tmp_path / "atlas.png")], debug=True) == 0
    with Image.open(tmp_path / "atlas.png") as sheet:
        assert sheet.width > 500
    assert "atlas.png" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "P", "RGBA"])
def test_unusual_images_are_looked_at(mode, seen, tmp_path, capsys):
    path = tmp_path / f"image.{'tif' if mode == 'CMYK' else 'png'}"
    picture(path, mode)
    assert run(["search", str(seen), "--image", str(path), "--json"], debug=True) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 5


def test_bad_images_are_left_out_of_an_index_and_named(tmp_path, tiny_clip_folder, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(folder / "good.png")
    (folder / "empty.png").write_bytes(b"")
    encoder = f"OpenCLIP({str(tiny_clip_folder)!r})"
    words = [
        "index",
        "build",
        str(folder),
        "--encoder",
        encoder,
        "--embed",
        "image",
        "--out",
        str(tmp_path / "p.index"),
    ]
    assert run([*words, "--json"], debug=True) == 0
    out, err = capsys.readouterr()
    about = json.loads(out)
    assert (about["documents"], about["quarantined"]) == (1, 1)
    assert "left out empty.png" in err
    assert run(["index", "info", str(tmp_path / "p.index"), "--quarantine", "--json"], debug=True) == 0
    (left_out,) = json.loads(capsys.readouterr().out)
    assert left_out["id"] == "empty.png"
    assert "is empty (0 bytes)" in left_out["reason"]
    assert run(["index", "info", str(tmp_path / "p.index"), "--quarantine"], debug=True) == 0
    assert "empty.png" in capsys.readouterr().out


# what it refuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["index", "build", "nowhere", "--out", "x.index"],
            "there is no file or folder 'nowhere', and no corpus of that name",
        ),
        (["index", "build", "atlas", "--out", "x.index"], "did you mean Atlas?"),
        (["index", "build", "no/where", "--out", "x.index"], "there is no corpus folder 'no/where'"),
        (["index", "build", "PGD()", "--out", "x.index"], "is no corpus"),
        (["index", "build", "whole.png", "--out", "x.index"], "is neither a Parquet file nor a tar; name the folder"),
        (
            ["index", "build", "Atlas(sites=2)", "--kind", "Factory('rubbish')", "--out", "x.index"],
            "FAISS makes no index of 192 dimensions from 'rubbish': could not parse index string rubbish; spell it",
        ),
        (["index", "build", "Atlas(site=3)", "--out", "x.index"], "did you mean sites?"),
        (["index", "build", "Atlsa()", "--out", "x.index"], "did you mean Atlas?"),
        (["index", "build", "Atlas(sites=0)", "--out", "x.index"], "at least one site"),
        (["index", "info", "nowhere.index"], "there is no index at nowhere.index"),
        (["index", "verify", "nowhere.index"], "there is no index at nowhere.index"),
        (["search", "nowhere.index", "--text", "a"], "there is no index at nowhere.index"),
        (["search", "nowhere.index"], "give --image FILE, a text, or both"),
        (["search", "nowhere.index", "--text", "a\0b"], "NUL character"),
        (["search", "nowhere.index", "--text", "a" * 1_000_000], "1000000 characters"),
        (
            ["search", "nowhere.index", "--text", "a", "--k", "0"],
            "'--k': Input should be greater than or equal to 1; 0 was",
        ),
        (["train", "retriever", "--out", "x", "--steps", "0"], "'--steps': Input should be greater"),
        (["train", "retriever", "--out", "x", "--steps", "-7"], "; -7 was given"),
        (["search", "nowhere.index", "--image", "nowhere.png"], "nowhere.png"),
        (["list", "atack"], "did you mean attack?"),
        (["list", "PDG"], "did you mean PGD?"),
        (["list", "pdg"], "no kind or part is called 'pdg' (did you mean pgd?)"),
        (["demo", "--out", "demo", "--device", "gpu7"], "--device gpu7 cannot be used"),
        (["search", "nowhere.index", "--text", "a", "--image", "whole.png"], "are two searches; give one of them"),
        (["ask", "nowhere.index", "  ", "--image", "whole.png"], "the question is empty"),
        (["eval", "nowhere", "--out", "run"], "no study is called 'nowhere'"),
        (
            ["eval", "vaswani", "--out", "run"],
            "; there are aid_cloudweb, cloudweb, interventions, pruning, recorruption",
        ),
        (["eval", "nowhere.py", "--out", "run"], "nowhere.py"),
        (["eval", "PGD()", "--out", "run"], "is no experiment"),
        (["eval", "Experiment(Atlas(), HashEncoder(), k=0)", "--out", "run"], "k=0"),
        (["report", "nowhere"], "nowhere"),
        (["demo", "--encoder", "OpenCLIP('no/where')"], "no/where"),
        (["train", "generator", "--out", "x", "--retriever", "nowhere"], "nowhere holds no open_clip_model"),
        (["atlas", "preview", "--out", "nowhere.png/atlas.png", "--seed", "x"], "--seed"),
        (["serch"], "search"),
        (["search"], "INDEX"),
        (["index", "build", "Atlas()"], "--out"),
        (["search", "x", "--tekst", "a"], "--text"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else " ".join(word[:20] for word in value),
)
def test_a_mistake_takes_one_line(words, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "whole.png")
    assert hint in refused(capsys, words)


@pytest.mark.parametrize(
    ("attack", "hint"),
    [
        ('Composed(Hijack("weather"), Linf(8), PGD())', "Linf(8/255)"),
        ('Composed(Hijack("wether"), Linf(8/255), PGD())', "did you mean weather?"),
        ("PGD()", "is a search; an attack has a goal, a threat and a search"),
        ("Cloudwbe()", "did you mean CloudWeb?"),
        ("CloudWeb(step=3)", "did you mean steps?"),
        ("HashEncoder()", "is no attack"),
        ("CloudWeb(topic=3)", "CloudWeb takes topic of type str: 3 is of type int"),
        ("Composed(Impersonate(3), Linf(8/255), PGD())", "Impersonate takes document of type str: 3 is of type int"),
        ("__import__('os')", "no part is called '__import__'"),
        ("CloudWeb().steps", "is not allowed"),
        ('Composed(Impersonate("d77"), Linf(8/255), PGD())', "no document 'd77'"),
        ('Composed(Linf(8/255), Hijack("weather"), PGD())', "Linf() is no goal; `morgana list goal` shows some"),
        ('Composed(ForceText("fog"), Linf(8/255), PGD())', "attacks the answer to a question; give it with --question"),
    ],
)
def test_a_bad_attack_takes_one_line(attack, hint, seen, tile, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert hint in refused(capsys, ["attack", str(seen), "--image", str(tile), "--attack", attack, "--out", str(out)])
    assert not out.exists()


def test_a_traceback_is_offered_once(monkeypatch, capsys):
    monkeypatch.setattr("morgana.spec.registry", lambda: 1 / 0)
    assert (run(["list", "PGD"], debug=False), run(["list", "PGD"], debug=True)) == (1, 1)
    told = capsys.readouterr().err
    assert told.count("ZeroDivisionError: division by zero; run again with --debug") == 1
    assert told.count("Traceback") == 1


def test_an_unknown_document_and_a_bad_output_are_refused(seen, tile, tmp_path, capsys):
    words = ["attack", str(seen), "--image", str(tile), "--out"]
    assert "no document 'd99'" in refused(capsys, [*words, str(tmp_path / "o.png"), "--relevant", "d99"])
    assert "does not end in .png" in refused(capsys, [*words, str(tmp_path / "o.jpg")])
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(capsys, [*words, str(tmp_path / "folder.png")])


def test_an_attack_does_not_overwrite_the_image_it_attacks(seen, tile, tmp_path, capsys):
    before = tile.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(tile)
    for out in (tile, link):
        line = refused(capsys, ["attack", str(seen), "--image", str(tile), "--out", str(out)])
        assert line == f"error: --out {out} would overwrite --image {tile}; name another --out"
    cover = picture(tmp_path / "new.cover.png")
    line = refused(capsys, ["attack", str(seen), "--image", str(cover), "--out", str(tmp_path / "new.png")])
    assert f"would overwrite --image {cover} with its map of opacity" in line
    assert tile.read_bytes() == before


def test_an_index_that_is_there_is_refused_in_words_for_the_shell_and_for_python(texts, corpus, capsys):
    line = refused(capsys, ["index", "build", str(corpus), "--encoder", TEXT, "--out", str(texts)])
    assert "holds an index; replace it with --overwrite (overwrite=True in Python), or choose another folder" in line


def broken_images(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = picture(folder / "whole.png").read_bytes()
    made = {
        "missing": (folder / "missing.png", "there is no image file"),
        "empty": (folder / "empty.png", "is empty (0 bytes)"),
        "truncated": (folder / "cut.png", "cut"),
        "text": (folder / "text.png", "not an image"),
        "a folder": (folder, "is a folder"),
        "bomb": (folder / "bomb.png", "pixels, at most"),
    }
    made["empty"][0].write_bytes(b"")
    made["truncated"][0].write_bytes(whole[: len(whole) // 2])
    made["text"][0].write_bytes(b"no image at all")
    Image.new("1", (9000, 9000)).save(made["bomb"][0])
    return made


@pytest.mark.parametrize("which", ["missing", "empty", "truncated", "text", "a folder", "bomb"])
def test_a_broken_image_takes_one_line_that_names_the_file(which, seen, tmp_path, capsys):
    path, hint = broken_images(tmp_path)[which]
    line = refused(capsys, ["search", str(seen), "--image", str(path)])
    assert hint in line
    assert path.name in line


def test_a_huge_image_is_told_of_once_and_not_by_pillow(tiny_clip_folder, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture(pictures / "good.png")
    Image.new("1", (11_000, 11_000)).save(pictures / "huge.png")
    encoder = f"OpenCLIP({str(tiny_clip_folder)!r})"
    words = ["index", "build", str(pictures), "--embed", "image", "--encoder", encoder, "--out", str(tmp_path / "x")]
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "huge.png has 11000 × 11000 pixels, at most 50,000,000 are read" in done.stderr
    assert "Warning" not in done.stderr


def test_a_folder_of_two_sorts_of_files_is_refused(tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    for name in ("w.tar", "deep/c.parquet"):
        (tmp_path / name).write_bytes(b"")
    words = ["index", "build", str(tmp_path), "--encoder", TEXT, "--out", str(tmp_path / "x.index")]
    said = refused(capsys, words)
    assert f"holds {tmp_path}/deep/c.parquet and {tmp_path}/w.tar; build from one sort of files" in said


def test_a_tar_deep_among_images_does_not_hide_them(tmp_path, capsys):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    picture(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.txt").write_text("a boat")
    (tmp_path / "photos" / "deep" / "notes.tar.gz").write_bytes(b"")
    words = ["index", "build", str(tmp_path / "photos"), "--encoder", TEXT, "--out", str(tmp_path / "x.index")]
    assert run(words, debug=False) == 0
    assert "documents    1" in capsys.readouterr().out


def test_an_empty_corpus_is_refused(tmp_path, capsys):
    words = ["index", "build", str(tmp_path), "--encoder", TEXT, "--out", str(tmp_path / "x.index")]
    assert "holds no images" in refused(capsys, words)
    (tmp_path / "corpus.jsonl").write_text("")
    assert "is empty" in refused(capsys, words)


def test_another_encoder_is_refused_by_name_with_the_command_that_rebuilds(texts, capsys):
    line = refused(capsys, ["search", str(texts), "--text", "a", "--encoder", "HashEncoder(dimension=32)"])
    assert "was built with HashEncoder(dimension=64), not with HashEncoder(dimension=32)" in line
    assert "morgana index build" in line


def test_another_clip_of_the_same_shape_is_refused(seen, other_clip_folder, capsys):
    line = refused(capsys, ["search", str(seen), "--text", "a", "--encoder", f"OpenCLIP({str(other_clip_folder)!r})"])
    assert "morgana index build" in line


def test_an_image_cannot_be_looked_for_in_an_index_of_texts(texts, tile, capsys):
    assert "embeds text only" in refused(capsys, ["search", str(texts), "--image", str(tile)])


def test_a_damaged_or_half_written_index_is_refused(corpus, tmp_path, capsys):
    out = tmp_path / "x.index"
    words = ["index", "build", str(corpus), "--encoder", TEXT, "--out", str(out)]
    assert run(words, debug=True) == 0
    assert "--overwrite" in refused(capsys, words)
    vectors = out / "segments/000001/vectors.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-40])
    assert "vectors.npy" in refused(capsys, ["search", str(out), "--text", "a"])
    vectors.write_bytes(whole)
    (out / "manifest.json").unlink()
    assert "manifest.json" in refused(capsys, ["search", str(out), "--text", "a"])


def test_no_space_left_is_said_in_one_line(corpus, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "x.index"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        line = refused(capsys, ["index", "build", str(corpus), "--encoder", TEXT, "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in line
    assert not out.exists()
    assert run(["index", "build", str(corpus), "--encoder", TEXT, "--out", str(out)], debug=True) == 0


def test_weights_that_hold_nan_are_refused(seen, tile, tiny_clip_folder, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nan-clip"
    shutil.copytree(tiny_clip_folder, folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "open_clip_model.safetensors")
    words = ["search", str(seen), "--image", str(tile), "--encoder", f"OpenCLIP({str(folder)!r})"]
    assert "NaN" in refused(capsys, words)


def test_an_error_that_nobody_expected_is_one_line_and_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    study = tmp_path / "study.py"
    study.write_text(
        '"""A study."""\n\n\ndef study():\n    """Fails."""\n    raise ZeroDivisionError("of the study")\n'
    )
    line = refused(capsys, ["eval", str(study), "--out", str(tmp_path / "run")])
    assert line == "error: ZeroDivisionError: of the study; run again with --debug for the traceback"
    assert run(["eval", str(study), "--out", str(tmp_path / "run")], debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


# as a process --------------------------------------------------------------------------------------------------------

START = (  # a shell may start its background jobs with SIGINT ignored
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from morgana.cli import main; main()"
)


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", START, *words]


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = (
        "import sys; from morgana.cli.app import run; assert run(['--help'], False) == 0; "
        "sys.exit(repr([m for m in ('torch', 'numpy', 'transformers', 'rich.console') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert "morgana demo" in done.stdout


def test_a_mistake_ends_the_process_with_status_1(tmp_path):
    done = subprocess.run(
        command("index", "info", str(tmp_path / "nowhere")), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: there is no index at {tmp_path}")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_build_that_is_stopped_goes_on(tmp_path, capsys):
    write_corpus(tmp_path, 6000)
    out = tmp_path / "x.index"
    words = ["index", "build", str(tmp_path), "--encoder", "HashEncoder(dimension=256)", "--out", str(out)]
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / ".x.index.building" / "state.json"  # replaced at once, so it is whole whenever it is there
    until = time.monotonic() + 240
    while not kept.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    out_text, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert out_text == ""
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1] == "stopped; the same command goes on where it was"
    assert not out.exists()
    state = json.loads(kept.read_text())
    assert 0 < state["documents"] <= 6000
    assert run([*words, "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 6000
    assert not (tmp_path / ".x.index.building").exists()


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f"{' '.join(map(repr, command('list', '--json')))} | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert len(done.stdout) == 10
