"""What a contestant of the store bench does, and those that set the scale: hashmem and a file.

All address records by a digest, computed within the timed write, and make every `commit_every`
records durable (fsync or the library's own equivalent) before they go on. Keys to read are handed
over in the form each contestant likes best, prepared untimed.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import hashmem
from bench.harness import Timed
from bench.store_data import Payloads, hashed
from bench.table_rivals import as_bytes


class Contestant:
    """A store of records in an empty folder of its own.

    `write`, and the calls that the other methods return, are what is timed.
    """

    name: str
    kind = "rival"
    share = 1.0  # of the records: less for those that would take too long

    reads = can_delete = can_compact = True
    commit_every = 50_000  # records made durable together
    algorithm = "sha256"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commits(self, payloads: Payloads) -> Iterator[Payloads]:
        """Cut the payloads into what is made durable together."""
        for start in range(0, len(payloads), self.commit_every):
            yield payloads[start : start + self.commit_every]

    def pairs(self, payloads: Payloads) -> list[tuple[bytes, bytes]]:
        """Hash the payloads → (digest, payload)."""
        return hashed(payloads, self.algorithm)

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
        """Prepare to read every record asked for as a bytes object, in a list."""
        raise NotImplementedError

    def one_by_one(self, digests: np.ndarray) -> Timed:
        """Prepare the same, by a call for each record, from its digest as bytes."""
        return self.all_bytes(digests)

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

    @property
    def path(self) -> str:
        return str(self.folder / "bench.hashmem")

    def open(self) -> None:
        self.store: Any = hashmem.MemoryStore(self.path, algorithm=self.algorithm)

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

    def one_by_one(self, digests: np.ndarray) -> Timed:
        keys, store = as_bytes(digests), self.store
        return lambda: [store[key] for key in keys]

    def delete(self, digests: np.ndarray) -> Timed:
        def remove() -> None:
            self.store.delete_many(digests)
            self.store.commit()

        return remove

    def compact(self) -> None:
        self.store.compact()


class PlainFile(Contestant):
    """The same bytes appended to a file and synced, hashed too; places kept in a dict."""

    name = "plain file, places in a dict"
    kind = "floor"
    can_delete = can_compact = False

    def open(self) -> None:
        self.path = self.folder / "records"
        self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 closed in close()
        self.map: Any = None
        if self.path.stat().st_size:
            self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        if self.map is not None:
            self.map.close()
        self.file.close()

    def append(self, part: Payloads) -> None:
        """Append in one piece, and sync."""
        left = memoryview(b"".join(part))
        while left:  # Linux writes at most 2 GiB a call
            left = left[self.file.write(left) :]
        os.fsync(self.file.fileno())

    def write(self, payloads: Payloads) -> None:
        self.places: dict[bytes, tuple[int, int]] = {}
        end = 0
        for part in self.commits(payloads):
            for key, payload in self.pairs(part):
                self.places[key] = (end, end + len(payload))
                end += len(payload)
            self.append(part)

    def first_bytes(self, digests: np.ndarray) -> Timed:
        keys, places, view = as_bytes(digests), self.places, self.map
        return lambda: sum([view[places[key][0]] for key in keys])

    def all_bytes(self, digests: np.ndarray) -> Timed:
        keys, places, view = as_bytes(digests), self.places, self.map

        def read() -> list[bytes]:
            return [view[start:end] for start, end in map(places.__getitem__, keys)]

        return read


class HashedFile(PlainFile):
    """The same file, the digests computed by hashmem in one call and thrown away."""

    name = "plain file, digests by digest_many"
    reads = False

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            hashmem.digest_many(part, self.algorithm)
            self.append(part)


class NamelessFile(PlainFile):
    """The same file without digests: what the disk takes when nothing has a name."""

    name = "plain file, no digests"
    reads = False

    def write(self, payloads: Payloads) -> None:
        for part in self.commits(payloads):
            self.append(part)
