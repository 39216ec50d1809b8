"""What a photograph of AID may be called while a retriever learns: class templates, captions, weather sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from morgana.corpus.atlas.language import ATMOSPHERE, SEEN_AS, atmosphere_article
from morgana.corpus.atlas.world import pick

TEMPLATES = (
    "an aerial photograph of a {}",
    "a {} seen from above",
    "a satellite image of a {}",
    "it is a {} .",
    "this is a {} with its surroundings .",
    "a picture of the {}",
)
VEILS = {
    "haze": ("haze", "fog", "mist", "a hazy veil", "smog", "a pale haze", "thin fog"),
    "thin cloud": ("thin clouds", "some clouds", "a few white clouds", "a thin cloud", "light cloud", "small clouds"),
    "thick cloud": ("thick clouds", "dense clouds", "heavy cloud", "large white clouds", "an overcast sky", "clouds"),
}
SENTENCES = (
    "{} over the ground .",
    "{} hide the ground .",
    "the ground lies behind {} .",
    "an aerial photograph full of {}",
    "there is {} in the picture .",
    "{} , seen from above",
    "the land is covered by {} .",
    "a tile with {} over it",
)
BESIDE = ("under {}", "behind {}", "with {} over it", "in {}")
ARTICLE = 0.4  # share of weather texts that are whole articles
DROPPED = 0.1  # share of a caption's words that are left out


def phrase(label: str) -> str:
    """DenseResidential -> dense residential."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", label).lower()


def named(label: str, draw: np.random.Generator) -> str:
    return pick(draw, TEMPLATES).format(phrase(label))


def weather(veil: str, draw: np.random.Generator) -> str:
    """A sentence about the weather alone, or an article on the atmosphere."""
    if draw.random() < ARTICLE:
        return atmosphere_article(pick(draw, SEEN_AS[veil]))
    return pick(draw, SENTENCES).format(pick(draw, VEILS[veil]))


def beside(text: str, veil: str, draw: np.random.Generator) -> str:
    """A scene's text that mentions its weather."""
    return f"{text.rstrip(' .')} {pick(draw, BESIDE).format(pick(draw, VEILS[veil]))}"


def worn(caption: str, draw: np.random.Generator) -> str:
    """A caption with some of its words left out, never all."""
    words = caption.split()
    kept = [w for w, luck in zip(words, draw.random(len(words)), strict=True) if luck >= DROPPED]
    return " ".join(kept or words)


def vocabulary(labels: tuple[str, ...], captions: tuple[str, ...]) -> Iterator[str]:
    """Everything that may be said, for the tokenizer."""
    yield from captions
    yield from (t.format(phrase(label)) for label in labels for t in TEMPLATES for _ in range(4))
    yield from (s.format(v) for veils in VEILS.values() for v in veils for s in (*SENTENCES, *BESIDE))
    yield from (atmosphere_article(title) for title in ATMOSPHERE)
