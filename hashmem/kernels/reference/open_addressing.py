"""Open addressing in NumPy. The definition of `open_addressing.c`, which states the layout.

Every kernel starts with the table: `buckets` uint8 (n, 64), `keys`, `entries` uint8 (capacity,
stride) of value and digest each, `width` and `hashed`, bytes, and `count`, the entries in use.
Batches are worked on in blocks: all digests look at their home bucket together, then some at their
other one. Entries that find both of theirs full are placed in rounds: those for which one entry
must give way, together; those that need more, one by one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.hashing import (
    BLOCK,
    BUILD_BLOCK,
    FEWEST,
    Digests,
    Hashes,
    bucket_of,
    bucket_order,
    copy_rows,
    hash_digests,
    runs,
    same_rows,
    stable_order,
    wide,
)
from hashmem.kernels.reference.tables import number_fresh, one_by_one, same_hashes, write_batch

SLOTS = 12
AWAY = 12  # the byte of the bucket that counts the entries away
SATURATED = 255
LINE = 64  # bytes
HEADER = 8  # bytes of an entry before its digest: the value
MOST_ENTRIES = 1 << 33
QUEUE = 2048  # buckets that a search for room looks at, at most

Buckets = NDArray[np.uint8]  # (n_buckets, 64)
Entries = NDArray[np.uint8]  # (capacity, stride)
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

# For each set of slots, slot i bit i: how many they are, and which is the i-th at 12 * set + i.
_SETS = (np.arange(1 << SLOTS)[:, None] >> np.arange(SLOTS) & 1).astype(np.bool_)
SIZE = _SETS.sum(axis=1).astype(np.uint8)
NTH_SLOT = np.argsort(~_SETS, axis=1, kind="stable").astype(np.uint8).ravel()
FIRST_SLOT = NTH_SLOT[::SLOTS].copy()
ALL_SLOTS = np.uint16((1 << SLOTS) - 1)
_EACH_BYTE = np.uint64(0x0101010101010101)

Sets = NDArray[np.uint16]  # (n,)
Slots = NDArray[np.integer[Any]]  # (n,)


def tag_of(hashes: Hashes) -> NDArray[np.uint8]:
    """The tag of each hash, 1 to 255, from its low half."""
    low = hashes & np.uint64(0xFFFFFFFF)
    low *= np.uint64(255)
    low >>= np.uint64(32)
    low += np.uint64(1)
    return low.astype(np.uint8)


def distance_of(tags: NDArray[np.uint8], n_buckets: int) -> Rows:
    """How far each entry's other bucket is from its home."""
    tag = tags.astype(np.int64)
    if n_buckets < 2:
        return np.zeros_like(tag)
    distance = 16 * tag + 1
    if n_buckets > 16 * 255 + 1:
        return distance
    return np.where(distance < n_buckets, distance, 1 + tag % (n_buckets - 1))


def other_of(homes: Rows, tags: NDArray[np.uint8], n_buckets: int) -> Rows:
    """The other bucket of each entry with such a home and tag."""
    other = homes + distance_of(tags, n_buckets)
    return np.where(other < n_buckets, other, other - n_buckets)


def values_of(entries: Entries) -> Rows:
    """The values (capacity,), a view."""
    return entries[:, :HEADER].view(np.int64)[:, 0]


def digests_of(entries: Entries, width: int) -> Digests:
    """The digests (capacity, width), a view."""
    return entries[:, HEADER : HEADER + width]


