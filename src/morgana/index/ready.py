"""An index from vectors that were embedded elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morgana.files import locked
from morgana.index import _disk, manifest
from morgana.index._batches import first_unkept
from morgana.index._publish import About, check_place, publish
from morgana.index._writer import SegmentWriter
from morgana.index.index import Index
from morgana.index.kinds._base import Kind
from morgana.index.kinds.flat import Flat
from morgana.index.vectors import Rows
from morgana.types import Document, Encoder, SpecError, StoreError

TINY = 1e-15  # shorter rows, and longer than its inverse, have squares that float32 cannot hold
PIECE = 1_024  # rows at a time: with more documents alive Python looks for garbage in vain


def from_vectors(
    documents: Iterable[Document],
    vectors: NDArray[np.floating],
    encoder: Encoder,
    path: Path | str,
    *,
    kind: Kind | None = None,
    embed: str = "text",
    sparse: bool = False,
    overwrite: bool = False,
) -> Index:
    """Write the index folder `path` from documents and the vectors (N, D) that `encoder` gave them, row by row.

    The vectors may be mapped from a file; they are made unit length, as cosines ask no more. `embed` is `text` or
    `image`, whichever was embedded; `sparse` is as in `build`. Raises SpecError naming row and id for NaN, infinity and
    zero vectors, StoreError for ids that come twice and for other numbers of vectors and documents.
    """
    path = Path(path)
    if embed not in ("text", "image"):
        raise SpecError(f"embed={embed!r}; say whether the vectors are of the documents' text or image")
    if not hasattr(vectors, "ndim"):
        raise SpecError(f"the vectors are a {type(vectors).__name__}; give an array of shape (N, {encoder.dimension})")
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != encoder.dimension:
        raise SpecError(f"vectors of shape {vectors.shape}; {encoder!r} gives rows of {encoder.dimension} dimensions")
    kind = kind or Flat()
    kind.check(encoder.dimension)
    check_place(path, overwrite)
    with locked(manifest.staging(path), "is building in"):
        final = manifest.staging(path) / "final"
        try:
            with SegmentWriter(final / "segments" / "000001", encoder.dimension, sparse=sparse) as writer:
                for some, rows in pieces(iter(documents), vectors):
                    writer.add([(document, (embed,)) for document in some], rows)
                entry, measured = writer.finish(kind)
            publish(final, path, About(repr(kind), encoder, embed, "", sparse), entry, measured)
        finally:
            _disk.remove(manifest.staging(path))
    return Index.open(path, encoder)


def pieces(documents: Iterator[Document], vectors: NDArray[np.floating]) -> Iterator[tuple[list[Document], Rows]]:
    for start in range(0, len(vectors), PIECE):
        some = list(islice(documents, min(PIECE, len(vectors) - start)))
        rows = np.asarray(vectors[start : start + len(some)], dtype=np.float32)
        if start + len(some) < min(start + PIECE, len(vectors)):
            raise StoreError(f"{len(vectors)} vectors and {start + len(some)} documents; give each vector a document")
        for number, document in enumerate(some, start):
            if not isinstance(document, Document):
                raise StoreError(f"row {number} has {document!r:.60} as its document; give it as a Document(id, …)")
        if bad := first_unkept(some):
            raise StoreError(f"{bad[0].id!r:.80}: {bad[1]}")
        yield some, unit(rows, some, start)
    if next(documents, None) is not None:
        raise StoreError(f"{len(vectors)} vectors and more documents; give each document a vector")


def unit(rows: Rows, documents: list[Document], start: int) -> Rows:
    """Rows of unit length; SpecError naming the first that has no direction."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    odd = np.flatnonzero(~((lengths > TINY) & (lengths < 1 / TINY)))
    if len(odd):
        wide = rows[odd].astype(np.float64)
        exact = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        bad = np.flatnonzero(~(np.isfinite(exact) & (exact > 0)))
        if len(bad):
            row = int(odd[bad[0]])
            told = f"row {start + row}, of {documents[row].id!r}, is zero or holds NaN or infinity"
            raise SpecError(f"{told}; leave it out")
        rows, lengths[odd] = rows.copy(), 1
        rows[odd] = wide / exact[:, None]
    made: Rows = rows / lengths[:, None]
    return made
