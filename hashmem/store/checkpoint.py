"""Checkpoints: digests, index and places of a namespace's first rows, in a file that is mapped.

A store that had to read all digests and build its table on opening would take a quarter of a second
a million records, in every process anew. So what is known of rows 0 to n is written to a file
beside the generation now and then, and mapped from then on: the open-addressing index over the
digests, the digests themselves, which lie nowhere else then, and for each placed column where each
row's item lies. Rows above n, and what has changed below, come from packs, as without it.

A file never changes. It is written beside its name, synced and renamed before the commit that names
it in the namespace's record; the one before is unlinked after that commit. `docs/format.md` has it
byte by byte. What precedes the sections is compared with its checksum on opening, the sections by
`damage`, which `MemoryStore.verify` and `scrub` ask for.
"""

import mmap
import os
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import xxhash
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.digests import Digests
from hashmem.errors import CorruptStoreError, StoreError, StoreFormatError, TableFullError
from hashmem.kernels.reference.hashing import MIN_WIDTH, expand_keys
from hashmem.store.layout import unpack
from hashmem.tables.memory import zeros

__all__ = ["ABSENT", "Checkpoint", "CheckpointGone", "Codes", "Places", "write"]

MAGIC = b"HMROWS\r\n"
VERSION = 1
FEWEST = 1 << 16  # rows that are worth a checkpoint: fewer are read from packs soon enough
BLOCK = 1 << 16  # bytes under one checksum
PAGE = 4096
LINE, SLOTS = 64, 12  # of the index
LOAD = 0.9  # entries a slot
SEARCHED = 2048  # buckets that are looked at for a place
TRIES = 8
MOST_HEAD = 1 << 31  # bytes
ABSENT = 2**64 - 1  # as a place: the row holds nothing

_START = struct.Struct("<8sII16s")  # magic, version, bytes of the head, its XXH3-128

Codes = NDArray[np.uint64]


@dataclass
class Places:
    """What a checkpoint knows of one placed column."""

    codes: Codes  # (rows,) see `hashmem.store.placed`
    numbers: list[int]  # the packs that they speak of
    large: dict[int, int]  # row → bytes of an item too long for its code
    live: int  # rows that hold something

    @classmethod
    def nothing(cls) -> "Places":
        """Of a column that holds nothing in any row."""
        return cls(np.empty(0, np.uint64), [], {}, 0)


class CheckpointGone(CorruptStoreError):
    """A checkpoint that a commit names is not there: lost, or replaced since by another commit."""


