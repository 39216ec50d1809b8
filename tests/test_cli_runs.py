"""The commands that run studies: demo, eval and report."""

from __future__ import annotations

import json
import re

import pytest

from morgana.cli.app import run


@pytest.fixture(autouse=True)
def tiles(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


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
    assert "attacking" in err
    assert (tmp_path / "demo" / "tile.png").exists()
    assert run([*words, "--json"], debug=True) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["experiments"]) == 13
    assert not re.search(r"attacking [0-9a-f]{12}", err)  # nothing is computed twice
    assert "indexing:" not in err
    assert run(["report", str(tmp_path / "demo"), "--explain", "Rollout()"], debug=True) == 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "what the answer rests on, clean" in page
    assert 'class="read"' in page
    assert "nats a token without it" in page
