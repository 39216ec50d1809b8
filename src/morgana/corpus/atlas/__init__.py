"""Atlas, the bundled world: aerial tiles with exact ground truth, and the articles that describe them."""

from morgana.corpus.atlas.corpus import Atlas, Item

__all__ = ["Atlas", "Item"]