class Checkpoint:
    """A mapped checkpoint. Its arrays are private copies where they are written to.

    Raises `StoreError` where the file cannot be read, `CorruptStoreError` where it is damaged or
    cut short, `StoreFormatError` where it is of a newer version.
    """

    def __init__(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size else b""
        except FileNotFoundError as error:
            raise CheckpointGone(f"the checkpoint {path} is gone; repair() does without") from error
        except OSError as error:
            raise StoreError(error.errno, f"cannot open {path}: {error.strerror}") from error
        self.path = path
        data = np.frombuffer(mapping, np.uint8)
        try:
            head, at = _head(data)
            self._take(head, data, at)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorruptStoreError(f"the checkpoint {path} contradicts itself: {error}") from None
        except (CorruptStoreError, StoreFormatError) as error:
            raise type(error)(f"the checkpoint {path}: {error}") from None

    def _take(self, head: dict[str, Any], data: NDArray[np.uint8], at: int) -> None:
        self.rows, self.width, self.next_pack = head["rows"], head["width"], head["next_pack"]
        columns = head["columns"]
        buckets, self._hashed = head["buckets"], head["hashed"]
        sizes = [self.width * self.rows, *(8 * self.rows for _ in columns), LINE * buckets]
        self._sections, end = [], at
        for size in sizes:
            self._sections.append(data[end : end + size])
            end = _whole(end + size)
        sums = [np.frombuffer(joined, "<u8") for joined in head["checksums"]]
        sound = (
            self.rows >= 0
            and self.width in (8, 16, 32)
            and 1 <= buckets < 1 << 32
            and self._hashed in (MIN_WIDTH, self.width)
            and self.rows <= buckets * SLOTS
            and end == len(data)
            and [len(s) for s in sums] == [-(-size // BLOCK) for size in sizes]
        )
        if not sound:
            raise ValueError("its sizes do not fit together")
        self._checksums = sums
        self.digests: Digests = self._sections[0].reshape(self.rows, self.width)
        self.places: dict[int, Places] = {}
        for section, column in zip(self._sections[1:], columns, strict=False):
            number, live, packs, rows, lengths = column
            large = zip(_numbers(rows), _numbers(lengths), strict=True)
            codes = section.view("<u8")
            self.places[number] = Places(codes, _numbers(packs), dict(large), live)
        if len(self.places) < len(columns):
            raise ValueError("it has a column twice")
        self._index = self._sections[-1].reshape(buckets, LINE)
        self._keys = expand_keys(int.from_bytes(head["seed"], "little"))
        table = self._index, self._keys, self.digests, self.width, self._hashed, self.rows
        self._find: Callable[..., None] = lambda *rest: kernels.current.rows_find(*table, *rest)
        self.look: Callable[[bytes], int | None] = kernels.current.rows_lookup(*table)[0]

    @property
    def nbytes(self) -> int:
        """Bytes of its sections, which are in memory as far as they were looked at."""
        return sum(len(section) for section in self._sections)

    def find(self, queries: Digests) -> NDArray[np.int64]:
        """Return the row of each of `queries` (n, width), -1 where it is not below `rows`. O(n)."""
        out = np.empty(len(queries), np.int64)
        self._find(np.ascontiguousarray(queries), out, -1)
        return out

    @property
    def blocks(self) -> int:
        """How many blocks its sections have, each under one checksum."""
        return sum(map(len, self._checksums))

    def damage(self, first: int = 0, last: int | None = None) -> Iterator[str]:
        """Compare blocks from `first` to `last` with their checksums: yield what is wrong.

        As the file says it: what was written to the arrays meanwhile is not looked at. O(bytes).
        """
        data = self._file()
        try:
            _, at = _head(data)
        except (CorruptStoreError, StoreFormatError) as error:
            yield str(error)
            return
        names = ["digests", *(f"places of column {number}" for number in self.places), "index"]
        block = 0
        for name, section, sums in zip(names, self._sections, self._checksums, strict=True):
            now = data[at : at + len(section)]
            stop = len(sums) if last is None else min(max(last - block, 0), len(sums))
            for i in range(max(first - block, 0), stop):
                begin, end = i * BLOCK, min((i + 1) * BLOCK, len(section))
                if xxhash.xxh3_64_intdigest(now[begin:end].data) != sums[i]:
                    yield f"bytes {at + begin} to {at + end} ({name}) do not match"
            block += len(sums)
            at = _whole(at + len(section))

    def sound_digests(self) -> NDArray[np.bool_]:
        """Tell for each row whether its digest lies in blocks that match their checksums."""
        sound = np.ones(self.rows, np.bool_)
        for i, checksum in enumerate(self._checksums[0]):
            begin, end = i * BLOCK, min((i + 1) * BLOCK, len(self._sections[0]))
            if xxhash.xxh3_64_intdigest(self._sections[0][begin:end].data) != checksum:
                sound[begin // self.width : -(-end // self.width)] = False
        return sound

    def _file(self) -> NDArray[np.uint8]:
        with open(self.path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, np.uint8)


def write(
    path: str,
    digests: Iterable[Digests],
    rows: int,
    width: int,
    next_pack: int,
    columns: Mapping[int, tuple[Places, Iterable[Codes]]],
) -> None:
    """Write a checkpoint of `rows` digests, which come in pieces, and put it in place.

    It covers packs below `next_pack`; `columns` gives for each placed column what is known, its
    codes in pieces. O(rows); memory for the index, 6 bytes a row, beside a piece. Raises
    `StoreError` where it cannot be written.
    """
    beside = f"{path}.{secrets.token_hex(4)}.new"
    try:
        try:
            with open(beside, "x+b") as file:
                _fill(file, digests, rows, width, next_pack, columns)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too survives a loss of power
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(error.errno, f"cannot write {path}: {error.strerror}") from error


def _fill(
    file: Any,
    digests: Iterable[Digests],
    rows: int,
    width: int,
    next_pack: int,
    columns: Mapping[int, tuple[Places, Iterable[Codes]]],
) -> None:
    buckets = max(1, -int(-rows // (LOAD * SLOTS)))
    sizes = [width * rows, *(8 * rows for _ in columns), LINE * buckets]
    head = {
        "width": width,
        "rows": rows,
        "next_pack": next_pack,
        "buckets": buckets,
        "hashed": MIN_WIDTH,
        "seed": bytes(16),
        "columns": [
            [n, p.live, _packed(p.numbers), _packed(p.large), _packed(p.large.values())]
            for n, (p, _) in columns.items()
        ],
        "checksums": [bytes(8 * -(-size // BLOCK)) for size in sizes],
    }
    at = _whole(_START.size + len(msgpack.packb(head)))
    file.seek(at)
    sums = [_write(file, digests)]
    sums += [_write(file, codes) for _, codes in columns.values()]
    file.flush()
    whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if rows else b""
    own = np.frombuffer(whole, np.uint8)[at : at + width * rows].reshape(rows, width)
    index, head["hashed"], head["seed"] = _build(own, buckets)
    sums.append(_write(file, [index]))
    head["checksums"] = sums
    packed = msgpack.packb(head)
    file.seek(0)
    root = xxhash.xxh3_128_digest(packed)
    file.write(_START.pack(MAGIC, VERSION, len(packed), root) + packed)


def _write(file: Any, pieces: Iterable[NDArray[Any]]) -> bytes:
    """Write a section, whole pages; return the checksums of its blocks."""
    sums = []
    waiting = b""
    for piece in pieces:
        data = np.ascontiguousarray(piece).data.cast("B") if piece.size else memoryview(b"")
        file.write(data)
        if waiting:  # a block that began in another piece
            missing = BLOCK - len(waiting)
            waiting += data[:missing]
            data = data[missing:]
            if len(waiting) < BLOCK:
                continue
            sums.append(xxhash.xxh3_64_intdigest(waiting))
        last = len(data) - len(data) % BLOCK
        sums += [xxhash.xxh3_64_intdigest(data[i : i + BLOCK]) for i in range(0, last, BLOCK)]
        waiting = bytes(data[last:])
    if waiting:
        sums.append(xxhash.xxh3_64_intdigest(waiting))
    file.write(bytes(-file.tell() % PAGE))
    return np.array(sums, "<u8").tobytes()


def _build(digests: Digests, buckets: int) -> tuple[NDArray[np.uint8], int, bytes]:
    """Return an index over digests, how many bytes of them it hashes, and the seed."""
    rows, width = digests.shape
    index = zeros(buckets * LINE).reshape(buckets, LINE)
    for attempt in range(TRIES):
        hashed = MIN_WIDTH if attempt == 0 else width
        seed = secrets.token_bytes(16)
        keys = expand_keys(int.from_bytes(seed, "little"))
        index.fill(0)
        if kernels.current.rows_build(index, keys, digests, width, hashed, rows, SEARCHED) == rows:
            return index, hashed, seed
    raise TableFullError("digests find no place in an index, under any seed")


def _head(data: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """Return the head of a checkpoint and where its first section begins."""
    if len(data) < _START.size:
        raise CorruptStoreError(f"it has {len(data)} bytes: it was cut short")
    magic, version, size, root = _START.unpack_from(data.data)
    if magic != MAGIC:
        raise CorruptStoreError(f"it is none: it begins with {magic!r}")
    if version != VERSION:
        raise StoreFormatError(
            f"it is of version {version}, and this release of hashmem reads {VERSION}: upgrade it"
        )
    packed = data[_START.size : _START.size + size]
    if len(packed) < size or size > MOST_HEAD or xxhash.xxh3_128_digest(packed.data) != root:
        raise CorruptStoreError("its head does not match its checksum")
    try:
        head = unpack(packed.data)
    except ValueError as error:
        raise CorruptStoreError(f"its head cannot be read: {error}") from None
    if not isinstance(head, dict):
        raise CorruptStoreError("its head is no map")
    return head, _whole(_START.size + size)


def _packed(numbers: Iterable[int]) -> bytes:
    return np.array(list(numbers), "<i8").tobytes()


def _numbers(packed: bytes) -> list[int]:
    return [int(n) for n in np.frombuffer(packed, "<i8").tolist()]


def _whole(size: int) -> int:
    return -(-size // PAGE) * PAGE
