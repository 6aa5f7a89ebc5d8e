"""LMDB environments and what is read and written through them, one of each file in a process.

LMDB forbids opening one file twice in a process and using it across a fork, so environments are
kept in a table of this process: backends on one file share one, and a forked child drops what it
inherited and opens its own. Reading through a snapshot of the parent's is an error there.
"""

import errno
import mmap
import os
import random
import sys
import threading
import time
import weakref
from bisect import insort
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from hashmem.errors import CorruptStoreError, StoreClosedError, StoreError, StoreFormatError
from hashmem.store.backend import Snapshot, Transaction, Version
from hashmem.store.lmdb_pages import (
    FILLER,
    NUMBER,
    OWN,
    TRIES,
    Extent,
    Meta,
    Tree,
    check,
    check_length,
    metas,
)
from hashmem.store.read_ahead import Reads, ask_for, declare_random

__all__ = [
    "DURABILITY", "MAX_READERS", "SPARE_READERS", "Environment", "LmdbSnapshot", "LmdbTransaction",
    "Rewriting", "commit_numbered", "open_file",
]  # fmt: skip

WAITS = [2.0**-i for i in range(9, 1, -1)]  # seconds, at most: 2 ms to 0.25 s
MAP_SIZE = 1 << 40  # 1 TiB of addresses, no memory: growing a map under a live view kills
MAX_READERS = 512  # snapshots open at once, over all processes
SPARE_READERS = 16  # for a moment, while one is opened
# What a commit waits for: that its pages are on the disk, and that the page is that counts them.
DURABILITY = {"full": (True, True), "ordered": (True, False), "none": (False, False)}
REWRITTEN = 1 << 26  # bytes that a rewrite commits at a time: LMDB keeps them in memory until then