def bits_of(buckets: Buckets) -> NDArray[np.uint32]:
    """Bytes 12 to 15 of each bucket (n_buckets,), a view.

    In the lowest the count of those away, above it a bit for each slot that is away, above them one
    for each that is bit 32 of the slot's index."""
    return buckets.view("<u4")[:, AWAY // 4]


def away_at(buckets: Buckets, at: Rows, slot: Rows) -> Flags:
    """Whether the entry in slot `slot` of bucket `at` is away from home, for each pair."""
    return (bits_of(buckets)[at] >> (8 + slot).astype(np.uint32) & np.uint32(1)).astype(np.bool_)


def entries_at(buckets: Buckets, at: Rows, slot: Rows) -> Rows:
    """The index of the entry in slot `slot` of bucket `at`, for each pair."""
    entries = _indexes_of(buckets)[at * (LINE // 4) + slot].astype(np.int64)
    high = bits_of(buckets)[at] >> np.uint32(20)
    if high.any():
        entries |= (high >> slot.astype(np.uint32) & np.uint32(1)).astype(np.int64) << 32
    return np.asarray(entries)


def _indexes_of(buckets: Buckets) -> NDArray[np.uint32]:
    """The low 32 bits of the indexes, a view: of slot i of bucket b at 16 * b + i."""
    return buckets.reshape(-1)[16:].view("<u4")


def _lines_of(buckets: Buckets, at: Rows) -> NDArray[np.uint8]:
    """All but the indexes of the buckets `at` (n,) → (n, 16)."""
    return buckets.view("V16")[:, 0][at].view(np.uint8).reshape(-1, 16)


def _slots_with(lines: NDArray[np.uint8], tags: NDArray[np.uint8]) -> Sets:
    """The slots of each of `lines` (n, 16) that have its tag (n,)."""
    wanted = np.empty((len(lines), 2), np.uint64)
    wanted[:] = (tags * _EACH_BYTE)[:, None]
    return np.packbits(lines == wanted.view(np.uint8), bitorder="little").view("<u2") & ALL_SLOTS


def _free_slots(buckets: Buckets, at: Rows) -> Sets:
    """The free slots of each of the buckets `at` (n,)."""
    return np.packbits(_lines_of(buckets, at) == 0, bitorder="little").view("<u2") & ALL_SLOTS


def home_at(buckets: Buckets, at: Rows, slot: Rows) -> Rows:
    """The home bucket of the entry in slot `slot` of bucket `at`, for each pair."""
    back = np.where(away_at(buckets, at, slot), distance_of(buckets[at, slot], len(buckets)), 0)
    return (at - back) % len(buckets)


def _set_entries(buckets: Buckets, at: Rows, slot: Slots, entries: Rows) -> None:
    """Have each slot, of whose entry bit 32 is not set, lead to another of `entries`."""
    _indexes_of(buckets)[at * (LINE // 4) + slot] = entries & 0xFFFFFFFF
    high = np.flatnonzero(entries >> 32)
    _flip(buckets, at[high], 20 + slot[high])


def _flip(buckets: Buckets, at: Rows, bit: Slots) -> None:
    # Slots of one bucket share these bytes, and several may change at once: work in place.
    np.bitwise_xor.at(bits_of(buckets), at, np.uint32(1) << bit.astype(np.uint32))


def _fill(
    buckets: Buckets,
    at: Rows,
    slot: Slots,
    tags: NDArray[np.uint8],
    homes: Rows,
    entries: Rows,
) -> None:
    """Put each of `entries` into a slot, free and so without bits, and count those away."""
    buckets.reshape(-1)[at * LINE + slot] = tags
    _set_entries(buckets, at, slot, entries)
    away = np.flatnonzero(at != homes)
    _flip(buckets, at[away], 8 + slot[away])
    _count_away(buckets, homes[away], 1)


def _count_away(buckets: Buckets, homes: Rows, step: int) -> None:
    """Add `step` to the count of each bucket in `homes`, as often as it is there."""
    touched, times = np.unique(homes, return_counts=True)
    before = buckets[touched, AWAY].astype(np.int64)
    after = np.where(before == SATURATED, SATURATED, before + step * times)
    buckets[touched, AWAY] = np.clip(after, 0, SATURATED)


def _take_out(buckets: Buckets, at: Rows, slot: Rows) -> None:
    """Empty slot `slot` of bucket `at`, for each pair."""
    away = np.flatnonzero(away_at(buckets, at, slot))
    _count_away(buckets, home_at(buckets, at[away], slot[away]), -1)
    _flip(buckets, at[away], 8 + slot[away])
    high = np.flatnonzero(entries_at(buckets, at, slot) >> 32)
    _flip(buckets, at[high], 20 + slot[high])
    buckets[at, slot] = 0
    _indexes_of(buckets)[at * (LINE // 4) + slot] = 0


def _locate(
    buckets: Buckets,
    digests: Digests,
    count: int,
    queries: Digests,
    hashes: Hashes,
    order: Rows,
) -> tuple[Rows, Rows]:
    """The entry of each query, or -1; and which queries were compared with other digests, each as
    often as it was. `order` is that in which to look at them."""
    entry, others = np.full(len(queries), -1), [np.zeros(0, np.int64)]
    stored, asked = wide(digests), wide(queries)
    pending, hashes = order, hashes[order]
    at, tags = bucket_of(hashes, len(buckets)), tag_of(hashes)
    for second in (False, True):
        lines = _lines_of(buckets, at)
        away = (lines.view("<u4")[:, AWAY // 4] >> np.uint32(8)).astype(np.uint16)
        likely = _slots_with(lines, tags) & (away if second else ~away)
        found = np.zeros(len(at), np.bool_)
        row = np.flatnonzero(likely)
        while len(row):
            candidates = entries_at(buckets, at[row], FIRST_SLOT[likely[row]])
            inside = candidates < count
            same = inside & same_rows(stored, candidates * inside, asked, pending[row])
            hits, differ = row[same], row[~same]
            entry[pending[hits]] = candidates[same]
            found[hits] = True
            others.append(pending[row[inside & ~same]])
            likely[differ] &= likely[differ] - np.uint16(1)
            row = differ[likely[differ] > 0]
        go_on = np.flatnonzero((lines[:, AWAY] > 0) & ~found)
        if second or not len(go_on):
            break
        pending, tags = pending[go_on], tags[go_on]
        at = other_of(at[go_on], tags, len(buckets))
    return entry, np.concatenate(others)


def _place(buckets: Buckets, hashes: Hashes, entries: Rows, limit: int) -> int:
    """Put `entries`, in `stable_order` of their `hashes` and known to be new, into free slots. How
    many found a place: the lowest for which there was none, and all above it, are in none."""
    n = len(buckets)
    home, tags = bucket_of(hashes, n), tag_of(hashes)
    at, left = home, np.arange(len(entries))
    for away in (False, True):
        if away:
            at = other_of(home[left], tags[left], n)
            order = bucket_order(at)
            at, left = at[order], left[order]
        free, (_, rank) = _free_slots(buckets, at), runs(at)
        fits = rank < SIZE[free]
        placed, at, free, rank = left[fits], at[fits], free[fits], rank[fits]
        slot = NTH_SLOT[free * np.int64(SLOTS) + rank]
        _fill(buckets, at, slot, tags[placed], home[placed], entries[placed])
        left = left[~fits]
        if not len(left):
            return len(entries)
    left = left[np.argsort(entries[left])]
    left = _displace_one_each(buckets, home, tags, entries, left)
    for i in left.tolist():
        pair = home[i], other_of(home[i : i + 1], tags[i : i + 1], n)[0]
        if not _displace(buckets, pair, tags[i], int(entries[i]), limit):
            behind = np.flatnonzero(entries > entries[i])
            behind = behind[~np.isin(behind, left)]
            _take_out(buckets, *_locate_entries(buckets, hashes[behind], entries[behind]))
            return int((entries < entries[i]).sum())
    return len(entries)


def _others_of(buckets: Buckets, full: Rows) -> Rows:
    """The other bucket of each entry in the buckets `full` (n,), which are full → (n, 12)."""
    n, lines = len(buckets), _lines_of(buckets, full)
    away = lines.view("<u4")[:, AWAY // 4 :] >> np.arange(8, 8 + SLOTS, dtype=np.uint32)
    distance = distance_of(lines[:, :SLOTS], n)
    other = full[:, None] + np.where(away & np.uint32(1), -distance, distance)
    return other + n * ((other < 0).astype(np.int64) - (other >= n))


def _displace_one_each(
    buckets: Buckets, home: Rows, tags: NDArray[np.uint8], entries: Rows, left: Rows
) -> Rows:
    """Place those of `left` one of whose buckets has an entry that finds a place in its other one.
    What is left then.

    In rounds, in each of which a bucket takes part once."""
    for away in (False, True):
        while len(left):
            full = other_of(home[left], tags[left], len(buckets)) if away else home[left]
            to = _others_of(buckets, full)
            free = _free_slots(buckets, to.ravel()).reshape(to.shape) > 0
            able = np.flatnonzero(free.any(axis=1))
            slot = free[able].argmax(axis=1)
            target = to[able, slot]
            _, first = np.unique(target, return_index=True)
            first = first[np.unique(full[able[first]], return_index=True)[1]]
            chosen, slot, target = able[first], slot[first], target[first]
            if not len(chosen):
                break
            _move_slots(buckets, full[chosen], slot, target)
            placed = left[chosen]
            _fill(buckets, full[chosen], slot, tags[placed], home[placed], entries[placed])
            left = np.delete(left, chosen)
    return left


def _move_slots(buckets: Buckets, at: Rows, slot: Rows, target: Rows) -> None:
    """Move the entry in each slot to the first free slot of its other bucket; all are distinct."""
    entries, homes = entries_at(buckets, at, slot), home_at(buckets, at, slot)
    tags = buckets[at, slot]
    _take_out(buckets, at, slot)
    free = FIRST_SLOT[_free_slots(buckets, target)]
    _fill(buckets, target, free, tags, homes, entries)


def _displace(
    buckets: Buckets, pair: tuple[int, int], tag: np.uint8, entry: int, limit: int
) -> bool:
    """Place one entry by moving others along the shortest way. Whether there was one, within
    `limit` buckets, QUEUE at most.

    The queue grows by a whole level at a time: `at` its buckets, `step` and `slot` from where."""
    at, begin = np.array(pair), 0
    step, slot = np.array([0, 1]), np.array([0, 0])
    while True:
        level = np.arange(begin, len(at))
        free = _free_slots(buckets, at[level]) > 0
        if free.any():
            break
        if len(at) >= min(limit, QUEUE) or not len(level):
            return False
        begin = len(at)
        at = np.concatenate([at, _others_of(buckets, at[level]).ravel()])
        step = np.concatenate([step, np.repeat(level, SLOTS)])
        slot = np.concatenate([slot, np.tile(np.arange(SLOTS), len(level))])
    last = int(level[free.argmax()])
    while last >= 2:
        before = int(step[last])
        _move_slots(buckets, at[[before]], slot[[last]], at[[last]])
        last = before
    bucket, home = at[[last]], np.array([pair[0]])
    free_slot = FIRST_SLOT[_free_slots(buckets, bucket)]
    _fill(buckets, bucket, free_slot, np.array([tag]), home, np.array([entry]))
    return True


def _locate_entries(buckets: Buckets, hashes: Hashes, entries: Rows) -> tuple[Rows, Rows]:
    """The bucket and the slot of each of `entries`, which are in one."""
    bucket, slot = bucket_of(hashes, len(buckets)), np.zeros(len(entries), np.int64)
    pending, tags = np.arange(len(entries)), tag_of(hashes)
    for _ in range(2):
        row, column = np.nonzero(buckets[bucket[pending], :SLOTS] == tags[pending, None])
        same = entries_at(buckets, bucket[pending[row]], column) == entries[pending[row]]
        slot[pending[row[same]]] = column[same]
        pending = np.delete(pending, row[same])
        bucket[pending] = other_of(bucket[pending], tags[pending], len(buckets))
    return bucket, slot


def open_find(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    queries: Digests | bytes,
    out: Rows,
    missing: int,
) -> None:
    """Write to `out` (n,) the value of each of `queries` (n, width), or `missing`."""
    asked = np.frombuffer(queries, np.uint8).reshape(-1, width)
    digests, values = digests_of(entries, width), values_of(entries)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        hashes = hash_digests(block[:, :hashed], keys)
        entry, _ = _locate(buckets, digests, count, block, hashes, np.arange(len(block)))
        out[start : start + BLOCK] = np.where(entry < 0, missing, values[entry])


def open_lookup(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
) -> tuple[Callable[[bytes], int | None], Callable[[], None]]:
    """Return `look`, which answers the value of one digest or None, and `close`, after which `look`
    raises `BufferError`."""
    return one_by_one(open_find, (buckets, keys, entries, width, hashed, count))


def open_insert(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    room: int,
    limit: int,
    queries: Digests,
    given: Rows,
    new: Flags,
    keep: bool,
) -> tuple[int, int, int]:
    """Give each of `queries` (n, width) its value of `given` (n,); of equal digests the last wins,
    or with `keep` the first, and what is there before all of them.

    `new` (n,) is written: whether the digest was not there before. Stops at the first new digest
    beyond `room` entries, or without a place among the `limit` buckets looked at. Returns how many
    queries were processed, the new count, and how many digests were compared that were others.
    """
    table = buckets, keys, entries, width, hashed, count
    return _add(table, room, limit, queries, given, new, keep, offset=None)


def open_intern(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
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
    table = buckets, keys, entries, width, hashed, count
    return _add(table, room, limit, queries, out, new, True, offset)


def _add(
    table: tuple[Buckets, Hashes, Entries, int, int, int],
    room: int,
    limit: int,
    queries: Digests,
    batch_values: Rows,
    new: Flags,
    keep: bool,
    offset: int | None,
) -> tuple[int, int, int]:
    buckets, keys, entries, width, hashed, count = table
    digests, values = digests_of(entries, width), values_of(entries)
    room, mismatches, start = min(room, len(entries)), 0, 0
    while start < len(queries):
        block = queries[start : start + min(BLOCK, max(room - count, FEWEST))]
        hashes = hash_digests(block[:, :hashed], keys)
        order = stable_order(hashes)
        entry, others = _locate(buckets, digests, count, block, hashes, order)
        by_hash, fresh = number_fresh(block, hashes, order[entry[order] < 0], entry, count)
        fitting = by_hash[entry[by_hash] < room]
        placed = _place(buckets, hashes[fitting], entry[fitting], limit)
        processed = int(fresh[placed]) if placed < len(fresh) else len(block)
        fresh = fresh[:placed]
        mismatches += int((others < processed).sum())
        if hashed < width:
            mismatches += same_hashes(hashes[by_hash[entry[by_hash] < count + placed]])
        write_batch(
            values,
            entry[:processed],
            fresh,
            batch_values[start : start + processed],
            new[start : start + processed],
            keep,
            offset,
        )
        copy_rows(block, fresh, digests[count : count + placed])
        count, start = count + placed, start + processed
        if processed < len(block):
            break
    return start, count, mismatches


def open_delete(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    queries: Digests,
    out: Flags,
    holes: Rows,
) -> int:
    """Take each of `queries` (n, width) out of the buckets.

    `out` (n,) is written: whether it was there; and the first m of `holes`: the m entries that no
    slot leads to any more. Returns m.
    """
    removed, digests = 0, digests_of(entries, width)
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block[:, :hashed], keys)
        entry, _ = _locate(buckets, digests, count, block, hashes, np.arange(len(block)))
        found, first = np.unique(entry, return_index=True)
        first = np.sort(first[found >= 0])
        out[start : start + BLOCK] = False
        out[start + first] = True
        holes[removed : removed + len(first)] = entry[first]
        removed += len(first)
        _take_out(buckets, *_locate_entries(buckets, hashes[first], entry[first]))
    return removed


def open_build(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    limit: int,
) -> int:
    """Place all entries, known to be distinct, into empty buckets. Returns how many there was a
    place for, each within `limit` buckets."""
    for start in range(0, count, BUILD_BLOCK):
        block = digests_of(entries[start : min(start + BUILD_BLOCK, count)], width)
        hashes = hash_digests(block[:, :hashed], keys)
        order = stable_order(hashes)
        placed = _place(buckets, hashes[order], start + order, limit)
        if placed < len(block):
            return start + placed
    return count


def open_move(
    buckets: Buckets,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    sources: Rows,
    targets: Rows,
) -> None:
    """Move entry sources[i] to the unused place targets[i], for each i; no place is in both."""
    digests = digests_of(entries, width)
    for start in range(0, len(sources), BLOCK):
        source, target = sources[start : start + BLOCK], targets[start : start + BLOCK]
        hashes = hash_digests(digests[source][:, :hashed], keys)
        bucket, slot = _locate_entries(buckets, hashes, source)
        high = np.flatnonzero(source >> 32)
        _flip(buckets, bucket[high], 20 + slot[high])
        _set_entries(buckets, bucket, slot, target)
        entries[target] = entries[source]
