"""Where everything lies: the keys of a backend, the columns, and the record of a namespace.

Keys sort by kind, then namespace, column and number, all big-endian:

    "h"                                     the header: msgpack, see `Catalogue`
    "n" namespace u32                       the record of a namespace: msgpack, see `Info`
    "i" namespace u32, column u16, pack u64 the index of a pack
    "b" namespace u32, column u16, pack u64 the body of a pack
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import xxhash

from hashmem.digests import WIDTHS
from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.backend import Reader, Transaction
from hashmem.store.packs import PACK_LIMIT

__all__ = [
    "DIGESTS", "DTYPES", "EDGES", "FIRST_NAMED", "METADATA", "PAYLOADS", "SUCCESSORS",
    "Catalogue", "Info", "body_key", "index_key", "namespace_keys", "namespace_record", "pack_keys",
    "pack_number", "pack_of", "pack_prefix", "unpack", "unsealed",
]  # fmt: skip

FORMAT = 2  # version of all that is described here, in packs.py and in checkpoint.py

DIGESTS = 1  # row → digest; rows are numbered from 0 without gaps, in packs that follow on
PAYLOADS = 2  # row → the record's content; a row without one is a placeholder
METADATA = 3  # row → msgpack map
SUCCESSORS = 4  # row → row i64, -1 for none
EDGES = 5  # source row → relation i64, target row i64; all packs count, in order
FIRST_NAMED = 16  # from here on: the fixed-width columns a user named

DTYPES = frozenset({"|b1", "|i1", "|u1", *(f"<{k}{n}" for k in "iuf" for n in (2, 4, 8))})

_PACK_KEY = struct.Struct(">cIHQ")
_PREFIX = struct.Struct(">cIH")
_NAMESPACE = struct.Struct(">cI")


def index_key(namespace: int, column: int, number: int) -> bytes:
    return _PACK_KEY.pack(b"i", namespace, column, number)


def body_key(namespace: int, column: int, number: int) -> bytes:
    return _PACK_KEY.pack(b"b", namespace, column, number)


def namespace_record(namespace: int) -> bytes:
    """The key of the record of a namespace."""
    return _NAMESPACE.pack(b"n", namespace)


def pack_prefix(namespace: int, column: int) -> bytes:
    """What the index keys of one column begin with."""
    return _PREFIX.pack(b"i", namespace, column)


def pack_number(key: bytes) -> int:
    if len(key) != _PACK_KEY.size:
        raise CorruptStoreError(f"a key of {len(key)} bytes stands among those of packs")
    return int(_PACK_KEY.unpack(key)[3])


def pack_of(key: bytes) -> tuple[int, int, int]:
    """The namespace, column and number of the pack that a key is of."""
    _, namespace, column, number = _PACK_KEY.unpack(key)
    return int(namespace), int(column), int(number)


@dataclass
class Catalogue:
    """The header of a store: its format's version and the numbers of its namespaces."""

    namespaces: dict[str, int] = field(default_factory=dict)
    next_namespace: int = 1  # numbers are never used twice
    format: int = FORMAT

    @classmethod
    def read(cls, reader: Reader) -> "Catalogue":
        """Return the header, or a fresh one where nothing was ever committed.

        Raises `StoreFormatError` on a newer version or something that is no header.
        """
        stored = _unpack(reader, b"h", "the store's header", _HEADER)
        if stored is None:
            if next(reader.keys(b""), None) is not None:
                raise CorruptStoreError("the store's header is gone, and there is more in it")
            return cls()
        version = stored.get("format")
        if not isinstance(version, int) or version > FORMAT:
            raise StoreFormatError(
                f"the store has format version {version!r}, this release of hashmem reads up to "
                f"{FORMAT}: upgrade hashmem"
            )
        try:
            found = cls(**stored)
        except TypeError as error:
            raise CorruptStoreError(f"the store's header cannot be read: {error}") from error
        for name, number in found.namespaces.items():
            if type(name) is not str or type(number) is not int or not 0 < number < 1 << 32:
                raise CorruptStoreError(f"the store's header numbers {name!r:.80} {number!r:.80}")
        return found

    @classmethod
    def upgrade(cls, transaction: Transaction) -> None:
        """Have the header name the version that is written now."""
        found = cls.read(transaction)
        if found.format < FORMAT:
            found.write(transaction)

    def write(self, transaction: Transaction) -> None:
        self.format = FORMAT
        transaction.put(b"h", _sealed(vars(self)))


