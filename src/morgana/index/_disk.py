"""Durable writing: what was synced stays after a power cut, and every step can be watched by a test.

A step is announced just before it happens, so that whoever ends the process there leaves the disk as a kill would.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from morgana.files import storing
from morgana.types import StoreError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?")  # of a file in a segment

watcher: ContextVar[Callable[[str], None] | None] = ContextVar("watcher", default=None)


def step(what: str) -> None:
    """Tell the watcher, if there is one, what comes next."""
    if watch := watcher.get():
        watch(what)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    step(f"sync {path.name}")
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, content: bytes) -> None:
    """A small file that is on disk when this returns; its name is once its folder is synced."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        step(f"write {path.name}")
        path.write_bytes(content)
        sync(path)


def replace(path: Path, content: bytes) -> None:
    """Give `path` new content at once: a reader sees the old or the new, also after a power cut."""
    part = path.parent / f".{path.name}.part"
    try:
        write(part, content)
        rename(part, path)
    except StoreError:
        part.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    with storing(target):
        step(f"rename {target.name}")
        os.replace(source, target)
        step(f"renamed {target.name}")
        sync(target.parent)


def remove(path: Path) -> None:
    """A file, a folder with all in it, or a link (never what it leads to); nothing is no error."""
    step(f"remove {path.name}")
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def plain(folder: Path, name: object, place: str) -> Path:
    """`folder/name` for a name that was read from disk: well formed, and no link anywhere below `folder`.

    Raises StoreError naming `place` for `..`, absolute paths, links and whatever else is no plain name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise StoreError(f"{place} names {str(name)[:80]!r}, which is no plain file name; nothing there was touched")
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            raise StoreError(f"{path} is a link; an index holds none: put the file itself there, or rebuild the index")
    return path


def regular(path: Path) -> int | None:
    """The size in bytes of a regular file; None for anything else."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
