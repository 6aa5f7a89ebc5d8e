"""SQLite through the standard library and through apsw, and diskcache, which stands on it.

A table with a unique index on the digest, write-ahead log, synced at every commit, 256 MiB of
cache, the file mapped into memory.
"""

import importlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Timed
from bench.store_contract import Contestant
from bench.store_data import Payloads
from bench.store_lmdb import MAP
from bench.table_rivals import as_bytes

CACHE = 256 << 20  # bytes: what SQLite may keep in memory
PRAGMAS = (
    "page_size = 8192",
    "journal_mode = WAL",
    "synchronous = FULL",
    f"cache_size = -{CACHE >> 10}",  # negative: in KiB
    f"mmap_size = {MAP}",
)


class Sqlite(Contestant):
    name = "sqlite3"
    share = 0.2
    schema = "CREATE TABLE IF NOT EXISTS records (digest BLOB PRIMARY KEY, payload BLOB)"

    def connect(self, path: Path) -> Any:
        return sqlite3.connect(path)

    def open(self) -> None:
        self.connection = self.connect(self.folder / "bench.db")
        for pragma in PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute(self.schema)

    def close(self) -> None:
        self.connection.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.connection as connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO records VALUES (?, ?)", sorted(self.pairs(part))
                )

    def _select(self, what: str, keys: list[bytes]) -> Iterator[Any]:
        execute = self.connection.cursor().execute
        query = f"SELECT {what} FROM records WHERE digest = ?"
        for key in keys:
            yield execute(query, (key,)).fetchone()[0]

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: sum([byte[0] for byte in self._select("substr(payload, 1, 1)", keys)])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: list(self._select("payload", keys))

    def delete(self, digests: np.ndarray) -> Timed:
        keys = [(key,) for key in as_bytes(digests)]

        def remove() -> None:
            with self.connection as connection:
                connection.executemany("DELETE FROM records WHERE digest = ?", sorted(keys))

        return remove

    def compact(self) -> None:
        self.connection.execute("VACUUM")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class Apsw(Sqlite):
    name = "apsw"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.library: Any = importlib.import_module("apsw")

    def connect(self, path: Path) -> Any:
        return self.library.Connection(str(path))


class DiskCache(Contestant):
    """One transaction a commit, payloads inside the database, nothing evicted or counted."""

    name = "diskcache"
    can_compact = False
    share = 0.05

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.new: Any = importlib.import_module("diskcache").Cache

    def open(self) -> None:
        self.cache = self.new(
            str(self.folder),
            eviction_policy="none",
            size_limit=MAP,
            cull_limit=0,
            disk_min_file_size=1 << 20,
            sqlite_synchronous=2,  # FULL: its default, NORMAL, may lose commits with the power
            sqlite_cache_size=CACHE >> 13,  # pages
            sqlite_mmap_size=MAP,
        )

    def close(self) -> None:
        self.cache.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.cache.transact():
                for key, payload in self.pairs(part):
                    self.cache.set(key, payload)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.cache.get
        return lambda: sum([get(key)[0] for key in keys])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.cache.get
        return lambda: [get(key) for key in keys]

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.cache.transact():
                for key in keys:
                    self.cache.delete(key)

        return remove
