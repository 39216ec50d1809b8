"""Several retrievers as one: by rank, or by scores that were made comparable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, pstdev

from morgana.spec import literal, part
from morgana.types import Document, Hit, Hits, Query, Retriever, SpecError

Scale = tuple[float, float]  # mean and standard deviation of a retriever's scores
METHODS = ("rrf", "weighted")


@part
class Fused:
    """The k best documents of several retrievers together, each asked for the first `depth`.

    `rrf` sums weight / (constant + rank), ranks from 1 (reciprocal rank fusion; Cormack, Clarke and Büttcher 2009), and
    needs no calibration. `weighted` sums weight · z, the score in standard deviations from the mean of what this
    retriever gives to queries of this kind, by text or by image: CLIP's cosines between an image and a text lie far
    below those between two images, and BM25 has no upper end. `calibrated(queries)` measures the scales and writes them
    into the part. A document that a retriever did not find counts there as the last that it found (our choice).
    Documents that tie keep the order in which they were met, the first retriever's first.
    """

    retrievers: tuple[Retriever, ...]
    method: str = "rrf"
    weights: tuple[float, ...] = ()  # one a retriever; (): all equal
    constant: float = 60
    depth: int = 100
    text_scales: tuple[Scale, ...] = ()  # of queries by text
    image_scales: tuple[Scale, ...] = ()  # of queries that have an image

    def __post_init__(self) -> None:
        count = len(self.retrievers)
        if not count:
            raise SpecError('nothing to fuse; write Fused((Dense("x.index"), Sparse("x.index")))')
        if self.method not in METHODS:
            raise SpecError(f"method={self.method!r}; choose one of {', '.join(METHODS)}")
        if self.constant < 0 or self.depth < 1:
            raise SpecError(f"constant={self.constant}, depth={self.depth}; they are at least 0 and 1")
        for name in ("weights", "text_scales", "image_scales"):
            given = getattr(self, name)
            if len(given) not in (0, count):
                raise SpecError(f"{name}={literal(given)} for {count} retrievers; give each one, or leave it out")
        if any(not 0 <= weight < float("inf") for weight in self.weights):
            raise SpecError(f"weights={literal(self.weights)}; a weight is at least 0")
        if any(deviation <= 0 for _, deviation in (*self.text_scales, *self.image_scales)):
            raise SpecError("a scale is (mean, standard deviation), the second above 0")

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        if self.method == "weighted":
            for query in queries:
                self.scales(query)  # or a SpecError, before the work
        lists = [retriever(queries, max(k, self.depth)) for retriever in self.retrievers]
        return [self.fuse(query, found)[:k] for query, found in zip(queries, zip(*lists, strict=True), strict=True)]

    def calibrated(self, queries: Sequence[Query]) -> Fused:
        """The same with the scales of its retrievers on a sample of queries, which should not be those it is judged on.

        Mean and standard deviation are of the scores of the first `depth` hits of all queries of a kind; a kind that
        the sample lacks stays without. SpecError where a retriever finds nothing for any query of a kind.
        """
        made: dict[str, tuple[Scale, ...]] = {}
        for name, kind in (("text_scales", False), ("image_scales", True)):
            some = [query for query in queries if (query.image is not None) == kind]
            if some:
                made[name] = tuple(self.scale(r, r(some, self.depth)) for r in self.retrievers)
        if not made:
            raise SpecError("no queries to calibrate with; give some of the kinds that will be asked")
        return replace(self, **made)  # type: ignore[arg-type]

    def scale(self, retriever: Retriever, lists: Iterable[Hits]) -> Scale:
        scores = [hit.score for hits in lists for hit in hits]
        if not scores:
            raise SpecError(f"{retriever!r} found nothing for the sample; calibrate with other queries")
        return fmean(scores), pstdev(scores) or 1.0  # one value only: nothing to compare

    def scales(self, query: Query) -> tuple[Scale, ...]:
        found = self.text_scales if query.image is None else self.image_scales
        if not found:
            kind = "text" if query.image is None else "image"
            raise SpecError(
                f"the query {query.id!r} is by {kind}, and scores for these were not made comparable: "
                "fused.calibrated(sample of queries) does, or use method='rrf'"
            )
        return found

    def fuse(self, query: Query, lists: Sequence[Hits]) -> Hits:
        """All documents of the lists, best first."""
        documents: dict[str, Document] = {}
        for hits in lists:
            for hit in hits:
                documents.setdefault(hit.document.id, hit.document)
        total = dict.fromkeys(documents, 0.0)
        for number, hits in enumerate(lists):
            weight = self.weights[number] if self.weights else 1.0
            for id, value in self.values(query, number, hits, documents).items():
                total[id] += weight * value
        order = sorted(documents, key=lambda id: -total[id])
        return tuple(Hit(documents[id], total[id]) for id in order)

    def values(self, query: Query, number: int, hits: Hits, every: Iterable[str]) -> dict[str, float]:
        """What one retriever says of the documents, by id."""
        ranks: dict[str, int] = {}
        for rank, hit in enumerate(hits, 1):
            ranks.setdefault(hit.document.id, rank)
        if self.method == "rrf":
            return {id: 1 / (self.constant + rank) for id, rank in ranks.items()}
        if not hits:
            return {}
        mean, deviation = self.scales(query)[number]
        last = min(hit.score for hit in hits)
        return {id: ((hits[ranks[id] - 1].score if id in ranks else last) - mean) / deviation for id in every}