class Environment:
    """An open LMDB environment, shared by the backends and snapshots of this process."""

    _open: ClassVar[dict[tuple[int, int], "Environment"]] = {}  # by device and inode
    _guard = threading.RLock()

    def __init__(
        self,
        path: Path,
        identity: tuple[int, int],
        readonly: bool,
        durability: str,
        checked: bool = True,
    ) -> None:
        self.identity = identity
        self.path = path
        self.name = path.name
        self.generation = int(path.name.partition(".")[0])
        self.pid = os.getpid()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 0  # bytes of the file, as last seen
        self._meta: Meta | None = None  # of the newest commit that was read
        self.in_use: Version | None = None  # a commit in which this generation was the one in use
        self.map: mmap.mmap | bytes = b""  # all of it, as last mapped; old maps stay while used
        try:
            if checked:
                self.check()
            self.readonly, self.durability = readonly, durability
            self.lmdb: Any = self._opened()
        except BaseException:
            os.close(self._file)
            raise
        self.lmdb.reader_check()
        self.reads = Reads()
        self.users = 0
        self.snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()

    def _opened(self) -> Any:
        """LMDB's environment, at the file's newest commit.

        Who opens a file alone sets the number of its newest commit to 0 in the lock file, and later
        to what it is. Where that process is killed in between, who opens at the same time is left
        with 0. So the file is opened again then, after a while of random length, as others may wait
        in the same place: who is alone sets it right.
        """
        for wait in WAITS:
            opened = open_file(self.path, readonly=self.readonly, durability=self.durability)
            with opened.begin() as transaction:
                number = transaction.id()
            found = [meta.transaction for meta in metas(self.data())]
            if not found or number + 1 >= max(found):
                break
            opened.close()
            time.sleep(random.uniform(0, wait))
        else:
            opened = open_file(self.path, readonly=self.readonly, durability=self.durability)
        return opened

    def check(self, *, whole: bool = False) -> None:
        """Look through the file before LMDB maps it, as what is damaged would kill the process.

        With `whole` also at the pages where large values begin.
        """
        for last in reversed(range(TRIES)):
            before = metas(self.data())
            data = self.data()  # its length, after the meta pages: a writer writes these last
            try:
                check_length(self.path, self._size, data)
                if before:
                    check(data, whole=whole)
                return
            except (CorruptStoreError, StoreFormatError) as error:
                if before == metas(self.data()) or last == 0:  # nobody has committed meanwhile
                    if isinstance(error, CorruptStoreError):
                        raise CorruptStoreError(
                            f"{self.path}: {error}; repair the store "
                            "(hashmem.store.repair) or restore it from a copy"
                        ) from None
                    raise

    def data(self) -> memoryview:
        """The bytes of the file, as long as it is now. Nothing is read until it is looked at."""
        before = self._size  # other threads may come here too
        size = os.fstat(self._file).st_size
        if size < before:
            raise StoreFormatError(
                f"{self.path} is cut off: it had {before} bytes when it was last read, and has "
                f"{size}; restore the store's folder from a copy"
            )
        self._size = max(self._size, size)
        if size > len(self.map):
            mapped = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
            declare_random(mapped)
            with self._guard:
                if len(mapped) > len(self.map):
                    self.map = mapped
        return memoryview(self.map)

    @property
    def nbytes(self) -> int:
        """The bytes of the file now."""
        return os.fstat(self._file).st_size

    def expect_in_place(self) -> None:
        """Raise `StoreFormatError` where the file has no longer its name: commits would be lost."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self.identity:
            raise StoreFormatError(
                f"{self.path} was removed or replaced while it was open: what is committed can "
                "still be read here; copy_to() another path before this store is closed"
            )

    @classmethod
    def share(
        cls, path: Path, readonly: bool, durability: str, checked: bool = True
    ) -> "Environment":
        """Return the environment on `path`, opening it if this process has not.

        Unless `checked`, its pages are not looked through before. Raises `FileNotFoundError` where
        it is gone.
        """
        with cls._guard:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            found = cls._open.get(identity)
            if found is not None and found.readonly and not readonly:
                raise StoreError(
                    f"{path.parent} is open read-only in this process: close that store first"
                )
            if found is not None and not readonly and found.durability != durability:
                raise StoreError(
                    f"{path.parent} is open in this process with durability {found.durability!r}: "
                    f"open it with that, or close that store first"
                )
            if found is None:
                found = cls._open[identity] = cls(path, identity, readonly, durability, checked)
            found.users += 1
            return found

    def begin_read(self) -> Any:
        try:
            return self.lmdb.begin(buffers=True)
        except lmdb.ReadersFullError:
            self.lmdb.reader_check()  # frees the slots of processes that were killed
            return self.lmdb.begin(buffers=True)

    def newest(self, transaction: int) -> Meta | None:
        """The meta page of a commit that is the newest one, or was when it was read; else None.

        Commits t and t + 2 share a page, and the page of t + 1 is written before t + 1 counts. So
        what was read of t is whole if LMDB knows of no later commit afterwards.
        """
        data = self.data()  # raises where the file was cut off
        if self._meta is not None and self._meta.transaction == transaction:
            return self._meta
        found = [meta for meta in metas(data) if meta.transaction == transaction]
        now = self.begin_read()
        try:
            if not found or now.id() != transaction:
                return None
            self._meta = found[0]
            return self._meta
        finally:
            now.abort()

    def commit(self, raw: Any) -> None:
        """Commit a transaction, with another number of keys than the commit before the last has.

        Its meta page takes the place of that one's. So where writing ends after the pages and
        before the meta page, the older meta page does not fit what is in the file, and nobody takes
        it for that of a commit that is there.
        """
        raw.put(NUMBER, b"")  # it counts
        keys = raw.stat(self.lmdb.open_db(txn=raw))["entries"]
        before = [
            meta.main.entries for meta in metas(self.data()) if meta.transaction < raw.id() - 1
        ]
        if keys in before and not raw.delete(FILLER):
            raw.put(FILLER, b"")
        commit_numbered(raw)

    def settle(self) -> None:
        """After a commit that could not be written: open the file anew, and commit nothing.

        LMDB refuses to go on, and leaves the number of an older commit in a meta page of the one
        that failed, which looks like a newer one that is damaged. Where this cannot be written
        either, the next commit does the same.
        """
        self.reopen()
        try:
            self.commit(self.lmdb.begin(write=True))
        except lmdb.Error:
            self.reopen()

    def reopen(self) -> None:
        """Have LMDB open the file anew. Snapshots end."""
        for snapshot in list(self.snapshots):
            snapshot.close()
        self.lmdb.close()
        self.lmdb = self._opened()

    def release(self) -> None:
        """One user less; the last one closes."""
        with self._guard:
            self.users -= 1
            if self.users == 0 and self.pid == os.getpid():
                self._open.pop(self.identity, None)
                self.lmdb.close()
                os.close(self._file)

    @classmethod
    def forget_inherited(cls) -> None:
        """In a forked child: drop the parent's environments and all that reads from them.

        py-lmdb's `close` unmaps the file here and leaves the parent's slots and locks alone. It
        must be called: where a frame of a thread that is gone refers to an environment, dropping
        references does not close it, and py-lmdb refuses to open one that is still open.
        """
        cls._guard = threading.RLock()
        for environment in cls._open.values():
            for snapshot in list(environment.snapshots):
                snapshot._forget()
            environment.lmdb.close()
            with suppress(OSError):
                os.close(environment._file)
        cls._open = {}


os.register_at_fork(after_in_child=Environment.forget_inherited)


class LmdbSnapshot(Snapshot):
    """A commit that a read transaction of LMDB's holds in place, read by page from the file."""

    def __init__(self, environment: Environment) -> None:
        self.environment: Environment | None = None
        self._raw: Any = None
        for _ in range(TRIES):
            raw = environment.begin_read()
            number = raw.id()
            try:
                meta = environment.newest(number)
            except BaseException:
                raw.abort()  # or it would keep its commit's pages, and be waited for by erase()
                raise
            if meta is not None:
                break
            raw.abort()  # somebody committed in between
        else:
            raise CorruptStoreError(
                f"{environment.path}: its meta pages do not show the commit that LMDB reads"
            )
        self._raw = raw
        self.map = environment.map
        self.reads = environment.reads
        self._tree: Tree | None = Tree(memoryview(self.map), meta)
        self.environment = environment
        with environment._guard:
            environment.users += 1
            environment.snapshots.add(self)
        self.version = (environment.generation, number)

    @property
    def is_empty(self) -> bool:
        """Whether there is no key."""
        return next(self.keys(b""), None) is None

    def _pages(self) -> Tree:
        if self._tree is None:
            raise StoreClosedError("the snapshot this was reading from is closed")
        return self._tree

    def get(self, key: bytes) -> memoryview | None:
        tree = self._pages()
        extent = tree.find(key)
        if extent is None:
            return None
        ask_for(self.map, extent.start, extent.start + extent.size)
        return tree.data[extent.start : extent.start + extent.size]

    def extent(self, key: bytes) -> Extent | None:
        return self._pages().find(key)

    def extents(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, Extent]]:
        return self._pages().scan(prefix, start)

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        return (key for key, _ in self._pages().scan(prefix, start) if key not in OWN)

    def close(self) -> None:
        if self._raw is not None and self.environment is not None:
            self._raw.abort()
            self.environment.snapshots.discard(self)
            self.environment.release()
        self._forget()

    def _forget(self) -> None:
        self._raw = self.environment = self._tree = None
        self.closed = True

    def __del__(self) -> None:
        with suppress(AttributeError):  # a constructor that failed
            self.close()


