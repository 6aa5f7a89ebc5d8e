"""Small tables, stores and hops that are right, and each again with one bug that people make.

A bug is a subclass that changes one step; its docstring says what is wrong. `tests/test_testing.py`
shows that what `hashmem.testing` ships finds every one of them.
"""

import hashlib
import zlib
from copy import deepcopy

import numpy as np

from hashmem.store.ram import RamBackend
from hashmem.summaries import HashedNgrams
from hashmem.tables import OpenAddressingTable

# -- tables ---------------------------------------------------------------------------------------


class Table:
    """Linear probing in Python: digests are compared whole, deleting moves the cluster up."""

    def __init__(self, width):
        self.width = width
        self.slots = [None] * 8  # (digest, value)
        self.count = 0

    def keys(self, digests):
        return [row.tobytes() for row in digests]

    def start(self, key):
        return zlib.crc32(key) % len(self.slots)

    def is_same(self, entry, key):
        return entry[0] == key

    def is_free(self, entry):
        return entry is None

    def is_full(self):
        return 2 * self.count >= len(self.slots)

    def slot(self, key):
        at = self.start(key)
        while not self.is_free(self.slots[at]) and not self.is_same(self.slots[at], key):
            at = (at + 1) % len(self.slots)
        return at

    def put(self, key, value):
        """Whether it was new."""
        if self.is_full():
            self.grow()
        at = self.slot(key)
        new = self.is_free(self.slots[at])
        self.slots[at] = (key, value)
        self.count += new
        return new

    def grow(self):
        entries = self.entries()
        self.slots = [None] * (2 * len(self.slots))
        for entry in entries:
            self.slots[self.slot(entry[0])] = entry

    def entries(self):
        return [entry for entry in self.slots if not self.is_free(entry)]

    def insert(self, digests, values):
        pairs = zip(self.keys(digests), values.tolist(), strict=True)
        return np.array([self.put(key, value) for key, value in pairs], bool)

    def find(self, digests):
        found = [self.slots[self.slot(key)] for key in self.keys(digests)]
        return np.array([-1 if self.is_free(e) else e[1] for e in found], np.int64)

    def contains(self, digests):
        return np.array([not self.is_free(self.slots[self.slot(k)]) for k in self.keys(digests)])

    def delete(self, digests):
        return np.array([self.take_out(key) for key in self.keys(digests)], bool)

    def take_out(self, key):
        at = self.slot(key)
        if self.is_free(self.slots[at]):
            return False
        self.count -= 1
        self.close_up(at)
        return True

    def close_up(self, at):
        self.slots[at] = None
        at = (at + 1) % len(self.slots)
        while not self.is_free(self.slots[at]):
            entry, self.slots[at] = self.slots[at], None
            self.slots[self.slot(entry[0])] = entry
            at = (at + 1) % len(self.slots)

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter([entry[0] for entry in self.entries()])


class LostOnGrowth(Table):
    """Growing moves all slots but the last."""

    def grow(self):
        self.slots[-1] = None
        super().grow()


class ProbeChainCut(Table):
    """Deleting empties the slot and leaves what was probed past it out of reach."""

    def close_up(self, at):
        self.slots[at] = None


class PrefixCompared(Table):
    """A slot matches where the first eight bytes do."""

    def start(self, key):
        return zlib.crc32(key[:8]) % len(self.slots)

    def is_same(self, entry, key):
        return entry[0][:8] == key[:8]


class HashCompared(Table):
    """A slot matches where one byte of the hash does: no digest is compared."""

    def is_same(self, entry, key):
        return zlib.crc32(entry[0]) & 0xFF == zlib.crc32(key) & 0xFF


class FirstWins(Table):
    """Of equal digests in a batch the first value stays."""

    def insert(self, digests, values):
        new = super().insert(digests, values)
        super().insert(digests[::-1], values[::-1])
        return new


class OldValueStays(Table):
    """A digest that is there keeps its value."""

    def put(self, key, value):
        known = self.slots[self.slot(key)]
        return super().put(key, value if known is None else known[1])


class NewTwice(Table):
    """Equal digests in a batch all count as new."""

    def insert(self, digests, values):
        new = ~self.contains(digests) if len(digests) else np.zeros(0, bool)
        super().insert(digests, values)
        return new


