"""Which sentences of the articles an answer rests on: each is left out once, and the answer's probability looked at."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import torch

from morgana.types import Generator, Hit, Hits, Pixels, Query

END = re.compile(r"(?<=[.!?…])\s+|\n+")


class Sentence(NamedTuple):
    """A sentence of a document, and the nats per token that the answer loses without it (negative: it gains)."""

    text: str
    loss: float


def sentences(text: str) -> list[str]:
    """Split at ends of sentences and of lines.

    >>> sentences("It has 3.5 km of quays. Who runs it? Bluewater.")
    ['It has 3.5 km of quays.', 'Who runs it?', 'Bluewater.']
    """
    return [piece for piece in END.split(text) if piece.strip()]


@torch.no_grad()
def rests_on(
    generator: Generator, pixels: Pixels, query: Query, hits: Hits, text: str
) -> tuple[tuple[Sentence, ...], ...]:
    """For each hit its sentences, each with what `text`, as the answer, loses when it alone is left out.

    A measured effect instead of an attention weight; one pass a sentence and one more. Sentences that say the same
    thing twice stand in for each other, and neither is seen to matter.
    """
    whole = float(generator.loss(pixels, query, hits, text)[0])
    found = []
    for place, hit in enumerate(hits):
        parts, row = sentences(hit.document.text), []
        for number, sentence in enumerate(parts):
            rest = " ".join([*parts[:number], *parts[number + 1 :]])
            less = Hit(replace(hit.document, text=rest), hit.score)
            without = float(generator.loss(pixels, query, (*hits[:place], less, *hits[place + 1 :]), text)[0])
            row.append(Sentence(sentence, without - whole))
        found.append(tuple(row))
    return tuple(found)
