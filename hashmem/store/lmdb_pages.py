"""Is an LMDB file whole? LMDB maps its file, so a page beyond the file's end kills the process.

Layout of LMDB 0.9's data file on 64-bit machines (mdb.c: MDB_page, MDB_meta, MDB_node), in the
machine's byte order. Pages 0 and 1 hold the two meta pages; the one with the larger transaction
number counts.

    page      number u64, pad u16, flags u16, lower u16, upper u16, then offsets of nodes u16 …
    meta      (after the page's header) magic u32, version u32, address u64, map size u64,
              two databases of 48 bytes (free pages, main), last page u64, transaction u64
    database  pad u32 (of the first: the page size), …, root page u64
    node      low u16, high u16, flags u16, key size u16, key, value or u64 page of a large value

The file may end before the last page that the meta page names: pages that were taken and given
back within one transaction are never written. So where it ends early, the pages in use are looked
through; there are few, as values are large.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

from hashmem.errors import StoreFormatError

__all__ = ["check_length", "holds_commits"]

_PAGE = struct.Struct("=QHHHH")
_META = struct.Struct("=II8x8xI36xQ40xQQQ")  # from the magic to the transaction number
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_OFFSET = struct.Struct("=H")
_META_END = _PAGE.size + _META.size
MAGIC = 0xBEEFC0DE
BRANCH, LEAF = 1, 2  # flags of a page
BIG = 1  # flag of a node: its value lies in pages of its own
NONE = 2**64 - 1  # the root of an empty database
TRIES = 10  # a writer elsewhere may reuse pages while they are looked through


def check_length(path: Path) -> None:
    """Raise `StoreFormatError` where an LMDB file lacks pages in use. O(1) if it is long enough.

    Anything else that may be wrong with it is left to LMDB to tell.
    """
    if struct.calcsize("P") != 8:
        return  # another layout
    with open(path, "rb") as opened:
        file = opened.fileno()
        for _ in range(TRIES):
            metas = _metas(file)  # before the size, as a writer elsewhere writes it last
            size = os.fstat(file).st_size
            if not metas and size >= _META_END:
                return  # no file of LMDB's
            if len(metas) < 2:
                needed = 2 * metas[0].page_size if metas else _META_END
                raise StoreFormatError(_cut_off(path, size, needed))
            newest = max(metas, key=lambda meta: meta.transaction)
            if size >= (newest.last + 1) * newest.page_size:
                return
            try:
                end = max(_end_of_tree(file, root, newest.page_size, size) for root in newest.roots)
            except struct.error:  # a page that points outside itself
                end = size + newest.page_size
            if end <= size:
                return
            if _metas(file) == metas:
                raise StoreFormatError(_cut_off(path, size, end))


def holds_commits(path: Path) -> bool:
    """Whether anything was ever committed to an LMDB file."""
    with open(path, "rb") as opened:
        return any(meta.transaction > 0 for meta in _metas(opened.fileno()))


def _cut_off(path: Path, size: int, needed: int) -> str:
    return (
        f"{path} is cut off: it has {size} bytes and at least {needed - size} are missing; "
        "restore the store's folder from a copy"
    )


class _Meta(NamedTuple):
    page_size: int  # bytes
    roots: tuple[int, int]
    last: int  # page
    transaction: int


def _metas(file: int) -> list[_Meta]:
    """The meta pages that are there and whole."""
    found: list[_Meta] = []
    while len(found) < 2:
        at = found[0].page_size if found else 0
        raw = os.pread(file, _META.size, at + _PAGE.size)
        if len(raw) < _META.size:
            break
        magic, _, page_size, free, main, last, transaction = _META.unpack(raw)
        if magic != MAGIC or page_size == 0:
            break
        found.append(_Meta(page_size, (free, main), last, transaction))
    return found


def _end_of_tree(file: int, root: int, page_size: int, size: int) -> int:
    """Where the last byte in use by a tree ends, or some byte past `size` that is in use."""
    end = 0
    waiting = [root] if root != NONE else []
    seen: set[int] = set()
    while waiting:
        number = waiting.pop()
        end = max(end, (number + 1) * page_size)
        if end > size or number in seen:  # the latter only where pages changed under us
            continue
        seen.add(number)
        page = os.pread(file, page_size, number * page_size)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        for i in range(max(lower - _PAGE.size, 0) // 2):
            (at,) = _OFFSET.unpack_from(page, _PAGE.size + 2 * i)
            low, high, more, key_size = _NODE.unpack_from(page, at)
            if flags & BRANCH:
                waiting.append(low | high << 16 | more << 32)
            elif flags & LEAF and more & BIG:
                (first,) = _NUMBER.unpack_from(page, at + _NODE.size + key_size)
                pages = -(-(_PAGE.size + (low | high << 16)) // page_size)
                end = max(end, (first + pages) * page_size)
    return end
