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
from hashmem.graphs import Rows, as_rows, frontier, neighbours, reverse, shortest
from hashmem.skips import SkipIndex

__all__ = [
    "Links",
    "frontier",
    "grown",
    "hop",
    "neighbours",
    "reverse",
    "shortest",
    "trace",
]


def hop(successors: Rows, starts: Rows, n: int) -> Rows:
    """Return the row `n` successors on from each start: int64 (m,), -1 where the chain ended.

    `successors` (rows,) and `starts` (m,) hold rows or -1; any other number that is no row counts
    as -1. Takes min(m · n, rows · log2 n) array reads: where n is large, the map "2^k hops on" is
    squared for each bit of n (doubling), so a million hops over a short array cost twenty passes
    over it; `hashmem.SkipIndex` answers for any n at once. Raises `ValueError` if n < 0,
    `TypeError` where rows are no integers.

    >>> hop(np.array([1, 2, -1]), np.array([0, 1]), 2)
    array([ 2, -1])
    """
    n = index(n)
    if n < 0:
        raise ValueError(f"n: the number of hops is 0 or more, not {n}")
    successors, rows = as_rows("successors", successors), as_rows("starts", starts)
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


def trace(successors: Rows, start: int, limit: int | None = None) -> Rows:
    """Return `start` and the rows after it, up to `limit` hops, the end, or the first repeat.

    int64 (k,), empty where `start` is no row. O(k).

    >>> trace(np.array([1, 2, 0, 0]), 3)
    array([3, 0, 1, 2])
    """
    limit = None if limit is None else index(limit)
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
        self._skips: SkipIndex | None = None  # over the same successors, once it has paid
        self._log: list[NDArray[np.int64]] = []  # blocks (source, relation, target) × edges
        self._csr: dict[tuple[int, int | None, bool], tuple[Rows, Rows]] = {}

    def set_successors(self, sources: Rows, targets: Rows) -> Rows:
        """Make `targets` the successors of `sources`, the last of equal sources winning.

        -1 as a target takes the successor away. Returns the old successors, (m,). O(m).
        """
        if len(sources):
            self.successors = grown(self.successors, int(sources.max()) + 1, -1)
        self._csr.clear()
        old = self.successors[sources]
        self.successors[sources] = targets
        if self._skips is not None:
            self._skips.set(sources, targets)
        return old

    def hop(self, starts: Rows, n: int) -> Rows:
        """Return what the function `hop` does, through an index once that is cheaper.

        One is built as soon as a call would take as many array reads as building takes, four a row,
        and then kept: 20 to 26 bytes a row.
        """
        n = index(n)
        if self._skips is None and 4 * len(self.successors) <= n * len(starts) and n > 1:
            self._skips = SkipIndex(self.successors)
        if self._skips is None or not 1 < n < 1 << 63:
            return hop(self.successors, starts, n)
        self._skips.grow(len(self.successors))
        return self._skips.skip(starts, n)

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
        log = log[:, np.lexsort((log[2], log[1], log[0]))]
        return log[:, np.append(True, (log[:, 1:] != log[:, :-1]).any(axis=0))[: log.shape[1]]]

    def csr(self, rows: int, relation: int | None = None, back: bool = False) -> tuple[Rows, Rows]:
        """Return the edges of `relation`, or all edges and successors, as (offsets, targets).

        `back`: turned round, so that they lead to parents. Kept until links or `rows` change.
        """
        asked = rows, relation, back
        if any(known[0] != rows for known in self._csr):
            self._csr.clear()
        if asked not in self._csr:
            if back:
                self._csr[asked] = reverse(*self.csr(rows, relation))
            else:
                self._csr[asked] = self._as_csr(rows, relation)
        return self._csr[asked]

    def _as_csr(self, rows: int, relation: int | None) -> tuple[Rows, Rows]:
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
        offsets: Rows = np.searchsorted(sources, np.arange(rows + 1))
        return offsets, targets
