"""LMDB environments and what is read and written through them, one of each file in a process.

LMDB forbids opening one file twice in a process and using it across a fork, so environments are
kept in a table of this process: backends on one file share one, and a forked child drops what it
inherited and opens its own. Reading through a snapshot of the parent's is an error there.
"""

import errno
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from hashmem.errors import StoreClosedError, StoreError
from hashmem.store.backend import Snapshot, Transaction, Version
from hashmem.store.lmdb_pages import check_length

__all__ = ["MAX_READERS", "Environment", "LmdbSnapshot", "LmdbTransaction", "open_file"]

MAP_SIZE = 1 << 40  # 1 TiB of addresses, no memory: growing a map under a live view kills
MAX_READERS = 512  # snapshots open at once, over all processes


class Environment:
    """An open LMDB environment, shared by the backends and snapshots of this process."""

    _open: ClassVar[dict[tuple[int, int], "Environment"]] = {}  # by device and inode
    _guard = threading.RLock()

    def __init__(self, path: Path, identity: tuple[int, int], readonly: bool) -> None:
        self.identity = identity
        self.name = path.name
        self.generation = int(path.name.partition(".")[0])
        self.pid = os.getpid()
        check_length(path)
        self.lmdb: Any = open_file(path, readonly=readonly)
        self.lmdb.reader_check()
        self.readonly = readonly
        self.users = 0
        self.snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()

    @classmethod
    def share(cls, path: Path, readonly: bool) -> "Environment":
        """Return the environment on `path`, opening it if this process has not.

        Raises `FileNotFoundError` where it is gone.
        """
        with cls._guard:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            found = cls._open.get(identity)
            if found is not None and found.readonly and not readonly:
                raise StoreError(
                    f"{path.parent} is open read-only in this process: close that store first"
                )
            if found is None:
                found = cls._open[identity] = cls(path, identity, readonly)
            found.users += 1
            return found

    def begin_read(self) -> Any:
        try:
            return self.lmdb.begin(buffers=True)
        except lmdb.ReadersFullError:
            self.lmdb.reader_check()  # frees the slots of processes that were killed
            return self.lmdb.begin(buffers=True)

    def release(self) -> None:
        """One user less; the last one closes."""
        with self._guard:
            self.users -= 1
            if self.users == 0 and self.pid == os.getpid():
                self._open.pop(self.identity, None)
                self.lmdb.close()

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
        cls._open = {}


os.register_at_fork(after_in_child=Environment.forget_inherited)


class LmdbSnapshot(Snapshot):
    def __init__(self, environment: Environment) -> None:
        self._raw: Any = environment.begin_read()
        self.views = {}
        self._environment: Environment | None = environment
        with environment._guard:
            environment.users += 1
            environment.snapshots.add(self)
        self.version = (environment.generation, self._raw.id())

    @property
    def is_empty(self) -> bool:
        """Whether there is no key."""
        with self._transaction().cursor() as cursor:
            return not cursor.first()

    def _transaction(self) -> Any:
        if self._raw is None:
            raise StoreClosedError("the snapshot this was reading from is closed")
        return self._raw

    def get(self, key: bytes) -> memoryview | None:
        value: memoryview | None = self._transaction().get(key)
        return value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return _keys(self._transaction(), prefix)

    def close(self) -> None:
        self.views.clear()
        if self._raw is not None and self._environment is not None:
            self._raw.abort()
            self._environment.snapshots.discard(self)
            self._environment.release()
        self._raw = self._environment = None

    def _forget(self) -> None:
        self.views.clear()
        self._raw = self._environment = None

    def __del__(self) -> None:
        with suppress(AttributeError):  # a constructor that failed
            self.close()


class LmdbTransaction(Transaction):
    def __init__(self, raw: Any, version: Version) -> None:
        self._raw = raw
        self.version = version

    def get(self, key: bytes) -> memoryview | None:
        value: memoryview | None = self._raw.get(key)
        return value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return _keys(self._raw, prefix)

    def put(self, key: bytes, value: bytes) -> None:
        self._raw.put(key, value)

    def delete(self, key: bytes) -> None:
        self._raw.delete(key)


def _keys(raw: Any, prefix: bytes) -> Iterator[bytes]:
    with raw.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            yield key
            found = cursor.next()


def open_file(path: Path, *, readonly: bool = False, create: bool = False) -> Any:
    """Open an LMDB file with as much address space as the system gives, from 1 TiB down.

    Raises `FileNotFoundError` where it is not there and not to be created.
    """
    size = MAP_SIZE
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=size,
                subdir=False,
                readonly=readonly,
                create=create,
                max_readers=MAX_READERS,
                meminit=True,  # or what was in memory, deleted things too, fills up the pages
                mode=0o644,
            )
        except lmdb.Error as error:
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            if "Cannot allocate memory" not in str(error) or size <= 1 << 30:
                raise
            size //= 4
