"""Giving up what is not needed any more: mark-and-sweep from roots, and overwriting for good."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hashmem import hops
from hashmem.digests import Digests, as_digests
from hashmem.errors import CorruptStoreError, RecordNotFound
from hashmem.store.handle import Handle
from hashmem.store.state import State

__all__ = ["Space"]

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
AnyDigests = Digests | Sequence[bytes] | bytes


class Space(Handle):
    """The part of `MemoryStore` that sweeps and erases."""

    def sweep(
        self,
        roots: AnyDigests,
        *,
        relations: Iterable[str] | None = None,
        successors: bool = True,
        dry_run: bool = False,
    ) -> Digests:
        """Delete every record that no chain of links leads to from `roots`; return their digests.

        The roots stay, and so does what successors (unless `successors` is False) and edges lead
        to from them: edges of all relations, or of the `relations` named. Chains lead on through
        digests that are not stored. What is deleted loses its metadata and the links from it, as
        by `delete`, and links from digests that are neither stored nor reached go too. Without
        roots, everything goes. uint8 (k, width), the longest known first.

        What is pending is committed first. Then the marking looks at the newest commit, whoever
        made it, and the deletion is committed in the same transaction, before which no other
        commit can come: whatever another handle has put or linked by a commit counts, whether
        that commit came before or after. What another handle has *not* committed yet does not
        keep a record that is stored already. If it was put again there, that handle's commit
        stores it again; if it was only linked to, the link leads to a digest that is not stored.

        With `dry_run` nothing is deleted nor committed, and what is pending here counts as if it
        were. O(rows + links · log), and O(links) where `neighbours` had the links in order.

        Raises `RecordNotFound` naming the position of a root that is not stored and has no links
        to follow, `KeyError` where no relation has a name, and `CorruptStoreError` where links are
        damaged, as they might lead to what would be deleted. Nothing is deleted then.
        """
        queries = as_digests(roots, self.width, "roots")
        names = None if relations is None else list(relations)
        swept = np.empty((0, self.width), np.uint8)

        def sweep(state: State) -> None:
            nonlocal swept
            stored, reached = _marked(state, queries, names, successors)
            gone = np.flatnonzero(stored & ~reached)
            swept = state.table.digests(gone)
            if not dry_run:
                _remove(state, gone, ~reached)

        if dry_run:
            with self._reading():
                self.refresh()
                sweep(self._state)
                return swept
        with self._writing():
            self.commit()
            try:
                self._commit(sweep)
            except BaseException:
                self._state.undo()  # nothing else is pending
                raise
        return swept

    def erase(self, *, timeout: float = 10.0) -> None:
        """Do what `compact` does, and overwrite all that was deleted or replaced.

        Of all namespaces, dropped ones too: when this returns, no file of the store holds a byte
        of their contents or metadata, nor a digest that no link leads to. The old file is
        overwritten in place and then unlinked, so the time is that of `compact` and of writing
        the old file once more. What lies outside of the store's files is out of reach: docs,
        "What erasing reaches, and what it does not".

        What was read and is still held open (results of `get_many`, in any process) is waited for
        up to `timeout` seconds; writers wait meanwhile. Then `StoreError` names the processes:
        the store is compacted by then, and the old file still whole, beside it. It is overwritten
        by the next `erase`, or when the store is next opened for writing and nobody reads it.
        Interrupted at any moment, the store is as before or compacted, and what was not
        overwritten yet is in the same way.
        """
        if not timeout >= 0:
            raise ValueError(f"timeout: seconds to wait, 0 or more, not {timeout}")
        with self._writing():
            self.commit()
            self._rewrite(erase=True, timeout=timeout)


def _marked(
    state: State, roots: Digests, relations: list[str] | None, successors: bool
) -> tuple[Flags, Flags]:
    """Which rows are stored, and which the roots reach: bool (rows,) each."""
    for column in (state.digests_column, state.successors_column, state.edges_column):
        if column.damaged:
            raise CorruptStoreError(
                f"packs {sorted(column.damaged)} of column {column.number} are damaged: what their "
                "links keep would be deleted; run verify() and copy what is whole to a new store"
            )
    offsets, targets = _followed(state, relations, successors)
    rows = state.table.find(roots)
    stored = state.payloads.held(state.rows)
    good = rows >= 0
    good[good] = stored[rows[good]] | (offsets[rows[good] + 1] > offsets[rows[good]])
    if not good.all():
        at = int(np.argmin(good))
        raise RecordNotFound(
            f"roots[{at}]: {bytes(roots[at]).hex()} is not stored and nothing leads on from it; "
            "leave it out if that is right"
        )
    reached = np.zeros(state.rows, bool)
    reached[hops.frontier(offsets, targets, rows)[0]] = True
    return stored, reached


def _followed(state: State, relations: list[str] | None, successors: bool) -> tuple[Rows, Rows]:
    """The links that keep records, as (offsets, targets)."""
    if relations is None and successors:
        return state.links.csr(state.rows)
    edges = state.links.edges()
    if relations is not None:
        for name in relations:
            if name not in state.relations:
                raise KeyError(f"no relation is called {name!r}; there are {state.relations}")
        numbers = [state.relations.index(name) for name in relations]
        edges = edges[:, np.isin(edges[1], numbers)]
    sources, targets = edges[0], edges[2]
    if successors:
        linked = np.flatnonzero(state.links.successors >= 0)
        sources = np.concatenate([sources, linked])
        targets = np.concatenate([targets, state.links.successors[linked]])
        order = np.argsort(sources, kind="stable")
        sources, targets = sources[order], targets[order]
    offsets: Rows = np.searchsorted(sources, np.arange(state.rows + 1))
    return offsets, targets


def _remove(state: State, gone: Rows, unreached: Flags) -> None:
    """Make the deletion of the records `gone`, and of all links from `unreached`, pending."""
    state.remove(gone)
    linked = np.zeros(state.rows, bool)
    linked[np.flatnonzero(state.links.successors >= 0)] = True
    links = np.diff(state.links.csr(state.rows)[0])  # of each row, its successor among them
    sources = np.flatnonzero(unreached & (links > linked))
    ends = np.flatnonzero(unreached & linked)
    state.set_successors(ends, np.full(len(ends), -1, np.int64))
    state.add_edges(sources, None, sources)
