"""DigestMultimap: digest → several int64, each digest's in the order they were added.

Two levels: a `ChainingTable` leads from a digest to the number of a chain, and that chain holds the
values (`hashmem.tables.values`). Deleting takes a digest from the table and forgets its chain; what
is left behind is reclaimed when half of all is dead, or when more room is needed while a quarter
is: then the live values move together, and the chains get the numbers of the table's entries.

Whatever ends a change early: a digest whose chain has no values is not there, and a chain that no
digest leads to does not count. The next call finishes or forgets what was begun.

Threads: any number may search while nobody writes; a writer needs the multimap for itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.tables.arguments import as_batch, as_integer, as_one, as_values
from hashmem.tables.chaining import ChainingTable
from hashmem.tables.statistics import TableStatistics
from hashmem.tables.values import SMALLEST, Flags, ValueChains, Values

__all__ = ["DigestMultimap", "MultimapStatistics"]

MOST = 1 << 40  # pairs that room can be asked for

Digests = NDArray[np.uint8]


@dataclass(frozen=True)
class MultimapStatistics:
    """How many values a multimap holds and what they take."""

    pairs: int
    digests: int
    longest: int  # most values of one digest
    dead: float  # share of the nodes that wait to be reclaimed
    nbytes: int
    overhead: float  # bytes a pair beyond its value and its share of the digests
    table: TableStatistics  # of the table that leads from digests to chains


class DigestMultimap:
    """Maps digests of one width to any number of int64 values each, in batches of arrays.

    It is a bag: a value added twice for one digest is there twice. Values come back in the order
    they were added. A batch of digests is a uint8 array (n, width); a single digest is `bytes`.
    `len` counts pairs of digest and value.

    >>> from hashmem import DigestMultimap
    >>> places = DigestMultimap(width=8)
    >>> words = np.frombuffer(b"one wordtwo wordone word", np.uint8).reshape(3, 8)
    >>> places.add(words, [10, 20, 30])
    array([ True,  True, False])
    >>> places[b"one word"]
    array([10, 30])
    >>> places.find(words[:2])
    (array([0, 2, 3]), array([10, 30, 20]))

    :param width: bytes of a digest, 8 to 64.
    :param seed: 0 to 2^128 - 1, for the same layout each time; without it a random one.
    :param capacity: how many pairs to have room for from the start.
    """

    def __init__(
        self, width: int = 32, seed: int | None = None, capacity: SupportsIndex = 0
    ) -> None:
        self._table = ChainingTable(width, seed=seed)
        self._chains = ValueChains(0, as_integer("capacity", capacity, 0, MOST))
        self._unsettled = False  # whether a change was begun and not ended
        self._changing = False  # whether that is because one is under way
        self._compacted: ValueChains | None = None  # what is to replace the chains

    # Batches.

    def add(self, digests: ArrayLike, values: ArrayLike) -> Flags:
        """Add a value (n,) for each of `digests` (n, width). True (n,) where the digest was new.

        After the values that the digest has; of equal digests in the batch the first is new.
        O(n) expected. Raises `TypeError` or `ValueError` where an argument is not as described, and
        `TableFullError` where there is no memory: nothing is added then.
        """
        queries = as_batch(digests, self.width)
        given = as_values(values, len(queries))
        self._make_room(len(queries))
        with self._change():
            used = self._chains.used
            ids, new = self._table.intern(queries, first=used)
            self._chains.append(ids, given, used + int(np.count_nonzero(new)))
        return new

    def find(self, digests: ArrayLike) -> tuple[Values, Values]:
        """Look up each of `digests` (n, width): (offsets (n + 1,), values (total,)), both int64.

        ``values[offsets[i]:offsets[i + 1]]`` are those of digest i in the order they were added,
        none where it is absent. Where values are rows and `digests` those of all rows, these are
        the (offsets, targets) that `hashmem.hops.frontier` and its like search. O(n + total)
        expected. Raises `TypeError` or `ValueError` where `digests` is no such array.
        """
        ids = self._find(digests)
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(self._chains.counts(ids), out=offsets[1:])
        return offsets, self._chains.gather(ids, offsets)

    def count(self, digests: ArrayLike) -> Values:
        """Tell how many values each of `digests` (n, width) has: int64 (n,). O(n) expected."""
        return self._chains.counts(self._find(digests))

    def contains(self, digests: ArrayLike) -> Flags:
        """Tell for each of `digests` (n, width) whether it has a value (n,). O(n) expected."""
        return self._find(digests) >= 0

    def delete(self, digests: ArrayLike) -> Flags:
        """Remove each of `digests` (n, width) with all its values. True (n,) where it was there.

        Of equal digests in the batch the first is True. O(n) expected, however many values there
        are: what they held is reclaimed later. Raises as `find` does. An interrupt leaves all of
        them there or none.
        """
        queries = as_batch(digests, self.width)
        ids = self._find(queries)
        with self._change():
            removed = self._table.delete(queries)
            self._chains.forget(ids[removed])
        self._compact_if_half_dead()
        return removed

    def remove(self, digests: ArrayLike, values: ArrayLike) -> Flags:
        """Remove each pair of `digests` (n, width) and `values` (n,). True (n,) where it was there.

        A pair that is there several times goes altogether, and a digest goes with its last value;
        of equal pairs in the batch the first is True. O(k log k), where k is n and all values of
        the digests named. Raises as `add` does. An interrupt leaves all of them there or none.
        """
        queries = as_batch(digests, self.width)
        given = as_values(values, len(queries))
        ids = self._find(queries)
        known = np.flatnonzero(ids >= 0)
        named, first, chain_asked = np.unique(ids[known], return_index=True, return_inverse=True)
        owners = queries[known[first]]  # a digest for each of the chains named
        offsets = np.append(0, np.cumsum(self._chains.counts(named)))
        held = self._chains.gather(named, offsets)
        chain_held = np.repeat(np.arange(len(named)), np.diff(offsets))
        gone, there = _matches(chain_held, held, chain_asked, given[known])
        removed = np.zeros(len(queries), np.bool_)
        removed[known] = there
        lengths = np.bincount(chain_held[~gone], minlength=len(named))
        shorter = lengths < np.diff(offsets)
        if shorter.any():
            kept = held[~gone & shorter[chain_held]]
            self._replace(owners[shorter], lengths[shorter], kept)
        return removed

    def _replace(self, owners: Digests, lengths: Values, values: Values) -> None:
        """Give each of the digests `owners` other values in new nodes; without any, it goes."""
        self._make_room(len(values))  # before chains are found: it may number them again
        ids = self._table.find(owners)
        with self._change():
            self._chains.replace(ids, lengths, values)
            self._table.delete(owners[lengths == 0])
        self._compact_if_half_dead()

    def _find(self, digests: ArrayLike) -> Values:
        self._settle_if_needed()
        return self._table.find(digests)

    # Room.

    def compact(self) -> None:
        """Give back all memory that the present pairs do not need. O(pairs)."""
        self._settle_if_needed()
        self._compact(0)
        self._table.compact()

    def clear(self) -> None:
        """Remove all pairs and give their memory back."""
        self._settle_if_needed()
        with self._change():
            self._table.clear()
            self._chains, self._compacted = ValueChains(0, 0), None

    def _make_room(self, nodes: int) -> None:
        self._settle_if_needed()
        chains = self._chains
        if not chains.has_room(nodes) and 4 * (chains.nodes - chains.live) > chains.nodes:
            self._compact(nodes)
        self._chains.make_room(nodes)

    def _compact_if_half_dead(self) -> None:
        chains = self._chains
        if (
            chains.nodes > 2 * chains.live + SMALLEST
            or chains.used > 2 * len(self._table) + SMALLEST
        ):
            with suppress(MemoryError):  # it stays large then: what was asked for is done
                self._compact(0)

    def _compact(self, spare: int) -> None:
        chains = self._chains.together(self._table.values_array, spare)
        with self._change():
            self._compacted = chains  # from here on it is done
            self._settle()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Surround a change: what ends it early leaves the rest to the next call."""
        self._changing = self._unsettled = True
        try:
            yield
        finally:
            self._changing = False
        self._unsettled = False

    def _settle_if_needed(self) -> None:
        if self._changing:
            raise RuntimeError(
                "the multimap is in the middle of a change: neither another thread nor a signal "
                "handler can use it now"
            )
        if self._unsettled:
            with self._change():
                self._settle()

    def _settle(self) -> None:
        """Finish a change that was begun, as far as it has come, or forget it. O(digests)."""
        table = self._table
        if self._compacted is not None:
            table.insert(table.digests, np.arange(len(table)))  # perhaps once more
            self._chains, self._compacted = self._compacted, None
        holds = self._chains.holds(table.values_array)
        if not holds.all():
            table.delete(table.digests[~holds])
        self._chains.settle(table.values_array)

    # What is there.

    @property
    def width(self) -> int:
        """Bytes of a digest."""
        return self._table.width

    @property
    def digests(self) -> Digests:
        """The digests (n, width) that have values, each once, read-only; in the order they were
        first added until the first deletion. ``find(digests)`` gives all pairs."""
        self._settle_if_needed()
        return self._table.digests

    @property
    def nbytes(self) -> int:
        """Bytes of memory the multimap holds, free places included."""
        return self._table.nbytes + self._chains.nbytes

    def items(self) -> Iterator[tuple[bytes, Values]]:
        """Iterate over the digests there are now, each with its values."""
        digests = self.digests.copy()
        offsets, values = self.find(digests)
        for row, start, stop in zip(digests, offsets[:-1], offsets[1:], strict=True):
            yield row.tobytes(), values[start:stop]

    def __getitem__(self, digest: bytes) -> Values:
        _, values = self.find(as_one(digest, self.width))
        if not len(values):
            raise KeyError(digest)
        return values

    def __contains__(self, digest: object) -> bool:
        self._settle_if_needed()
        return digest in self._table

    def __len__(self) -> int:
        self._settle_if_needed()
        return self._chains.live

    def __bool__(self) -> bool:
        return len(self) > 0

    def statistics(self) -> MultimapStatistics:
        """Measure the multimap and its table. O(digests)."""
        counts = self.count(self.digests)
        pairs, used = len(self), self._chains.nodes
        share = len(counts) * self.width + 8 * pairs
        return MultimapStatistics(
            pairs=pairs,
            digests=len(counts),
            longest=int(counts.max(initial=0)),
            dead=(used - pairs) / used if used else 0.0,
            nbytes=self.nbytes,
            overhead=(self.nbytes - share) / pairs if pairs else 0.0,
            table=self._table.statistics(),
        )

    def check(self) -> None:
        """Verify every invariant. O(pairs), and a pass for each value of the longest chain.

        Raises `CorruptStoreError`, with the state, unless each digest leads to a chain of its own
        and each chain holds values of its own.
        """
        self._settle_if_needed()
        self._table.check()
        self._chains.check(self._table.values_array)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} width={self.width} pairs={self._chains.live} "
            f"digests={len(self._table)}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled; keep its digests and what find "
            "gives for them, and add them to a new one"
        )


def _matches(
    chain_held: Values, held: Values, chain_asked: Values, asked: Values
) -> tuple[Flags, Flags]:
    """Which of the pairs held are among those asked for; and which of those asked for are held,
    of equal ones only the first."""
    chain, value = np.append(chain_held, chain_asked), np.append(held, asked)
    order = np.lexsort((value, chain))
    chain, value = chain[order], value[order]
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(
        np.append(False, (chain[1:] != chain[:-1]) | (value[1:] != value[:-1]))[: len(order)]
    )
    group_held, group_asked = group[: len(held)], group[len(held) :]
    is_held, is_asked = np.zeros((2, len(order)), np.bool_)
    is_held[group_held] = True
    is_asked[group_asked] = True
    first = np.zeros(len(asked), np.bool_)
    first[np.unique(group_asked, return_index=True)[1]] = True
    return is_asked[group_held], first & is_held[group_asked]
