"""Items that wait to be written: row → bytes, or row → nothing where it is to be removed."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hashmem.hops import grown

__all__ = ["PendingItems"]

Rows = NDArray[np.int64]

REMOVED = -1  # as the length of an item


class PendingItems:
    """A log of items with an index by row; the last item set for a row counts.

    Setting n items costs O(n), in whole-array steps.
    """

    def __init__(self) -> None:
        self.items: list[bytes] = []  # b"" for a removal
        self._rows = np.empty(0, np.int64)  # (at least len(items),) the row of each
        self._lengths = np.empty(0, np.int64)  # likewise: bytes, or REMOVED
        self._position = np.empty(0, np.int64)  # row → position in the log, -1: nothing pending

    def __bool__(self) -> bool:
        return bool(self.items)

    def __len__(self) -> int:
        """How many rows something is pending for. O(log)."""
        return len(self.final()[0])

    def set(self, rows: Rows, items: Sequence[bytes | None]) -> None:
        """Let ``items[i]`` wait for ``rows[i]``; None removes."""
        start, stop = len(self.items), len(self.items) + len(rows)
        if start == stop:
            return
        try:
            sizes = np.fromiter(map(len, items), np.int64, len(rows))  # type: ignore[arg-type]
        except TypeError:  # there is a None
            sizes = np.array([REMOVED if item is None else len(item) for item in items])
            items = [b"" if item is None else item for item in items]
        self.items += items  # type: ignore[arg-type]  # there is no None
        self._rows = grown(self._rows, stop, 0)
        self._rows[start:stop] = rows
        self._lengths = grown(self._lengths, stop, 0)
        self._lengths[start:stop] = sizes
        self._position = grown(self._position, int(rows.max()) + 1, -1)
        self._position[rows] = np.arange(start, stop)

    def lengths(self, rows: Rows) -> tuple[NDArray[np.bool_], Rows]:
        """Tell for each of `rows` whether something is pending, and its bytes (`REMOVED` too)."""
        if not self.items:
            return np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
        known = (rows >= 0) & (rows < len(self._position))
        position = np.where(known, self._position[np.where(known, rows, 0)], -1)
        return position >= 0, self._lengths[np.maximum(position, 0)]

    def among(self, rows: Rows) -> Iterator[tuple[int, bytes | None]]:
        """Yield (i, item) for each of ``rows[i]`` that something is pending for."""
        mask, lengths = self.lengths(rows)
        for i in np.flatnonzero(mask).tolist():
            yield i, None if lengths[i] < 0 else self.items[self._position[rows[i]]]

    def final(self) -> tuple[Rows, Rows, list[bytes]]:
        """Return each row once with its length (or `REMOVED`) and item (b"" then). O(log)."""
        n = len(self.items)
        rows, lengths = self._rows[:n], self._lengths[:n]
        last = self._position[rows] == np.arange(n)
        if last.all():
            return rows, lengths, self.items
        kept = np.flatnonzero(last)
        return rows[kept], lengths[kept], [self.items[i] for i in kept.tolist()]

    def clear(self) -> None:
        """Forget everything. O(log)."""
        if self.items:
            self._position[self._rows[: len(self.items)]] = -1
            self.items = []
            self._rows = self._lengths = np.empty(0, np.int64)
