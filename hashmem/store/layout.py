"""Where everything lies: the keys of a backend, the columns, and the record of a namespace.

Keys sort by kind, then namespace, column and number, all big-endian:

    "h"                                     the header: msgpack, see `Catalogue`
    "n" namespace u32                       the record of a namespace: msgpack, see `Info`
    "i" namespace u32, column u16, pack u64 the index of a pack
    "b" namespace u32, column u16, pack u64 the body of a pack
"""

import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack

from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.backend import Reader, Transaction

__all__ = [
    "DIGESTS", "EDGES", "FIRST_NAMED", "METADATA", "PAYLOADS", "SUCCESSORS",
    "Catalogue", "Info", "body_key", "body_prefix", "index_key", "pack_number", "pack_prefix",
]  # fmt: skip

FORMAT = 2  # version of all that is described here, in packs.py and in checkpoint.py

DIGESTS = 1  # row → digest; rows are numbered from 0 without gaps, in packs that follow on
PAYLOADS = 2  # row → the record's content; a row without one is a placeholder
METADATA = 3  # row → msgpack map
SUCCESSORS = 4  # row → row i64, -1 for none
EDGES = 5  # source row → relation i64, target row i64; all packs count, in order
FIRST_NAMED = 16  # from here on: the fixed-width columns a user named

_PACK_KEY = struct.Struct(">cIHQ")
_PREFIX = struct.Struct(">cIH")
_NAMESPACE = struct.Struct(">cI")


def index_key(namespace: int, column: int, number: int) -> bytes:
    return _PACK_KEY.pack(b"i", namespace, column, number)


def body_key(namespace: int, column: int, number: int) -> bytes:
    return _PACK_KEY.pack(b"b", namespace, column, number)


def pack_prefix(namespace: int, column: int) -> bytes:
    """What the index keys of one column begin with."""
    return _PREFIX.pack(b"i", namespace, column)


def body_prefix(namespace: int, column: int) -> bytes:
    """What the body keys of one column begin with."""
    return _PREFIX.pack(b"b", namespace, column)


def pack_number(key: bytes) -> int:
    return int(_PACK_KEY.unpack(key)[3])


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
        stored = _unpack(reader, b"h", "the store's header")
        if stored is None:
            return cls()
        version = stored.get("format")
        if not isinstance(version, int) or version > FORMAT:
            raise StoreFormatError(
                f"the store has format version {version!r}, this release of hashmem reads up to "
                f"{FORMAT}: upgrade hashmem"
            )
        try:
            return cls(**stored)
        except TypeError as error:
            raise CorruptStoreError(f"the store's header cannot be read: {error}") from error

    @classmethod
    def upgrade(cls, transaction: Transaction) -> None:
        """Have the header name the version that is written now."""
        found = cls.read(transaction)
        if found.format < FORMAT:
            found.write(transaction)

    def write(self, transaction: Transaction) -> None:
        self.format = FORMAT
        transaction.put(b"h", msgpack.packb(asdict(self)))


@dataclass
class Info:
    """The record of a namespace."""

    algorithm: str
    key_check: bytes = b""  # digest of a fixed text under the namespace's key; empty without key
    next_pack: int = 1  # numbers are never used twice, in all columns together
    relations: list[str] = field(default_factory=list)  # a relation's number is its place here
    columns: dict[str, list[Any]] = field(default_factory=dict)  # name → [column, dtype, width]
    checkpoint: str = ""  # name of the file that has the first rows, where there is one
    own_key: bytes = b""  # what its digests are keyed with, where its maker gave no key; or empty

    @classmethod
    def read(cls, reader: Reader, namespace: int) -> "Info | None":
        """Return the record of a namespace, None where it has none."""
        stored = _unpack(reader, _NAMESPACE.pack(b"n", namespace), "a namespace's record")
        try:
            return None if stored is None else cls(**stored)
        except TypeError as error:
            raise CorruptStoreError(f"a namespace's record cannot be read: {error}") from error

    def write(self, transaction: Transaction, namespace: int) -> None:
        transaction.put(_NAMESPACE.pack(b"n", namespace), msgpack.packb(asdict(self)))


def namespace_keys(reader: Reader, namespace: int) -> list[bytes]:
    """Every key that belongs to a namespace."""
    return [
        key for kind in (b"n", b"i", b"b") for key in reader.keys(_NAMESPACE.pack(kind, namespace))
    ]


def _unpack(reader: Reader, key: bytes, what: str) -> dict[str, Any] | None:
    value = reader.get(key)
    if value is None:
        return None
    try:
        stored = msgpack.unpackb(value)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptStoreError(f"{what} cannot be read: {error}") from error
    if not isinstance(stored, dict):
        raise CorruptStoreError(f"{what} is a {type(stored).__name__}, not a map")
    return stored
