"""`morgana index build|info|verify` and `morgana search`; what changes an index is in `changing`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morgana.cli import inputs
from morgana.cli.inputs import (
    Address,
    AsJSON,
    BatchSize,
    Device,
    EncoderSpec,
    EngineName,
    Gpus,
    ImageFile,
    IndexFolder,
    K,
    Stages,
)
from morgana.cli.output import HIT_HEADS, hit_json, hit_rows, resumable, say, say_json, table, tell

if TYPE_CHECKING:
    from morgana.index import Index
    from morgana.types import Encoder, Retriever

app = typer.Typer()
index = typer.Typer(no_args_is_help=True, help="Build, describe, check and change an index.")
app.add_typer(index, name="index")

DEFAULT_ENCODER = 'OpenCLIP("atlas")'


@index.command()
def build(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help=inputs.CORPUS)],
    out: Annotated[Path, typer.Option("--out", help="The index folder to write.")],
    encoder: Annotated[str, typer.Option("--encoder", help="What embeds documents and queries.")] = DEFAULT_ENCODER,
    kind: Annotated[str, typer.Option("--kind", help="How vectors are searched; `morgana list index`.")] = "Flat()",
    embed: Annotated[str, typer.Option("--embed", help="Of documents with both: text, image or both.")] = "text",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is there.")] = False,
    fold: Annotated[bool, typer.Option("--fold", help="Documents of equal text and image become one.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Of documents with one id the last is kept.")] = False,
    sparse: Annotated[bool, typer.Option("--sparse", help="Keep the words of texts too, for search by BM25.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on where a stopped build was, or begin anew.")] = True,
    engine: EngineName = "local",
    address: Address = None,
    gpus: Gpus = 0.0,
    batch_size: BatchSize = 64,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Embed a corpus and write an index; a build that was stopped goes on when called again.

    Of a document with text and image the text is embedded unless --embed says otherwise; its image is not opened then.

    \b
    Examples:
      morgana index build "Atlas(sites=240)" --out atlas.index
      morgana index build my-photos/ --out photos.index --embed image
      morgana index build my-corpus/ --out my.index --encoder 'OpenCLIP("ViT-B-32", "laion2b_s34b_b79k")'
      morgana index build 'Parquet("rows.parquet", text="caption")' --out rows.index --sparse --fold
      morgana index build my-corpus/ --out my.index --kind "Auto(memory='2GB', latency='10ms')"
      morgana index build my-corpus/ --out my.index --engine ray --address 10.0.0.1:6379 --gpus 1
    """
    with resumable("the same command goes on where it was"):
        from morgana.index import build as build_index
        from morgana.index.distributed import Distributed

        cluster = inputs.cluster(engine, address, gpus)
        made = build_index(
            inputs.corpus(corpus),
            inputs.encoder(encoder, device, batch_size),
            out,
            kind=inputs.kind_of("index", kind),
            embed=embed,
            batch_size=batch_size or 64,
            overwrite=overwrite,
            fold=fold,
            replace=replace,
            sparse=sparse,
            resume=resume,
            engine=Distributed(cluster) if cluster else None,
        )
    left_out = made.quarantine()
    for id, why in left_out[:3]:
        tell(f"left out {id}: {why}")
    if len(left_out) > 3:
        tell(f"and {len(left_out) - 3} more; list them: morgana index info {out} --quarantine")
    describe(made, json)


@index.command()
def info(
    folder: IndexFolder,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="List what was left out, and why, instead.")] = False,
    json: AsJSON = False,
) -> None:
    """Say what an index holds and what built it.

    \b
    Examples:
      morgana index info atlas.index --json
      morgana index info my.index --quarantine
    """
    from morgana.index import Index

    opened = Index.open(folder)
    if not quarantine:
        describe(opened, json)
    elif json:
        say_json([{"id": id, "reason": reason} for id, reason in opened.quarantine()])
    else:
        table("", ("left out", "why"), [[id, reason] for id, reason in opened.quarantine()])


@index.command()
def verify(folder: IndexFolder, json: AsJSON = False) -> None:
    """Check every byte of an index; the exit status is 1 if anything is wrong.

    \b
    Example:
      morgana index verify atlas.index
    """
    from morgana.index import verify as examine
    from morgana.index.verifying import mend
    from morgana.types import StoreError

    wrong = examine(folder)
    if json:
        say_json({"path": str(folder), "ok": not wrong, "wrong": wrong, "mend": mend(folder, wrong) if wrong else ""})
    if wrong:
        raise StoreError(f"{folder} is damaged: {'; '.join(wrong)}; {mend(folder, wrong)}")
    if not json:
        say(f"{folder} is whole")


