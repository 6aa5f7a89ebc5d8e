"""Any number of hops at once: an index over the links among rows.

`hashmem.hops.hop` takes one array read for each hop. Here a batch of starts skips 10^9 hops as
quickly as a few. Finding the n-th row on the way from a row to the root of its tree is the
level-ancestor problem (Berkman and Vishkin, 1994; Bender and Farach-Colton, "The level ancestor
problem simplified", 2004). Links also make cycles, so the index is not named after trees.

The graph is cut into paths, each laid out in one piece: a row keeps in its own path the child with
the largest subtree (Sleator and Tarjan, "A data structure for dynamic trees", 1983). Hops along a
path are an addition, around a cycle a remainder, and a way crosses log2(rows) paths at most.
"""

from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.graphs import Rows, as_rows

__all__ = ["SkipIndex"]

NARROW_ROWS = 1 << 30  # as many rows and more take numbers of 8 bytes in the index
# The share of rows that may be new before the index is built again; of links that changed a
# quarter of that, since chains come by them, and a way with such links is walked to its end.
STALE = 1 / 16


@dataclass
class _Index:
    """What the kernels built of the first `built` rows, and what has happened since."""

    width: int  # bytes a number
    nodes: NDArray[Any]
    order: NDArray[Any]
    paths: NDArray[Any]
    marks: NDArray[np.uint64]
    changed: int = 0  # links of these rows
    followed: int = 0  # changed links that searches went over

    @classmethod
    def of(cls, successors: Rows) -> "_Index":
        rows = len(successors)
        dtype = np.dtype(np.int32 if rows < NARROW_ROWS else np.int64)
        nodes, order = np.empty((rows, 2), dtype), np.empty(rows, dtype)
        paths, scratch = np.empty((rows, 3), dtype), np.empty((rows, 8), dtype)
        count = kernels.current.skip_build(dtype.itemsize, successors, nodes, order, paths, scratch)
        return cls(dtype.itemsize, nodes, order, paths[:count].copy(), np.empty(0, np.uint64))

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.width, self.nodes, self.order, self.paths, self.marks

    def mark(self, sources: Rows) -> None:
        """Take note that the links of `sources`, each once, are not what they were."""
        if not len(self.marks):
            self.marks = np.zeros(_mark_words(len(self.order)), np.uint64)
        kernels.current.skip_mark(*self.arrays, sources)
        self.changed += int((sources < len(self.order)).sum())


