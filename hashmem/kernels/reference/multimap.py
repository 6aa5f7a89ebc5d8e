"""Chains of values, several to a digest. The definition of `kernels/multimap.c`.

`chains` (..., 3) holds for each chain its first node, its last, and their number; `nodes` (..., 2)
the next node and a value. How far a chain goes is told by its number alone, so that a chain is
longer from the moment that its number is written, and whole before and after.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

HEAD, TAIL, COUNT = 0, 1, 2
NEXT, VALUE = 0, 1


def multimap_append(chains: Rows, nodes: Rows, ids: Rows, values: Rows, first: int) -> None:
    """Append `values` (n,) to the chains of `ids` (n,), in order, in the nodes from `first` on."""
    n = len(ids)
    if len(values) != n or not 0 <= first <= len(nodes) - n:
        raise ValueError("ids and values differ in length, or nodes are too few")
    wrong = (ids < 0) | (ids >= len(chains))
    ends = chains[np.where(wrong, 0, ids)] if len(chains) else np.zeros((n, 3), np.int64)
    wrong |= (ends[:, COUNT] != 0) & ((ends[:, TAIL] < 0) | (ends[:, TAIL] >= len(nodes)))
    if wrong.any():
        raise ValueError(f"ids[{int(np.argmax(wrong))}] is no chain, or its chain has no end")
    nodes[first : first + n, NEXT] = -1
    nodes[first : first + n, VALUE] = values
    order = np.argsort(ids, kind="stable")
    chain, node = ids[order], first + order
    begins = np.append(True, chain[1:] != chain[:-1])[:n]
    follows = np.flatnonzero(~begins)
    nodes[node[follows - 1], NEXT] = node[follows]
    at = np.flatnonzero(begins)
    counts = np.diff(np.append(at, n))
    chain, head = chain[at], node[at]
    tail = node[at + counts - 1]
    longer = chains[chain, COUNT] != 0
    nodes[chains[chain[longer], TAIL], NEXT] = head[longer]
    old = chains[chain]
    chains[chain] = np.stack(
        [np.where(longer, old[:, HEAD], head), tail, old[:, COUNT] + counts], axis=1
    )


def multimap_gather(chains: Rows, nodes: Rows, ids: Rows, offsets: Rows, out: Rows) -> None:
    """Write ``out[offsets[i]:offsets[i + 1]]``: so many values of the chain ``ids[i]``, its first.

    Where it is none, the chain does not matter.
    """
    if len(offsets) != len(ids) + 1:
        raise ValueError("offsets must hold one number more than ids")
    at, ends = offsets[:-1], offsets[1:]
    asked = np.flatnonzero(at != ends)
    wrong = bool(((at < 0) | (at > ends) | (ends > len(out))).any())
    chain, at, ends = ids[asked], at[asked], ends[asked]
    if wrong or ((chain < 0) | (chain >= len(chains))).any():
        raise ValueError("a chain of the queries is not as they say")
    if (ends - at > chains[chain, COUNT]).any():
        raise ValueError("a chain of the queries is not as they say")
    node = chains[chain, HEAD]
    while len(node):
        if ((node < 0) | (node >= len(nodes))).any():
            raise ValueError("a chain of the queries is not as they say")
        out[at] = nodes[node, VALUE]
        at = at + 1
        alive = at < ends
        at, ends, node = at[alive], ends[alive], nodes[node[alive], NEXT]
