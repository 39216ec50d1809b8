"""A listener among interventions: it hears what a model computes over a prompt, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from morgana.generation.attention import Intervention
from morgana.generation.needs import Needs
from morgana.generation.view import View


@dataclass(eq=False)
class Once:
    """Another's ears for the first reading of a prompt, and not for what interventions have the model read again
    (`VisualContrast`: the prompt with a blurred image).
    """

    inner: Intervention
    heard: dict[Any, Any] | None = field(default=None, repr=False)  # the memory of that reading

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    def edit(self, x: Tensor, view: View) -> Tensor:
        self.heard = view.memory if self.heard is None else self.heard
        if view.memory is self.heard:
            self.inner.edit(x, view)
        return x
