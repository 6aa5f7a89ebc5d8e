"""The entries of a table and the index over them: room, growth, hashing, repair, threads.

The dense entries are the truth, the index follows from them. After an exception that falls into a
change, KeyboardInterrupt too, the index is built anew from the entries, without further memory: the
batch is then inserted or deleted entirely or not at all, save that values it has overwritten stay.
Where even that is cut short, the next access does it first.

Hashing starts with the first 8 bytes of a digest. Where searches come across too many digests that
agree in them, or one finds no place, all bytes are hashed; where that does not help, under another
random seed.

Threads: changes wait for one another. Searches never wait for each other; one beside which a change
has begun is made once more when the change has ended. Code that runs in the middle of a change, in
the same thread, as signal handlers do, is refused: it could neither wait nor see entries and index
agree.
"""

import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError, TableFullError
from hashmem.kernels.reference.hashing import MAX_WIDTH, MIN_WIDTH, expand_keys
from hashmem.tables.arguments import as_integer, as_one
from hashmem.tables.memory import Column

__all__ = ["NO_LIMIT", "SMALLEST", "Change", "Digests", "Flags", "IndexedEntries", "Values"]

Digests = NDArray[np.uint8]  # (n, width)
Values = NDArray[np.int64]  # (n,)
Flags = NDArray[np.bool_]  # (n,)

SMALLEST = 8  # entries that every table has room for
MOST_AHEAD = 8  # times the present size: how far a table grows at once for a batch under way
TRIES = 3  # seeds in a row that a table takes before it changes its mind about the cause
UNLIKELY = 64  # digests compared that were others, from which on that is no chance
NO_LIMIT = 1 << 62


def _no_lookup(digest: bytes) -> int | None:
    raise BufferError("there is no lookup")


