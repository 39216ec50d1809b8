"""Vectors on disk: one .npy file of float16 rows, written by appending, read in bounded pieces or mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.types import StoreError

Rows: TypeAlias = NDArray[np.float32]  # (N, D), unit length
Half: TypeAlias = NDArray[np.float16]  # (N, D), unit length to within rounding
HEADER = 128  # bytes of a .npy header, whatever the number of rows
CHUNK = 16_384  # rows read at a time
TOLERANCE = 2e-3  # how far float16 may leave unit length


class Appending:
    """A .npy file that grows; the header is written when the number of rows is known."""

    def __init__(self, file: IO[bytes], dimension: int) -> None:
        self.file, self.dimension, self.count = file, dimension, 0
        file.write(b"\0" * HEADER)

    def add(self, rows: Rows | Half) -> None:
        self.file.write(half(rows).data)
        self.count += len(rows)

    def finish(self) -> None:
        self.file.seek(0)
        self.file.write(header(self.count, self.dimension))
        self.file.flush()


def half(rows: Rows | Half) -> Half:
    """Rows as they are stored."""
    made: Half = np.ascontiguousarray(rows, dtype="<f2")
    return made


def header(count: int, dimension: int) -> bytes:
    """The header of a .npy file (version 1.0) of `count` float16 rows, padded to HEADER bytes."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({count}, {dimension}), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


class Stored:
    """The rows of a finished file, read piece by piece so that memory stays flat whatever their number."""

    def __init__(self, path: Path, count: int, dimension: int, offset: int = HEADER) -> None:
        self.path, self.shape, self.offset = path, (count, dimension), offset

    def halves(self) -> Iterator[Half]:
        count, _ = self.shape
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, count, CHUNK):
                some = min(CHUNK, count - start)
                yield self.read(file, some)

    def read(self, file: IO[bytes], count: int) -> Half:
        """The next rows of the opened file."""
        found: Half = np.frombuffer(file.read(count * self.shape[1] * 2), "<f2").reshape(count, self.shape[1])
        return found

    def chunks(self) -> Iterator[Rows]:
        """Float32 rows in order."""
        for piece in self.halves():
            yield piece.astype(np.float32)

    def sample(self, count: int, phase: int = 0) -> Rows:
        """At most `count` rows (or one a stride more), evenly spread, the same at every call."""
        stride = max(1, -(-self.shape[0] // max(1, count)))
        if stride == 1:
            return np.concatenate(list(self.chunks()))
        places = np.arange(phase % stride, self.shape[0], stride)
        found = np.empty((len(places), self.shape[1]), dtype=np.float32)
        with self.path.open("rb") as file:
            for i, place in enumerate(places):
                file.seek(self.offset + int(place) * self.shape[1] * 2)
                found[i] = np.frombuffer(file.read(self.shape[1] * 2), "<f2")
        return found


def mapped(path: Path, shape: tuple[int | None, ...], dtype: str) -> NDArray[np.generic]:
    """An array file, mapped; StoreError if it is not one of this shape (None: any length) and type."""
    try:
        rows: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise StoreError(f"{path} is not an array: {str(error)[:200]}; rebuild the index") from error
    same = len(rows.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, rows.shape, strict=True))
    if not same or rows.dtype != np.dtype(dtype) or not rows.flags.c_contiguous:
        wanted = f"{np.dtype(dtype)} {shape}"
        raise StoreError(f"{path} holds {rows.dtype} of shape {rows.shape}, not {wanted}; rebuild the index")
    return rows.view(np.ndarray)  # still mapped; numpy's own memmap is slow to index


def not_unit(rows: Rows | Half, tolerance: float = TOLERANCE) -> tuple[int, str] | None:
    """The first row that is no unit vector and why (NaN, infinite, another length); None if all are."""
    exact = rows.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= tolerance))  # also where NaN
    if not len(bad):
        return None
    row, length = int(bad[0]), float(lengths[bad[0]])
    finite = bool(np.isfinite(exact[row]).all())
    return row, f"is not of unit length but {length:.4g}" if finite else "holds NaN or infinity"
