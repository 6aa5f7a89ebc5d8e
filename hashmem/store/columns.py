"""A column: what every row holds of one kind, committed in packs and pending in memory.

Packs of a column are numbered in the order they were written. Small ones are merged as they
gather: sizes step by eight, and whenever eight or more of one step lie at the end, nothing larger
among them, they become one (or a few full ones) with all smaller ones there. So n commits leave
O(log n) packs behind and a byte is rewritten about once a step. Only a run at the end is merged,
and the result takes the highest number, so the order in which packs count never changes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError
from hashmem.store.backend import Reader, Transaction
from hashmem.store.layout import body_key, index_key, pack_number, pack_prefix
from hashmem.store.packs import PACK_LIMIT, Pack, build, cut, parse
from hashmem.store.pending import PendingItems

__all__ = ["Column", "Written"]

Rows = NDArray[np.int64]

MERGE_RUN = 8  # packs
_MERGE_BELOW = [1 << 9, 1 << 12, 1 << 15, 1 << 18, 1 << 21]  # 512 B to 2 MiB


@dataclass(frozen=True, slots=True)
class Written:
    """A pack as its writer knows it."""

    number: int
    pack: Pack


class Column:
    """The packs of one column and what waits to be written to it.

    Where `keep_all`, every entry of every pack counts, not only the last of a row.
    """

    def __init__(
        self, namespace: int, number: int, item_size: int | None = None, *, keep_all: bool = False
    ) -> None:
        self.namespace = namespace
        self.number = number
        self.item_size = item_size  # bytes, where all items have one size
        self.keep_all = keep_all
        self.covered = 0  # packs below this number are a checkpoint's, and not looked at
        self.sizes: dict[int, int] = {}  # pack number, ascending → bytes; PACK_LIMIT for a part
        self.pending = PendingItems()
        self.damaged: dict[int, str] = {}  # pack number → what is wrong with its index

    # -- reading ------------------------------------------------------------------------------

    def news(self, reader: Reader) -> tuple[list[Written], list[int]]:
        """Return the packs that `reader` has and this column does not know, and those gone.

        Both ascending by number. A pack whose index is damaged goes to `damaged` instead.
        """
        there = self.packs(reader, self.covered)
        fresh = []
        for number in there:
            if number in self.sizes or number in self.damaged:
                continue
            try:
                fresh.append(Written(number, self.index(reader, number)))
            except CorruptStoreError as error:
                self.damaged[number] = str(error)
        gone = sorted({*self.sizes, *self.damaged} - set(there))
        return fresh, gone

    def packs(self, reader: Reader, first: int = 0) -> list[int]:
        """Return the numbers of the packs that `reader` has from `first` on, ascending."""
        start = index_key(self.namespace, self.number, first)
        prefix = pack_prefix(self.namespace, self.number)
        return [pack_number(key) for key in reader.keys(prefix, start)]

    def index(self, reader: Reader, number: int) -> Pack:
        value = reader.get(index_key(self.namespace, self.number, number))
        if value is None:
            raise CorruptStoreError(f"pack {number} of column {self.number} is gone")
        return parse(value, self.number)

    def body(self, reader: Reader, number: int) -> memoryview:
        if number < 0:
            raise CorruptStoreError(f"where an item of column {self.number} lies is damaged")
        value = reader.get(body_key(self.namespace, self.number, number))
        if value is None:
            raise CorruptStoreError(f"the body of pack {number}, column {self.number}, is gone")
        return value

    def sound_body(self, reader: Reader, number: int) -> memoryview:
        """Return a body that matches its checksum. Raises `CorruptStoreError` otherwise."""
        body = self.body(reader, number)
        if not self.index(reader, number).is_sound(body):
            raise CorruptStoreError(
                f"the body of pack {number}, column {self.number}, does not match its checksum"
            )
        return body

    def read_all(self, reader: Reader) -> tuple[Rows, NDArray[np.uint8]]:
        """Return all rows that hold an item, ascending, and the items (n, item size).

        For a column of fixed item size. Pending writes are included. O(n).
        """
        size = self.item_size or 0
        pieces = [(np.empty(0, np.int64), np.empty(0, np.int64), memoryview(b""))]
        for number in self.sizes:
            body, pack = self.sound_body(reader, number), self.index(reader, number)
            if not np.isin(pack.lengths, (size, -1)).all():
                raise CorruptStoreError(
                    f"pack {number} of column {self.number} has items of another size than {size}"
                )
            pieces.append((pack.rows, pack.lengths, body))
        if self.pending:
            rows, lengths, items = self.pending.final()
            pieces.append((rows, lengths, memoryview(b"".join(items))))
        rows = np.concatenate([rows for rows, _, _ in pieces])
        held = np.concatenate([lengths for _, lengths, _ in pieces]) >= 0
        values = np.frombuffer(b"".join(body for _, _, body in pieces), np.uint8).reshape(-1, size)
        unique, from_the_end = np.unique(rows[::-1], return_index=True)
        last = len(rows) - 1 - from_the_end
        last, unique = last[held[last]], unique[held[last]]
        return unique, values[np.cumsum(held)[last] - 1]

    def apply(self, fresh: Iterable[Written], gone: Iterable[int] = ()) -> None:
        """Take note of packs that were committed, in ascending order, and of packs gone."""
        for number in gone:
            self.sizes.pop(number, None)
            self.damaged.pop(number, None)
        for written in fresh:
            pack = written.pack  # the arrays count too, or removals would be merged for ever
            size = pack.body_bytes + 12 * len(pack.rows)
            self.sizes[written.number] = size if pack.parts == 1 else PACK_LIMIT

    # -- writing ------------------------------------------------------------------------------

    def write_pending(self, transaction: Transaction, next_pack: int) -> list[Written]:
        """Write what is pending, as packs numbered from `next_pack`. Clears nothing."""
        if not self.pending:
            return []
        rows, lengths, items = self.pending.final()
        return self.write(transaction, next_pack, rows, lengths, lambda a, b: items[a:b])

    def write(
        self,
        transaction: Transaction,
        next_pack: int,
        rows: Rows,
        lengths: Rows,
        items: Callable[[int, int], Sequence[bytes | memoryview]],
    ) -> list[Written]:
        """Write one item for each row, as packs numbered from `next_pack`.

        `items(start, stop)` returns buffers that joined are the items of ``rows[start:stop]``.
        """
        written: list[Written] = []
        for start, stop in cut(lengths):
            buffers = items(start, stop)
            pieces, sizes = [buffers], [lengths[start:stop]]
            if lengths[start] > PACK_LIMIT:
                whole = memoryview(b"".join(buffers))
                steps = range(0, len(whole), PACK_LIMIT)
                pieces = [[whole[step : step + PACK_LIMIT]] for step in steps]
                sizes = [np.array([len(piece[0])]) for piece in pieces]
            for part, (piece, size) in enumerate(zip(pieces, sizes, strict=True)):
                number = next_pack + len(written)
                parts = len(pieces)
                written.append(
                    self._put(transaction, number, rows[start:stop], size, piece, part, parts)
                )
        return written

    def write_array(
        self, transaction: Transaction, next_pack: int, rows: Rows, items: NDArray[np.uint8]
    ) -> list[Written]:
        """Write `items` (n, item size) for `rows` (n,), as packs numbered from `next_pack`."""
        step = max(1, PACK_LIMIT // max(items.shape[1], 1))
        return [
            self._put(
                transaction, next_pack + i, rows[start : start + step],
                items.shape[1], [items[start : start + step].tobytes()],
            )
            for i, start in enumerate(range(0, len(rows), step))
        ]  # fmt: skip

    def _put(
        self,
        transaction: Transaction,
        number: int,
        rows: Rows,
        lengths: Rows | int,
        items: Sequence[bytes | memoryview],
        part: int = 0,
        parts: int = 1,
    ) -> Written:
        if self.item_size is not None and (isinstance(lengths, int) or lengths.min() >= 0):
            lengths = self.item_size
        index, body = build(self.number, rows, lengths, items, part, parts)
        transaction.put(index_key(self.namespace, self.number, number), index)
        transaction.put(body_key(self.namespace, self.number, number), body)
        sizes = np.full(len(rows), lengths, np.int64) if isinstance(lengths, int) else lengths
        return Written(number, Pack(rows, sizes, len(body), 0, part, parts))

    def delete_pack(self, transaction: Transaction, number: int) -> None:
        transaction.delete(index_key(self.namespace, self.number, number))
        transaction.delete(body_key(self.namespace, self.number, number))

    def merge(self, transaction: Transaction, next_pack: int) -> tuple[list[Written], list[int]]:
        """Merge the last packs if enough small ones have gathered.

        Returns the packs written, numbered from `next_pack`, and the numbers of those replaced.
        Where a pack is damaged, it is left as it is, and so is the run.
        """
        run = self._run_to_merge()
        if not run:
            return [], []
        rows, lengths, bodies = [], [], []
        for number in run:
            try:
                pack, body = self.index(transaction, number), self.body(transaction, number)
            except CorruptStoreError:
                return [], []
            if not pack.is_sound(body):
                return [], []
            rows.append(pack.rows)
            lengths.append(pack.lengths)
            bodies.append(bytes(body))  # the transaction's next change may move the value
        joined = memoryview(b"".join(bodies))
        all_rows, all_lengths = np.concatenate(rows), np.concatenate(lengths)
        ends = np.cumsum(np.maximum(all_lengths, 0))
        starts = ends - np.maximum(all_lengths, 0)
        if not self.keep_all:  # the last entry of a row counts
            _, from_the_end = np.unique(all_rows[::-1], return_index=True)
            kept = np.sort(len(all_rows) - 1 - from_the_end)
            all_rows, all_lengths = all_rows[kept], all_lengths[kept]
            starts, ends = starts[kept], ends[kept]
        for number in run:
            self.delete_pack(transaction, number)

        def items(start: int, stop: int) -> list[memoryview]:
            gaps = np.flatnonzero(starts[start + 1 : stop] != ends[start : stop - 1]) + start + 1
            first, last = [start, *gaps.tolist()], [*gaps.tolist(), stop]
            return [joined[starts[a] : ends[b - 1]] for a, b in zip(first, last, strict=True)]

        return self.write(transaction, next_pack, all_rows, all_lengths, items), run

    def _run_to_merge(self) -> list[int]:
        """The last packs, if enough of one step are among them. O(packs of at most 2 MiB)."""
        if len(self.sizes) < MERGE_RUN:
            return []
        least = 0
        for below in _MERGE_BELOW:
            length = counted = 0
            for size in reversed(self.sizes.values()):
                if size >= below:
                    break
                length += 1
                # Only packs of this step count, or a few small ones would have it written again.
                counted += size >= least
            if counted >= MERGE_RUN:
                return list(self.sizes)[-length:]
            least = below
        return []