class MinusOneIsAMiss(Table):
    """A stored -1 is taken for a digest that is not there."""

    def contains(self, digests):
        return self.find(digests) != -1


class DeleteSaysTrue(Table):
    """Deleting reports True for digests that were not there."""

    def delete(self, digests):
        super().delete(digests)
        return np.ones(len(digests), bool)


class DeletedTwice(Table):
    """Equal digests in a batch are all reported as deleted."""

    def delete(self, digests):
        there = self.find(digests) != -1
        return super().delete(digests) | there


class StridesIgnored(Table):
    """A batch is read as it lies in memory, as if it were in rows."""

    def keys(self, digests):
        return super().keys(digests.ravel(order="K").reshape(digests.shape))


class ThirtyTwoBits(Table):
    """Values are kept in 32 bits."""

    def insert(self, digests, values):
        return super().insert(digests, values.astype(np.int32).astype(np.int64))


class IterationSkips(Table):
    """Iterating leaves the first slot out."""

    def __iter__(self):
        return iter([entry[0] for entry in self.slots[1:] if entry is not None])


class CountsReplaced(Table):
    """Replacing a value counts as one more entry."""

    def put(self, key, value):
        new = super().put(key, value)
        self.count += not new
        return new


class FullTable(Table):
    """The table grows when it is full and not before: a search for what is absent never ends."""

    def is_full(self):
        return self.count > len(self.slots)


class ZerosAreFree(Table):
    """A free slot is known by a digest of all zeros."""

    def is_free(self, entry):
        return entry is None or not any(entry[0])


class GapsInNumbers(Table):
    """Interning gives each place of the batch a number, used or not."""

    def intern(self, digests, first):
        new = self.insert(digests[:0], np.zeros(0, np.int64)).tolist()
        for i, key in enumerate(self.keys(digests)):
            new.append(self.slots[self.slot(key)] is None)
            if new[-1]:
                self.put(key, first + i)
        return self.find(digests), np.array(new, bool)


class CapacityForgotten(Table):
    """Making room starts the index anew, without what was in it."""

    def reserve(self, entries):
        self.slots = [None] * max(len(self.slots), 4 * entries)


class BatchOverwritten(Table):
    """Digests are mixed for hashing where they lie, in the caller's batch."""

    def insert(self, digests, values):
        new = super().insert(digests, values)
        digests ^= 0x0F
        return new


class BatchKept(Table):
    """Values are kept as views of the caller's array, which may change later."""

    def insert(self, digests, values):
        views = [values[i, ...] for i in range(len(values))]
        pairs = zip(self.keys(digests), views, strict=True)
        return np.array([self.put(key, view) for key, view in pairs], bool)


TABLES = [
    LostOnGrowth, ProbeChainCut, PrefixCompared, HashCompared, FirstWins, OldValueStays, NewTwice,
    MinusOneIsAMiss, DeleteSaysTrue, DeletedTwice, StridesIgnored, ThirtyTwoBits, IterationSkips,
    CountsReplaced, FullTable, ZerosAreFree, GapsInNumbers, CapacityForgotten, BatchOverwritten,
    BatchKept,
]  # fmt: skip

# -- stores ---------------------------------------------------------------------------------------


