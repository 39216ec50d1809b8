from __future__ import annotations

from pathlib import Path

import pytest

from morgana.eval.experiment import Experiment, bare, reseeded
from morgana.eval.studies import load_study, run_study, spelled_study, studies
from morgana.files import locked
from morgana.spec import parse
from morgana.types import SpecError, StoreError

TOY = '''
"""A toy."""
from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.experiment import Experiment
from morgana.retrieval.encoders.openclip import OpenCLIP

def toy(sites=3):
    """Expect nothing."""
    for k in (1, 2, 1):
        yield Experiment(Atlas(sites=sites), OpenCLIP("atlas"), k=k)
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return path


def test_a_study_is_a_function_named_like_its_file(toy: Path) -> None:
    study = load_study(str(toy), sites=5)
    assert (study.name, study.about) == ("toy", "Expect nothing.")
    assert [(e.k, e.corpus.sites) for e in study.experiments] == [(1, 5), (2, 5)]  # type: ignore[attr-defined]
    assert [e.limit for e in study.limited(7).experiments] == [7, 7]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cloudwebb", {}, r"no study is called 'cloudwebb' \(did you mean cloudweb\?\)"),
        ("missing.py", {}, "there is no study file missing.py"),
        ("cloudweb", {"step": 1}, r"no option 'step' \(did you mean steps\?\)"),
    ],
)
def test_what_cannot_be_run_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_study(name, **options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("count=abc", "count=abc: count wants a whole number like 60"),
        ("count=1.5", "count=1.5: count wants a whole number like 60"),
        ("count=Atlas", "count=Atlas: count wants a whole number like 60"),
        ("share=many", "share=many: share wants a number like 0.5"),
        ("deep=1", "deep=1: deep wants True or False$"),
        ("model=3", "model=3: model wants a text in quotes like 'atlas'"),
        ("world=Atlsa", r"world=Atlsa: no part is called 'Atlsa' \(did you mean Atlas\?\)"),
        ("cuont=3", r"no option 'cuont' \(did you mean count\?\)"),
    ],
)
def test_an_option_of_another_type_than_its_default_is_named(tmp_path: Path, option: str, message: str) -> None:
    (tmp_path / "typed.py").write_text(
        "from morgana.eval.experiment import Experiment\n"
        "def typed(count: int = 60, share=0.5, deep=False, model: 'str' = 'atlas', world=None): ...\n"
    )
    name, _, value = option.partition("=")
    with pytest.raises(SpecError, match=message):
        spelled_study(tmp_path / "typed.py", {name: value})


def test_options_are_read_as_they_are_typed(toy: Path, tmp_path: Path) -> None:
    assert spelled_study(toy, {"sites": "5"}) == load_study(toy, sites=5)
    (tmp_path / "named.py").write_text(TOY.replace("def toy(sites=3)", "def named(model='atlas', sites: float = 3)"))
    found = spelled_study(tmp_path / "named.py", {"model": "other", "sites": "4"})
    assert found == load_study(tmp_path / "named.py", model="other", sites=4)


def test_a_file_without_its_function_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("def other(): ...\n")
    with pytest.raises(SpecError, match=r"has no function odd\(\)"):
        load_study(str(tmp_path / "odd.py"))


def test_a_folder_in_which_another_process_works_is_left_alone(toy: Path, tmp_path: Path) -> None:
    study = load_study(str(toy))
    with locked(tmp_path / "run"), pytest.raises(StoreError, match="another process is running a study in "):
        run_study(study, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("name", ["cloudweb", "recorruption"])
def test_shipped_studies_are_values_that_can_be_written_down(name: str) -> None:
    assert name in studies()
    study = load_study(name)
    assert len(study.about) > 200  # says what to expect
    assert len({e.id for e in study.experiments}) == len(study.experiments)
    for experiment in study.experiments:
        assert parse(repr(experiment)) == experiment


def test_cloudweb_crosses_attacks_defenses_and_attackers() -> None:
    found = load_study("cloudweb").experiments
    assert sum(e.attack is None for e in found) == 3
    optimised = [e for e in found if e.member == "optimised" and e.reach == "both"]
    assert len(optimised) == 4 + 8 + 8  # attacks × (nothing; SmoothGuard and Smoothed against both attackers)
    assert {e.knowledge for e in optimised} == {"naive", "adaptive"}


def test_a_naive_attacker_sees_no_defense() -> None:
    spec = 'Smoothed(Smoothed(OpenCLIP("atlas"), sigma=0.1), sigma=0.2)'
    part = parse(spec)
    assert repr(bare(part)) == "OpenCLIP('atlas')"
    made = Experiment(parse("Atlas()"), part, attack=parse("CloudWeb()"), member="optimised")
    assert repr(made.victim) == "OpenCLIP('atlas')"
    assert parse(repr(made).replace("'optimised'", "'optimised', knowledge='adaptive'")).victim == part
    assert repr(reseeded(part, 2)).count("seed=2") == 2
    assert reseeded(part, 0) is part
