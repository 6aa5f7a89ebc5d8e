"""Separate chaining in NumPy. The definition of `chaining.c`, which states the layout.

Every kernel starts with the table: `heads` uint64 (n_buckets,), `keys`, `digests` uint8
(capacity, width), `nodes` int64 (capacity, 2) of link and value, `width` and `count`, the entries
in use. Batches are worked on in blocks, each in rounds: all pending chains are followed one node
further together. Rounds are as many as the longest chain has nodes.
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

TAG_SHIFT = 40
INDEX_MASK = (1 << TAG_SHIFT) - 1

Links = NDArray[np.uint64]
Nodes = NDArray[np.int64]  # (capacity, 2): link, value
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


def _links(nodes: Nodes) -> Links:
    return nodes.view(np.uint64)[:, 0]


def _locate(
    heads: Links, digests: Digests, nodes: Nodes, count: int, queries: Digests, hashes: Hashes
) -> tuple[Rows, NDArray[np.int64]]:
    """The entry of each query, or -1, and how many nodes its search touched."""
    n = len(queries)
    found, walked = np.full(n, -1), np.zeros(n, np.int64)
    stored, asked, next_links = wide(digests), wide(queries), _links(nodes)
    pending, tags = np.arange(n), tag_of(hashes)
    links = heads[bucket_of(hashes, len(heads))]
    for _ in range(count + 1):  # no chain is longer, so a loop in a damaged one ends too
        entry = entry_of(links)
        alive = (entry >= 0) & (entry < count)
        if not alive.all():
            pending, links, entry = pending[alive], links[alive], entry[alive]
        if not len(pending):
            break
        walked[pending] += 1
        likely = np.flatnonzero(links >> np.uint64(TAG_SHIFT) == tags[pending])
        hit = likely[same_rows(stored, entry[likely], asked, pending[likely])]
        found[pending[hit]] = entry[hit]
        links = next_links[entry]
        links[hit] = 0
    return found, walked


def chain_find(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
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
        entry, _ = _locate(heads, digests, nodes, count, block, hash_digests(block, keys))
        out[start : start + BLOCK] = np.where(entry < 0, missing, nodes[entry, 1])


def chain_insert(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
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
    beyond `room` entries, and soon after a chain has grown beyond `limit` nodes. Returns how many
    queries were processed, the new count, and the longest chain that grew.
    """
    return _add(heads, keys, digests, nodes, count, room, limit, queries, given, new, offset=None)


def chain_intern(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
    width: int,
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
    return _add(heads, keys, digests, nodes, count, room, limit, queries, out, new, offset)


def _add(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
    count: int,
    room: int,
    limit: int,
    queries: Digests,
    batch_values: Rows,
    new: Flags,
    offset: int | None,
) -> tuple[int, int, int]:
    room, longest = min(room, len(digests), len(nodes)), 0
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block, keys)
        entry, walked = _locate(heads, digests, nodes, count, block, hashes)
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
            nodes[entry, 1] = batch_values[start : start + processed]
        else:
            nodes[count:after, 1] = np.arange(count, after) + offset
            batch_values[start : start + processed] = nodes[entry, 1]
        rank = _push(heads, nodes, hashes[fresh], np.arange(count, after))
        longest = max(longest, int((walked[fresh] + rank).max(initial=-1)) + 1)
        count = after
        if processed < len(block) or longest > limit:
            return start + processed, count, longest
    return len(queries), count, longest


def _push(heads: Links, nodes: Nodes, hashes: Hashes, entries: Rows) -> NDArray[np.int64]:
    """Put `entries`, ascending, to the front of their chains. How many went before each there."""
    bucket = bucket_of(hashes, len(heads))
    order = bucket_order(bucket)
    bucket, links, entries = bucket[order], link_to(hashes[order], entries[order]), entries[order]
    begins, rank = runs(bucket)
    behind = np.empty_like(links)
    behind[1:] = links[:-1]
    behind[begins] = heads[bucket[begins]]
    _links(nodes)[entries] = behind
    heads[bucket] = links  # where several go to one head, the last one stays
    before = np.empty_like(rank)
    before[order] = rank
    return before


def chain_delete(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
    width: int,
    count: int,
    queries: Digests,
    out: Flags,
    holes: Rows,
) -> int:
    """Take each of `queries` (n, width) out of its chain.

    `out` (n,) is written: whether it was there; and the first m of `holes`: the m entries that no
    chain leads to any more. Returns m.
    """
    removed, links = 0, _links(nodes)
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        hashes = hash_digests(block, keys)
        entry, _ = _locate(heads, digests, nodes, count, block, hashes)
        entries, first = np.unique(entry, return_index=True)
        first = np.sort(first[entries >= 0])
        out[start : start + BLOCK] = False
        out[start + first] = True
        gone = entry[first]
        holes[removed : removed + len(first)] = gone
        removed += len(first)
        at_head, before = _predecessors(heads, nodes, count, hashes[first], gone)
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
    heads: Links, nodes: Nodes, count: int, hashes: Hashes, entries: Rows
) -> tuple[Flags, Rows]:
    """Where the link to each of `entries` is: whether in heads (else in nodes), and its place."""
    place, links = bucket_of(hashes, len(heads)), _links(nodes)
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
    heads: Links, keys: Hashes, digests: Digests, nodes: Nodes, width: int, count: int
) -> None:
    """Link all entries, known to be distinct, into empty heads."""
    for start in range(0, count, BLOCK):
        block = digests[start : min(start + BLOCK, count)]
        _push(heads, nodes, hash_digests(block, keys), np.arange(start, start + len(block)))


def chain_move(
    heads: Links,
    keys: Hashes,
    digests: Digests,
    nodes: Nodes,
    width: int,
    count: int,
    sources: Rows,
    targets: Rows,
) -> None:
    """Move entry sources[i] to the unused place targets[i], for each i; no place is in both."""
    links = _links(nodes)
    for start in range(0, len(sources), BLOCK):
        source, target = sources[start : start + BLOCK], targets[start : start + BLOCK]
        hashes = hash_digests(digests[source], keys)
        at_head, before = _predecessors(heads, nodes, count, hashes, source)
        renamed = link_to(hashes, target)
        # A link that lies in a node which moves too is changed first, then carried along.
        heads[before[at_head]] = renamed[at_head]
        links[before[~at_head]] = renamed[~at_head]
        nodes[target] = nodes[source]
        digests[target] = digests[source]