class Store:
    """Records, metadata and links in dicts; `disk` is what a commit leaves behind."""

    def __init__(self, disk=None):
        self.disk = {} if disk is None else disk
        self.rollback()

    def commit(self):
        self.disk["committed"] = deepcopy((self.records, self.maps, self.successors))

    def rollback(self):
        state = self.disk.get("committed", ({}, {}, {}))
        self.records, self.maps, self.successors = deepcopy(state)

    def put(self, content, metadata=None):
        digest = hashlib.sha256(content).digest()
        self.records[digest] = content
        if metadata is not None:
            self.maps[digest] = metadata
        return digest

    def put_many(self, contents, metadata=None):
        maps = metadata or [None] * len(contents)
        return [self.put(content, one) for content, one in zip(contents, maps, strict=True)]

    def get(self, digest):
        return self.records.get(digest)

    def get_many(self, digests):
        return [self.get(digest) for digest in digests]

    def metadata(self, digest):
        return self.maps.get(digest)

    def delete(self, digest):
        stored = self.records.pop(digest, None) is not None
        if stored:
            self.maps.pop(digest, None)
            self.successors.pop(digest, None)
        return stored

    def link(self, source, target):
        self.successors[source] = target

    def hop(self, starts, n):
        ends = [self.walk(start, n) for start in starts]
        return [end or bytes(32) for end in ends], [end is not None for end in ends]

    def walk(self, at, n):
        for _ in range(n):
            at = self.successors.get(at)
        return at

    def trace(self, start, limit=None):
        seen = [start]
        while limit is None or len(seen) <= limit:
            following = self.successors.get(seen[-1])
            if following is None or following in seen:
                break
            seen.append(following)
        return seen

    def __len__(self):
        return len(self.records)

    def __contains__(self, digest):
        return digest in self.records


class StoredTwice(Store):
    """A content that is stored already is counted again."""

    again = 0

    def put(self, content, metadata=None):
        self.again += hashlib.sha256(content).digest() in self.records
        return super().put(content, metadata)

    def __len__(self):
        return len(self.records) + self.again


class SecondMetadataLost(Store):
    """Metadata given with a content that is stored already is dropped."""

    def put(self, content, metadata=None):
        known = hashlib.sha256(content).digest() in self.records
        return super().put(content, None if known else metadata)


class OrderOfDigests(Store):
    """Many contents come in the order of their digests, not in that of the question."""

    def get_many(self, digests):
        return super().get_many(sorted(digests))


class LastCommitLost(Store):
    """A commit writes what the one before it should have."""

    def commit(self):
        self.disk["committed"] = self.disk.get("next", ({}, {}, {}))
        self.disk["next"] = deepcopy((self.records, self.maps, self.successors))


class EmptyIsMissing(Store):
    """An empty content is taken for none."""

    def get(self, digest):
        return self.records.get(digest) or None


class CutAtAPage(Store):
    """Contents are cut at 4096 bytes."""

    def get(self, digest):
        content = self.records.get(digest)
        return None if content is None else content[:4096]


class MetadataOutlives(Store):
    """Deleting leaves the metadata, which the next record of that content inherits."""

    def delete(self, digest):
        stored = self.records.pop(digest, None) is not None
        if stored:
            self.successors.pop(digest, None)
        return stored


class LinksToItGo(Store):
    """Deleting a record takes the links to it away as well."""

    def delete(self, digest):
        stored = super().delete(digest)
        self.successors = {s: t for s, t in self.successors.items() if t != digest or not stored}
        return stored


class RollbackForgetsAll(Store):
    """Rolling back starts anew instead of from the last commit."""

    def __init__(self, disk=None):
        super().__init__(disk)
        Store.rollback(self)  # opening is right: it reads the last commit

    def rollback(self):
        self.records, self.maps, self.successors = {}, {}, {}


class StoreOffByOne(Store):
    """A hop too many where there are two or more."""

    def walk(self, at, n):
        return super().walk(at, n + (n > 1))


class EndlessTrace(Store):
    """A trace goes round a cycle for ever."""

    def trace(self, start, limit=None):
        seen = [start]
        while seen[-1] in self.successors and (limit is None or len(seen) <= limit):
            seen.append(self.successors[seen[-1]])
        return seen


class FirstLinkStays(Store):
    """A second link from the same record is ignored."""

    def link(self, source, target):
        self.successors.setdefault(source, target)


STORES = [
    StoredTwice, SecondMetadataLost, OrderOfDigests, LastCommitLost, EmptyIsMissing, CutAtAPage,
    MetadataOutlives, LinksToItGo, RollbackForgetsAll, StoreOffByOne, EndlessTrace, FirstLinkStays,
]  # fmt: skip

# -- hops -----------------------------------------------------------------------------------------


def hop(successors, starts, n):
    """n steps from each start, as plainly as can be."""
    ends = []
    for row in starts.tolist():
        row = row if 0 <= row < len(successors) else -1
        for _ in range(n):
            row = int(successors[row]) if row >= 0 else -1
            row = row if row < len(successors) else -1
        ends.append(max(row, -1))
    return np.array(ends, np.int64)


