from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from toyworld import Eye, Reader, ToyWorld

from morgana.attacks.cloudweb import CloudWeb
from morgana.defenses.smoothed import Smoothed
from morgana.eval.choosing import outcomes, turned
from morgana.eval.curves import MARK, Point, Series, nice, side_by_side
from morgana.eval.embedded import difference
from morgana.eval.experiment import Experiment
from morgana.eval.records import Record
from morgana.eval.report import argument, write_report
from morgana.eval.scoring import Figure
from morgana.eval.studies import Study, run_study
from morgana.types import StoreError

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)> & \"quoted\" {{ 7*7 }}"
CHROMIUM, DRIVER = shutil.which("chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: clean, random, CloudWeb, and Smoothed against both attackers, on hostile documents."""
    root = tmp_path_factory.mktemp("report")
    clean = Experiment(ToyWorld(str(root / "world"), sites=8, hostile=HOSTILE), Eye(), Reader(), k=2)
    clouds = replace(clean, attack=CloudWeb(steps=8, max_cover=0.2, k=2), member="optimised")
    smoothed = replace(clouds, encoder=Smoothed(Eye(), sigma=0.05, n=2))
    split = [replace(clouds, reach=reach) for reach in ("retrieval", "generation")]
    cells = (clean, replace(clouds, member="random"), clouds, smoothed, replace(smoothed, knowledge="adaptive"), *split)
    about = f"Expect trouble. {HOSTILE}\n\nA line that was\nwrapped by hand."
    run_study(Study("toy", about, cells), root / "run", progress=False)
    write_report(root / "run")
    return root / "run"


def test_the_page_is_one_file_that_asks_for_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "<script" not in page.lower()
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("data:image/png;base64,") >= 4


def test_run_json_holds_every_figure_with_its_interval_and_what_made_it(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    assert run["schema"] == 1
    assert set(run["versions"]) >= {"python", "torch", "transformers", "faiss-cpu"}
    attacked = run["experiments"][2]
    value = attacked["metrics"]["retrieved"]["Topic('weather', k=2)"]["all"]
    assert set(value) == {"value", "ci_low", "ci_high", "n", "difference", "mcnemar", "gain"}
    assert attacked["configuration"]["member"] == "'optimised'"
    assert attacked["seeds"] == {"experiment": 0}
    assert attacked["seconds"]["retrieve"] > 0
    assert json.loads((folder / "cells" / attacked["id"] / "result.json").read_text())["spec"] == attacked["spec"]
    (split,) = run["propagation"]
    total = split["retrieval"]["value"] + split["image"]["value"] + split["together"]["value"]
    assert total == pytest.approx(split["total"]["value"])


def test_a_folder_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is .* the folder of a finished `morgana eval … --out`"):
        write_report(tmp_path)


@pytest.mark.parametrize(("change", "gain"), [(3, 10), (40, 5), (90, 2), (150, 1)])
def test_the_difference_is_as_bright_as_it_says_and_black_where_nothing_changed(
    tmp_path: Path, change: int, gain: int
) -> None:
    import torch

    from morgana.corpus.images import save

    clean = torch.full((1, 3, 4, 4), 200 / 255)
    attacked = clean.clone()
    attacked[:, :, 0, 0] -= change / 255
    save(clean, tmp_path / "a.png")
    save(attacked, tmp_path / "b.png")
    picture = difference(tmp_path / "a.png", tmp_path / "b.png")
    assert picture.caption == f"difference × {gain}"
    pixels = decoded(picture.data)
    assert pixels[0][0] == [gain * change] * 3
    assert pixels[3][3] == [0, 0, 0]


LIST, ANSWER = Figure("Weather@2", "retrieved", "Topic", False), Figure("Answer right", "answer", "Contains()", True)


def judged(weather: float, right: float | None) -> Record:
    answer = {} if right is None else {"answer": {"Contains()": right}}
    return Record("s", "t", "visual", None, (), (), None, {"retrieved": {"Topic": weather}, **answer})


@pytest.mark.parametrize(
    ("before", "after", "turn", "moods"),
    [
        ((1, 1), (1, 0), "The answer got worse", ["", "bad"]),
        ((0, 1), (1, 0), "The answer got worse", ["bad", "bad"]),
        ((0, 0), (1, 1), "Only the list of articles got worse", ["bad", "good"]),
        ((0, None), (1, None), "Only the list of articles got worse", ["bad"]),
        ((1, 1), (1, 1), "Nothing got worse", ["", ""]),
        ((1, 0), (0, 0), "Nothing got worse", ["good", ""]),
    ],
)
def test_a_card_stands_where_it_belongs_and_is_red_only_for_what_got_worse(
    before: tuple[float, float | None], after: tuple[float, float | None], turn: str, moods: list[str]
) -> None:
    assert turned(judged(*before), judged(*after), (LIST, ANSWER)) == turn
    assert [o.mood for o in outcomes(judged(*before), judged(*after), (LIST, ANSWER))] == moods


def test_marks_of_defenses_that_cost_the_same_stand_side_by_side() -> None:
    marks = [Series(name, 0, (Point(x, 20, 15, 25, ""),) * 2) for name, x in (("b", 100), ("a", 100), ("c", 108))]
    places = [s.points[0].x for s in side_by_side(marks)]
    assert places == sorted(places)
    assert [round(right - left) for left, right in pairwise(places)] == [MARK, MARK]
    far = [Series(name, 0, (Point(x, 20, 15, 25, ""),)) for name, x in (("b", 300), ("a", 100))]
    assert list(side_by_side(far)) == far


def test_the_page_says_what_ran_and_joins_lines_that_were_wrapped_by_hand(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "<p>A line that was wrapped by hand.</p>" in page
    ran = re.findall(r"<dt>(\w+)</dt><dd><code>([^<]*)</code>", page)
    assert [name for name, _ in ran] == ["study", "corpus", "encoder", "generator"]
    assert [part for _, part in ran][::2] == ["toy", "Eye()"]
    assert argument("Experiment(Atlas(sites=3), Smoothed(Eye(), sigma=4/255))", 1, "encoder") == (
        "Smoothed(Eye(), sigma=4/255)"
    )
    assert argument("no call (", 0, "corpus") == ""


def test_a_figure_that_an_attack_left_as_it_was_says_so(folder: Path) -> None:
    table = (folder / "report.html").read_text().split('id="table"')[1].split("</table>")[0]
    for kind, line in re.findall(r"<tr([^>]*)>(.*?)</tr>", table, re.DOTALL)[1:]:
        assert ('class="gap"' in line) == ("clean" not in kind)
        assert line.count('class="gap"') in (0, line.count('class="ci"'))
    assert ">no change<" in table


def test_without_stages_the_list_is_told_once(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "<td>retrieved</td>" in page
    assert "<td>refined</td>" not in page
    assert page.count("McNemar&#39;s exact test") + page.count("McNemar's exact test") == 1


def decoded(uri: str) -> Any:
    import base64
    import io

    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        return np.asarray(image).tolist()


@pytest.mark.parametrize(("low", "high"), [(0, 0.003), (0, 1), (3, 97), (42, 42), (0, 100), (76.6, 86.6)])
def test_axes_have_few_round_marks_that_enclose_the_data(low: float, high: float) -> None:
    marks = nice(low, high)
    assert marks[0] <= low <= high <= marks[-1]
    assert 2 <= len(marks) <= 7


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium on a phone's screen."""
    if CHROMIUM is None or not DRIVER.exists():
        pytest.skip("no chromium and chromedriver (Debian's packages chromium and chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def visit(browser: Any, folder: Path, width: int = 1200, scheme: str = "light") -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme_ = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_)
    browser.get((folder / "report.html").as_uri())


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.replaceAll('\\u00a0', ' '))", selector
    )
    return found


def test_a_reader_sees_the_verdict_the_table_and_the_cards(browser: Any, folder: Path) -> None:
    visit(browser, folder)
    verdict = texts(browser, ".verdict p")
    assert len(verdict) == 3
    assert verdict[0].startswith("On clean images Weather@2 is")
    assert "CloudWeb takes it to" in verdict[1]
    rows = texts(browser, "#table tbody tr")
    assert [row.split("\t")[0].strip() for row in rows] == [
        "clean",
        "random CloudOverlay",
        *["CloudWeb"] * 5,
    ]
    assert re.search(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", rows[2])
    cards = texts(browser, "article.card")
    assert 1 <= len(cards) <= 6
    assert "☁ weather" in cards[0]
    assert "Retrieved, clean" in cards[0]
    assert "CloudWeb, Smoothed, adaptive" in cards[0]
    shown = texts(browser, "article.card:first-of-type figcaption")
    assert shown[:2] + shown[3:] == ["clean", "attacked", "cloud map"]
    assert re.fullmatch(r"difference × (10|5|2|1)", shown[2])
    sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert set(sizes) == {24}
    assert (
        browser.execute_script("return document.querySelectorAll('img:not([alt]), svg:not([aria-label])').length") == 0
    )


def test_hostile_text_is_shown_and_not_obeyed(browser: Any, folder: Path) -> None:
    visit(browser, folder)
    assert browser.title == "Morgana: toy"
    assert any(HOSTILE in title for title in texts(browser, ".hits li span"))
    assert browser.execute_script("return document.querySelectorAll('script, [onerror]').length") == 0


def test_it_fits_a_phone(browser: Any, folder: Path) -> None:
    visit(browser, folder, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    scrolls = (
        "const s = document.querySelector('.scroll'); return [s.scrollWidth > s.clientWidth, s.clientWidth <= 390]"
    )
    assert browser.execute_script(scrolls) == [True, True]
    assert texts(browser, "section[aria-labelledby=figures] .hint") == ["scroll →"]
    boxes = "return [...document.querySelectorAll('.card, .chart, .verdict')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.execute_script(boxes)) <= 1


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Any, folder: Path) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    visit(browser, folder)
    light = luminance(browser.execute_script(background))
    visit(browser, folder, scheme="dark")
    dark = luminance(browser.execute_script(background))
    assert light > 0.8
    assert dark < 0.02


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser: Any, folder: Path, scheme: str) -> None:
    visit(browser, folder, scheme=scheme)
    pairs = browser.execute_script(
        """
        const ground = e => {
          for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!c.endsWith(', 0)')) return c;
          }
        };
        return [...document.querySelectorAll('body *')].filter(e => e.offsetParent && e.innerText)
          .map(e => [e.className || e.tagName, getComputedStyle(e).color, ground(e)]);
        """
    )
    weak = {(name, ink, paper) for name, ink, paper in pairs if contrast(ink, paper) < 4.5}
    assert not weak


def test_nothing_is_fetched(browser: Any, folder: Path) -> None:
    browser.get_log("performance")
    visit(browser, folder)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    page = (folder / "report.html").as_uri()
    assert page in asked
    assert [url[:80] for url in asked if url != page and not url.startswith("data:")] == []


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two CSS colours."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of a CSS rgb() colour."""
    channels = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
