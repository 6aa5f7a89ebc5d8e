"""DigestTable: digest → int64, the contract of both tables and all that they share.

A table keeps its entries dense and in order of insertion: `digests` (n, width) and one value each.
What differs between the kinds is the index that leads from a hash to an entry. Deleting takes
entries out of the index, and then the entries at the end move into the holes, in ascending order,
so that entries stay dense and nothing is left behind.

A table trusts no digest: its index is built on a keyed hash (`hashmem.kernels.reference.hashing`),
matches compare the whole digest, and when a search grows longer than chance explains, the table
takes a new random seed and rebuilds.

The dense rows are the truth, the index follows from them. After an exception that falls into a
change, KeyboardInterrupt too, the index is built anew from the rows, without further memory: the
batch is then inserted or deleted entirely or not at all, save that values it has overwritten stay.
Where even that is cut short, the next access does it first.

Threads: any number may search while nobody writes; a writer needs the table for itself.
"""

import operator
import secrets
from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import Any, ClassVar, NoReturn, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.errors import CorruptStoreError, TableFullError
from hashmem.kernels.reference.hashing import (
    MAX_WIDTH,
    MIN_WIDTH,
    expand_keys,
    hash_digests,
)
from hashmem.tables.arguments import LEAST, MOST, as_batch, as_integer, as_one, as_values
from hashmem.tables.memory import Column
from hashmem.tables.statistics import TableStatistics

Digests = NDArray[np.uint8]  # (n, width)
Values = NDArray[np.int64]  # (n,)
Flags = NDArray[np.bool_]  # (n,)

SMALLEST = 8  # entries that every table has room for
MOST_AHEAD = 8  # times the present size: how far a table grows at once for a batch under way
TRIES = 3  # reseeds in a row that a table takes before it changes its mind about the cause
NO_LIMIT = 1 << 62


