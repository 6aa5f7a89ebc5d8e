"""FrozenTable: a table that does not change again, as bytes that are read where they lie.

A frozen table is a perfect hash over the digests (`hashmem/kernels/frozen.h` has the method) and
the entries where it says. It is made once, by `freeze`, and mapped or wrapped without a copy, so
that processes share its pages. What stands before the body is verified on opening, each block of
64 KiB of the body by the first search that reads of it, and everything by `check`.

Threads: any number may search; two may verify the same block, which is harmless.
"""

import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import EFAULT
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError, StoreClosedError, StoreError
from hashmem.tables.arguments import as_batch, as_one
from hashmem.tables.frozen_build import Path, freeze
from hashmem.tables.frozen_layout import BLOCK, Layout, block_checksum, parse, refuse_big_endian
from hashmem.tables.open_addressing import OpenAddressingTable

__all__ = ["FrozenStatistics", "FrozenTable", "freeze"]

CHUNK = 1 << 15  # slots looked through at a time
POPULATE_READ = 22  # madvise of Linux 5.14: maps pages now, and fails where a touch would kill

Digests = NDArray[np.uint8]  # (n, width)
Values = NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class FrozenStatistics:
    """How large a frozen table is, and how much of it has been verified."""

    entries: int
    slots: int
    parts: int
    buckets: int
    load: float  # entries a slot
    nbytes: int
    overhead: float  # bytes an entry beyond its digest and its value
    blocks: int  # of 64 KiB
    verified: int  # of them


class _State(NamedTuple):
    """What an open table is made of."""

    layout: Layout
    data: NDArray[np.uint8]
    body: NDArray[np.uint8]
    checksums: NDArray[np.uint64]
    verified: NDArray[np.uint8]  # (blocks,)
    table: tuple[object, ...]  # the first arguments of the kernel
    mapping: mmap.mmap | None

    @classmethod
    def of(cls, buffer: Any) -> "_State":
        data = np.frombuffer(memoryview(buffer).cast("B"), np.uint8)
        layout, checksums, offsets, turns = parse(data)
        body, verified = data[layout.body_at :], bytearray(layout.blocks)
        # Kernels borrow bytes faster than arrays, which shows in searches for one digest.
        small = offsets.tobytes(), turns.tobytes(), layout.keys().tobytes(), verified
        table = body.data, *small, layout.width, layout.buckets, layout.entries_at
        mapping = buffer if isinstance(buffer, mmap.mmap) else None
        return cls(layout, data, body, checksums, np.frombuffer(verified, np.uint8), table, mapping)

    def verify(self, blocks: NDArray[np.int64]) -> None:
        """Compare the checksums of blocks of the body, all of them, before one is complained of."""
        damaged = []
        for block in map(int, blocks):
            self._map_in(block)
            if block_checksum(self.body, block) == self.checksums[block]:
                self.verified[block] = 1
            else:
                self.verified[block] = 0
                damaged.append(block)
        if damaged:
            begin = self.layout.body_at + damaged[0] * BLOCK
            end = min(begin + BLOCK, self.layout.nbytes)
            others = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise CorruptStoreError(
                f"block {damaged[0]}{others} of the frozen table, bytes {begin} to {end}, does not "
                "match its checksum: take another copy, or freeze the table again"
            )

    def _map_in(self, block: int) -> None:
        """Map a block's pages at once; where the file has been cut short, raise instead of die."""
        if self.mapping is None or sys.platform != "linux":
            return
        begin = self.layout.body_at + block * BLOCK
        size = min(BLOCK, self.layout.nbytes - begin)
        try:
            self.mapping.madvise(POPULATE_READ, begin, size)
        except OSError as error:
            if error.errno == EFAULT:
                raise CorruptStoreError(
                    f"block {block} of the frozen table, bytes {begin} to {begin + size}, cannot "
                    "be read: its file was cut short after it was opened"
                ) from error
        except ValueError:  # pages larger than the format's
            pass


