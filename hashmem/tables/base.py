"""DigestTable: digest → int64, the contract of both tables and all that they share.

A table keeps its entries dense and in order of insertion, a value and a digest side by side.
What differs between the kinds is the index that leads from a hash to an entry. Deleting takes
entries out of the index, and then the entries at the end move into the holes, in ascending order,
so that entries stay dense and nothing is left behind.

A table trusts no digest: its index is built on a keyed hash (`hashmem.kernels.reference.hashing`),
matches compare the whole digest, and when searches grow longer than chance explains, the table
hashes better and rebuilds.

What keeps the index true, through growth, exceptions and threads, is in `hashmem.tables.index`.

Threads: any number may search and change one table. Changes wait for each other. A search answers
for each 65 536 digests of its batch as if it fell between two changes, and does not wait for one
unless it began before. What is shown without a search, `digests`, `values_array` and iteration, is
for whoever knows that nobody changes the table meanwhile; a process that forks has to know it too.
"""

import operator
import os
from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any, Literal, NoReturn, Self, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.errors import DigestExistsError
from hashmem.kernels.reference.hashing import hash_digests
from hashmem.tables.arguments import LEAST, MOST, as_batch, as_integer, as_one, as_values
from hashmem.tables.index import Change, Digests, Flags, IndexedEntries, Values
from hashmem.tables.statistics import TableStatistics

__all__ = ["DigestTable"]

SLICE = 1 << 16  # digests searched for at a time: what a change may have searched for again
_REQUIRED: Any = object()
REFUSED = BufferError, TypeError, ValueError  # by a lookup: it is closed, or that is no digest
Mode = Literal["last", "first", "error"]
Item = TypeVar("Item", bound=np.generic)


