"""Making frozen tables: from the entries of a table to bytes, or to a file put in place whole."""

import os
import secrets
from contextlib import suppress
from io import BytesIO
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError, StoreError, TableFullError
from hashmem.kernels.reference.frozen import entry_bytes
from hashmem.tables.arguments import as_integer
from hashmem.tables.base import DigestTable
from hashmem.tables.frozen_layout import MOST_ENTRIES, Layout, refuse_big_endian, seal
from hashmem.tables.memory import advise_huge, zeros

PART = 1 << 15  # entries on average: a part's pilots are sought within the cache
BUCKET = 3  # entries on average
SPARE = 128  # one slot more for each so many entries of a part, and for the rest
TRIES = 4  # seeds
RUN = 1 << 15  # entries copied at a time, through the cache

Path = str | os.PathLike[str]


@overload
def freeze(table: DigestTable, path: None = None, *, seed: int | None = None) -> bytes: ...
@overload
def freeze(table: DigestTable, path: Path, *, seed: int | None = None) -> None: ...
def freeze(
    table: DigestTable, path: Path | None = None, *, seed: int | None = None
) -> bytes | None:
    """Freeze all entries of `table`, to bytes or to a file at `path`.

    The file is written beside `path`, synced, and renamed, so `path` holds the old content or the
    new. The same entries in the same order with the same `seed`, 0 to 2^128 - 1, give the same
    bytes; without it a random one is taken. O(n) expected time, and memory for the result and 16
    bytes an entry. Raises `TableFullError` beyond 2^34 entries, `StoreError` where the file cannot
    be written, and `CorruptStoreError` where the table holds a digest twice.

    >>> from hashmem import FrozenTable, OpenAddressingTable
    >>> from hashmem.tables import freeze
    >>> table = OpenAddressingTable(width=8)
    >>> table[b"8 bytes."] = 7
    >>> FrozenTable(freeze(table))[b"8 bytes."]
    7
    """
    first = secrets.randbits(128) if seed is None else as_integer("seed", seed, 0, 2**128 - 1)
    refuse_big_endian()
    if not isinstance(table, DigestTable):
        raise TypeError(
            "only an OpenAddressingTable or a ChainingTable can be frozen, "
            f"not {type(table).__name__}"
        )
    with table._lock:  # nobody changes it meanwhile
        records = _records(table)
    if len(records) > MOST_ENTRIES:
        raise TableFullError(f"a frozen table holds up to {MOST_ENTRIES} entries")
    for attempt in range(TRIES):
        frozen = _build(records, table.width, (first + attempt) % 2**128, path is None)
        if frozen is not None:
            if path is None:
                return bytes(frozen)
            _write(frozen, os.fspath(path))
            return None
    raise CorruptStoreError(
        f"{TRIES} seeds gave no perfect hash, so the table must hold a digest twice: "
        "its check() will tell"
    )


def _records(table: DigestTable) -> NDArray[np.uint8]:
    """The entries as frozen tables hold them (n, entry)."""
    width, digests, values = table.width, table.digests, table.values_array
    size = entry_bytes(width)
    records = zeros(len(digests) * size).reshape(len(digests), size)
    for begin in range(0, len(digests), RUN):  # through the cache
        rows = slice(begin, begin + RUN)
        records[rows, :8] = np.ascontiguousarray(values[rows]).view(np.uint8).reshape(-1, 8)
        records[rows, 8 : 8 + width] = digests[rows]
    return records


def _build(
    records: NDArray[np.uint8], width: int, seed: int, as_bytes: bool
) -> bytes | NDArray[np.uint8] | None:
    """The frozen table under one seed; None where that seed gives no perfect hash."""
    n = len(records)
    parts = max(1, round(n / PART))
    buckets = max(1, -(-n // (BUCKET * parts)))
    keys, starts = Layout(width, n, n, parts, buckets, seed).keys(), np.zeros(parts + 1, np.uint64)
    hashes, rows = zeros(8 * n).view(np.uint64), zeros(8 * n).view(np.uint64)
    kernels.current.frozen_partition(records, keys, width, starts, hashes, rows)
    amounts = np.diff(starts.astype(np.int64))
    offsets = np.zeros(parts + 1, np.uint64)
    offsets[1:] = np.cumsum(amounts + -(-amounts // SPARE))
    layout = Layout(width, n, int(offsets[-1]), parts, buckets, seed)

    # BytesIO gives out the bytes it was written in: what `bytes` has no other way to.
    held = BytesIO(bytes(layout.nbytes)) if as_bytes else None
    data = np.frombuffer(held.getbuffer(), np.uint8) if held else zeros(layout.nbytes)
    if held:
        advise_huge(data)
    body = data[layout.body_at :]
    pilots, entries = body[: parts * buckets], body[layout.entries_at :]
    turns = np.zeros(parts, np.uint8)
    if not kernels.current.frozen_build(
        records, width, keys, hashes, rows, starts, offsets, buckets, turns, pilots, entries
    ):
        return None
    seal(data, layout, offsets, turns)
    if held is None:
        return data
    del data, body, pilots, entries
    return held.getvalue()


def _write(data: Any, path: str) -> None:
    beside = f"{path}.{secrets.token_hex(4)}.new"
    try:
        try:
            with open(beside, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too survives a loss of power
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"cannot write the frozen table {path}: {error}") from error
