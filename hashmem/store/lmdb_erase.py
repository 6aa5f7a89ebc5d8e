"""Overwriting an LMDB file that is not in use any more, under whoever may still have it mapped.

Processes keep a generation mapped after another took its place, until they next look at CURRENT,
and begin to read from it at any time. So LMDB's own rule for reusing pages is followed: a last
commit makes the file empty, which whoever begins to read from then on finds (and looks at CURRENT),
and once all who began before have ended, nobody looks at any page but the two meta pages. Those
stay as they are, since they hold nothing but the roots of two trees, and the rest is overwritten.
The file is never cut: a page beyond the end of a mapped file kills.
"""

import os
import time
from pathlib import Path
from typing import Any

from hashmem.errors import CorruptStoreError, StoreError
from hashmem.store.lmdb_environment import Environment
from hashmem.store.lmdb_pages import metas

__all__ = ["overwrite", "overwrite_database"]

_ZEROS = bytes(1 << 20)
_POLL = 0.01  # seconds between two looks at who reads


def overwrite_database(path: Path, deadline: float) -> None:
    """Overwrite the LMDB file `path`, all but its meta pages, once nobody reads from it.

    Waits up to `deadline` (of `time.monotonic`) for snapshots, in any process. Then raises
    `StoreError` naming the processes: nothing is overwritten, and who reads reads on.
    """
    try:
        environment = Environment.share(path, False, "full", checked=not _is_empty(path))
    except CorruptStoreError:  # LMDB must not walk it, and who reads it finds damage as it is
        overwrite(path)
        return
    try:
        last = _empty(environment.lmdb)
        quiet = 0
        while quiet < 2:  # the second look sees a slot that was being written at the first
            time.sleep(_POLL)
            readers = _readers_before(environment.lmdb, last)
            quiet = quiet + 1 if not readers else 0
            if readers and time.monotonic() >= deadline:
                raise StoreError(
                    f"{path.parent} was rewritten without what was deleted, but {path.name}, which "
                    f"still holds it, is being read by {_named(readers)}: nothing of that file is "
                    "overwritten yet; let go of results of get_many there and erase again"
                )
        overwrite(path, 2 * environment.lmdb.stat()["psize"])
    finally:
        environment.release()


def overwrite(path: Path, start: int = 0) -> None:
    """Write zeros over a file in place, from byte `start` to its end, and sync it."""
    file = os.open(path, os.O_WRONLY)
    try:
        at, size = start, os.fstat(file).st_size
        while at < size:
            at += os.pwrite(file, memoryview(_ZEROS)[: size - at], at)
        os.fsync(file)
    finally:
        os.close(file)


def _is_empty(path: Path) -> bool:
    """Whether the newest commit holds nothing: then the rest may be overwritten in part."""
    with open(path, "rb") as file:
        found = metas(memoryview(file.read(1 << 17)))
    return bool(found) and max(found, key=lambda meta: meta.transaction).main.entries == 0


def _empty(lmdb: Any) -> int:
    """Let the newest commit hold nothing, and return its number."""
    if lmdb.stat()["entries"]:  # else it was emptied before, and may be overwritten in part
        database = lmdb.open_db()
        with lmdb.begin(write=True) as raw:
            raw.drop(database, delete=False)
    return int(lmdb.info()["last_txnid"])


def _readers_before(lmdb: Any, commit: int) -> list[int]:
    """The processes with a snapshot older than `commit`, one for each."""
    lmdb.reader_check()  # frees the slots of processes that were killed
    lines = [line.split() for line in lmdb.readers().splitlines()]
    found = [
        int(line[0])
        for line in lines
        if len(line) == 3 and line[2].isdecimal() and int(line[2]) < commit
    ]
    return sorted(found)


def _named(readers: list[int]) -> str:
    """Which processes hold how many snapshots, in words."""
    return ", ".join(
        f"process {pid}{' (this one)' * (pid == os.getpid())}: {readers.count(pid)} snapshot"
        + "s" * (readers.count(pid) > 1)
        for pid in sorted(set(readers))
    )
