from __future__ import annotations

from dataclasses import replace

import pytest
from realism import write_aid, write_maps

from morgana.eval.studies import execute, load_study, locate, run_study
from morgana.spec import parse
from morgana.types import StoreError

SHOWN = ("clean", "hazy, train", "real clouds at 12%", "CloudWeb at 12%", "CloudWeb at 20%", "PGD 8/255")


@pytest.fixture
def data(tmp_path, monkeypatch):
    write_aid(tmp_path / "aid")
    write_maps(tmp_path / "clouds")
    monkeypatch.setenv("MORGANA_DATA", str(tmp_path))
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_condition_is_a_value_that_can_be_written_down(data):
    study = load_study("aid_cloudweb", weights="somewhere")
    assert len(study.about) > 200
    assert len({e.id for e in study.experiments}) == len(study.experiments)
    assert all(parse(repr(e)) == e for e in study.experiments)


def test_without_the_data_it_says_where_they_should_be(tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_DATA", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="set MORGANA_DATA"):
        load_study("aid_cloudweb")


def test_a_small_run_ends_in_a_table_and_two_pictures(data, tiny_clip_folder, capsys):
    made = load_study("aid_cloudweb", weights=str(tiny_clip_folder), steps=1, pgd_steps=1, copies=1).limited(2)
    module = execute(locate("aid_cloudweb"))
    wanted = (*SHOWN, "random at 12%")
    chosen = [e for e in made.experiments if module.name(e) in wanted and "Smoothed" not in repr(e.encoder)]
    out = (data / "run").resolve()
    run_study(replace(made, experiments=tuple(chosen)), out, progress=False)
    module.Results(chosen, out).show()
    said = capsys.readouterr().out
    for condition in SHOWN:
        assert condition in said
    assert (out / "tradeoff.png").stat().st_size > 1000
    assert (out / "contact.png").stat().st_size > 1000
