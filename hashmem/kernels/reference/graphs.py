"""Searches over rows with any number of edges each. The definition of `kernels/graphs.c`.

A graph is in compressed sparse row (CSR) form: the edges of row r lead to
``targets[offsets[r]:offsets[r + 1]]``. A target that is no row is passed over; offsets that do not
lie within the targets are a `ValueError` once a search comes to their row.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


def frontier(
    offsets: Rows, targets: Rows, starts: Rows, depth: int, found: Rows, ends: Rows
) -> int:
    """Write to `found` (room,) the rows within `depth` edges of `starts`; how many levels that is.

    Breadth-first: those of `starts` that are rows, in order and each once; then level by level the
    rows not found before, in the order that the edges of the level before come to them. Stops as
    soon as `found` is full. ``ends[d]`` is how many lie within distance d.
    """
    rows = _rows_of(offsets)
    if not len(ends):
        raise ValueError("ends must hold at least one number")
    seen = np.zeros(rows, np.bool_)
    level = _first_of_each(starts[(starts >= 0) & (starts < rows)])[: len(found)]
    count = levels = 0
    while True:
        found[count : count + len(level)] = level
        seen[level] = True
        count += len(level)
        ends[levels] = count
        levels += 1
        if count == len(found) or levels > depth or levels == len(ends):
            return levels
        level, _, liar = _expand(offsets, targets, level, seen)
        level = level[: len(found) - count]
        if liar >= 0 and count + len(level) < len(found):
            raise _lie(liar)
        if not len(level):
            return levels


def shortest(
    offsets: Rows,
    targets: Rows,
    back_offsets: Rows,
    back_targets: Rows,
    start: int,
    end: int,
    limit: int,
    out: Rows,
) -> int:
    """Write to `out` the rows of a shortest chain from `start` to `end`; its length, or 0.

    Two searches, each level by level as `frontier` goes: forth from `start`, and back from `end`
    along the graph's reverse; at each step the one whose last level is smaller, the first where
    they are alike. The chain goes through the first row that one finds and the other found before,
    and on both sides from each row to the one that it was first found from. 0 where no chain has
    at most `limit` edges.
    """
    rows = _rows_of(offsets)
    if rows != _rows_of(back_offsets):
        raise ValueError("the reverse has another number of rows")
    if not (0 <= start < rows and 0 <= end < rows) or start == end:
        raise ValueError("start and end must be two rows")
    forth, back = _Side(offsets, targets, start), _Side(back_offsets, back_targets, end)
    for _ in range(limit):
        if not (len(forth.level) and len(back.level)):
            return 0
        near, far = (forth, back) if len(forth.level) <= len(back.level) else (back, forth)
        row = near.expand(far.seen)
        if row >= 0:
            chain = [*forth.way_to(row)[::-1], *back.way_to(row)[1:]]
            if len(chain) > len(out):
                raise ValueError("out is shorter than the chain")
            out[: len(chain)] = chain
            return len(chain)
    return 0


class _Side:
    """One of two searches that are to meet."""

    def __init__(self, offsets: Rows, targets: Rows, row: int) -> None:
        self.graph = offsets, targets
        self.level = np.array([row], np.int64)
        self.levels: list[tuple[Rows, Rows]] = [(self.level, np.array([-1], np.int64))]
        self.seen = np.zeros(len(offsets) - 1, np.bool_)
        self.seen[row] = True

    def expand(self, others: Flags) -> int:
        """Find one level more. The first row of it that is among `others`, or -1."""
        found, origins, liar = _expand(*self.graph, self.level, self.seen)
        met = np.flatnonzero(others[found])
        if liar >= 0 and not len(met):
            raise _lie(liar)
        self.seen[found] = True
        self.levels.append((found, origins))
        self.level = found
        return int(found[met[0]]) if len(met) else -1

    def way_to(self, row: int) -> list[int]:
        """The rows from `row` back to where the search began."""
        way: list[int] = []
        place = -1
        for found, origins in reversed(self.levels):
            if not way:  # it is in the last level, if one graph is the other's reverse
                place = int(np.argmax(found == row))
                if found[place] != row:
                    continue
            way.append(int(found[place]))
            place = int(origins[place])
        return way


def reverse(offsets: Rows, targets: Rows, back_offsets: Rows, sources: Rows) -> int:
    """Write the graph with every edge turned round; how many edges it has.

    The edges of row r then lead to ``sources[back_offsets[r]:back_offsets[r + 1]]``, ascending.
    """
    rows = _rows_of(offsets)
    if len(back_offsets) != len(offsets) or len(sources) != len(targets):
        raise ValueError("the reverse must be as long as the graph")
    bad = _lies(offsets[:-1], offsets[1:], len(targets))
    if bad.any():
        raise _lie(int(np.argmax(bad)))
    edges = targets[offsets[0] : offsets[-1]]
    origins = np.repeat(np.arange(rows), np.diff(offsets))
    valid = (edges >= 0) & (edges < rows)
    edges, origins = edges[valid], origins[valid]
    back_offsets[0] = 0
    np.cumsum(np.bincount(edges, minlength=rows), out=back_offsets[1:])
    sources[: len(edges)] = origins[np.argsort(edges, kind="stable")]
    return len(edges)


def _rows_of(offsets: Rows) -> int:
    if not len(offsets):
        raise ValueError("offsets must hold one number more than there are rows")
    return len(offsets) - 1


def _lies(starts: Rows, stops: Rows, edges: int) -> Flags:
    lies: Flags = (starts < 0) | (starts > stops) | (stops > edges)
    return lies


def _lie(row: int) -> ValueError:
    return ValueError(f"the offsets of row {row} do not lie within the targets")


def _first_of_each(rows: Rows) -> Rows:
    _, first = np.unique(rows, return_index=True)
    distinct: Rows = rows[np.sort(first)]
    return distinct


def _expand(offsets: Rows, targets: Rows, level: Rows, seen: Flags) -> tuple[Rows, Rows, int]:
    """Follow the edges of `level`, up to the first row whose offsets lie.

    The rows that are not `seen`, in the order they come first; the place in `level` that each was
    found from; and the row that lies, or -1.
    """
    starts, stops = offsets[level], offsets[level + 1]
    bad = np.flatnonzero(_lies(starts, stops, len(targets)))
    liar = int(level[bad[0]]) if len(bad) else -1
    starts, stops = (starts, stops) if liar < 0 else (starts[: bad[0]], stops[: bad[0]])
    sizes = stops - starts
    ends = np.cumsum(sizes)
    origins = np.repeat(np.arange(len(sizes)), sizes)
    reached = targets[np.arange(len(origins)) + (starts - (ends - sizes))[origins]]
    fresh = np.flatnonzero((reached >= 0) & (reached < len(seen)))
    fresh = fresh[~seen[reached[fresh]]]
    _, first = np.unique(reached[fresh], return_index=True)
    fresh = fresh[np.sort(first)]
    return reached[fresh], origins[fresh], liar
