"""The keyed hash of digests in NumPy. The definition of `hashing.h`, which states the guarantee."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_WIDTH = 8  # bytes of a digest
MAX_WIDTH = 64
SUM_KEYS = 1 + MAX_WIDTH // 4  # one to start from, one for each 32-bit word
BLOCK = 1 << 15  # digests at a time, so that what lies between two steps stays in the cache
BUILD_BLOCK = 1 << 17  # the same for building, where neighbours in the index gain more
FEWEST = 1 << 10  # digests located at a time where there is room for fewer new ones
PLACE_BITS = 18  # of a key to sort by, for its place: more than a block needs

Digests = NDArray[np.uint8]  # (n, width)
Hashes = NDArray[np.uint64]  # (n,)

_LOW_HALF = np.uint64(0xFFFFFFFF)
_PLACE = np.uint64((1 << PLACE_BITS) - 1)


def expand_keys(seed: int) -> Hashes:
    """Derive the keys (2 * SUM_KEYS,) of the two sums from `seed`, 0 to 2^128 - 1."""
    stream = hashlib.shake_256(b"hashmem table" + seed.to_bytes(16, "little"))
    return np.frombuffer(stream.digest(2 * SUM_KEYS * 8), dtype="<u8").astype(np.uint64)


def hash_digests(digests: Digests, keys: Hashes) -> Hashes:
    """Hash each of `digests` (n, width) to 64 bits under `keys` (2 * SUM_KEYS,)."""
    n, width = digests.shape
    pairs = -(-width // 8)
    padded = digests
    if width % 8:
        padded = np.zeros((n, pairs * 8), np.uint8)
        padded[:, :width] = digests
    words = padded.view("<u4")
    sums = []
    for k in (keys[:SUM_KEYS], keys[SUM_KEYS:]):
        total = np.full(n, k[0])
        for i in range(0, 2 * pairs, 2):
            product = words[:, i] + k[i + 1]
            product *= words[:, i + 1] + k[i + 2]
            total += product
        sums.append(total)
    high, low = sums
    high &= ~_LOW_HALF
    low >>= np.uint64(32)
    high |= low
    return _finalise(high)


def _finalise(h: Hashes) -> Hashes:
    """Mix all bits, in place: the finaliser of MurmurHash3, a bijection."""
    shift = np.uint64(33)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h ^= h >> shift
        h *= np.uint64(factor)
    h ^= h >> shift
    return h


def bucket_of(hashes: Hashes, buckets: int) -> NDArray[np.int64]:
    """Map the high half of each hash to one of up to 2^32 - 1 buckets, by multiplying."""
    shift = np.uint64(32)
    return ((hashes >> shift) * np.uint64(buckets) >> shift).astype(np.int64)


def wide(digests: Digests) -> NDArray[np.unsignedinteger]:
    """View (n, width) bytes as the widest words that divide the width, to compare fewer items.

    Rows may lie apart, as the digests of entries do."""
    width = digests.shape[1]
    if width % 8 == 0:
        return digests.view(np.uint64)
    if width % 4 == 0:
        return digests.view(np.uint32)
    return digests


def same_rows(
    left: NDArray[np.unsignedinteger],
    left_rows: NDArray[np.intp],
    right: NDArray[np.unsignedinteger],
    right_rows: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Compare row left_rows[i] of `left` with row right_rows[i] of `right`, for each i.

    Column by column, since picking rows takes many times as long."""
    same = left[:, 0][left_rows] == right[:, 0][right_rows]
    for column in range(1, left.shape[1]):
        same &= left[:, column][left_rows] == right[:, column][right_rows]
    return np.asarray(same)


def copy_rows(source: Digests, rows: NDArray[np.intp], target: Digests) -> None:
    """Write row rows[i] of `source` to row i of `target`, for each i, column by column."""
    left, right = wide(source), wide(target)
    for column in range(left.shape[1]):
        right[:, column] = left[:, column][rows]


def stable_order(keys: Hashes) -> NDArray[np.int64]:
    """The order (n,) that sorts up to 2^PLACE_BITS `keys` by all but their PLACE_BITS lowest bits.

    Sorting places packed into the keys is several times faster than argsort.
    """
    places = np.arange(len(keys), dtype=np.uint64)
    return (np.sort(keys & ~_PLACE | places) & _PLACE).astype(np.int64)


def bucket_order(buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stable order (n,) that sorts up to 2^PLACE_BITS `buckets`."""
    return stable_order(buckets.astype(np.uint64) << np.uint64(PLACE_BITS))


def runs(sorted_keys: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Where in sorted keys a run of equals begins (n,), and each one's rank in its run (n,)."""
    begins = np.ones(len(sorted_keys), np.bool_)
    np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=begins[1:])
    places = np.arange(len(sorted_keys))
    return begins, places - np.maximum.accumulate(np.where(begins, places, 0))


def first_of_each(digests: Digests, hashes: Hashes, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the first digest equal to each of those at `order` (m,), which is (part of) the
    `stable_order` of the `hashes` (n,) of `digests` (n, width) → (m,). O(m)."""
    begins, _ = runs(hashes[order] >> np.uint64(PLACE_BITS))
    if begins.all():
        return order
    first = order[begins][np.cumsum(begins) - 1]
    words = wide(digests)
    if not same_rows(words, order, words, first).all():
        # Different digests agree in all those bits of the hash: compare whole digests.
        ascending = np.sort(order)
        _, place, group = np.unique(
            digests[ascending], axis=0, return_index=True, return_inverse=True
        )
        first = ascending[place[group.reshape(-1)[np.searchsorted(ascending, order)]]]
    return np.asarray(first)
