"""What `get_many` returns: a sequence of records that are read when they are asked for."""

from collections.abc import Iterator, Sequence
from typing import NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError, StoreClosedError
from hashmem.store.backend import Snapshot
from hashmem.store.columns import PlacedColumn
from hashmem.store.packs import PACK_LIMIT

__all__ = ["Records"]

_BLOCK = 1 << 20  # 1 MiB: what an iteration copies together


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
        places: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
        pending: dict[int, bytes | None],
    ) -> None:
        self._snapshot: Snapshot | None = snapshot
        self._column = column
        self._packs, self._offsets, self._lengths = places
        self._pending = pending  # position → what is not committed yet
        self._bodies = snapshot.views
        self._sizes = np.where(self._packs >= 0, self._lengths, -1)  # (n,) bytes, -1: not stored
        for position, item in pending.items():
            self._sizes[position] = -1 if item is None else len(item)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which of the digests are stored: bool (n,)."""
        return np.asarray(self._sizes >= 0)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The size of each record in bytes, -1 where it is not stored: int64 (n,)."""
        return self._sizes.copy()

    def __len__(self) -> int:
        return len(self._packs)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # IndexError as for any sequence
        return self._read(
            position,
            int(self._packs[position]),
            int(self._offsets[position]),
            int(self._lengths[position]),
        )

    def __iter__(self) -> Iterator[bytes | None]:
        ends = np.cumsum(np.maximum(self._sizes, 0))
        start = 0
        while start < len(self):
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + _BLOCK, side="right"))
            if stop <= start + 1:
                yield self[start]  # a large one: it is copied once
                start += 1
                continue
            buffer, offsets = self.gather(start, stop)
            joined, bounds = buffer.tobytes(), offsets.tolist()
            pieces = map(joined.__getitem__, map(slice, bounds, bounds[1:]))
            missing = self._sizes[start:stop] < 0
            if missing.any():
                yield from (
                    None if nothing else piece
                    for nothing, piece in zip(missing.tolist(), pieces, strict=True)
                )
            else:
                yield from pieces
            start = stop

    def gather(
        self, start: int = 0, stop: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the contents from position `start` to `stop`, joined in one buffer.

        uint8 (bytes,) and offsets int64 (k + 1,): content i is the bytes from
        ``offsets[i]`` to ``offsets[i + 1]``,
        empty where a digest is not stored (`found` tells). The fastest way to read many records:
        their cache misses overlap. O(bytes). Raises `CorruptStoreError` where a pack is cut off.
        """
        if self._snapshot is None:
            raise StoreClosedError("these records were closed")
        chosen = slice(*slice(start, stop).indices(len(self)))
        packs, lengths = self._packs[chosen], np.maximum(self._sizes[chosen], 0)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        buffer = np.empty(int(offsets[-1]), np.uint8)
        apart = lengths > PACK_LIMIT
        for position in self._pending:
            if chosen.start <= position < chosen.stop:
                apart[position - chosen.start] = True
        plain = np.flatnonzero((packs >= 0) & ~apart)
        numbers, which = np.unique(packs[plain], return_inverse=True)
        bodies = tuple(map(self._body, numbers.tolist()))
        places = self._offsets[chosen][plain], lengths[plain]
        try:
            kernels.current.gather(bodies, which, *places, buffer, offsets[plain])
        except ValueError as error:
            raise CorruptStoreError(f"a pack's body is cut off: {error}") from None
        for i in np.flatnonzero(apart).tolist():
            item = self[chosen.start + i]
            buffer[offsets[i] : offsets[i + 1]] = np.frombuffer(item or b"", np.uint8)
        return buffer, offsets

    def _body(self, pack: int) -> memoryview:
        body = self._bodies.get(pack)
        if body is None and self._snapshot is not None:
            body = self._bodies[pack] = self._column.body(self._snapshot, pack)
        return body if body is not None else memoryview(b"")

    def _read(self, position: int, pack: int, offset: int, length: int) -> bytes | None:
        if self._snapshot is None:
            raise StoreClosedError("these records were closed")
        if position in self._pending:
            return self._pending[position]
        if pack < 0:
            return None
        return bytes(self._column.view(self._snapshot, pack, offset, length, self._bodies))

    def close(self) -> None:
        """Let go of the snapshot; items cannot be read any more. Idempotent."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
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