def off_by_one(successors, starts, n):
    """One hop too many."""
    return hop(successors, starts, n + 1)


def off_by_one_later(successors, starts, n):
    """One hop too few from five hops on, as where the last bit of a doubling is lost."""
    return hop(successors, starts, n - (n >= 5))


def no_zero_hops(successors, starts, n):
    """0 hops count as one."""
    return hop(successors, starts, max(n, 1))


def endless_in_a_cycle(successors, starts, n):
    """The whole chain is listed first, and in a cycle it has no end."""
    ends = []
    for row in starts.tolist():
        chain = []
        while 0 <= row < len(successors):
            chain.append(row)
            row = int(successors[row])
        ends.append(chain[n] if n < len(chain) else -1)
    return np.array(ends, np.int64)


def endless_in_compiled_code(successors, starts, n):
    """A cycle is walked for ever, where no line of Python is run."""
    if 0 <= starts[0] < len(successors) and successors[starts[0]] == starts[0]:
        max(iter(int, 1))
    return hop(successors, starts, n)


def dangling_followed(successors, starts, n):
    """Numbers below -1 are read from the end of the array."""
    for _ in range(n if len(successors) else 0):
        inside = (starts < len(successors)) & (starts != -1) & (starts >= -len(successors))
        starts = np.where(inside, successors[np.where(inside, starts, 0)], -1) if n else starts
    return np.where((starts >= 0) & (starts < len(successors)), starts, -1)


def branches_share_state(successors, starts, n):
    """What one start has visited counts as the end for the next."""
    seen, ends = set(), []
    for row in starts.tolist():
        for _ in range(n):
            if row in seen or not 0 <= row < len(successors):
                row = -1
                break
            seen.add(row)
            row = int(successors[row])
        ends.append(row if 0 <= row < len(successors) else -1)
    return np.array(ends, np.int64)


def path_compressed(successors, starts, n):
    """Successors are replaced by where they lead, in the caller's array."""
    ends = hop(successors, starts, n)
    inside = (starts >= 0) & (starts < len(successors))
    successors[starts[inside]] = ends[inside]
    return ends


def stays_at_the_end(successors, starts, n):
    """A chain that is over answers its last row."""
    inside = (starts >= 0) & (starts < len(successors))
    rows = starts[inside]
    for _ in range(n):
        following = successors[rows] if len(rows) else rows
        there = (following >= 0) & (following < len(successors))
        rows = np.where(there, following, rows)
    ends = np.full(len(starts), -1, np.int64)
    ends[inside] = rows
    return ends


def rounds_from_the_start(successors, starts, n):
    """Whole rounds are left out as if the start lay in the cycle."""
    ends = []
    for start in starts.tolist():
        seen, row = {}, start
        while 0 <= row < len(successors) and row not in seen:
            seen[row] = len(seen)
            row = int(successors[row])
        length = len(seen) if row in seen else n + 1
        ends.append(int(hop(successors, np.array([start]), n % length)[0]))
    return np.array(ends, np.int64)


HOPS = [
    off_by_one, off_by_one_later, no_zero_hops, endless_in_a_cycle, endless_in_compiled_code,
    dangling_followed, branches_share_state, path_compressed, stays_at_the_end,
    rounds_from_the_start,
]  # fmt: skip

# -- what the contracts are for -------------------------------------------------------------------


class MissesMinusOne(OpenAddressingTable):
    """A stored -1 is taken for a digest that is not there."""

    def contains(self, digests):
        return self.find(digests) != -1


class KeepsDamage(RamBackend):
    """A transaction that raises leaves its changes behind."""

    def write(self):
        return _Careless(super().write())


class _Careless:
    def __init__(self, transaction):
        self.transaction = transaction

    def __enter__(self):
        return self.transaction.__enter__()

    def __exit__(self, *exception):
        self.transaction.__exit__(None, None, None)


class Longer(HashedNgrams):
    """Rows of long texts are longer than one."""

    def encode(self, texts):
        lengths = np.array([[1 + (len(text) > 1000)] for text in texts], np.float32)
        return super().encode(texts) * lengths.reshape(-1, 1)
