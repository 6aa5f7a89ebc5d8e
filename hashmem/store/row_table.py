"""Which row a digest has, and back: from a checkpoint, and a table of what came after it."""

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.store.checkpoint import Checkpoint
from hashmem.tables import OpenAddressingTable

__all__ = ["RowTable"]

Rows = NDArray[np.int64]


class RowTable:
    """Digests numbered from 0 in the order they came to be known. Costs are a table's."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.base: Checkpoint | None = None
        self._first = 0  # row that is not in `base`
        self._table = OpenAddressingTable(width=width)  # digest → row

    def __len__(self) -> int:
        return self._first + len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, what is mapped included."""
        return self._table.nbytes + (self.base.nbytes if self.base is not None else 0)

    def rest_on(self, base: Checkpoint) -> None:
        """Take all rows from a checkpoint, which has every row that is here."""
        self.base, self._first = base, base.rows
        self._table = OpenAddressingTable(width=self.width)

    def find(self, digests: Digests) -> Rows:
        """Return the row of each of `digests` (m, width), -1 where it is unknown."""
        if self.base is None:
            return self._table.find(digests)
        rows = self.base.find(digests)
        if len(self._table):
            missing = np.flatnonzero(rows < 0)
            rows[missing] = self._table.find(digests[missing])
        return rows

    def look(self, digest: bytes) -> int | None:
        """Return the row of one digest, None where it is unknown. Raises where it is no digest."""
        row = None if self.base is None else self.base.look(digest)
        return self._table._find_one(digest) if row is None else row

    def intern(self, digests: Digests) -> tuple[Rows, NDArray[np.bool_]]:
        """Return the row of each, numbering those not known yet, and which were new."""
        if self.base is None:
            return self._table.intern(digests, first=len(self))
        rows, new = self.base.find(digests), np.zeros(len(digests), np.bool_)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            added = self._table.intern(digests[missing], first=len(self))
            rows[missing], new[missing] = added
        return rows, new

    def digests(self, rows: Rows) -> Digests:
        """Return the digest of each of `rows`, which are all known: (m, width)."""
        if self.base is None:
            return _taken(self._table.digests, rows)
        below = rows < self._first
        if below.all():
            return _taken(self.base.digests, rows)
        digests = np.empty((len(rows), self.width), np.uint8)
        digests[below] = _taken(self.base.digests, rows[below])
        digests[~below] = _taken(self._table.digests, rows[~below] - self._first)
        return digests

    def between(self, first: int, stop: int) -> Digests:
        """Return the digests of rows that follow on, uncopied where a checkpoint has all or none.

        Not to be written to, and good until rows are added.
        """
        if first >= self._first:
            return self._table.digests[first - self._first : stop - self._first]
        if self.base is not None and stop <= self._first:
            return self.base.digests[first:stop]
        return self.digests(np.arange(first, stop))

    def pieces(self, start: int = 0) -> list[Digests]:
        """Return the digests of all rows from `start` on, one after the other, uncopied."""
        base = self.base.digests[start:] if self.base is not None else self._table.digests[:0]
        return [base, self._table.digests[max(start - self._first, 0) :]]

    def cut(self, rows: int) -> None:
        """Forget every row from `rows` on; those below it that a checkpoint has stay. O(m)."""
        self._table.delete(self._table.digests[rows - self._first :].copy())


def _taken(digests: Digests, rows: Rows) -> Digests:
    """`digests[rows]`, each digest copied as one item: byte by byte takes three times as long."""
    if not len(rows):
        return np.empty((0, digests.shape[1]), np.uint8)
    width = digests.shape[1]
    taken: Digests = digests.view(f"V{width}")[:, 0][rows].view(np.uint8).reshape(-1, width)
    return taken
