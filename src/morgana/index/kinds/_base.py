"""What a kind of index is, and what FAISS files have in common."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.files import storing
from morgana.index.vectors import Half, Rows, Stored
from morgana.types import SpecError, StoreError

FILE = "vectors.faiss"
Bits: TypeAlias = NDArray[np.uint8]  # (⌈N / 8⌉,)


class Searcher(Protocol):
    """Rows that can be searched."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and dimension."""
        ...

    @property
    def selects(self) -> bool:
        """`search` takes `only`."""
        ...

    @property
    def final(self) -> bool:
        """The scores are inner products of the stored rows to within float32, and need not be computed again."""
        ...

    @property
    def slack(self) -> float:
        """How much more than its score a row may have."""
        ...

    def search(self, queries: Rows, k: int, only: Bits | None = None) -> tuple[Rows, NDArray[np.int64]]:
        """Scores and row numbers, (B, k), best first; -1 where fewer than k were found.

        `only` are the rows that may be found, one bit a row from the lowest.
        """
        ...


def spare(searcher: Searcher) -> int:
    """Candidates beyond those wanted: some show that no tie goes on, more make up for scores that are not final."""
    return 2 if searcher.final else 8


class Kind(Protocol):
    """One way to search: writes what it needs beside the vectors, and reads it back."""

    @property
    def exact(self) -> bool:
        """The best rows are all found, and come in the order of their exact scores."""
        ...

    def check(self, dimension: int) -> None:
        """SpecError where it cannot be made for vectors of this dimension."""
        ...

    def write(self, vectors: Stored, folder: Path) -> None: ...
    def open(self, folder: Path, vectors: Half, device: str) -> Searcher: ...


def library() -> Any:
    """FAISS; its type stubs leave out what is used here."""
    import faiss

    return faiss


class Faiss:
    """A FAISS index, searched; it keeps alive what it only views."""

    slack = 0.0

    def __init__(self, index: Any, *kept: object) -> None:
        self.index, self.kept = index, kept

    @property
    def size(self) -> tuple[int, int]:
        return int(self.index.ntotal), int(self.index.d)

    @property
    def selects(self) -> bool:
        return parameters(self.index) is not None

    @cached_property
    def final(self) -> bool:
        faiss = library()
        coded = faiss.downcast_index(self.index.storage) if isinstance(self.index, faiss.IndexHNSW) else self.index
        if not isinstance(coded, (faiss.IndexScalarQuantizer, faiss.IndexIVFScalarQuantizer)):
            return False
        return coded.sq.qtype == faiss.ScalarQuantizer.QT_fp16 and not getattr(coded, "by_residual", False)

    def search(self, queries: Rows, k: int, only: Bits | None = None) -> tuple[Rows, NDArray[np.int64]]:
        params = None if only is None else parameters(self.index, sel=library().IDSelectorBitmap(only))
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=params)
        return scores, rows


def parameters(index: Any, **options: Any) -> Any:
    """FAISS's search parameters for an index, as it is tuned; None for a type that is not known to take a selector."""
    faiss = library()
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=index.nprobe, **options)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=index.hnsw.efSearch, **options)
    plain = isinstance(index, (faiss.IndexFlat, faiss.IndexScalarQuantizer))
    return faiss.SearchParameters(**options) if plain else None


def viewed(vectors: Half) -> Any:
    """FAISS's float16 index over rows that stay where they are: mapped from the file, nothing is copied."""
    faiss = library()
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    codes = vectors.view(np.uint8).reshape(-1)
    nobody = faiss.IndexFlatIP(1).codes.owner  # numpy owns the rows
    index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(codes), codes.nbytes, nobody)
    index.ntotal = len(vectors)
    return index


def why(error: BaseException) -> str:
    """What FAISS says, less where in its sources it says so."""
    return re.sub(r"^Error in .*\.(cpp|h|cu|cuh):\d+: ", "", str(error).split("\n")[0])[-200:]


def store(index: Any, path: Path, flags: int = 0) -> None:
    faiss = library()
    with storing(path):
        try:
            faiss.write_index(index, str(path), flags)
        except RuntimeError as error:  # how FAISS reports a failed write
            raise OSError(why(error)) from error


def load(path: Path, rows: Half, flags: int | None = None) -> Any:
    """A FAISS file, mapped where FAISS can; StoreError if it is none or holds other rows."""
    faiss = library()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if flags is None else flags)
    except RuntimeError as error:
        raise StoreError(f"{path} is not a FAISS file: {why(error)}; rebuild the index") from error
    if (index.ntotal, index.d) != rows.shape:
        held = f"{index.ntotal} rows of {index.d}"
        raise StoreError(f"{path} holds {held}, the vectors are {rows.shape[0]} of {rows.shape[1]}; rebuild the index")
    return index


def at_least(part: object, **values: float) -> None:
    """SpecError naming the first argument below 1."""
    for name, value in values.items():
        if value < 1:
            raise SpecError(f"{part!r}: {name}={value}; it must be at least 1")
