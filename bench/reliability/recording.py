"""What a process did to the files of a folder, and what a disk may hold of it after a power cut.

`recorder.c`, loaded before the C library, logs every write, size, name and sync. `Recording` reads
such a log, on top of what the folder held before, and makes images of any moment that is in it.

What an image may hold, and no less:

- A write or a new size is *durable* once a sync of that file that began after it has returned, or
  when it returned itself where the file was opened with O_SYNC or O_DSYNC. Everything else that had
  begun may be dropped, whole or in part: in units of 512 or 4096 bytes, at their borders in the
  file, each there or not. Of writes that are not durable, later ones may arrive before earlier
  ones. A file may have grown without what was written there: zeros.
- A name that was made, moved or removed is durable once a sync of its folder that began after it
  has returned. Until then three file systems are modelled: one where each such change is there or
  not, independent of the others ("loose"); one that has them in order, and has all of them up to
  the last sync of any file ("journal"); one that has them at once ("at once"). A rename is there
  whole or not at all.
- A sector of 512 bytes is old or new.
"""

import bisect
import ctypes
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.harness import ROOT
from bench.reliability import builds

SOURCE = Path(__file__).with_name("recorder.c")
EVENT = struct.Struct("<QIIqIIII")
WRITE, SIZE, SYNC, CREATE, RENAME, UNLINK, MAKE_FOLDER, REMOVE_FOLDER, LINK, MAP = range(1, 11)
END, MARK = 100, 101
NAMES = (CREATE, RENAME, UNLINK, MAKE_FOLDER, REMOVE_FOLDER, LINK)
SYNCED = 1
NEVER = 1 << 62  # the place of an end that is not in the log
SECTOR, PAGE = 512, 4096
GONE = " (deleted)"  # what Linux adds to the path of a file that has no name any more

Tree = dict[str, bytes | None]  # path from the root → content; None is a folder

PATTERNS = (
    "none", "all", "some", "one", "all but one", "order", "sectors", "pages", "ends", "zeros",
)  # fmt: skip
ORDERS = ("loose", "journal", "at once")


# -------------------------------------------------------------------------------- running under it


