"""Open addressing in NumPy. The definition of `open_addressing.c`, which states the layout.

Every kernel starts with the table: `buckets` uint8 (n, 64), `keys`, `digests` uint8
(capacity, width), `values` int64 (capacity,), `width` and `count`, the entries in use.
Batches are worked on in blocks, each in rounds: all pending digests look at one bucket together,
those that must go on look at their next. Expected O(log n) rounds, few of them with many digests.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.hashing import (
    BLOCK,
    Digests,
    Hashes,
    bucket_of,
    bucket_order,
    first_of_each,
    hash_digests,
    runs,
    same_rows,
    wide,
)

SLOTS = 12
OVERFLOW = 12  # its byte in the bucket
HIGH_BITS = 13
SATURATED = 255
LINE = 64  # bytes

Buckets = NDArray[np.uint8]  # (n_buckets, 64)

# For each set of vacant slots, slot 0 the highest of 12 bits: how many, and which is the i-th.
_SETS = (np.arange(1 << SLOTS)[:, None] >> np.arange(SLOTS)[::-1] & 1).astype(np.bool_)
VACANT = _SETS.sum(axis=1)
VACANT_SLOT = np.argsort(~_SETS, axis=1, kind="stable")
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


def tag_of(hashes: Hashes) -> NDArray[np.uint8]:
    """The tag of each hash, 1 to 255, from its low half."""
    low = hashes & np.uint64(0xFFFFFFFF)
    return (np.uint64(1) + (low * np.uint64(255) >> np.uint64(32))).astype(np.uint8)


def entries_at(buckets: Buckets, at: Rows, slot: Rows) -> Rows:
    """The index of the entry in slot `slot` of bucket `at`, for each pair."""
    low = buckets.view("<u4")[at, 4 + slot].astype(np.int64)
    high = buckets[at, HIGH_BITS + slot // 4] >> (slot % 4 * 2).astype(np.uint8) & np.uint8(3)
    return low | high.astype(np.int64) << 32


def _heads(buckets: Buckets, at: Rows) -> Buckets:
    """The first 16 bytes of each bucket in `at` (n, 16): tags, overflow, high bits."""
    heads: Buckets = buckets.view("V16")[:, 0][at].view(np.uint8).reshape(-1, 16)
    return heads


def _set_entries(buckets: Buckets, at: Rows, slot: Rows, entries: Rows) -> None:
    buckets.view("<u4").reshape(-1)[at * 16 + 4 + slot] = entries & 0xFFFFFFFF
    # Slots of one bucket share these bytes, and several may change at once: work in place. Below
    # 2^32 entries they are all zero and stay so.
    byte, shift = at * LINE + HIGH_BITS + slot // 4, (slot % 4 * 2).astype(np.uint8)
    flat, high = buckets.reshape(-1), (entries >> 32).astype(np.uint8)
    if flat[byte].any():
        np.bitwise_and.at(flat, byte, ~(np.uint8(3) << shift))
    if high.any():
        np.bitwise_or.at(flat, byte, high << shift)


def _count_passing(buckets: Buckets, at: Rows, step: int) -> None:
    """Add `step` to the overflow of each bucket in `at`, as often as it is there."""
    touched, times = np.unique(at, return_counts=True)
    before = buckets[touched, OVERFLOW].astype(np.int64)
    after = np.where(before == SATURATED, SATURATED, before + step * times)
    buckets[touched, OVERFLOW] = np.clip(after, 0, SATURATED)


def stride_of(hashes: Hashes) -> Rows:
    """How many buckets further each search goes: a power of two, 1 to 128."""
    return np.int64(1) << (hashes & np.uint64(7)).astype(np.int64)


def _locate(
    buckets: Buckets, digests: Digests, count: int, queries: Digests, hashes: Hashes
) -> tuple[Rows, Rows, Rows]:
    """The entry of each query, or -1, with the bucket and the slot it is in."""
    n = len(queries)
    entry, bucket, slot = np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
    stored, asked = wide(digests), wide(queries)
    pending, at, tags = np.arange(n), bucket_of(hashes, len(buckets)), tag_of(hashes)
    stride = stride_of(hashes)
    for _ in range(len(buckets)):
        lines = _heads(buckets, at)
        row, column = np.nonzero(lines[:, :SLOTS] == tags[:, None])
        candidates = entries_at(buckets, at[row], column)
        inside = candidates < count
        if not inside.all():
            row, column, candidates = row[inside], column[inside], candidates[inside]
        same = same_rows(stored, candidates, asked, pending[row])
        row = row[same]
        hits = pending[row]
        entry[hits], bucket[hits], slot[hits] = candidates[same], at[row], column[same]
        go_on = lines[:, OVERFLOW] > 0
        go_on[row] = False
        if not go_on.any():
            break
        pending, tags, stride = pending[go_on], tags[go_on], stride[go_on]
        at = (at[go_on] + stride) % len(buckets)
    return entry, bucket, slot


def _place(buckets: Buckets, hashes: Hashes, entries: Rows) -> int:
    """Put `entries`, known to be new, into free slots. How many buckets the longest probe took."""
    at, tags, stride = bucket_of(hashes, len(buckets)), tag_of(hashes), stride_of(hashes)
    probes = 0
    while len(at) and probes < len(buckets):
        probes += 1
        order = bucket_order(at)
        at, tags, entries, stride = at[order], tags[order], entries[order], stride[order]
        _, rank = runs(at)
        vacant = np.packbits(_heads(buckets, at)[:, :SLOTS] == 0, axis=1).view(">u2").ravel() >> 4
        fits = rank < VACANT[vacant]
        slot = VACANT_SLOT[vacant[fits], rank[fits]]
        fitting = at[fits]
        buckets.reshape(-1)[fitting * LINE + slot] = tags[fits]
        _set_entries(buckets, fitting, slot, entries[fits])
        passing = ~fits
        at, tags, entries, stride = at[passing], tags[passing], entries[passing], stride[passing]
        _count_passing(buckets, at, 1)
        at = (at + stride) % len(buckets)
    return probes


def open_find(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    queries: Digests | bytes,
    out: Rows,
    missing: int,
) -> None:
    """Write to `out` (n,) the value of each of `queries` (n, width), or `missing`."""
    asked = np.frombuffer(queries, np.uint8).reshape(-1, width)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        entry, _, _ = _locate(buckets, digests, count, block, hash_digests(block, keys))
        out[start : start + BLOCK] = np.where(entry < 0, missing, values[entry])


def open_insert(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    room: int,
    limit: int,
    queries: Digests,
    given: Rows,
    new: Flags,
) -> tuple[int, int, int]:
    """Give each of `queries` (n, width) its value of `given` (n,); the last of equal digests wins.

    `new` (n,) is written: whether the digest was not there before. Stops at the first new digest
    beyond `room` entries, and soon after a probe longer than `limit` buckets. Returns how many
    queries were processed, the new count, and the longest probe of a new entry.
    """
    return _add(
        buckets, keys, digests, values, count, room, limit, queries, given, new, offset=None
    )


def open_intern(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    room: int,
    limit: int,
    queries: Digests,
    out: Rows,
    new: Flags,
    offset: int,
) -> tuple[int, int, int]:
    """As `open_insert`, but an entry that is there keeps its value, and entry i, where new, gets
    i + offset. `out` (n,) is written: the value of each digest."""
    return _add(buckets, keys, digests, values, count, room, limit, queries, out, new, offset)


def _add(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    count: int,
    room: int,
    limit: int,
    queries: Digests,
    batch_values: Rows,
    new: Flags,
    offset: int | None,
) -> tuple[int, int, int]:
    room, longest = min(room, len(digests), len(values)), 0
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block, keys)
        entry, _, _ = _locate(buckets, digests, count, block, hashes)
        missing = np.flatnonzero(entry < 0)
        first, group = first_of_each(block[missing], hashes[missing])
        processed = len(block)
        left = max(room - count, 0)
        if len(first) > left:
            processed = int(missing[first[left]])
            first = first[:left]
        fresh = missing[first]
        entry[missing] = count + group
        entry = entry[:processed]
        after = count + len(fresh)
        digests[count:after] = block[fresh]
        flags = new[start : start + processed]
        flags[:] = False
        flags[fresh] = True
        if offset is None:
            values[entry] = batch_values[start : start + processed]
        else:
            values[count:after] = np.arange(count, after) + offset
            batch_values[start : start + processed] = values[entry]
        longest = max(longest, _place(buckets, hashes[fresh], np.arange(count, after)))
        count = after
        if processed < len(block) or longest > limit:
            return start + processed, count, longest
    return len(queries), count, longest


def open_delete(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    queries: Digests,
    out: Flags,
    holes: Rows,
) -> int:
    """Take each of `queries` (n, width) out of the buckets.

    `out` (n,) is written: whether it was there; and the first m of `holes`: the m entries that no
    slot leads to any more. Returns m.
    """
    removed, n_buckets = 0, len(buckets)
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block, keys)
        entry, bucket, slot = _locate(buckets, digests, count, block, hashes)
        entries, first = np.unique(entry, return_index=True)
        first = np.sort(first[entries >= 0])
        out[start : start + BLOCK] = False
        out[start + first] = True
        holes[removed : removed + len(first)] = entry[first]
        removed += len(first)
        bucket, slot, at = bucket[first], slot[first], bucket_of(hashes[first], n_buckets)
        stride = stride_of(hashes[first])
        buckets[bucket, slot] = 0
        _set_entries(buckets, bucket, slot, np.zeros(len(first), np.int64))
        passed = at != bucket
        while passed.any():
            at, bucket, stride = at[passed], bucket[passed], stride[passed]
            _count_passing(buckets, at, -1)
            at = (at + stride) % n_buckets
            passed = at != bucket
    return removed


def open_build(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    limit: int,
) -> int:
    """Place all entries, known to be distinct, into empty buckets. Returns the longest probe.

    Stops soon after a probe longer than `limit` buckets, with only a part of the entries placed.
    """
    longest = 0
    for start in range(0, count, BLOCK):
        entries = np.arange(start, min(start + BLOCK, count))
        hashes = hash_digests(digests[start : start + len(entries)], keys)
        longest = max(longest, _place(buckets, hashes, entries))
        if longest > limit:
            break
    return longest


def open_move(
    buckets: Buckets,
    keys: Hashes,
    digests: Digests,
    values: Rows,
    width: int,
    count: int,
    sources: Rows,
    targets: Rows,
) -> None:
    """Move entry sources[i] to the unused place targets[i], for each i; no place is in both."""
    for start in range(0, len(sources), BLOCK):
        source, target = sources[start : start + BLOCK], targets[start : start + BLOCK]
        hashes = hash_digests(digests[source], keys)
        # The source's digest leads to its slot: it is in no other entry.
        _, bucket, slot = _locate(buckets, digests, count, digests[source], hashes)
        _set_entries(buckets, bucket, slot, target)
        digests[target] = digests[source]
        values[target] = values[source]
