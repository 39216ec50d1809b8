"""Semantic shift: how far an attack moved the answer, 1 - cosine of its and the clean answer's embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import cosine_similarity

from morgana.eval.outcome import Outcome
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.spec import part
from morgana.types import Embeddings, Encoder


@part
class SemanticShift:
    """1 - cosine between the answer and the same system's answer to the clean query: 0 the same, up to 2.

    Any text encoder will do. The default sees spelling, not meaning, and needs no weights; with
    `SentenceEncoder(...)` two ways of saying the same are close. The two are different measures: name which.
    """

    encoder: Encoder = HashEncoder()

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        pairs = {i: (o.clean, o.answer) for i, o in enumerate(outcomes) if o.clean is not None and o.answer is not None}
        texts = sorted({text for pair in pairs.values() for text in pair})
        if not texts:
            return [None] * len(outcomes)
        row = {text: i for i, text in enumerate(texts)}
        vectors = self.encoder.encode_text(texts).detach()
        clean, answer = (vectors[[row[pair[side]] for pair in pairs.values()]] for side in (0, 1))
        values = dict(zip(pairs, shift(clean, answer), strict=True))
        return [values.get(i) for i in range(len(outcomes))]


def shift(clean: Embeddings, answer: Embeddings) -> list[float]:
    """1 - cosine of each row of two (B, D) arrays, exactly 0 for equal rows."""
    far = (1 - cosine_similarity(clean.double(), answer.double(), dim=1)).clamp(0, 2)
    same = (clean == answer).all(dim=1)
    return [float(value) for value in far.masked_fill(same, 0.0)]
