"""The manifest of an index folder: what built it, which segments it holds, and the checksum that proves it.

It is the only file that changes. Writing it is the moment at which a change happens.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from morgana.index import _disk
from morgana.index.words import SCHEME
from morgana.types import Encoder, StoreError

FORMAT = 2
METRIC = "cosine"
NAME = "manifest.json"
TWICE = ("fold", "replace")
COUNTS = (("documents", "deleted"), ("vectors", "deleted_vectors"))
OPTIONAL = ("sparse", "twice")  # fields that are written only where they say something
SEGMENT = re.compile(r"[0-9]{6,12}")  # the generation that wrote it
TOMBSTONES = re.compile(r"[0-9]{6,12}-[0-9]{6,12}\.npy")  # segment, generation
LONGEST = 64 << 20  # bytes of a manifest


@dataclass(frozen=True)
class Entry:
    """One segment in a manifest, and which of its documents are deleted."""

    name: str
    documents: int  # in the segment, deleted ones included
    vectors: int
    quarantined: int
    sha256: str  # of its segment.json, which holds the checksums of its files
    deleted: int = 0  # documents
    deleted_vectors: int = 0
    tombstones: str = ""  # the file below tombstones/ that lists them; empty: none
    tombstones_sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything about an index that is not a document or a vector."""

    kind: str  # repr of the part that searches
    encoder: str  # repr of the part that embedded
    fingerprint: str  # of the encoder's weights and preprocessing
    image_size: int
    dimension: int
    metric: str  # METRIC
    embed: str  # what of a document is embedded: text, image or both
    corpus: str  # repr of the corpus; empty if the documents came from elsewhere
    documents: int  # that can be found
    vectors: int
    quarantined: int
    generation: int  # counts changes, from 1
    segments: tuple[Entry, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)  # what Auto measured
    twice: str = ""  # what the build did about documents that came twice: TWICE; empty: it refused them
    sparse: str = ""  # how texts are cut into words beside the vectors; empty: they are not
    format: int = FORMAT

    def commit(self, folder: Path) -> None:
        """Make this the folder's manifest: before, the old index is there; after, the new."""
        content = asdict(self)
        content["segments"] = [asdict(entry) for entry in self.segments]
        for name in OPTIONAL:
            if not content[name]:
                del content[name]
        content["checksum"] = checksum(content)
        _disk.replace(folder / NAME, encode(content))

    def rebuild(self, path: Path, encoder: str = "") -> str:
        """The command that builds the index again, or by another encoder."""
        options = f" --embed {self.embed}" if self.embed != "text" else ""
        options += f" --kind {shlex.quote(self.kind)}" if self.kind != "Flat()" else ""
        options += f" --{self.twice}" if self.twice else ""
        options += " --sparse" if self.sparse else ""
        return rebuild(encoder or self.encoder, path, self.corpus) + options

    @property
    def overwrite(self) -> str:
        """What a rebuilding command needs besides, and what it does not bring back."""
        untouched = len(self.segments) == 1 and not any(e.tombstones for e in self.segments)
        return " --overwrite" + (
            "" if untouched else " (what was added, replaced or deleted since is not in that corpus)"
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The names below `segments/` and `tombstones/` that belong to the index."""
        return (*(e.name for e in self.segments), *(e.tombstones for e in self.segments if e.tombstones))


def rebuild(encoder: str, path: Path, corpus: str = "") -> str:
    source = shlex.quote(corpus) if corpus else "CORPUS"
    return f"morgana index build {source} --encoder {shlex.quote(encoder)} --out {shlex.quote(str(path))}"


def checksum(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of the index `folder`; StoreError when there is none, it is newer or older, or it was changed."""
    path = folder / NAME
    if not folder.is_dir():
        raise StoreError(f"there is no index at {folder}{unfinished(folder)}")
    size = _disk.regular(path)
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and an index is read from its own folder; copy the index whole")
    if size is None:
        raise StoreError(f"{folder} is not an index, or half of one: it has no {NAME}{unfinished(folder)}")
    if size > LONGEST:
        raise StoreError(f"{path} has {size} bytes, at most {LONGEST} are read; rebuild the index")
    try:
        data = path.read_bytes()
        content = json.loads(data)
        same = data == encode(content)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError):
        why = "is not JSON" if data.strip() else "is empty"
        again = rebuild("ENCODER", folder) + " --overwrite"
        raise StoreError(f"{path} {why}; restore it from a copy, or rebuild the index: {again}") from None
    found = understood(content, folder)
    if not same:  # spaces too
        raise StoreError(f"{path} was changed after it was written; restore it, or rebuild the index")
    return found


