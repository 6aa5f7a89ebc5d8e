"""Separate chaining in NumPy. The definition of `chaining.c`, which states the layout.

Every kernel starts with the table: `heads` uint64 (n_buckets,), `keys`, `entries` uint8 (capacity,
stride) of link, value and digest each, `width` and `hashed`, bytes, and `count`, the entries in
use. Batches are worked on in blocks, each in rounds: all pending chains are followed one entry
further together. Rounds are as many as the longest chain has entries.
"""

from collections.abc import Callable

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

TAG_SHIFT = 40
INDEX_MASK = (1 << TAG_SHIFT) - 1
VALUE = 8  # bytes of an entry before its value: the link
HEADER = 16  # and before its digest

Links = NDArray[np.uint64]
Entries = NDArray[np.uint8]  # (capacity, stride)
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


def link_to(hashes: Hashes, entries: Rows) -> Links:
    """The link to each entry: 24 bits of its hash, then its index plus one."""
    return hashes << np.uint64(TAG_SHIFT) | (entries + 1).astype(np.uint64)


def entry_of(links: Links) -> Rows:
    """The entry each link points to, -1 at the end of a chain."""
    return (links & np.uint64(INDEX_MASK)).astype(np.int64) - 1


def tag_of(hashes: Hashes) -> Links:
    """The bits of each hash that a link carries."""
    return hashes & np.uint64(0xFFFFFF)


def links_of(entries: Entries) -> Links:
    """The links (capacity,), a view."""
    return entries[:, :VALUE].view(np.uint64)[:, 0]


def values_of(entries: Entries) -> Rows:
    """The values (capacity,), a view."""
    return entries[:, VALUE:HEADER].view(np.int64)[:, 0]


def digests_of(entries: Entries, width: int) -> Digests:
    """The digests (capacity, width), a view."""
    return entries[:, HEADER : HEADER + width]


def _locate(
    heads: Links,
    entries: Entries,
    count: int,
    queries: Digests,
    hashes: Hashes,
    order: Rows,
) -> tuple[Rows, Rows, Rows]:
    """The entry of each query, or -1, and how many entries its search touched; and which queries
    were compared with other digests, each as often as it was. `order` is that in which to look at
    them."""
    n, width = queries.shape
    found, walked, others = np.full(n, -1), np.zeros(n, np.int64), [np.zeros(0, np.int64)]
    stored, asked, onward = wide(digests_of(entries, width)), wide(queries), links_of(entries)
    pending, hashes = order, hashes[order]
    tags, links = tag_of(hashes), heads[bucket_of(hashes, len(heads))]
    for _ in range(count + 1):  # no chain is longer, so a loop in a damaged one ends too
        entry = entry_of(links)
        alive = np.flatnonzero((entry >= 0) & (entry < count))
        if len(alive) < len(entry):
            pending, tags, links, entry = pending[alive], tags[alive], links[alive], entry[alive]
        if not len(pending):
            break
        walked[pending] += 1
        likely = np.flatnonzero(links >> np.uint64(TAG_SHIFT) == tags)
        same = same_rows(stored, entry[likely], asked, pending[likely])
        hit = likely[same]
        others.append(pending[likely[~same]])
        found[pending[hit]] = entry[hit]
        links = onward[entry]
        links[hit] = 0
    return found, walked, np.concatenate(others)


