"""The entries of a table and the index over them: room, growth, seeds, and repair.

The dense rows are the truth, the index follows from them. After an exception that falls into a
change, KeyboardInterrupt too, the index is built anew from the rows, without further memory: the
batch is then inserted or deleted entirely or not at all, save that values it has overwritten stay.
Where even that is cut short, the next access does it first.

When a search grows longer than chance explains, the index is built anew under another random seed.
"""

import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError, TableFullError
from hashmem.kernels.reference.hashing import MAX_WIDTH, MIN_WIDTH, expand_keys
from hashmem.tables.arguments import as_integer
from hashmem.tables.memory import Column

__all__ = ["NO_LIMIT", "SMALLEST", "Change", "Digests", "Flags", "IndexedEntries", "Values"]

Digests = NDArray[np.uint8]  # (n, width)
Values = NDArray[np.int64]  # (n,)
Flags = NDArray[np.bool_]  # (n,)

SMALLEST = 8  # entries that every table has room for
MOST_AHEAD = 8  # times the present size: how far a table grows at once for a batch under way
TRIES = 3  # reseeds in a row that a table takes before it changes its mind about the cause
NO_LIMIT = 1 << 62


class IndexedEntries(ABC):
    """Entries numbered from 0, each a digest and a value, and an index that leads to them."""

    _max_load: ClassVar[float]
    _highest_load: ClassVar[float]
    _most_entries: ClassVar[int]
    _growth: ClassVar[int]  # times as many entries as now, for the next index
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
        self._unsettled = False  # whether the index may not lead to the rows
        self._moves: tuple[Values, Values, int] | None = None  # sources, targets, count after them
        self._reseeds = self._strikes = 0
        self._reserved = as_integer("capacity", capacity, 0, self._most_entries)
        self._capacity = max(SMALLEST, self._reserved)
        self._digests = Column(self._capacity, (self._width,), np.uint8)
        self._make_columns(self._capacity)
        self._make_index(self._capacity)

    # What differs between the kinds of tables.

    @abstractmethod
    def _make_columns(self, capacity: int) -> None:
        """Make what lies beside the digests."""

    @property
    @abstractmethod
    def _columns(self) -> tuple[Column[Any], ...]:
        """The digests and what lies beside them."""

    @abstractmethod
    def _make_index(self, entries: int) -> None:
        """Replace the index by an empty one for up to `entries` entries; sets `_room`."""

    @abstractmethod
    def _empty_index(self) -> None:
        """Make the index lead nowhere, in place."""

    @abstractmethod
    def _build(self) -> int:
        """Fill the empty index with all entries. The longest probe, where building sees it."""

    @abstractmethod
    def _kernel_find(self, queries: Digests | bytes, out: Values, missing: int) -> None: ...

    @abstractmethod
    def _kernel_insert(
        self, queries: Digests, given: Values, new: Flags, room: int, limit: int
    ) -> tuple[int, int, int]: ...

    @abstractmethod
    def _kernel_intern(
        self, queries: Digests, out: Values, new: Flags, room: int, limit: int, offset: int
    ) -> tuple[int, int, int]: ...

    @abstractmethod
    def _kernel_delete(self, queries: Digests, out: Flags, holes: Values) -> int: ...

    @abstractmethod
    def _kernel_move(self, sources: Values, targets: Values) -> None: ...

    @abstractmethod
    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        """Raise `CorruptStoreError` unless the index leads to each entry exactly once."""

    @property
    @abstractmethod
    def _index_nbytes(self) -> int: ...

    @property
    @abstractmethod
    def _expected_longest(self) -> int:
        """The longest probe that chance explains, with room to spare."""

    @property
    @abstractmethod
    def _all_values(self) -> Values:
        """The values of all places (capacity,), writable."""

    # Exceptions.

    def _settle_if_needed(self) -> None:
        if self._unsettled:
            self._settle()

    def _settle(self) -> None:
        """Finish the moves that an exception cut short, and build the index anew, in place."""
        for column in self._columns:
            column.restore()
        if self._moves is not None:
            sources, targets, end = self._moves
            for rows in (self._digests.rows, self._all_values):
                rows[targets] = rows[sources]  # perhaps once more: no place is in both
            self._count, self._moves = end, None
        self._empty_index()
        while self._build() > self._expected_longest:
            self._strike()
            self._empty_index()
        self._unsettled = False

    # Size.

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` entries in all, so that inserting up to them never rebuilds.

        The room stays, also when entries are deleted, until `compact` or `clear`. O(n). Raises
        `TableFullError` where there is no memory for it.
        """
        capacity = as_integer("capacity", capacity, 0, self._most_entries)
        with Change(self):
            if capacity > self._capacity:
                self._resize(capacity)
            if capacity > self._room:
                self._rebuild(capacity)
        self._reserved = max(self._reserved, capacity)

    def compact(self) -> None:
        """Give back all memory that the present entries do not need, reserved or not. O(n)."""
        with Change(self):
            self._trim()

    def clear(self) -> None:
        """Remove all entries and give their memory back."""
        with Change(self):
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
        self._require(
            self._count >= min(self._room, self._capacity),
            "the index takes no entry, with room left",
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
        spare_index = self._room > 4 * (kept + SMALLEST)
        if not (spare_rows or spare_index):
            return
        # Without memory to shrink into, the table stays large: what was asked for is done.
        with suppress(MemoryError), Change(self):
            if spare_rows:
                self._resize(_with_slack(kept))
            if spare_index:
                self._rebuild(2 * kept + SMALLEST)

    def _resize(self, capacity: int) -> None:
        self._capacity = min(self._capacity, capacity)  # what holds whichever column fails
        for column in self._columns:
            column.resize(capacity)
        self._capacity = capacity

    def _rebuild(self, entries: int) -> None:
        """Build a new index for up to `entries` entries."""
        self._make_index(entries)
        if self._build() > self._expected_longest:
            self._reseed(entries)

    def _reseed(self, entries: int) -> None:
        """Rebuild under a new seed, since a probe was too long, until none is.

        After `TRIES` in a row the load may be at fault, so the index doubles. After as many again
        the hash must be: from then on any length is accepted, slow but right, until the next
        growth.
        """
        while True:
            if self._strikes >= TRIES:
                entries = self._bounded(2 * entries)
            self._make_index(entries)  # first: where there is no memory for it, the seed stays
            self._strike()
            if self._build() <= self._expected_longest:
                return

    def _strike(self) -> None:
        self._strikes += 1
        self._reseeds += 1
        self._take_seed(secrets.randbits(128))

    def _take_seed(self, seed: int) -> None:
        self._seed = seed
        self._keys = expand_keys(self._seed)

    @property
    def _accepts_any_length(self) -> bool:
        return self._strikes > 2 * TRIES

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise CorruptStoreError(f"{what} in {self!r}")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} width={self._width} entries={self._count} "
            f"capacity={self._capacity} room={self._room} reseeds={self._reseeds}>"
        )


class Change:
    """Surrounds a change: whatever ends it early, the index leads to the rows again."""

    __slots__ = ("before", "table")

    def __init__(self, table: IndexedEntries) -> None:
        self.table = table

    def __enter__(self) -> None:
        self.table._settle_if_needed()
        self.before = self.table._count
        self.table._unsettled = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        table = self.table
        if kind is not None:
            table._count = min(self.before, table._count)
            table._settle()
        table._unsettled = False


def _with_slack(entries: int) -> int:
    """Room for a sixteenth more: growing an entry array moves no bytes, so steps can be small."""
    return entries + entries // 16 + SMALLEST
