"""Building frozen tables in NumPy: the definition of `frozen_build.c`; see `frozen.h`."""

import heapq
from typing import Any

import numpy as np

from hashmem.kernels.reference.frozen import (
    Bytes,
    Hashes,
    Places,
    check_counts,
    check_width,
    entry_bytes,
    expect,
    group_of,
    key_sets_of,
    slot_of,
)
from hashmem.kernels.reference.hashing import bucket_of, hash_digests

PILOTS = 256
RECENT = 16  # buckets placed last, which are not evicted
EVICTIONS = 32  # a bucket, on average over a part: far more than any sound part took


def frozen_partition(
    records: Any, keys: Any, width: int, starts: Any, hashes: Any, rows: Any
) -> None:
    """Sort the hashes of all records by part, stably; and say where the parts begin."""
    check_width(width)
    given = _records(records, width)
    begins, hashed = np.frombuffer(starts, np.uint64), np.frombuffer(hashes, np.uint64)
    numbers, key_sets = np.frombuffer(rows, np.uint64), key_sets_of(keys)
    parts, count = len(begins) - 1, len(given)
    check_counts(parts, 1)
    expect(hashed, count, "hashes")
    expect(numbers, count, "rows")
    found = hash_digests(np.ascontiguousarray(given[:, 8 : 8 + width]), key_sets[0])
    part = bucket_of(found, parts)
    order = np.argsort(part, kind="stable")
    begins[0], begins[1:] = 0, np.cumsum(np.bincount(part, minlength=parts))
    hashed[:count], numbers[:count] = found[order], order


def frozen_build(
    records: Any,
    width: int,
    keys: Any,
    hashes: Any,
    rows: Any,
    starts: Any,
    offsets: Any,
    buckets: int,
    turns: Any,
    pilots: Any,
    entries: Any,
) -> bool:
    """Find the pilots of all parts and copy each record to its slot.

    `hashes`, `rows` and `starts` are what `frozen_partition` gave under the first of several sets
    of `keys`, `offsets` the first slot of each part. A part that has no pilots under one set has
    its hashes replaced by those under the next; `turns` gets the number of the set. False where a
    part has none under any.
    """
    check_width(width)
    given, made = _records(records, width), _records(entries, width)
    begins, edges = np.frombuffer(starts, np.uint64), np.frombuffer(offsets, np.uint64)
    hashed, numbers = np.frombuffer(hashes, np.uint64), np.frombuffer(rows, np.uint64)
    parts, count = len(begins) - 1, len(given)
    all_pilots, turn_of = np.frombuffer(pilots, np.uint8), np.frombuffer(turns, np.uint8)
    key_sets = key_sets_of(keys)
    check_counts(parts, buckets)
    expect(hashed, count, "hashes")
    expect(numbers, count, "rows")
    expect(edges, parts + 1, "offsets")
    expect(all_pilots, parts * buckets, "pilots")
    expect(turn_of, parts, "turns")
    edges = edges[: parts + 1]
    amounts, rooms = np.diff(begins), np.diff(edges)
    if (
        (int(begins[0]), int(begins[-1])) != (0, count)
        or (int(edges[0]), int(edges[-1])) != (0, len(made))
        or (begins[1:] < begins[:-1]).any()
        or (edges[1:] < edges[:-1]).any()
        or np.where(amounts > 0, rooms <= amounts, rooms > 0).any()
        or (rooms >> np.uint64(31)).any()
    ):
        raise ValueError("starts and offsets do not cut entries into parts")
    if (numbers[:count] >= count).any():
        return False
    for part in range(parts):
        inside = slice(int(begins[part]), int(begins[part + 1]))
        source = given[numbers[inside].astype(np.int64)]
        for turn in range(len(key_sets)):
            if turn:
                digests = np.ascontiguousarray(source[:, 8 : 8 + width])
                hashed[inside] = hash_digests(digests, key_sets[turn])
            search = _Search(hashed[inside], buckets, int(rooms[part]))
            turn_of[part] = turn
            if search.run():
                break
        else:
            return False
        its = all_pilots[part * buckets : (part + 1) * buckets]
        its[:] = search.pilots
        slots = slot_of(
            hashed[inside],
            its[group_of(hashed[inside], buckets)].astype(np.uint64),
            rooms[part],
        )
        target = made[int(edges[part]) : int(edges[part + 1])]
        target[slots] = source
        target[:, 8 + width :] = 0
        if len(slots):  # each free slot repeats the entry before it, the first ones the one after
            taken = np.zeros(len(target), np.bool_)
            taken[slots] = True
            last = np.maximum.accumulate(np.where(taken, np.arange(len(target)), taken.argmax()))
            target[~taken] = target[last[~taken]]
    return True


