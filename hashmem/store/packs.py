"""Packs: how many records' bytes lie in one stored value. docs/format.md draws the layout.

A pack says for some rows what one column (payloads, metadata, successors, …) holds. It is two
values: the *body*, the items' bytes one after the other, and the *index*, a header of 64 bytes
with the rows and lengths as arrays, which can be read without touching the body. A pack never
changes once it is written. Among packs that speak of one row the one with the highest number
counts; a length of `REMOVED` says that the row holds nothing there. All integers are
little-endian. Two checksums (XXH3, 64 bits): one of the index, checked whenever it is read, one
of the body, checked by `is_sound`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError

__all__ = ["PACK_LIMIT", "Pack", "build", "cut", "parse"]

MAGIC = b"HMPK"
VERSION = 1
PACK_LIMIT = 1 << 22  # 4 MiB of items: LMDB needs contiguous pages for one value
REMOVED = 0xFFFF_FFFF  # as a stored length; -1 in a `Pack`

# magic, version, column, flags, item size, count, first row, body bytes, part, parts
_HEADER = struct.Struct("<4sHHIIQQQII")
_SUMS = struct.Struct("<QQ")  # of header and arrays, of the body
_START = _HEADER.size + _SUMS.size  # 64: where the arrays start
_CONTIGUOUS = 1  # rows are first row, first row + 1, …: there is no array of rows
_FIXED = 2  # every item has `item size` bytes: there is no array of lengths

_ROWS = 1 << 48  # more than a store can have

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pack:
    """A parsed index. Its arrays are copies and stay valid."""

    rows: Rows  # (count,)
    lengths: Rows  # (count,) bytes, -1 where the row was removed
    body_bytes: int
    body_sum: int
    part: int  # this pack holds part 0 … parts - 1 of one large item,
    parts: int  # in packs numbered one after the other

    @property
    def offsets(self) -> Rows:
        """Where each item starts in the body, in bytes: (count,). O(count)."""
        sizes = np.maximum(self.lengths, 0)
        return sizes.cumsum() - sizes

    def is_sound(self, body: memoryview) -> bool:
        """Whether `body` has the size and checksum it was written with. O(bytes)."""
        return len(body) == self.body_bytes and xxhash.xxh3_64_intdigest(body) == self.body_sum


def build(
    column: int,
    rows: Rows,
    lengths: Rows | int,
    items: Sequence[bytes | memoryview],
    part: int = 0,
    parts: int = 1,
) -> tuple[bytes, bytes]:
    """Return the index and the body of a pack that holds `items` for `rows`. O(bytes), one copy.

    `lengths` are the bytes of each row's item (-1 for a removed row, which has none in `items`),
    or one number for all. The buffers in `items` joined make up the items in order.
    """
    count = len(rows)
    flags, size, arrays = 0, 0, []
    first = int(rows[0]) if count else 0
    if count < 2 or (int(rows[-1]) - first == count - 1 and bool((np.diff(rows) == 1).all())):
        flags |= _CONTIGUOUS
    else:
        arrays.append(rows.astype("<u8").tobytes())
    if isinstance(lengths, int):
        flags |= _FIXED
        size = lengths
    else:
        arrays.append(np.where(lengths < 0, REMOVED, lengths).astype("<u4").tobytes())
    body = items[0] if len(items) == 1 and isinstance(items[0], bytes) else b"".join(items)
    header = _HEADER.pack(MAGIC, VERSION, column, flags, size, count, first, len(body), part, parts)
    sums = _SUMS.pack(
        xxhash.xxh3_64_intdigest(b"".join([header, *arrays])), xxhash.xxh3_64_intdigest(body)
    )
    return b"".join([header, sums, *arrays]), bytes(body)


def parse(index: memoryview, column: int) -> Pack:
    """Return the pack whose index is `index`.

    Raises `CorruptStoreError` saying what does not fit: magic, version, column, sizes, checksum.
    """
    if len(index) < _START:
        raise CorruptStoreError(f"a pack's index has {len(index)} bytes, less than its header")
    fields = _HEADER.unpack_from(index)
    magic, version, of, flags, size, count, first, body_bytes, part, parts = fields
    index_sum, body_sum = _SUMS.unpack_from(index, _HEADER.size)
    if magic != MAGIC or version != VERSION or of != column:
        raise CorruptStoreError(
            f"no pack of column {column}, version {VERSION}: found {bytes(magic)!r}, "
            f"version {version}, column {of}"
        )
    row_bytes = 0 if flags & _CONTIGUOUS else 8 * count
    length_bytes = 0 if flags & _FIXED else 4 * count
    if flags > 3 or _START + row_bytes + length_bytes != len(index):
        raise CorruptStoreError(f"a pack's index of {len(index)} bytes claims {count} items")
    hasher = xxhash.xxh3_64(index[: _HEADER.size])
    hasher.update(index[_START:])
    if hasher.intdigest() != index_sum:
        raise CorruptStoreError("a pack's index does not match its checksum")
    # Sizes are believed only as far as a pack can be large, so that a pack made up to lie, its
    # checksum right, cannot ask for more memory than a real one.
    believable = body_bytes <= PACK_LIMIT and (not flags & _FIXED or count * size == body_bytes)
    believable = believable and (size > 0 or count <= PACK_LIMIT or not flags & _FIXED)
    believable = believable and part < parts and (parts == 1 or count == 1)
    if not believable or first + count > _ROWS:
        raise CorruptStoreError(
            f"a pack claims {count} items from row {first} in {body_bytes} bytes, part {part} of "
            f"{parts}"
        )
    if flags & _CONTIGUOUS:
        rows = np.arange(first, first + count, dtype=np.int64)
    else:
        rows = np.frombuffer(index, "<u8", count, _START).astype(np.int64)
        if count and not 0 <= int(rows.min()) <= int(rows.max()) < _ROWS:
            raise CorruptStoreError("a pack speaks of a row that no store can have")
    if flags & _FIXED:
        lengths = np.full(count, size, np.int64)
    else:
        stored = np.frombuffer(index, "<u4", count, _START + row_bytes).astype(np.int64)
        lengths = np.where(stored == REMOVED, -1, stored)
        if int(np.maximum(lengths, 0).sum()) != body_bytes:
            raise CorruptStoreError(f"a pack's items do not add up to its {body_bytes} bytes")
    return Pack(rows, lengths, body_bytes, body_sum, part, parts)


def cut(lengths: Rows) -> list[tuple[int, int]]:
    """Return the (start, stop) runs of items that fill one pack each, of at most `PACK_LIMIT`.

    An item larger than that is a run of its own. O(packs · log n).
    """
    ends = np.maximum(lengths, 0).cumsum()
    runs, start, used = [], 0, 0
    while start < len(lengths):
        stop = int(np.searchsorted(ends, used + PACK_LIMIT, side="right"))
        stop = max(stop, start + 1)
        runs.append((start, stop))
        start, used = stop, int(ends[stop - 1])
    return runs
