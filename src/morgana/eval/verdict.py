"""What the figures say, in three sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morgana.eval.labels import defended
from morgana.eval.scoring import headline
from morgana.eval.statistics import Estimate
from morgana.eval.summary import Cell, Row, Summary


@dataclass(frozen=True)
class Figure:
    """One headline metric: its name for readers, where it is found, and which way is good for the defender."""

    title: str
    stage: str
    metric: str
    good: bool  # more is better

    def of(self, cell: Cell) -> Row | None:
        return cell.row(self.stage, self.metric)


def figures(summary: Summary) -> list[Figure]:
    """The headline metrics that any cell has, the most telling first: hijacks if there is an attack, else answers."""
    known: dict[str, Figure] = {}
    for cell in summary.cells:
        for title, (stage, metric, good) in headline(cell.experiment).items():
            known.setdefault(title, Figure(title, stage, metric, good))
    found = [f for f in known.values() if any(f.of(c) for c in summary.cells)]
    attacked = any(c.experiment.attack is not None for c in summary.cells)
    return found if attacked else found[::-1]


def verdict(summary: Summary) -> list[str]:
    """Three sentences: where the system stands, what changes it most, and what helps."""
    main = figures(summary)[:1]
    if not main:
        return ["Nothing was measured.", "No sample has a score yet.", "Run the study with more samples."]
    attacked = [c for c in summary.cells if c.experiment.attack is not None]
    return about_attack(summary, main[0]) if attacked else about_arms(summary, main[0])


def about_attack(summary: Summary, figure: Figure) -> list[str]:
    cells = summary.cells
    clean = next((c for c in cells if c.experiment.attack is None and not defended(c.experiment)), None)
    bare = [c for c in cells if c.experiment.attack is not None and not defended(c.experiment)]
    worst = extreme([c for c in bare if c.experiment.member == "optimised"] or bare, figure, worst=True)
    return [standing(clean, figure, summary), damage(worst, bare, figure), help_(worst, cells, figure)]


def standing(clean: Cell | None, figure: Figure, summary: Summary) -> str:
    row = figure.of(clean) if clean else None
    if clean is None or row is None:
        return "The study has no clean, undefended run to compare with."
    others = [f for f in figures(summary) if f != figure and f.of(clean)]
    also = "".join(f", {f.title} {percent(f.of(clean))}" for f in others)
    return f"On clean images {figure.title} is {spread(row.estimate)} of {row.estimate.n} samples{also}."


def damage(worst: Cell | None, bare: Sequence[Cell], figure: Figure) -> str:
    row = figure.of(worst) if worst else None
    if worst is None or row is None:
        return "No undefended system was attacked."
    text = f"{name(worst)} takes it to {spread(row.estimate)}{change(row)}"
    weak = [c for c in bare if c.experiment.member != "optimised" and c.experiment.attack == worst.experiment.attack]
    calm = extreme(weak, figure, worst=True)
    beside = figure.of(calm) if calm else None
    if calm is None or beside is None:
        return text + "."
    return f"{text}; of the same threat's members that were not optimised, the strongest ({name(calm)}) gives {percent(beside)}."


def help_(worst: Cell | None, cells: Sequence[Cell], figure: Figure) -> str:
    if worst is None:
        return "So there is nothing to defend against yet."
    attack = (worst.experiment.attack, worst.experiment.member)
    guarded = [c for c in cells if defended(c.experiment) and (c.experiment.attack, c.experiment.member) == attack]
    naive = extreme([c for c in guarded if c.experiment.knowledge == "naive"], figure, worst=False)
    row = figure.of(naive) if naive else None
    if naive is None or row is None:
        return "No defense was tried against it."
    shield = naive.axes.get("defense", "The defense")
    text = f"{shield} brings it to {spread(row.estimate)} against an attacker who does not know of it"
    same = [c for c in guarded if c.experiment.knowledge == "adaptive" and c.axes.get("defense") == shield]
    known = figure.of(same[0]) if same else None
    return f"{text}, and to {spread(known.estimate)} against one who does." if known else f"{text}."


def about_arms(summary: Summary, figure: Figure) -> list[str]:
    first, rest = summary.cells[0], summary.cells[1:]
    row = figure.of(first)
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
                ("worst", low, figure.of(low) if low else None),
                ("best", high, figure.of(high) if high else None),
            )
            if c and r
        ),
    ]


def extreme(cells: Sequence[Cell], figure: Figure, *, worst: bool) -> Cell | None:
    """The cell where the figure is worst (or best) for the defender; the first on a tie."""
    rows = [(c, r.estimate.value) for c in cells if (r := figure.of(c))]
    if not rows:
        return None
    down = figure.good == worst
    return (min if down else max)(rows, key=lambda pair: pair[1])[0]


def name(cell: Cell) -> str:
    return ", ".join(
        v if k == "attack" else f"{k} {v}" for k, v in cell.axes.items() if k not in ("defense", "attacker")
    )


def change(row: Row) -> str:
    """' (+90 points [84, 95], McNemar p < 0.001)', saying so where chance could explain it."""
    gap = row.difference
    if gap is None:
        return ""
    test = f", McNemar {p_value(row.mcnemar.p)}" if row.mcnemar else ""
    sure = "" if gap.low > 0 or gap.high < 0 or gap.low == gap.high != 0 else "; chance could explain it"
    return f" ({100 * gap.value:+.0f} points [{100 * gap.low:.0f}, {100 * gap.high:.0f}]{test}{sure})"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def spread(value: Estimate) -> str:
    return f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def percent(row: Row | None) -> str:
    return f"{100 * row.estimate.value:.1f} %" if row else "not measured"