class _Search:
    """One part while pilots are sought for it."""

    def __init__(self, hashes: Hashes, buckets: int, slots: int) -> None:
        group = group_of(hashes, buckets)
        order = np.argsort(group, kind="stable")
        begins = np.searchsorted(group[order], np.arange(buckets + 1))
        self.sizes = np.diff(begins)
        self.hashes = np.split(hashes[order], begins[1:-1])  # by bucket
        self.pilots = np.zeros(buckets, np.uint8)
        self.owner = np.full(slots, -1)  # the bucket whose digest lies there
        self.slots = np.uint64(slots)
        self.lie: list[Places | None] = [None] * buckets  # the slots of each bucket
        self.limit = EVICTIONS * buckets
        self.evictions = 0

    def run(self) -> bool:
        for bucket in np.argsort(-self.sizes, kind="stable"):
            if not self.sizes[bucket]:
                break
            if not self._settle_all(int(bucket)):
                return False
        return True

    def _settle_all(self, first: int) -> bool:
        """Find a place for the bucket and for all that it drives out."""
        waiting = [(-self.sizes[first], first)]
        recent = np.full(RECENT, -2)
        placed = 0
        while waiting:
            _, bucket = heapq.heappop(waiting)
            slots = slot_of(self.hashes[bucket], _ALL_PILOTS, self.slots)  # (256, size)
            owners = self.owner[slots]
            for pilot in np.flatnonzero((owners < 0).all(axis=1)).tolist():
                if len(set(slots[pilot].tolist())) == len(slots[pilot]):
                    break
            else:
                if self.evictions == self.limit:
                    return False
                pilot = self._least_damage(slots, owners, recent)
                self.evictions += 1
                if pilot < 0:
                    return False
                for by in set(owners[pilot].tolist()) - {-1}:
                    self.owner[self.lie[by]] = -1
                    heapq.heappush(waiting, (-self.sizes[by], by))
            self.owner[slots[pilot]] = bucket
            self.lie[bucket], self.pilots[bucket] = slots[pilot], pilot
            recent[placed % RECENT] = bucket
            placed += 1
        return True

    def _least_damage(self, slots: Places, owners: Places, recent: Places) -> int:
        """The pilot that evicts the smallest sum of squared sizes, one for each slot; or -1."""
        cost = np.where(owners >= 0, self.sizes[owners] ** 2, 0).sum(axis=1)
        in_order = np.sort(slots, axis=1)
        out = (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
        out |= np.isin(owners, recent).any(axis=1)
        cost[out] = np.iinfo(np.int64).max
        tried = (np.arange(PILOTS) + self.evictions * 37) % PILOTS
        best = int(tried[cost[tried].argmin()])
        return -1 if out[best] else best


_ALL_PILOTS = np.arange(PILOTS, dtype=np.uint64)[:, None]


def _records(buffer: Any, width: int) -> Bytes:
    size = entry_bytes(width)
    array = np.frombuffer(buffer, np.uint8)
    if len(array) % size:
        raise ValueError(f"{len(array)} bytes are no whole number of entries of {size}")
    return array.reshape(-1, size)
