"""What the store bench compares: hashmem, its rivals and the file system itself, one contract.

All address records by SHA-256, computed within the timed write, and make every `commit_every`
records durable (fsync or the library's own equivalent) before they go on. Keys to read are handed
over in the form each contestant likes best, prepared untimed.
"""

import hashlib
import mmap
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

import hashmem
from bench.harness import Timed

MAP = 1 << 36  # 64 GiB: address space for LMDB, not memory
CACHE = 256 << 20  # bytes: what SQLite and RocksDB may keep in memory

Payloads = Sequence[bytes]


def hashed(payloads: Payloads) -> list[tuple[bytes, bytes]]:
    """Return (digest, payload) pairs, by hashlib."""
    sha256 = hashlib.sha256
    return [(sha256(payload).digest(), payload) for payload in payloads]


def as_bytes(digests: np.ndarray) -> list[bytes]:
    """Return each row of uint8 (n, 32) as bytes."""
    return digests.view("V32").ravel().tolist()


class Contestant:
    """A store of records in an empty folder of its own.

    `write`, and the calls that the other methods return, are what is timed.
    """

    name: str
    kind = "rival"
    share = 1.0  # of the records: less for those that would take too long

    reads = can_delete = can_compact = True
    commit_every = 50_000  # records made durable together

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commits(self, payloads: Payloads) -> Iterator[Payloads]:
        """Cut the payloads into what is made durable together."""
        for start in range(0, len(payloads), self.commit_every):
            yield payloads[start : start + self.commit_every]

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def write(self, payloads: Payloads) -> None:
        raise NotImplementedError

    def first_bytes(self, digests: np.ndarray) -> Timed:
        """Prepare to read the first byte of every record asked for."""
        raise NotImplementedError

    def all_bytes(self, digests: np.ndarray) -> Timed:
        """Prepare to read every record asked for as a bytes object."""
        raise NotImplementedError

    def delete(self, digests: np.ndarray) -> Timed:
        """Prepare to delete and make that durable."""
        raise NotImplementedError

    def compact(self) -> None:
        raise NotImplementedError

    def nbytes(self) -> int:
        """Return the bytes that the folder takes on disk, holes in files not counted."""
        return sum(f.stat().st_blocks * 512 for f in self.folder.rglob("*") if f.is_file())


class HashMem(Contestant):
    name = "hashmem MemoryStore"
    kind = "ours"

    def open(self) -> None:
        self.store = hashmem.MemoryStore(str(self.folder / "bench.hashmem"))

    def close(self) -> None:
        self.store.close()

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            self.store.put_many(part)
            self.store.commit()

    def first_bytes(self, digests: np.ndarray) -> Timed:
        def read() -> int:
            return sum([record[0] for record in self.store.get_many(digests)])

        return read

    def all_bytes(self, digests: np.ndarray) -> Timed:
        return lambda: list(self.store.get_many(digests))

    def delete(self, digests: np.ndarray) -> Timed:
        def remove() -> None:
            self.store.delete_many(digests)
            self.store.commit()

        return remove

    def compact(self) -> None:
        self.store.compact()


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


class PlainFile(Contestant):
    """The same bytes appended to a file and synced, hashed too; places kept in a dict."""

    name = "plain file, places in a dict"
    kind = "floor"
    can_delete = can_compact = False

    def open(self) -> None:
        self.path = self.folder / "records"
        self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 closed in close()
        self.map = None
        if self.path.stat().st_size:
            self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        if self.map is not None:
            self.map.close()
        self.file.close()

    def write(self, payloads: Payloads) -> None:
        self.places: dict[bytes, tuple[int, int]] = {}
        end = 0
        for part in self.commits(payloads):
            for key, payload in hashed(part):
                self.places[key] = (end, end + len(payload))
                end += len(payload)
            self.file.write(b"".join(part))
            os.fsync(self.file.fileno())

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys, places, view = as_bytes(digests), self.places, self.map
        return lambda: sum([view[places[key][0]] for key in keys])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys, places, view = as_bytes(digests), self.places, self.map

        def read() -> list[bytes]:
            return [view[start:end] for start, end in map(places.__getitem__, keys)]

        return read


class NamelessFile(PlainFile):
    """The same file without digests: what the disk takes when nothing has a name."""

    name = "plain file, no digests"
    reads = False

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            self.file.write(b"".join(part))
            os.fsync(self.file.fileno())


CONTESTANTS = (
    HashMem,
    Lmdb,
    LmdbMulti,
    LmdbOneGet,
    Sqlite,
    DiskCache,
    RocksDict,
    RocksDictPlain,
    PlainFile,
    NamelessFile,
)
