"""The keyed hash of digests in NumPy. The definition of `hashing.h`, which states the guarantee."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_WIDTH = 8  # bytes of a digest
MAX_WIDTH = 64
SUM_KEYS = 1 + MAX_WIDTH // 4  # one to start from, one for each 32-bit word
BLOCK = 1 << 15  # digests at a time, so that what lies between two steps stays in the cache

Digests = NDArray[np.uint8]  # (n, width)
Hashes = NDArray[np.uint64]  # (n,)

_LOW_HALF = np.uint64(0xFFFFFFFF)
_PLACE = np.uint64(BLOCK - 1)


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
    words = padded.view("<u4").astype(np.uint64).T
    sums = []
    for k in (keys[:SUM_KEYS], keys[SUM_KEYS:]):
        total = np.full(n, k[0])
        for i in range(0, 2 * pairs, 2):
            total += (words[i] + k[i + 1]) * (words[i + 1] + k[i + 2])
        sums.append(total)
    return _finalise(sums[0] & ~_LOW_HALF | sums[1] >> np.uint64(32))


def _finalise(h: Hashes) -> Hashes:
    """Mix all bits: the finaliser of MurmurHash3, a bijection."""
    shift = np.uint64(33)
    h = (h ^ h >> shift) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ h >> shift) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ h >> shift


def bucket_of(hashes: Hashes, buckets: int) -> NDArray[np.int64]:
    """Map the high half of each hash to one of up to 2^32 - 1 buckets, by multiplying."""
    shift = np.uint64(32)
    return ((hashes >> shift) * np.uint64(buckets) >> shift).astype(np.int64)


def wide(digests: Digests) -> NDArray[np.unsignedinteger]:
    """View (n, width) bytes as the widest words that divide the width, to compare fewer items."""
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
    """Compare row left_rows[i] of `left` with row right_rows[i] of `right`, for each i."""
    return np.asarray((left[left_rows] == right[right_rows]).all(axis=1))


def stable_order(keys: Hashes) -> NDArray[np.int64]:
    """The order (n,) that sorts `keys`, up to BLOCK of them, by all but their 15 lowest bits.

    Sorting places packed into the keys is several times faster than argsort.
    """
    places = np.arange(len(keys), dtype=np.uint64)
    return (np.sort(keys & ~_PLACE | places) & _PLACE).astype(np.int64)


def bucket_order(buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stable order (n,) that sorts up to BLOCK `buckets`."""
    return stable_order(buckets.astype(np.uint64) << np.uint64(15))


def runs(sorted_keys: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Where in sorted keys a run of equals begins (n,), and each one's rank in its run (n,)."""
    begins = np.ones(len(sorted_keys), np.bool_)
    np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=begins[1:])
    places = np.arange(len(sorted_keys))
    return begins, places - np.maximum.accumulate(np.where(begins, places, 0))


def first_of_each(digests: Digests, hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group equal digests, in order of first appearance.

    `digests` (n, width) with their `hashes` (n,), n up to BLOCK → the place of the first of each of
    m groups (m,), ascending, and the group of each digest (n,). O(n log n).
    """
    order = stable_order(hashes)
    begins, _ = runs(hashes[order] >> np.uint64(15))
    if begins.all():
        return np.arange(len(order)), np.arange(len(order))
    first, group = order[begins], np.empty_like(order)
    group[order] = np.cumsum(begins) - 1
    words = wide(digests)
    if not same_rows(words, np.arange(len(order)), words, first[group]).all():
        # Two digests agree in 49 bits of the hash: compare whole digests from the start.
        _, first, group = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
    by_appearance = np.argsort(first)
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(first))
    return first[by_appearance], rank[group]