class FrozenTable(Mapping[bytes, int]):
    """Maps digests to int64 values as a `DigestTable` does, from bytes that nobody changes.

    `FrozenTable(buffer)` reads what `freeze` returned, `FrozenTable.open(path)` the file it wrote,
    without a copy. Beyond digest and value an entry takes less than a byte; iteration is in the
    order of slots, which is as random as the seed. Closing is optional; what is being searched
    meanwhile stays mapped until that is done.

    >>> from hashmem import OpenAddressingTable
    >>> from hashmem.tables import freeze
    >>> table = OpenAddressingTable(width=8)
    >>> keys = np.arange(16, dtype=np.uint8).reshape(2, 8)
    >>> table.insert(keys, [7, 8])
    array([ True,  True])
    >>> frozen = FrozenTable(freeze(table))
    >>> frozen.find(keys[::-1])
    array([8, 7])

    :param buffer: bytes-like, not to be changed while the table is in use. Raises
        `CorruptStoreError` where it is damaged or cut short, and `StoreFormatError` where it is no
        frozen table of a version that this release reads.
    """

    def __init__(self, buffer: Any) -> None:
        refuse_big_endian()
        self._now: _State | None = _State.of(buffer)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the frozen table in the file at `path`, read-only. O(bytes / 8192).

        Processes that open one file share its memory. The file must not change while it is mapped:
        replace it by renaming another to its name, as `freeze` does. One that is cut short after
        it was opened may end the process (SIGBUS), as any mapped file may. Raises `StoreError`
        where the file cannot be read, and as the class does.
        """
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise StoreError(f"cannot open the frozen table {path}: {error}") from error
        return cls(mapping)

    def close(self) -> None:
        """Let go of the buffer or file. Any use but `close` raises `StoreClosedError` then."""
        self._now = None

    def __enter__(self) -> Self:
        self._state  # noqa: B018  # raises where it is closed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _state(self) -> _State:
        if self._now is None:
            raise StoreClosedError("the frozen table is closed: open it again")
        return self._now

    # Batches.

    def find(self, digests: ArrayLike) -> Values:
        """Look up each of `digests` (n, width). Its value (n,), -1 where it is absent.

        O(n), and O(64 KiB) for each block that nobody has read before. Raises `CorruptStoreError`,
        each time, where such a block is damaged, and `TypeError` or `ValueError` where `digests` is
        no such array.
        """
        return self._search_all(digests, slots=False)

    def contains(self, digests: ArrayLike) -> NDArray[np.bool_]:
        """Tell for each of `digests` (n, width) whether it is there (n,). As `find`."""
        return np.asarray(self._search_all(digests, slots=True) >= 0)

    def _search_all(self, digests: ArrayLike, slots: bool) -> Values:
        state = self._state
        queries = as_batch(digests, state.layout.width)
        out = np.empty(len(queries), np.int64)
        _search(state, queries, out, -1, slots)
        return out

    # One digest at a time.

    def __getitem__(self, digest: bytes) -> int:
        value = self._find_one(digest, -1, slots=False)
        if value == -1 and self._find_one(digest, 0, slots=False) == 0:
            raise KeyError(digest)
        return value

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes | bytearray | memoryview) or len(digest) != self.width:
            return False
        return self._find_one(bytes(digest), -1, slots=True) >= 0

    def _find_one(self, digest: bytes, missing: int, slots: bool) -> int:
        state, out = self._state, np.empty(1, np.int64)
        if type(digest) is not bytes or len(digest) != state.layout.width:
            digest = as_one(digest, state.layout.width).tobytes()
        _search(state, digest, out, missing, slots)
        return int(out[0])

    def __len__(self) -> int:
        return self._state.layout.entries

    # What is there.

    def __iter__(self) -> Iterator[bytes]:
        for digests, _, own in self._chunks():
            for row in digests[own]:
                yield row.tobytes()

    def arrays(self) -> tuple[Digests, Values]:
        """Copy the digests (n, width) and values (n,) of all entries, in the order of slots. O(n).

        Raises `CorruptStoreError` where a block is damaged.
        """
        digests, values = np.empty((len(self), self.width), np.uint8), np.empty(len(self), np.int64)
        done = 0
        for some, its, own in self._chunks():
            end = done + int(np.count_nonzero(own))
            if end <= len(values):
                digests[done:end], values[done:end] = some[own], its[own]
            done = end
        self._expect_all(done)
        return digests, values

    def thaw(self) -> OpenAddressingTable:
        """Copy all entries into a table that can change. O(n)."""
        table = OpenAddressingTable(self.width, capacity=len(self))
        for digests, values, own in self._chunks():
            table.insert(digests[own], values[own])
        return table

    def _chunks(self) -> Iterator[tuple[Digests, Values, NDArray[np.bool_]]]:
        """Digests and values of some slots at a time, and which of them are their own entries'."""
        state = self._state
        layout = state.layout
        size = layout.entry_bytes
        for begin in range(0, layout.slots, CHUNK):
            end = min(begin + CHUNK, layout.slots)
            first, last = layout.entries_at + begin * size, layout.entries_at + end * size
            blocks = np.arange(first // BLOCK, -(-last // BLOCK))
            state.verify(blocks[state.verified[blocks] == 0])
            rows = state.body[first:last].reshape(-1, size)
            digests = np.ascontiguousarray(rows[:, 8 : 8 + layout.width])
            values = np.ascontiguousarray(rows[:, :8]).view("<i8").ravel().astype(np.int64)
            slots = np.empty(len(rows), np.int64)
            _search(state, digests, slots, -1, slots=True)
            yield digests, values, slots == np.arange(begin, end)

    @property
    def width(self) -> int:
        """Bytes of a digest."""
        return self._state.layout.width

    @property
    def seed(self) -> int:
        """The seed of the keyed hash."""
        return self._state.layout.seed

    @property
    def nbytes(self) -> int:
        """Bytes of the whole frozen table, headers included."""
        return self._state.layout.nbytes

    def statistics(self) -> FrozenStatistics:
        """Tell sizes, and how many blocks have been verified. O(blocks)."""
        state = self._state
        layout = state.layout
        entries = layout.entries
        return FrozenStatistics(
            entries=entries,
            slots=layout.slots,
            parts=layout.parts,
            buckets=layout.parts * layout.buckets,
            load=entries / layout.slots if entries else 0.0,
            nbytes=layout.nbytes,
            overhead=layout.nbytes / entries - layout.width - 8 if entries else 0.0,
            blocks=layout.blocks,
            verified=int(np.count_nonzero(state.verified)),
        )

    def check(self) -> None:
        """Verify every checksum anew, and that the hash leads to each entry once. O(bytes).

        Raises `CorruptStoreError` where that is not so.
        """
        state = self._state
        parse(state.data)
        state.verify(np.arange(state.layout.blocks))
        found = sum(int(own.sum()) for _, _, own in self._chunks())
        self._expect_all(found)

    def _expect_all(self, found: int) -> None:
        if found != len(self):
            raise CorruptStoreError(f"the frozen table has {found} entries, not {len(self)}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("FrozenTable cannot be pickled; open its file again instead")


def _search(
    state: _State, queries: Digests | bytes, out: Values, missing: int, slots: bool
) -> None:
    """Run the kernel, verifying what it asks for: pilots' blocks, then entries' blocks."""
    if not kernels.current.frozen_find(*state.table, queries, out, missing, slots, _NOTHING):
        return
    wanted = np.zeros(len(state.verified), np.uint8)
    while kernels.current.frozen_find(*state.table, queries, out, missing, slots, wanted):
        state.verify(np.flatnonzero(wanted))
        wanted.fill(0)


_NOTHING = bytearray()
