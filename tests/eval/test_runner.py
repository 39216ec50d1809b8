from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toyworld import Eye, Reader, ToyWorld

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.composed import Composed
from morgana.attacks.goals.force_text import ForceText
from morgana.attacks.goals.hide import Hide
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.linf import Linf
from morgana.corpus.images import load
from morgana.defenses.smoothed import Smoothed
from morgana.defenses.smoothguard import SmoothGuard
from morgana.eval.bench import Bench
from morgana.eval.experiment import Experiment
from morgana.eval.records import load as read_records
from morgana.eval.runner import Run, run
from morgana.types import SpecError, StoreError

CLOUDS = CloudWeb(steps=8, max_cover=0.2, k=2)
HIJACK = "Topic('weather', k=2)"


@pytest.fixture
def clean(tmp_path: Path) -> Experiment:
    return Experiment(ToyWorld(str(tmp_path / "world"), sites=12), Eye(), Reader(), k=2)


def share(done: Run, metric: str, stage: str = "retrieved") -> float:
    found = [r.value(stage, metric) for r in done.records]
    kept = [v for v in found if v is not None]
    return sum(kept) / len(kept)


def lines(done: Run) -> bytes:
    return (done.folder / "records.jsonl").read_bytes()


def test_optimised_clouds_hijack_where_random_ones_do_less(clean: Experiment, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    cells = [
        clean,
        replace(clean, attack=CLOUDS, member="random"),
        replace(clean, attack=CLOUDS, member="optimised"),
    ]
    still, noise, found = [run(e, bench.folder, progress=False, bench=bench) for e in cells]
    assert share(still, "Hit(1)") > 0.9 > share(found, "Hit(1)")
    assert share(still, HIJACK) <= share(noise, HIJACK) < share(found, HIJACK)
    assert share(still, "Contains()", "answer") > share(found, "Contains()", "answer")


def test_what_was_saved_is_what_was_judged(clean: Experiment, tmp_path: Path) -> None:
    done = run(replace(clean, attack=CLOUDS, member="optimised"), tmp_path / "run", progress=False)
    for record, sample in zip(done.records, Bench(tmp_path / "run").samples(done.experiment), strict=True):
        assert record.image
        assert sample.query.image
        saved = load(tmp_path / "run" / record.image)
        assert record.perturbation["linf"] == pytest.approx(float((saved - load(sample.query.image)).abs().max()))
        best = Eye().encode_image(saved) @ Eye().encode_text([d.text for d in clean.corpus.documents()]).T
        assert record.retrieved[0][1] == pytest.approx(float(best.max()), abs=1e-3)  # halves are stored


@pytest.mark.parametrize("calls", [0, 1])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(clean: Experiment, tmp_path: Path, calls: int) -> None:
    attacked = replace(clean, attack=CLOUDS, member="optimised", encoder=Smoothed(Eye(), n=3))
    whole = run(attacked, tmp_path / "whole", progress=False)
    dying = replace(attacked, generator=Reader(fuse=[calls]))
    assert repr(dying) == repr(attacked)
    with pytest.raises(KeyboardInterrupt):
        run(dying, tmp_path / "killed", progress=False)
    assert len(read_records(tmp_path / "killed" / "cells" / attacked.id / "records.jsonl")) == 16 * calls
    again = run(attacked, tmp_path / "killed", progress=False)
    assert lines(again) == lines(whole)
    assert again.records == whole.records


def test_an_attack_killed_between_images_ends_in_the_same_images(clean: Experiment, tmp_path: Path) -> None:
    attacked = replace(clean, attack=CLOUDS, member="optimised", knowledge="adaptive", encoder=Smoothed(Eye(), n=3))
    first, second = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    for bench in (first, second):
        bench.prepare(attacked, progress=False)
    folder = second.attacked(attacked)
    for path in sorted(folder.glob("*.json"))[3:]:
        path.unlink()
    second.prepare(attacked, progress=False)
    pictures = sorted(p.name for p in folder.glob("*.png"))
    assert len(pictures) == 24  # an image and a map for each of 12 tiles
    assert all((folder / p).read_bytes() == (first.attacked(attacked) / p).read_bytes() for p in pictures)


def test_a_torn_last_line_is_judged_again(clean: Experiment, tmp_path: Path) -> None:
    whole = run(clean, tmp_path, progress=False)
    before, path = lines(whole), whole.folder / "records.jsonl"
    path.write_bytes(before[:-40])
    assert lines(run(clean, tmp_path, progress=False)) == before


def test_a_finished_run_judges_nothing_again(clean: Experiment, tmp_path: Path) -> None:
    done = run(clean, tmp_path, progress=False)
    again = run(replace(clean, generator=Reader(fuse=[0])), tmp_path, progress=False)
    assert again.records == done.records


def test_without_resume_records_are_refused(clean: Experiment, tmp_path: Path) -> None:
    run(clean, tmp_path, progress=False)
    with pytest.raises(StoreError, match="24 records already; pass --resume"):
        run(clean, tmp_path, resume=False, progress=False)


@pytest.mark.parametrize("name", ["encoder weights", "settings"])
def test_records_of_other_weights_or_defaults_are_refused(clean: Experiment, tmp_path: Path, name: str) -> None:
    done = run(clean, tmp_path, progress=False)
    path = done.folder / "experiment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: "older"}))
    with pytest.raises(StoreError, match=f"begun with {name} older, and this is"):
        run(clean, tmp_path, progress=False)


def test_records_of_another_reader_are_refused(clean: Experiment, tmp_path: Path) -> None:
    from morgana.eval.runner import guard

    class Trained(Reader):
        fingerprint = "new"

    run(clean, tmp_path, progress=False)
    with pytest.raises(StoreError, match="begun with generator weights None, and this is new"):
        guard(replace(clean, generator=Trained()), tmp_path / "cells" / clean.id)


def test_cells_with_the_same_victim_share_their_attack(clean: Experiment, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    naive = replace(clean, attack=CLOUDS, member="optimised")
    guarded = replace(naive, generator=SmoothGuard(Reader(), n=2))
    smoothed = replace(naive, encoder=Smoothed(Eye(), n=2))
    for e in (naive, guarded, replace(guarded, knowledge="adaptive"), smoothed, replace(naive, reach="retrieval")):
        run(e, bench.folder, progress=False, bench=bench)
    assert len(list((tmp_path / "attacks").iterdir())) == 1
    run(replace(smoothed, knowledge="adaptive"), bench.folder, progress=False, bench=bench)
    assert len(list((tmp_path / "attacks").iterdir())) == 2
    assert len(list((tmp_path / "indexes").iterdir())) == 1


def test_reach_cuts_a_part_off_from_the_attacked_image(clean: Experiment, tmp_path: Path) -> None:
    bench, attack = Bench(tmp_path), Composed(Hide(), Linf(40 / 255), PGD(steps=6))
    both = replace(clean, attack=attack, member="optimised")
    done = {
        reach: run(replace(both, reach=reach), tmp_path, progress=False, bench=bench).records
        for reach in ("both", "retrieval", "generation")
    }
    still = run(clean, tmp_path, progress=False, bench=bench).records
    for b, r, g, c in zip(done["both"], done["retrieval"], done["generation"], still, strict=True):
        assert r.retrieved == b.retrieved != c.retrieved == g.retrieved
        if c.kind == "presence":  # this reader answers it from the image alone
            assert r.answer == c.answer
            assert g.answer == b.answer


def test_an_attack_on_the_corpus_changes_the_index_and_not_the_query(tmp_path: Path) -> None:
    world = ToyWorld(str(tmp_path / "world"), sites=6, pictured=True)
    clean = Experiment(world, Eye(), None, k=2, embed="image")
    attack = Composed(Hide(), Linf(60 / 255), PGD(steps=8))
    bench = Bench(tmp_path / "run")
    still = run(clean, bench.folder, progress=False, bench=bench)
    poisoned = replace(clean, attack=attack, member="optimised", surface="corpus")
    found = run(poisoned, bench.folder, progress=False, bench=bench)
    assert share(still, "Hit(1)") == 1 > share(found, "Hit(1)")
    assert {r.image for r in found.records} == {None}
    with pytest.raises(SpecError, match="this corpus has none"):
        run(replace(poisoned, corpus=ToyWorld(str(tmp_path / "world"), sites=6)), bench.folder, progress=False)


def test_goals_that_read_the_question_attack_each_question(clean: Experiment, tmp_path: Path) -> None:
    attack = Composed(ForceText("Yes."), Linf(30 / 255), PGD(steps=4))
    done = run(replace(clean, attack=attack, member="optimised"), tmp_path, progress=False)
    assert len({r.image for r in done.records}) == len(done.records) == 24
    assert {r.answer for r in done.records if r.kind == "presence"} == {"Yes."}


def test_progress_says_in_words_what_is_attacked_and_how_many(
    clean: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = Composed(ForceText("Yes."), Linf(30 / 255), PGD(steps=1))
    run(replace(clean, attack=attack, member="optimised"), tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "attacking PGD Linf(30/255): 24 of 24 questions to do",
        "judging PGD Linf(30/255): 24 of 24 questions to do",
    ]


def test_repeats_average_over_fresh_noise(clean: Experiment, tmp_path: Path) -> None:
    noisy = replace(clean, encoder=Smoothed(Eye(), sigma=0.6, n=1), repeats=4)
    done = run(noisy, tmp_path, progress=False)
    values = {r.value("retrieved", "Hit(1)") for r in done.records}
    assert values - {0.0, 1.0}
    assert values <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_results_do_not_depend_on_what_ran_before(clean: Experiment, tmp_path: Path) -> None:
    attacked = replace(clean, attack=CLOUDS, member="random")
    first = run(attacked, tmp_path / "a", progress=False)
    torch.manual_seed(5)
    run(clean, tmp_path / "b", progress=False)
    assert run(attacked, tmp_path / "b", progress=False).records == first.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member": "optimsed"}, "wanted one of 'clean', 'random', 'optimised' or 'fixed:NAME'"),
        ({"member": "random"}, "only a clean experiment has no attack"),
        ({"attack": CLOUDS, "member": "random", "knowledge": "adaptive"}, "needs member='optimised'"),
        ({"k": 0}, "k=0; wanted a whole number of at least 1"),
        ({"surface": "moon"}, "wanted one of 'query', 'corpus'"),
    ],
)
def test_an_impossible_experiment_says_what_is_wrong(
    clean: Experiment, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        replace(clean, **change)  # type: ignore[arg-type]


def test_a_threat_without_fixed_members_says_so(clean: Experiment, tmp_path: Path) -> None:
    attack = Composed(Hide(), Linf(), PGD(steps=2))
    with pytest.raises(SpecError, match=r"Linf\(\) has no fixed members"):
        run(replace(clean, attack=attack, member="fixed:cirrus"), tmp_path, progress=False)


def test_an_attack_on_the_corpus_needs_images_in_the_index(clean: Experiment) -> None:
    poison = {"attack": CLOUDS, "member": "optimised", "surface": "corpus"}
    with pytest.raises(SpecError, match="embed='text' leaves them out of the index"):
        replace(clean, **poison)
    with pytest.raises(SpecError, match="guards queries, and documents are embedded without it"):
        replace(clean, **poison, embed="image", encoder=Smoothed(Eye()))
