"""What to call experiments in a table: one column for each thing in which they differ, in few words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from morgana.attacks.composed import Composed
from morgana.eval.experiment import Experiment
from morgana.spec import components, literal

NOTHING = "–"
SEEN = {"both": "both", "retrieval": "the retriever", "generation": "the generator"}
PLAIN = ("corpus", "index", "embed", "surface", "k", "topic", "kinds", "limit", "each", "seed", "repeats")


def axes(experiments: Sequence[Experiment]) -> list[dict[str, str]]:
    """For each experiment its labels by column; columns in which nothing differs are left out."""
    columns: dict[str, list[str]] = {
        "attack": names([e.attack for e in experiments], [e.member for e in experiments]),
        "defense": joined([(defenses(e.encoder), defenses(e.generator)) for e in experiments]),
        "attacker": [e.knowledge if e.member == "optimised" and defended(e) else NOTHING for e in experiments],
        "seen by": [SEEN[e.reach] if e.attack is not None else NOTHING for e in experiments],
        "encoder": told([(core(e.encoder),) for e in experiments]),
        "generator": told([(core(e.generator),) for e in experiments]),
        "stages": told([e.stages for e in experiments]),
        **{name: [plainly(getattr(e, name)) for e in experiments] for name in PLAIN},
    }
    telling = {name: labels for name, labels in columns.items() if len(set(labels)) > 1}
    kept = telling or {"attack": columns["attack"]}
    return [{name: labels[row] for name, labels in kept.items()} for row in range(len(experiments))]


def names(attacks: Sequence[Any], members: Sequence[str]) -> list[str]:
    """clean, random CloudOverlay, fixed overcast, CloudWeb, PGD Linf(4/255)."""
    spelled = brief([*attacks, *(a.threat for a in attacks if a is not None)])
    return [title(attack, member, spelled) for attack, member in zip(attacks, members, strict=True)]


def title(attack: Any, member: str, spelled: Mapping[str, str]) -> str:
    if member == "clean":
        return "clean"
    shown = spelled[repr(attack.threat)]
    if member == "random":
        return f"random {shown}"
    if member.startswith("fixed:"):
        return f"fixed {member.removeprefix('fixed:')}"
    return f"{type(attack.search).__name__} {shown}" if isinstance(attack, Composed) else spelled[repr(attack)]


def brief(parts: Sequence[Any]) -> dict[str, str]:
    """repr -> the part's name, with the arguments in which parts of one name differ, and always a norm's radius."""
    by_repr = {repr(part): part for part in parts if part is not None}
    return {text: among(part, [p for p in by_repr.values() if type(p) is type(part)]) for text, part in by_repr.items()}


def among(part: Any, like: Sequence[Any]) -> str:
    differ = {f.name for f in fields(part) if len({repr(getattr(p, f.name)) for p in like}) > 1}
    shown = [f.name for f in fields(part) if f.repr and (f.name in differ or f.name == "epsilon")]
    told = {name: said(getattr(part, name)) for name in shown if getattr(part, name) not in (None, ())}
    named = list(told.values()) if len(shown) == 1 else [f"{name}={value}" for name, value in told.items()]
    return f"{type(part).__name__}({', '.join(named)})" if named else type(part).__name__


def said(value: Any) -> str:
    if isinstance(value, tuple):
        return " + ".join(map(said, value))
    return value if isinstance(value, str) else literal(value)


def told(columns: Sequence[Sequence[Any]]) -> list[str]:
    """Each row of parts in the fewest words: 'HF' and 'HF(BAIR())', 'Oracle(first)' and 'Oracle(last)'."""
    spelled = brief([part for row in columns for part in row])
    return [" → ".join(spelled[repr(part)] for part in row if part is not None) or NOTHING for row in columns]


def defenses(part: Any) -> tuple[Any, ...]:
    """The defenses around a part, outermost first."""
    found = []
    while type(part) in components("defense"):
        found.append(part)
        part = getattr(part, fields(part)[0].name)
    return tuple(found)


def core(part: Any) -> Any:
    found = defenses(part)
    return getattr(found[-1], fields(found[-1])[0].name) if found else part


def defended(experiment: Experiment) -> bool:
    return bool(defenses(experiment.encoder) or defenses(experiment.generator))


def joined(wrapped: Sequence[tuple[tuple[Any, ...], ...]]) -> list[str]:
    """'none', 'Smoothed', 'Smoothed + SmoothGuard'; with settings where one name stands for several."""
    settings: dict[str, set[Hashable]] = {}
    rows = [[d for group in groups for d in group] for groups in wrapped]
    for defense in (d for row in rows for d in row):
        settings.setdefault(type(defense).__name__, set()).add(outside(defense))
    return [
        " + ".join(outside(d) if len(settings[type(d).__name__]) > 1 else type(d).__name__ for d in row) or "none"
        for row in rows
    ]


def outside(defense: Any) -> str:
    """The call without what it wraps: SmoothGuard(sigma=0.1)."""
    shown = [f"{f.name}={literal(getattr(defense, f.name))}" for f in fields(defense)[1:] if f.repr]
    return f"{type(defense).__name__}({', '.join(shown)})"


def plainly(value: Any) -> str:
    if value is None or value == ():
        return NOTHING
    if isinstance(value, tuple):
        return " → ".join(map(plainly, value))
    return repr(value) if is_dataclass(value) else str(value)
