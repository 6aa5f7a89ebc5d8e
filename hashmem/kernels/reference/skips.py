"""Any number of hops at once, over paths. The definition of `kernels/skips.c`.

An index is `nodes` (built, 2), `order` (built,) and `paths` (count, 3) of int32 or int64, and
`marks` of uint64; `skips.c` says what they hold. Which child of a row shares its path where
subtrees are equal, how paths are numbered and where they lie is each kernel's own: what is defined
is the answers. Whatever the arrays hold, nothing outside them is read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Array = NDArray[np.signedinteger[Any]]

NONE, CHANGED = -1, -2
MOST_PATHS = 64  # a damaged index may lead around forever


def skip_build(
    width: int, successors: Rows, nodes: Array, order: Array, paths: Array, scratch: Array
) -> int:
    """Fill `nodes`, `order` and the first of `paths` (rows, 3); return how many paths there are.

    `width` is 4, below 2^30 rows, or 8 bytes; `scratch` (rows, 8) is not used here. All the ways
    that there are of rows are followed at once, twice as far each time: O(rows · log rows).
    """
    rows = end = len(successors)
    if not rows:
        return 0
    linked = (successors >= 0) & (successors < rows)
    up = np.append(np.where(linked, successors, end), end)
    self = np.arange(rows + 1)

    on_cycle, first = np.zeros(rows + 1, bool), self
    for far in _doubled(up):
        first = np.minimum(first, first[far])  # the least row of a cycle counts as its first
    on_cycle[far] = True
    on_cycle[end] = False
    offset, _ = _climb(np.where(on_cycle & (first == self), end, up))  # hops to the first row
    lengths = np.bincount(first[on_cycle], minlength=rows + 1)
    offset = np.where(on_cycle, -offset % np.maximum(lengths[first], 1), 0)

    above = np.where(on_cycle, end, up)  # a forest: rows of cycles are roots
    depth, size = _climb(above)
    root = _last(np.where(above == end, self, above))
    depth -= np.where(on_cycle[root], offset[root] + _cyclic(nodes), 0)

    heavy = np.full(rows + 1, end)  # the child with the largest subtree
    children = np.flatnonzero((above != end) & ~on_cycle[above])
    children = children[np.lexsort((-size[children], above[children]))]
    parents, largest = np.unique(above[children], return_index=True)
    heavy[parents] = children[largest]
    head = _last(np.where((above != end) & (heavy[above] == self), above, self))
    head = np.where(on_cycle, first, head)

    order[:] = np.lexsort((depth[:-1], head[:-1]))
    position = np.empty(rows, np.int64)
    position[order] = self[:-1]
    cycles = np.flatnonzero(on_cycle & (first == self))
    heads = np.flatnonzero(~on_cycle & (head == self) & (heavy != end))
    number = np.full(rows + 1, NONE)
    number[cycles] = np.arange(len(cycles))
    number[heads] = len(cycles) + np.arange(len(heads))
    number = number[head]
    alone = (number == NONE) & (above != end)  # no path of its own: hops lead onto another
    number[alone] = number[above[alone]]
    nodes[:, 0], nodes[:, 1] = depth[:-1], number[:-1]

    count = len(cycles) + len(heads)
    paths[: len(cycles), 0] = position[cycles]
    paths[: len(cycles), 1] = np.iinfo(paths.dtype).min
    paths[: len(cycles), 2] = lengths[cycles]
    paths[len(cycles) : count, 0] = (position[heads] - depth[heads]).astype(paths.dtype)
    paths[len(cycles) : count, 1] = depth[heads]
    paths[len(cycles) : count, 2] = number[up[heads]]
    return count


def skip(
    width: int,
    nodes: Array,
    order: Array,
    paths: Array,
    marks: NDArray[np.uint64],
    successors: Rows,
    starts: Rows,
    hops: Rows,
    budget: int,
    out: Rows,
) -> int:
    """Write to `out` (m,) the row `hops` (m,) or (1,) successors on from each of `starts` (m,).

    -1 where a chain ends earlier, where a start is no row, and where hops are below 0. Returns how
    many links were followed that are not what the index says. Above `budget` it gave up, `out` then
    holding anything; these kernels give up wherever there are marks.
    """
    if len(marks):
        return budget + 1
    left = np.broadcast_to(hops, starts.shape)
    rows = np.where(left == 0, len(successors), len(nodes))  # newer rows have no links yet
    valid = (starts >= 0) & (starts < rows)
    out[:] = np.where(valid & (left == 0), starts, -1)
    at = np.flatnonzero(valid & (left > 0))
    depth, path = nodes[starts[at]].astype(np.int64).T
    target = depth - np.minimum(left[at], 1 << 61)  # farther than any path goes
    around = left[at].astype(np.uint64) - (depth + _cyclic(nodes)).astype(np.uint64)
    keep = (depth < 0) | (target >= 0)
    for _ in range(MOST_PATHS):
        keep &= (path >= 0) & (path < len(paths))
        at, path, target, around = at[keep], path[keep], target[keep], around[keep]
        base, head, above = paths[path].astype(np.int64).T
        cycle = head == np.iinfo(paths.dtype).min
        there = cycle | (target >= head)
        length = np.maximum(above, 1).astype(np.uint64)
        position = base + np.where(cycle, -(around % length).astype(np.int64), target)
        position = position.astype(paths.dtype).astype(np.int64)  # the base may have wrapped
        there &= (position >= 0) & (position < len(order))
        out[at[there]] = order[position[there]]
        path, keep = above, ~cycle & (target < head)
    return 0


def skip_mark(
    width: int,
    nodes: Array,
    order: Array,
    paths: Array,
    marks: NDArray[np.uint64],
    sources: Rows,
) -> None:
    """Take note that the links of `sources` may have changed since the index was built."""
    sources = sources[(sources >= 0) & (sources < len(nodes))]
    depth, path = nodes[sources].astype(np.int64).T
    known = (path >= 0) & (path < len(paths))
    base, head, _ = paths[path[known]].astype(np.int64).T
    away = np.where(head == np.iinfo(paths.dtype).min, depth[known] + _cyclic(nodes), depth[known])
    position = (base + away).astype(paths.dtype).astype(np.int64)
    there = (position >= 0) & (position < len(order))
    position = position[there]
    position = position[order[position] == sources[known][there]]  # others are never come by
    nodes[sources, 1] = CHANGED
    first = 0
    size = len(order)
    while True:
        size = max(1, -(-size // 64))
        bits = np.uint64(1) << (position % 64).astype(np.uint64)
        np.bitwise_or.at(marks, first + position // 64, bits)
        first, position = first + size, position // 64
        if size == 1:
            return


def _cyclic(nodes: Array) -> int:
    """How far below 0 the depths of rows on cycles begin."""
    return 1 << (8 * nodes.dtype.itemsize - 2)


def _doubled(up: Rows) -> Iterator[Rows]:
    """Yield where 1, 2, 4, … hops lead, until no row has so many left except around a cycle."""
    yield up
    for _ in range(len(up).bit_length()):
        up = up[up]
        yield up


def _climb(up: Rows) -> tuple[Rows, Rows]:
    """Return the hops from each row to the root of its tree, and the rows of its subtree.

    The last of `up` stands for the end, which roots lead to.
    """
    end = len(up) - 1
    depth, size = (up != end).astype(np.int64), np.ones(len(up), np.int64)
    for far in _doubled(up):
        depth += depth[far]
        size[end] = 0
        size += np.bincount(far, size, len(up)).astype(np.int64)
    return depth, size


def _last(following: Rows) -> Rows:
    """Return for each row the one that leads to itself, where every row comes to such a one."""
    *_, last = _doubled(following)
    return last
