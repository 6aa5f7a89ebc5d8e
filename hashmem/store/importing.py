"""Importing: an archive's records into a namespace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO

import msgpack
import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests, digest_many
from hashmem.errors import CorruptStoreError
from hashmem.store.annotations import Annotations
from hashmem.store.archive import (
    METADATA,
    RECORDS,
    ArchiveReader,
    DamagedArchive,
    Frame,
    Items,
    Pairs,
    Values,
)
from hashmem.store.exporting import Progress, must_be_committed
from hashmem.store.linking import Linking
from hashmem.tables import OpenAddressingTable

__all__ = ["Importing"]

COMMIT_BYTES = 64 << 20  # what is written in one commit, about
ITEM_BYTES = 100  # what a record costs beside its content, in memory, while it waits for that


class Importing(Annotations, Linking):
    """The part of `MemoryStore` that takes archives in."""

    def import_from(
        self,
        source: str | os.PathLike[str] | BinaryIO | ArchiveReader,
        progress: Progress | None = None,
    ) -> int:
        """Take in an archive that `export_to` wrote; return how many records were new.

        As if all of it were written here now: records that are stored stay, metadata, successors
        and columns of the archive replace what is there, edges are added. So the same archive once
        more changes nothing. `source` is a path, a binary file that is read up to the archive's
        end, or an `ArchiveReader`. Every content is digested again before it is stored.

        Commits every 64 MiB. Whatever ends it early, importing again goes on from there: what is
        stored is read and checked, but not written once more. `progress` is called with the number
        of records just read. O(bytes of the archive).

        Raises `CorruptStoreError` naming frame and byte where the archive is damaged or cut off:
        what came before is kept. `ValueError` where its digests are of another algorithm or key
        than this namespace's, or a column is of another type: nothing is translated.
        `StoreFormatError` where it is no archive or a newer one, `StoreError` where this handle has
        uncommitted writes or they cannot be written.
        """
        with self._writing() as state:
            must_be_committed(state, "an import commits as it goes")
        self.refresh()
        with _reading_from(source) as archive:
            self._must_fit(archive)
            taken = _Import(self, archive, progress or (lambda _: None))
            taken.run()
        return taken.new

    def _must_fit(self, archive: ArchiveReader) -> None:
        if archive.algorithm != self.algorithm:
            raise ValueError(
                f"the archive's digests are {archive.algorithm}, this namespace's {self.algorithm}:"
                f" import it into a namespace made with algorithm={archive.algorithm!r}"
            )
        if archive.key_check != self._key_check:
            raise ValueError(
                "the archive's digests are keyed, and not with this namespace's key: import it "
                "into a namespace made with the key it was exported with"
                if archive.key_check
                else "the archive's digests have no key, this namespace's have: import it into a "
                "namespace without one"
            )


class _Import:
    """An archive on its way into a store; `new` counts the records that were not stored."""

    def __init__(self, store: Importing, archive: ArchiveReader, progress: Progress) -> None:
        self.store, self.archive, self.progress = store, archive, progress
        self.new = 0
        self.uncommitted = 0  # bytes that wait
        self.column: tuple[str, OpenAddressingTable, NDArray[Any]] | None = None
        self.edges: tuple[Any, int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def run(self) -> None:
        damage = None
        try:
            try:
                self.frames()
            except DamagedArchive as error:
                damage = error
            self.store.commit()
        except BaseException:
            self.store.rollback()
            raise
        if damage is not None:
            raise DamagedArchive(
                f"{damage}; what came before is imported, {self.new} new records: import an "
                "undamaged archive to add the rest"
            ) from damage

    def frames(self) -> None:
        for frame in self.archive:
            about_these = isinstance(frame, Items) and frame.kind == METADATA
            if self.uncommitted >= COMMIT_BYTES and not about_these:
                self.store.commit()  # records with their metadata
                self.uncommitted = 0
            self.take(frame)

    def take(self, frame: Frame) -> None:
        if isinstance(frame, Pairs):
            self.pairs(frame)
        elif isinstance(frame, Values):
            self.values(frame)
        elif frame.kind == RECORDS:
            self.records(frame)
            self.progress(len(frame.digests))
        else:
            self.metadata(frame)

    def records(self, frame: Items) -> None:
        store = self.store
        again = digest_many(frame.data, store.algorithm, offsets=frame.offsets, key=store._key)
        bad = (again != frame.digests).any(axis=1)
        if bad.any():
            found = bytes(frame.digests[int(np.argmax(bad))]).hex()
            raise self.archive.damaged(f"the content of {found} does not have that digest")
        with store._writing() as state:
            rows, _ = state.intern(frame.digests)
            _, first = np.unique(rows, return_index=True)
            missing = np.sort(first[~state.payloads.holds(rows[first])])
            items = frame.chosen(missing.tolist())
            state.payloads.pending.set(rows[missing], items)
        self.new += len(missing)
        self.uncommitted += sum(map(len, items)) + ITEM_BYTES * len(missing)

    def metadata(self, frame: Items) -> None:
        try:
            maps = frame.maps()
        except CorruptStoreError as error:
            raise self.archive.damaged(str(error)) from error
        stored = self.stored(frame.digests).tolist()  # deleted meanwhile: passed over
        known = self.store.metadata_many(frame.digests)
        items = frame.chosen(list(range(len(maps))))
        changed = [
            i
            for i, old in enumerate(known)
            if stored[i] and (old is None or msgpack.packb(old) != items[i])
        ]
        try:
            self.store.set_metadata(frame.digests[changed], [maps[i] for i in changed])
        except CorruptStoreError:
            raise  # of the store
        except (TypeError, ValueError) as error:  # what can be read and not be written
            raise self.archive.damaged(str(error)) from error
        self.uncommitted += sum(len(items[i]) + ITEM_BYTES for i in changed)

    def values(self, frame: Values) -> None:
        changed = self.stored(frame.digests)
        old = self._known_values(frame)
        if old is not None:
            table, values = old
            at = table.find(frame.digests)
            same = values[at].view(np.uint8) == frame.values.view(np.uint8)
            changed &= (at < 0) | ~same.all(axis=1)
        self.store.write_column(frame.name, frame.digests[changed], frame.values[changed])
        row_bytes = frame.values.itemsize * frame.values.shape[1]
        self.uncommitted += int(changed.sum()) * (row_bytes + ITEM_BYTES)

    def stored(self, digests: Digests) -> NDArray[np.bool_]:
        with self.store._reading() as state:
            held: NDArray[np.bool_] = state.payloads.holds(state.table.find(digests))
            return held

    def _known_values(self, frame: Values) -> tuple[OpenAddressingTable, NDArray[Any]] | None:
        """The values of a column as they were before the archive came to it."""
        name, new = frame.name, frame.values
        if self.column is None or self.column[0] != name:
            table, values = OpenAddressingTable(self.store.width), new[:0]
            if name in self.store.columns:
                digests, values = self.store.read_column(name)
                table.insert(digests, np.arange(len(digests)))
            self.column = name, table, values
        _, table, values = self.column
        alike = values.dtype == new.dtype and values.shape[1] == new.shape[1]
        return (table, values) if len(values) and alike else None

    def pairs(self, frame: Pairs) -> None:
        if frame.relation is None:
            ends, found = self.store.hop(frame.sources, 1)
            new = ~(found & (ends == frame.targets).all(axis=1))
            self.store.link_many(frame.sources[new], frame.targets[new])
        else:
            new = ~self._known_edges(frame, frame.relation)
            if new.any():
                self.store.add_links(frame.sources[new], frame.targets[new], frame.relation)
        self.uncommitted += int(new.sum()) * ITEM_BYTES

    def _known_edges(self, frame: Pairs, relation: str) -> NDArray[np.bool_]:
        """Which edges were there, committed, before the archive came to their relation."""
        store = self.store
        with store._reading() as state:
            asked = relation, store._version[0]  # rows are the same within a generation
            if self.edges is None or self.edges[0] != asked:
                self.edges = asked, state.committed, *store._graph(state, relation)
            _, rows, offsets, ends = self.edges
            sources, targets = state.table.find(frame.sources), state.table.find(frame.targets)
        known = (sources >= 0) & (sources < rows) & (targets >= 0)
        if not len(ends) or not rows:
            return np.zeros_like(known)
        at = np.where(known, sources, 0)
        low, high = offsets[at], np.where(known, offsets[at + 1], offsets[at])
        last = high
        while (low < high).any():  # all searches, each in the ends of its own source, halve at once
            middle = np.minimum((low + high) // 2, len(ends) - 1)
            less = ends[middle] < targets
            low, high = (
                np.where((low < high) & less, middle + 1, low),
                np.where((low < high) & ~less, middle, high),
            )
        found: NDArray[np.bool_] = ends[np.minimum(low, len(ends) - 1)] == targets
        return found & (low < last)


@contextmanager
def _reading_from(source: Any) -> Iterator[ArchiveReader]:
    if isinstance(source, ArchiveReader):
        yield source
        return
    is_file = hasattr(source, "read")
    with nullcontext(source) if is_file else open(os.fsdecode(source), "rb") as file:
        archive = ArchiveReader(file)
        yield archive
        if not is_file:
            archive.must_end()
