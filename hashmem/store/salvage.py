"""Reading what can still be read of an LMDB file of which any page may be damaged.

Where the pages are whole, what the newest commit has counts. Where they are not, or a value does
not match its own checksum, older copies of pages are looked at as well: LMDB copies a page before
it changes it, so that what a damaged page led to is often found through the one that it replaced.
Nothing is believed that has no checksum of its own, or is not plausible where it has none.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hashmem.errors import CorruptStoreError
from hashmem.store.backend import Snapshot
from hashmem.store.layout import body_key, index_key
from hashmem.store.lmdb_pages import (
    BIG,
    DATA_VERSION,
    HEADER,
    LARGE,
    LEAF,
    MAGIC,
    NONE,
    Extent,
    Page,
    check,
)  # fmt: skip
from hashmem.store.packs import Pack, parse

__all__ = ["Salvage"]

_META = struct.Struct("=IIQQ" + "IHHQQQQQ" * 2 + "QQ")
_NODE = struct.Struct("=HHHH")
_PAGE_SIZES = [1 << bits for bits in range(9, 17)]
_KEYS = {b"h": 1, b"n": 5, b"i": 15, b"b": 15}  # bytes of a key, by its first
_COPIES = 64  # of one value, that are looked at


class Salvage(Snapshot):
    """What is found in a file; `get` gives of each key what is best of it.

    Raises `CorruptStoreError` where nothing can be found.
    """

    def __init__(self, path: Path, generation: int) -> None:
        self.version = (generation, 0)
        with open(path, "rb") as file:
            empty = not file.seek(0, 2)
            self.map = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = memoryview(self.map)
        self.damage = ""  # of pages; "" where all are whole
        self.healed: list[bytes] = []  # keys of which another copy is whole than the one in use
        self._found: dict[bytes, list[Extent]] = {}  # the best first
        self._large: list[tuple[int, int]] = []  # pages that begin a large value, and how many
        self._scanned = False
        metas = self._metas()
        self._size = metas[0][0] if metas else mmap.PAGESIZE
        self._last = len(self._data) // self._size - 1
        try:
            check(self._data, whole=True)
        except CorruptStoreError as error:
            self.damage = str(error)
        for _, root in metas[: 2 if self.damage else 1]:
            self._walk(root)
        if self.damage:
            self._scan()
        if self.damage and not any(key[:1] in b"nib" for key in self._found):
            raise CorruptStoreError(f"{path}: nothing in it can be read any more: {self.damage}")

    # -- what a repair asks for -------------------------------------------------------------------

    def extent(self, key: bytes) -> Extent | None:
        return self._found.get(key, [None])[0]

    def get(self, key: bytes) -> memoryview | None:
        extent = self.extent(key)
        return None if extent is None else self._value(extent)

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        first = max(prefix, start)
        return iter(sorted(key for key in self._found if key.startswith(prefix) and key >= first))

    def copies(self, key: bytes) -> list[memoryview]:
        """All that was found under a key, the newest first where that is known."""
        return [self._value(extent) for extent in self._found.get(key, [])]

    def best(self, key: bytes, is_sound: Callable[[memoryview], bool]) -> memoryview | None:
        """Return the first sound copy of a value, which `get` returns from then on; or None."""
        for scanned in (False, True):
            if scanned:
                self._scan()
            for extent in self._found.get(key, []):
                value = self._value(extent)
                if is_sound(value):
                    if extent is not self.extent(key):
                        self.healed.append(key)
                    self._prefer(key, extent)
                    return value
        return None

    def index(self, namespace: int, column: int, number: int) -> Pack | None:
        """Return the index of a pack, None where it is damaged."""
        key = index_key(namespace, column, number)
        value = self.best(key, lambda value: _parsed(value, column) is not None)
        return None if value is None else _parsed(value, column)

    def body(self, namespace: int, column: int, number: int, pack: Pack) -> memoryview | None:
        """Return the body of a pack that matches its checksum, None where there is none."""
        key = body_key(namespace, column, number)
        found = self.best(key, pack.is_sound)
        if found is not None:
            return found
        pages = -(-(HEADER + pack.body_bytes) // self._size)
        for first, count in self._large:  # what led to it may be lost
            extent = Extent(first * self._size + HEADER, pack.body_bytes, True)
            inside = extent.start + extent.size <= len(self._data)
            if count == pages and inside and pack.is_sound(self._value(extent)):
                self.healed.append(key)
                self._prefer(key, extent)
                return self._value(extent)
        return None

    def close(self) -> None:
        self._found.clear()
        self.closed = True

    def _value(self, extent: Extent) -> memoryview:
        return self._data[extent.start : extent.start + extent.size]

    def _prefer(self, key: bytes, extent: Extent) -> None:
        found = self._found.setdefault(key, [])
        if extent in found:
            found.remove(extent)
        found.insert(0, extent)

    # -- looking through the file -----------------------------------------------------------------

    def _metas(self) -> list[tuple[int, int]]:
        """The page size and the root of each commit that a meta page tells of, newest first."""
        found = []
        for at in [0, *_PAGE_SIZES]:
            if at + HEADER + _META.size > len(self._data):
                break
            fields = _META.unpack_from(self._data, at + HEADER)
            size, root, commit = fields[4], fields[19], fields[21]
            sizes = _PAGE_SIZES if at == 0 else [at]
            if fields[:2] == (MAGIC, DATA_VERSION) and size in sizes:
                found.append((commit, size, root))
        found.sort(reverse=True)
        return [(size, root) for _, size, root in found]

    def _walk(self, root: int) -> None:
        """Take in what a tree has, past pages that are damaged."""
        waiting, seen = [root], set()
        while waiting:
            number = waiting.pop()
            if number == NONE or number in seen or not 2 <= number <= self._last:
                continue
            seen.add(number)
            try:
                page = Page(self._data, number, self._size, self._last)
                if page.is_branch:
                    waiting += [page.child(i) for i in range(len(page.nodes))]
                    continue
            except CorruptStoreError:
                pass
            self._leaf(number)

    def _scan(self) -> None:
        """Take in what pages hold that no tree leads to, and where large values begin."""
        if self._scanned:
            return
        self._scanned = True
        whole = np.frombuffer(self._data, np.uint8, (self._last + 1) * self._size)
        pages = whole.reshape(-1, self._size)
        numbers = np.ascontiguousarray(pages[:, :8]).view(np.uint64)[:, 0]
        flags = np.ascontiguousarray(pages[:, 10:12]).view(np.uint16)[:, 0] & ~np.uint16(16)
        own = numbers == np.arange(len(pages))
        inside = np.zeros(len(pages), np.bool_)  # of large values, which may hold anything
        for extents in list(self._found.values()):
            for start, size, stays in extents:
                if stays:
                    inside[start // self._size + 1 : -(-(start + size) // self._size)] = True
        for number in np.flatnonzero(own & (flags == LARGE) & ~inside).tolist():
            count = int(np.ascontiguousarray(pages[number, 12:16]).view(np.uint32)[0])
            self._large.append((number, count))
        for number in np.flatnonzero(own & (flags == LEAF) & ~inside).tolist():
            self._leaf(number, known=not self.damage)

    def _leaf(self, number: int, known: bool = False) -> None:
        """Take in all nodes of a page that can be; with `known`, only copies of what is known."""
        page = self._data[number * self._size : (number + 1) * self._size]
        for at in self._nodes(number, page):
            if not HEADER <= at <= self._size - _NODE.size:
                continue
            low, high, flags, key_size = _NODE.unpack_from(page, at)
            start = at + _NODE.size + key_size
            key = bytes(page[at + _NODE.size : start])
            if start > self._size or _KEYS.get(key[:1]) != key_size:
                continue
            extent = self._extent(number, page, start, low | high << 16, flags)
            copies = self._found.get(key)
            if copies is None and not known and extent is not None:
                self._found[key] = [extent]
            elif copies and extent is not None and len(copies) < _COPIES and extent not in copies:
                copies.append(extent)

    def _nodes(self, number: int, page: memoryview) -> list[int]:
        """Where the nodes of a page are said to begin. What lies between is anything's remains."""
        try:
            return list(Page(self._data, number, self._size, self._last).nodes)
        except CorruptStoreError:
            offsets: list[int] = np.frombuffer(page, "=u2").tolist()
        lower = offsets[6]
        if HEADER <= lower <= self._size and lower % 2 == 0:
            return offsets[HEADER // 2 : lower // 2]
        lowest, found = self._size, []
        for i in range(HEADER // 2, len(offsets)):
            if 2 * i >= lowest:  # where the nodes begin
                break
            found.append(offsets[i])
            if offsets[i] >= HEADER:
                lowest = min(lowest, offsets[i])
        return found

    def _extent(
        self, number: int, page: memoryview, start: int, size: int, flags: int
    ) -> Extent | None:
        if not flags & BIG:
            inside = start + size <= self._size
            return Extent(number * self._size + start, size, False) if inside else None
        if start + 8 > self._size:
            return None
        (first,) = struct.unpack_from("=Q", page, start)
        end = first * self._size + HEADER + size
        inside = first >= 2 and end <= len(self._data)
        return Extent(first * self._size + HEADER, size, True) if inside else None


def _parsed(value: memoryview, column: int) -> Pack | None:
    try:
        return parse(value, column)
    except CorruptStoreError:
        return None