@app.command()
def search(
    folder: IndexFolder,
    image: ImageFile = None,
    text: Annotated[str, typer.Option("--text", help="What to look for, in words.")] = "",
    k: K = 5,
    where: Annotated[
        str, typer.Option("--where", help="A filter by metadata: 'year >= 1980 and topic == \"x\"'.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="dense (vectors), sparse (words) or fused (both).")] = "dense",
    encoder: EncoderSpec = None,
    stage: Stages = None,
    batch_size: BatchSize = None,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Find the documents nearest to an image or a text.

    \b
    Examples:
      morgana search atlas.index --image tile.png
      morgana search atlas.index --text "who operates the harbour of Calmouth?" --k 3 --json
      morgana search atlas.index --image tile.png --where 'kind == "harbour" and topic in ("site", "weather")'
      morgana search my.index --text "Bluewater 1987" --by fused
    """
    from morgana.pipeline import Pipeline
    from morgana.types import SpecError

    if image is not None and text and by == "dense":
        raise SpecError("--image and --text are two searches; give one of them, or --by fused for an index with words")
    asked = inputs.query(text, image)
    opened, seen_by = open_index(folder, encoder, device, batch_size)
    pipeline = Pipeline(retriever(by, opened, seen_by, where), inputs.stages(stage))
    (hits,) = pipeline.refine([asked], pipeline.retrieve([asked], k))
    if json:
        say_json({"index": str(folder), "encoder": repr(seen_by), "k": k, "hits": hit_json(hits)})
    else:
        table("", HIT_HEADS, hit_rows(hits), right=(0, 1))
    tell_fewer(len(hits), k, opened, refined=bool(stage), chosen=bool(where) or by == "sparse")


def tell_fewer(count: int, k: int, opened: Index, *, refined: bool, chosen: bool = False) -> None:
    """Say why fewer than k documents were found: they did not match, or the index holds no more.

    `refined` by stages, fewer are no surprise; `chosen` are those that match a filter or the words.
    """
    held = opened.manifest.documents
    if chosen and count < k and not refined:
        tell(f"{documents(count)} {'matches' if count == 1 else 'match'}, fewer than the {k} that were asked for")
    elif k > held:
        tell(f"the index holds {documents(held)}, fewer than the {k} that were asked for")
    elif count < k and not refined:
        tell(f"{documents(count)} found, fewer than the {k} that were asked for")


def documents(count: int) -> str:
    return f"{count} document{'' if count == 1 else 's'}"


def retriever(by: str, opened: Index, seen_by: Encoder, where: str) -> Retriever:
    """What `--by` names; SpecError if it names nothing, or words are asked of a query or an index that has none."""
    from morgana.eval.bench import Lookup
    from morgana.retrieval.retrievers.fused import Fused
    from morgana.retrieval.retrievers.sparse import Sparse
    from morgana.types import SpecError

    dense, sparse = Lookup(opened, seen_by, where), Sparse(str(opened.path), where=where)
    known: dict[str, Retriever] = {"dense": dense, "sparse": sparse, "fused": Fused((dense, sparse))}
    if by not in known:
        raise SpecError(f"--by {by}; choose one of {', '.join(known)}")
    return known[by]


def open_index(
    folder: Path, encoder: str | None, device: str | None = None, batch_size: int | None = None
) -> tuple[Index, Encoder]:
    """The index, and the encoder that queries go through: the one that built it, with defenses around it or without."""
    from morgana.eval.experiment import bare
    from morgana.index import Index

    found = Index.open(folder)
    chosen = inputs.encoder(encoder or found.manifest.encoder, device, batch_size)
    return Index.open(folder, bare(chosen)), chosen


def describe(index: Index, json: bool) -> None:
    about = index.info()
    if json:
        say_json(about)
        return
    shown = ("path", "documents", "vectors", "quarantined", "dimension", "metric", "kind", "embed", "encoder", "corpus")
    for name in shown:
        say(f"{name:12} {about[name]}")
    if about["sparse"]:
        say(f"{'sparse':12} {about['sparse']}")
    say(f"{'segments':12} {len(about['segments'])}, generation {about['generation']}")
    for name in ("chosen", "recall@10", "latency_ms"):
        if name in about["measured"]:
            say(f"{name:12} {about['measured'][name]}")
    if about["measured"].get("fits") is False:
        say(f"{'fits':12} no: nothing that was tried keeps to the limits, this comes nearest; see --json")
    say(f"{'size':12} {about['bytes'] / 1e6:.2f} MB")
