"""Does BM25 rank as others' does? Mean average precision on Vaswani, a small complete collection for text retrieval."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from morgana.eval.trec import Qrels, read_qrels
from morgana.index import from_vectors
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.retrieval.retrievers.sparse import Sparse
from morgana.types import Document, Hits, Query, StoreError

DEPTH = 1000  # documents of each ranking
SETTINGS = {(1.2, 0.75): 0.2110, (0.9, 0.4): 0.2208}  # (k1, b): the MAP that others have, to within 0.003
DOCUMENT = re.compile(r"<DOCNO>\s*(\S+)\s*</DOCNO>(.*?)</DOC>", flags=re.S)
TOPIC = re.compile(r"<num>\s*(\S+?)\s*</num>\s*<title>(.*?)</title>", flags=re.S)


def precision(hits: Hits, judged: dict[str, int]) -> float:
    """Average precision: over the relevant documents, of the precision at their ranks."""
    right = {id for id, grade in judged.items() if grade > 0}
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit.document.id in right]
    return sum(number / rank for number, rank in enumerate(ranks, 1)) / len(right)


def read(folder: Path) -> tuple[list[Document], list[Query], Qrels]:
    try:
        documents = DOCUMENT.findall((folder / "doc-text.trec").read_text())
        topics = TOPIC.findall((folder / "query-text.trec").read_text())
    except OSError as error:
        raise StoreError(f"{folder} is not the Vaswani collection: {error}") from error
    queries = [Query(id, " ".join(text.split())) for id, text in topics]
    return [Document(id, " ".join(text.split())) for id, text in documents], queries, read_qrels(folder / "qrels")


def measure(folder: Path) -> dict[tuple[float, float], float]:
    """MAP by (k1, b)."""
    documents, queries, qrels = read(folder)
    rows = np.ones((len(documents), 1), dtype=np.float32)  # only the words are searched
    with TemporaryDirectory() as place:
        path = Path(place) / "index"
        from_vectors(documents, rows, HashEncoder(1), path, sparse=True)
        return {
            (k1, b): float(
                np.mean(
                    [
                        precision(hits, dict(qrels[query.id]))
                        for query, hits in zip(queries, Sparse(str(path), k1=k1, b=b)(queries, DEPTH), strict=True)
                    ]
                )
            )
            for k1, b in SETTINGS
        }


def main(folder: Annotated[Path, typer.Argument(help="With doc-text.trec, query-text.trec and qrels.")]) -> None:
    """Print MAP for both settings, without stemming or stop words."""
    for (k1, b), found in measure(folder).items():
        typer.echo(f"k1 = {k1}, b = {b}: MAP {found:.4f}, others have {SETTINGS[k1, b]:.4f}")


if __name__ == "__main__":
    typer.run(main)
