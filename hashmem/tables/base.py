"""DigestTable: digest → int64, the contract of both tables and all that they share.

A table keeps its entries dense and in order of insertion: `digests` (n, width) and one value each.
What differs between the kinds is the index that leads from a hash to an entry. Deleting takes
entries out of the index, and then the entries at the end move into the holes, in ascending order,
so that entries stay dense and nothing is left behind.

A table trusts no digest: its index is built on a keyed hash (`hashmem.kernels.reference.hashing`),
matches compare the whole digest, and when a search grows longer than chance explains, the table
takes a new random seed and rebuilds.

What keeps the index true, through growth and exceptions, is in `hashmem.tables.index`.

Threads: any number may search while nobody writes; a writer needs the table for itself.
"""

import operator
from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.kernels.reference.hashing import hash_digests
from hashmem.tables.arguments import LEAST, MOST, as_batch, as_integer, as_one, as_values
from hashmem.tables.index import Change, Digests, Flags, IndexedEntries, Values
from hashmem.tables.statistics import TableStatistics

__all__ = ["DigestTable"]


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
        with Change(self):
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
        with Change(self):
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

    @abstractmethod
    def statistics(self) -> TableStatistics:
        """Measure the table and its probes, and set the theory beside them. O(n)."""

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


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
