"""The rivals of the store bench: LMDB used directly, SQLite, diskcache, RocksDB.

Each at its best settings of those tried; which, and why, stands at the top of `bench.store`.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from bench.harness import Timed
from bench.store_contract import Contestant, Payloads, hashed
from bench.table_rivals import as_bytes

MAP = 1 << 36  # 64 GiB: address space for LMDB and SQLite, not memory
CACHE = 256 << 20  # bytes: what SQLite and RocksDB may keep in memory


class Lmdb(Contestant):
    """One entry per record, one call per record."""

    name = "lmdb, put and get"
    can_compact = False

    def open(self) -> None:
        self.environment = lmdb.open(str(self.folder), map_size=MAP)

    def close(self) -> None:
        self.environment.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.environment.begin(write=True) as transaction:
                put = transaction.put
                for key, payload in sorted(hashed(part)):
                    put(key, payload, overwrite=False)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def read() -> int:
            with self.environment.begin(buffers=True) as transaction:
                get = transaction.get
                return sum([get(key)[0] for key in keys])

        return read

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def read() -> list[bytes]:
            with self.environment.begin() as transaction:
                return list(map(transaction.get, keys))

        return read

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.environment.begin(write=True) as transaction:
                for key in sorted(keys):
                    transaction.delete(key)

        return remove


class LmdbMulti(Lmdb):
    """One entry per record, many per call; keys sorted within each commit."""

    name = "lmdb, putmulti and getmulti"
    keys_a_call = 100  # more make so many tracked objects at once that the collector slows it

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(sorted(hashed(part)), overwrite=False)

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


class LmdbOneGet(LmdbMulti):
    """All keys in one call, as hashmem is asked."""

    name = "lmdb, one getmulti"
    keys_a_call = 1 << 62


class Sqlite(Contestant):
    """A rowid table with a unique index on the digest, WAL, synchronous=FULL."""

    name = "sqlite3"
    schema = "CREATE TABLE IF NOT EXISTS records (digest BLOB PRIMARY KEY, payload BLOB)"

    def open(self) -> None:
        self.connection = connection = sqlite3.connect(self.folder / "bench.db")
        for pragma in (
            "page_size = 8192",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"cache_size = -{CACHE >> 10}",  # negative: in KiB
            f"mmap_size = {MAP}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(self.schema)

    def close(self) -> None:
        self.connection.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.connection as connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO records VALUES (?, ?)", sorted(hashed(part))
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
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class DiskCache(Contestant):
    """One transaction a commit, payloads inside the database, nothing evicted or counted."""

    name = "diskcache"
    can_compact = False
    share = 0.05

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import diskcache

        self.new = diskcache.Cache

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
                for key, payload in hashed(part):
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


class RocksDict(Contestant):
    """Raw mode, a synced WriteBatch a commit, Bloom filters and a block cache; compressed."""

    name = "rocksdict"
    compressed = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import rocksdict

        self.library = rocksdict

    def open(self) -> None:
        rocks = self.library
        options, blocks = rocks.Options(raw_mode=True), rocks.BlockBasedOptions()
        blocks.set_bloom_filter(10, False)  # bits a key
        blocks.set_block_cache(rocks.Cache(CACHE))
        options.set_block_based_table_factory(blocks)
        if not self.compressed:
            options.set_compression_type(rocks.DBCompressionType.none())
            options.set_allow_mmap_reads(True)
        options.set_write_buffer_size(CACHE >> 2)
        options.increase_parallelism(os.cpu_count() or 1)
        self.database = rocks.Rdict(str(self.folder), options)
        self.durable = rocks.WriteOptions()
        self.durable.sync = True

    def close(self) -> None:
        self.database.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            batch = self.library.WriteBatch(raw_mode=True)
            for key, payload in hashed(part):
                batch.put(key, payload)
            self.database.write(batch, self.durable)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: sum([value[0] for value in self.database.get(keys)])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: self.database.get(keys)

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            batch = self.library.WriteBatch(raw_mode=True)
            for key in keys:
                batch.delete(key)
            self.database.write(batch, self.durable)

        return remove

    def compact(self) -> None:
        self.database.flush()
        self.database.compact_range(None, None)


class RocksDictPlain(RocksDict):
    """Without compression, files mapped into memory: larger, and faster to read."""

    name = "rocksdict, uncompressed"
    compressed = False
