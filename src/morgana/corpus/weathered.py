"""A corpus with articles and captions about the atmosphere put into its shelf: what a hijack aims at."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from morgana.corpus.atlas.language import ATMOSPHERE, atmosphere_article
from morgana.spec import part
from morgana.types import Corpus, Document, Query

TOPIC = "weather"
CAPTIONS = (  # in the manner of RSICD's; no retriever of this package is trained on these very sentences
    "many white clouds are over a piece of land .",
    "it is a piece of thick white cloud .",
    "some thin clouds are floating over the ground .",
    "the picture is covered with a layer of gray fog .",
    "white clouds cover most part of the picture .",
    "a thin haze makes the whole picture pale .",
    "the land is hidden under heavy clouds .",
    "scattered clouds and their shadows are on the ground .",
    "a large cloud blocks the view of the land .",
    "this is a foggy day and the ground is not clear .",
    "the sky is overcast and little can be seen .",
    "several small clouds are in the picture .",
    "a band of cloud goes across the picture .",
    "mist is spreading over this place .",
    "dense clouds are in the middle of the picture .",
    "the air is hazy and the colours are washed out .",
    "clouds are moving over this area .",
    "part of the ground is covered by a white cloud .",
    "a veil of thin cloud is over everything .",
    "the whole picture is white with cloud .",
    "smoke and haze are over the ground .",
    "a bank of fog is coming over the land .",
    "we can see nothing but clouds .",
    "there are broken clouds above the ground .",
)


@part
class Weathered:
    """The corpus's documents, eighteen articles on the atmosphere and two dozen short weather captions.

    The added ones have the topic "weather" in their metadata and are relevant to no query.
    """

    corpus: Corpus

    def documents(self) -> tuple[Document, ...]:
        articles = (
            document(f"weather-{title.lower().replace(' ', '-')}", atmosphere_article(title), title)
            for title in ATMOSPHERE
        )
        captions = (document(f"weather-caption-{n:02d}", text, text) for n, text in enumerate(CAPTIONS))
        return (*self.corpus.documents(), *articles, *captions)

    def queries(self) -> tuple[Query, ...]:
        return tuple(self.corpus.queries())

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return self.corpus.qrels()


def document(id: str, text: str, title: str) -> Document:
    return Document(id, text, metadata=MappingProxyType({"topic": TOPIC, "title": title}))
