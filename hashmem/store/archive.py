"""The archive: records as one stream of frames. docs/format.md has it byte by byte.

What is here knows bytes and no store: `ArchiveWriter` makes frames, `ArchiveReader` checks them and
takes them apart. A stream is read and written from its beginning to its end, so it may be a pipe.
Every frame has at most `FRAME_LIMIT` bytes and a checksum, and no number in it is believed before
the bytes that it speaks of are there. All integers are little-endian.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np
import xxhash
from numpy.typing import NDArray

from hashmem.digests import WIDTHS, Digests
from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.layout import DTYPES

__all__ = [
    "FRAME_BYTES", "FRAME_LIMIT", "METADATA", "RECORDS", "ArchiveReader", "ArchiveWriter",
    "DamagedArchive", "Frame", "Items", "Pairs", "Values", "parse",
]  # fmt: skip

MAGIC = b"HMARCHIV"
VERSION = 1
FRAME_BYTES = 1 << 22  # 4 MiB: what a writer fills a frame to
FRAME_LIMIT = 1 << 23  # 8 MiB: the largest body a reader takes
NAME_LIMIT = 1 << 20  # bytes of the name of a column or relation

HEADER, RECORDS, METADATA, PART, COLUMN, SUCCESSORS, EDGES, TRAILER = range(8)  # kinds of frames

_START = struct.Struct("<8sII")  # magic, version, flags
_FRAME = struct.Struct("<HHIQ")  # kind, flags, bytes of the body, number
_SUM = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_PART = struct.Struct("<IQQ")  # kind of the item, its bytes, where this part begins
_COLUMN = struct.Struct("<II4sI")  # rows, bytes of the name, type, numbers a row
_EDGES = struct.Struct("<II")  # pairs, bytes of the name
_TRAILER = struct.Struct("<6Q16s")  # counts, bytes before, checksum
_COUNTED: Final = ("records", "metadata", "values", "successors", "edges")  # in the trailer's order

Lengths = NDArray[np.int64]


class DamagedArchive(CorruptStoreError):
    """An archive is cut off, or a frame is not what was written."""


@dataclass(frozen=True, slots=True)
class Items:
    """Contents (`RECORDS`) or packed metadata (`METADATA`) of records."""

    kind: int
    digests: Digests  # (n, width)
    offsets: Lengths  # (n + 1,): item i is bytes offsets[i] to offsets[i + 1] of `data`
    data: bytes

    def chosen(self, which: list[int]) -> list[bytes]:
        """Return the items of these numbers, copied."""
        data, bounds = self.data, self.offsets.tolist()
        return [data[bounds[i] : bounds[i + 1]] for i in which]

    def maps(self) -> list[dict[Any, Any]]:
        """Return the items as maps. Raises `CorruptStoreError` where one is none.

        Their structure is gone through first, so that no length in them is believed, and no list
        made, that is not there.
        """
        first, bounds = int(self.offsets[0]), self.offsets.tolist()
        unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(self.data))
        unpacker.feed(memoryview(self.data)[first : bounds[-1]])
        found = []
        for i, item in enumerate(self.chosen(list(range(len(self.digests))))):
            try:
                unpacker.skip()
                whole = unpacker.tell() == bounds[i + 1] - first
                one = msgpack.unpackb(item, strict_map_key=False) if whole else None
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
                raise CorruptStoreError(
                    f"{self._of(i)} cannot be read: {error or type(error).__name__}"
                ) from error
            if not isinstance(one, dict):
                raise CorruptStoreError(f"{self._of(i)} is no map, or more than one")
            found.append(one)
        return found

    def _of(self, i: int) -> str:
        return f"the metadata of {self.digests[i].tobytes().hex()}"


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of a named column."""

    name: str
    digests: Digests  # (n, width)
    values: NDArray[Any]  # (n, k)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Links: successors, or edges of a relation."""

    relation: str | None  # None: successors
    sources: Digests  # (n, width)
    targets: Digests  # (n, width)


@dataclass(frozen=True, slots=True)
class _Part:
    kind: int
    digest: Digests  # (1, width)
    whole: int  # bytes of the item
    offset: int  # where this part begins in it
    data: bytes


