"""Every decoder of stored bytes, for the fuzzer: what it reads, and what it is given.

To add one: an entry in `DECODERS`.
"""

import io
import os
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
from hashmem.store import annotations, archive, checkpoint, lmdb, lmdb_pages, packs
from hashmem.store.archive import ArchiveReader, ArchiveWriter, Items
from hashmem.store.backend import Reader
from hashmem.store.checkpoint import Checkpoint
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
            if len(rows) == 1:
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

    def keys(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
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
            *("000001-1-8.rows", {"1": [2, 7], "2": [1, 5]}, bytes(16)),
        )
    ),
]
SEAL = struct.Struct("<cQ")  # what version 2 puts before a record: 0xC1, the checksum


def _sealed(packed: bytes) -> bytes:
    return SEAL.pack(b"\xc1", xxhash.xxh3_64_intdigest(packed)) + packed


def _mend_record(data: bytearray) -> None:
    if len(data) >= SEAL.size and data[0] == 0xC1:
        data[: SEAL.size] = _sealed(bytes(data[SEAL.size :]))[: SEAL.size]


def _records(known: list[dict[str, Any]]) -> Callable[[], list[bytes]]:
    """Records as version 2 has them, and as version 1 had."""
    plain = [msgpack.packb(one) for one in known]
    return lambda: [*map(_sealed, plain), *plain]


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
        draw = random.getrandbits
        packed = map_with_one_wrong(random, known) if draw(2) else any_msgpack(random)
        return _sealed(packed) if draw(1) else packed

    return made


METADATA = [
    {"source": "a.txt", "line": 7, "tags": ["a", "bb"], "more": {"x": 1.5, "y": None, "z": b"raw"}},
    {1: True, "deep": [[[[[]]]]], "big": 2**63},
]


# ------------------------------------------------------------------------------------ files


FOLDER: list[Path] = []  # where what is read from files is written; the campaign gives it


def _current(data: bytes) -> None:
    name = lmdb.named_in(data, Path("notes.hashmem"))
    assert "/" not in name
    assert name.endswith(".mdb")


LMDB_FILE = Path("000001.mdb")


