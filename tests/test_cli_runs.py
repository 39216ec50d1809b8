"""The commands that run studies: demo, eval and report."""

from __future__ import annotations

import json
import re

import pytest

from morgana.cli.app import run
from morgana.cli.demo import program


@pytest.fixture(autouse=True)
def tiles(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def experiment(tiny_clip_folder):
    attack = 'Composed(Hijack("weather"), Linf(4/255), PGD(steps=2))'
    return f'Experiment(Atlas(sites=3), OpenCLIP({str(tiny_clip_folder)!r}), attack={attack}, member="optimised", k=3)'


def test_an_experiment_is_run_resumed_and_reported(experiment, tmp_path, capsys):
    words = ["eval", experiment, "--out", str(tmp_path / "run")]
    assert run([*words, "--limit", "3"], debug=True) == 0
    out = capsys.readouterr().out
    assert "Weather@3 [95 %]" in out
    assert "PGD" in out
    assert (tmp_path / "run" / "report.html").exists()
    assert run([*words, "--limit", "3"], debug=False) == 1
    assert "pass --resume, or another --out" in capsys.readouterr().err
    assert run([*words, "--limit", "3", "--resume", "--json"], debug=True) == 0
    resumed = json.loads(capsys.readouterr().out)
    (tmp_path / "run" / "report.html").unlink()
    assert run(["report", str(tmp_path / "run"), "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out) == resumed
    assert (tmp_path / "run" / "report.html").exists()
    clean, attacked = resumed["experiments"]
    assert clean["attack"] == ""
    assert attacked["baseline"] == clean["id"]
    assert 0 < attacked["perturbation"]["linf"] <= 4 / 255 + 1e-6


def test_a_study_takes_options_and_a_seed(tmp_path, tiny_clip_folder, capsys):
    (tmp_path / "few.py").write_text(
        '"""Few."""\n\nfrom morgana.eval.experiment import Experiment\nfrom morgana.spec import parse\n\n\n'
        "def few(encoder, sites=2):\n"
        "    yield Experiment(parse(f'Atlas(sites={sites})'), parse(encoder), k=2)\n"
    )
    encoder = repr(f"OpenCLIP({str(tiny_clip_folder)!r})")
    words = ["eval", str(tmp_path / "few.py"), "--out", str(tmp_path / "run"), "--limit", "2", "--json"]
    assert run([*words, "--set", f"encoder={encoder}", "--set", "sites=3", "--seed", "5"], debug=True) == 0
    (cell,) = json.loads(capsys.readouterr().out)["experiments"]
    assert "sites=3" in cell["spec"]
    assert "seed=5" in cell["spec"]
    assert run([*words, "--set", "site=3"], debug=False) == 1
    assert "did you mean sites?" in capsys.readouterr().err
    assert run([*words, "--set", "sites"], debug=False) == 1
    assert "NAME=VALUE" in capsys.readouterr().err
    assert run([*words, "--set", "sites=abc"], debug=False) == 1
    assert capsys.readouterr().err.startswith("error: sites=abc: sites wants a whole number like 2")
    assert run([*words, "--set", "encoder=abc"], debug=False) == 1
    assert "error: encoder=abc: no part is called 'abc'" in capsys.readouterr().err


def test_a_resumed_run_tells_what_it_does_in_words_and_of_cells_that_are_not_its_own(
    tmp_path, tiny_clip_folder, capsys
):
    (tmp_path / "two.py").write_text(
        '"""Two."""\n\nfrom dataclasses import replace\n\nfrom morgana.eval.experiment import Experiment\n'
        "from morgana.spec import parse\n\n\n"
        f"CLIP = {str(tiny_clip_folder)!r}\n\n\n"
        "def two(steps: int = 1):\n"
        "    clean = Experiment(parse('Atlas(sites=2)'), parse(f'OpenCLIP({CLIP!r})'), k=2)\n"
        "    yield clean\n"
        "    yield replace(clean, attack=parse(f'CloudWeb(steps={steps})'), member='optimised')\n"
    )
    words = ["eval", str(tmp_path / "two.py"), "--out", str(tmp_path / "run"), "--limit", "3"]
    assert run(words, debug=True) == 0
    first = capsys.readouterr().err.splitlines()
    assert first[0] == "judging clean (cell 1 of 2): 3 of 3 questions to do"
    assert re.fullmatch(r"attacking CloudWeb \(cell 2 of 2\): (\d) of \1 tiles to do", first[1])
    assert first[2:] == ["judging CloudWeb (cell 2 of 2): 3 of 3 questions to do"]
    assert run([*words, "--resume", "--set", "steps=2"], debug=True) == 0
    again = capsys.readouterr().err.splitlines()
    told = f"going on in {(tmp_path / 'run').resolve()}: 1 of this study's 2 cells done, 1 of other settings left alone"
    assert again == [told, *first[1:]]
    assert run([*words, "--resume"], debug=True) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == told.replace("1 of this", "2 of this")
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 3


@pytest.mark.parametrize("found", ["", "elsewhere", "here"])
def test_the_demo_names_the_program_as_it_can_be_typed(found, tmp_path, monkeypatch):
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "morgana").write_text("#!/bin/sh\n")
        (tmp_path / folder / "morgana").chmod(0o755)
    started = str(tmp_path / "here" / "morgana")
    monkeypatch.setattr("sys.argv", [started, "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / found) if found else "")
    assert program() == ("morgana" if found == "here" else started)
    monkeypatch.setattr("sys.argv", ["-c"])
    assert program() == "morgana"


def test_the_demo_tells_the_whole_story_and_goes_on_where_it_was(tmp_path, tiny_clip_folder, tiny_llava_folder, capsys):
    words = ["demo", "--quick", "--samples", "2", "--out", str(tmp_path / "demo")]
    words += ["--encoder", f"OpenCLIP({str(tiny_clip_folder)!r})"]
    words += ["--generator", f"HF({str(tiny_llava_folder)!r}, max_new_tokens=2)"]
    assert run(words, debug=True) == 0
    out, err = capsys.readouterr()
    assert "answer: " in out
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in out
    for label in (
        "clean",
        "random CloudOverlay",
        "fixed cumulus",
        "CloudWeb",
        "PGD",
        "SmoothGuard",
        "Smoothed",
        "adaptive",
    ):
        assert label in out
    assert "attacking CloudWeb (cell 5 of 13): 2 of 2 tiles to do" in err
    assert "\nGo on from here:\n  morgana search " in out
    assert (tmp_path / "demo" / "tile.png").exists()
    assert run([*words, "--json"], debug=True) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["experiments"]) == 13
    assert not re.search(r"^(attacking|judging) ", err, re.MULTILINE)  # nothing is computed twice
    assert "indexing:" not in err
    assert run(["report", str(tmp_path / "demo"), "--explain", "Rollout()"], debug=True) == 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "what the answer rests on, clean" in page
    assert 'class="read"' in page
    assert "nats a token without it" in page
