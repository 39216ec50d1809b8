"""The nouns of Morgana and the protocol of every part that can be swapped.

Exceptions (both are `MorganaError`, which the command line prints as one line):

    MorganaError
    ├── SpecError    a part or an argument was named that does not exist or cannot be
    └── StoreError   a file, folder, image or record on disk is not what it should be
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

Pixels: TypeAlias = Tensor  # (B, 3, H, W) float32 in [0, 1], before any resizing or normalisation
Embeddings: TypeAlias = Tensor  # (B, D) float32, rows of unit length
Params: TypeAlias = dict[str, Tensor]  # what a threat lets the attacker change; first axis is the batch
Objective: TypeAlias = Callable[[Pixels], Tensor]  # pixels -> (B,), larger is better for the attacker


class MorganaError(Exception):
    """A mistake of the input, with a message that says what came, what was wanted and what to do."""


class SpecError(MorganaError, ValueError):
    """A part or argument that does not exist, or a value outside its range."""


class StoreError(MorganaError):
    """A file, folder, image or record that is missing, broken or does not fit the rest."""


NOTHING: Mapping[str, str] = MappingProxyType({})  # one for all documents without metadata: a million cost a second


@dataclass(frozen=True)
class Document:
    """What an index holds: a text, an image, or both."""

    id: str
    text: str = ""
    image: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True)
class Query:
    """What a user sends: a question, an image, or both."""

    id: str
    text: str = ""
    image: Path | None = None


class Hit(NamedTuple):
    """A retrieved document and its cosine score in [-1, 1]; higher is better."""

    document: Document
    score: float


Hits: TypeAlias = tuple[Hit, ...]


class Answer(NamedTuple):
    """What the generator said, and the documents that it had read."""

    text: str
    hits: Hits = ()


class Encoder(Protocol):
    """Embeds images and texts into one space; differentiable in the pixels; resizes and normalises inside."""

    @property
    def dimension(self) -> int: ...
    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the image tower sees."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the weights: two encoders with equal fingerprints give equal vectors."""
        ...

    def encode_image(self, pixels: Pixels) -> Embeddings: ...
    def encode_text(self, texts: Sequence[str]) -> Embeddings: ...


class Retriever(Protocol):
    """Finds the k best documents for each query, best first."""

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]: ...


class Stage(Protocol):
    """Hits to hits: rerank, threshold, fuse, prune, vote."""

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]: ...


class Generator(Protocol):
    """A multimodal language model that answers a query from its image and the retrieved documents."""

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        """Read each query's image file and answer."""
        ...

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        """Answer from pixels in hand: one (1, 3, H, W) tensor (or None: no image) a query."""
        ...

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """Teacher-forced cross-entropy of `text` as the answer, (B,) mean over its tokens; differentiable in pixels."""
        ...


class Goal(Protocol):
    """What the attacker wants: builds the objective that a search maximises."""

    def __call__(self, victim: Any, target: Any) -> Objective: ...


class Threat(Protocol):
    """What the attacker may change: parameters to images that can be made and saved as 8-bit files."""

    def start(self, clean: Pixels) -> Params:
        """A random member of the threat, drawn in the current seeded scope."""
        ...

    def origin(self, clean: Pixels) -> Params:
        """The member that a search without a random start begins from."""
        ...

    def render(self, clean: Pixels, params: Params) -> Pixels:
        """The attacked image, (B, 3, H, W) in [0, 1]; differentiable in `params`."""
        ...

    def project(self, clean: Pixels, params: Params) -> Params:
        """Back into the set; idempotent."""
        ...

    def steepest(self, grad: Params) -> Params:
        """The direction of steepest ascent in the threat's own norm, with entries of unit RMS (L∞: the sign)."""
        ...

    def step(self, params: Params, direction: Params, rate: float) -> Params:
        """Move by `rate` of the threat's radius along a direction of unit RMS, before projection."""
        ...

    def penalty(self, params: Params) -> Tensor:
        """What a member costs the attacker for looking unnatural, (B,); differentiable, 0 for norm balls."""
        ...

    def finish(self, clean: Pixels, params: Params) -> Pixels:
        """The member on the 8-bit grid, still inside the threat: what a PNG file will hold."""
        ...

    def excess(self, clean: Pixels, pixels: Pixels, params: Params) -> Tensor:
        """How far pixels on the 8-bit grid lie outside the threat, (B,) float64; 0 or less is inside."""
        ...


class Attack(Protocol):
    """How to find the image: maximises an objective inside a threat."""

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels: ...


class Corpus(Protocol):
    """Documents, and the queries asked of them with the ids of the relevant documents (qrels)."""

    def documents(self) -> Sequence[Document]: ...
    def queries(self) -> Sequence[Query]: ...
    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        """query id -> {document id: relevance >= 1}."""
        ...
