"""One experiment: everything a run depends on, in one value whose repr is its identity."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any, TypeVar

from morgana.spec import components, part
from morgana.types import Corpus, Encoder, Generator, SpecError, Stage

MEMBERS = ("clean", "random", "optimised")  # and fixed:NAME
T = TypeVar("T")


@part
class Experiment:
    """A corpus, a system, an adversary, and how they meet.

    `encoder` and `generator` are what is deployed, defenses included. A naive attacker believes that the defenses are
    not there; an adaptive one attacks the defended parts. `reach` cuts the attacked image off from a part of the system
    (that part sees the clean image), which is how damage through retrieval is told from damage through the eye.
    """

    corpus: Corpus
    encoder: Encoder
    generator: Generator | None = None  # None: only retrieval is judged
    stages: tuple[Stage, ...] = ()
    index: Any = None  # an index kind; None: exact search
    embed: str = "text"  # what of a document is embedded: text, image or both
    attack: Any = None
    member: str = "clean"  # clean, random, fixed:NAME or optimised
    knowledge: str = "naive"  # or adaptive
    surface: str = "query"  # the user's image, or "corpus": the images of relevant documents
    reach: str = "both"  # retrieval, generation or both see the attacked image
    k: int = 5
    topic: str = "weather"  # what is counted as hijacked: documents with this metadata["topic"]
    kinds: tuple[str, ...] = ()  # of questions; empty: all
    limit: int | None = None  # samples
    each: int | None = None  # samples of every kind of question, so that rare kinds weigh as much
    seed: int = 0
    repeats: int = 1  # judgings with fresh noise, averaged; more than 1 for randomised defenses

    def __post_init__(self) -> None:
        fixed = self.member.startswith("fixed:") and len(self.member) > len("fixed:")
        check("member", self.member if not fixed else "clean", MEMBERS, " or 'fixed:NAME'")
        check("knowledge", self.knowledge, ("naive", "adaptive"))
        check("embed", self.embed, ("text", "image", "both"))
        check("surface", self.surface, ("query", "corpus"))
        check("reach", self.reach, ("both", "retrieval", "generation"))
        if (self.member == "clean") != (self.attack is None):
            raise SpecError(
                f"member={self.member!r} with attack={self.attack!r}: only a clean experiment has no attack"
            )
        if self.member != "optimised" and self.knowledge == "adaptive":
            raise SpecError(
                f"a {self.member} member knows nothing of the system; knowledge='adaptive' needs member='optimised'"
            )
        if self.surface == "corpus" and self.embed == "text":
            raise SpecError(
                "surface='corpus' attacks images of documents, and embed='text' leaves them out of the index"
            )
        if self.surface == "corpus" and self.encoder != bare(self.encoder):
            raise SpecError(f"surface='corpus': {self.encoder!r} guards queries, and documents are embedded without it")
        for name in ("k", "repeats", "limit", "each"):
            value = getattr(self, name)
            if isinstance(value, bool) or (value is not None and (not isinstance(value, int) or value < 1)):
                raise SpecError(f"{name}={value!r}; wanted a whole number of at least 1")

    @property
    def id(self) -> str:
        """Twelve hex digits that stand for the repr, for file names."""
        return short_hash(repr(self))

    @property
    def victim(self) -> Encoder:
        """The encoder that the attacker believes is deployed."""
        return self.encoder if self.knowledge == "adaptive" else bare(self.encoder)

    @property
    def reader(self) -> Generator | None:
        """The generator that the attacker believes is deployed."""
        return self.generator if self.knowledge == "adaptive" else bare(self.generator)

    @property
    def clean(self) -> Experiment:
        """The same system on clean images: what this experiment is compared with."""
        return replace(self, attack=None, member="clean", knowledge="naive", surface="query", reach="both")


def bare(part: T) -> T:
    """What a defense wraps, all the way down; a defense's first field is what it defends."""
    while type(part) in components("defense"):
        part = getattr(part, fields(part)[0].name)  # type: ignore[arg-type]
    return part


def reseeded(part: T, number: int) -> T:
    """The same defense with other noise, for repeated judging; number 0 and parts without a seed stay as they are."""
    if not number or type(part) not in components("defense"):
        return part
    inner = fields(part)[0].name  # type: ignore[arg-type]
    changes: dict[str, Any] = {inner: reseeded(getattr(part, inner), number)}
    if "seed" in {f.name for f in fields(part)}:  # type: ignore[arg-type]
        changes["seed"] = part.seed + number  # type: ignore[attr-defined]
    return replace(part, **changes)  # type: ignore[type-var]


def short_hash(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=6).hexdigest()


def check(name: str, value: str, known: tuple[str, ...], more: str = "") -> None:
    if value not in known:
        raise SpecError(f"{name}={value!r}; wanted one of {', '.join(map(repr, known))}{more}")