@cache
def _lmdb_files() -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        SPECIMENS["tiny"](Path(folder) / "tiny")
        with MemoryStore(Path(folder) / "few") as store:
            for i in range(6):
                store.put(b"%d" % i * 300)
                store.commit()
        for name in ("tiny", "few"):
            (data,) = (
                data
                for file, data in files_in(Path(folder) / name).items()
                if file.endswith(".mdb")
            )
            found += [data, data, data, data[:-4096], data[: len(data) // 2]]
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
    view = memoryview(data)
    with suppress(HashMemError):
        lmdb_pages.check_length(LMDB_FILE, len(data), view)
    for meta in lmdb_pages.metas(view)[-1:]:
        tree = lmdb_pages.Tree(view, meta)
        with suppress(HashMemError):
            tree.find(b"h")
        with suppress(HashMemError):
            for _, extent in tree.scan(b"i"):
                assert 0 <= extent.start <= extent.start + extent.size <= len(data)
    lmdb_pages.check(view, whole=True)


# ------------------------------------------------------------------------------------ checkpoints


HEAD = struct.Struct("<8sII16s")  # of a checkpoint: magic, version, bytes of the head, its checksum


@cache
def _checkpoints() -> list[bytes]:
    """Of no rows, and of some, with records short and long, and metadata."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for width, rows in ((8, 0), (8, 1), (16, 30), (32, 100)):
            digests = np.random.default_rng(width).integers(0, 256, (rows, width), np.uint8)
            codes = np.arange(rows).astype(np.uint64) << np.uint64(8)
            large = {0: 1 << 20} if rows else {}
            columns = {
                2: (checkpoint.Places(codes, [1, 4], large, rows), iter([codes])),
                3: (checkpoint.Places(codes, [2], {}, 0), iter([codes])),
            }
            path = f"{folder}/{width}-{rows}"
            checkpoint.write(path, iter([digests]), rows, width, 9, columns)
            found.append(Path(path).read_bytes())
    return found


def _mend_checkpoint(data: bytearray) -> None:
    if len(data) >= HEAD.size:
        size = struct.unpack_from("<I", data, 12)[0]
        packed = bytes(data[HEAD.size : HEAD.size + size])
        data[16 : HEAD.size] = xxhash.xxh3_128_digest(packed)


def _made_checkpoint(random: Random) -> bytes:
    """One whose head has an entry replaced, missing or too many."""
    data = random.choice(_checkpoints())
    size = struct.unpack_from("<I", data, 12)[0]
    head = msgpack.unpackb(data[HEAD.size : HEAD.size + size])
    if random.getrandbits(1):
        packed = map_with_one_wrong(random, [head])
    else:  # a number that lies
        name = random.choice(["rows", "width", "buckets", "hashed", "next_pack"])
        head[name] = random.choice([*WRONG, head[name] + random.choice([-1, 1])])
        packed = msgpack.packb(head)
    start = HEAD.pack(data[:8], 1, len(packed), xxhash.xxh3_128_digest(packed))
    body = data[-(-(HEAD.size + size) // 4096) * 4096 :]
    return (start + packed).ljust(-(-(HEAD.size + len(packed)) // 4096) * 4096, b"\0") + body


WRONG = (0, 1, 8, 12, 16, 32, 33, 255, 4096, 2**31, 2**32, 2**56, 2**63, 2**64 - 1, -1, -(2**63))


def _checkpoint(data: bytes) -> None:
    path = str(FOLDER[0] / "000001-1-8.rows")
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(file, len(data))
    os.pwrite(file, data, 0)
    os.close(file)
    found = Checkpoint(path)
    queries = np.zeros((8, found.width), np.uint8)
    queries[: len(found.digests[:4])] = found.digests[:4]
    rows = found.find(queries)
    assert ((rows >= -1) & (rows < found.rows)).all()
    for query in queries:
        row = found.look(query.tobytes())
        assert row is None or -1 <= row < found.rows
    if data[20] & 1:  # it reads all once more
        assert all(found.damage())


# ------------------------------------------------------------------------------------ archives


FRAME = struct.Struct("<HHIQQ")  # kind, flags, bytes of the body, number, checksum
ARCHIVE_START = 24  # bytes
KINDS = 10  # of frames, two of which are none
FRAME_WIDTHS = (8, 16, 32)


@cache
def _archives() -> list[bytes]:
    found = []
    for algorithm, width in (("xxh3_64", 8), ("sha256", 32)):
        for count in (0, 5):
            out = io.BytesIO()
            writer = ArchiveWriter(out.write, algorithm, bytes(width if count else 0))
            if count:
                digests = np.random.default_rng(1).integers(0, 256, (count, width), np.uint8)
                lengths = np.arange(count)
                writer.items(archive.RECORDS, digests, bytes(int(lengths.sum())), lengths)
                maps = [msgpack.packb(METADATA[i % 2]) for i in range(count)]
                sizes = np.array(list(map(len, maps)))
                writer.items(archive.METADATA, digests, b"".join(maps), sizes)
                for at in (0, 3):  # an item in two parts, as a long one comes
                    head = struct.pack("<IQQ", archive.RECORDS, 7, at)
                    writer._frame(archive.PART, head, digests[:1], b"a" * (3 if not at else 4))
                writer.counts["records"] += 1
                writer.column("size", "<i2", 2, digests, np.zeros((count, 4), np.uint8))
                writer.pairs(None, digests[1:], digests[:-1])
                writer.pairs("calls", digests[1:], digests[:-1])
            writer.finish()
            found.append(out.getvalue())
    return found


def _frames(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Where each frame begins, its kind, and the bytes of its body, as the frames say."""
    at = ARCHIVE_START
    while at + FRAME.size <= len(data):
        kind, _, size, *_ = FRAME.unpack_from(data, at)
        yield at, kind, size
        at += FRAME.size + size


def _mend_archive(data: bytearray) -> None:
    if len(data) < ARCHIVE_START:
        return
    struct.pack_into("<Q", data, 16, xxhash.xxh3_64_intdigest(data[:16]))
    for at, kind, size in _frames(data):
        body = slice(at + FRAME.size, at + FRAME.size + size)
        if kind == archive.TRAILER and len(data) >= body.stop and size >= 64:
            total = xxhash.xxh3_128_digest(bytes(data[:at]))
            data[body.stop - 24 : body.stop] = struct.pack("<Q", at) + total
        checksum = xxhash.xxh3_64(bytes(data[at : at + 16]))
        checksum.update(bytes(data[body]))
        struct.pack_into("<Q", data, at + 16, checksum.intdigest())


@cache
def _archive_hot(data: bytes) -> list[int]:
    """Heads of frames, and what begins their bodies."""
    places = range(ARCHIVE_START)
    return [*places, *(place for at, *_ in _frames(data) for place in range(at, at + 48))]


def _archive(data: bytes) -> None:
    reader = ArchiveReader(io.BytesIO(data))
    for found in reader:
        if isinstance(found, Items) and found.kind == archive.METADATA:
            found.maps()
    reader.must_end()


@cache
def _bodies() -> list[bytes]:
    """Each frame's body, and before it its kind and which width its digests have."""
    return [
        bytes([kind, FRAME_WIDTHS.index(width)]) + data[at + FRAME.size : at + FRAME.size + size]
        for data, width in zip(_archives(), (8, 8, 32, 32), strict=True)
        for at, kind, size in _frames(data)
        if kind != archive.HEADER
    ]


def _frame(data: bytes) -> None:
    if len(data) < 2:
        return
    found = archive.parse(data[0] % KINDS, data[2:], FRAME_WIDTHS[data[1] % 3])
    if isinstance(found, Items):
        assert found.offsets[0] <= found.offsets[-1] <= len(data)
        if found.kind == archive.METADATA:
            found.maps()


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
    keys = _ram()[1]
    if data and data[0] < len(keys) and keys[data[0]][:1] in (b"i", b"h", b"n"):
        value = data[1:]
        (_mend_pack if keys[data[0]][:1] == b"i" else _mend_record)(value)
        data[1:] = value


def _made_value(random: Random) -> bytes:
    """A header or a namespace's record with something wrong, or any value a little changed."""
    values, keys = _ram()
    if random.getrandbits(2) == 0:
        key = random.choice([key for key in keys if key[:1] in (b"h", b"n")])
        known = [msgpack.unpackb(values[key][SEAL.size :])]
        return struct.pack("<B", keys.index(key)) + _sealed(map_with_one_wrong(random, known))
    data = changed(random, _values(), [range(1, 65)] * len(keys))
    _mend_value(data)
    return bytes(data)


def _opened(backend: RamBackend) -> MemoryStore | None:
    """The store, None where its record says that it needs a key."""
    try:
        return MemoryStore(backend=backend)
    except ValueError as error:
        if "needs a key" in str(error):
            return None
        raise


def _whole(data: bytes) -> None:
    values, keys = _ram()
    if not data or data[0] >= len(keys):
        return
    backend = RamBackend()
    with backend.write() as transaction:
        for key, value in values.items():
            transaction.put(key, value)
        transaction.put(keys[data[0]], data[1:])
    store = _opened(backend)
    if store is None:
        return
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
        _catalogue, _records(CATALOGUES), _mend_record, _maps(CATALOGUES), hot=_before(40)
    ),
    "namespace record": Decoder(_info, _records(INFOS), _mend_record, _maps(INFOS)),
    "metadata": Decoder(
        lambda data: annotations._unpacked(data, np.zeros(8, np.uint8)),
        lambda: list(map(msgpack.packb, METADATA)),
        made=any_msgpack,
    ),
    "CURRENT": Decoder(_current, lambda: [b"hashmem 1\n000001.mdb\n", b"hashmem 1\n1234567.mdb\n"]),
    "LMDB pages": Decoder(_lmdb_page_walk, _lmdb_files, hot=_lmdb_hot),
    "checkpoint": Decoder(
        _checkpoint, _checkpoints, _mend_checkpoint, _made_checkpoint, hot=_before(400)
    ),
    "archive": Decoder(_archive, _archives, _mend_archive, hot=_archive_hot),
    "frame of an archive": Decoder(_frame, _bodies, hot=_before(24)),
    "frozen table": Decoder(_table, _tables, _mend_table, hot=_before(160)),
    "whole store": Decoder(_whole, _values, _mend_value, _made_value, cap=320 * MIB, share=0.01),
}
