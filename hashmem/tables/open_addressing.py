"""OpenAddressingTable: buckets of one cache line, each with twelve tags and entry indexes.

The layout is in `hashmem/kernels/open_addressing.c`. A hit touches one bucket and an entry, which
mostly lie on a line each; at the highest default load one hit in eleven touches a second bucket,
and a miss 1.4 buckets on average. Neither ever touches more than two.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.hashing import bucket_of
from hashmem.kernels.reference.open_addressing import (
    AWAY,
    HEADER,
    LINE,
    MOST_ENTRIES,
    SATURATED,
    SLOTS,
    away_at,
    bits_of,
    entries_at,
    home_at,
    tag_of,
)
from hashmem.tables.base import DigestTable
from hashmem.tables.memory import zeros
from hashmem.tables.statistics import TableStatistics, two_choice_theory

PLACES = 2048  # buckets to look at for a place


class OpenAddressingTable(DigestTable):
    """A digest → int64 table with open addressing; see `DigestTable` for what it does.

    Beyond digest and value an entry takes 11 bytes on average from one growth to the next, 7 just
    before and 19 just after; up to 2^33 entries.
    """

    _kernels = "open"
    _header = HEADER
    _max_load = 0.9  # entries a slot
    _highest_load = 0.98
    _most_entries = MOST_ENTRIES
    _growth = 3

    def _make_index(self, entries: int) -> None:
        n_buckets = max(1, -int(-entries // (self._load * SLOTS)))
        self._index = zeros(n_buckets * LINE).reshape(n_buckets, LINE)
        self._room = max(entries, int(n_buckets * SLOTS * self._load))

    @property
    def _limit(self) -> int:
        return PLACES

    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        buckets = self._index
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
        bits = bits_of(buckets)[free_bucket] >> (8 + free_slot).astype(np.uint32)
        self._require(not (bits & np.uint32(1 << 12 | 1)).any(), "a free slot keeps bits")
        home = home_at(buckets, bucket, slot)
        self._require(
            np.array_equal(home, bucket_of(hashes[entries], len(buckets))),
            "an entry is in neither of its buckets",
        )
        away = np.bincount(home[away_at(buckets, bucket, slot)], minlength=len(buckets))
        counted = buckets[:, AWAY]
        exact = counted < SATURATED
        self._require(
            np.array_equal(counted[exact], away[exact]),
            "a bucket does not count the entries that are away from it",
        )

    def statistics(self) -> TableStatistics:
        with self._lock:
            count, buckets = len(self), self._index
            bucket, slot = np.nonzero(buckets[:, :SLOTS])
            away = int(away_at(buckets, bucket, slot).sum())
            hit_expected, miss_expected = two_choice_theory(count, len(buckets), SLOTS)
            return TableStatistics(
                entries=count,
                buckets=len(buckets),
                slots=SLOTS,
                theory="two choices",
                load=count / (len(buckets) * SLOTS),
                nbytes=self.nbytes,
                overhead=self.nbytes / count - self._width - 8 if count else 0.0,
                reseeds=self._reseeds,
                hashed=self._hashed,
                hit_probes=np.trim_zeros(np.array([0, count - away, away]), "b"),
                hit_mean=(count + away) / count if count else 0.0,
                hit_mean_expected=hit_expected if count else 0.0,
                miss_mean=1 + float((buckets[:, AWAY] > 0).mean()),
                miss_mean_expected=miss_expected,
                longest=min(count, 1 + (away > 0)),
            )
