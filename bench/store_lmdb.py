"""LMDB used directly, one entry per record, and its descendant libmdbx.

Keys are sorted within each commit, a commit is one synced transaction, and neither can compact in
place.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from bench.harness import Timed
from bench.store_contract import Contestant
from bench.store_data import Payloads
from bench.table_rivals import as_bytes

MAP = 1 << 36  # 64 GiB: address space, not memory


class Lmdb(Contestant):
    """One call per record."""

    name = "lmdb, put and get"
    can_compact = False

    def open(self) -> None:
        self.environment: Any = lmdb.open(str(self.folder), map_size=MAP)

    def close(self) -> None:
        self.environment.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.environment.begin(write=True) as transaction:
                put = transaction.put
                for key, payload in sorted(self.pairs(part)):
                    put(key, payload, overwrite=False)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def read() -> int:
            with self.environment.begin(buffers=True) as transaction:
                get = transaction.get
                return sum([get(key)[0] for key in keys])

        return read

    def all_bytes(self, digests: np.ndarray) -> Timed:
        return self.one_by_one(digests)

    def one_by_one(self, digests: np.ndarray) -> Timed:
        """Read in one transaction, which is open for all."""
        keys = as_bytes(digests)

        def read() -> list[bytes]:
            with self.environment.begin() as transaction:
                get = transaction.get
                return [get(key) for key in keys]

        return read

    def each_begun(self, digests: np.ndarray) -> Timed:
        """Read each in a transaction of its own."""
        keys, begin = as_bytes(digests), self.environment.begin

        def read() -> list[bytes]:
            found = []
            for key in keys:
                transaction = begin()
                found.append(transaction.get(key))
                transaction.abort()
            return found

        return read

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.environment.begin(write=True) as transaction:
                for key in sorted(keys):
                    transaction.delete(key)

        return remove


class LmdbMulti(Lmdb):
    """Many entries per call."""

    name = "lmdb, putmulti and getmulti"
    keys_a_call = 100  # more make so many tracked objects at once that the collector slows it

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(sorted(self.pairs(part)), overwrite=False)

    def _values(self, keys: list[bytes], buffers: bool) -> Iterator[Any]:
        with self.environment.begin(buffers=buffers) as transaction:
            cursor = transaction.cursor()
            for start in range(0, len(keys), self.keys_a_call):
                for _, value in cursor.getmulti(keys[start : start + self.keys_a_call]):
                    yield value

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: sum([value[0] for value in self._values(keys, buffers=True)])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: list(self._values(keys, buffers=False))


class LibMdbx(Contestant):
    """One call per record, through ctypes; read in one open transaction."""

    name = "libmdbx"
    share = 0.2
    can_compact = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.library: Any = importlib.import_module("mdbx")

    def open(self) -> None:
        geometry = self.library.Geometry(-1, -1, MAP, 1 << 26, -1, -1)  # -1: its default
        self.environment = self.library.Env(str(self.folder), geometry=geometry, maxreaders=8)

    def close(self) -> None:
        self.environment.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            transaction = self.environment.rw_transaction()
            with transaction.open_map() as entries:
                for key, payload in sorted(self.pairs(part)):
                    entries.put(transaction, key, payload)
                transaction.commit()

    def _values(self, keys: list[bytes]) -> Iterator[Any]:
        with self.environment.ro_transaction() as transaction, transaction.open_map() as entries:
            for key in keys:
                yield entries.get(transaction, key)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: sum([value[0] for value in self._values(keys)])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: list(self._values(keys))

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            transaction = self.environment.rw_transaction()
            with transaction.open_map() as entries:
                for key in sorted(keys):
                    entries.delete(transaction, key)
                transaction.commit()

        return remove
