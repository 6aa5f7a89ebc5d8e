"""Hypothesis strategies for links and hops, and `walk`, the definition of n hops.

A chain shrinks to the fewest rows and hops that still fail.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashmem.testing.strategies import KINDS, Digests, number_digests

__all__ = [
    "DigestChain",
    "HopChain",
    "LinkGraph",
    "digest_chains",
    "hop_chains",
    "link_graphs",
    "walk",
]

Rows = NDArray[np.int64]

NO_ROWS = (2**63 - 1, -2, -(2**63))  # what leads nowhere, beside -1


class LinkGraph(NamedTuple):
    """Rows with links: a successor each, -1 for none, and edges as (source, relation, target)."""

    successors: Rows  # (rows,)
    edges: Rows  # (3, edges)


class HopChain(NamedTuple):
    """A question about hops: which row is `n` successors on from `start`."""

    successors: Rows  # (rows,)
    start: int
    n: int


class DigestChain(NamedTuple):
    """A question about hops from digest to digest, and its answer: None where the chain ends."""

    sources: Digests  # (links, width)
    targets: Digests  # (links, width)
    start: bytes
    n: int
    end: bytes | None


def walk(successors: Any, start: int, n: int) -> int:
    """Return the row `n` successors on from `start`, one step at a time; -1 where there is none.

    The definition that `hashmem.hops.hop` and any other way must agree with. A cycle's whole
    rounds are left out, so any n takes O(rows).

    >>> walk([1, 2, 0], 0, 10**30), walk([1, -1], 0, 2)
    (1, -1)
    """
    step = 0
    visited: dict[int, int] = {}
    row = int(start)
    while 0 <= row < len(successors) and step < n:
        if row in visited:
            step += (n - step) // (step - visited[row]) * (step - visited[row])
            if step == n:
                break
        visited[row] = step
        row, step = int(successors[row]), step + 1
    return row if 0 <= row < len(successors) else -1


@st.composite
def link_graphs(
    draw: st.DrawFn,
    rows: int = 12,
    *,
    relations: int = 2,
    max_edges: int = 12,
    dangling: bool = True,
) -> LinkGraph:
    """Draw links among up to `rows` rows: paths, cycles, trees, rows that lead to themselves.

    With `dangling`, some lead to numbers that are no rows. Edges may come twice. Shrinks to the
    fewest rows and links.
    """
    count = draw(st.integers(0, rows))
    target = st.just(-1)
    if count:
        target = target | st.integers(0, count - 1)
    if dangling:
        target = target | st.sampled_from((count, *NO_ROWS))
    successors = draw(st.lists(target, min_size=count, max_size=count))
    row = st.integers(0, max(count - 1, 0))
    edge = st.tuples(row, st.integers(0, relations - 1), row)
    edges = draw(st.lists(edge, max_size=max_edges if count else 0))
    graph = LinkGraph(
        np.array(successors, np.int64), np.array(edges, np.int64).reshape(-1, 3).T.copy()
    )
    # Rows are numbers in links, so none can be taken away while shrinking but like this.
    return graph if draw(st.booleans()) else _without_lonely_rows(graph)


def _without_lonely_rows(graph: LinkGraph) -> LinkGraph:
    """The same links, without the rows that have none; the others numbered anew in their order.

    Where there are no links at all the rows stay: one row alone is simpler than two with a link.
    """
    successors, edges = graph
    count = len(successors)
    linked = (successors >= 0) & (successors < count)
    kept = successors != -1
    kept[successors[linked]] = True
    kept[edges[[0, 2]]] = True
    kept |= not kept.any()
    number = np.cumsum(kept) - 1
    successors = np.where(linked, number[np.where(linked, successors, 0)], successors)
    renumbered = np.stack([number[edges[0]], edges[1], number[edges[2]]])
    return LinkGraph(successors[kept], renumbered)


@st.composite
def hop_chains(
    draw: st.DrawFn,
    rows: int = 12,
    *,
    max_hops: int = 40,
    branches: int = 4,
    cycles: bool = True,
    dangling: bool = True,
) -> HopChain:
    """Draw a chain of up to `rows` rows, a row to start from, and a number of hops.

    The chain comes back to one of its rows (`cycles`), ends, or leads to a number that is no row
    (`dangling`); up to `branches` further rows lead into it; and row numbers may follow the chain
    or not. Shrinks to the fewest rows, then the fewest hops; a row that leads to itself counts as
    simpler than an end, because only so does a path that need not end become one row.
    """
    # One choice for each question, whatever the length: else what is longer could count as simpler.
    length = draw(st.integers(1, rows))
    n = draw(st.integers(0, min(7, max_hops)) | st.integers(0, max_hops))
    back = draw(st.integers(0, length - 1))
    ends = [*([back] if cycles else []), -1, *((rows + branches, *NO_ROWS) if dangling else ())]
    successors = [*range(1, length), draw(st.sampled_from(ends))]
    successors += draw(st.lists(st.integers(0, length - 1), max_size=branches))
    start = draw(st.integers(0, len(successors) - 1))
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(successors))))
        renumbered = [0] * len(order)
        for row, target in enumerate(successors):
            renumbered[order[row]] = order[target] if 0 <= target < len(order) else target
        successors, start = renumbered, order[start]
    return HopChain(np.array(successors, np.int64), start, n)


@st.composite
def digest_chains(draw: st.DrawFn, width: int, rows: int = 12, max_hops: int = 40) -> DigestChain:
    """Draw a chain as `hop_chains` does, of digests of any kind; links are in no order.

    Shrinks to the shortest chain.
    """
    chain = draw(hop_chains(rows, max_hops=max_hops, dangling=False))
    kind, fill = draw(st.sampled_from(KINDS)), draw(st.integers(0, 255))
    names = number_digests(np.arange(len(chain.successors)), width, kind, fill)
    sources = np.flatnonzero(chain.successors >= 0)
    end = walk(*chain)
    return DigestChain(
        names[sources],
        names[chain.successors[sources]],
        names[chain.start].tobytes(),
        chain.n,
        names[end].tobytes() if end >= 0 else None,
    )
