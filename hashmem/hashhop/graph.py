"""Which node every line leads from and to: a closed cycle, and what is laid beside it.

The lines of a sample, before they are shuffled, are numbered:

    0 … n − 1       the true edges: node i leads to i + 1, the last of a cycle to its first
    then `stale`    edges that a later line overwrites: a node that has a true edge, and a wrong end
    then `feeders`  edges from nodes of their own, that nothing leads to, into the cycle
    then `near`     edges among near misses of hashes of the cycle, in a closed cycle of their own

The nodes are 0 … n − 1 on the cycle, then the feeders; then come the near misses, one for each
such line. Which nodes of the cycle a line beside it is about is a keyed permutation's choice, so
lines that are asked for are not more often beset than others.

An order says on which line an edge stands. Of a node's two edges the true one stands on the later
line: where the order has it otherwise, the two change places.
"""

import numpy as np

from hashmem.hashhop.permutation import Permutation, UInt64s, round_keys, scatter


class Graph:
    """The edges of `nodes` nodes in cycles of `cycle`, and so many lines of each kind beside them.

    With `cycle` = `nodes` all nodes are on one cycle. Costs nothing to make; all is computed.
    """

    def __init__(
        self, seed: int, nodes: int, cycle: int, stale: int = 0, feeders: int = 0, near: int = 0
    ) -> None:
        self.nodes, self.cycle = nodes, cycle
        self.stale, self.feeders, self.near = stale, feeders, near
        self.named = nodes + feeders  # nodes that have a hash of their own
        self.lines = self.named + stale + near
        self.hashes = self.named + near
        self._picks = {
            kind: Permutation(nodes, round_keys(kind, seed)) for kind in ("stale", "feeder", "near")
        }
        # A wrong end is the right end of another node, but not the node itself.
        shift = 1 + int(round_keys("wrong end", seed)[0]) % max(1, nodes - 2)
        self._shift = np.uint64(shift + 1 if shift == cycle - 1 and shift < nodes - 2 else shift)

    def following(self, nodes: UInt64s) -> UInt64s:
        """Return where the true edges of nodes of the cycle lead."""
        after = nodes + np.uint64(1)
        if self.cycle == self.nodes:
            after[after == np.uint64(self.nodes)] = 0
            return after
        closing = after % np.uint64(self.cycle) == 0
        return after - np.where(closing, np.uint64(self.cycle), np.uint64(0))

    def edges(self, order: Permutation, lines: UInt64s) -> tuple[UInt64s, UInt64s]:
        """Return the nodes that `lines` lead from and to, uint64 (m,) each."""
        numbers = order.forward(lines)
        if self.stale:
            numbers = self._settled(order, lines, numbers)
        if self.lines == self.nodes:
            return numbers, self.following(numbers)
        sources, targets = np.empty_like(numbers), np.empty_like(numbers)
        first = 0
        for kind, count in self._kinds():
            at = np.flatnonzero((numbers >= first) & (numbers < first + count))
            sources[at], targets[at] = self._edges_of(kind, numbers[at] - np.uint64(first))
            first += count
        return sources, targets

    def lines_of(self, order: Permutation, nodes: UInt64s) -> UInt64s:
        """Return the line on which the true edge of each of `nodes` of the cycle stands."""
        lines = order.inverse(nodes)
        if self.stale:
            beset, partners = self._partners(nodes)
            lines[beset] = np.maximum(lines[beset], order.inverse(partners))
        return lines

    def _kinds(self) -> list[tuple[str, int]]:
        return [
            ("true", self.nodes), ("stale", self.stale), ("feeder", self.feeders),
            ("near", self.near),
        ]  # fmt: skip

    def _edges_of(self, kind: str, i: UInt64s) -> tuple[UInt64s, UInt64s]:
        if kind == "true":
            return i, self.following(i)
        if kind == "near":
            first = np.uint64(self.named)
            return first + i, first + (i + np.uint64(1)) % np.uint64(self.near)
        picked = self._picks[kind].forward(i)
        if kind == "feeder":
            return np.uint64(self.nodes) + i, picked
        return picked, self.following((picked + self._shift) % np.uint64(self.nodes))

    def near_to(self, nodes: UInt64s) -> UInt64s:
        """Return the node of the cycle that each near miss is one of."""
        return self._picks["near"].forward(nodes - np.uint64(self.named))

    def is_near(self, node: int) -> bool:
        """Whether a near miss of a node of the cycle is on lines."""
        return int(self._picks["near"].inverse(np.array([node], np.uint64))[0]) < self.near

    def _partners(self, nodes: UInt64s) -> tuple[UInt64s, UInt64s]:
        """The positions of the nodes that have a stale edge, and the numbers of these."""
        places = self._picks["stale"].inverse(nodes)
        beset = np.flatnonzero(places < np.uint64(self.stale))
        return beset.astype(np.uint64), places[beset] + np.uint64(self.nodes)

    def _settled(self, order: Permutation, lines: UInt64s, numbers: UInt64s) -> UInt64s:
        """The numbers of the edges on `lines`, a true edge on the later of its node's two."""
        true = np.flatnonzero(numbers < np.uint64(self.nodes))
        beset, stale = self._partners(numbers[true])
        old = np.flatnonzero(
            (numbers >= np.uint64(self.nodes)) & (numbers < np.uint64(self.nodes + self.stale))
        )
        picked = self._picks["stale"].forward(numbers[old] - np.uint64(self.nodes))
        settled = numbers.copy()
        early = order.inverse(stale) > lines[true[beset]]
        settled[true[beset[early]]] = stale[early]
        late = order.inverse(picked) < lines[old]
        settled[old[late]] = picked[late]
        return settled


def spread(seed: int, purpose: str, count: int, choices: int) -> UInt64s:
    """Return `count` keyed numbers below `choices`, uint64 (count,)."""
    words = scatter(np.arange(count, dtype=np.uint64), round_keys(purpose, seed)[0])
    return (words >> np.uint64(32)) % np.uint64(choices)
