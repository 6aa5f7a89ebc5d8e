"""The backend in RAM: for tests, for scratch work, and as the plainest reading of the contract."""

import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from hashmem.errors import StoreClosedError
from hashmem.store.backend import Backend, Snapshot, Transaction, Version

__all__ = ["RamBackend"]


class _RamView(Snapshot, Transaction):
    """A dictionary seen as a snapshot or, with its own changes, as a transaction."""

    def __init__(self, values: dict[bytes, bytes], version: Version, owner: "RamBackend | None"):
        self.version = version
        self._all: dict[bytes, bytes] | None = values
        self._owner = owner

    @property
    def _values(self) -> dict[bytes, bytes]:
        if self._all is None:
            raise StoreClosedError("the snapshot this was reading from is closed")
        return self._all

    def get(self, key: bytes) -> memoryview | None:
        value = self._values.get(key)
        return None if value is None else memoryview(value)

    def extent(self, key: bytes) -> tuple[int, int, bool] | None:
        value = self._values.get(key)
        return None if value is None else (0, len(value), True)

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        ordered = sorted(self._values)
        for i in range(bisect_left(ordered, max(prefix, start)), len(ordered)):
            if not ordered[i].startswith(prefix):
                return
            yield ordered[i]

    def put(self, key: bytes, value: bytes) -> None:
        self._values[key] = bytes(value)

    def delete(self, key: bytes) -> None:
        self._values.pop(key, None)

    def close(self) -> None:
        self._all, self.closed = None, True
        if self._owner is not None:
            self._owner.snapshots -= 1
            self._owner = None

    def __del__(self) -> None:
        self.close()


class RamBackend(Backend):
    """Values in a dictionary; a commit replaces the dictionary, O(keys).

    Values are bytes and never change, so snapshots share them and closing one frees nothing that
    is still in use.
    """

    durable = False
    shared = False
    snapshots = 0

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._version: Version = (1, 0)
        self._closed = False
        self._writer = threading.Lock()

    @property
    def version(self) -> Version:
        return self._version

    def snapshot(self) -> Snapshot:
        self._must_be_open()
        self.snapshots += 1
        return _RamView(self._values, self._version, self)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._writer:
            self._must_be_open()
            generation, commit = self._version
            transaction = _RamView(dict(self._values), self._version, None)
            yield transaction
            self._values = transaction._values
            self._version = (generation, commit + 1)

    @contextmanager
    def rewrite(
        self, *, erase: bool = False, timeout: float = 0.0
    ) -> Iterator[tuple[Snapshot, Transaction]]:
        # Nothing is kept anywhere but in Python's memory, so there is nothing to overwrite.
        with self._writer, self.snapshot() as old:
            new = _RamView({}, self._version, None)
            yield old, new
            self._values = new._values
            self._version = (self._version[0] + 1, 0)

    @property
    def nbytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._values.items())

    def _must_be_open(self) -> None:
        if self._closed:
            raise StoreClosedError("this store is closed")

    def close(self) -> None:
        self._closed = True
        self._values = {}
