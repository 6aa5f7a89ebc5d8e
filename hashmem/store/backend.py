"""What a store needs from the place it keeps its bytes.

A backend is an ordered map from short keys to values, changed by atomic commits. It knows nothing
of records. What every backend promises, and `hashmem.testing.BackendContract` checks:

- a write transaction is seen whole after its commit or not at all, by everyone;
- a snapshot goes on showing the commit it was taken at, whatever is written meanwhile, and a
  value read from it stays valid until the snapshot is closed;
- one writer at a time; others wait. Snapshots never wait.
- `version` differs between any two commits of one backend and is equal while nothing changed.

`durable` says that a commit survives the process and the machine, `shared` that other processes
see it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from hashmem.store.read_ahead import Reads

__all__ = ["Backend", "Reader", "Snapshot", "Transaction", "Version"]

Version = tuple[int, int]  # generation (changes when the file was rewritten), commit within it


class Reader(ABC):
    """What a snapshot and a transaction have in common."""

    version: Version  # of the commit it shows; for a transaction, that it started from

    @abstractmethod
    def get(self, key: bytes) -> memoryview | None:
        """Return the value under `key`, or None. Valid until the snapshot is closed, or the
        transaction's next change. O(log n)."""

    @abstractmethod
    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        """Yield the keys from `start` on that begin with `prefix`, in order, without reading their
        values."""


class Snapshot(Reader):
    """A view of one commit. Hold it briefly: it keeps what was replaced since from being freed."""

    map: Any = None  # a buffer in which all values lie, where there is one
    reads = Reads()  # of places in it; without one, nothing is asked for
    closed: bool = False  # also in a forked child that has inherited it

    @abstractmethod
    def extent(self, key: bytes) -> tuple[int, int, bool] | None:
        """Return where in `map` the value under `key` begins, its bytes, and whether it stays there
        in every snapshot in which the key has that value; None without one.

        O(log n), and nothing of the value is read. Without a map it begins at 0.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the view. Values read from it must not be used any more. Idempotent."""

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Transaction(Reader):
    """The one writer's view: the newest commit and its own changes on top."""

    @abstractmethod
    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""

    @abstractmethod
    def delete(self, key: bytes) -> None:
        """Remove `key`, if it is there."""


class Backend(ABC):
    """One place of storage, opened."""

    durable: ClassVar[bool]
    shared: ClassVar[bool]
    readonly: bool = False
    path: str | None = None  # where other processes find it; None where they cannot
    folder: str | None = None  # where files may lie beside what is stored here, None for nowhere

    @property
    @abstractmethod
    def version(self) -> Version:
        """The version of the newest commit, by whomever."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return a view of the newest commit."""

    def peek(self) -> Version:
        """Return the newest version of the generation that is open, without looking for another.

        What is cheap enough to ask before each read.
        """
        return self.version

    def read(self, version: Version, place: tuple[int, int]) -> bytes | None:
        """Return a part of a snapshot's `map`, from where to where, None unless `version` is the
        newest commit.

        For one small value, where making a snapshot would take longer than reading.
        """
        return None

    @abstractmethod
    def write(self) -> AbstractContextManager[Transaction]:
        """Return a context whose changes are committed at its end, or dropped if it raises.

        Raises `StoreError` where the backend is read-only or the bytes cannot be written; nothing
        has changed then.
        """

    def sync(self) -> None:  # noqa: B027  # nothing to do where each commit is durable by itself
        """Wait until all commits are durable."""

    def check(self) -> None:  # noqa: B027  # nothing to find where nothing lies under the values
        """Look through what lies under the values. Raises `CorruptStoreError` on damage."""

    @abstractmethod
    def rewrite(
        self, *, erase: bool = False, timeout: float = 0.0
    ) -> AbstractContextManager[tuple[Snapshot, Transaction]]:
        """Return a context that replaces everything by what it puts, in a new generation.

        Gives the newest commit to read from and an empty transaction to write to. Readers go on
        undisturbed; the space of the old generation is given back. If the context raises, or
        the process dies, nothing has changed.

        With `erase`, a durable backend overwrites the old generation before that, and any that is
        left from before. Snapshots that are open on one are waited for, `timeout` seconds at most.
        After that the context's end raises `StoreError`: what was put has taken the place of
        everything, the snapshots go on, and the old generation is overwritten by the next who
        erases or opens the backend for writing, when it is not read any more.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The bytes that storage takes now, free space inside it included."""

    @property
    @abstractmethod
    def snapshots(self) -> int:
        """How many snapshots this process holds open here."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Idempotent. Open snapshots keep what they need."""