def why_not() -> str:
    """Why nothing can be recorded here; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "the recorder needs Linux"
    if shutil.which(builds.compiler()) is None:
        return "there is no C compiler"
    if builds.is_sanitized():
        return "AddressSanitizer wants to be loaded first"
    return ""


def build(folder: Path) -> Path:
    """Compile the recorder into `folder`."""
    library = folder / "recorder.so"
    command = [builds.compiler(), "-shared", "-fPIC", "-O1", "-std=c11", "-Wall", "-Wextra"]
    command += [str(SOURCE), "-o", str(library), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def run_under(arguments: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run Python with `arguments` and the recorder, which is built in `folder`."""
    settings = {**os.environ, "LD_PRELOAD": str(build(folder)), "PYTHONDONTWRITEBYTECODE": "1"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run([sys.executable, *arguments], env=settings)


def recorder() -> Any:
    """The recorder in this process. Raises `RuntimeError` where it was not loaded."""
    library = ctypes.CDLL(None)
    try:
        library.recorder_start.argtypes = [ctypes.c_char_p, ctypes.c_int]
        library.recorder_mark.argtypes = [ctypes.c_int64]
    except AttributeError:
        raise RuntimeError("the recorder is not loaded: run this with `run_under`") from None
    return library


def recorded(root: Path, log: Path, work: Callable[[Callable[[int], None]], None]) -> None:
    """Run `work` in this process and log what it does below `root`; it is given what sets marks."""
    library = recorder()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    library.recorder_start(os.fsencode(root), file)
    try:
        work(library.recorder_mark)
    finally:
        library.recorder_start(None, -1)
        os.close(file)


def read_tree(root: Path) -> Tree:
    """All that lies below `root`."""
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        tree[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    return tree


def write_tree(tree: Tree, root: Path) -> None:
    """Make `root` and put `tree` there."""
    root.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


# ---------------------------------------------------------------------------------------- the log


@dataclass
class Event:
    """One call: where it begins and ends in the log, and what it said."""

    kind: int
    flags: int
    offset: int
    path: str
    other: str
    data: bytes
    begin: int
    end: int = NEVER
    result: int = 0


@dataclass
class Change:
    """A write or a size of one file."""

    event: Event
    durable: int  # the place in the log from which it is

    @property
    def begin(self) -> int:
        return self.event.begin


@dataclass
class File:
    """One file, whatever it is called: what it held at first, and what was done to it."""

    base: bytes = b""
    changes: list[Change] = field(default_factory=list)
    syncs: list[Event] = field(default_factory=list)


@dataclass
class NameChange:
    """A change of names: what each of `sets` leads to from then on, None for nothing."""

    event: Event
    sets: list[tuple[str, "File | str | None"]]  # "folder" for a folder
    durable: int = NEVER


class Recording:
    """A log of what was done below `root`, which held `base` before."""

    def __init__(self, log: bytes, root: Path, base: Tree) -> None:
        self.base = base
        self._prefix = str(root)
        self.events, self.marks, self.length = self._parse(log)
        self.files: list[File] = []
        self.names: list[NameChange] = []
        self.mapped: set[str] = set()  # written through shared memory, which is not seen
        self._base_names: dict[str, File | str | None] = {}
        self._replay()
        self._places = sorted(self._pending_places())
        self._deciding = [
            event.begin
            for event in self.events
            if event.kind == SYNC or event.kind in NAMES or event.flags & SYNCED
        ]

    def _parse(self, log: bytes) -> tuple[list[Event], list[tuple[int, int]], int]:
        events: list[Event] = []
        marks: list[tuple[int, int]] = []  # place, number
        open_calls: dict[int, Event] = {}
        at = place = 0
        while at < len(log):
            number, kind, flags, offset, path, other, data, _ = EVENT.unpack_from(log, at)
            at += EVENT.size
            parts = []
            for size in (path, other, data):
                parts.append(log[at : at + size])
                at += size
            if kind == MARK:
                marks.append((place, offset))
            elif kind == END:
                event = open_calls.pop(number)
                event.end, event.result = place, offset
            else:
                names = [self._name(part.decode()) for part in parts[:2]]
                event = Event(kind, flags, offset, names[0], names[1], parts[2], place)
                events.append(event)
                open_calls[number] = event
            place += 1
        return [event for event in events if event.result >= 0], marks, place

    def _name(self, path: str) -> str:
        """A path from the root on."""
        return path[len(self._prefix) :].strip("/") if path.startswith(self._prefix) else path

    def _replay(self) -> None:
        """Sort events by the file they are of, and find from where on each is durable."""
        names = self._base_names
        for name, content in self.base.items():
            names[name] = "folder" if content is None else self._file(content)
        now = dict(names)
        folder_syncs: dict[str, list[Event]] = {}
        syncs: list[Event] = []
        for event in self.events:
            found = now.get(event.path)
            if event.path.endswith(GONE):
                continue
            if event.kind in (WRITE, SIZE):
                if not isinstance(found, File):
                    raise ValueError(f"a write to {event.path}, which nothing has made")
                if event.kind == WRITE:
                    event.data = event.data[: event.result if event.end < NEVER else None]
                durable = event.end if event.flags & SYNCED else NEVER
                found.changes.append(Change(event, durable))
            elif event.kind == SYNC:
                syncs.append(event)
                if isinstance(found, File):
                    found.syncs.append(event)
                else:
                    folder_syncs.setdefault(event.path, []).append(event)
            elif event.kind == MAP:
                self.mapped.add(event.path)
            else:
                named = NameChange(event, self._sets(event, now))
                self.names.append(named)
                for name, to in named.sets:
                    if to is None:
                        now.pop(name, None)
                    else:
                        now[name] = to
        for file in self.files:
            for change in file.changes:
                change.durable = min(change.durable, _synced(change.event, file.syncs))
        for named in self.names:
            parent = str(Path(named.event.other or named.event.path).parent)
            named.durable = _synced(
                named.event, folder_syncs.get("" if parent == "." else parent, [])
            )
        self.all_syncs = syncs

    def _file(self, base: bytes = b"") -> File:
        self.files.append(File(base))
        return self.files[-1]

    def _sets(
        self, event: Event, now: dict[str, "File | str | None"]
    ) -> list[tuple[str, "File | str | None"]]:
        if event.kind == CREATE:
            return [(event.path, self._file())]
        if event.kind == MAKE_FOLDER:
            return [(event.path, "folder")]
        if event.kind in (UNLINK, REMOVE_FOLDER):
            return [(event.path, None)]
        if event.kind == LINK:
            return [(event.other, now[event.path])]
        return [(event.other, now[event.path]), (event.path, None)]  # RENAME

    def _pending_places(self) -> set[int]:
        """The places of the log where something has begun that is not durable."""
        found: set[int] = set()
        changes: list[tuple[int, int]] = [
            (change.begin, change.durable) for file in self.files for change in file.changes
        ]
        changes += [(named.event.begin, named.durable) for named in self.names]
        for begin, durable in changes:
            found.update(range(begin, min(durable, self.length, begin + 200)))
        return found

    # -- images ---------------------------------------------------------------------------------

    def last(self) -> Tree:
        """What was there at the end, all of it."""
        return self._tree(self.length, lambda changes: [(c, None) for c in changes], self.names)

    def place(self, chance: random.Random) -> int:
        """A place to cut the power at: where something is not durable, beside a call that decides
        over that, or anywhere."""
        draw = chance.random()
        if self._places and draw < 0.5:
            return chance.choice(self._places)
        if self._deciding and draw < 0.9:
            return min(chance.choice(self._deciding) + chance.randint(0, 2), self.length - 1)
        return chance.randrange(self.length)

    def image(self, place: int, pattern: str, order: str, chance: random.Random) -> Tree:
        """What the disk may hold if the power is cut after the event at `place`."""
        return self._tree(
            place,
            lambda changes: _kept(changes, place, pattern, chance),
            self._kept_names(place, pattern, order, chance),
        )

    def _kept_names(
        self, place: int, pattern: str, order: str, chance: random.Random
    ) -> list[NameChange]:
        begun = [named for named in self.names if named.event.begin <= place]
        if order == "at once" or pattern == "all":
            return begun
        if order == "loose":
            share = 0.0 if pattern == "none" else chance.choice([0.2, 0.5, 0.8])
            return [n for n in begun if n.durable <= place or chance.random() < share]
        least = 0
        for sync in self.all_syncs:
            if sync.end <= place:
                least = max(least, bisect.bisect([n.event.end for n in begun], sync.begin))
        return begun[: least if pattern == "none" else chance.randint(least, len(begun))]

    def _tree(
        self,
        place: int,
        keep: Callable[[list[Change]], list[tuple[Change, list[tuple[int, int]] | None]]],
        names: Sequence[NameChange],
    ) -> Tree:
        there = dict(self._base_names)
        for named in names:
            for name, to in named.sets:
                if to is None:
                    there.pop(name, None)
                else:
                    there[name] = to
        tree: Tree = {}
        contents: dict[int, bytes] = {}
        for name, to in there.items():
            if not isinstance(to, File):
                tree[name] = None
                continue
            if id(to) not in contents:
                begun = [change for change in to.changes if change.begin <= place]
                contents[id(to)] = _content(to.base, keep(begun))
            tree[name] = contents[id(to)]
        return {name: tree[name] for name in tree if _reachable(name, tree)}


def _reachable(name: str, tree: Tree) -> bool:
    """Whether the folders that lead to a name are there."""
    parents = [str(parent) for parent in Path(name).parents][:-1]
    return all(parent in tree for parent in parents)


def _synced(event: Event, syncs: Sequence[Event]) -> int:
    """The place from which an event is durable by one of `syncs`."""
    ends = [sync.end for sync in syncs if sync.begin > event.end]
    return min(ends, default=NEVER)


def _kept(
    changes: list[Change], place: int, pattern: str, chance: random.Random
) -> list[tuple[Change, list[tuple[int, int]] | None]]:
    """Which changes of one file arrived, in what order, and of each which ranges (None: all)."""
    loose = [i for i, change in enumerate(changes) if change.durable > place]
    share = chance.choice([0.1, 0.5, 0.9])
    one = chance.choice(loose) if loose else -1
    unit = PAGE if pattern == "pages" else SECTOR
    kept: list[tuple[Change, list[tuple[int, int]] | None]] = []
    moving: list[int] = []  # places in `kept` of what may change places
    for i, change in enumerate(changes):
        if change.durable <= place:
            kept.append((change, None))
            moving.clear()  # nothing that came before it arrives behind it
            continue
        ranges: list[tuple[int, int]] | None = None
        if pattern == "none":
            there = False
        elif pattern == "all":
            there = True
        elif pattern == "one":
            there = i == one
        elif pattern == "all but one":
            there = i != one
        elif pattern in ("sectors", "pages", "ends"):
            there = True
            ranges = _torn(change.event, unit, pattern == "ends", share, chance)
        elif pattern == "zeros":
            there = True
            ranges = None if chance.random() < share else []
        else:
            there = chance.random() < share
        if there:
            moving.append(len(kept))
            kept.append((change, ranges))
    if pattern == "order":
        moved = [kept[i] for i in moving]
        chance.shuffle(moved)
        for i, what in zip(moving, moved, strict=True):
            kept[i] = what
    return kept


def _torn(
    event: Event, unit: int, ends: bool, share: float, chance: random.Random
) -> list[tuple[int, int]]:
    """Ranges of a write, from its beginning, that arrived: units of the file, or one end of it."""
    borders = [0]
    borders += range(unit - event.offset % unit, len(event.data), unit)
    borders.append(len(event.data))
    if ends:
        cut = chance.choice(borders)
        return [(0, cut)] if chance.random() < 0.5 else [(cut, len(event.data))]
    return [pair for pair in pairwise(borders) if chance.random() < share]


def _content(base: bytes, kept: list[tuple[Change, list[tuple[int, int]] | None]]) -> bytes:
    content = bytearray(base)
    for change, ranges in kept:
        event = change.event
        if event.kind == SIZE:
            if event.offset < len(content):
                del content[event.offset :]
            content.extend(bytes(event.offset - len(content)))
            continue
        end = event.offset + len(event.data)
        if ranges is None:
            ranges = [(0, len(event.data))]
        if len(content) < end:  # a file may have grown without what was written there
            content.extend(bytes(end - len(content)))
        for start, stop in ranges:
            content[event.offset + start : event.offset + stop] = event.data[start:stop]
    return bytes(content)


def fingerprint(tree: Tree) -> bytes:
    """A digest by which two images are told apart."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, content in sorted(tree.items()):
        hashed.update(repr((name, None if content is None else len(content))).encode())
        hashed.update(content or b"")
    return hashed.digest()