@dataclass(frozen=True, slots=True)
class _Trailer:
    counts: tuple[int, ...]  # of what `_COUNTED` names
    nbytes: int  # of all frames before
    checksum: bytes


Frame = Items | Values | Pairs


# -- writing --------------------------------------------------------------------------------------


class ArchiveWriter:
    """Writes frames through `write`, which takes any buffer and keeps none."""

    def __init__(self, write: Callable[[Any], object], algorithm: str, key_check: bytes) -> None:
        self._write = write
        self._frames = self._bytes = 0
        self._sum = xxhash.xxh3_128()
        self.counts: Counter[str] = Counter()
        start = _START.pack(MAGIC, VERSION, 0)
        self._out(start + _SUM.pack(xxhash.xxh3_64_intdigest(start)))
        self._frame(HEADER, algorithm.encode().ljust(16, b"\0"), key_check)

    def items(self, kind: int, digests: Digests, data: Any, lengths: Lengths) -> None:
        """Write items, one for each digest: joined in `data`, of so many bytes each.

        One that fills a frame by itself comes alone, and goes out in parts.
        """
        self.counts[_COUNTED[kind - RECORDS]] += len(digests)
        if int(lengths[0]) > FRAME_BYTES:
            for at in range(0, int(lengths[0]), FRAME_BYTES):
                head = _PART.pack(kind, int(lengths[0]), at)
                self._frame(PART, head, digests, memoryview(data)[at : at + FRAME_BYTES])
            return
        self._frame(kind, _COUNT.pack(len(digests)), digests, lengths.astype("<u4"), data)

    def column(self, name: str, dtype: str, items: int, digests: Digests, values: Any) -> None:
        """Write a named column: `values` is uint8 (n, bytes a row) of little-endian numbers."""
        encoded = _encoded("column", name)
        self.counts["values"] += len(digests)
        step = max(1, FRAME_BYTES // (digests.shape[1] + values.shape[1]))
        for at in range(0, len(digests), step):
            chosen = digests[at : at + step]
            head = _COLUMN.pack(len(chosen), len(encoded), dtype.encode(), items)
            self._frame(COLUMN, head, encoded, chosen, values[at : at + step])

    def pairs(self, relation: str | None, sources: Digests, targets: Digests) -> None:
        """Write links of a relation, or successors; as many as fill a frame at most."""
        if relation is None:
            self.counts["successors"] += len(sources)
            self._frame(SUCCESSORS, _COUNT.pack(len(sources)), sources, targets)
        else:
            self.counts["edges"] += len(sources)
            name = _encoded("relation", relation)
            self._frame(EDGES, _EDGES.pack(len(sources), len(name)), name, sources, targets)

    def finish(self) -> None:
        """Write the trailer: without it an archive counts as cut off."""
        counts = [self.counts[name] for name in _COUNTED]
        self._frame(TRAILER, _TRAILER.pack(*counts, self._bytes, self._sum.digest()))

    def _frame(self, kind: int, *pieces: Any) -> None:
        views = [memoryview(piece).cast("B") for piece in pieces if memoryview(piece).nbytes]
        head = _FRAME.pack(kind, 0, sum(view.nbytes for view in views), self._frames)
        checksum = xxhash.xxh3_64(head)
        for view in views:
            checksum.update(view)
        self._frames += 1
        self._out(head + _SUM.pack(checksum.intdigest()))
        for view in views:
            self._out(view)

    def _out(self, piece: Any) -> None:
        self._sum.update(piece)
        self._bytes += len(piece)
        self._write(piece)


def _encoded(of: str, name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > NAME_LIMIT:
        raise ValueError(
            f"the {of} {name[:20]!r}… has a name of {len(encoded)} bytes: an archive takes "
            f"{NAME_LIMIT} at most"
        )
    return encoded


# -- reading --------------------------------------------------------------------------------------


class ArchiveReader:
    """An archive that is read from a binary file, once, from its beginning to its end.

    Made, it has read the header and knows `algorithm` and `key_check` (empty without a key). Going
    through it gives a `Frame` at a time, each checked; the end comes only after a trailer that
    agrees with everything before. The file is left just behind it.

    Raises `StoreFormatError` where the file holds something else or a newer version, and
    `DamagedArchive` naming frame and byte position, where it is cut off or not what was written.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._sum = xxhash.xxh3_128()
        self._at = 0  # bytes read
        self.frame = -1  # the number of the frame last read,
        self.position = 0  # and the byte it begins at
        self.counts: Counter[str] = Counter()
        start = self._take(_START.size + _SUM.size)
        magic, version, flags = _START.unpack_from(start)
        if magic != MAGIC:
            raise StoreFormatError(f"this is no archive of hashmem's: it begins with {magic!r}")
        if _SUM.unpack_from(start, _START.size)[0] != xxhash.xxh3_64_intdigest(
            start[: _START.size]
        ):
            raise self.damaged("the beginning does not match its checksum")
        if version > VERSION or flags:
            raise StoreFormatError(
                f"the archive has version {version} and flags {flags}; this release of hashmem "
                f"reads up to version {VERSION} without flags: upgrade hashmem"
            )
        kind, body = self._next()
        if kind != HEADER or version == 0:
            raise self.damaged("the archive does not begin with its header")
        self.algorithm = body[:16].rstrip(b"\0").decode("ascii", "replace")
        self.key_check = body[16:]
        if self.algorithm not in WIDTHS:
            raise self.damaged(f"its algorithm is {self.algorithm!r}")
        self.width: int = WIDTHS[self.algorithm]  # bytes of a digest
        if len(self.key_check) not in (0, self.width):
            raise self.damaged(f"its key check has {len(self.key_check)} bytes")

    def damaged(self, what: str) -> DamagedArchive:
        """Return the error that says where the frame last read is, and what is wrong there."""
        where = "its beginning" if self.frame < 0 else f"frame {self.frame}"
        return DamagedArchive(f"the archive is damaged in {where}, at byte {self.position}: {what}")

    def must_end(self) -> None:
        """Raise `DamagedArchive` where the file has more bytes than the archive."""
        if self._file.read(1):
            raise self.damaged("more bytes follow its end; all before them is imported")

    def __iter__(self) -> Iterator[Frame]:
        parts: list[_Part] = []  # of an item, so far
        while True:
            before = self._at, self._sum.digest()
            kind, body = self._next()
            try:
                found = parse(kind, body, self.width)
            except CorruptStoreError as error:
                raise self.damaged(str(error)) from error
            if isinstance(found, _Part):
                whole = self._join(parts, found)
                if whole is None:
                    continue
                found, parts = whole, []
            elif parts:
                raise self.damaged("the item before it is not whole")
            if isinstance(found, _Trailer):
                counted = tuple(self.counts[name] for name in _COUNTED)
                if (found.counts, (found.nbytes, found.checksum)) != (counted, before):
                    raise self.damaged("the trailer does not agree with what came before")
                return
            self._count(found)
            yield found

    def _join(self, parts: list[_Part], part: _Part) -> Items | None:
        """Take one more part; return the item once it is whole."""
        first = parts[0] if parts else part
        expected = sum(len(known.data) for known in parts)
        same = (part.kind, part.whole) == (first.kind, first.whole)
        if not same or part.offset != expected or (part.digest != first.digest).any():
            raise self.damaged("a part does not follow on the one before")
        parts.append(part)
        if expected + len(part.data) < part.whole:
            return None
        data = b"".join(known.data for known in parts)
        return Items(part.kind, part.digest, np.array([0, len(data)]), data)

    def _count(self, found: Frame) -> None:
        if isinstance(found, Items):
            self.counts[_COUNTED[found.kind - RECORDS]] += len(found.digests)
        elif isinstance(found, Values):
            self.counts["values"] += len(found.digests)
        else:
            self.counts["successors" if found.relation is None else "edges"] += len(found.sources)

    def _next(self) -> tuple[int, bytes]:
        """Read one frame → its kind and body, of the length and checksum it was written with."""
        self.frame, self.position = self.frame + 1, self._at
        head = self._take(_FRAME.size + _SUM.size)
        kind, flags, length, number = _FRAME.unpack_from(head)
        if length > FRAME_LIMIT or number != self.frame:
            raise self.damaged(f"it claims to be frame {number}, of {length} bytes")
        body = self._take(length)
        checksum = xxhash.xxh3_64(head[: _FRAME.size])
        checksum.update(body)
        if checksum.intdigest() != _SUM.unpack_from(head, _FRAME.size)[0]:
            raise self.damaged("it does not match its checksum")
        if flags:
            raise StoreFormatError(
                f"frame {number} of the archive has flags {flags}, which this release of hashmem "
                "does not know: upgrade hashmem"
            )
        return kind, body

    def _take(self, size: int) -> bytes:
        pieces, missing = [], size
        while missing:
            piece = self._file.read(missing)
            if isinstance(piece, str):
                raise TypeError("an archive is bytes: open the file in binary mode")
            if piece is None:
                raise BlockingIOError("the archive's file has nothing yet: make it a blocking one")
            if not piece:
                raise self.damaged("it ends here, so the archive was cut off")
            pieces.append(bytes(piece))
            missing -= len(piece)
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._sum.update(taken)
        self._at += size
        return taken


def parse(kind: int, body: bytes, width: int) -> Frame | _Part | _Trailer:
    """Take the body of a frame apart, digests being `width` bytes. O(bytes).

    Raises `CorruptStoreError` where it is not what frames of its kind are, and nothing else,
    whatever the bytes are.
    """
    cursor = _Cursor(body)
    if kind in (RECORDS, METADATA):
        (count,) = cursor.unpack(_COUNT)
        digests = cursor.digests(count, width)
        lengths = np.frombuffer(cursor.take(4 * count), "<u4").astype(np.int64)
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        offsets += cursor.at
        cursor.skip(int(offsets[-1] - offsets[0]))
        found: Frame | _Part | _Trailer = Items(kind, digests, offsets, body)
    elif kind == PART:
        item_kind, whole, offset = cursor.unpack(_PART)
        digest = cursor.digests(1, width)
        data = cursor.take(len(body) - cursor.at)
        if item_kind not in (RECORDS, METADATA) or not data or offset + len(data) > whole:
            raise CorruptStoreError("it is no part of an item")
        found = _Part(item_kind, digest, whole, offset, data)
    elif kind == COLUMN:
        count, name_bytes, dtype, items = cursor.unpack(_COLUMN)
        name, text = cursor.name(name_bytes), dtype.rstrip(b"\0").decode("ascii", "replace")
        if text not in DTYPES or not items:
            raise CorruptStoreError(f"a column has {items} numbers of type {text!r} a row")
        digests = cursor.digests(count, width)
        values = np.frombuffer(cursor.take(count * items * np.dtype(text).itemsize), text)
        found = Values(name, digests, values.reshape(count, items))
    elif kind == SUCCESSORS:
        (count,) = cursor.unpack(_COUNT)
        found = Pairs(None, cursor.digests(count, width), cursor.digests(count, width))
    elif kind == EDGES:
        count, name_bytes = cursor.unpack(_EDGES)
        name = cursor.name(name_bytes)
        found = Pairs(name, cursor.digests(count, width), cursor.digests(count, width))
    elif kind == TRAILER:
        *counts, nbytes, checksum = cursor.unpack(_TRAILER)
        found = _Trailer(tuple(counts), nbytes, checksum)
    else:
        raise CorruptStoreError(f"frames of kind {kind} have no place here")
    if cursor.at != len(body):
        raise CorruptStoreError(f"{len(body) - cursor.at} bytes of it are left over")
    return found


class _Cursor:
    """A place in a frame's body, which never leaves it."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def skip(self, size: int) -> None:
        if size > len(self.body) - self.at:
            raise CorruptStoreError(
                f"it claims {size} bytes where {len(self.body) - self.at} are left"
            )
        self.at += size

    def take(self, size: int) -> bytes:
        self.skip(size)
        return self.body[self.at - size : self.at]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def digests(self, count: int, width: int) -> Digests:
        found: Digests = np.frombuffer(self.take(count * width), np.uint8).reshape(count, width)
        return found

    def name(self, size: int) -> str:
        if size > NAME_LIMIT:
            raise CorruptStoreError(f"a name has {size} bytes")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise CorruptStoreError(f"a name is no text: {error}") from error
