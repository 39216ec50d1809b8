"""The documents say what is true: commands, examples, tables, and nothing about the machine they were written on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import morgana.attacks
from morgana.cli.app import run
from morgana.spec import components, parse, registry

ROOT = Path(__file__).resolve().parents[1]
GUIDE, README, CONTRIBUTING = (ROOT / name for name in ("docs/guide.md", "README.md", "CONTRIBUTING.md"))
INDEX, INTEROP = ROOT / "docs/index.md", ROOT / "docs/interop.md"
BUNDLED = [ROOT / "src/morgana/models" / name for name in ("atlas-clip", "atlas-mllm")]
HOSTS = {
    *("arxiv.org", "keepachangelog.com", "semver.org", "www.apache.org", "www.w3.org", "creativecommons.org"),
    *("github.com", "doi.org", "huggingface.co", "opensource.org"),
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


regenerate, replay = (load(ROOT / "docs" / name) for name in ("regenerate.py", "replay.py"))
COMMANDS = regenerate.commands()


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command, capsys):
    assert run([*command.split()[1:], "--help"], debug=True) == 0
    said = capsys.readouterr().out
    examples = said.split("Example")[1]
    assert re.search(rf"^ +{command}( |$)", examples, flags=re.M), "its help shows no example of it"
    assert command in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command, capsys):
    run([*command.split()[1:], "--help"], debug=True)
    said = capsys.readouterr().out
    for line in re.findall(r"^  (--[a-z].*)$", said, flags=re.M):
        assert len(line.split("  ")) > 1 or line.endswith(">"), f"{line} says nothing"


def test_commands_in_the_documents_exist(capsys):
    known = {name.split()[1] for name in COMMANDS}
    for path in (README, GUIDE, CONTRIBUTING, INTEROP):
        for word in re.findall(r"^    morgana ([a-z]+)", path.read_text(encoding="utf-8"), flags=re.M):
            assert word in known, f"{path.name} shows morgana {word}"


def test_specs_in_the_documents_can_be_read():
    for path in (README, GUIDE, INTEROP):
        for spec in re.findall(
            r"(?:--(?:attack|encoder|generator|stage)|index build|eval) '([^']*)'", path.read_text()
        ):
            assert repr(parse(spec))


def test_the_generated_tables_are_up_to_date():
    text = README.read_text(encoding="utf-8")
    assert regenerate.regenerated(text) == text, "run `make docs`"
    assert "| `morgana demo` |" in text
    assert "`CloudWeb(" in text


@pytest.mark.parametrize("path", [INDEX, INTEROP], ids=lambda path: path.name)
def test_the_sessions_print_what_is_shown(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path))
    page = path.read_text(encoding="utf-8")
    assert replay.replayed(page) == page, "run `make docs`"


def test_a_wrong_figure_is_put_right_and_the_rest_left():
    session = "    $ printf 'a 1\\nb 2\\nc 3\\n' \\\n          > seen\n    $ cat seen\n    ...\n    b 9\n    ...\n"
    page = f"Say:\n\n{session}    $ echo 5 of 5, 80 a second\n    5 of 5, 79 a second\n\n    what is no session\n"
    assert replay.replayed(page) == page.replace("b 9", "b 2")


@pytest.mark.parametrize(
    ("path", "number"),
    [(p, i) for p in (README, GUIDE, INTEROP) for i in range(len(blocks(p)))],
    ids=lambda v: str(getattr(v, "name", v)),
)
def test_the_examples_run(path, number, tmp_path, monkeypatch, tiny_clip_folder, tiny_llava_folder, capsys):
    """With the bundled models where they are, else with tiny random ones."""
    code = blocks(path)[number]
    assert len(code.strip().splitlines()) <= 12
    if not all((folder / "config.json").exists() or (folder / "open_clip_config.json").exists() for folder in BUNDLED):
        code = code.replace('OpenCLIP("atlas")', f'OpenCLIP("{tiny_clip_folder}")')
        code = code.replace('HF("atlas")', f'HF("{tiny_llava_folder}", max_new_tokens=4)')
        code = code.replace("sites=40", "sites=4").replace("steps=10", "steps=2").replace("sites=12", "sites=3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MORGANA_CACHE", str(tmp_path / "cache"))
    exec(compile(code, f"{path.name}, block {number}", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip()


def test_the_recipe_for_a_new_attack_is_complete(tmp_path, monkeypatch, tiny_clip_folder):
    (code,), before = blocks(CONTRIBUTING), set(registry())
    (tmp_path / "fog.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(morgana.attacks, "__path__", [*morgana.attacks.__path__, str(tmp_path)])
    forget()
    try:
        fog = parse("Fog(steps=2)")
        assert type(fog) in components("attack")
        assert parse(repr(fog)) == fog
        assert run(["list", "Fog"], debug=True) == 0
        attacked(fog, f"OpenCLIP({str(tiny_clip_folder)!r})", tmp_path)
    finally:
        monkeypatch.undo()
        forget()
    assert set(registry()) == before


def forget() -> None:
    components.cache_clear()
    registry.cache_clear()


def attacked(attack, encoder: str, folder: Path) -> None:
    """It changes an image, inside its budget, on the 8-bit grid."""
    import torch

    from morgana.attacks.target import Surroundings, aim
    from morgana.index import build
    from morgana.types import Document, Query

    topics = ["weather", "weather", "site", "site", "site"]
    documents = [Document(f"d{i}", f"text {i}", metadata={"topic": topic}) for i, topic in enumerate(topics)]
    eye = parse(encoder)
    index = build(documents, eye, folder / "x.index", progress=False)
    pixels = torch.rand(1, 3, 32, 32)
    target = aim(Surroundings(index), eye, pixels, [Query("q")], k=2)
    found = attack.attack(pixels, eye, target)
    assert found.pixels.shape == pixels.shape
    assert not torch.equal(found.pixels, pixels)
    assert float((found.pixels * 255 - (found.pixels * 255).round()).abs().max()) < 1e-4
    assert float(found.alpha.mean()) <= attack.max_cover


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_machine():
    own = re.compile("|".join("/" + name + "/" for name in ("work", "root", "home/[a-z]+", "opt/[a-z]+", "mnt")))
    options = re.compile("--(extra-)?" + "index-url|" + "--find-" + "links")
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "ignore") if path.stat().st_size < 2_000_000 else ""
        if "\0" in text:
            continue
        places = [m[0] for pattern in (own, options) for m in pattern.finditer(text)]
        hosts = {m[1].lower() for m in re.finditer(r"https?://([A-Za-z0-9.-]+\.[a-z]+)", text)} - HOSTS
        found += [f"{path.relative_to(ROOT)}: {what}" for what in (*places, *sorted(hosts))]
    assert not found


def test_links_between_the_documents_lead_somewhere():
    for path in (README, GUIDE, CONTRIBUTING, INTEROP):
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("http") or (path.parent / link).exists(), f"{path.name} links to {link}"


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
