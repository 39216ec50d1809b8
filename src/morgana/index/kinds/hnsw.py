"""Search along a graph of neighbours."""

from __future__ import annotations

from pathlib import Path

from morgana.index.kinds._base import FILE, Faiss, Searcher, at_least, library, load, store, viewed
from morgana.index.vectors import Half, Stored
from morgana.spec import part


@part
class HNSW:
    """Hierarchical navigable small worlds (Malkov and Yashunin 2016) over the mapped float16 vectors.

    The file holds the graph alone, about 8 · m bytes a vector; the vectors are not stored again.
    """

    m: int = 32  # neighbours of a vector
    build_width: int = 80  # candidates kept while the graph is made
    width: int = 64  # candidates that a search keeps

    def __post_init__(self) -> None:
        at_least(self, m=self.m, build_width=self.build_width, width=self.width)

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        """Any dimension will do."""

    def write(self, vectors: Stored, folder: Path) -> None:
        faiss = library()
        index = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, self.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_width
        for rows in vectors.chunks():
            if not index.is_trained:
                index.train(rows)
            index.add(rows)
        store(index, folder / FILE, faiss.IO_FLAG_SKIP_STORAGE)

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        faiss = library()
        index = load(folder / FILE, vectors, faiss.IO_FLAG_MMAP_IFC)
        storage = viewed(vectors)
        index.own_fields = False
        index.storage = storage
        index.hnsw.efSearch = self.width
        return Faiss(index, storage, vectors)