class LmdbTransaction(Transaction):
    """What is committed, read from the file, and what LMDB keeps of the changes."""

    def __init__(self, raw: Any, version: Version, tree: Tree) -> None:
        self._raw = raw
        self._tree = tree
        self._changed: dict[bytes, bool] = {}  # key → whether it is there now
        self._sound: set[bytes] = set()  # keys whose values were looked at
        self.version = version

    def get(self, key: bytes) -> memoryview | None:
        there = self._changed.get(key)
        if there is None:
            self._sound.add(key)
            return _value(self._tree, key)
        value: memoryview | None = self._raw.get(key) if there else None
        return value

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        hidden = OWN | self._changed.keys()
        found = [key for key, _ in self._tree.scan(prefix, start) if key not in hidden]
        for key, there in self._changed.items():
            if there and key.startswith(prefix) and key >= start:
                insort(found, key)
        return iter(found)

    def put(self, key: bytes, value: bytes) -> None:
        if self._changed.get(key):  # or a shorter value keeps the pages of a longer one
            self._raw.delete(key)
        self._raw.put(key, value)
        self._changed[key] = True

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    def delete(self, key: bytes) -> None:
        if key not in self._sound:
            self._tree.find(key)  # raises where the pages are damaged that LMDB is about to free
        self._raw.delete(key)
        self._changed[key] = False


class Rewriting(LmdbTransaction):
    """Fills a file that nobody reads yet, committing now and then so that memory stays bounded."""

    def __init__(self, environment: Any, version: Version) -> None:
        self._lmdb = environment
        self._uncommitted = 0  # bytes
        self.version = version
        self._raw = environment.begin(write=True, buffers=True)

    def get(self, key: bytes) -> memoryview | None:
        value: memoryview | None = self._raw.get(key)
        return value

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        with self._raw.cursor() as cursor:
            found = cursor.set_range(max(prefix, start))
            while found and bytes(cursor.key()).startswith(prefix):
                if bytes(cursor.key()) not in OWN:
                    yield bytes(cursor.key())
                found = cursor.next()

    def put(self, key: bytes, value: bytes) -> None:
        self._raw.put(key, value)
        self._uncommitted += len(value)
        if self._uncommitted >= REWRITTEN:
            commit_numbered(self._raw)
            self._raw = self._lmdb.begin(write=True, buffers=True)
            self._uncommitted = 0

    def delete(self, key: bytes) -> None:
        self._raw.delete(key)

    def commit(self) -> None:
        """Commit the rest and sync all of it."""
        commit_numbered(self._raw)
        self._lmdb.sync(True)

    def abort(self) -> None:
        self._raw.abort()


def commit_numbered(raw: Any) -> None:
    """Commit what LMDB was told, with the number of the commit, which meta pages can be held to."""
    raw.put(NUMBER, raw.id().to_bytes(8, sys.byteorder))
    raw.commit()


def _value(tree: Tree, key: bytes) -> memoryview | None:
    extent = tree.find(key)
    return None if extent is None else tree.data[extent.start : extent.start + extent.size]


def open_file(
    path: Path, *, readonly: bool = False, create: bool = False, durability: str = "full"
) -> Any:
    """Open an LMDB file with as much address space as the system gives, from 1 TiB down.

    Raises `FileNotFoundError` where it is not there and not to be created.
    """
    sync, metasync = DURABILITY[durability]
    size = MAP_SIZE
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=size,
                subdir=False,
                readonly=readonly,
                create=create,
                max_readers=MAX_READERS + SPARE_READERS,
                meminit=True,  # or what was in memory, deleted things too, fills up the pages
                sync=sync,
                metasync=metasync,
                mode=0o644,
            )
        except lmdb.Error as error:
            if not create and not path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            if "Cannot allocate memory" not in str(error) or size <= 1 << 30:
                raise
            size //= 4
