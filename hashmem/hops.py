"""Following links: row → row → …, any number of hops in one call.

Rows are the numbers a table gives to digests, so that a link is resolved to its row once and a hop
is one array read. A row has at most one *successor*, kept in an array; and any number of *edges*,
each with a relation, kept as lists and read as a compressed sparse row (CSR) form.

What the awkward cases answer, here and in everything built on this:

- a chain that ends before n hops are done answers -1: it has no n-th successor;
- 0 hops answer the start itself, if it is a row;
- cycles are walked like any chain by `hop`; `trace` stops before it would repeat a row; and
  `neighbours` visits a row once;
- a link to something not stored leads to a row like any other (what is stored is not known here).

Links may be read by any number of threads while nobody writes.
"""

from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels

__all__ = ["Links", "grown", "hop", "neighbours", "trace"]

Rows = NDArray[np.int64]


def hop(successors: Rows, starts: Rows, n: int) -> Rows:
    """Return the row `n` successors on from each start: int64 (m,), -1 where the chain ended.

    `successors` (rows,) and `starts` (m,) hold rows or -1; any other number that is no row counts
    as -1. Takes min(m · n, rows · log2 n) array reads: where n is large, the map "2^k hops on" is
    squared for each bit of n (doubling), so a million hops over a short array cost twenty passes
    over it. Raises `ValueError` if n < 0, `TypeError` where rows are no integers.

    >>> hop(np.array([1, 2, -1]), np.array([0, 1]), 2)
    array([ 2, -1])
    """
    n = index(n)
    if n < 0:
        raise ValueError(f"n: the number of hops is 0 or more, not {n}")
    successors, rows = _rows("successors", successors), _rows("starts", starts)
    out = np.empty_like(rows)
    if not len(rows):
        return out
    if n * len(rows) <= len(successors) * n.bit_length() or n < 2:
        kernels.current.hop(successors, rows, n, out)
        return out
    step = successors  # row → row 2^k hops on
    kernels.current.hop(step, rows, n & 1, out)
    for k in range(1, n.bit_length()):
        squared = np.empty_like(step)
        kernels.current.hop(step, step, 1, squared)
        step = squared
        if n >> k & 1:
            rows, out = out, np.empty_like(out)
            kernels.current.hop(step, rows, 1, out)
    return out


def _rows(what: str, given: Any) -> Rows:
    """`given` as the kernels take it: aligned, contiguous int64."""
    array = np.asarray(given)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{what}: rows are integers, not {array.dtype}")
    rows: Rows = np.require(array, np.int64, ["C", "A"])
    return rows


