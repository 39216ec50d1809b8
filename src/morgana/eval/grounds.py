"""What an answer rests on, for a report: a heat map over the image and a shade on every sentence that was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from morgana.corpus.images import load
from morgana.eval.experiment import bare
from morgana.eval.records import Ranking
from morgana.generation.explaining import Explainer
from morgana.generation.reading import Sentence, rests_on
from morgana.spec import parse
from morgana.types import Document, Hit, Query, SpecError


@dataclass(frozen=True, eq=False)
class Grounds:
    """Of one answer: (rows, columns) over the image, and the sentences of each document that was read."""

    heat: Tensor
    read: tuple[tuple[Sentence, ...], ...]


@dataclass(frozen=True, eq=False)
class Explaining:
    """Makes grounds from what a run recorded; its parts are built from the specs in run.json."""

    explainer: Explainer
    experiments: Mapping[str, Mapping[str, Any]]  # by id, as in run.json
    device: str | None = None

    def __call__(self, cell: str, question: str, image: Path, read: Ranking, answer: str) -> Grounds:
        """SpecError where the cell's generator does not answer from pixels."""
        about = self.experiments[cell]["configuration"]
        generator, shelf = self.generator(about["generator"]), self.shelf(about["corpus"])
        query, pixels = Query(cell, question, image), load(image)
        hits = tuple(Hit(shelf[id], score) for id, score in read if id in shelf)
        heat = self.explainer(generator, pixels, query, hits, answer)
        return Grounds(heat, rests_on(generator, pixels, query, hits, answer))

    def generator(self, spec: str) -> Any:
        """Without its defenses: they vote on answers, and each answer has its own grounds."""
        if spec not in self.built:
            made = bare(parse(spec))
            if not hasattr(made, "network"):
                raise SpecError(f"{made!r} shows nothing of what it looks at; explaining is for HF generators")
            self.built[spec] = made if self.device is None else replace(made, device=self.device)
        return self.built[spec]

    def shelf(self, spec: str) -> dict[str, Document]:
        if spec not in self.built:
            self.built[spec] = {d.id: d for d in parse(spec).documents()}
        found: dict[str, Document] = self.built[spec]
        return found

    @cached_property
    def built(self) -> dict[str, Any]:
        return {}


def overlay(image: Path, heat: Tensor) -> bytes:
    """A PNG of the image, darker where the answer does not rest on it; the colours are matplotlib's inferno."""
    import io

    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    pixels = load(image)[0].permute(1, 2, 0).numpy()
    top = float(heat.max())
    level = (heat / top if top > 0 else heat * 0).clamp(0, 1).numpy().astype(np.float32)
    size = (pixels.shape[1], pixels.shape[0])
    wide = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = pixels.mean(2, keepdims=True)
    mixed = 0.45 * grey + 0.55 * colormaps["inferno"](wide)[..., :3]
    made = io.BytesIO()
    Image.fromarray((255 * mixed.clip(0, 1)).round().astype(np.uint8)).save(made, "PNG")
    return made.getvalue()
