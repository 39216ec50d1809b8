"""The manifest of an index folder: what built it, what it holds, and the checksums that prove it."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from morgana.files import sha256, write_bytes
from morgana.types import Encoder, StoreError

FORMAT = 1
NAME = "manifest.json"
FILES = ("documents.sqlite", "vectors.npy", "vectors.faiss", "quarantine.jsonl")
SMALL = 4 << 20  # bytes; larger files have their checksum compared by `verify` only


@dataclass(frozen=True)
class Manifest:
    """Everything about an index that is not a document or a vector."""

    kind: str  # repr of the part that searches
    encoder: str  # repr of the part that embedded
    fingerprint: str  # of the encoder's weights and preprocessing
    image_size: int
    dimension: int
    metric: str  # always "cosine"
    embed: str  # what of a document is embedded: text, image or both
    corpus: str  # repr of the corpus; empty if the documents came from elsewhere
    documents: int
    vectors: int
    quarantined: int
    files: Mapping[str, Mapping[str, Any]]  # name -> {"bytes", "sha256"}
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        content = asdict(self)
        content["checksum"] = checksum(content)
        write_bytes(folder / NAME, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def rebuild(self, path: Path) -> str:
        """The command that builds the index again."""
        return rebuild(self.encoder, path, self.corpus)


def rebuild(encoder: str, path: Path, corpus: str = "") -> str:
    source = shlex.quote(corpus) if corpus else "CORPUS"
    return f"morgana index build {source} --encoder {shlex.quote(encoder)} --out {shlex.quote(str(path))}"


def checksum(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of each file of an index."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in FILES}


def read(folder: Path) -> Manifest:
    """The manifest of the index `folder`; StoreError when there is none, it is newer, or it was changed."""
    path = folder / NAME
    if not folder.is_dir():
        raise StoreError(f"there is no index at {folder}{unfinished(folder)}")
    if not path.is_file():
        raise StoreError(f"{folder} is not an index, or half of one: it has no {NAME}{unfinished(folder)}")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}; rebuild the index") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise StoreError(f"{path} is not the manifest of an index; rebuild the index")
    if content["format"] > FORMAT:
        newer = f"{folder} has format {content['format']}, this Morgana reads up to {FORMAT}"
        raise StoreError(f"{newer}; upgrade Morgana, or rebuild the index")
    if content.pop("checksum", None) != checksum(content) or not fits(content):
        raise StoreError(f"{path} was changed after it was written; restore it, or rebuild the index")
    return Manifest(**content)


def fits(content: Mapping[str, Any]) -> bool:
    """Every field is there, of its type."""
    kinds = {"int": int, "str": str}
    wanted = {f.name: kinds.get(str(f.type), dict) for f in fields(Manifest)}
    return set(content) == set(wanted) and all(isinstance(content[name], kind) for name, kind in wanted.items())


def unfinished(folder: Path) -> str:
    """What to do about a missing index, by whether a build of it was interrupted."""
    if staging(folder).is_dir():
        return "; its build was interrupted: run the same `morgana index build` again and it continues"
    return "; build it: morgana index build CORPUS --encoder ENCODER --out " + shlex.quote(str(folder))


def staging(folder: Path) -> Path:
    """Where a build works until it is done."""
    return folder.parent / f".{folder.name}.building"


def check_files(folder: Path, manifest: Manifest, *, every: bool) -> list[str]:
    """What is wrong with the files: missing, of another size, or with another checksum (large files if `every`)."""
    wrong = []
    for name in FILES:
        path, noted = folder / name, manifest.files.get(name, {})
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != noted.get("bytes"):
            wrong.append(f"{name} has {path.stat().st_size} bytes, the manifest says {noted.get('bytes')}")
        elif (every or path.stat().st_size <= SMALL) and sha256(path) != noted.get("sha256"):
            wrong.append(f"{name} was changed after it was written")
    return wrong


def check_encoder(path: Path, manifest: Manifest, encoder: Encoder) -> None:
    """StoreError unless the encoder's weights are those that built the index; its name may differ.

    Equal fingerprints mean equal vectors, so the same weights in another folder are the same encoder. An encoder
    around the one that built the index (a defense) embeds in the same space, so it may search it too.
    """
    if any(one.fingerprint == manifest.fingerprint for one in layers(encoder)):
        return
    if repr(encoder) == manifest.encoder:
        what = f"{path} was built with {manifest.encoder} when its weights were others ({manifest.fingerprint[:12]}"
        what += f", now {encoder.fingerprint[:12]})"
    else:
        what = f"{path} was built with {manifest.encoder}, not with {encoder!r}"
    again = rebuild(repr(encoder), path, manifest.corpus) + " --overwrite"
    raise StoreError(f"{what}; open it with the encoder that built it, or rebuild it: {again}")


def layers(encoder: Any) -> Iterator[Any]:
    """The encoder, what it wraps (its field `encoder`), and so on."""
    yield encoder
    if is_dataclass(encoder):
        for field in fields(encoder):
            if field.name == "encoder":
                yield from layers(getattr(encoder, field.name))
