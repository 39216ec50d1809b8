"""`morgana index import|export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from morgana.cli import inputs
from morgana.cli.indexing import DEFAULT_ENCODER, describe
from morgana.cli.inputs import AsJSON, Device, IndexFolder
from morgana.cli.output import say, say_json


def import_folder(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What clip-retrieval's inference wrote.")],
    out: Annotated[Path, typer.Option("--out", help="The index folder to write.")],
    encoder: Annotated[str, typer.Option("--encoder", help="The encoder that made the vectors.")] = DEFAULT_ENCODER,
    embed: Annotated[str, typer.Option("--embed", help="Which vectors to take: image or text.")] = "image",
    images: Annotated[Path | None, typer.Option("--images", help="The folder below which the image files lie.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="How vectors are searched.")] = "Flat()",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is there.")] = False,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Make an index of vectors and metadata in clip-retrieval's layout; nothing is embedded again.

    \b
    Example:
      morgana index import embeddings/ --out photos.index --encoder 'OpenCLIP("ViT-B-32", "openai")' --images photos/
    """
    from morgana.interop.clip_retrieval import read

    by, way = inputs.encoder(encoder, device), inputs.kind_of("index", kind)
    describe(read(folder, by, out, embed=embed, images=images, kind=way, overwrite=overwrite), json)


def export_folder(
    folder: IndexFolder,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write.")],
    source: Annotated[
        str | None, typer.Option("--source", help="Only vectors of image or of text [default: all there are]")
    ] = None,
    json: AsJSON = False,
) -> None:
    """Write an index in clip-retrieval's layout: img_emb/, text_emb/, metadata/ and FAISS files.

    \b
    Example:
      morgana index export photos.index embeddings/
    """
    from morgana.index import Index
    from morgana.interop.clip_retrieval import write

    written = write(Index.open(folder), out, source=source)
    if json:
        say_json({"path": str(out), "documents": written})
    else:
        say(f"{out} holds {written} documents")


COMMANDS: dict[str, Callable[..., None]] = {"import": import_folder, "export": export_folder}
