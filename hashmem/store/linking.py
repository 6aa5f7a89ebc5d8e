"""What leads from record to record: successors and edges, and the ways along them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hashmem import hops
from hashmem.digests import Digests, as_digests
from hashmem.store.handle import Handle, check_name
from hashmem.store.state import State

__all__ = ["Linking"]

AnyDigests = Digests | Sequence[bytes] | bytes


class Linking(Handle):
    """The part of `MemoryStore` that works on links."""

    def link(self, source: bytes, target: bytes) -> None:
        """Make `target` the successor of `source`, in place of the one it had.

        Neither needs to be stored: a digest that is not gets a placeholder, which becomes the
        record when its content is put.
        """
        self.link_many(
            as_digests(source, self.width, "source"), as_digests(target, self.width, "target")
        )

    def link_many(self, sources: AnyDigests, targets: AnyDigests) -> None:
        """Make ``targets[i]`` the successor of ``sources[i]``; of equal sources the last wins."""
        source_digests, target_digests = self._pairs(sources, targets)
        with self._writing() as state:
            source_rows, _ = state.intern(source_digests)
            target_rows, _ = state.intern(target_digests)
            state.set_successors(source_rows, target_rows)

    def unlink(self, sources: AnyDigests) -> None:
        """Take the successors of those of `sources` away that have one."""
        queries = as_digests(sources, self.width, "sources")
        with self._writing() as state:
            rows = state.table.find(queries)
            linked = rows[hops.hop(self._all_successors(state), rows, 1) >= 0]
            state.set_successors(linked, np.full(len(linked), -1, np.int64))

    def add_link(self, source: bytes, target: bytes, relation: str = "link") -> None:
        """Add an edge of a relation from `source` to `target`; the same edge twice is one."""
        self.add_links(
            as_digests(source, self.width, "source"),
            as_digests(target, self.width, "target"),
            relation,
        )

    def add_links(self, sources: AnyDigests, targets: AnyDigests, relation: str = "link") -> None:
        """Add an edge from ``sources[i]`` to ``targets[i]`` for each i, all of one relation."""
        check_name("relation", relation)
        source_digests, target_digests = self._pairs(sources, targets)
        with self._writing() as state:
            source_rows, _ = state.intern(source_digests)
            target_rows, _ = state.intern(target_digests)
            state.add_edges(source_rows, relation, target_rows)

    def clear_links(self, sources: AnyDigests) -> None:
        """Remove all edges that lead from `sources`, of every relation."""
        queries = as_digests(sources, self.width, "sources")
        with self._writing() as state:
            rows = state.table.find(queries)
            known = rows[rows >= 0]
            state.add_edges(known, None, known)

    def _pairs(self, sources: AnyDigests, targets: AnyDigests) -> tuple[Digests, Digests]:
        pair = (
            as_digests(sources, self.width, "sources"),
            as_digests(targets, self.width, "targets"),
        )
        if len(pair[0]) != len(pair[1]):
            raise ValueError(f"{len(pair[0])} sources cannot be linked to {len(pair[1])} targets")
        return pair

    def hop(self, starts: AnyDigests, n: int) -> tuple[Digests, NDArray[np.bool_]]:
        """Follow n successors from each start: digests (m, width) and whether there are so many.

        Where a start is unknown or its chain ends earlier, the mask is False and the digest all
        zeros. 0 hops lead to the start itself. The digest at the end of a link may be one that is
        not stored. Cost: see `hashmem.hops.Links.hop`.
        """
        queries = as_digests(starts, self.width, "starts")
        with self._reading() as state:
            rows = state.table.find(queries)
            self._all_successors(state)
            ends = state.links.hop(rows, n)
            found = ends >= 0
            if not found.any():
                return np.zeros_like(queries), found
            digests = state.table.digests(np.maximum(ends, 0))
            digests[~found] = 0
            return digests, found

    def trace(self, start: bytes, limit: int | None = None) -> Digests:
        """Return the digests from `start` along successors, start included: uint8 (k, width).

        Ends after `limit` hops, at the end of the chain, or before a digest would come again.
        Empty where `start` is unknown. O(k).
        """
        query = as_digests(start, self.width, "start")
        with self._reading() as state:
            row = int(state.table.find(query)[0])
            rows = hops.trace(self._all_successors(state), row, limit)
            return state.table.digests(rows)

    def neighbours(
        self,
        starts: AnyDigests,
        depth: int = 1,
        relation: str | None = None,
        *,
        limit: int | None = None,
    ) -> Digests:
        """Return the digests that 1 to `depth` links lead to from any of `starts`, nearest first.

        Follows the edges of one `relation`, or without it all edges and successors. Each digest
        comes once, the starts themselves not at all: uint8 (k, width). With a `limit` only so many:
        the search is breadth-first and ends there (`hashmem.hops.neighbours`). Starts that are
        unknown are passed over. O(links followed), and O(links · log) once links have changed.
        Raises `ValueError` where `depth` or `limit` is negative.
        """
        return self._around(starts, depth, relation, limit, back=False)

    def parents(
        self,
        starts: AnyDigests,
        depth: int = 1,
        relation: str | None = None,
        *,
        limit: int | None = None,
    ) -> Digests:
        """Return the digests from which 1 to `depth` links lead to any of `starts`, nearest first.

        As `neighbours`, the other way: uint8 (k, width). The reverse of the links is kept beside
        them, 8 bytes a link and 8 a digest, until they change.
        """
        return self._around(starts, depth, relation, limit, back=True)

    def shortest(
        self,
        start: bytes,
        end: bytes,
        relation: str | None = None,
        *,
        limit: int | None = None,
    ) -> Digests:
        """Return the digests of a shortest chain of links from `start` to `end`, both included.

        uint8 (k, width): empty where there is none of at most `limit` links or one of the two is
        unknown; one digest where both are the same. Follows the links that `neighbours` follows,
        from both ends (`hashmem.hops.shortest`), and costs and raises what `parents` does.
        """
        query = as_digests(start, self.width, "start"), as_digests(end, self.width, "end")
        with self._reading() as state:
            first, last = (int(state.table.find(one)[0]) for one in query)
            graph = self._graph(state, relation)
            back = self._graph(state, relation, back=True)
            rows = hops.shortest(*graph, first, last, reverse=back, limit=limit)
            return state.table.digests(rows)

    def _around(
        self, starts: AnyDigests, depth: int, relation: str | None, limit: int | None, back: bool
    ) -> Digests:
        queries = as_digests(starts, self.width, "starts")
        with self._reading() as state:
            graph = self._graph(state, relation, back)
            rows = hops.neighbours(*graph, state.table.find(queries), depth, limit)
            return state.table.digests(rows)

    def _graph(
        self, state: State, relation: str | None, back: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The links of `relation`, or all of them, as offsets and targets."""
        if relation is None:
            number = None
        elif relation in state.relations:
            number = state.relations.index(relation)
        else:
            number = len(state.relations)  # what no edge has
        return state.links.csr(state.rows, number, back)

    def _all_successors(self, state: State) -> NDArray[np.int64]:
        state.links.successors = hops.grown(state.links.successors, state.rows, -1)
        return state.links.successors
