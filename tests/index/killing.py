"""Kills a writer at every step, or at random instants: forks a process for each kill. Run as a script.

python killing.py FOLDER CHANGE:HOW...    HOW is all (before each of its steps), some (before every fifth of many),
                                          or a number (kill -9 at so many random instants)
-> JSON: how many kills there were, and what a user would find wrong after which.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from morgana.index import Index, add, build, compact, delete, upsert, verify
from morgana.index._disk import watcher
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import Document, StoreError

ENCODER = HashEncoder(dimension=16)
OLD = [Document(f"d{n}", f"text number {n}") for n in range(8)]
NEW = [Document(f"n{n}", f"new text {n}") for n in range(5)]
REPLACED = [Document("d3", "another three"), *NEW]


def make(path, documents=OLD, **options):
    build(documents, ENCODER, path, batch_size=4, seconds=0, progress=False, workers=1, sparse=True, **options)


CHANGES = {
    "build": lambda path: make(path),
    "rebuild": lambda path: make(path, NEW, overwrite=True),
    "add": lambda path: add(path, NEW, ENCODER, batch_size=2),
    "upsert": lambda path: upsert(path, REPLACED, ENCODER, batch_size=2),
    "delete": lambda path: delete(path, ["d1", "d5"]),
    "compact": lambda path: compact(path),
}


def prepare(path, change):
    """The index that a change begins with."""
    if change != "build":
        make(path)
        delete(path, ["d7"])
        add(path, [Document("e", "an extra one")], ENCODER)


def content(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def held(path):
    return {d.id: d.text for d in Index.open(path, ENCODER).documents()}


def killed(path, change, number):
    """Whether a child was killed before its step `number`; it may have fewer."""
    child = os.fork()
    if not child:
        left = [number]

        def watch(step):
            left[0] -= 1
            if not left[0]:
                os._exit(9)

        watcher.set(watch)
        try:
            CHANGES[change](path)
        finally:
            os._exit(0 if left[0] > 0 else 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def wrong_after(path, change, before, after, whole):
    """What a user would find wrong with a folder after the kill, and after the change was asked for again."""
    if change != "build" or (path / "manifest.json").exists():
        if (now := held(path)) not in (before, after):
            return f"it holds {now}"
        if found := verify(path):
            return f"it is damaged: {found}"
    else:
        try:
            Index.open(path)
            return "half an index was opened"
        except StoreError:
            now = before
    if now != after or change in ("rebuild", "compact"):
        CHANGES[change](path)
    if held(path) != after or verify(path):
        return f"done again, it holds {held(path)}: {verify(path)}"
    differing = [name for name, data in whole.items() if content(path).get(name) != data]  # it may hold leftovers
    if change in ("build", "add", "upsert", "delete") and differing:
        return f"done again, it differs in {differing}"
    return None


def every_kill(folder, change, stride):
    folder.mkdir()
    start, path = folder / "start", folder / "index"
    prepare(start, change)
    before = held(start) if start.exists() else {}
    if start.exists():
        shutil.copytree(start, folder / "whole")
    CHANGES[change](folder / "whole")
    after, whole, wrong, number = held(folder / "whole"), content(folder / "whole"), [], 1
    while True:
        for old in (path, folder / ".index.building"):
            shutil.rmtree(old, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, path)
        if not killed(path, change, number):
            return {"kills": number // stride, "wrong": wrong}
        if why := wrong_after(path, change, before, after, whole):
            wrong.append(f"killed before step {number}: {why}")
        number += stride


def at_random(folder, change, times):
    """Kill -9 at `times` instants, drawn evenly over the time that the change takes; a build of some hundred documents.

    The process is forked from this one, so that no instant falls into Python's imports.
    """
    folder.mkdir()
    start, path, draw = folder / "start", folder / "index", random.Random(change)
    size = 300 if times > 10 else 60
    many = [Document(f"d{n}", f"text number {n}") for n in range(size)]
    if change != "build":
        make(start, many)
    before = held(start) if start.exists() else {}
    if start.exists():
        shutil.copytree(start, folder / "whole")
    done = {
        "build": lambda path: make(path, many),
        "add": lambda path: add(path, [Document(f"n{n}", f"new {n}") for n in range(size)], ENCODER, batch_size=8),
        "delete": lambda path: delete(path, [f"d{n}" for n in range(0, size, 3)]),
        "compact": lambda path: compact(path),
    }
    CHANGES[change] = done[change]
    CHANGES[change](folder / "whole")
    after, whole = held(folder / "whole"), content(folder / "whole")
    seconds, landed, wrong = timed(path, start, change), 0, []
    for number in range(times):
        fresh(path, start)
        instant = draw.uniform(0, seconds)
        landed += shot(path, change, instant)
        if why := wrong_after(path, change, before, after, whole):
            wrong.append(f"kill {number}, {instant:.4f} s after the start: {why}")
    return {"kills": landed, "seconds": seconds, "wrong": wrong}


def fresh(path, start):
    """What the change begins with."""
    for old in (path, path.parent / ".index.building"):
        shutil.rmtree(old, ignore_errors=True)
    if start.exists():
        shutil.copytree(start, path)


def timed(path, start, change):
    """Seconds that the change takes in a process of its own, the shortest of three."""
    found = []
    for _ in range(3):
        fresh(path, start)
        begun = time.monotonic()
        shot(path, change, 600)
        found.append(time.monotonic() - begun)
    return min(found)


def shot(path, change, seconds):
    """Start the change in a process and kill it after some time; whether it was still at work."""
    child = os.fork()
    if not child:
        code = 1
        try:
            CHANGES[change](path)
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, _ = os.waitpid(child, os.WNOHANG)
        if found:
            return False
        time.sleep(0.0002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    told = {}
    for word in sys.argv[2:]:
        change, how = word.split(":")
        place = Path(sys.argv[1]) / f"{change}-{how}"
        stride = 5 if how == "some" and change in ("build", "rebuild") else 1
        told[word] = at_random(place, change, int(how)) if how.isdigit() else every_kill(place, change, stride)
    sys.stdout.write(json.dumps(told))
