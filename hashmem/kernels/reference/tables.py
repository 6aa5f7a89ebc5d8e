"""What the reference kernels of both kinds of tables share, once digests are located."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.hashing import Digests, Hashes, first_of_each

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


def one_by_one(
    find: Callable[..., None], table: tuple[object, ...]
) -> tuple[Callable[[bytes], int | None], Callable[[], None]]:
    """Make a lookup of a `find` over batches."""
    held = [True]
    width = table[3]

    def look(digest: bytes) -> int | None:
        if not isinstance(digest, bytes):
            raise TypeError(f"a digest must be bytes, got {type(digest).__name__}")
        if len(digest) != width:
            raise ValueError(f"a digest must be {width} bytes for this table, got {len(digest)}")
        out = np.empty(2, np.int64)
        try:
            for missing in (0, 1):
                find(*table, digest, out[missing : missing + 1], missing)
        except Exception:
            if held:
                raise
        if not held:  # perhaps only since the search began: then the table may have changed
            raise BufferError("the lookup has been closed")
        return None if out.tolist() == [0, 1] else int(out[0])

    return look, held.clear


def number_fresh(
    digests: Digests, hashes: Hashes, missing: Rows, entry: Rows, count: int
) -> tuple[Rows, Rows]:
    """Number the digests that are in no entry yet, in order of first appearance from `count` on.

    `missing` (m,) are their places, equal ones among them, in `stable_order` of `hashes`; what they
    will be is written to `entry` (n,). Returns the places of the different ones, in the same order
    and ascending.
    """
    first = first_of_each(digests, hashes, missing)
    by_hash = missing if first is missing else missing[first == missing]
    fresh = np.zeros(len(entry), np.bool_)
    fresh[by_hash] = True
    entry[missing] = (np.cumsum(fresh) + (count - 1))[first]
    return by_hash, np.flatnonzero(fresh)


def write_batch(
    values: Rows,
    entry: Rows,
    fresh: Rows,
    batch_values: Rows,
    new: Flags,
    keep: bool,
    offset: int | None,
) -> None:
    """Write `new`, and the values of a batch whose digests each have an entry, new at `fresh`.

    With an offset, what is written is `batch_values`, and the new entries' values."""
    new[:] = False
    new[fresh] = True
    if offset is not None:
        values[entry[fresh]] = entry[fresh] + offset
        batch_values[:] = values[entry]
    elif keep:
        values[entry[fresh]] = batch_values[fresh]
    else:
        values[entry] = batch_values


def same_hashes(hashes: Hashes) -> int:
    """How many of `hashes`, in `stable_order`, equal the one before: digests of a batch compared
    that were others."""
    return int((hashes[1:] == hashes[:-1]).sum())
