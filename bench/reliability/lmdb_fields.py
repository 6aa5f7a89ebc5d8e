"""Which byte of a store's files is what: the fields of LMDB's pages, and of what lies in them.

Written from LMDB's source (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node), apart from the reader in
the package, which is what it helps to test. For whole files only: nothing is checked here.
"""

import struct
from collections.abc import Iterator

__all__ = ["Field", "fields_of", "gaps"]

Field = tuple[int, int, str]  # from byte, to byte, what it is

_PAGE = struct.Struct("<QHHHH")
_NODE = struct.Struct("<HHHH")
_META = (
    *(("magic", 4), ("version", 4), ("address", 8), ("map size", 8)),
    *(
        (f"{tree} {name}", size)
        for tree in ("free list's", "main tree's")
        for name, size in (
            *(("pad or page size", 4), ("flags", 2), ("depth", 2), ("branch pages", 8)),
            *(("leaf pages", 8), ("overflow pages", 8), ("entries", 8), ("root", 8)),
        )
    ),
    *(("last page", 8), ("transaction", 8)),
)
_PAGE_FIELDS = (("number", 8), ("pad", 2), ("flags", 2), ("lower", 2), ("upper", 2))
_OVERFLOW_FIELDS = (*_PAGE_FIELDS[:3], ("count of pages", 4))
_LEAF_FIELDS = (("value size", 4), ("flags", 2), ("key size", 2))
_HEAD = 16  # bytes of a page's header
_PACK_HEAD = 64  # bytes of a pack index's header and checksums
BRANCH, BIG = 1, 1
NONE = 2**64 - 1
KINDS = {b"h": "catalogue", b"n": "namespace record"}


def fields_of(data: bytes) -> list[Field]:
    """The fields of an LMDB file, in order; bytes in none of them are free or unused."""
    return sorted(field for field in _fields(data) if field[0] < field[1])


def gaps(fields: list[Field], size: int) -> list[Field]:
    """What lies between the fields."""
    found, at = [], 0
    for start, stop, _ in fields:
        if start > at:
            found.append((at, start, "free"))
        at = max(at, stop)
    return [*found, (at, size, "free")] if at < size else found


def _fields(data: bytes) -> Iterator[Field]:
    def u64(at: int) -> int:
        return int.from_bytes(data[at : at + 8], "little")

    page_size = int.from_bytes(data[_HEAD + 24 : _HEAD + 28], "little")
    transaction = _HEAD + 24 + 96 + 8
    newest = max((0, 1), key=lambda meta: u64(meta * page_size + transaction))
    for meta in (0, 1):
        kind = "meta" if meta == newest else "older meta"
        yield from _named(f"{kind} page:", _PAGE_FIELDS, meta * page_size)
        yield from _named(f"{kind}:", _META, meta * page_size + _HEAD)
    base = newest * page_size + _HEAD + 24
    for tree, root in (("free list", u64(base + 40)), ("tree", u64(base + 88))):
        if root != NONE:
            yield from _tree(data, root, page_size, tree)


def _named(prefix: str, sizes: tuple[tuple[str, int], ...], at: int) -> Iterator[Field]:
    for name, size in sizes:
        yield at, at + size, f"{prefix} {name}"
        at += size


def _tree(data: bytes, number: int, page_size: int, tree: str) -> Iterator[Field]:
    start = number * page_size
    _, _, flags, lower, _ = _PAGE.unpack_from(data, start)
    kind = f"{tree} {'branch' if flags & BRANCH else 'leaf'}:"
    yield from _named(kind, _PAGE_FIELDS, start)
    for at in range(start + _HEAD, start + lower, 2):
        yield at, at + 2, f"{kind} offset of a node"
        node = start + int.from_bytes(data[at : at + 2], "little")
        low, high, more, key_size = _NODE.unpack_from(data, node)
        key_at = node + _NODE.size
        key = data[key_at : key_at + key_size]
        yield key_at, key_at + key_size, f"{kind} key"
        if flags & BRANCH:
            yield node, node + 6, f"{kind} child"
            yield node + 6, node + 8, f"{kind} key size"
            yield from _tree(data, low | high << 16 | more << 32, page_size, tree)
            continue
        yield from _named(kind, _LEAF_FIELDS, node)
        size, value_at = low | high << 16, key_at + key_size
        if more & BIG:
            yield value_at, value_at + 8, f"{kind} page of a large value"
            page = int.from_bytes(data[value_at : value_at + 8], "little") * page_size
            yield from _named("overflow page:", _OVERFLOW_FIELDS, page)
            value_at = page + _HEAD
        yield from _value(value_at, size, key, tree)


def _value(at: int, size: int, key: bytes, tree: str) -> Iterator[Field]:
    column = int.from_bytes(key[5:7], "big") if len(key) == 15 else 0
    name = {1: "digests", 2: "payloads", 3: "metadata", 4: "successors", 5: "edges"}
    of = name.get(column, "a named column")
    if tree != "tree":
        yield at, at + size, f"{tree}: pages"
    elif key[:1] == b"i" and len(key) == 15:
        yield at, at + _PACK_HEAD, f"pack header: {of}"
        if size > _PACK_HEAD:
            yield at + _PACK_HEAD, at + size, f"pack index: {of}"
    elif key[:1] == b"b" and len(key) == 15:
        yield at, at + size, f"body: {of}"
    else:
        kind = key[:1].decode("ascii", "replace")
        yield at, at + size, KINDS.get(key[:1], f"value of a key {kind!r}")
