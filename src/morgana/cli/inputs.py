"""Options that several commands share, and how their text becomes parts, corpora and queries."""

from __future__ import annotations

import os
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from morgana.cluster import Cluster
    from morgana.types import Corpus, Encoder, Generator, Query, Stage

CORPUS = (
    "A folder with corpus.jsonl, of images with captions beside them, of Parquet files or of tars; one such file; or a "
    "corpus by its spec, `morgana list corpus`."
)
IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that `morgana index build` made.")]
ImageFile = Annotated[Path | None, typer.Option("--image", help="An image file (PNG, JPEG, WebP, TIFF, …).")]
EncoderSpec = Annotated[
    str | None,
    typer.Option("--encoder", help="An encoder, such as a Smoothed(…) around the index's own [default: its own]."),
]
GeneratorSpec = Annotated[str, typer.Option("--generator", help="A generator: HF(MODEL), a folder or hub name.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage that refines the hits; may be repeated.")]
K = Annotated[int, typer.Option("--k", min=1, help="How many documents to retrieve.")]
Seed = Annotated[int, typer.Option("--seed", help="Where all randomness comes from.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, … [default: CUDA if there is any]")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Samples at once; takes memory, changes no result.")
]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray: the workers of a Ray cluster.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Of a Ray cluster [default: RAY_ADDRESS, or one on this machine].")
]
Gpus = Annotated[float, typer.Option("--gpus", min=0, help="GPUs that each worker of --engine ray takes.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text.")]


def corpus(text: str) -> Corpus:
    """A corpus by its spec, or by its path: a Parquet file, a tar, or a folder of these, of images, or BEIR-style."""
    from morgana.spec import components, nearest, registry
    from morgana.types import SpecError, StoreError

    if name := kept_as(Path(text)):
        made: Corpus = registry()[name](root=text)
        return made
    if Path(text).is_file():
        raise StoreError(f"{text!r} is neither a Parquet file nor a tar; name the folder that holds the documents")
    if not re.match(r"\s*[A-Za-z_]\w*\s*(\(|$)", text):
        raise StoreError(f"there is no corpus folder {text!r}; name a folder, or a corpus such as Atlas(sites=240)")
    if text.isidentifier() and text not in registry():
        near = nearest(text, [cls.__name__ for cls in components("corpus")])
        raise StoreError(f"there is no file or folder {text!r}, and no corpus of that name{near}; try Atlas(sites=240)")
    found: Corpus = kind_of("corpus", text)
    if not hasattr(found, "documents"):
        raise SpecError(f"{found!r} is no corpus; `morgana list corpus` shows those there are")
    return found


def kept_as(path: Path) -> str | None:
    """Which corpus reads what is at the path; None if nothing is there. StoreError for a folder that two would read."""
    from morgana.types import StoreError

    if path.is_file():
        return {".parquet": "Parquet", ".tar": "WebDataset", ".gz": "WebDataset"}.get(path.suffix.lower())
    if not path.is_dir():
        return None
    if (path / "corpus.jsonl").exists():
        return "JSONLines"
    sorts = (("*.parquet", "Parquet"), ("*.tar*", "WebDataset"))
    if not any(next(path.glob(pattern), None) for pattern, _ in sorts):
        return "ImageFolder"
    held = {name: found for pattern, name in sorts if (found := next(path.rglob(pattern), None))}
    if len(held) > 1:
        named = " and ".join(map(str, held.values()))
        raise StoreError(f"{path} holds {named}; build from one sort of files and `morgana index add` the other")
    return next(iter(held))


def kind_of(kind: str, text: str, device: str | None = None, batch_size: int | None = None) -> Any:
    """The part that `text` spells, which must be of `kind` (or a defense around one); SpecError if it is not."""
    from morgana.spec import components, parse
    from morgana.types import SpecError

    settle(device)
    made = parse(text)
    if not isinstance(made, (*components(kind), *components("defense"))):
        raise SpecError(f"{text!r} is no {kind}; `morgana list {kind}` shows those there are")
    return placed(made, device=device, batch_size=batch_size)


def settle(device: str | None) -> None:
    """Run encoders there in this process; SpecError for what is no device, or a GPU that is not here."""
    from morgana.types import SpecError

    if device is None:
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(". ")[0][:120]
        raise SpecError(
            f"--device {device} cannot be used: {reason}; try cpu, or cuda on a machine with a GPU"
        ) from None
    os.environ["MORGANA_DEVICE"] = device


def placed(part: Any, **settings: Any) -> Any:
    """The part, and the parts inside it, with settings such as the device where they take them; None leaves alone."""
    if isinstance(part, tuple):
        return tuple(placed(p, **settings) for p in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    inner = {f.name: placed(getattr(part, f.name), **settings) for f in fields(part) if f.init}
    wanted = {k: v for k, v in settings.items() if v is not None and k in inner}
    changed = {k: v for k, v in (inner | wanted).items() if v is not getattr(part, k)}
    return replace(part, **changed) if changed else part


def encoder(text: str, device: str | None = None, batch_size: int | None = None) -> Encoder:
    made: Encoder = kind_of("encoder", text, device, batch_size)
    return made


def generator(text: str, device: str | None = None, batch_size: int | None = None) -> Generator:
    made: Generator = kind_of("generator", text, device, batch_size)
    return made


def stages(texts: list[str] | None) -> tuple[Stage, ...]:
    return tuple(kind_of("stage", text) for text in texts or ())


def cluster(engine: str, address: str | None, gpus: float = 0.0) -> Cluster | None:
    """The cluster that `--engine ray` names; None for the local engine."""
    from morgana.cluster import Cluster
    from morgana.spec import nearest
    from morgana.types import SpecError

    if engine not in ("local", "ray"):
        raise SpecError(f"--engine {engine}{nearest(engine, ['local', 'ray'])}; there are local and ray")
    if engine == "local" and (address or gpus):
        raise SpecError("--address and --gpus are for workers of a cluster; add --engine ray")
    return Cluster(address, gpus=gpus) if engine == "ray" else None


def query(text: str, image: Path | None, *, needs_text: bool = False) -> Query:
    """What was asked; StoreError for an image that cannot be read, SpecError for a text that cannot be asked."""
    from morgana.corpus.images import load
    from morgana.files import unfit
    from morgana.types import Query, SpecError

    if image is not None:
        load(image)
    if why := unfit(text):
        raise SpecError(f"the question cannot be asked: {why}")
    if not text.strip() and (image is None or needs_text):
        if needs_text:
            raise SpecError("the question is empty; ask something about the image")
        raise SpecError("nothing to look for; give --image FILE, a text, or both")
    return Query(image.stem if image else "question", text, image)
