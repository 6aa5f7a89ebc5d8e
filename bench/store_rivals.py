"""The other rivals of the store bench, log-structured mostly; and the list of all contestants.

Each at its best settings of those tried; which, and why, stands at the top of `bench.store`.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Timed
from bench.store_contract import Contestant, HashedFile, HashMem, NamelessFile, PlainFile
from bench.store_data import Payloads
from bench.store_lmdb import LibMdbx, Lmdb, LmdbMulti
from bench.store_sqlite import Apsw, DiskCache, Sqlite
from bench.table_rivals import as_bytes

CACHE = 256 << 20  # bytes: what each may keep in memory


class KeyValue(Contestant):
    """A library whose `get` maps one key to its value."""

    module: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.library: Any = importlib.import_module(self.module)
        self.database: Any = None
        self.get: Any = None

    def close(self) -> None:
        self.database.close()

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.get
        return lambda: sum([get(key)[0] for key in keys])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.get
        return lambda: [get(key) for key in keys]


class RocksDict(KeyValue):
    """Raw mode, a synced WriteBatch a commit, Bloom filters and a block cache; compressed."""

    name = "rocksdict"
    module = "rocksdict"
    compressed = True

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
        self.get = self.database.get
        self.durable = rocks.WriteOptions()
        self.durable.sync = True

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            batch = self.library.WriteBatch(raw_mode=True)
            for key, payload in self.pairs(part):
                batch.put(key, payload)
            self.database.write(batch, self.durable)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: sum([value[0] for value in self.get(keys)])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)
        return lambda: self.get(keys)

    def one_by_one(self, digests: np.ndarray) -> Timed:
        return super().all_bytes(digests)

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


class Plyvel(KeyValue):
    """LevelDB: a synced write batch a commit, Bloom filters and a block cache; uncompressed."""

    name = "plyvel"
    module = "plyvel"

    def open(self) -> None:
        self.database = self.library.DB(
            str(self.folder),
            create_if_missing=True,
            compression=None,
            write_buffer_size=CACHE >> 2,
            lru_cache_size=CACHE,
            bloom_filter_bits=10,  # a key
            max_open_files=10_000,
        )
        self.get = self.database.get

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.database.write_batch(sync=True) as batch:
                for key, payload in self.pairs(part):
                    batch.put(key, payload)

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.database.write_batch(sync=True) as batch:
                for key in keys:
                    batch.delete(key)

        return remove

    def compact(self) -> None:
        self.database.compact_range()


class LsmDb(KeyValue):
    """SQLite4's LSM tree: one transaction a commit, everything synced, the file mapped."""

    name = "lsm-db"
    module = "lsm"
    can_compact = False

    def open(self) -> None:
        self.database = self.library.LSM(
            str(self.folder / "bench.lsm"),
            write_safety=self.library.SAFETY_FULL,
            mmap=1,
            multiple_processes=False,
            autoflush=CACHE >> 13,  # KiB: 32 MiB
            autocheckpoint=CACHE >> 12,  # KiB
        )
        self.get = self.database.fetch

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.database.transaction():
                self.database.update(dict(self.pairs(part)))

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.database.transaction():
                for key in keys:
                    self.database.delete(key)

        return remove


class UnQLite(KeyValue):
    """One transaction a commit, which it syncs."""

    name = "unqlite"
    module = "unqlite"
    share = 0.005
    can_compact = False

    def open(self) -> None:
        self.database = self.library.UnQLite(str(self.folder / "bench.unqlite"))
        self.get = self.database.fetch

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            with self.database.transaction():
                for key, payload in self.pairs(part):
                    self.database.store(key, payload)

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_bytes(digests)

        def remove() -> None:
            with self.database.transaction():
                for key in keys:
                    self.database.delete(key)

        return remove


CONTESTANTS: tuple[type[Contestant], ...] = (
    HashMem,
    Lmdb,
    LmdbMulti,
    LibMdbx,
    Sqlite,
    Apsw,
    DiskCache,
    RocksDict,
    RocksDictPlain,
    Plyvel,
    LsmDb,
    UnQLite,
    PlainFile,
    HashedFile,
    NamelessFile,
)
