"""OpenAddressingTable: buckets of one cache line, each with twelve tags and entry indexes.

The layout of a bucket is in `hashmem/kernels/open_addressing.c`. A hit touches three lines at most
loads: bucket, digest, value; a miss mostly one.
"""

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
    tag_of,
)
from hashmem.tables.base import NO_LIMIT, Digests, DigestTable, Flags, Values
from hashmem.tables.memory import Column, zeros
from hashmem.tables.statistics import TableStatistics, open_addressing_theory

PROBE_LIMIT = 64  # buckets


class OpenAddressingTable(DigestTable):
    """A digest → int64 table with open addressing; see `DigestTable` for what it does.

    Takes 8 to 12 bytes an entry beyond digest and value; up to 2^34 entries.
    """

    _max_load = 0.85  # entries a slot
    _highest_load = 0.9
    _most_entries = 1 << 34
    _growth = 2.0

    def _make_columns(self, capacity: int) -> None:
        self._values = Column(capacity, (), np.int64)

    def _resize_columns(self, capacity: int) -> None:
        self._values.resize(capacity)

    def _make_index(self, entries: int) -> None:
        n_buckets = max(1, -int(-entries // (self._load * SLOTS)))
        self._buckets: NDArray[np.uint8] = zeros(0).reshape(0, LINE)  # free the old one first
        self._buckets = zeros(n_buckets * LINE).reshape(n_buckets, LINE)
        self._room = max(entries, int(n_buckets * SLOTS * self._load))

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

    def _build(self) -> int:
        longest: int = kernels.current.open_build(*self._table, self._expected_longest)
        return longest

    def _kernel_find(self, queries: Digests, out: Values, missing: int) -> None:
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

    @property
    def _columns_nbytes(self) -> int:
        return self._values.nbytes

    def _homes_and_buckets(self, hashes: NDArray[np.uint64]) -> tuple[Values, Values]:
        """The bucket each entry's search starts from, and the bucket it is in."""
        bucket, slot = np.nonzero(self._buckets[:, :SLOTS])
        lies_in = np.zeros(self._count, np.int64)
        lies_in[entries_at(self._buckets, bucket, slot)] = bucket
        return bucket_of(hashes, len(self._buckets)), lies_in

    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        buckets, n_buckets = self._buckets, len(self._buckets)
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
        home, lies_in = self._homes_and_buckets(hashes)
        steps = (lies_in - home) % n_buckets
        passing = np.zeros(n_buckets, np.int64)
        for step in range(int(steps.max(initial=0))):
            np.add.at(passing, (home[steps > step] + step) % n_buckets, 1)
        counted = buckets[:, OVERFLOW]
        exact = counted < SATURATED
        self._require(
            np.array_equal(counted[exact], passing[exact]),
            "a bucket's overflow is not the number of entries that passed it",
        )

    def statistics(self) -> TableStatistics:
        from hashmem.kernels.reference.hashing import hash_digests

        n_buckets, count = len(self._buckets), self._count
        home, lies_in = self._homes_and_buckets(hash_digests(self._rows, self._keys))
        probes = 1 + (lies_in - home) % n_buckets
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
    """Mean buckets a miss touches, when it goes on from the buckets in `passed`, round the end."""
    n = len(passed)
    if passed.all():
        return float(n)
    turned = np.roll(passed, -int(np.argmin(passed)) - 1)  # ends with a bucket that stops a search
    edges = np.diff(np.r_[0, turned.astype(np.int8), 0])
    runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return 1 + float((runs * (runs + 1) // 2).sum()) / n