class IndexedEntries(ABC):
    """Entries numbered from 0, each a digest and a value, and an index that leads to them."""

    _kernels: ClassVar[str]  # what the names of the kind's kernels begin with
    _header: ClassVar[int]  # bytes of an entry before its digest, the last 8 of them its value
    _max_load: ClassVar[float]
    _highest_load: ClassVar[float]
    _most_entries: ClassVar[int]
    _growth: ClassVar[int]  # times as many entries as now, for the next index
    _index: NDArray[Any]
    _room: int  # entries the index takes before it must grow

    def __init__(
        self,
        width: int = 32,
        *,
        seed: int | None = None,
        max_load: float | None = None,
        capacity: int = 0,
    ) -> None:
        self._width = as_integer("width", width, MIN_WIDTH, MAX_WIDTH)
        self._take_seed(
            secrets.randbits(128) if seed is None else as_integer("seed", seed, 0, 2**128 - 1)
        )
        self._load = self._max_load if max_load is None else float(max_load)
        if not 0.1 <= self._load <= self._highest_load:
            raise ValueError(
                f"max_load must be 0.1 to {self._highest_load} for {type(self).__name__}, "
                f"got {max_load!r}"
            )
        self._count = 0
        self._hashed = MIN_WIDTH  # bytes of a digest
        self._searched = self._mismatches = 0
        self._reseeds = self._strikes = 0
        self._lock = threading.RLock()
        self._busy = threading.Lock()  # taken after `_lock`, by the change under way
        self._version = 0  # changes begun
        self._unsettled = False  # whether the index may not lead to the entries
        self._moves: tuple[Values, Values, int] | None = None  # sources, targets, count after them
        self._look: Callable[[bytes], int | None] = _no_lookup
        self._close_look: Callable[[], None] | None = None
        self._reserved = as_integer("capacity", capacity, 0, self._most_entries)
        self._capacity = max(SMALLEST, self._reserved)
        stride = self._header + -(-self._width // 8) * 8
        self._entries = Column(self._capacity, (stride,), np.uint8)
        self._make_index(self._capacity)

    # What differs between the kinds of tables.

    @abstractmethod
    def _make_index(self, entries: int) -> None:
        """Replace the index by an empty one for up to `entries` entries; sets `_room`."""

    @abstractmethod
    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        """Raise `CorruptStoreError` unless the index leads to each entry exactly once."""

    @property
    @abstractmethod
    def _limit(self) -> int:
        """How far to look for a place, before the hash is to blame."""

    # Entries and kernels.

    @property
    def _all_digests(self) -> Digests:
        """The digests of all places (capacity, width), a view."""
        return self._entries.rows[:, self._header : self._header + self._width]

    @property
    def _all_values(self) -> Values:
        """The values of all places (capacity,), a view."""
        rows: Digests = self._entries.rows[:, self._header - 8 : self._header]
        return rows.view(np.int64)[:, 0]

    def _kernel(self, name: str, *arguments: object) -> Any:
        """Call the kernel of this kind on this table."""
        kernel = getattr(kernels.current, f"{self._kernels}_{name}")
        return kernel(
            self._index,
            self._keys,
            self._entries.rows,
            self._width,
            self._hashed,
            self._count,
            *arguments,
        )

    # Searches beside changes.

    def _search(self, queries: Digests, out: Values, missing: int) -> None:
        """Write to `out` the value of each of `queries`, or `missing`."""
        version = self._version
        if not self._unsettled:
            try:
                self._kernel("find", queries, out, missing)
            except Exception:
                if self._version == version:
                    raise
            if self._version == version:
                return
        with self._lock:
            self._settle_if_needed()
            self._kernel("find", queries, out, missing)

    def _look_again(self, digest: bytes) -> int | None:
        """Look one digest up where the lookup at hand did not serve, and leave one that does."""
        digest = as_one(digest, self._width).tobytes()
        with self._lock:
            self._settle_if_needed()
            if self._look is _no_lookup:
                self._look, self._close_look = self._kernel("lookup")
            return self._look(digest)

    def _close_lookup(self) -> None:
        # It holds the arrays in place, and reads them unasked.
        close, self._close_look = self._close_look, None
        self._look = _no_lookup
        if close is not None:
            close()

    # Exceptions.

    def _settle_if_needed(self) -> None:
        if self._unsettled:
            with self._lock, self._alone:
                if self._unsettled:
                    self._settle()

    @property
    def _alone(self) -> threading.Lock:
        """The lock that a change takes; for whoever holds `_lock`, so that none else can take it.

        Raises `RuntimeError` where this thread has it already."""
        if self._busy.locked():
            raise RuntimeError(
                "the table is in the middle of a change by this thread: a signal handler or a "
                "finalizer cannot use it now"
            )
        return self._busy

    def _settle(self) -> None:
        """Finish the moves that an exception cut short, and build the index anew, in place."""
        self._close_lookup()
        self._entries.restore()
        if self._moves is not None:
            sources, targets, end = self._moves
            rows = self._entries.rows
            rows[targets] = rows[sources]  # perhaps once more: no place is in both
            self._count, self._moves = end, None
        self._index.fill(0)
        while not self._build():
            self._strikes = min(self._strikes, TRIES)  # of these there is no end
            self._harden()
            self._index.fill(0)
        self._unsettled = False

    # Size.

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` entries in all, so that inserting up to them never rebuilds.

        The room stays, also when entries are deleted, until `compact` or `clear`. O(n). Raises
        `TableFullError` where there is no memory for it.
        """
        capacity = as_integer("capacity", capacity, 0, self._most_entries)
        with self._lock, self._alone, Change(self):
            if capacity > self._capacity:
                self._resize(capacity)
            if capacity > self._room:
                self._rebuild(capacity)
            self._reserved = max(self._reserved, capacity)

    def compact(self) -> None:
        """Give back all memory that the present entries do not need, reserved or not. O(n)."""
        with self._lock, self._alone, Change(self):
            self._trim()

    def clear(self) -> None:
        """Remove all entries and give their memory back."""
        with self._lock, self._alone, Change(self):
            self._count = self._strikes = 0
            self._trim()

    def _trim(self) -> None:
        self._reserved = 0
        self._resize(max(self._count, SMALLEST))
        self._rebuild(self._capacity)

    def _grow(self, expected: int) -> None:
        """Make room for more entries: for `expected` in all, as far as that can be trusted."""
        if self._count >= self._most_entries:
            raise TableFullError(
                f"{type(self).__name__} holds at most {self._most_entries} entries"
            )
        expected = min(expected, MOST_AHEAD * self._count + SMALLEST)
        if self._count >= self._capacity:
            self._resize(self._bounded(max(expected, _with_slack(self._count))))
        if self._count >= self._room:
            self._strikes = 0
            # A quarter more than expected, so that the next batch does not rebuild it.
            self._rebuild(self._bounded(max(expected + expected // 4, self._growth * self._count)))

    def _bounded(self, entries: int) -> int:
        return min(entries, self._most_entries)

    def _shrink_if_far_too_large(self) -> None:
        kept = max(self._count, self._reserved)
        spare_rows = self._capacity > 2 * _with_slack(kept)
        spare_index = self._room > 2 * self._growth * (kept + SMALLEST)
        if not (spare_rows or spare_index):
            return
        # Without memory to shrink into, the table stays large: what was asked for is done.
        with suppress(MemoryError), self._alone, Change(self):
            if spare_rows:
                self._resize(_with_slack(kept))
            if spare_index:
                self._rebuild(self._growth * kept + SMALLEST)  # as if it had just grown

    def _resize(self, capacity: int) -> None:
        self._capacity = min(self._capacity, capacity)
        self._entries.resize(capacity)
        self._capacity = capacity

    # The index and its hash.

    def _build(self) -> bool:
        """Fill the empty index with all entries. Whether there was a place for each."""
        return bool(self._kernel("build", self._limit) == self._count)

    def _rebuild(self, entries: int) -> None:
        """Build a new index for up to `entries` entries."""
        self._make_index(entries)
        if not self._build():
            self._rehash(entries)

    def _rehash(self, entries: int) -> None:
        """Build a new index under a better hash."""
        self._harden()
        # Once seeds have not helped, the load may be at fault.
        self._rebuild(self._bounded(2 * entries) if self._strikes == TRIES + 1 else entries)

    def _harden(self) -> None:
        """Hash better, since a digest found no place, or too many agree in the bytes hashed: all of
        their bytes, then under another random seed.

        Raises `TableFullError` where the hash must be broken: an index that looks any distance for
        a place, in which nothing has a place yet.
        """
        self._searched = self._mismatches = 0
        if self._hashed < self._width:
            self._hashed = self._width
            return
        if self._strikes > 2 * TRIES:
            raise TableFullError(f"digests find no place, under any seed, in {self!r}")
        self._strikes += 1
        self._reseeds += 1
        self._take_seed(secrets.randbits(128))

    def _take_seed(self, seed: int) -> None:
        self._seed = seed
        self._keys = expand_keys(self._seed)

    @property
    def _accepts_any_length(self) -> bool:
        return self._strikes > 2 * TRIES

    @property
    def _meets_too_many_others(self) -> bool:
        may_help = self._hashed < self._width or self._strikes < TRIES
        return may_help and self._mismatches > UNLIKELY + self._searched // 4

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise CorruptStoreError(f"{what} in {self!r}")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} width={self._width} entries={self._count} "
            f"capacity={self._capacity} room={self._room} reseeds={self._reseeds}>"
        )


class Change:
    """Surrounds a change: whatever ends it early, the index leads to the entries again.

    Both of the table's locks are held around it."""

    __slots__ = ("before", "table")

    def __init__(self, table: IndexedEntries) -> None:
        self.table = table

    def __enter__(self) -> None:
        if self.table._unsettled:
            self.table._settle()
        self.before = self.table._count
        self.table._unsettled = True
        self.table._version += 1
        self.table._close_lookup()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        table = self.table
        if kind is not None:
            table._count = min(self.before, table._count)
            table._settle()
        table._unsettled = False


def _with_slack(entries: int) -> int:
    """Room for a little more: growing an entry array moves no bytes, so steps can be small."""
    return entries + entries // 32 + SMALLEST
