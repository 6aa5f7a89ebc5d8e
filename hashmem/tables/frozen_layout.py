"""The bytes of a frozen table: where each part of it lies, its header and its checksums.

`docs/format.md` has it byte by byte. A header, the checksums of the body's blocks and the first
slot of each part come first, under one root checksum; the body follows from a page boundary:
pilots, and from a page boundary again the entries. Checksums are XXH3: they find accidents, not
forgery.
"""

import struct
import sys
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.kernels.reference.frozen import entry_bytes
from hashmem.kernels.reference.hashing import MAX_WIDTH, MIN_WIDTH, expand_keys

MAGIC = b"HMFROZEN"
VERSION = 1
BLOCK = 1 << 16  # bytes of the body under one checksum
PAGE = 4096
ROOT_AT, ROOT_BYTES = 112, 16
CHECKSUMS_AT = ROOT_AT + ROOT_BYTES
KEY_SETS = 4  # turns a part can take
# magic, version, width, entries, slots, parts, buckets, seed, body at, entries at, bytes, block
HEADER = struct.Struct("<8sIIQQQQ16sQQQI12x")
MOST_ENTRIES = 1 << 34

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Layout:
    """What a header says, and the places that follow from it."""

    width: int  # bytes of a digest
    entries: int
    slots: int
    parts: int
    buckets: int  # of each part, one pilot each
    seed: int  # of the keyed hash, 0 to 2^128 - 1

    @property
    def entry_bytes(self) -> int:
        return entry_bytes(self.width)

    @property
    def entries_at(self) -> int:
        """Where the entries begin within the body; the pilots begin it."""
        return whole(self.parts * self.buckets, PAGE)

    @property
    def body_bytes(self) -> int:
        return self.entries_at + self.slots * self.entry_bytes

    @property
    def blocks(self) -> int:
        return -(-self.body_bytes // BLOCK)

    @property
    def offsets_at(self) -> int:
        return CHECKSUMS_AT + 8 * self.blocks

    @property
    def turns_at(self) -> int:
        return self.offsets_at + 8 * (self.parts + 1)

    @property
    def body_at(self) -> int:
        return whole(self.turns_at + self.parts, PAGE)

    @property
    def nbytes(self) -> int:
        return self.body_at + self.body_bytes

    def keys(self) -> Words:
        """The sets of keys (KEY_SETS, keys) of the hash."""
        return np.array([expand_keys((self.seed + i) % 2**128) for i in range(KEY_SETS)])

    def header(self) -> bytes:
        """The bytes before the root checksum."""
        return HEADER.pack(
            MAGIC,
            VERSION,
            self.width,
            self.entries,
            self.slots,
            self.parts,
            self.buckets,
            self.seed.to_bytes(16, "little"),
            self.body_at,
            self.body_at + self.entries_at,
            self.nbytes,
            BLOCK,
        )


def whole(size: int, unit: int) -> int:
    """The smallest multiple of `unit` that holds `size`."""
    return -(-size // unit) * unit


def root_of(data: Bytes, body_at: int) -> bytes:
    """The checksum of all before the body but itself."""
    root = xxhash.xxh3_128(data[:ROOT_AT].data)
    root.update(data[CHECKSUMS_AT:body_at].data)
    return bytes(root.digest())


def seal(data: Bytes, layout: Layout, offsets: Words, turns: Bytes) -> None:
    """Write all that stands before the body, which is complete. O(bytes)."""
    body = data[layout.body_at :]
    checksums = data[CHECKSUMS_AT : layout.offsets_at].view("<u8")
    for block in range(layout.blocks):
        checksums[block] = block_checksum(body, block)
    data[layout.offsets_at : layout.turns_at].view("<u8")[:] = offsets
    data[layout.turns_at :][: len(turns)] = turns
    data[: HEADER.size] = np.frombuffer(layout.header(), np.uint8)
    data[ROOT_AT:CHECKSUMS_AT] = np.frombuffer(root_of(data, layout.body_at), np.uint8)


def block_checksum(body: Bytes, block: int) -> int:
    """XXH3-64 of one block of the body; the last may be shorter."""
    return int(xxhash.xxh3_64_intdigest(body[block * BLOCK : (block + 1) * BLOCK].data))


def parse(data: Bytes) -> tuple[Layout, Words, Words, Bytes]:
    """Read all before the body: the layout, the blocks' checksums, the first slot of each part and
    the set of keys it uses.

    O(bytes / 8192). Raises `StoreFormatError` where this is no frozen table that this release
    reads, and `CorruptStoreError` where it is damaged or of another length than it says.
    """
    if len(data) < CHECKSUMS_AT:
        raise CorruptStoreError(
            f"a frozen table has at least {CHECKSUMS_AT} bytes, this has {len(data)}: it was cut "
            "short, or is none"
        )
    magic, version, width, entries, slots, parts, buckets, seed, *_ = HEADER.unpack_from(data.data)
    if magic != MAGIC:
        raise StoreFormatError("this is no frozen table: it does not begin with HMFROZEN")
    if version != VERSION:
        raise StoreFormatError(
            f"this frozen table is of version {version}, and this release reads {VERSION}"
        )
    layout = Layout(width, entries, slots, parts, buckets, int.from_bytes(seed, "little"))
    if not MIN_WIDTH <= width <= MAX_WIDTH or layout.body_at > len(data):
        raise CorruptStoreError(
            f"the frozen table's header is damaged, or it was cut short: {len(data)} bytes"
        )
    if root_of(data, layout.body_at) != data[ROOT_AT:CHECKSUMS_AT].tobytes():
        raise CorruptStoreError(
            f"bytes 0 to {layout.body_at} of the frozen table do not match the root checksum"
        )
    offsets = data[layout.offsets_at : layout.turns_at].view("<u8").astype(np.uint64)
    turns = data[layout.turns_at :][:parts].copy()
    sound = (
        layout.header() == data[: HEADER.size].tobytes()
        and 1 <= parts < 1 << 31
        and 1 <= buckets < 1 << 31
        and entries <= min(slots, MOST_ENTRIES)
        and offsets[0] == 0
        and offsets[-1] == slots
        and bool((offsets[1:] >= offsets[:-1]).all())
        and bool((turns < KEY_SETS).all())
    )
    if not sound:
        raise CorruptStoreError("the frozen table's header contradicts itself")
    if layout.nbytes != len(data):
        raise CorruptStoreError(
            f"the frozen table has {len(data)} bytes where its header says {layout.nbytes}"
        )
    return layout, data[CHECKSUMS_AT : layout.offsets_at].view("<u8"), offsets, turns


def refuse_big_endian() -> None:
    """Raise `NotImplementedError` where integers in memory are not as in the format."""
    if sys.byteorder != "little":
        raise NotImplementedError("frozen tables need a little-endian machine")