def _mark_words(positions: int) -> int:
    """Words of a bit for each position, of a bit for each of these words, and so on up to one."""
    words = max(1, -(-positions // 64))
    return words if words == 1 else words + _mark_words(words)


class SkipIndex:
    """Answers "which row is n hops on" for any n, over links that may change.

    `successors` (rows,) holds a row or -1; any other number that is no row ends a chain too. It is
    copied. Building takes O(rows), about eight times as long as one hop from every row, and the
    index 12 to 18 bytes a row beside the 8 of the links (twice that from 2^30 rows on).

    Links that were `set` since are looked up on the way, which costs a search some reads for each
    that it meets. Once searches have met as many as there are rows, one link in 64 has changed or
    one row in 16 is new, the next `skip` builds the index again: what going over changed links
    costs stays within a small multiple of a build.

    Any number of threads may skip while nobody sets.

    >>> graph = SkipIndex(np.array([1, 2, 0, 2, -1, 4]))
    >>> graph.skip(np.array([0, 3, 4, 5]), 10**9)
    array([ 1,  2, -1, -1])
    >>> graph.set([4], [0])
    >>> graph.skip(np.array([5, 5, 5]), np.array([0, 1, 10**18]))
    array([5, 4, 2])
    """

    def __init__(self, successors: Any) -> None:
        self._links = as_rows("successors", successors).copy()  # with room to grow
        self._size = len(self._links)
        self._beyond = _least_beyond(self._links, self._size)
        self._index: _Index | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def successors(self) -> Rows:
        """The links as they are now, int64 (rows,), to be read only."""
        view = self._links[: self._size]
        view.flags.writeable = False
        return view

    @property
    def nbytes(self) -> int:
        """How many bytes the index takes beside the links themselves. Builds it where it is due."""
        return sum(array.nbytes for array in self._current().arrays[1:])

    def skip(self, starts: Any, n: Any) -> Rows:
        """Return the row n successors on from each start: int64 (m,), -1 where the chain ended.

        `starts` (m,) holds rows, and what is no row leads to -1; `n` is one number of hops for all
        or one for each (m,), below 2^63. 0 hops answer the start itself, if it is a row. Takes
        O(m · log rows) array reads at most, whatever n is, where no link has changed. Raises
        `ValueError` where n is negative, too large or not as long as `starts`, `TypeError` where
        rows or n are no integers.
        """
        rows = as_rows("starts", starts)
        hops = _hops(n, rows)
        out = np.empty_like(rows)
        known = self._current()
        successors = self._links[: self._size]
        budget = max(self._size - known.followed, 0)
        met = kernels.current.skip(*known.arrays, successors, rows, hops, budget, out)
        known.followed += met
        if met > budget:
            known = self._build()
            kernels.current.skip(*known.arrays, successors, rows, hops, 0, out)
        return out

    def set(self, sources: Any, targets: Any) -> None:
        """Make ``targets[i]`` the successor of ``sources[i]``; of equal sources the last wins.

        Both (m,); what is no row as a target, best -1, takes the successor away. A source beyond
        the rows there are adds the rows up to it, ends of chains all of them. O(m), amortised over
        what is added. Raises `ValueError` where a source is negative or lengths differ.
        """
        rows, to = as_rows("sources", sources), as_rows("targets", targets)
        if len(rows) != len(to):
            raise ValueError(f"{len(rows)} sources cannot be linked to {len(to)} targets")
        if not len(rows):
            return
        if (least := int(rows.min())) < 0:
            raise ValueError(f"sources: {least} is no row; rows are 0 or more")
        self.grow(int(rows.max()) + 1)
        if self._index is not None:  # beforehand: a mark too many only costs time
            self._index.mark(rows[self._links[rows] != to])
        self._links[rows] = to
        self._beyond = min(self._beyond, _least_beyond(to, self._size))

    def grow(self, size: int) -> None:
        """Have at least `size` rows, new ones being ends of chains. Amortised O(new rows).

        A link to a number that no row had leads on once there is that row.
        """
        if size <= self._size:
            return
        if size > len(self._links):
            longer = np.full(max(size, len(self._links) * 5 // 4 + 64), -1, np.int64)
            longer[: self._size] = self._links[: self._size]
            self._links = longer
        if self._beyond < size:
            links = self._links[: self._size]
            if self._index is not None:
                self._index.mark(np.flatnonzero((links >= self._size) & (links < size)))
            self._beyond = _least_beyond(links, size)
        self._size = size

    def _current(self) -> _Index:
        """The index, built where there is none yet or too much of it has changed."""
        known = self._index
        if known is None:
            return self._build()
        new = self._size - len(known.order)
        return self._build() if 4 * known.changed + new > self._size * STALE else known

    def _build(self) -> _Index:
        self._index = built = _Index.of(self._links[: self._size])
        return built


def _least_beyond(links: Rows, rows: int) -> int:
    """The least number in `links` that a row could have but none of `rows` does."""
    return int(links[links >= rows].min(initial=np.iinfo(np.int64).max))


def _hops(n: Any, starts: Rows) -> Rows:
    """How many hops, as the kernels take them: one for each start, or one for all."""
    if np.ndim(n) == 0:
        n = index(n.item() if isinstance(n, np.ndarray) else n)
        if not 0 <= n < 1 << 63:
            raise ValueError(f"n: the number of hops is 0 to 2^63 - 1, not {n}")
        return np.array([n], np.int64)
    given = np.asarray(n)
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"n: numbers of hops are integers, not {given.dtype}")
    hops: Rows = np.require(given, np.int64, ["C", "A"])  # above 2^63 - 1 it turns negative
    if hops.shape != starts.shape:
        raise ValueError(f"n: {hops.shape} numbers of hops do not fit {starts.shape} starts")
    if hops.size and hops.min() < 0:
        wrong = int(np.flatnonzero(hops.reshape(-1) < 0)[0])
        raise ValueError(
            f"n: the number of hops is 0 to 2^63 - 1, not {given.reshape(-1)[wrong]} at {wrong}"
        )
    return hops
