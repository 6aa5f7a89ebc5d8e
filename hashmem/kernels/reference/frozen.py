"""Searching frozen tables in NumPy: the definition of `frozen.c`; `frozen.h` has the method."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.hashing import (
    BLOCK,
    MAX_WIDTH,
    MIN_WIDTH,
    SUM_KEYS,
    bucket_of,
    hash_digests,
)

BLOCK_BITS = 16  # 64 KiB are verified together
PILOT_MIX = np.uint64(0x9E3779B97F4A7C15)
SLOT_MIX = np.uint64(0xD1342543DE82EF95)

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)


def entry_bytes(width: int) -> int:
    """Bytes of an entry: value, digest, zeros up to a multiple of 8."""
    return 8 + -(-width // 8) * 8


def group_of(hashes: Hashes, buckets: int) -> Places:
    """The bucket of each hash within its part; few buckets are large."""
    eight, one = np.uint64(8), np.uint64(1)
    x = hashes & _LOW_HALF
    square = x * x >> _HALF
    cubic = (square >> one) * ((one << _HALF) + x) >> _HALF
    skewed = cubic - (cubic >> eight) + (x >> eight)
    group = np.asarray(skewed * np.uint64(buckets) >> _HALF)
    return group.astype(np.int64)


def slot_of(hashes: Hashes, pilots: Hashes, slots: Hashes | np.uint64) -> Places:
    """The slot within its part, of so many `slots`, that each pilot gives each hash."""
    mixed = (hashes ^ pilots * PILOT_MIX) * SLOT_MIX
    slot = np.asarray((mixed >> _HALF) * slots >> _HALF)
    return slot.astype(np.int64)


def frozen_find(
    body: Any,
    offsets: Any,
    turns: Any,
    keys: Any,
    verified: Any,
    width: int,
    buckets: int,
    entries_at: int,
    queries: Any,
    out: Any,
    missing: int,
    slots: bool,
    wanted: Any,
) -> int:
    """Write to out[i] the value of digest i, its slot if `slots`, or `missing`.

    No block of `body` is looked at unless `verified` says so. Returns how many digests had to be
    left out; where `wanted` is not empty, the blocks they need are set in it, otherwise the first
    one ends the search.
    """
    check_width(width)
    data, known = np.frombuffer(body, np.uint8), np.frombuffer(verified, np.uint8)
    first_slots, ask = np.frombuffer(offsets, np.uint64), np.frombuffer(wanted, np.uint8)
    parts = len(first_slots) - 1
    check_counts(parts, buckets)
    if not parts * buckets <= entries_at <= len(data):
        raise ValueError("the body does not hold the pilots of all parts")
    blocks = len(data) + (1 << BLOCK_BITS) - 1 >> BLOCK_BITS
    expect(known, blocks, "verified")
    if len(ask):
        expect(ask, len(known), "wanted")
    rows = np.frombuffer(queries, np.uint8)
    if len(rows) % width:
        raise ValueError(f"queries: {len(rows)} bytes is no multiple of {width}")
    rows, answers = rows.reshape(-1, width), np.frombuffer(out, np.int64)
    if len(rows) != len(answers):
        raise ValueError(f"out holds {len(answers)} items for {len(rows)} digests")
    key_sets, turn_of = key_sets_of(keys), np.frombuffer(turns, np.uint8)
    expect(turn_of, parts, "turns")
    size = entry_bytes(width)
    n_slots = (len(data) - entries_at) // size
    entries = data[entries_at : entries_at + n_slots * size].reshape(n_slots, size)

    left_out = 0
    for begin in range(0, len(rows), BLOCK):
        batch, answer = rows[begin : begin + BLOCK], answers[begin : begin + BLOCK]
        answer[:] = missing
        hashes = hash_digests(batch, key_sets[0])
        part = bucket_of(hashes, parts)
        for turn in range(1, len(key_sets)):
            again = turn_of[part] == turn
            if again.any():
                hashes[again] = hash_digests(batch[again], key_sets[turn])
        pilot_at = part * buckets + group_of(hashes, buckets)
        readable = _may_read(known, ask, pilot_at, 1)
        left_out += len(batch) - len(readable)
        if left_out and not len(ask):
            return left_out
        part, pilots = part[readable], data[pilot_at[readable]].astype(np.uint64)
        room = first_slots[part + 1] - first_slots[part]
        places = first_slots[part] + slot_of(hashes[readable], pilots, room).astype(np.uint64)
        inside = (room > 0) & (places < n_slots)
        slot, asking = places[inside].astype(np.int64), readable[inside]
        readable = _may_read(known, ask, entries_at + slot * size, size)
        left_out += len(slot) - len(readable)
        if left_out and not len(ask):
            return left_out
        slot, asking = slot[readable], asking[readable]
        found = entries[slot]
        same = (found[:, 8 : 8 + width] == batch[asking]).all(axis=1)
        values = slot if slots else np.ascontiguousarray(found[:, :8]).view(np.int64).ravel()
        answer[asking[same]] = values[same]
    return left_out


def _may_read(known: Bytes, ask: Bytes, at: Places, size: int) -> NDArray[np.intp]:
    """Which of the ranges from `at` on may be read; the blocks of the others are asked for."""
    first, last = at >> BLOCK_BITS, at + (size - 1) >> BLOCK_BITS
    yes = (known[first] & known[last]).astype(np.bool_)
    if len(ask):
        for block in (first[~yes], last[~yes]):
            ask[block] |= known[block] == 0
    return np.flatnonzero(yes)


def key_sets_of(keys: Any) -> list[Hashes]:
    array = np.frombuffer(keys, np.uint64)
    expect(array, 2 * SUM_KEYS, "keys")
    sets = min(255, len(array) // (2 * SUM_KEYS))  # their number is a byte
    return list(array[: sets * 2 * SUM_KEYS].reshape(sets, 2 * SUM_KEYS))


def check_width(width: int) -> None:
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise ValueError(f"width must be {MIN_WIDTH} to {MAX_WIDTH} bytes, got {width}")


def check_counts(parts: int, buckets: int) -> None:
    if not (1 <= parts < 1 << 31 and 1 <= buckets < 1 << 31):
        raise ValueError("there must be 1 to 2^31 - 1 parts, and buckets in each")


def expect(array: NDArray[Any], items: int, name: str) -> None:
    if len(array) < items:
        raise ValueError(f"{name}: {len(array)} items where {items} are needed")
