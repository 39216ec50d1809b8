"""What the figures say, in three sentences."""

from __future__ import annotations

from collections.abc import Sequence

from morgana.eval.labels import NOTHING
from morgana.eval.scoring import Figure
from morgana.eval.statistics import Estimate
from morgana.eval.summary import Cell, Row, Summary


def verdict(summary: Summary) -> list[str]:
    """Three sentences: where the system stands, what changes it most, and what helps."""
    main = summary.figures[:1]
    if not main:
        return ["Nothing was measured.", "No sample has a score yet.", "Run the study with more samples."]
    attacked = any(c.attack for c in summary.cells)
    return about_attack(summary, main[0]) if attacked else about_arms(summary, main[0])


def about_attack(summary: Summary, figure: Figure) -> list[str]:
    cells = summary.cells
    clean = next((c for c in cells if not c.attack and not c.defended), None)
    bare = [c for c in cells if c.attack and not c.defended]
    worst = extreme([c for c in bare if c.member == "optimised"] or bare, figure, worst=True)
    return [
        standing(clean, figure, summary),
        damage(worst, bare, figure, summary.figures[1:]),
        help_(worst, cells, figure),
    ]


def standing(clean: Cell | None, figure: Figure, summary: Summary) -> str:
    row = clean.figure(figure) if clean else None
    if clean is None or row is None:
        return "The study has no clean, undefended run to compare with."
    others = [f for f in summary.figures if f != figure and clean.figure(f)]
    also = "".join(f", {f.title} {percent(clean.figure(f))}" for f in others)
    return f"On clean images {figure.title} is {spread(row.estimate)} of {row.estimate.n} samples{also}."


def damage(worst: Cell | None, bare: Sequence[Cell], figure: Figure, also: Sequence[Figure]) -> str:
    row = worst.figure(figure) if worst else None
    if worst is None or row is None:
        return "No undefended system was attacked."
    others = "".join(f", {f.title} to {percent(r)}" for f in also if (r := worst.figure(f)))
    text = f"{name(worst)} takes it to {spread(row.estimate)}{change(row)}{others}"
    weak = [c for c in bare if c.member != "optimised" and c.attack == worst.attack]
    calm = extreme(weak, figure, worst=True)
    beside = calm.figure(figure) if calm else None
    if calm is None or beside is None:
        return text + "."
    text += f"; of the members of the same threat that nobody optimised, {name(calm)} gives most, {percent(beside)}"
    return text + (f", and optimising adds {apart(row.gain)} to what a random one does." if row.gain else ".")


def help_(worst: Cell | None, cells: Sequence[Cell], figure: Figure) -> str:
    if worst is None:
        return "So there is nothing to defend against yet."
    attack = (worst.attack, worst.member)
    guarded = [c for c in cells if c.defended and (c.attack, c.member) == attack]
    naive = extreme([c for c in guarded if c.knowledge == "naive"], figure, worst=False)
    row = naive.figure(figure) if naive else None
    if naive is None or row is None:
        return "No defense was tried against it."
    shield, before = naive.axes.get("defense", "The defense"), worst.figure(figure)
    helps = before is not None and (row.estimate.value > before.estimate.value) == figure.good
    helps = helps and before is not None and row.estimate.value != before.estimate.value
    if not helps:
        stays = f"at best {figure.title} stays at {spread(row.estimate)}"
        return f"No defense that was tried helps against {name(worst)}: {stays}."
    text = f"{shield} brings it to {spread(row.estimate)} against an attacker who does not know of it"
    same = [c for c in guarded if c.knowledge == "adaptive" and c.axes.get("defense") == shield]
    known = same[0].figure(figure) if same else None
    return f"{text}, and to {spread(known.estimate)} against one who does." if known else f"{text}."


def about_arms(summary: Summary, figure: Figure) -> list[str]:
    first, rest = summary.cells[0], summary.cells[1:]
    row = first.figure(figure)
    if row is None or not rest:
        return [
            f"{figure.title} is {spread(row.estimate)}." if row else "Nothing was measured.",
            "There is one run.",
            "Compare it.",
        ]
    low, high = extreme(rest, figure, worst=True), extreme(rest, figure, worst=False)
    return [
        f"{figure.title} is {spread(row.estimate)} of {row.estimate.n} samples for {name(first)}.",
        *(
            f"The {word} of the others is {name(c)} with {spread(r.estimate)}{change(r)}."
            for word, c, r in (
                ("worst", low, low.figure(figure) if low else None),
                ("best", high, high.figure(figure) if high else None),
            )
            if c and r
        ),
    ]


def extreme(cells: Sequence[Cell], figure: Figure, *, worst: bool) -> Cell | None:
    """The cell where the figure is worst (or best) for the defender; the first on a tie."""
    rows = [(c, r.estimate.value) for c in cells if (r := c.figure(figure))]
    if not rows:
        return None
    down = figure.good == worst
    return (min if down else max)(rows, key=lambda pair: pair[1])[0]


def name(cell: Cell) -> str:
    """What a sentence calls a cell: its attack, and whatever else is not the rule."""
    rule = {"seen by": "both"}
    told = {k: v for k, v in cell.axes.items() if k not in ("defense", "attacker") and v not in (NOTHING, rule.get(k))}
    return ", ".join(v if k == "attack" else f"{k} {v}" for k, v in told.items()) or "the first run"


def change(row: Row) -> str:
    """' (+90 points [84, 95], McNemar p < 0.001)', saying so where chance could explain it."""
    gap = row.difference
    if gap is None:
        return ""
    test = f", McNemar {p_value(row.mcnemar.p)}" if row.mcnemar else ""
    beyond = gap.low > 0 or gap.high < 0
    sure = "" if beyond and (row.mcnemar is None or row.mcnemar.p < 0.05) else "; chance could explain it"
    return f" ({apart(gap)}{test}{sure})"


def apart(gap: Estimate) -> str:
    return f"{100 * gap.value:+.0f} points [{100 * gap.low:.0f}, {100 * gap.high:.0f}]"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def spread(value: Estimate) -> str:
    return f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def percent(row: Row | None) -> str:
    return f"{100 * row.estimate.value:.1f} %" if row else "not measured"
