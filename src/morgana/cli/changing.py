"""`morgana index add|upsert|delete|merge|compact`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morgana.cli import inputs
from morgana.cli.indexing import describe
from morgana.cli.inputs import AsJSON, BatchSize, Device, IndexFolder
from morgana.cli.output import resumable, tell

if TYPE_CHECKING:
    from morgana.types import Encoder

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help=inputs.CORPUS)]
NOTHING = "nothing was changed"


def embedder(folder: Path, device: str | None, batch_size: int | None) -> Encoder:
    """The encoder that built the index."""
    from morgana.index.manifest import read

    return inputs.encoder(read(folder).encoder, device, batch_size)


def add(
    folder: IndexFolder,
    corpus: CorpusName,
    fold: Annotated[bool, typer.Option("--fold", help="New documents of equal text and image become one.")] = False,
    batch_size: BatchSize = 64,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Embed new documents and add them to an index; ids that it has already are refused.

    \b
    Example:
      morgana index add photos.index new-photos/
    """
    with resumable(NOTHING):
        from morgana.index import add as add_documents

        encoder, size = embedder(folder, device, batch_size), batch_size or 64
        made = add_documents(folder, inputs.corpus(corpus), encoder, batch_size=size, fold=fold, progress=True)
    describe(made, json)


def upsert(
    folder: IndexFolder,
    corpus: CorpusName,
    batch_size: BatchSize = 64,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Embed documents and add them to an index, in place of those with the same ids.

    \b
    Example:
      morgana index upsert my.index my-corpus/
    """
    with resumable(NOTHING):
        from morgana.index import upsert as upsert_documents

        encoder, size = embedder(folder, device, batch_size), batch_size or 64
        made = upsert_documents(folder, inputs.corpus(corpus), encoder, batch_size=size, progress=True)
    describe(made, json)


def delete(
    folder: IndexFolder,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of documents.")],
    json: AsJSON = False,
) -> None:
    """Delete documents from an index, all of those named or, if one is not there, none.

    \b
    Example:
      morgana index delete photos.index cat.jpg dog.jpg
    """
    from morgana.index import delete as delete_documents

    describe(delete_documents(folder, ids), json)


def merge(
    folder: IndexFolder,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another index of the same encoder.")],
    replace: Annotated[bool, typer.Option("--replace", help="Ids that both hold are taken from the other.")] = False,
    json: AsJSON = False,
) -> None:
    """Add all documents and vectors of another index, which stays as it is.

    \b
    Example:
      morgana index merge photos.index holiday.index
    """
    from morgana.index import merge as merge_index

    describe(merge_index(folder, other, replace=replace), json)


def compact(
    folder: IndexFolder,
    sparse: Annotated[
        bool | None, typer.Option(help="Keep words for search by BM25, or leave them out [default: as it is].")
    ] = None,
    json: AsJSON = False,
) -> None:
    """Write an index as one segment, free what was deleted, and make its search file anew.

    \b
    Example:
      morgana index compact photos.index
      morgana index compact my.index --sparse
    """
    from morgana.index import compact as compact_index

    describe(compact_index(folder, sparse=sparse), json)
    tell("readers that were open keep what they saw")


COMMANDS = (add, upsert, delete, merge, compact)
