"""Zeroed memory for tables: on cache lines, in huge pages where it is large, grown in place.

From `MAPPED` bytes on an array has its own anonymous mapping. Where the system can move pages
instead of bytes (Linux, mremap), growing such an array copies nothing and never needs old and new
at once; elsewhere, and while somebody still holds a view of it, its rows are copied. Such views
stay valid: they keep the memory they were made from.
"""

import mmap
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes
MAPPED = 1 << 20  # 1 MiB: below this, copying is cheaper than system calls

Bytes = NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)


def zeros(size: int) -> Bytes:
    """Allocate `size` zeroed bytes that start on a cache line. O(size) at first touch."""
    return np.frombuffer(_map(size), np.uint8) if size >= MAPPED else _aligned(size)


def _aligned(size: int) -> Bytes:
    raw = np.zeros(size + LINE - 1, np.uint8)
    skip = -raw.__array_interface__["data"][0] % LINE
    return raw[skip : skip + size]


def _map(size: int) -> mmap.mmap:
    # Private, so that a forked child has its own copy.
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _advise(mapping)
    return mapping


def _advise(mapping: mmap.mmap) -> None:
    """Ask for huge pages: a random read then misses the cache, but seldom the TLB too."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)


class Column(Generic[Item]):
    """An array of rows (capacity, ...) whose capacity changes; `rows` is the array now."""

    def __init__(self, capacity: int, row: tuple[int, ...], dtype: type[Item]) -> None:
        self._row, self._dtype = row, dtype
        self._row_bytes = int(np.prod(row, dtype=np.int64)) * np.dtype(dtype).itemsize
        self._mapping: mmap.mmap | None = None
        self.rows = self._view(zeros(0))
        self.resize(capacity)

    @property
    def nbytes(self) -> int:
        """Bytes reserved, in use or not."""
        return self.rows.nbytes

    def resize(self, capacity: int) -> None:
        """Make room for `capacity` rows, keeping the first ones. O(1) where pages can move."""
        size, old = capacity * self._row_bytes, self._mapping
        if old is not None and size >= MAPPED:
            kept, self.rows = self.rows, self._view(zeros(0))
            del kept  # the mapping moves only when no array speaks of it any more
            try:
                old.resize(size)
            except (BufferError, SystemError):  # views are alive; or the system has no mremap
                self.rows = self._view(np.frombuffer(old, np.uint8))
            else:
                _advise(old)
                self.rows = self._view(np.frombuffer(old, np.uint8))
                return
        self._mapping = _map(size) if size >= MAPPED else None
        fresh = np.frombuffer(self._mapping, np.uint8) if self._mapping else _aligned(size)
        before, self.rows = self.rows, self._view(fresh)
        kept_rows = min(len(before), capacity)
        self.rows[:kept_rows] = before[:kept_rows]

    def _view(self, raw: Bytes) -> NDArray[Item]:
        return raw.view(self._dtype).reshape(-1, *self._row)