@dataclass
class Info:
    """The record of a namespace."""

    algorithm: str
    key_check: bytes = b""  # digest of a fixed text under the namespace's key; empty without key
    next_pack: int = 1  # numbers are never used twice, in all columns together
    relations: list[str] = field(default_factory=list)  # a relation's number is its place here
    columns: dict[str, list[Any]] = field(default_factory=dict)  # name → [column, dtype, width]
    checkpoint: str = ""  # name of the file that has the first rows, where there is one
    packs: dict[str, list[int]] = field(default_factory=dict)  # column → [how many, their xor]
    own_key: bytes = b""  # what its digests are keyed with, where its maker gave no key; or empty

    @classmethod
    def read(cls, reader: Reader, namespace: int) -> "Info | None":
        """Return the record of a namespace, None where it has none."""
        stored = _unpack(reader, _NAMESPACE.pack(b"n", namespace), "a namespace's record", _RECORD)
        try:
            found = None if stored is None else cls(**stored)
        except TypeError as error:
            raise CorruptStoreError(f"a namespace's record cannot be read: {error}") from error
        problem = found.problem() if found is not None else ""
        if problem:
            raise CorruptStoreError(f"a namespace's record contradicts itself: {problem}")
        return found

    def copy(self) -> "Info":
        """Return one that can be changed by itself."""
        return Info(
            **vars(self)
            | {
                "relations": list(self.relations),
                "columns": dict(self.columns),
                "packs": {column: list(count) for column, count in self.packs.items()},
            }
        )

    def count(self, column: int, fresh: Iterable[int], gone: Iterable[int]) -> None:
        """Take note of packs of a column that were written and that went."""
        known = self.packs.setdefault(str(column), [0, 0])
        for step, numbers in ((1, fresh), (-1, gone)):
            for number in numbers:
                known[0] += step
                known[1] ^= number

    def problem(self) -> str:
        """What in it cannot be; "" where all can."""
        if self.algorithm not in WIDTHS:
            return f"no algorithm is called {self.algorithm!r}"
        if len(self.key_check) not in (0, WIDTHS[self.algorithm]):
            return "its key check is none"
        if not 1 <= self.next_pack < 1 << 63:
            return f"the number of its next pack is {self.next_pack!r}"
        if not _are_names(self.relations) or len(set(self.relations)) < len(self.relations):
            return "its relations are no names"
        if "/" in self.checkpoint:
            return "it names no file as its checkpoint"
        if not _are_names(list(self.columns)):
            return "its columns have no names"
        for name, column in self.columns.items():
            if not _is_column(column):
                return f"column {name!r} is described as nothing that can be"
        for number, count in self.packs.items():
            if type(number) is not str or not number.isdecimal() or not _is_count(count):
                return "it does not count its packs"
        return ""

    def write(self, transaction: Transaction, namespace: int) -> None:
        transaction.put(_NAMESPACE.pack(b"n", namespace), _sealed(vars(self)))


_HEADER = {"format": int, "namespaces": dict, "next_namespace": int}
_RECORD = {
    "algorithm": str, "key_check": bytes, "next_pack": int, "relations": list, "columns": dict,
    "checkpoint": str, "packs": dict, "own_key": bytes,
}  # fmt: skip


def _is_column(described: object) -> bool:
    """Whether a record describes a column as [number, dtype, items a row]."""
    if type(described) is not list or len(described) != 3:
        return False
    number, dtype, items = described
    if type(number) is not int or type(dtype) is not str or type(items) is not int:
        return False
    return dtype in DTYPES and FIRST_NAMED <= number < 1 << 16 and 0 < items <= PACK_LIMIT


def _is_count(count: object) -> bool:
    """Whether a record says [how many, their xor]."""
    return type(count) is list and [type(number) for number in count] == [int, int]


def pack_keys(reader: Reader, namespace: int) -> list[bytes]:
    """The keys of all packs of a namespace: of their indexes, then of their bodies."""
    prefixes = [_NAMESPACE.pack(kind, namespace) for kind in (b"i", b"b")]
    keys = [key for prefix in prefixes for key in reader.keys(prefix)]
    return [key for key in keys if len(key) == _PACK_KEY.size]


def namespace_keys(reader: Reader, namespace: int) -> list[bytes]:
    """Every key that belongs to a namespace."""
    return [
        key for kind in (b"n", b"i", b"b") for key in reader.keys(_NAMESPACE.pack(kind, namespace))
    ]


_SUM = struct.Struct("<cQ")  # a byte that begins no msgpack, XXH3-64 of what follows
_MARK = b"\xc1"


def _sealed(record: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(record)
    return _SUM.pack(_MARK, xxhash.xxh3_64_intdigest(packed)) + packed


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _unpack(reader: Reader, key: bytes, what: str, types: dict[str, type]) -> dict[str, Any] | None:
    """Return the record under `key`, each of whose entries is of the type that `types` says."""
    value = reader.get(key)
    if value is None:
        return None
    stored = unsealed(value, what)
    for name, entry in stored.items():
        if name in types and type(entry) is not types[name]:
            kind = types[name].__name__
            raise CorruptStoreError(f"{what} says {name} = {entry!r:.80}, which is no {kind}")
    return stored


def unsealed(value: bytes | memoryview, what: str) -> dict[str, Any]:
    """Return the record in a value. Raises `CorruptStoreError` where it is damaged, or no map."""
    if bytes(value[:1]) == _MARK:  # none in version 1
        mark = value[: _SUM.size]
        value = value[_SUM.size :]
        if len(mark) < _SUM.size or _SUM.unpack(mark)[1] != xxhash.xxh3_64_intdigest(value):
            raise CorruptStoreError(f"{what} does not match its checksum")
    try:
        stored = unpack(value)
    except ValueError as error:
        raise CorruptStoreError(f"{what} cannot be read: {error}") from error
    if not isinstance(stored, dict):
        raise CorruptStoreError(f"{what} is a {type(stored).__name__}, not a map")
    return stored


def unpack(packed: bytes | memoryview, *, any_key: bool = False) -> Any:
    """Unpack one msgpack object. Raises `ValueError` where it is not one.

    An array says how many items it has before they come, and a list of so many is made at once: so
    what claims more than is there is found out first, without making anything.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(packed), 1))
    unpacker.feed(packed)
    try:
        unpacker.skip()
        return msgpack.unpackb(packed, strict_map_key=not any_key)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(str(error) or type(error).__name__) from error
