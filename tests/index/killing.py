"""Kills a writer at every step: forks a process for each, and says what its folder holds then. Run as a script.

python killing.py FOLDER [CHANGE...] -> JSON: the steps of each change, and what was wrong after a kill before which.
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
OLD = [Document(f"d{n}", f"text number {n}") for n in range(12)]
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


def every_kill(folder, change):
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
            return {"steps": number - 1, "wrong": wrong}
        if why := wrong_after(path, change, before, after, whole):
            wrong.append(f"killed before step {number}: {why}")
        number += 1


def go_on(path, number):
    """Add three, delete one of them, compact now and then; for ever."""
    while True:
        add(path, [Document(f"a{number}-{i}", f"added {number} {i}") for i in range(3)], ENCODER)
        delete(path, [f"a{number}-1"])
        if number % 3 == 2:
            compact(path)
        number += 1


def rounds(path):
    """What each round of `go_on` has left, and what is wrong with it: all but the last must be whole."""
    names = list(held(path))
    found = {}
    for number, i in (name[1:].split("-") for name in names if name.startswith("a")):
        found.setdefault(int(number), set()).add(int(i))
    whole = [found.get(number) == {0, 2} for number in range(len(found) - 1)]
    last = found.get(len(found) - 1, {0, 2})
    right = all(whole) and last in ({0, 2}, {0, 1, 2}) and {d.id for d in OLD} <= set(names)
    return found, [] if right else [f"the rounds are {found}"]


def random_kills(path, times):
    """Kill a process that changes an index again and again, at any time, while this one reads."""
    make(path)
    draw, wrong, number = random.Random(0), [], 0
    for _ in range(times):
        child = os.fork()
        if not child:
            go_on(path, number)
        until = time.monotonic() + draw.uniform(0.05, 0.4)
        while time.monotonic() < until:
            wrong += rounds(path)[1]  # a reader during every change
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found, bad = rounds(path)
        wrong += bad + verify(path)
        number = len(found)
        if {0, 1, 2} in found.values():
            delete(path, [f"a{number - 1}-1"])
    return {"rounds": number, "wrong": wrong[:5]}


if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or [*CHANGES, "random"]
    told = {change: every_kill(folder / change, change) for change in chosen if change != "random"}
    if "random" in chosen:
        told["random"] = random_kills(folder / "random", 20)
    sys.stdout.write(json.dumps(told))
