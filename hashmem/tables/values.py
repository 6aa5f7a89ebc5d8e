"""ValueChains: chains of int64 values by number, the second level of a `DigestMultimap`.

A chain is a record of its head, its tail and its count, and one node for each value (the layout is
in `hashmem/kernels/multimap.c`). Appending writes to the next free node and to the tail's link.
What is forgotten leaves its nodes behind, dead, until the live ones move together into new memory.

A chain is as long as its count says, whatever its nodes link to behind that. Counts are written
last, so whatever ends a change early, every chain is as it was before or as it is after.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError
from hashmem.kernels.reference.multimap import COUNT, HEAD, NEXT, TAIL, VALUE
from hashmem.tables.memory import Column

SMALLEST = 16  # chains and nodes there is always room for

Values = NDArray[np.int64]
Flags = NDArray[np.bool_]


class ValueChains:
    """Chains of values, with room for so many `chains` and `nodes` from the start."""

    def __init__(self, chains: int, nodes: int) -> None:
        self._chains = Column(max(SMALLEST, chains), (3,), np.int64)
        self._nodes = Column(max(SMALLEST, nodes), (2,), np.int64)
        self.used = 0  # chains from here on were never used
        self.nodes = 0  # nodes from here on were never used
        self.live = 0  # nodes that belong to a chain

    @property
    def nbytes(self) -> int:
        return self._chains.nbytes + self._nodes.nbytes

    def counts(self, ids: Values) -> Values:
        """How many values each of the chains `ids` has (n,), none where it is -1."""
        counts: Values = self._chains.rows[ids, COUNT]  # of -1 those of some chain
        counts[ids < 0] = 0
        return counts

    def gather(self, ids: Values, offsets: Values) -> Values:
        """The values of the chains `ids` (n,), one chain after another; `offsets` (n + 1,) say
        where each begins, in accordance with `counts`."""
        values = np.empty(int(offsets[-1]), np.int64)
        kernels.current.multimap_gather(
            self._chains.rows, self._nodes.rows, np.ascontiguousarray(ids), offsets, values
        )
        return values

    def append(self, ids: Values, values: Values, used: int) -> None:
        """Append ``values[i]`` to the chain ``ids[i]``, in order; `used` chains are in use then."""
        if used > len(self._chains.rows):
            self._chains.resize(_with_slack(used))
        kernels.current.multimap_append(
            self._chains.rows, self._nodes.rows, ids, values, self.nodes
        )
        self.used = used
        self.nodes += len(values)
        self.live += len(values)

    def replace(self, ids: Values, lengths: Values, values: Values) -> None:
        """Give the chains `ids`, which are distinct, so many other values each."""
        before = int(self.counts(ids).sum())
        records = _lay(self._nodes.rows, self.nodes, lengths, values)
        self._chains.rows[ids] = records
        self.nodes += len(values)
        self.live += len(values) - before

    def forget(self, ids: Values) -> None:
        """Take all values from the chains `ids`, which are distinct."""
        self.live -= int(self.counts(ids).sum())
        self._chains.rows[ids] = 0

    # Room.

    def has_room(self, nodes: int) -> bool:
        """Whether there is room for so many nodes more."""
        return self.nodes + nodes <= len(self._nodes.rows)

    def make_room(self, nodes: int) -> None:
        """Make room for so many nodes more. Raises `TableFullError`, with all as it was."""
        if not self.has_room(nodes):
            self._nodes.resize(_with_slack(self.nodes + nodes))

    def together(self, ids: Values, spare: int) -> "ValueChains":
        """Return the chains `ids` as chains 0, 1, …, their nodes side by side, with room for so
        many nodes more."""
        counts = self.counts(ids)
        values = self.gather(ids, np.append(0, np.cumsum(counts)))
        room = _with_slack(len(values) + spare) if spare else len(values)
        fresh = ValueChains(len(ids), room)
        fresh._chains.rows[: len(ids)] = _lay(fresh._nodes.rows, 0, counts, values)
        fresh.used = len(ids)
        fresh.nodes = fresh.live = len(values)
        return fresh

    # Exceptions.

    def holds(self, ids: Values) -> Flags:
        """Whether each of `ids`, of which any may be too large, is a chain that has values."""
        self._chains.restore()
        self._nodes.restore()
        holds = ids < len(self._chains.rows)
        holds[holds] = self._chains.rows[ids[holds], COUNT] > 0
        return holds

    def settle(self, ids: Values) -> None:
        """Keep the chains `ids`, all of which hold values, and count anew. O(chains)."""
        others = np.ones(len(self._chains.rows), np.bool_)
        others[ids] = False
        self._chains.rows[others] = 0
        records = self._chains.rows[ids]
        self.used = int(ids.max(initial=-1)) + 1
        self.nodes = int(records[:, TAIL].max(initial=-1)) + 1  # of a chain the tail is highest
        self.live = int(records[:, COUNT].sum())

    def check(self, ids: Values) -> None:
        """Raise `CorruptStoreError` unless `ids` are all the chains with values, each with nodes
        of its own from its head to its tail. O(values), and a pass for each of the longest chain.
        """
        self._require(len(np.unique(ids)) == len(ids), "two digests share a chain")
        self._require(bool(((ids >= 0) & (ids < self.used)).all()), "a digest leads to no chain")
        records = self._chains.rows[ids]
        self._require(bool((records[:, COUNT] > 0).all()), "a digest has no values")
        self._require(int(records[:, COUNT].sum()) == self.live, "the values are miscounted")
        others = np.delete(self._chains.rows, ids, axis=0)
        self._require(not others[:, COUNT].any(), "a chain without a digest has values")
        node, left, visited = records[:, HEAD], records[:, COUNT], np.zeros(self.nodes, np.bool_)
        while len(node):
            inside = (node >= 0) & (node < self.nodes)
            self._require(bool(inside.all()), "a chain leads outside the nodes")
            again = visited[node].any() or len(np.unique(node)) < len(node)
            self._require(not again, "chains share a node")
            visited[node] = True
            last = left == 1
            ends = np.array_equal(node[last], records[last, TAIL])
            self._require(ends, "a chain does not end at its tail")
            node, left = self._nodes.rows[node[~last], NEXT], left[~last] - 1
            records = records[~last]

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise CorruptStoreError(f"{what} in {self!r}")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} values={self.live} nodes={self.nodes} of "
            f"{len(self._nodes.rows)} chains={self.used} of {len(self._chains.rows)}>"
        )


def _with_slack(rows: int) -> int:
    """Room for an eighth more, so that many small batches cost O(1) a value."""
    return rows + rows // 8 + SMALLEST


def _lay(nodes: Values, first: int, lengths: Values, values: Values) -> Values:
    """Write `values` to the nodes from `first` on, as chains of so many one after another.

    Their records (chains, 3)."""
    here = nodes[first : first + len(values)]
    here[:, NEXT] = np.arange(first + 1, first + 1 + len(values))  # behind a tail it is not read
    here[:, VALUE] = values
    ends = first + np.cumsum(lengths)
    return np.stack([ends - lengths, ends - 1, lengths], axis=1)
