"""What a contestant of the store bench does, and the two that set the scale: hashmem and a file.

All address records by SHA-256, computed within the timed write, and make every `commit_every`
records durable (fsync or the library's own equivalent) before they go on. Keys to read are handed
over in the form each contestant likes best, prepared untimed.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import hashmem
from bench.harness import Timed
from bench.table_rivals import as_bytes

Payloads = Sequence[bytes]


def hashed(payloads: Payloads) -> list[tuple[bytes, bytes]]:
    """Return (digest, payload) pairs, by hashlib."""
    sha256 = hashlib.sha256
    return [(sha256(payload).digest(), payload) for payload in payloads]


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
