"""Peak memory of a build from a Python iterator, at two sizes: it should not grow with the corpus.

    python benchmarks/index_memory.py [ROWS ROWS] [DIMENSION]

Each build runs in a process of its own, which reports its peak resident size; its encoder draws vectors at no cost, so
that what is measured is the builder. Pages of the finished files that the process has mapped count as resident too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TARGET = 1.2  # the larger peak over the smaller


@dataclass(frozen=True)
class Drawn:
    """Gives every batch the same vectors, so that only the builder works."""

    dimension: int
    image_size: int = 0
    fingerprint: str = "drawn"

    def encode_text(self, texts: Sequence[str]) -> object:
        import torch

        made = torch.empty(len(texts), self.dimension)
        made.normal_(generator=torch.Generator().manual_seed(len(texts)))
        return torch.nn.functional.normalize(made, dim=1)


def measure(count: int, dimension: int) -> dict[str, float]:
    """Build once, in this process: peak resident MiB before and after, and seconds."""
    from morgana.index import build
    from morgana.types import Document

    def documents() -> Iterator[Document]:
        return (Document(f"document-{n}", f"the text of document number {n}") for n in range(count))

    with tempfile.TemporaryDirectory() as folder:
        before, start = peak(), time.perf_counter()
        build(documents(), Drawn(dimension), Path(folder) / "index", batch_size=1024, progress=False)  # type: ignore[arg-type]
        return {"rows": count, "before": before, "peak": peak(), "seconds": time.perf_counter() - start}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(words: list[str]) -> int:
    if words[:1] == ["--one"]:
        sys.stdout.write(json.dumps(measure(int(words[1]), int(words[2]))))
        return 0
    few, many, dimension = (*map(int, words), *(100_000, 1_000_000, 64)[len(words) :])
    found = []
    for count in (few, many):
        command = [sys.executable, __file__, "--one", str(count), str(dimension)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        line = "{rows:>9,.0f} rows  peak {peak:6.0f} MiB, {before:.0f} before the build, {seconds:.1f} s"
        sys.stdout.write(line.format(**found[-1]) + "\n")
    ratio = found[1]["peak"] / found[0]["peak"]
    sys.stdout.write(f"{'OK' if ratio < TARGET else 'grows'}  ratio {ratio:.3f}, < {TARGET}\n")
    return 0 if ratio < TARGET else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
