"""Did the damage come through retrieval, or through the generator seeing the attacked image?

Four runs of the same samples, {clean, attacked} image for retrieval × {clean, attacked} image for generation, split the
whole effect into a part through each way and a part that needs both. The split is exact: total = retrieval + image +
together. It is the two-by-two factorial design; a controlled direct effect in Pearl's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from morgana.eval.experiment import Experiment
from morgana.eval.records import Record
from morgana.eval.statistics import Estimate, paired
from morgana.types import SpecError

CELLS = ("clean", "retrieval", "generation", "both")  # which part saw the attacked image


@dataclass(frozen=True)
class Propagation:
    """Mean changes of one score against clean, each with a clustered interval."""

    total: Estimate
    retrieval: Estimate  # only the retriever sees the attacked image
    image: Estimate  # only the generator sees it
    together: Estimate  # what neither does alone


def cells(experiment: Experiment) -> dict[str, Experiment]:
    """The four experiments that an attacked one is split into."""
    if experiment.attack is None or experiment.surface != "query":
        raise SpecError(
            "propagation splits an attack on the user's image; this experiment is clean or attacks the corpus"
        )
    return {name: experiment.clean if name == "clean" else replace(experiment, reach=name) for name in CELLS}


def propagation(
    records: Mapping[str, Sequence[Record]], metric: str, stage: str = "answer", seed: int = 0
) -> Propagation | None:
    """Split the change of one score over the samples that all four runs have; None if there are none."""
    values = {name: {r.sample: r.value(stage, metric) for r in records[name]} for name in CELLS}
    clusters = {r.sample: r.cluster for r in records["clean"]}
    shared = [s for s in clusters if all(values[name].get(s) is not None for name in CELLS)]
    if not shared:
        return None
    clean, found, seen, both = ([float(values[name][s] or 0) for s in shared] for name in CELLS)
    rows = list(zip(clean, found, seen, both, strict=True))
    effects = {
        "total": [b - c for c, _, _, b in rows],
        "retrieval": [r - c for c, r, _, _ in rows],
        "image": [g - c for c, _, g, _ in rows],
        "together": [b - r - g + c for c, r, g, b in rows],
    }
    named = [clusters[s] for s in shared]
    none = [0.0] * len(shared)
    made = {
        name: paired(none, change, named, seed=seed, name=f"propagation {name}") for name, change in effects.items()
    }
    return Propagation(**{name: value for name, value in made.items() if value is not None})
