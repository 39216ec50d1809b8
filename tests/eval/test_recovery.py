from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from toyworld import Eye, Reader, ToyWorld

from morgana.defenses.smoothguard import SmoothGuard
from morgana.eval.experiment import Experiment
from morgana.eval.folder import read_run
from morgana.eval.report import write_report
from morgana.eval.studies import Study, run_study
from morgana.eval.verdict import verdict
from morgana.retrieval.stages.oracle import Oracle


def test_what_articles_do_to_answers_given_without_them(tmp_path: Path) -> None:
    """This reader takes the owner from its first article, and the light from the image, come what may."""
    world = ToyWorld(str(tmp_path / "world"), sites=6)
    alone = Experiment(world, Eye(), Reader(), stages=(Oracle(world, "none"),), k=3)
    first, last = (replace(alone, stages=(Oracle(world, place),)) for place in ("first", "last"))
    method = replace(last, generator=SmoothGuard(Reader(), n=0))
    summary = run_study(Study("arms", "", (alone, first, last, method)), tmp_path / "run", progress=False)
    raw, _ = read_run(tmp_path / "run")
    found = {r["id"]: {row["kind"]: row for row in r["rows"]} for r in raw["recorruption"]}
    assert set(found) == {first.id, last.id, method.id}
    assert found[first.id]["knowledge"]["correction"]["value"] == 1
    assert found[last.id]["knowledge"]["correction"]["value"] == 0
    assert found[first.id]["presence"]["recorrupted"]["value"] == 0
    assert found[first.id]["all"]["cured"] is None  # no method there
    assert [c.axes["stages"] for c in summary.cells[:3]] == ["Oracle(none)", "Oracle(first)", "Oracle(last)"]
    said = verdict(summary)
    assert said[0].startswith("Answer right is 50.0 % ")
    assert "stages Oracle(first) with 100.0 %" in said[2]
    page = write_report(tmp_path / "run").read_text()
    assert "strictly cured" in page
    assert re.search(r"✓ right article", page)
