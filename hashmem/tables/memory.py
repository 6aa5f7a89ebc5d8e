"""Zeroed memory for tables: on cache lines, in huge pages where it is large, grown in place.

From `MAPPED` bytes on an array has its own anonymous mapping. Where the system can move pages
instead of bytes (Linux, mremap), growing such an array copies nothing and never needs old and new
at once; elsewhere, and while somebody still holds a view of it, its rows are copied. Such views
stay valid: they keep the memory they were made from.

With HASHMEM_HUGE_PAGES=0 in the environment no huge pages are asked for: finds take longer, and a
table that a process has only begun to fill takes less memory.
"""

import mmap
import os
from contextlib import suppress
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import TableFullError

LINE = 64  # bytes
HUGE_PAGE = 1 << 21  # 2 MiB; Linux aligns mappings whose size is a multiple of it
MAPPED = 1 << 23  # 8 MiB: below this, copying costs less than a huge page half used

Bytes = NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)


def zeros(size: int) -> Bytes:
    """Allocate `size` zeroed bytes that start on a cache line. O(size) at first touch."""
    return np.frombuffer(_map(size), np.uint8)[:size] if size >= MAPPED else _aligned(size)


def _aligned(size: int) -> Bytes:
    raw = np.zeros(size + LINE - 1, np.uint8)
    skip = -raw.__array_interface__["data"][0] % LINE
    return raw[skip : skip + size]


def _map(size: int) -> mmap.mmap:
    # Private, so that a forked child has its own copy.
    try:
        mapping = mmap.mmap(-1, _whole_pages(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise TableFullError(f"no memory for {size} bytes more: {error}") from error
    _advise(mapping)
    return mapping


def _advise(mapping: mmap.mmap) -> None:
    """Ask for huge pages: a random read then misses the cache, but seldom the TLB too."""
    if _huge_pages():
        with suppress(OSError):  # a kernel built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)


def _huge_pages() -> bool:
    return hasattr(mmap, "MADV_HUGEPAGE") and os.environ.get("HASHMEM_HUGE_PAGES") != "0"


def advise_huge(array: Bytes) -> None:
    """Ask for huge pages under an array in memory that Python allocated and nobody has touched."""
    if not _huge_pages():
        return
    import ctypes  # takes longer to import than most calls take

    first = -(-array.__array_interface__["data"][0] // mmap.PAGESIZE) * mmap.PAGESIZE
    size = array.__array_interface__["data"][0] + array.nbytes - first
    if size >= HUGE_PAGE:
        madvise = ctypes.CDLL(None).madvise
        madvise(
            ctypes.c_void_p(first), ctypes.c_size_t(size - size % mmap.PAGESIZE), mmap.MADV_HUGEPAGE
        )


def _whole_pages(size: int) -> int:
    return -(-size // HUGE_PAGE) * HUGE_PAGE


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
        return self.rows.nbytes if self._mapping is None else len(self._mapping)

    def resize(self, capacity: int) -> None:
        """Make room for `capacity` rows, keeping the first ones. O(1) where pages can move.

        Raises `TableFullError`, with the rows as they were, where there is no memory.
        """
        size = capacity * self._row_bytes
        old = self._mapping
        if old is not None and size >= MAPPED and self._move_pages(old, size):
            return
        mapping = _map(size) if size >= MAPPED else None
        fresh = self._view(_aligned(size) if mapping is None else np.frombuffer(mapping, np.uint8))
        kept = min(len(self.rows), capacity)
        fresh[:kept] = self.rows[:kept]
        self.rows, self._mapping = fresh, mapping

    def restore(self) -> None:
        """Find the rows again, where an exception fell into the moving of pages."""
        if self._mapping is not None:
            self.rows = self._view(np.frombuffer(self._mapping, np.uint8))

    def _move_pages(self, mapping: mmap.mmap, size: int) -> bool:
        """Resize the mapping itself. Whether that was possible."""
        try:
            self.rows = self._view(
                zeros(0)
            )  # pages move only when no array speaks of them any more
            mapping.resize(_whole_pages(size))
            _advise(mapping)
        except (BufferError, OSError, SystemError):  # a view is alive, no room, or no mremap here
            return False
        finally:
            self.restore()
        return True

    def _view(self, raw: Bytes) -> NDArray[Item]:
        raw = raw[: len(raw) - len(raw) % self._row_bytes]
        return raw.view(self._dtype).reshape(-1, *self._row)
