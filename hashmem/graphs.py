"""Ways along edges: rows → rows, when any number of edges lead from one.

A graph of n rows is in compressed sparse row (CSR) form: `offsets` (n + 1,) and `targets` (edges,),
where the edges of row r lead to ``targets[offsets[r]:offsets[r + 1]]``. All that goes along edges
goes along the edges of `reverse` the other way: what leads *to* a row are its parents.

A search keeps the rows it found in one contiguous array, which is at once its queue and its answer,
and marks each with one bit. A target or a start that is no row is passed over. Offsets that do not
lie within the targets are a `ValueError` that names the row, once a search comes to it.
"""

from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels

__all__ = ["as_rows", "frontier", "neighbours", "reverse", "shortest"]

Rows = NDArray[np.int64]


def frontier(
    offsets: Rows,
    targets: Rows,
    starts: Rows,
    *,
    depth: int | None = None,
    limit: int | None = None,
) -> tuple[Rows, Rows]:
    """Return the rows that at most `depth` edges lead to from any start, and their distances.

    Both int64 (k,), nearest first: the starts that are rows, each once and in the order given, at
    distance 0; then, breadth-first, the rows one edge further in the order that the edges of the
    rows before come to them. Without `depth` however far. Of these, the first `limit`: the search
    ends there, and what it costs is O(edges of the rows up to there) and a bit a row of the graph.
    Raises `ValueError` where `depth` or `limit` is negative and `TypeError` where rows are no
    integers.

    >>> frontier(np.array([0, 2, 3, 3]), np.array([2, 1, 0]), np.array([0]))
    (array([0, 2, 1]), array([0, 1, 1]))
    """
    found, ends = _levels(offsets, targets, starts, depth, limit)
    return found, np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))


def neighbours(
    offsets: Rows, targets: Rows, starts: Rows, depth: int = 1, limit: int | None = None
) -> Rows:
    """Return the rows that 1 to `depth` edges lead to from any start, nearest first.

    int64 (k,): each row once, within a distance in ascending order, the starts themselves left out.
    Of these the `limit` that `frontier` comes to first. Over the `reverse` of a graph these are
    the parents, to that depth. Costs and raises what `frontier` does, and sorting.

    >>> neighbours(np.array([0, 2, 3, 3]), np.array([1, 2, 2]), np.array([0]))
    array([1, 2])
    """
    if limit is not None:
        starts = as_rows("starts", starts)
        known = np.unique(starts[(starts >= 0) & (starts < len(offsets) - 1)])
        limit = _amount("limit", limit, "rows") + len(known)
    found, ends = _levels(offsets, targets, starts, depth, limit)
    for level in np.flatnonzero(np.diff(ends) > 1):
        found[ends[level] : ends[level + 1]].sort()
    return found[ends[0] :]


def _levels(
    offsets: Rows, targets: Rows, starts: Rows, depth: int | None, limit: int | None
) -> tuple[Rows, Rows]:
    """The rows of `frontier`, and how many of them lie within each distance."""
    graph = _graph(offsets, targets)
    queries = as_rows("starts", starts)
    rows = len(graph[0]) - 1
    depth = rows if depth is None else min(_amount("depth", depth, "edges"), rows)
    room = rows if limit is None else min(_amount("limit", limit, "rows"), rows)
    found, ends = np.empty(room, np.int64), np.empty(depth + 1, np.int64)
    levels = kernels.current.frontier(*graph, queries, depth, found, ends)
    ends = ends[:levels].copy()
    found = found[: ends[-1]]
    # What is reserved and was not written takes no memory, but a small answer should keep no more.
    return (found.copy() if 2 * len(found) < room else found), ends


def reverse(offsets: Rows, targets: Rows) -> tuple[Rows, Rows]:
    """Return the graph with every edge turned round, as (offsets, targets).

    So the edges of a row lead to its parents, in ascending order, as often as edges lead from
    there. A counting sort: O(rows + edges). Raises `ValueError` where offsets lie.

    >>> reverse(np.array([0, 2, 3, 3]), np.array([1, 2, 2]))
    (array([0, 0, 1, 3]), array([0, 0, 1]))
    """
    graph = _graph(offsets, targets)
    back, sources = np.empty_like(graph[0]), np.empty_like(graph[1])
    edges = kernels.current.reverse(*graph, back, sources)
    return back, sources[:edges]


def shortest(
    offsets: Rows,
    targets: Rows,
    start: int,
    end: int,
    *,
    reverse: tuple[Rows, Rows] | None = None,
    limit: int | None = None,
) -> Rows:
    """Return the rows of a shortest chain of edges from `start` to `end`, both included.

    int64 (k,): empty where there is none of at most `limit` edges or one of them is no row; one row
    where both are the same. Searches from both ends, at each step a level on the side where fewer
    rows wait (the start's, where they are alike), until one finds a row that the other knows: so
    it follows about the square root of the edges that a search from one end would. Of equally
    short chains it gives the one that closes first: the same for the same arrays, always.

    `reverse` is the graph's `hashmem.hops.reverse`; without it that is made first, O(rows + edges).
    Raises as `frontier` does.

    >>> shortest(np.array([0, 2, 3, 4, 4]), np.array([1, 2, 3, 3]), 0, 3)
    array([0, 1, 3])
    """
    graph = _graph(offsets, targets)
    start, end, rows = index(start), index(end), len(graph[0]) - 1
    most = rows if limit is None else min(_amount("limit", limit, "edges"), rows)
    if not (0 <= start < rows and 0 <= end < rows):
        return np.empty(0, np.int64)
    if start == end:
        return np.array([start], np.int64)
    back = _reverse(*graph) if reverse is None else reverse
    parents = _graph(*back)
    chain = np.empty(most + 1, np.int64)
    length = kernels.current.shortest(*graph, *parents, start, end, most, chain)
    return chain[:length].copy()


_reverse = reverse  # what an argument of the same name hides


def as_rows(what: str, given: Any) -> Rows:
    """Return `given` as the kernels take it: aligned, contiguous int64."""
    array = np.asarray(given)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{what}: rows are integers, not {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{what}: expected one dimension, got shape {array.shape}")
    rows: Rows = np.require(array, np.int64, ["C", "A"])
    return rows


def _graph(offsets: Any, targets: Any) -> tuple[Rows, Rows]:
    graph = as_rows("offsets", offsets), as_rows("targets", targets)
    if not len(graph[0]):
        raise ValueError("offsets: one number more than there are rows, not none")
    return graph


def _amount(what: str, given: int, of: str) -> int:
    number = index(given)
    if number < 0:
        raise ValueError(f"{what}: the number of {of} is 0 or more, not {number}")
    return number
