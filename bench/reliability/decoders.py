"""Every decoder of stored bytes, for the fuzzer: what it reads, and what it is given.

To add one: an entry in `DECODERS`.
"""

import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import numpy as np
import xxhash

from bench.reliability import lmdb_fields
from bench.reliability.fuzz_mutations import any_msgpack, changed, map_with_one_wrong
from bench.reliability.store_specimens import SPECIMENS, files_in
from hashmem import MemoryStore
from hashmem.errors import HashMemError
from hashmem.store import annotations, lmdb, lmdb_pages, packs
from hashmem.store.backend import Reader
from hashmem.store.layout import Catalogue, Info
from hashmem.store.ram import RamBackend
from hashmem.store.state import State
from hashmem.tables import FrozenTable, OpenAddressingTable, freeze
from hashmem.tables.frozen_layout import (
    BLOCK,
    CHECKSUMS_AT,
    ROOT_AT,
    block_checksum,
    root_of,
)

__all__ = ["DECODERS", "FOLDER", "Decoder"]

MIB = 1 << 20


@dataclass(frozen=True)
class Decoder:
    """How to fuzz one decoder."""

    decode: Callable[[bytes], object]  # may raise a HashMemError, and nothing else
    seeds: Callable[[], list[bytes]]  # inputs that it reads
    mend: Callable[[bytearray], None] | None = None  # make the checksums right again
    made: Callable[[Random], bytes] | None = None  # another source of inputs
    hot: Callable[[bytes], Sequence[int]] | None = None  # places of a seed that matter most
    cap: int = MIB  # bytes that decoding may take beyond 64 times its input
    share: float = 1.0  # of the campaign's inputs: less for what is slow


# ------------------------------------------------------------------------------------ packs


def _pack_seeds() -> list[bytes]:
    found = []
    for rows in ([], [5], [5, 6, 7], [9, 2, 40], list(range(100))):
        items = [b"abc"] * len(rows)
        for lengths in (3, np.full(len(rows), 3), np.array([-1, *[3] * len(rows)][: len(rows)])):
            chosen = items if isinstance(lengths, int) else [b"abc"] * int((lengths == 3).sum())
            array = np.array(rows, np.int64)
            found.append(packs.build(7, array, lengths, chosen)[0])
            found.append(packs.build(7, array, lengths, chosen, 1, 3)[0])
    return found


def _mend_pack(data: bytearray) -> None:
    if len(data) >= 64:
        total = xxhash.xxh3_64_intdigest(bytes(data[:48]) + bytes(data[64:]))
        struct.pack_into("<Q", data, 48, total)


def _pack(data: bytes) -> None:
    pack = packs.parse(memoryview(data), 7)
    assert len(pack.rows) == len(pack.lengths) == len(pack.offsets)


# ------------------------------------------------------------------------------------ msgpack


class _One(Reader):
    """A snapshot that holds one value under whatever key."""

    version = (1, 1)

    def __init__(self, value: bytes) -> None:
        self.value = memoryview(value)

    def get(self, key: bytes) -> memoryview | None:
        return self.value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return iter(())


CATALOGUES = [
    asdict(Catalogue()),
    asdict(Catalogue({"": 1, "keyed": 2, "three": 3}, next_namespace=4)),
]
INFOS = [
    asdict(Info("sha256")),
    asdict(
        Info(
            *("xxh3_128", bytes(16), 9, ["imports", "calls"]),
            {"vector": [16, "<f4", 6], "size": [17, "<i8", 1]},
        )
    ),
]


def _catalogue(data: bytes) -> None:
    catalogue = Catalogue.read(_One(data))
    catalogue.namespaces.get("")
    sorted(catalogue.namespaces)


def _info(data: bytes) -> None:
    info = Info.read(_One(data), 1)
    if info is not None:
        state = State(1, info)
        assert info.key_check != b"no key has this"
        assert state.columns


def _maps(known: list[dict[str, Any]]) -> Callable[[Random], bytes]:
    def made(random: Random) -> bytes:
        return (
            any_msgpack(random) if random.getrandbits(2) == 0 else map_with_one_wrong(random, known)
        )

    return made


METADATA = [
    {"source": "a.txt", "line": 7, "tags": ["a", "bb"], "more": {"x": 1.5, "y": None, "z": b"raw"}},
    {1: True, "deep": [[[[[]]]]], "big": 2**63},
]


# ------------------------------------------------------------------------------------ files


FOLDER: list[Path] = []  # where what is read from files is written; the campaign gives it


def _current(data: bytes) -> None:
    (FOLDER[0] / "CURRENT").write_bytes(data)
    backend = lmdb.LmdbBackend.__new__(lmdb.LmdbBackend)
    backend._folder = FOLDER[0]
    name = backend._current()
    assert "/" not in name
    assert name.endswith(".mdb")


