"""VAR, visual attention redistribution (Kang et al., ICLR 2025, arXiv 2503.03321): from sinks to the image."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class VAR:
    """In image-centric heads, sink tokens keep `keep` of their attention; visual tokens that are no sinks get the rest.

    A token is a sink if a sink dimension of its RMS-normalised hidden state exceeds `tau`. A head is
    image-centric, for one row, if the image has at least `mass` of its attention and sinks at most `rho` of that. All
    sinks give, visual and textual. No entry exceeds the root of the width, so `tau` suits 4,096 dimensions, and models
    of 400 or fewer have no sinks at 20. `dims` are the model's sink dimensions (Llama-2-7B: 2533, 1415);
    empty: the two largest of the first token at each layer, our choice for other models.
    """

    keep: float = 0.6
    tau: float = 20.0
    rho: float = 0.5
    mass: float = 0.2
    dims: tuple[int, ...] = ()
    first: Depth = 2
    stop: Depth | None = -1

    def __post_init__(self) -> None:
        for name in ("keep", "rho", "mass"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SpecError(f"VAR's {name} is {value}; it must lie in [0, 1]")
        if not self.tau >= 0 or any(i < 0 for i in self.dims):
            raise SpecError(f"{self!r}: wanted a tau of at least 0, and dims that count from 0")

    @property
    def needs(self) -> Needs:
        layers = Layers(self.first, self.stop)
        return Needs(rows=after_image, layers=layers, at="shares", hidden=True, parts=self.kinds)

    def edit(self, shares: Tensor, view: View) -> Tensor:
        if self.keep == 1 or not view.layout.visual.index.shape[-1]:
            return shares
        others, to_sinks, elsewhere, rest = shares.chunk(4, -1)
        seen = others + to_sinks
        centric = (seen >= self.mass) & (to_sinks <= self.rho * seen) & (others > 0)
        freed = (1 - self.keep) * centric.to(shares.dtype)
        gained = others + freed * (to_sinks + elsewhere)
        return torch.cat([gained, to_sinks - freed * to_sinks, elsewhere - freed * elsewhere, rest], -1)

    def kinds(self, view: View) -> Tensor | None:
        """(B, 1, 4, N) of a layer's tokens so far: visual but no sink, visual sink, another sink, any other.

        None where no prompt has both a token that gives and one that gets.
        """
        kinds = self.told(view)
        others, to_sinks, elsewhere, _ = kinds.any(-1).unbind(-1)
        return kinds if bool((others & (to_sinks | elsewhere)).any()) else None

    def told(self, view: View) -> Tensor:
        known: Tensor | None = view.memory.get(view.layer)
        if known is not None and known.shape[-1] == view.keys:
            return known
        assert view.hidden is not None
        states = view.hidden.detach().float()
        if known is None:
            view.memory["dims", view.layer] = self.directions(states, view)
        entries = states.gather(2, view.memory["dims", view.layer].expand(-1, states.shape[1], -1))
        width = torch.linalg.vector_norm(states, dim=-1, keepdim=True) / states.shape[-1] ** 0.5  # root mean square
        sink = (entries.abs() > self.tau * width.square().add(1e-6).sqrt()).any(-1)[:, None, None]
        visual = view.layout.visual.among(view.keys)[..., view.keys - sink.shape[-1] :]
        fresh = torch.cat([visual & ~sink, visual & sink, ~visual & sink, ~visual & ~sink], 2)
        view.memory[view.layer] = fresh if known is None else torch.cat([known, fresh], -1)
        return view.memory[view.layer]  # type: ignore[no-any-return]

    def directions(self, states: Tensor, view: View) -> Tensor:
        """(B, 1, S) the sink dimensions of each prompt."""
        if self.dims:
            return torch.tensor(self.dims, device=states.device).expand(len(states), 1, -1)
        first = torch.tensor([s.start for s in view.layout.spans], device=states.device)
        tokens = states[torch.arange(len(states), device=states.device), first].abs()
        return tokens.topk(2, -1).indices[:, None]
