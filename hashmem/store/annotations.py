"""What a store knows of its records: metadata, and named fixed-width columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests, as_digests
from hashmem.errors import CorruptStoreError, RecordNotFound
from hashmem.store.handle import Handle, check_name
from hashmem.store.layout import unpack
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.state import State

__all__ = ["Annotations", "Metadata", "packed"]

AnyDigests = Digests | Sequence[bytes] | bytes
Metadata = Mapping[str, Any]


class Annotations(Handle):
    """The part of `MemoryStore` that works on metadata and columns."""

    def metadata(self, digest: bytes) -> dict[str, Any] | None:
        """Return the metadata of a record, None where it has none or is not stored."""
        return self.metadata_many(as_digests(digest, self.width, "digest"))[0]

    def metadata_many(self, digests: AnyDigests) -> list[dict[str, Any] | None]:
        """Return the metadata of many records, None where there is none."""
        queries = as_digests(digests, self.width)
        with self._reading(), self._current() as reader:
            state = self._state
            rows = state.table.find(queries)
            packs, offsets, lengths = state.metadata.places(rows)
            items: list[bytes | memoryview | None] = [None] * len(rows)
            bodies: dict[int, memoryview] = {}
            for i in np.flatnonzero(packs >= 0).tolist():
                place = int(packs[i]), int(offsets[i]), int(lengths[i])
                items[i] = state.metadata.view(reader, *place, bodies)
            for i, item in state.metadata.pending.among(rows):
                items[i] = item
            return [
                None if item is None else _unpacked(item, queries[i])
                for i, item in enumerate(items)
            ]

    def set_metadata(self, digests: AnyDigests, metadata: Sequence[Metadata | None]) -> None:
        """Replace the metadata of stored records; None removes it.

        Raises `RecordNotFound` naming the position of a digest that is not stored; nothing is
        changed then.
        """
        queries = as_digests(digests, self.width)
        maps = packed(metadata, len(queries))
        with self._writing() as state:
            rows = self._stored_rows(state, queries)
            state.metadata.pending.set(rows, maps or [])

    def write_column(self, name: str, digests: AnyDigests, values: NDArray[Any]) -> None:
        """Set one row of a named fixed-width column, such as a summary, for stored records.

        `values` is (n, k) of one numeric type, the same k and type at every call for one `name`.
        Kept in the same transaction as the records. Raises `RecordNotFound` naming the position
        of a digest that is not stored, `ValueError` on a shape or type that does not fit.
        """
        check_name("column", name)
        queries = as_digests(digests, self.width)
        array = np.ascontiguousarray(values)
        if array.ndim != 2 or len(array) != len(queries) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"column {name!r}: expected numbers of shape ({len(queries)}, k), "
                f"got {array.dtype} {array.shape}"
            )
        row_bytes = array.shape[1] * array.dtype.itemsize
        if array.dtype.itemsize > 8 or not 0 < row_bytes <= PACK_LIMIT:
            raise ValueError(
                f"column {name!r}: a row has 1 to {PACK_LIMIT} bytes, in numbers of 8 at most, not "
                f"{row_bytes} in {array.dtype}"
            )
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        with self._writing() as state:
            rows = self._stored_rows(state, queries)
            if not len(rows):
                return  # a column that nothing waits for would not be rebased
            column = state.column(name, array.dtype.str, array.shape[1])
            column.pending.set(rows, list(map(bytes, array)))

    def read_column(self, name: str) -> tuple[Digests, NDArray[Any]]:
        """Return a named column whole: digests (n, width) and values (n, k).

        Of all records that have it, in the order their digests came to be known. O(n). Raises
        `KeyError` where no column has that name.
        """
        with self._reading(), self._current() as reader:
            state = self._state
            if name not in state.named:
                raise KeyError(f"no column is called {name!r}; there are {sorted(state.named)}")
            _, dtype, items = state.described[name]
            rows, values = state.named[name].read_all(reader)
            live = state.payloads.held(state.rows)[rows]
            array = values[live].view(np.dtype(str(dtype))).reshape(-1, int(str(items)))
            return state.table.digests(rows[live]), array

    @property
    def columns(self) -> list[str]:
        """The names of the columns there are."""
        with self._reading() as state:
            return sorted(state.named)

    def _stored_rows(self, state: State, queries: Digests) -> NDArray[np.int64]:
        rows = state.table.find(queries)
        held = state.payloads.holds(rows)
        if not held.all():
            at = int(np.argmin(held))
            raise RecordNotFound(
                f"digests[{at}]: no record has the digest {bytes(queries[at]).hex()}; put it first"
            )
        return rows


def packed(metadata: Sequence[Metadata | None] | None, n: int) -> list[bytes | None] | None:
    """Each map as msgpack. Raises `TypeError` or `ValueError` naming the position."""
    if metadata is None:
        return None
    if len(metadata) != n:
        raise ValueError(f"{n} records cannot have {len(metadata)} maps of metadata")
    packed: list[bytes | None] = []
    for i, item in enumerate(metadata):
        if item is not None and not isinstance(item, Mapping):
            raise TypeError(f"metadata[{i}]: expected a map, got {type(item).__name__}")
        try:
            stored = None if item is None else msgpack.packb(dict(item))
            if stored is not None:  # msgpack writes some maps that it cannot read
                msgpack.unpackb(stored, strict_map_key=False)
            packed.append(stored)
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"metadata[{i}]: {error}") from error
    return packed


def _unpacked(item: bytes | memoryview, of: Digests) -> dict[str, Any]:
    try:
        found = unpack(item, any_key=True)
    except ValueError as error:
        raise CorruptStoreError(f"the metadata of {bytes(of).hex()} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise CorruptStoreError(f"the metadata of {bytes(of).hex()} is damaged: it is no map")
    return found