def encode(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def understood(content: object, folder: Path) -> Manifest:
    """The manifest that a JSON value spells; StoreError if it spells none, or one that was changed."""
    path = folder / NAME
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise StoreError(f"{path} is not the manifest of an index; rebuild the index")
    if content["format"] != FORMAT:
        other = f"{folder} has format {str(content['format'])[:20]}, this Morgana reads format {FORMAT}"
        newer = content["format"] > FORMAT
        raise StoreError(f"{other}; {'upgrade Morgana, or rebuild' if newer else 'rebuild'} the index")
    if content.pop("checksum", None) != checksum(content):
        raise StoreError(f"{path} was changed after it was written; restore it, or rebuild the index")
    if why := misshapen(content):
        raise StoreError(f"{path} is not the manifest of an index: {why}; rebuild the index")
    return Manifest(**content | {"segments": tuple(Entry(**entry) for entry in content["segments"])})


TYPES: Mapping[str, type] = {"int": int, "str": str, "Mapping[str, Any]": dict, "tuple[Entry, ...]": list}


def misshapen(content: Mapping[str, Any]) -> str | None:
    """Which field is missing, too many, of another type, below zero, or names what is outside; None if none is."""
    if why := unlike(content, Manifest):
        return why
    if content.get("sparse", "") not in ("", SCHEME):
        return f"its texts are cut by {content['sparse'][:40]!r}, which this Morgana does not know"
    if content.get("twice", "") not in ("", *TWICE):
        return f"documents that came twice met {content['twice'][:40]!r}"
    if content["metric"] != METRIC or not content["generation"]:
        return f"its metric is {content['metric'][:40]!r} and its generation {content['generation']}"
    for entry in content["segments"]:
        if not isinstance(entry, dict):
            return "a segment is no object"
        if why := unlike(entry, Entry):
            return f"a segment's {why}"
        if not SEGMENT.fullmatch(entry["name"]) or (
            entry["tombstones"] and not TOMBSTONES.fullmatch(entry["tombstones"])
        ):
            return "it names a file that no index has"
        if entry["deleted"] > entry["documents"] or entry["deleted_vectors"] > entry["vectors"]:
            return "more is deleted than was there"
    names = [entry["name"] for entry in content["segments"]]
    if len(set(names)) < len(names):
        return "it names a segment twice"
    living = [sum(e[what] - e[gone] for e in content["segments"]) for what, gone in COUNTS]
    if living != [content[what] for what, _ in COUNTS]:
        return "it counts other documents or vectors than its segments hold"
    return None


def unlike(content: Mapping[str, Any], cls: type[Any]) -> str | None:
    wanted = {f.name: TYPES[str(f.type)] for f in fields(cls)}
    if not set(wanted) - set(OPTIONAL) <= set(content) <= set(wanted):
        return f"fields are not {', '.join(wanted)}"
    for name, kind in ((name, kind) for name, kind in wanted.items() if name in content):
        if type(content[name]) is not kind or (kind is int and content[name] < 0):
            return f"{name} is {str(content[name])[:40]!r}"
    return None


def unfinished(folder: Path) -> str:
    """What to do about a missing index, by whether a build of it was interrupted."""
    if staging(folder).is_dir():
        again = "run the same `morgana index build` again and it continues, or says why it cannot"
        return f"; its build was interrupted: {again}; `from_vectors` begins anew"
    return "; build it: morgana index build CORPUS --encoder ENCODER --out " + shlex.quote(str(folder))


def staging(folder: Path) -> Path:
    """Where a build works until it is done."""
    return folder.parent / f".{folder.name}.building"


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
    again = manifest.rebuild(path, repr(encoder)) + " --overwrite"
    raise StoreError(f"{what}; open it with the encoder that built it, or rebuild it: {again}")


def layers(encoder: Any) -> Iterator[Any]:
    """The encoder, what it wraps (its field `encoder`), and so on."""
    yield encoder
    if is_dataclass(encoder):
        for field in fields(encoder):
            if field.name == "encoder":
                yield from layers(getattr(encoder, field.name))
