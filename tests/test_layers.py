"""Imports point one way: each package may use those before it in this order, and none behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = (
    *(
        "types",
        "seeds",
        "arguments",
        "spec",
        "files",
        "weights",
        "cluster",
        "corpus",
        "index",
        "retrieval",
        "generation",
        "pipeline",
    ),
    *("attacks", "defenses", "eval", "models", "interop", "cli"),
)
ROOT = Path(__file__).resolve().parents[1] / "src" / "morgana"
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
AT_THE_EDGE = {
    "langchain_core": "interop",
    "langchain_tests": "interop",
    "mteb": "interop",
    "typer": "cli",
    "ray": "cluster",
}


def imports(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in ORDER, f"say in {Path(__file__).name} where {own} belongs"
    for name in imports(path):
        if name.startswith("morgana.") and layer(name) != "__version__":
            assert ORDER.index(layer(name)) <= ORDER.index(own), f"{own} must not import {name}"
        edge = AT_THE_EDGE.get(name.split(".")[0])
        assert edge in (None, own), f"only {edge} may import {name}"


def test_the_order_names_what_there_is():
    there = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in FILES}
    assert there <= set(ORDER)
