"""Files that are written whole or not at all, folders with one writer, checksums, and JSON lines with line numbers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from morgana.types import StoreError

LONGEST_TEXT = 200_000  # characters; a longer text is not one document


def cache(name: str) -> Path:
    """Where Morgana keeps what it can make again: below MORGANA_CACHE, or the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MORGANA_CACHE") or Path(home) / "morgana") / name


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the system's refusals (no space, no permission, …) inside the block into a StoreError about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {reason}; free some space or choose another place") from error


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, and leaves nothing behind when it does not."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    with writing(path) as file:
        file.write(content)


@contextmanager
def locked(folder: Path, what: str = "is writing to") -> Iterator[None]:
    """The folder, made if need be, to one process alone; the system frees it when that process dies.

    The lock is on the folder itself, so no file is left behind. Readers never take it.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), os.stat(folder))  # not removed by its last holder meanwhile
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise StoreError(f"another process {what} {folder}; wait for it, or stop it")
        yield
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the file with its place, `FILE:LINE`, for error messages; empty lines are skipped.

    Raises StoreError for a missing file, a line that is not a JSON object, and text that is not UTF-8.
    """
    return ((place, json_object(line, place)) for place, line in lines(path))


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line that is not empty with its place; StoreError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def json_object(line: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place} is not JSON in UTF-8: {error}; write one object a line") from None
    if not isinstance(value, dict):
        raise StoreError(f"{place} holds a {type(value).__name__}; write one JSON object a line")
    return value


def unfit(text: str) -> str | None:
    """Why a text cannot be indexed or asked (NUL, too long, lone surrogates); None if it can."""
    if len(text) > LONGEST_TEXT:
        return f"the text has {len(text)} characters, at most {LONGEST_TEXT} are taken; split it"
    return ill_formed(text)


def ill_formed(text: str) -> str | None:
    if "\0" in text:
        return f"the text has a NUL character at {text.index(chr(0))}; remove it"
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return "the text has lone surrogates, which UTF-8 cannot hold; repair its encoding"
    return None


def inside(root: Path, name: object, place: str) -> Path:
    """`root/name`, which must stay below `root` after links are followed; StoreError naming `place` if not."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise StoreError(f"{place}: the image path is {name!r}; write a path relative to {root}")
    path = root / name
    try:
        out = Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # lone surrogates, links in a circle
        raise StoreError(f"{place}: the image path {name!r} cannot be one: {error}; name a file below {root}") from None
    if out:
        raise StoreError(f"{place}: the image {name!r} lies outside {root}; keep images below the corpus folder")
    return path