class DigestTable(MutableMapping[bytes, int]):
    """Maps digests of one width to int64 values, in batches of arrays or one at a time as a dict.

    A batch of digests is a uint8 array (n, width); a single digest is `bytes`. The value -1 can be
    stored, but `find` answers -1 for a miss too: `contains` and `table[digest]` tell them apart.

    >>> from hashmem import OpenAddressingTable
    >>> table = OpenAddressingTable(width=8)
    >>> table[b"8 bytes."] = 1
    >>> table.update({b"8 others": 2, b"8 bytes.": 3})
    >>> list(table.items())
    [(b'8 bytes.', 3), (b'8 others', 2)]

    :param width: bytes of a digest, 8 to 64.
    :param seed: 0 to 2^128 - 1, for the same layout each time; without it a random one. A seed that
        others know lets them choose digests that collide, until the table reseeds.
    :param max_load: how full the index may be before it grows.
    :param capacity: how many entries to have room for from the start, as `reserve` does.
    """

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

    @abstractmethod
    def statistics(self) -> TableStatistics:
        """Measure the table and its probes, and set the theory beside them. O(n)."""

    # Batches.

    def find(self, digests: ArrayLike) -> Values:
        """Look up each of `digests` (n, width). Its value (n,), -1 where it is absent.

        O(n) expected. Raises `TypeError` or `ValueError` where `digests` is no such array.

        >>> from hashmem import OpenAddressingTable
        >>> table = OpenAddressingTable(width=8)
        >>> keys = np.arange(16, dtype=np.uint8).reshape(2, 8)
        >>> table.insert(keys, [7, 8])
        array([ True,  True])
        >>> table.find(keys[::-1])
        array([8, 7])
        """
        queries = as_batch(digests, self._width)
        self._settle_if_needed()
        out = np.empty(len(queries), np.int64)
        self._kernel_find(queries, out, missing=-1)
        return out

    def contains(self, digests: ArrayLike) -> Flags:
        """Tell for each of `digests` (n, width) whether it is there (n,). O(n) expected."""
        queries = as_batch(digests, self._width)
        self._settle_if_needed()
        found = np.empty(len(queries), np.int64)
        self._kernel_find(queries, found, missing=-1)
        present = np.asarray(found != -1)
        unsure = np.flatnonzero(~present)  # misses, or a stored -1
        if len(unsure):
            again = np.empty(len(unsure), np.int64)
            self._kernel_find(queries[unsure], again, missing=0)
            present[unsure] = again == -1
        return present

    def insert(self, digests: ArrayLike, values: ArrayLike) -> Flags:
        """Store a value (n,) for each of `digests` (n, width). True (n,) where it was new.

        A digest that is there gets the new value; of equal digests in the batch the first counts as
        new and the last one's value stays. O(n) expected, growth included. Raises `TypeError` or
        `ValueError`, with the table unchanged, where an argument is not as described, and
        `TableFullError` beyond the entries an index can number or memory holds: then no digest of
        the batch is added, though the values of some that were there may have been replaced.
        """
        queries = as_batch(digests, self._width)
        given = as_values(values, len(queries))
        new = np.empty(len(queries), np.bool_)
        self._add(queries, given, new, first=None)
        return new

    def intern(self, digests: ArrayLike, first: int) -> tuple[Values, Flags]:
        """Number each of `digests` (n, width): its value (n,), and True (n,) where it was new.

        A digest that is there keeps its value; the new ones get `first`, `first` + 1, … in order of
        first appearance. O(n) expected. Raises as `insert` does; `first` is at least -2^63 + 2^34.

        >>> from hashmem import OpenAddressingTable
        >>> table = OpenAddressingTable(width=8)
        >>> keys = np.repeat(np.arange(3, dtype=np.uint8), 8).reshape(3, 8)
        >>> table.intern(keys[[2, 0, 2]], first=10)
        (array([10, 11, 10]), array([ True,  True, False]))
        """
        queries = as_batch(digests, self._width)
        # What kernels add to an entry's index, `first` less the entries there, is an int64 too.
        first = as_integer("first", first, LEAST + self._most_entries, MOST - len(queries))
        out, new = np.empty(len(queries), np.int64), np.empty(len(queries), np.bool_)
        self._add(queries, out, new, first=first)
        return out, new

    def delete(self, digests: ArrayLike) -> Flags:
        """Remove each of `digests` (n, width). True (n,) where it was there.

        Of equal digests in the batch the first is True. Moves at most as many entries as it
        removes. O(n) expected. Raises as `find` does. An interrupt leaves all there or none.
        """
        queries = as_batch(digests, self._width)
        out = np.empty(len(queries), np.bool_)
        holes = np.empty(len(queries), np.int64)
        with _Change(self):
            removed = self._kernel_delete(queries, out, holes)
            if removed:
                self._moves = self._moves_into(np.sort(holes[:removed]))  # from here on it is done
                sources, targets, end = self._moves
                self._kernel_move(sources, targets)
                self._count, self._moves = end, None
        if removed:
            self._shrink_if_far_too_large()
        return out

    def _moves_into(self, holes: Values) -> tuple[Values, Values, int]:
        """Which entries past the new end go into which of `holes`, ascending; and the new end."""
        end = self._count - len(holes)
        targets = holes[: np.searchsorted(holes, end)]
        staying = np.ones(self._count - end, np.bool_)
        staying[holes[len(targets) :] - end] = False
        return np.flatnonzero(staying) + end, targets, end

    def _add(self, queries: Digests, values: Values, new: Flags, first: int | None) -> None:
        with _Change(self):
            done, before, n = 0, self._count, len(queries)
            while done < n:
                rest = queries[done:], values[done:], new[done:]
                room = min(self._room, self._capacity)
                limit = self._expected_longest
                if first is None:
                    answer = self._kernel_insert(*rest, room, limit)
                else:
                    answer = self._kernel_intern(*rest, room, limit, first - before)
                processed, self._count, longest = answer
                done += processed
                if longest > limit:
                    self._reseed(self._room)
                elif done < n:
                    added = self._count - before
                    # If what is left holds new digests as often as what was done:
                    expected = self._count + (n - done) * max(added, 1) // max(done, 1) + 1
                    self._grow(expected)
        if self._count > before:
            self._shrink_if_far_too_large()

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
        with _Change(self):
            if capacity > self._capacity:
                self._resize(capacity)
            if capacity > self._room:
                self._rebuild(capacity)
        self._reserved = max(self._reserved, capacity)

    def compact(self) -> None:
        """Give back all memory that the present entries do not need, reserved or not. O(n)."""
        with _Change(self):
            self._trim()

    def clear(self) -> None:
        """Remove all entries and give their memory back."""
        with _Change(self):
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
        with suppress(MemoryError), _Change(self):
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

    # What is there.

    @property
    def width(self) -> int:
        """Bytes of a digest."""
        return self._width

    @property
    def seed(self) -> int:
        """The seed of the keyed hash now; a reseed changes it."""
        return self._seed

    @property
    def max_load(self) -> float:
        """How full the index may be before it grows."""
        return self._load

    @property
    def nbytes(self) -> int:
        """Bytes of memory the table holds: index, digests and values, free places included."""
        return self._index_nbytes + sum(column.nbytes for column in self._columns)

    @property
    def digests(self) -> Digests:
        """The digests (n, width) of all entries, read-only; in order of insertion until the first
        deletion. Writing to the table may change or leave behind what a view shows."""
        return _read_only(self._rows)

    @property
    def values_array(self) -> Values:
        """The values (n,) of all entries, in the order of `digests`, read-only."""
        return _read_only(self._all_values[: len(self)])

    @property
    def _rows(self) -> Digests:
        return self._digests.rows[: len(self)]

    def check(self) -> None:
        """Verify every invariant. O(n).

        Raises `CorruptStoreError`, with the table's state, unless every entry is distinct and the
        index leads to each exactly once, on the path its hash tells.
        """
        rows = self._rows
        self._require(0 <= self._count <= min(self._room, self._capacity), "count beyond room")
        hashes = hash_digests(rows, self._keys)
        order = np.argsort(hashes)
        again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        twins = rows[np.union1d(order[again], order[again + 1])]
        distinct = np.unique(twins, axis=0) if len(twins) else twins
        self._require(len(distinct) == len(twins), "two entries hold the same digest")
        self._check_index(hashes)

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise CorruptStoreError(f"{what} in {self!r}")

    # One digest at a time.

    def __len__(self) -> int:
        self._settle_if_needed()
        return self._count

    def __getitem__(self, digest: bytes) -> int:
        value = self._find_one(digest, -1)
        if value == -1 and self._find_one(digest, 0) == 0:
            raise KeyError(digest)
        return value

    def _find_one(self, digest: bytes, missing: int) -> int:
        if type(digest) is not bytes or len(digest) != self._width:
            digest = as_one(digest, self._width).tobytes()
        if self._unsettled:  # in line: this is every single search
            self._settle()
        out = np.empty(1, np.int64)
        self._kernel_find(digest, out, missing)
        return int(out[0])

    def __setitem__(self, digest: bytes, value: SupportsIndex) -> None:
        self.insert(as_one(digest, self._width), [operator.index(value)])

    def __delitem__(self, digest: bytes) -> None:
        if not self.delete(as_one(digest, self._width))[0]:
            raise KeyError(digest)

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != self._width:
            return False
        return self._find_one(digest, -1) != -1 or self._find_one(digest, 0) != 0

    def __iter__(self) -> Iterator[bytes]:
        rows = self._rows
        count = len(rows)
        for row in rows:
            yield row.tobytes()
            if self._count != count:
                raise RuntimeError("the table changed size during iteration")

    def __copy__(self) -> Self:
        """Copy all entries into a table of its own, under the same seed. O(n)."""
        twin = type(self)(
            self._width, seed=self._seed, max_load=self._load, capacity=self._reserved
        )
        twin.insert(self._rows, self.values_array)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled; keep its digests and values_array, and "
            "insert them into a new table"
        )

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} width={self._width} entries={self._count} "
            f"capacity={self._capacity} room={self._room} reseeds={self._reseeds}>"
        )


class _Change:
    """Surrounds a change: whatever ends it early, the index leads to the rows again."""

    __slots__ = ("before", "table")

    def __init__(self, table: DigestTable) -> None:
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


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
