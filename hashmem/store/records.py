"""What `get_many` returns: a sequence of records that are read when they are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.digests import Digests, digest_many
from hashmem.errors import CorruptStoreError, StoreClosedError
from hashmem.store.backend import Snapshot
from hashmem.store.checkpoint import ABSENT, Codes
from hashmem.store.placed import (
    LONG,
    Frame,
    PlacedColumn,
    lengths_of,
    offsets_of,
    ordinals_of,
)

__all__ = ["Records"]

_BLOCK = 1 << 20  # 1 MiB: what is copied together, so that it is near when it is used
_STEP = 1 << 14  # records whose places are worked out together: they stay in the cache


class Records(Sequence[bytes | None]):
    """The contents of a batch of digests, in their order; None where one is not stored.

    Nothing is copied when it is made. It holds the snapshot it was read from, and each item is
    copied out as bytes when it is accessed, so items stay valid for ever. While it lives, LMDB
    cannot reuse the space of what is replaced meanwhile: let go of it, or `close` it (it is a
    context manager too), when done. It stays readable when the store is closed or changed. One
    thread at a time may read it.

    Reading one item takes O(its bytes), and the first from a pack looks that pack up.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        column: PlacedColumn,
        frame: Frame,
        codes: Codes,
        large: dict[int, tuple[int, int]],
        pending: dict[int, bytes | None],
        *,
        owner: bool = True,
    ) -> None:
        self._snapshot: Snapshot | None = snapshot
        self._owner = owner  # whether to close it
        self._column = column
        self._frame = frame
        self._map, self._reads = snapshot.map, snapshot.reads
        self._codes = codes  # (n,) see `PlacedColumn`
        self._large = large  # position → first pack, bytes
        self._pending = pending  # position → what is not committed yet

    @classmethod
    def of(cls, snapshot: Snapshot, column: PlacedColumn, rows: NDArray[np.int64]) -> "Records":
        """What a snapshot, which its owner closes, holds for `rows` of a column.

        Raises `CorruptStoreError` where packs are gone that should be there.
        """
        codes = column.codes(rows)
        frame = column.frame(snapshot, codes)
        if frame is None:
            raise CorruptStoreError(f"packs of column {column.number} are gone: run verify()")
        large = column.large_at(rows, codes)
        return cls(snapshot, column, frame, codes, large, {}, owner=False)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which of the digests are stored: bool (n,)."""
        return np.asarray(self.lengths >= 0)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The size of each record in bytes, -1 where it is not stored: int64 (n,). O(n)."""
        return self._lengths(slice(0, len(self)))

    def _lengths(self, chosen: slice) -> NDArray[np.int64]:
        codes = self._codes[chosen]
        lengths = lengths_of(codes)
        lengths[codes == ABSENT] = -1
        for position, (_, size) in self._large.items():
            if chosen.start <= position < chosen.stop:
                lengths[position - chosen.start] = size
        for position, item in self._pending.items():
            if chosen.start <= position < chosen.stop:
                lengths[position - chosen.start] = -1 if item is None else len(item)
        return lengths

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])  # IndexError as for any sequence

    def __iter__(self) -> Iterator[bytes | None]:
        for start, stop in self.blocks():
            if stop == start + 1:
                yield self[start]  # it may be a large one, which is copied once
                continue
            buffer, offsets = self.gather(start, stop)
            joined, bounds = buffer.tobytes(), offsets.tolist()
            pieces = map(joined.__getitem__, map(slice, bounds, bounds[1:]))
            missing = self._lengths(slice(start, stop)) < 0
            if missing.any():
                yield from (
                    None if nothing else piece
                    for nothing, piece in zip(missing.tolist(), pieces, strict=True)
                )
            else:
                yield from pieces

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield runs of positions, start and stop, each of about 1 MiB or of one record."""
        for first in range(0, len(self), _STEP):
            yield from self._blocks(first, min(first + _STEP, len(self)))

    def _blocks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        ends = np.cumsum(np.maximum(self._lengths(slice(first, last)), 0))
        start, done = first, 0
        while start < last:
            stop = first + int(np.searchsorted(ends, done + _BLOCK, side="right"))
            stop = max(stop, start + 1)
            yield start, stop
            start, done = stop, int(ends[stop - 1 - first])

    def gather(
        self, start: int = 0, stop: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the contents from position `start` to `stop`, joined in one buffer.

        uint8 (bytes,) and offsets int64 (k + 1,): content i is the bytes from
        ``offsets[i]`` to ``offsets[i + 1]``,
        empty where a digest is not stored (`found` tells). The fastest way to read many records:
        their cache misses overlap. O(bytes). Raises `CorruptStoreError` where a pack is cut off.
        """
        chosen = slice(*slice(start, stop).indices(len(self)))
        lengths = np.maximum(self._lengths(chosen), 0)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        buffer = np.empty(int(offsets[-1]), np.uint8)
        for first in range(0, len(lengths), _STEP):
            some = slice(first, min(first + _STEP, len(lengths)))
            at = chosen.start + some.start
            plain = self._copy(slice(at, at + some.stop - some.start), buffer, offsets[some])
            for i in plain.tolist():
                item = self._read(at + i)
                to = offsets[first + i]
                buffer[to : to + lengths[first + i]] = np.frombuffer(item or b"", np.uint8)
        return buffer, offsets

    def first_damaged(self, digests: Digests, algorithm: str, key: bytes | None) -> int | None:
        """Return the first position whose content does not have its digest; None: all have.

        `digests` is what was asked for, (n, width). O(bytes): without a key, contents are digested
        where they lie. Raises `CorruptStoreError` where a pack is cut off.
        """
        for start, stop, again in self._digests(algorithm, key):
            differ = again.view(np.uint64) != digests[start:stop].view(np.uint64)
            if differ.any():
                damaged = differ.any(axis=1) & (self._lengths(slice(start, stop)) >= 0)
                if damaged.any():
                    return start + int(np.argmax(damaged))
        return None

    def _digests(self, algorithm: str, key: bytes | None) -> Iterator[tuple[int, int, Digests]]:
        """Yield runs of positions, start and stop, with the digests of their contents; where
        nothing is stored, that of nothing."""
        for first in range(0, len(self), _STEP):
            last = min(first + _STEP, len(self))
            if key is None and self._map is not None:
                plain, ordinals, starts, lengths, _ = self._places(slice(first, last))
                if len(plain) == last - first:
                    starts += self._frame.starts[ordinals]
                    places = np.stack([starts, starts + lengths], axis=1)
                    try:
                        with self._reads.batch(self._map, starts, lengths):
                            again = digest_many(self._map, algorithm, offsets=places)
                    except ValueError as error:
                        raise _cut_off(error) from None
                    yield first, last, again
                    continue
            for start, stop in self._blocks(first, last):
                buffer, offsets = self.gather(start, stop)
                yield start, stop, digest_many(buffer, algorithm, offsets=offsets, key=key)

    def ends(self) -> NDArray[np.uint8]:
        """Return the first and the last byte of each record, uint8 (n, 2); zeros where it is not
        stored or empty. O(n): two lines of memory a record, which is what reading must touch.

        Raises `CorruptStoreError` where a pack is cut off.
        """
        found = np.zeros((len(self), 2), np.uint8)
        for first in range(0, len(self), _STEP):
            chosen = slice(first, min(first + _STEP, len(self)))
            plain, ordinals, starts, lengths, apart = self._places(chosen)
            out, to, one = found[chosen].reshape(-1), 2 * plain, np.ones(len(plain), np.int64)
            self._gather(ordinals, starts, one, out, to)
            self._gather(ordinals, starts + lengths - 1, one, out, to + 1)
            for i in apart.tolist():
                item = self._read(first + i)
                if item:
                    found[first + i] = item[0], item[-1]
        return found

    def _copy(
        self, chosen: slice, out: NDArray[np.uint8], to: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Copy the contents at `chosen` to places in `out`.

        Returns the positions, from the start of `chosen`, of those that must be read otherwise.
        """
        plain, ordinals, starts, lengths, apart = self._places(chosen)
        to = to[plain] if len(plain) < len(to) else to
        self._gather(ordinals, starts, lengths, out, to)
        return apart

    def _gather(
        self,
        ordinals: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: NDArray[np.uint8],
        to: NDArray[np.int64],
    ) -> None:
        """Copy pieces of packs to places in `out`."""
        frame = self._frame
        if self._map is not None:
            bodies: tuple[Any, ...] = (self._map,)
            which = np.zeros(len(starts), np.int64)
            starts = starts + frame.starts[ordinals]
        else:
            numbers, which = np.unique(ordinals, return_inverse=True)
            bodies = tuple(frame.bodies[ordinal] for ordinal in numbers.tolist())
        try:
            with self._reads.batch(bodies[0] if bodies else b"", starts, lengths):
                kernels.current.gather(bodies, which, starts, lengths, out, to)
        except ValueError as error:
            raise _cut_off(error) from None

    def _places(self, chosen: slice) -> tuple[NDArray[np.int64], ...]:
        """Where the contents at `chosen` lie: their positions from its start, the ordinals of their
        packs, where they start there, their lengths; and the positions of those read otherwise.
        """
        self._must_be_open()
        codes, frame = self._codes[chosen], self._frame
        lengths = lengths_of(codes)
        apart = lengths == LONG
        for position in self._pending:
            if chosen.start <= position < chosen.stop:
                apart[position - chosen.start] = True
        plain = np.flatnonzero((codes != ABSENT) & ~apart & (lengths > 0))
        if len(plain) < len(codes):
            codes, lengths = codes[plain], lengths[plain]
        ordinals, starts = ordinals_of(codes), offsets_of(codes)
        if len(codes) and (
            int(ordinals.max()) >= len(frame.sizes)
            or bool((starts + lengths > frame.sizes[ordinals]).any())
        ):
            raise _cut_off("verify() tells which")
        return plain, ordinals, starts, lengths, np.flatnonzero(apart)

    def _read(self, position: int) -> bytes | None:
        snapshot = self._must_be_open()
        if position in self._pending:
            return self._pending[position]
        if position in self._large:
            pack, size = self._large[position]
            if pack < 0:
                raise CorruptStoreError("where a long record lies is damaged: verify() tells more")
            return bytes(self._column.view(snapshot, pack, 0, size, {}))
        code = self._codes[position : position + 1]
        if code[0] == ABSENT:
            return None
        out = np.empty(int(lengths_of(code)[0]), np.uint8)
        self._copy(slice(position, position + 1), out, np.zeros(1, np.int64))
        return out.tobytes()

    def _must_be_open(self) -> Snapshot:
        if self._snapshot is None or self._snapshot.closed:
            raise StoreClosedError("these records were closed, or read from a forked child")
        return self._snapshot

    def close(self) -> None:
        """Let go of the snapshot; items cannot be read any more. Idempotent."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and self._owner:
            snapshot.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "records cannot be pickled: they read from a snapshot in this process; send "
            "list(records), or the digests and the store"
        )

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_snapshot"):
            self.close()


def _cut_off(why: object) -> CorruptStoreError:
    return CorruptStoreError(f"a pack's body is cut off: {why}")
