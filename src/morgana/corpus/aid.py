"""AID's aerial photographs (Xia et al. 2017) with RSICD's captions (Lu et al. 2017), by a manifest of JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from morgana.files import inside, json_lines
from morgana.spec import part
from morgana.types import Document, Query, StoreError

BETWEEN = ";"  # labels of a caption that tiles of several labels share


class Tile(NamedTuple):
    """One line of the manifest."""

    image: Path
    label: str
    split: str
    captions: tuple[str, ...]
    haze: bool


@part
class AID:
    """Captions of every split as documents, each once; the tiles of one split as queries; relevant is an equal label.

    A document's id is `caption-` and the number of its first appearance, `metadata["labels"]` the labels of its
    tiles joined by `;`. A query's id is its tile's path. `haze` keeps only the tiles that are listed as naturally
    hazy (True) or only the others (False).
    """

    root: str
    split: str = "dev"
    haze: bool | None = None

    def documents(self) -> tuple[Document, ...]:
        return self._documents

    def queries(self) -> tuple[Query, ...]:
        return tuple(Query(self._name(tile), image=tile.image) for tile in self.tiles())

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        relevant: dict[str, dict[str, int]] = {}
        for document in self._documents:
            for label in document.metadata["labels"].split(BETWEEN):
                relevant.setdefault(label, {})[document.id] = 1
        return {self._name(t): relevant[t.label] for t in self.tiles() if t.label in relevant}

    def tiles(self) -> tuple[Tile, ...]:
        """The tiles of the split, with labels, captions and whether they are hazy."""
        chosen = tuple(t for t in self._tiles if t.split == self.split and self.haze in (None, t.haze))
        if not chosen:
            splits = ", ".join(sorted({t.split for t in self._tiles}))
            raise StoreError(f"{self!r} has no tiles; the manifest has the splits {splits}")
        return chosen

    def _name(self, tile: Tile) -> str:
        return tile.image.relative_to(self.root).as_posix()

    @cached_property
    def _tiles(self) -> tuple[Tile, ...]:
        manifest = Path(self.root) / "manifest.jsonl"
        if not manifest.is_file():
            raise StoreError(f"there is no {manifest}; name the folder that holds AID's manifest.jsonl and images/")
        found = tuple(self._tile(row, place) for place, row in json_lines(manifest))
        if not found:
            raise StoreError(f"{manifest} is empty; write one JSON object a tile")
        return found

    def _tile(self, row: dict[str, Any], place: str) -> Tile:
        captions = row.get("captions", [])
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise StoreError(f"{place}: 'captions' is not a list of strings")
        for key in ("label", "split"):
            if not isinstance(row.get(key), str) or not row[key]:
                raise StoreError(f"{place}: {key!r} is {row.get(key)!r}; write a string")
        image = inside(Path(self.root), row.get("image"), place)
        return Tile(image, row["label"], row["split"], tuple(captions), bool(row.get("haze", False)))

    @cached_property
    def _documents(self) -> tuple[Document, ...]:
        labels: dict[str, set[str]] = {}
        for tile in self._tiles:
            for text in tile.captions:
                labels.setdefault(text, set()).add(tile.label)
        if not labels:
            raise StoreError(f"{self.root} has no captions; the documents of AID are RSICD's captions")
        return tuple(
            Document(f"caption-{n:04d}", text, metadata=MappingProxyType({"labels": BETWEEN.join(sorted(of))}))
            for n, (text, of) in enumerate(labels.items())
        )
