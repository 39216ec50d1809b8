"""What the experiments of one run share: indexes, samples, attacked images, and lists that were retrieved before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from morgana.attacks.target import Surroundings
from morgana.eval import adversary
from morgana.eval.experiment import Experiment, bare, short_hash
from morgana.eval.progress import steps
from morgana.eval.samples import Sample, samples
from morgana.index import Index, build
from morgana.retrieval.retrievers.dense import Dense
from morgana.types import Answer, Document, Encoder, Generator, Hits, Query, Retriever


@dataclass(frozen=True)
class Lookup:
    """Dense retrieval from an index that the undefended encoder built: a defense guards the queries."""

    index: Index
    encoder: Encoder
    where: str = ""  # a filter by metadata

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        vectors = Dense(str(self.index.path), self.encoder).embed(queries)
        return self.index.search(vectors, k, where=self.where or None)


@dataclass(frozen=True)
class Bench:
    """Everything lies below `folder` or is remembered for the life of the process; nothing is computed twice."""

    folder: Path
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)

    def samples(self, experiment: Experiment) -> list[Sample]:
        e = experiment
        place = ("samples", repr(e.corpus), e.seed, e.limit, e.kinds, e.each)
        if place not in self.memory:
            self.memory[place] = samples(e.corpus, e.seed, e.limit, e.kinds, e.each)
        found: list[Sample] = self.memory[place]
        return found

    def prepare(self, experiment: Experiment, *, progress: bool = True, name: str = "") -> None:
        """Make the attacked images that are not there yet, in batches that are always the same; told of as `name`."""
        if experiment.attack is None:
            return
        e, folder = experiment, self.attacked(experiment)
        todo = adversary.units(e, self.samples(e), e.corpus.documents())
        size = adversary.AT_ONCE
        batches = [todo[i : i + size] for i in range(0, len(todo), size)]
        missing = [
            (n, batch)
            for n, batch in enumerate(batches)
            if any(not (folder / f"{u.name}.json").exists() for u in batch)
        ]
        title, done = f"attacking {name or folder.name}", len(todo) - sum(len(batch) for _, batch in missing)
        with steps(title, len(todo), done, unit=attacked_units(e), shown=progress) as advance:
            for number, batch in missing:
                adversary.make(e, batch, number, self.surroundings(e), folder)
                advance(len(batch))

    def attacked(self, experiment: Experiment) -> Path:
        """The folder of the attacked images."""
        return self.folder / "attacks" / adversary.key(experiment)

    def image(self, experiment: Experiment, sample: Sample) -> Path | None:
        """The attacked image of a sample; None where its image is the corpus's own."""
        if experiment.attack is None or experiment.surface != "query":
            return None
        return self.attacked(experiment) / f"{adversary.unit_name(experiment, sample)}.png"

    def judged(self, experiment: Experiment, sample: Sample) -> str | None:
        path = self.image(experiment, sample)
        return None if path is None else path.relative_to(self.folder).as_posix()

    def perturbation(self, experiment: Experiment, sample: Sample) -> dict[str, float]:
        path = self.image(experiment, sample)
        return {} if path is None else adversary.measured(path.parent, path.stem)

    def queries(self, experiment: Experiment, batch: Sequence[Sample], *, reached: bool) -> list[Query]:
        """The batch's queries, with the attacked image where the attack reaches the reader."""
        images = [self.image(experiment, s) if reached else None for s in batch]
        return [
            s.query if image is None else replace(s.query, image=image) for s, image in zip(batch, images, strict=True)
        ]

    def retrieve(self, experiment: Experiment, encoder: Encoder, queries: Sequence[Query]) -> list[Hits]:
        """The k best documents; a list that was retrieved before with equal parts is not retrieved again."""
        poison = self.poison(experiment)
        shelf = (repr(experiment.corpus), repr(experiment.index), experiment.embed, poison)
        place = ("hits", shelf, repr(encoder), experiment.k, tuple(queries))
        if place not in self.memory:
            self.memory[place] = self.retriever(experiment, encoder)(queries, experiment.k)
        found: list[Hits] = self.memory[place]
        return found

    def answer(self, generator: Generator, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        """Answers; what was asked before with equal images and articles is not asked again."""
        read = tuple(tuple(hit.document.id for hit in row) for row in hits)
        place = ("answers", repr(generator), tuple(queries), read)
        if place not in self.memory:
            self.memory[place] = generator(queries, hits)
        found: list[Answer] = self.memory[place]
        return found

    def poison(self, experiment: Experiment) -> str:
        """Names the attacked documents in the index; empty: none."""
        attacked = experiment.attack is not None and experiment.surface == "corpus"
        return adversary.key(experiment) if attacked else ""

    def retriever(self, experiment: Experiment, encoder: Encoder) -> Retriever:
        return Lookup(self.index(experiment), encoder)

    def surroundings(self, experiment: Experiment) -> Surroundings:
        clean = experiment.clean
        place = ("surroundings", repr(clean.corpus), repr(bare(clean.encoder)), repr(clean.index), clean.embed)
        if place not in self.memory:
            self.memory[place] = Surroundings(self.index(clean))
        found: Surroundings = self.memory[place]
        return found

    def index_folder(self, experiment: Experiment) -> Path:
        encoder = bare(experiment.encoder)
        kind = (repr(experiment.index), experiment.embed, self.poison(experiment))
        return self.folder / "indexes" / short_hash(repr(experiment.corpus), repr(encoder), encoder.fingerprint, *kind)

    def index(self, experiment: Experiment) -> Index:
        """Built once, by the encoder without its defenses: they guard the queries."""
        folder = self.index_folder(experiment)
        place = ("index", folder.name)
        if place not in self.memory:
            self.memory[place] = self.open(experiment, bare(experiment.encoder), folder)
        found: Index = self.memory[place]
        return found

    def open(self, experiment: Experiment, encoder: Encoder, folder: Path) -> Index:
        if (folder / "manifest.json").exists():
            return Index.open(folder, encoder)
        source = self.shelved(experiment) if self.poison(experiment) else experiment.corpus
        return build(source, encoder, folder, kind=experiment.index, embed=experiment.embed, progress=False)

    def shelved(self, experiment: Experiment) -> list[Document]:
        """The corpus's documents, the attacked ones with their attacked images."""
        documents = list(experiment.corpus.documents())
        made = adversary.units(experiment, self.samples(experiment), documents)
        images = {u.query.id: self.attacked(experiment) / f"{u.name}.png" for u in made}
        return [replace(d, image=images.get(d.id, d.image)) for d in documents]


def attacked_units(experiment: Experiment) -> str:
    """What an attack goes through, one by one."""
    if experiment.surface == "corpus":
        return "documents"
    return "questions" if adversary.asks(experiment) else "tiles"
