"""What `get_many` returns: a sequence of records that are read when they are asked for."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import StoreClosedError
from hashmem.store.backend import Snapshot
from hashmem.store.columns import PlacedColumn
from hashmem.store.packs import PACK_LIMIT

__all__ = ["Records"]


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

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which of the digests are stored: bool (n,)."""
        mask = self._packs >= 0
        for position, item in self._pending.items():
            mask[position] = item is not None
        return mask

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The size of each record in bytes, -1 where it is not stored: int64 (n,)."""
        sizes = np.where(self._packs >= 0, self._lengths, -1)
        for position, item in self._pending.items():
            sizes[position] = -1 if item is None else len(item)
        return sizes

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
        bodies, pending = self._bodies, self._pending
        step = 1 << 16  # items whose places are Python integers at one time
        for start in range(0, len(self), step):
            block = slice(start, start + step)
            places = zip(
                range(start, min(start + step, len(self))),
                self._packs[block].tolist(),
                self._offsets[block].tolist(),
                self._lengths[block].tolist(),
                strict=True,
            )
            for position, pack, offset, length in places:
                if pack in bodies and not pending and length <= PACK_LIMIT:  # the common case
                    item = bytes(bodies[pack][offset : offset + length])
                    if len(item) == length:  # else its body is cut off
                        yield item
                        continue
                yield self._read(position, pack, offset, length)

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

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_snapshot"):
            self.close()
