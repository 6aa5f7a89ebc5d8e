"""Rewriting a store without what was deleted or replaced.

Rows are numbered anew, in their old order, so that rows which hold nothing and which no link
touches disappear together with their digests. Nothing here needs a namespace's key.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.errors import CorruptStoreError
from hashmem.store import checkpoint
from hashmem.store.backend import Snapshot, Transaction
from hashmem.store.checkpoint import ABSENT
from hashmem.store.columns import Column, Written
from hashmem.store.layout import PAYLOADS, Catalogue, Info
from hashmem.store.placed import PlacedColumn
from hashmem.store.records import Records
from hashmem.store.state import State, as_stored

__all__ = ["Copy", "compact"]

Rows = NDArray[np.int64]

PIECE = 1 << 20  # rows whose digests are copied together


Progress = Callable[[int], object]


def compact(
    reader: Snapshot, transaction: Transaction, folder: str | None, progress: Progress | None = None
) -> None:
    """Write everything live that `reader` shows to the empty `transaction`. O(bytes live).

    `progress` is called with the number of records just copied. Checkpoints go to `folder`, where
    there is one. Raises `CorruptStoreError` where a pack is damaged: what could not be read would
    be lost.
    """
    catalogue = Catalogue.read(reader)
    catalogue.write(transaction)
    for name, namespace in catalogue.namespaces.items():
        info = Info.read(reader, namespace)
        if info is None:
            raise CorruptStoreError(f"namespace {name!r} has lost its record")
        state = State(namespace, info)
        state.load(reader, folder)
        Copy(state, reader, transaction, folder, progress or (lambda _: None)).run()


class Copy:
    """The copying of one namespace; `next_pack` numbers what is written."""

    def __init__(
        self,
        state: State,
        reader: Snapshot,
        transaction: Transaction,
        folder: str | None,
        progress: Progress = lambda _: None,
    ) -> None:
        self.state, self.reader, self.transaction = state, reader, transaction
        self.folder, self.progress = folder, progress
        self.next_pack = 1
        self.info = Info(state.info.algorithm)  # counts the packs

    def run(self) -> None:
        state = self.state
        for column in state.columns:
            if column.damaged:
                raise CorruptStoreError(
                    f"packs {sorted(column.damaged)} of column {column.number} are damaged; "
                    "compacting would lose them for good: close the store and run "
                    "hashmem.store.repair, which keeps them in quarantine"
                )
        live = state.payloads.held(state.rows)
        successors = state.links.successors[: state.rows]
        sources = np.flatnonzero(successors >= 0)
        targets = successors[sources]
        edges = state.links.edges()
        kept = live.copy()
        for ends in (sources, targets, edges[0], edges[2]):
            kept[ends] = True
        renumbered = np.cumsum(kept) - 1

        rows = np.flatnonzero(kept)
        placed = [self.copy_items(c, live, renumbered) for c in (state.payloads, state.metadata)]
        for column in state.named.values():
            of, values = column.read_all(self.reader)
            chosen = live[of]
            self.write_array(column, renumbered[of[chosen]], values[chosen])
        successor_bytes = as_stored(renumbered[targets][:, None])
        self.write_array(state.successors_column, renumbered[sources], successor_bytes)
        edge_bytes = as_stored(np.stack([edges[1], renumbered[edges[2]]], axis=1))
        self.write_array(state.edges_column, renumbered[edges[0]], edge_bytes)
        name = ""
        if self.folder is not None and len(rows) >= checkpoint.FEWEST:
            name = self.write_checkpoint(rows, placed)
        else:
            for digests in self.digests(rows):
                first = self.next_row
                at = np.arange(first, first + len(digests))
                self.write_array(state.digests_column, at, digests)
                self.next_row += len(digests)
        info = state.info.copy()
        info.next_pack, info.checkpoint, info.packs = self.next_pack, name, self.info.packs
        info.write(self.transaction, state.namespace)

    next_row = 0  # of the digests written to packs

    def digests(self, rows: Rows) -> Iterator[Digests]:
        for start in range(0, len(rows), PIECE):
            yield self.state.table.digests(rows[start : start + PIECE])

    def write_checkpoint(self, rows: Rows, placed: list[PlacedColumn]) -> str:
        generation, namespace = self.transaction.version[0], self.state.namespace
        filled = [column for column in placed if column.live or column.number == PAYLOADS]
        name = f"{generation:06}-{namespace}-{self.next_pack}.rows"
        checkpoint.write(
            os.path.join(str(self.folder), name), self.digests(rows), len(rows), self.state.width,
            self.next_pack, {column.number: column.known(len(rows)) for column in filled},
        )  # fmt: skip
        return name

    def write_array(self, column: Column, rows: Rows, items: NDArray[np.uint8]) -> None:
        written = column.write_array(self.transaction, self.next_pack, rows, items)
        self.count(column, written)

    def count(self, column: Column, written: list[Written]) -> None:
        self.next_pack += len(written)
        self.info.count(column.number, (pack.number for pack in written), ())

    def copy_items(
        self, column: PlacedColumn, live: NDArray[np.bool_], renumbered: Rows
    ) -> PlacedColumn:
        """Copy the items of live rows, in the order of the file, into packs that are full.

        Returns where they lie then.
        """
        codes = column.codes(np.arange(len(live)))
        held = np.flatnonzero(live & (codes != ABSENT))
        held = held[np.argsort(codes[held], kind="stable")]  # a code begins with the place
        if column is not self.state.payloads:  # payloads have their digests to tell
            for pack in np.unique(column.places(held)[0]).tolist():
                column.sound_body(self.reader, pack)
        items = Records.of(self.reader, column, held)
        fresh = PlacedColumn(column.namespace, column.number)

        def content(start: int, stop: int) -> list[memoryview]:
            if column is self.state.payloads:
                self.progress(stop - start)
            return [items.gather(start, stop)[0].data]

        sizes = np.maximum(items.lengths, 0)
        written = fresh.write(self.transaction, self.next_pack, renumbered[held], sizes, content)
        fresh.apply(written)
        self.count(column, written)
        return fresh