def trace(successors: Rows, start: int, limit: int | None = None) -> Rows:
    """Return `start` and the rows after it, up to `limit` hops, the end, or the first repeat.

    int64 (k,), empty where `start` is no row. O(k).

    >>> trace(np.array([1, 2, 0, 0]), 3)
    array([3, 0, 1, 2])
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit: the number of hops is 0 or more, not {limit}")
    seen: dict[int, None] = {}
    row = start
    while 0 <= row < len(successors) and row not in seen:
        seen[row] = None
        if len(seen) - 1 == limit:
            break
        row = int(successors[row])
    return np.fromiter(seen, np.int64, len(seen))


def neighbours(offsets: Rows, targets: Rows, starts: Rows, depth: int = 1) -> Rows:
    """Return the rows that 1 to `depth` edges lead to from any start, nearest first.

    `offsets` (rows + 1,) and `targets` (edges,) are CSR: the edges of row r lead to
    ``targets[offsets[r]:offsets[r + 1]]``. Breadth-first over whole frontiers; each row comes once,
    within a distance in ascending order, the starts themselves left out. O(edges visited).
    Raises `ValueError` if depth < 0.

    >>> neighbours(np.array([0, 2, 3, 3]), np.array([1, 2, 2]), np.array([0]))
    array([1, 2])
    """
    if depth < 0:
        raise ValueError(f"depth: the number of edges is 0 or more, not {depth}")
    rows = len(offsets) - 1
    seen = np.zeros(rows, bool)
    frontier = np.unique(starts[(starts >= 0) & (starts < rows)])
    seen[frontier] = True
    found = [np.empty(0, np.int64)]
    for _ in range(depth):
        reached = targets[_ranges(offsets[frontier], offsets[frontier + 1])]
        reached = reached[(reached >= 0) & (reached < rows)]
        frontier = np.unique(reached[~seen[reached]])
        if not len(frontier):
            break
        seen[frontier] = True
        found.append(frontier)
    return np.concatenate(found)


def _ranges(starts: Rows, stops: Rows) -> Rows:
    """arange(start, stop) for each pair, joined."""
    sizes = stops - starts
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    joined: Rows = np.arange(total) + np.repeat(starts - (ends - sizes), sizes)
    return joined


def grown(array: NDArray[Any], size: int, fill: int) -> NDArray[Any]:
    """Return `array`, or where it is shorter than `size` a longer copy padded with `fill`.

    Grows by a quarter at least, so that appending one at a time costs O(1) each.
    """
    if size <= len(array):
        return array
    longer = np.full((max(size, len(array) * 5 // 4 + 64), *array.shape[1:]), fill, array.dtype)
    longer[: len(array)] = array
    return longer


class Links:
    """The links among rows: one successor each, and any number of edges with relations.

    A log of edges is kept; the CSR form is built from it when next asked for, O(edges · log).
    Adding the same edge twice makes one edge. `CLEAR` as a relation ends all edges of its source
    that came before it.
    """

    CLEAR = -1

    def __init__(self) -> None:
        self.successors: Rows = np.empty(0, np.int64)  # may be longer than the rows, -1 there
        self._log: list[NDArray[np.int64]] = []  # blocks (source, relation, target) × edges
        self._csr: dict[int | None, tuple[int, Rows, Rows]] = {}

    def set_successors(self, sources: Rows, targets: Rows) -> Rows:
        """Make `targets` the successors of `sources`, the last of equal sources winning.

        -1 as a target takes the successor away. Returns the old successors, (m,). O(m).
        """
        if len(sources):
            self.successors = grown(self.successors, int(sources.max()) + 1, -1)
        self._csr.clear()
        old = self.successors[sources]
        self.successors[sources] = targets
        return old

    def add_edges(self, sources: Rows, relations: Rows, targets: Rows) -> None:
        """Add an edge for each position. O(m)."""
        if len(sources):
            self._log.append(np.stack([sources, relations, targets]))
            self._csr.clear()

    def drop_edges_after(self, blocks: int) -> None:
        """Undo every `add_edges` but the first `blocks`, as counted by `edge_blocks`."""
        del self._log[blocks:]
        self._csr.clear()

    @property
    def edge_blocks(self) -> int:
        """How many calls of `add_edges` are in the log."""
        return len(self._log)

    def edges(self) -> NDArray[np.int64]:
        """Return the edges in force as (source, relation, target), int64 (3, edges), sorted."""
        if not self._log:
            return np.empty((3, 0), np.int64)
        log = np.concatenate(self._log, axis=1)
        cleared = log[1] == self.CLEAR
        if cleared.any():
            last = np.full(int(log[0].max()) + 1, -1, np.int64)  # position of the last CLEAR
            np.maximum.at(last, log[0, cleared], np.flatnonzero(cleared))
            log = log[:, ~cleared & (np.arange(log.shape[1]) > last[log[0]])]
        return np.unique(log, axis=1)

    def csr(self, rows: int, relation: int | None = None) -> tuple[Rows, Rows]:
        """Return the edges of `relation`, or all edges and successors, as (offsets, targets)."""
        known = self._csr.get(relation)
        if known is not None and known[0] == rows:
            return known[1], known[2]
        edges = self.edges()
        if relation is None:
            linked = np.flatnonzero(self.successors >= 0)
            sources = np.concatenate([edges[0], linked])
            targets = np.concatenate([edges[2], self.successors[linked]])
            order = np.argsort(sources, kind="stable")
            sources, targets = sources[order], targets[order]
        else:
            chosen = edges[1] == relation
            sources, targets = edges[0, chosen], edges[2, chosen]
        offsets = np.searchsorted(sources, np.arange(rows + 1))
        self._csr[relation] = (rows, offsets, targets)
        return offsets, targets