@cache
def _lmdb_files() -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        SPECIMENS["tiny"](Path(folder) / "tiny")
        with MemoryStore(Path(folder) / "few") as store:
            for i in range(12):
                store.put(b"%d" % i * 300)
                store.commit()
        for name in ("tiny", "few"):
            (data,) = (
                data for file, data in files_in(Path(folder) / name).items() if file != "CURRENT"
            )
            found += [data, data[:-4096], data[: len(data) // 2]]
    return found


@cache
def _lmdb_hot(data: bytes) -> list[int]:
    whole = next(known for known in _lmdb_files() if known.startswith(data))
    return [
        at
        for start, stop, label in lmdb_fields.fields_of(whole)
        if not label.startswith("body") and start < len(data)
        for at in range(start, min(stop, len(data)))
    ]


def _lmdb_page_walk(data: bytes) -> None:
    file = FOLDER[0] / "000001.mdb"
    file.write_bytes(data)
    lmdb_pages.check_length(file)
    lmdb_pages.holds_commits(file)


# ------------------------------------------------------------------------------------ tables


@cache
def _tables() -> list[bytes]:
    found = []
    for width, entries in ((8, 0), (8, 3), (16, 40), (32, 100)):
        table = OpenAddressingTable(width=width)
        digests = np.random.default_rng(width).integers(0, 256, (entries, width), np.uint8)
        table.insert(digests, np.arange(entries))
        found.append(freeze(table, seed=1))
    return found


def _mend_table(data: bytearray) -> None:
    array = np.frombuffer(data, np.uint8)
    if len(data) < CHECKSUMS_AT:
        return
    body_at = int.from_bytes(data[64:72], "little")
    if body_at > len(data):
        return
    body = array[body_at:]
    for block in range(-(-len(body) // BLOCK)):
        at = CHECKSUMS_AT + 8 * block
        if at + 8 <= body_at:
            struct.pack_into("<Q", data, at, block_checksum(body, block))
    data[ROOT_AT:CHECKSUMS_AT] = root_of(array, body_at)


def _table(data: bytes) -> None:
    table = FrozenTable(data)
    digests = np.zeros((40, table.width), np.uint8)
    digests[:, 0] = np.arange(40)
    table.find(digests)
    table.check()
    for _ in table:
        pass


# ------------------------------------------------------------------------------------ the whole


@cache
def _ram() -> tuple[dict[bytes, bytes], list[bytes]]:
    backend = RamBackend()
    store = MemoryStore(backend=backend)
    for i in range(3):
        digests = store.put_many([b"%d" % (10 * i + j) * 9 for j in range(4)], [{"n": i}] * 4)
        store.link_many(digests[1:], digests[:-1])
        store.add_links(digests[1:], digests[:-1], "calls")
        store.write_column("size", digests, np.arange(8).reshape(4, 2))
        store.commit()
    with backend.snapshot() as snapshot:
        keys = list(snapshot.keys(b""))
        return {key: bytes(snapshot.get(key) or b"") for key in keys}, keys


def _values() -> list[bytes]:
    """Each value of a store, its key's number before it."""
    values, keys = _ram()
    return [struct.pack("<B", keys.index(key)) + value for key, value in values.items()]


def _mend_value(data: bytearray) -> None:
    if data and data[0] < len(_ram()[1]) and _ram()[1][data[0]].startswith(b"i"):
        value = data[1:]
        _mend_pack(value)
        data[1:] = value


def _made_value(random: Random) -> bytes:
    """A header or a namespace's record with something wrong, or any value a little changed."""
    values, keys = _ram()
    if random.getrandbits(2) == 0:
        key = random.choice([key for key in keys if key[:1] in (b"h", b"n")])
        known = [msgpack.unpackb(values[key])]
        return struct.pack("<B", keys.index(key)) + map_with_one_wrong(random, known)
    data = changed(random, _values(), [range(1, 65)] * len(keys))
    _mend_value(data)
    return bytes(data)


def _whole(data: bytes) -> None:
    values, keys = _ram()
    if not data or data[0] >= len(keys):
        return
    backend = RamBackend()
    with backend.write() as transaction:
        for key, value in values.items():
            transaction.put(key, value)
        transaction.put(keys[data[0]], data[1:])
    store = MemoryStore(backend=backend)
    digests = store.digests()
    list(store.get_many(digests))
    store.hop(digests, 2)
    store.neighbours(digests, 2)
    store.statistics()
    assert store.verify() is not None
    with suppress(HashMemError):
        store.metadata_many(digests)
    for name in store.columns:
        with suppress(HashMemError):
            store.read_column(name)
    with suppress(HashMemError):
        store.put(b"more")
        store.commit()
    with suppress(HashMemError):
        store.compact()


def _before(stop: int) -> Callable[[bytes], Sequence[int]]:
    return lambda data: range(min(stop, len(data)))


DECODERS = {
    "pack index": Decoder(_pack, _pack_seeds, _mend_pack, hot=_before(64), cap=160 * MIB),
    "catalogue": Decoder(
        _catalogue, lambda: list(map(msgpack.packb, CATALOGUES)), made=_maps(CATALOGUES)
    ),
    "namespace record": Decoder(_info, lambda: list(map(msgpack.packb, INFOS)), made=_maps(INFOS)),
    "metadata": Decoder(
        lambda data: annotations._unpacked(data, np.zeros(8, np.uint8)),
        lambda: list(map(msgpack.packb, METADATA)),
        made=any_msgpack,
    ),
    "CURRENT": Decoder(_current, lambda: [b"hashmem 1\n000001.mdb\n", b"hashmem 1\n1234567.mdb\n"]),
    "LMDB pages": Decoder(_lmdb_page_walk, _lmdb_files, hot=_lmdb_hot),
    "frozen table": Decoder(_table, _tables, _mend_table, hot=_before(160)),
    "whole store": Decoder(_whole, _values, _mend_value, _made_value, cap=320 * MIB, share=0.01),
}
