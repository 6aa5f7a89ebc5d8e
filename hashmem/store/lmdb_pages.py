"""Reading an LMDB file without LMDB, and telling whether it is whole.

LMDB believes its own pages, which carry no checksum, and maps its file: a bit flipped in them, or a
file cut off, ends the process. So `check` looks through every page of the trees before LMDB does.
And snapshots read through `Tree`, which believes nothing, touches no page of a value that was not
asked for, and tells where in the file a value lies.

Layout of LMDB 0.9's data file on 64-bit machines (mdb.c: MDB_page, MDB_meta, MDB_node), in the
machine's byte order. Pages 0 and 1 hold the two meta pages; commit t is written to page t mod 2.

    page      number u64, pad u16, flags u16, lower u16, upper u16, then offsets of nodes u16 …
              (of a large value: number of its pages u32 instead of lower and upper)
    meta      (after the page's header) magic u32, version u32, address u64, map size u64,
              two databases of 48 bytes (free pages, main), last page u64, transaction u64
    database  pad u32 (of the first: the page size), flags u16, depth u16, branch pages u64,
              leaf pages u64, pages of large values u64, entries u64, root page u64
    node      low u16, high u16, flags u16, key size u16, key, value or u64 page of a large value

The first database lists free pages: the transaction that freed them u64 → count u64, pages u64 ….
Every page from 2 to the last is in a tree, in a large value, or in that list, once.

The file may end before the last page: pages that were taken and given back within one transaction
are never written.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError, StoreFormatError

__all__ = [
    "FILLER", "NUMBER", "OWN", "Extent", "Meta", "Tree", "check", "check_length", "holds_commits",
    "metas",
]  # fmt: skip

_PAGE = struct.Struct("=QHHHH")
_META = struct.Struct("=IIQQ" + "IHHQQQQQ" * 2 + "QQ")
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")
_PAGES = struct.Struct("=I")
HEADER = _PAGE.size  # bytes, of a page
_META_END = HEADER + _META.size
MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
BRANCH, LEAF, LARGE, META = 1, 2, 4, 8  # flags of a page
BIG = 1  # flag of a node: its value lies in pages of its own
FREE_FLAGS = (
    0x4008  # of the free database: keys are integers; the file lies in no folder of its own
)
NUMBER = b"\0t"  # a key whose value is the number of the commit that wrote it last, u64
FILLER = (
    b"\0u"  # a key that is there or not, so that no two commits in turn on a meta page look alike
)
OWN = frozenset({NUMBER, FILLER})  # not for others to see
NONE = 2**64 - 1  # the root of an empty database
DEEPEST = 32  # levels of a tree
TRIES = 20  # a writer elsewhere may reuse pages while they are looked through

Bytes = memoryview


class Extent(NamedTuple):
    """Where a value lies in the file, in bytes."""

    start: int
    size: int
    stays: bool  # it has pages of its own, which are not copied when other values change


class Database(NamedTuple):
    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    large: int  # pages of large values
    entries: int
    root: int  # page


class Meta(NamedTuple):
    """A meta page."""

    page_size: int  # bytes
    free: Database
    main: Database
    last: int  # page
    transaction: int


def metas(data: Bytes) -> list[Meta]:
    """Return the meta pages of a file's bytes that are there and have LMDB's magic, at most two."""
    found: list[Meta] = []
    while len(found) < 2:
        at = found[0].page_size if found else 0
        if len(data) < at + _META_END:
            break
        fields = _META.unpack_from(data, at + HEADER)
        magic, version = fields[:2]
        free, main = Database(*fields[4:12]), Database(*fields[12:20])
        if magic != MAGIC or version != DATA_VERSION or not _is_page_size(free.pad):
            break
        found.append(Meta(free.pad, free, main, *fields[20:]))
    return found


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 1 << 16 and size & (size - 1) == 0


class Tree:
    """The main database of one commit, in a file's bytes, of which its pages must not change.

    Raises `CorruptStoreError` where they are not what LMDB writes.
    """

    def __init__(self, data: Bytes, meta: Meta) -> None:
        self.data = data
        self._size, self._last, self._root = meta.page_size, meta.last, meta.main.root
        self._pages: dict[int, Page] = {}  # that keys were sought in

    def find(self, key: bytes) -> Extent | None:
        """Return where the value under `key` lies, None where there is none. O(log n)."""
        number = self._root
        if number == NONE:
            return None
        for _ in range(DEEPEST):
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = Page(self.data, number, self._size, self._last)
            low, high = (1, len(page.nodes)) if page.is_branch else (0, len(page.nodes))
            while low < high:  # the first node whose key is above
                middle = (low + high) // 2
                if page.key(middle) <= key:
                    low = middle + 1
                else:
                    high = middle
            if page.is_branch:
                number = page.child(low - 1)
            else:
                return page.value(low - 1) if low and page.key(low - 1) == key else None
        raise CorruptStoreError("a tree of pages is deeper than any that LMDB makes")

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, Extent]]:
        """Yield each key from `start` on that has `prefix`, in order, and its value's place.

        O(log n + keys), without touching the values.
        """
        first = max(prefix, start)
        if self._root != NONE:
            yield from self._scan(self._root, prefix, first, DEEPEST)

    def _scan(
        self, number: int, prefix: bytes, first: bytes, levels: int
    ) -> Iterator[tuple[bytes, Extent]]:
        if not levels:
            raise CorruptStoreError("a tree of pages is deeper than any that LMDB makes")
        page = Page(self.data, number, self._size, self._last)
        keys = [page.key(i) for i in range(len(page.nodes))]
        for i, key in enumerate(keys):
            if page.is_branch:
                if i + 1 < len(keys) and keys[i + 1] <= first:
                    continue
                if i and key > first and not key.startswith(prefix):
                    return
                yield from self._scan(page.child(i), prefix, first, levels - 1)
            elif key >= first:
                if not key.startswith(prefix):
                    return
                yield key, page.value_pages(i)[0]


class Page:
    """A page of a tree, with its claims checked against its size and the file's."""

    __slots__ = ("_data", "_last", "_page", "_size", "_upper", "is_branch", "nodes", "number")

    def __init__(self, data: Bytes, number: int, size: int, last: int) -> None:
        start = number * size
        if not 2 <= number <= last or start + size > len(data):
            raise CorruptStoreError(f"page {number} is referred to, which is not in the file")
        self._data, self._size, self._last, self.number = data, size, last, number
        self._page = data[start : start + size]
        own, _, flags, lower, upper = _PAGE.unpack_from(self._page)
        if own != number or flags & ~16 not in (BRANCH, LEAF):  # 16: written, nothing more
            raise CorruptStoreError(f"page {number} should be one of a tree, and is not")
        if not HEADER <= lower <= upper <= size or lower % 2:
            raise CorruptStoreError(f"page {number} contradicts itself about its nodes")
        self._upper = upper
        self.is_branch = flags & BRANCH == BRANCH
        self.nodes = struct.unpack_from(f"={(lower - HEADER) // 2}H", self._page, HEADER)
        if len(self.nodes) < (2 if self.is_branch else 1):
            raise CorruptStoreError(f"page {number} has too few nodes")
        if min(self.nodes) < upper or max(self.nodes) > size - _NODE.size:
            raise CorruptStoreError(f"page {number} has a node outside itself")

    def expect_filled(self) -> None:
        """Raise unless the nodes lie one after the other up to the page's end, as LMDB keeps them.

        One that claims more than it has goes unnoticed until a commit moves it.
        """
        at = self._upper
        for node in sorted(self.nodes):
            if node != at:
                break
            low, high, flags, key_size = _NODE.unpack_from(self._page, node)
            value = 0 if self.is_branch else _NUMBER.size if flags == BIG else low | high << 16
            size = _NODE.size + key_size + value
            at += size + size % 2
        if at != self._size:
            raise CorruptStoreError(f"page {self.number} has nodes over each other or apart")

    def key(self, i: int) -> bytes:
        at = self.nodes[i]
        start = at + _NODE.size
        end = start + int(_NODE.unpack_from(self._page, at)[3])
        if end > self._size:
            raise CorruptStoreError(f"page {self.number}: a key goes beyond it")
        return bytes(self._page[start:end])

    def child(self, i: int) -> int:
        low, high, more, _ = _NODE.unpack_from(self._page, self.nodes[i])
        return int(low | high << 16 | more << 32)

    def value(self, i: int) -> Extent:
        """Where the value of a leaf's node lies. Of a large one the first page's header is read."""
        extent, pages = self.value_pages(i)
        if pages is not None:
            first, count = pages
            own, _, flags, _, _ = _PAGE.unpack_from(self._data, first * self._size)
            (claimed,) = _PAGES.unpack_from(self._data, first * self._size + 12)
            if own != first or flags & ~16 != LARGE or claimed != count:
                raise CorruptStoreError(f"page {first} should begin a large value, and does not")
        return extent

    def value_pages(self, i: int) -> tuple[Extent, tuple[int, int] | None]:
        """Where a value lies; and its first page and how many it has, if it has its own."""
        at = self.nodes[i]
        low, high, flags, key_size = _NODE.unpack_from(self._page, at)
        size, start = low | high << 16, at + _NODE.size + key_size
        if flags == 0:
            if start + size > self._size:
                raise CorruptStoreError(f"page {self.number}: a value goes beyond it")
            return Extent(self.number * self._size + start, size, False), None
        if flags != BIG or start + _NUMBER.size > self._size:
            raise CorruptStoreError(f"page {self.number}: a node of no kind that is written here")
        (first,) = _NUMBER.unpack_from(self._page, start)
        pages = -(-(HEADER + size) // self._size)
        beyond = first * self._size + HEADER + size > len(self._data)
        if first < 2 or first + pages - 1 > self._last or beyond:
            raise CorruptStoreError(f"page {self.number}: a value lies outside the file")
        return Extent(first * self._size + HEADER, size, True), (first, pages)


# -- is the file whole? -----------------------------------------------------------------------


def check(data: Bytes, *, whole: bool = False) -> None:
    """Raise `CorruptStoreError` unless LMDB can walk and change the newest commit in `data`.

    Looks at the meta pages and every page of both trees, and whether each page of the file is in
    use once or free. With `whole` also at the first page of each large value. O(pages of the
    trees). Nobody may commit meanwhile, or what this finds says nothing.
    """
    found = metas(data)
    if len(found) < 2:
        raise CorruptStoreError("a meta page of the LMDB file is damaged")
    new = max(found, key=lambda meta: meta.transaction)  # the first, where both are of a new file
    if found[0].page_size != found[1].page_size or not _is_pair(data, found):
        raise CorruptStoreError("the two meta pages of the LMDB file contradict each other")
    _check_commit(data, new, whole)
    number = _number_in(data, new)
    if number not in (None, new.transaction):
        raise CorruptStoreError(
            f"the newest meta page says that it is of commit {new.transaction}, and its tree that "
            f"it is of {number}"
        )
    old = min(found, key=lambda meta: meta.transaction)
    if whole and _number_in(data, old) == new.transaction + 1 and _is_commit(data, old):
        raise CorruptStoreError(
            f"commit {new.transaction + 1} is in the file, and its meta page does not say so: a "
            "commit that failed, or a meta page that is damaged"
        )


def _check_commit(data: Bytes, meta: Meta, whole: bool) -> None:
    used = [_checked(data, meta, database, whole) for database in (meta.main, meta.free)]
    used.append(_free_pages(data, meta))
    starts = np.concatenate([pages[0] for pages in used])
    counts = np.concatenate([pages[1] for pages in used])
    order = np.argsort(starts)
    ends = starts[order] + counts[order]
    expected = np.append(np.int64(2), ends)
    if not np.array_equal(expected[:-1], starts[order]) or int(expected[-1]) != meta.last + 1:
        raise CorruptStoreError(
            "the LMDB file does not account for each of its pages once: its trees or its list of "
            "free pages are damaged"
        )


def _is_commit(data: Bytes, meta: Meta) -> bool:
    """Whether a meta page fits what is in the file.

    It does not where a commit failed that used the pages of this one again: the number of keys
    tells, as that commit made sure (`Environment.commit`).
    """
    try:
        _check_commit(data, meta, whole=False)
    except CorruptStoreError:
        return False
    return True


def _number_in(data: Bytes, meta: Meta) -> int | None:
    """The number of the commit that wrote a tree, as it says itself; None where it does not."""
    try:
        found = Tree(data, meta).find(NUMBER)
    except CorruptStoreError:
        return None  # of an older commit, whose pages may have been used again
    if found is None or found.size != _NUMBER.size:
        return None
    return int(_NUMBER.unpack_from(data, found.start)[0])


def _is_pair(data: Bytes, found: list[Meta]) -> bool:
    """Whether the two meta pages are what two commits, one after the other, leave behind."""
    for i, meta in enumerate(found):
        own, _, flags, _, _ = _PAGE.unpack_from(data, i * meta.page_size)
        _, _, address, map_size, *_ = _META.unpack_from(data, i * meta.page_size + HEADER)
        plain = own == i and flags == META and address == 0 and 0 < map_size < 1 << 47
        if not plain or meta.free.flags != FREE_FLAGS or meta.main.flags or meta.main.pad:
            return False
        if meta.transaction and meta.transaction % 2 != i:
            return False
    first, second = (meta.transaction for meta in found)
    return abs(first - second) == 1 or first == second == 0


Pages = tuple[NDArray[np.int64], NDArray[np.int64]]  # where runs of pages start, and how many


def _checked(data: Bytes, meta: Meta, database: Database, whole: bool) -> Pages:
    """Check one database; return the pages it uses."""
    if database.root == NONE:
        if any(database[2:7]):
            raise CorruptStoreError("an empty tree of pages claims to hold something")
        return np.empty(0, np.int64), np.empty(0, np.int64)
    starts, counts = [], []
    branches = leaves = large = entries = 0
    step = -1 if database is meta.free else 1  # its keys are little-endian
    waiting: list[tuple[int, int, bytes, bytes | None]] = [(database.root, 1, b"", None)]
    while waiting:  # page, depth, and between which keys its own lie
        number, depth, least, above = waiting.pop()
        page = Page(data, number, meta.page_size, meta.last)
        page.expect_filled()
        if page.is_branch is (depth == database.depth):
            raise CorruptStoreError(f"page {number} is at the wrong depth of its tree")
        starts.append(number)
        counts.append(1)
        if page.is_branch:
            branches += 1
            keys = [page.key(i)[::step] for i in range(1, len(page.nodes))]
            if len(starts) > meta.last:
                raise CorruptStoreError("a tree of pages goes round in a circle")
            for i, bounds in enumerate(zip([least, *keys], [*keys, above], strict=True)):
                waiting.append((page.child(i), depth + 1, *bounds))
        else:
            leaves += 1
            keys = [page.key(i)[::step] for i in range(len(page.nodes))]
            entries += len(keys)
            for i in range(len(keys)):
                if whole:
                    page.value(i)
                _, pages = page.value_pages(i)
                if pages is not None:
                    starts.append(pages[0])
                    counts.append(pages[1])
                    large += pages[1]
        if keys != sorted(set(keys)) or keys[0] < least or (above and keys[-1] >= above):
            raise CorruptStoreError(f"page {number} has keys out of order")
    if (branches, leaves, large, entries) != tuple(database[3:7]):
        raise CorruptStoreError("a tree of pages is not as large as its meta page says")
    return np.array(starts), np.array(counts)


def _free_pages(data: Bytes, meta: Meta) -> Pages:
    """The pages that the newest commit lists as free."""
    free = Tree(data, meta._replace(main=meta.free))
    found = [np.empty(0, np.int64)]
    for key, (start, size, _) in free.scan(b""):
        pages = np.frombuffer(data[start : start + size - size % 8], "=u8")
        if len(key) != 8 or size % 8 or len(pages) < 1 or int(pages[0]) != len(pages) - 1:
            raise CorruptStoreError("the LMDB file's list of free pages is damaged")
        if int(pages[1:].max(initial=2)) > meta.last:
            raise CorruptStoreError("the LMDB file lists a page as free that it does not have")
        found.append(pages[1:].astype(np.int64))
    pages = np.concatenate(found)
    return pages, np.ones_like(pages)


def check_length(path: Path, size: int, data: Bytes) -> None:
    """Raise `StoreFormatError` where an LMDB file of `size` bytes lacks pages in use.

    O(1) if it is as long as its newest commit's last page, or else O(pages of the trees).
    """
    found = metas(data)
    if len(found) < 2:
        if len(data) >= _META_END and not found:
            return  # no file of LMDB's, as LMDB will tell
        raise StoreFormatError(_cut_off(path, size, 2 * found[0].page_size if found else _META_END))
    newest = max(found, key=lambda meta: meta.transaction)
    if size >= (newest.last + 1) * newest.page_size:
        return
    for database in (newest.main, newest.free):
        try:
            starts, counts = _checked(data, newest, database, False)
        except CorruptStoreError:
            raise StoreFormatError(_cut_off(path, size, size + newest.page_size)) from None
        end = int((starts + counts).max(initial=0)) * newest.page_size
        if end > size:
            raise StoreFormatError(_cut_off(path, size, end))


def holds_commits(path: Path) -> bool:
    """Whether anything was ever committed to an LMDB file."""
    data = memoryview(path.read_bytes()[: 1 << 17])
    return any(meta.transaction > 0 for meta in metas(data))


def _cut_off(path: Path, size: int, needed: int) -> str:
    return (
        f"{path} is cut off: it has {size} bytes and at least {needed - size} are missing; "
        "restore the store's folder from a copy"
    )