class DigestTable(IndexedEntries, MutableMapping[bytes, int]):
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
        return self._values_or(as_batch(digests, self._width), missing=-1)

    def contains(self, digests: ArrayLike) -> Flags:
        """Tell for each of `digests` (n, width) whether it is there (n,). O(n) expected."""
        queries = as_batch(digests, self._width)
        version = self._version
        present = self._contains(queries)
        if self._version == version:
            return present
        with self._lock:  # a value that changed between two searches is no miss
            return self._contains(queries)

    def _contains(self, queries: Digests) -> Flags:
        present = np.asarray(self._values_or(queries, missing=-1) != -1)
        unsure = np.flatnonzero(~present)  # misses, or a stored -1
        if len(unsure):
            present[unsure] = self._values_or(queries[unsure], missing=0) == -1
        return present

    def _values_or(self, queries: Digests, missing: int) -> Values:
        out = np.empty(len(queries), np.int64)
        for start in range(0, len(queries), SLICE):
            self._search(queries[start : start + SLICE], out[start : start + SLICE], missing)
        return out

    def insert(self, digests: ArrayLike, values: ArrayLike, mode: Mode = "last") -> Flags:
        """Store a value (n,) for each of `digests` (n, width). True (n,) where it was new.

        A digest that is there gets the new value, and of equal digests in the batch the last one's
        stays. With `mode` "first" what came first stays: a digest that is there keeps its value.
        With "error" neither may be: `DigestExistsError`, and nothing is inserted. Of equal digests
        in the batch the first counts as new.

        O(n) expected, growth included; O(n log n) with "error". Raises `TypeError` or `ValueError`,
        with the table unchanged, where an argument is not as described, and `TableFullError` beyond
        the entries an index can number or memory holds: then no digest of the batch is added,
        though the values of some that were there may have been replaced.

        >>> from hashmem import OpenAddressingTable
        >>> table = OpenAddressingTable(width=8)
        >>> keys = np.arange(16, dtype=np.uint8).reshape(2, 8)
        >>> table.insert(keys[[0, 0]], [1, 2])
        array([ True, False])
        >>> table.insert(keys, [3, 4], mode="first")
        array([False,  True])
        >>> table.find(keys)
        array([2, 4])
        """
        queries = self._batch(digests)
        given = self._apart(as_values(values, len(queries)))
        if mode not in ("last", "first", "error"):
            raise ValueError(f'mode must be "last", "first" or "error", got {mode!r}')
        new = np.empty(len(queries), np.bool_)
        with self._lock:
            if mode == "error":
                self._refuse_known(queries)
            self._add(queries, given, new, keep=mode == "first")
        return new

    def _batch(self, digests: ArrayLike) -> Digests:
        return self._apart(as_batch(digests, self._width))

    def _apart(self, array: NDArray[Item]) -> NDArray[Item]:
        """Copy what lies in the table itself, since a change must not write what it reads."""
        return array.copy() if np.may_share_memory(array, self._entries.rows) else array

    def _refuse_known(self, queries: Digests) -> None:
        """Raise `DigestExistsError` if one of `queries` is there, or is in the batch before."""
        repeated = np.ones(len(queries), np.bool_)
        repeated[np.unique(queries, axis=0, return_index=True)[1]] = False
        known = repeated | self.contains(queries)
        if known.any():
            at = int(known.argmax())
            raise DigestExistsError(
                f"the digest at position {at}, {queries[at].tobytes().hex()}, is there already; "
                'mode "first" or "last" says which value to keep'
            )

    def intern(self, digests: ArrayLike, first: int) -> tuple[Values, Flags]:
        """Number each of `digests` (n, width): its value (n,), and True (n,) where it was new.

        A digest that is there keeps its value; the new ones get `first`, `first` + 1, … in order of
        first appearance. O(n) expected. Raises as `insert` does; `first` is at least -2^63 + 2^33.

        >>> from hashmem import OpenAddressingTable
        >>> table = OpenAddressingTable(width=8)
        >>> keys = np.repeat(np.arange(3, dtype=np.uint8), 8).reshape(3, 8)
        >>> table.intern(keys[[2, 0, 2]], first=10)
        (array([10, 11, 10]), array([ True,  True, False]))
        """
        queries = self._batch(digests)
        # What kernels add to an entry's index, `first` less the entries there, is an int64 too.
        first = as_integer("first", first, LEAST + self._most_entries, MOST - len(queries))
        out, new = np.empty(len(queries), np.int64), np.empty(len(queries), np.bool_)
        self._add(queries, out, new, first=first)
        return out, new

    def pop_many(self, digests: ArrayLike) -> tuple[Values, Flags]:
        """Remove each of `digests` (n, width). Its value (n,), and True (n,) where it was there.

        Where it was not, or came earlier in the batch, the value is -1. As `delete` otherwise.
        """
        queries = self._batch(digests)
        with self._lock:
            values = self._values_or(queries, missing=-1)
            removed = self.delete(queries)
        values[~removed] = -1
        return values, removed

    def delete(self, digests: ArrayLike) -> Flags:
        """Remove each of `digests` (n, width). True (n,) where it was there.

        Of equal digests in the batch the first is True. Moves at most as many entries as it
        removes. O(n) expected. Raises as `find` does. An interrupt leaves all there or none.
        """
        queries = self._batch(digests)
        out = np.empty(len(queries), np.bool_)
        holes = np.empty(len(queries), np.int64)
        with self._lock:
            with self._alone, Change(self):
                removed = self._kernel("delete", queries, out, holes)
                if removed:
                    moves = self._moves_into(np.sort(holes[:removed]))
                    self._moves = moves  # from here on it is done
                    self._kernel("move", *moves[:2])
                    self._count, self._moves = moves[2], None
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

    def _add(
        self,
        queries: Digests,
        values: Values,
        new: Flags,
        *,
        keep: bool = False,
        first: int | None = None,
    ) -> None:
        """Insert, or intern where there is a `first`."""
        with self._lock:
            before = self._count
            with self._alone, Change(self):
                name = "insert" if first is None else "intern"
                how = keep if first is None else first - before
                done, n = 0, len(queries)
                while done < n:
                    rest = queries[done:], values[done:], new[done:]
                    room = min(self._room, self._capacity)
                    answer = self._kernel(name, room, self._limit, *rest, how)
                    processed, self._count, mismatches = answer
                    done += processed
                    self._searched += processed
                    self._mismatches += mismatches
                    if self._meets_too_many_others or (done < n and self._count < room):
                        self._rehash(self._room)
                    elif done < n:
                        added = self._count - before
                        # If what is left holds new digests as often as what was done:
                        self._grow(self._count + (n - done) * max(added, 1) // max(done, 1) + 1)
            if self._count > before:
                self._shrink_if_far_too_large()

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
        return self._index.nbytes + self._entries.nbytes

    @property
    def digests(self) -> Digests:
        """The digests (n, width) of all entries, read-only; in order of insertion until the first
        deletion. Writing to the table may change or leave behind what a view shows."""
        return _read_only(self._rows)

    @property
    def values_array(self) -> Values:
        """The values (n,) of all entries, in the order of `digests`, read-only."""
        return _read_only(self._all_values[: len(self)])

    def freeze(self, path: str | os.PathLike[str] | None = None) -> bytes | None:
        """Freeze all entries, to bytes or to a file at `path`, as `hashmem.tables.freeze` does."""
        from hashmem.tables.frozen_build import freeze  # which knows tables

        return freeze(self, path)

    @property
    def _rows(self) -> Digests:
        return self._all_digests[: len(self)]

    @abstractmethod
    def statistics(self) -> TableStatistics:
        """Measure the table and its probes, and set the theory beside them. O(n)."""

    def check(self) -> None:
        """Verify every invariant. O(n).

        Raises `CorruptStoreError`, with the table's state, unless every entry is distinct and the
        index leads to each exactly once, on the path its hash tells.
        """
        with self._lock:
            self._check()

    def _check(self) -> None:
        rows = self._rows
        self._require(0 <= self._count <= min(self._room, self._capacity), "count beyond room")
        hashes = hash_digests(rows[:, : self._hashed], self._keys)
        order = np.argsort(hashes)
        again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        twins = rows[np.union1d(order[again], order[again + 1])]
        distinct = np.unique(twins, axis=0) if len(twins) else twins
        self._require(len(distinct) == len(twins), "two entries hold the same digest")
        self._check_index(hashes)

    # One digest at a time.

    def __len__(self) -> int:
        self._settle_if_needed()
        return self._count

    def __getitem__(self, digest: bytes) -> int:
        try:
            value = self._look(digest)
        except REFUSED:
            value = self._look_again(digest)
        if value is None:
            raise KeyError(digest)
        return value

    def _find_one(self, digest: bytes) -> int | None:
        try:
            return self._look(digest)
        except REFUSED:
            return self._look_again(digest)

    def __setitem__(self, digest: bytes, value: SupportsIndex) -> None:
        self.insert(as_one(digest, self._width), [operator.index(value)])

    def __delitem__(self, digest: bytes) -> None:
        if not self.delete(as_one(digest, self._width))[0]:
            raise KeyError(digest)

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes | bytearray | memoryview) or len(digest) != self._width:
            return False
        return self._find_one(bytes(digest)) is not None

    def pop(self, digest: bytes, default: Any = _REQUIRED, /) -> Any:
        """Remove `digest` and return its value; `default` where it is absent, or `KeyError`."""
        values, removed = self.pop_many(as_one(digest, self._width))
        if removed[0]:
            return int(values[0])
        if default is _REQUIRED:
            raise KeyError(digest)
        return default

    def popitem(self) -> tuple[bytes, int]:
        """Remove the last entry in the order of `digests` and return it. O(1) expected.

        Raises `KeyError` where the table is empty."""
        with self._lock:
            if not len(self):
                raise KeyError("the table is empty")
            digest = self._rows[-1].tobytes()
            return digest, self.pop(digest)

    def setdefault(self, digest: bytes, default: SupportsIndex, /) -> int:
        """Return the value of `digest`, which is `default` from now on where it was absent."""
        with self._lock:
            self.insert(as_one(digest, self._width), [operator.index(default)], mode="first")
            return self[digest]

    def update(  # type: ignore[override] # no keyword is a digest
        self, other: Mapping[bytes, SupportsIndex] | Iterable[tuple[bytes, SupportsIndex]] = (), /
    ) -> None:
        """Insert all pairs of a mapping or an iterable, in one batch: all of them or, where one is
        refused, none. O(n) expected. Raises as `insert` does."""
        pairs = list(other.items() if isinstance(other, Mapping) else other)
        digests = np.array(
            [as_one(digest, self._width)[0] for digest, _ in pairs], np.uint8
        ).reshape(-1, self._width)
        self.insert(digests, [operator.index(value) for _, value in pairs])

    def values(self) -> ValuesView[int]:
        """Values, in the order of `digests`."""
        return _Values(self)

    def items(self) -> ItemsView[bytes, int]:
        """Pairs of digest and value, in the order of `digests`."""
        return _Items(self)

    def __iter__(self) -> Iterator[bytes]:
        return (digest for digest, _ in self._pairs())

    def _pairs(self) -> Iterator[tuple[bytes, int]]:
        count, stop = len(self), 0
        while stop < count:  # a few at first: not everybody wants them all
            start, stop = stop, min(max(2 * stop, 16), stop + SLICE, count)
            raw, width = self._rows[start:stop].tobytes(), self._width
            values = self._all_values[start:stop].tolist()
            for at, value in enumerate(values):
                yield raw[at * width : (at + 1) * width], value
                if self._count != count:
                    raise RuntimeError("the table changed size during iteration")

    def __copy__(self) -> Self:
        """Copy all entries into a table of its own, under the same seed. O(n)."""
        with self._lock:
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


class _Values(ValuesView[int]):
    _mapping: DigestTable

    def __iter__(self) -> Iterator[int]:
        return (value for _, value in self._mapping._pairs())


class _Items(ItemsView[bytes, int]):
    _mapping: DigestTable

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return self._mapping._pairs()


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
