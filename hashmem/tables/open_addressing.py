"""OpenAddressingTable: buckets of one cache line, each with twelve tags and entry indexes.

The layout of a bucket is in `hashmem/kernels/open_addressing.c`. A hit mostly touches three lines:
bucket, digest, value; a miss one, at the highest load one and a half.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.kernels.reference.hashing import bucket_of
from hashmem.kernels.reference.open_addressing import (
    HIGH_BITS,
    LINE,
    OVERFLOW,
    SATURATED,
    SLOTS,
    entries_at,
    stride_of,
    tag_of,
)
from hashmem.tables.base import DigestTable
from hashmem.tables.index import NO_LIMIT, Digests, Flags, Values
from hashmem.tables.memory import Column, zeros
from hashmem.tables.statistics import TableStatistics, open_addressing_theory

PROBE_LIMIT = 64  # buckets


class OpenAddressingTable(DigestTable):
    """A digest → int64 table with open addressing; see `DigestTable` for what it does.

    Beyond digest and value an entry takes 12 bytes on average from one growth to the next, 7 just
    before and 20 just after; up to 2^34 entries.
    """

    _max_load = 0.85  # entries a slot
    _highest_load = 0.85
    _most_entries = 1 << 34
    _growth = 3
    _buckets: NDArray[np.uint8]

    def _make_columns(self, capacity: int) -> None:
        self._values = Column(capacity, (), np.int64)

    @property
    def _columns(self) -> tuple[Column[Any], ...]:
        return self._digests, self._values

    def _make_index(self, entries: int) -> None:
        n_buckets = max(1, -int(-entries // (self._load * SLOTS))) | 1
        buckets = zeros(n_buckets * LINE).reshape(n_buckets, LINE)
        room = max(entries, int(n_buckets * SLOTS * self._load))
        self._buckets, self._room = buckets, room

    @property
    def _table(self) -> tuple[object, ...]:
        return (
            self._buckets,
            self._keys,
            self._digests.rows,
            self._values.rows,
            self._width,
            self._count,
        )

    def _empty_index(self) -> None:
        self._buckets.fill(0)

    def _build(self) -> int:
        longest: int = kernels.current.open_build(*self._table, self._expected_longest)
        return longest

    def _kernel_find(self, queries: Digests | bytes, out: Values, missing: int) -> None:
        kernels.current.open_find(*self._table, queries, out, missing)

    def _kernel_insert(
        self, queries: Digests, given: Values, new: Flags, room: int, limit: int
    ) -> tuple[int, int, int]:
        answer: tuple[int, int, int] = kernels.current.open_insert(
            *self._table, room, limit, queries, given, new
        )
        return answer

    def _kernel_intern(
        self, queries: Digests, out: Values, new: Flags, room: int, limit: int, offset: int
    ) -> tuple[int, int, int]:
        answer: tuple[int, int, int] = kernels.current.open_intern(
            *self._table, room, limit, queries, out, new, offset
        )
        return answer

    def _kernel_delete(self, queries: Digests, out: Flags, holes: Values) -> int:
        removed: int = kernels.current.open_delete(*self._table, queries, out, holes)
        return removed

    def _kernel_move(self, sources: Values, targets: Values) -> None:
        kernels.current.open_move(*self._table, sources, targets)

    @property
    def _expected_longest(self) -> int:
        return NO_LIMIT if self._accepts_any_length else PROBE_LIMIT

    @property
    def _all_values(self) -> Values:
        return self._values.rows

    @property
    def _index_nbytes(self) -> int:
        return self._buckets.nbytes

    def _probes(self, hashes: NDArray[np.uint64]) -> tuple[Values, Values]:
        """How many buckets each entry's search touches (count,), 0 where it never comes to the
        entry; and how many searches pass each bucket (n_buckets,)."""
        buckets, n_buckets = self._buckets, len(self._buckets)
        bucket, slot = np.nonzero(buckets[:, :SLOTS])
        lies_in = np.full(self._count, -1)
        lies_in[entries_at(buckets, bucket, slot)] = bucket
        at, stride, pending = (
            bucket_of(hashes, n_buckets),
            stride_of(hashes),
            np.arange(self._count),
        )
        probes, passing = np.zeros(self._count, np.int64), np.zeros(n_buckets, np.int64)
        for probe in range(1, min(n_buckets, self._expected_longest) + 1):
            there = at == lies_in[pending]
            probes[pending[there]] = probe
            onward = ~there & (buckets[at, OVERFLOW] > 0)
            pending, at, stride = pending[onward], at[onward], stride[onward]
            if not len(pending):
                break
            np.add.at(passing, at, 1)
            at = (at + stride) % n_buckets
        return probes, passing

    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        buckets = self._buckets
        bucket, slot = np.nonzero(buckets[:, :SLOTS])
        entries = entries_at(buckets, bucket, slot)
        self._require(
            np.array_equal(np.sort(entries), np.arange(self._count)),
            "the slots do not lead to each entry exactly once",
        )
        self._require(
            np.array_equal(buckets[bucket, slot], tag_of(hashes[entries])),
            "a tag is not that of its entry",
        )
        free_bucket, free_slot = np.nonzero(buckets[:, :SLOTS] == 0)
        high = buckets[free_bucket, HIGH_BITS + free_slot // 4] >> (free_slot % 4 * 2) & 3
        self._require(not high.any(), "a free slot keeps the high bits of an index")
        probes, passing = self._probes(hashes)
        self._require(bool(probes.all()), "an entry is not on the path that its hash tells")
        counted = buckets[:, OVERFLOW]
        exact = counted < SATURATED
        self._require(
            np.array_equal(counted[exact], passing[exact]),
            "a bucket's overflow is not the number of entries that passed it",
        )

    def statistics(self) -> TableStatistics:
        from hashmem.kernels.reference.hashing import hash_digests

        n_buckets, count = len(self._buckets), len(self)
        probes, _ = self._probes(hash_digests(self._rows, self._keys))
        hit_expected, miss_expected = open_addressing_theory(count, n_buckets, SLOTS)
        return TableStatistics(
            entries=count,
            buckets=n_buckets,
            load=count / (n_buckets * SLOTS),
            nbytes=self.nbytes,
            overhead=self.nbytes / count - self._width - 8 if count else 0.0,
            reseeds=self._reseeds,
            hit_probes=np.bincount(probes),
            hit_mean=float(probes.mean()) if count else 0.0,
            hit_mean_expected=hit_expected if count else 0.0,
            miss_mean=_mean_miss(self._buckets[:, OVERFLOW] > 0),
            miss_mean_expected=miss_expected,
            longest=int(probes.max(initial=0)),
        )


def _mean_miss(passed: Flags) -> float:
    """Mean buckets a miss touches, when it goes on from the buckets in `passed`: over all buckets
    it can start from and all strides."""
    n, touched = len(passed), 0
    for stride in 1 << np.arange(8):
        at = np.arange(n)
        for _ in range(n):
            touched += len(at)
            at = at[passed[at]]
            if not len(at):
                break
            at = (at + stride) % n
    return touched / (8 * n)
