"""What every registered part obeys, whatever its kind."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from examples import example

from morgana.spec import KINDS, components, parse, registry

PARTS = [cls for kind in KINDS for cls in components(kind)]
HEAVY = ("bm25s", "open_clip", "transformers", "sentence_transformers", "faiss", "matplotlib", "langchain_core")


def test_every_kind_that_the_story_needs_has_parts():
    missing = [kind for kind in KINDS if not components(kind)]
    assert not missing


def test_names_are_unique_over_all_kinds():
    assert len(PARTS) == len(registry()) == len({cls.__name__ for cls in PARTS})


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
class TestPart:
    def test_is_named_by_the_call_that_builds_it(self, cls):
        part = example(cls)
        assert parse(repr(part)) == part
        assert repr(parse(repr(part))) == repr(part)
        assert hash(parse(repr(part))) == hash(part)

    def test_is_frozen(self, cls):
        part = example(cls)
        name = fields(cls)[0].name if fields(cls) else "anything"
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, None)

    def test_says_what_it_is(self, cls):
        text = inspect.getdoc(cls)
        assert text
        assert text.split("\n")[0].strip()
        assert not text.startswith(f"{cls.__name__}("), "this is the docstring that dataclasses write"

    def test_is_one_file_of_its_kind(self, cls):
        kind = next(kind for kind in KINDS if cls in components(kind))
        assert cls.__module__.startswith(KINDS[kind])
        assert sys.modules[cls.__module__].__doc__
        assert len(inspect.getsource(sys.modules[cls.__module__]).splitlines()) <= 300

    def test_inherits_from_nothing_concrete(self, cls):
        assert [base for base in cls.__mro__[1:-1] if not getattr(base, "_is_protocol", False)] == []

    def test_says_of_every_argument_what_type_it_has(self, cls):
        from typing import Any

        from morgana.arguments import annotated

        assert [name for name, (wanted, spelled) in annotated(cls).items() if wanted is Any and spelled != "Any"] == []

    def test_refuses_a_class_for_every_argument(self, cls):
        from morgana.types import SpecError

        for field in fields(cls):
            if field.init:
                with pytest.raises(SpecError):
                    replace(example(cls), **{field.name: cls})

    def test_refuses_an_argument_that_it_does_not_have(self, cls):
        from morgana.types import SpecError

        with pytest.raises(SpecError, match="has no argument 'nonsense'"):
            parse(f"{cls.__name__}(nonsense=1)")


def test_the_registry_is_read_without_the_heavy_libraries():
    found = f"[m for m in {HEAVY!r} if m in sys.modules]"
    code = f"import sys; from morgana.spec import registry; registry(); sys.exit(repr({found}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
