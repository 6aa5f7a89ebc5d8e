"""Rewriting a store without what was deleted or replaced.

Rows are numbered anew, in their old order, so that rows which hold nothing and which no link
touches disappear together with their digests. Nothing here needs a namespace's key.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError
from hashmem.store.backend import Reader, Transaction
from hashmem.store.columns import Column, PlacedColumn
from hashmem.store.layout import Catalogue, Info
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.state import State, as_stored

__all__ = ["compact"]

Rows = NDArray[np.int64]


def compact(reader: Reader, transaction: Transaction) -> None:
    """Write everything live that `reader` shows to the empty `transaction`. O(bytes live).

    Raises `CorruptStoreError` where a pack is damaged: what could not be read would be lost.
    """
    catalogue = Catalogue.read(reader)
    catalogue.write(transaction)
    for name, namespace in catalogue.namespaces.items():
        info = Info.read(reader, namespace)
        if info is None:
            raise CorruptStoreError(f"namespace {name!r} has lost its record")
        state = State(namespace, info)
        state.load(reader)
        _Copy(state, reader, transaction).run()


class _Copy:
    """The copying of one namespace; `next_pack` numbers what is written."""

    def __init__(self, state: State, reader: Reader, transaction: Transaction) -> None:
        self.state, self.reader, self.transaction = state, reader, transaction
        self.next_pack = 1

    def run(self) -> None:
        state = self.state
        for column in state.columns:
            if column.damaged:
                raise CorruptStoreError(
                    f"packs {sorted(column.damaged)} of column {column.number} are damaged; "
                    "compacting would lose them for good"
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
        self.write_array(state.digests_column, renumbered[rows], state.table.digests[rows])
        self.copy_items(state.payloads, live, renumbered)
        self.copy_items(state.metadata, live, renumbered)
        for column in state.named.values():
            of, values = column.read_all(self.reader)
            chosen = live[of]
            self.write_array(column, renumbered[of[chosen]], values[chosen])
        successor_bytes = as_stored(renumbered[targets][:, None])
        self.write_array(state.successors_column, renumbered[sources], successor_bytes)
        edge_bytes = as_stored(np.stack([edges[1], renumbered[edges[2]]], axis=1))
        self.write_array(state.edges_column, renumbered[edges[0]], edge_bytes)
        info = Info(**{**vars(state.info), "next_pack": self.next_pack})
        info.write(self.transaction, state.namespace)

    def write_array(self, column: Column, rows: Rows, items: NDArray[np.uint8]) -> None:
        self.next_pack += len(column.write_array(self.transaction, self.next_pack, rows, items))

    def copy_items(self, column: PlacedColumn, live: NDArray[np.bool_], renumbered: Rows) -> None:
        """Copy the items of live rows, in the order of the file, into packs that are full."""
        rows: list[int] = []
        items: list[bytes | memoryview] = []
        used = 0
        for row, item in self._items(column, live):
            if used + len(item) > PACK_LIMIT:
                self._flush(column, renumbered, rows, items)
                rows, items, used = [], [], 0
            rows.append(row)
            items.append(item)
            used += len(item)
        self._flush(column, renumbered, rows, items)

    def _items(
        self, column: PlacedColumn, live: NDArray[np.bool_]
    ) -> Iterator[tuple[int, bytes | memoryview]]:
        packs, offsets, lengths = column.places(np.arange(len(live)))
        held = np.flatnonzero(live & (packs >= 0))
        held = held[np.lexsort((offsets[held], packs[held]))]
        bodies: dict[int, memoryview] = {}
        places = zip(
            held.tolist(),
            packs[held].tolist(),
            offsets[held].tolist(),
            lengths[held].tolist(),
            strict=True,
        )
        for row, pack, offset, length in places:
            if pack not in bodies and column is not self.state.payloads:
                column.sound_body(self.reader, pack)  # payloads have their digests to tell
            yield row, column.view(self.reader, pack, offset, length, bodies)

    def _flush(
        self,
        column: PlacedColumn,
        renumbered: Rows,
        rows: list[int],
        items: list[bytes | memoryview],
    ) -> None:
        if rows:
            lengths = np.fromiter(map(len, items), np.int64, len(items))
            written = column.write(
                self.transaction, self.next_pack, renumbered[rows], lengths, lambda a, b: items[a:b]
            )
            self.next_pack += len(written)
