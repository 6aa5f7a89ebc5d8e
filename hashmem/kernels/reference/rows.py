"""Open addressing over digests alone, in NumPy. The definition of `rows.c`.

As `open_addressing`, but entries are `digests` uint8 (capacity, stride), which nobody writes, and
the value of one is its row.
"""

from collections.abc import Callable

import numpy as np

from hashmem.kernels.reference.hashing import (
    BLOCK,
    BUILD_BLOCK,
    Digests,
    Hashes,
    hash_digests,
    stable_order,
)
from hashmem.kernels.reference.open_addressing import Buckets, Rows, _locate, _place
from hashmem.kernels.reference.tables import one_by_one


def rows_find(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    width: int,
    hashed: int,
    count: int,
    queries: Digests | bytes,
    out: Rows,
    missing: int,
) -> None:
    """Write to `out` (n,) the row of each of `queries` (n, width), or `missing`."""
    asked = np.frombuffer(queries, np.uint8).reshape(-1, width)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        hashes = hash_digests(block[:, :hashed], keys)
        stored = digests[:, :width]
        rows, _ = _locate(buckets, stored, count, block, hashes, np.arange(len(block)))
        out[start : start + BLOCK] = np.where(rows < 0, missing, rows)


def rows_lookup(
    buckets: Buckets, keys: Hashes, digests: Digests, width: int, hashed: int, count: int
) -> tuple[Callable[[bytes], int | None], Callable[[], None]]:
    """As `open_lookup`; answers rows."""
    return one_by_one(rows_find, (buckets, keys, digests, width, hashed, count))


def rows_build(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    width: int,
    hashed: int,
    count: int,
    limit: int,
) -> int:
    """Place all rows, whose digests are distinct, into empty buckets. As `open_build`."""
    for start in range(0, count, BUILD_BLOCK):
        block = digests[start : min(start + BUILD_BLOCK, count), :width]
        hashes = hash_digests(block[:, :hashed], keys)
        order = stable_order(hashes)
        placed = _place(buckets, hashes[order], start + order, limit)
        if placed < len(block):
            return start + placed
    return count