def chain_find(
    heads: Links,
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
    asked, values = np.frombuffer(queries, np.uint8).reshape(-1, width), values_of(entries)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        hashes = hash_digests(block[:, :hashed], keys)
        entry, _, _ = _locate(heads, entries, count, block, hashes, np.arange(len(block)))
        out[start : start + BLOCK] = np.where(entry < 0, missing, values[entry])


def chain_lookup(
    heads: Links, keys: Hashes, entries: Entries, width: int, hashed: int, count: int
) -> tuple[Callable[[bytes], int | None], Callable[[], None]]:
    """Return `look`, which answers the value of one digest or None, and `close`, after which `look`
    raises `BufferError`."""
    return one_by_one(chain_find, (heads, keys, entries, width, hashed, count))


def chain_insert(
    heads: Links,
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
    beyond `room` entries, or that would make a chain longer than `limit`. Returns how many queries
    were processed, the new count, and how many digests were compared that were others.
    """
    table = heads, keys, entries, width, hashed, count
    return _add(table, room, limit, queries, given, new, keep, offset=None)


def chain_intern(
    heads: Links,
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
    """As `chain_insert`, but an entry that is there keeps its value, and entry i, where new, gets
    i + offset. `out` (n,) is written: the value of each digest."""
    table = heads, keys, entries, width, hashed, count
    return _add(table, room, limit, queries, out, new, True, offset)


def _add(
    table: tuple[Links, Hashes, Entries, int, int, int],
    room: int,
    limit: int,
    queries: Digests,
    batch_values: Rows,
    new: Flags,
    keep: bool,
    offset: int | None,
) -> tuple[int, int, int]:
    heads, keys, entries, width, hashed, count = table
    values, digests = values_of(entries), digests_of(entries, width)
    room, mismatches, start = min(room, len(entries)), 0, 0
    while start < len(queries):
        block = queries[start : start + min(BLOCK, max(room - count, FEWEST))]
        hashes = hash_digests(block[:, :hashed], keys)
        order = stable_order(hashes)
        entry, walked, others = _locate(heads, entries, count, block, hashes, order)
        by_hash, fresh = number_fresh(block, hashes, order[entry[order] < 0], entry, count)
        _, rank = runs(bucket_of(hashes[by_hash], len(heads)))
        placed = len(fresh)
        if not (walked[by_hash] + rank < limit).all():
            before = _ranks(bucket_of(hashes[fresh], len(heads)))
            placed = int((walked[fresh] + before >= limit).argmax())
        placed = min(placed, max(room - count, 0))
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
        _push(heads, entries, hashes[fresh], np.arange(count, count + placed))
        count, start = count + placed, start + processed
        if processed < len(block):
            break
    return start, count, mismatches


def _ranks(buckets: Rows) -> Rows:
    """How many before each have the same bucket."""
    order = bucket_order(buckets)
    ranks = np.empty_like(order)
    ranks[order] = runs(buckets[order])[1]
    return ranks


def _push(heads: Links, entries: Entries, hashes: Hashes, places: Rows) -> None:
    """Put the entries at `places`, ascending, to the front of their chains."""
    bucket = bucket_of(hashes, len(heads))
    order = bucket_order(bucket)
    bucket, places = bucket[order], places[order]
    links = link_to(hashes[order], places)
    begins, _ = runs(bucket)
    behind = np.empty_like(links)
    behind[1:] = links[:-1]
    behind[begins] = heads[bucket[begins]]
    links_of(entries)[places] = behind
    heads[bucket] = links  # where several go to one head, the last one stays


def chain_delete(
    heads: Links,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    queries: Digests,
    out: Flags,
    holes: Rows,
) -> int:
    """Take each of `queries` (n, width) out of its chain.

    `out` (n,) is written: whether it was there; and the first m of `holes`: the m entries that no
    chain leads to any more. Returns m.
    """
    removed, links = 0, links_of(entries)
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block[:, :hashed], keys)
        entry, _, _ = _locate(heads, entries, count, block, hashes, np.arange(len(block)))
        found, first = np.unique(entry, return_index=True)
        first = np.sort(first[found >= 0])
        out[start : start + BLOCK] = False
        out[start + first] = True
        gone = entry[first]
        holes[removed : removed + len(first)] = gone
        removed += len(first)
        at_head, before = _predecessors(heads, links, count, hashes[first], gone)
        # Neighbours in a chain may go together: skip those before linking around them.
        onward = links[gone]
        while True:
            target = entry_of(onward)
            skip = np.flatnonzero(np.isin(target, gone))
            if not len(skip):
                break
            onward[skip] = links[target[skip]]
        heads[before[at_head]] = onward[at_head]
        links[before[~at_head]] = onward[~at_head]
    return removed


def _predecessors(
    heads: Links, links: Links, count: int, hashes: Hashes, entries: Rows
) -> tuple[Flags, Rows]:
    """Where the link to each of `entries` is: in heads, or in an entry; and its place there."""
    place = bucket_of(hashes, len(heads))
    at_head = np.ones(len(entries), bool)
    pending = np.arange(len(entries))
    current = entry_of(heads[place])
    for _ in range(count + 1):
        go_on = (current != entries[pending]) & (current >= 0) & (current < count)
        pending, current = pending[go_on], current[go_on]
        if not len(pending):
            break
        at_head[pending] = False
        place[pending] = current
        current = entry_of(links[current])
    return at_head, place


def chain_build(
    heads: Links,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    limit: int,
) -> int:
    """Link all entries, known to be distinct, into empty heads. There is a place for all: only
    searches see how long a chain is."""
    for start in range(0, count, BUILD_BLOCK):
        block = digests_of(entries[start : min(start + BUILD_BLOCK, count)], width)
        places = np.arange(start, start + len(block))
        _push(heads, entries, hash_digests(block[:, :hashed], keys), places)
    return count


def chain_move(
    heads: Links,
    keys: Hashes,
    entries: Entries,
    width: int,
    hashed: int,
    count: int,
    sources: Rows,
    targets: Rows,
) -> None:
    """Move entry sources[i] to the unused place targets[i], for each i; no place is in both."""
    links = links_of(entries)
    for start in range(0, len(sources), BLOCK):
        source, target = sources[start : start + BLOCK], targets[start : start + BLOCK]
        hashes = hash_digests(digests_of(entries, width)[source][:, :hashed], keys)
        at_head, before = _predecessors(heads, links, count, hashes, source)
        renamed = link_to(hashes, target)
        # A link that lies in an entry which moves too is changed first, then carried along.
        heads[before[at_head]] = renamed[at_head]
        links[before[~at_head]] = renamed[~at_head]
        entries[target] = entries[source]
