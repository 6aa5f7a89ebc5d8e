"""ChainingTable: a head for each bucket and one link in each entry.

The layout is in `hashmem/kernels/chaining.c`. A search follows the entries of its chain, mostly one
line each, and compares a digest only where 24 bits of the hash agree.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.chaining import HEADER, TAG_SHIFT, entry_of, links_of, tag_of
from hashmem.kernels.reference.hashing import bucket_of
from hashmem.tables.base import DigestTable
from hashmem.tables.index import NO_LIMIT, Values
from hashmem.tables.memory import zeros
from hashmem.tables.statistics import TableStatistics, chaining_theory

CHAIN_LIMIT = 64  # entries


class ChainingTable(DigestTable):
    """A digest → int64 table with separate chaining; see `DigestTable` for what it does.

    Beyond digest and value an entry takes 15 bytes on average from one growth to the next, 12 just
    before and 19 just after; up to 2^33 entries.
    """

    _kernels = "chain"
    _header = HEADER
    _max_load = 2.0  # entries a bucket
    _highest_load = 8.0
    _most_entries = 1 << 33
    _growth = 2

    def _make_index(self, entries: int) -> None:
        n_buckets = max(1, -int(-entries // self._load))
        self._index = zeros(n_buckets * 8).view(np.uint64)
        self._room = max(entries, int(n_buckets * self._load))

    @property
    def _limit(self) -> int:
        return NO_LIMIT if self._accepts_any_length else CHAIN_LIMIT

    def _walk(self) -> tuple[Values, Values, Values, Values]:
        """Follow every chain. For each link that leads somewhere: its bucket, the entry, the tag,
        and which entry of the chain it is, from 1 on."""
        links = links_of(self._entries.rows)
        bucket = np.flatnonzero(self._index)
        here = self._index[bucket]
        parts: list[tuple[Values, Values, Values, Values]] = []
        depth = followed = 0
        while len(here):
            depth, followed = depth + 1, followed + len(here)
            self._require(followed <= self._count, "chains run in a circle or join")
            entry = entry_of(here)
            self._require(bool((entry < self._count).all()), "a link leads past the last entry")
            tag = (here >> np.uint64(TAG_SHIFT)).astype(np.int64)
            parts.append((bucket, entry, tag, np.full(len(here), depth)))
            here = links[entry]
            bucket, here = bucket[here != 0], here[here != 0]
        if not parts:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing, nothing, nothing
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return columns[0], columns[1], columns[2], columns[3]

    def _check_index(self, hashes: NDArray[np.uint64]) -> None:
        bucket, entry, tag, _ = self._walk()
        self._require(
            np.array_equal(np.sort(entry), np.arange(self._count)),
            "the chains do not lead to each entry exactly once",
        )
        self._require(
            np.array_equal(bucket, bucket_of(hashes[entry], len(self._index))),
            "an entry is in another bucket's chain",
        )
        self._require(
            np.array_equal(tag, tag_of(hashes[entry]).astype(np.int64)),
            "a link's tag is not that of its entry",
        )

    def statistics(self) -> TableStatistics:
        with self._lock:
            n_buckets, count = len(self._index), len(self)
            bucket, _, _, depth = self._walk()
            lengths = np.bincount(bucket, minlength=n_buckets)
            hit_expected, miss_expected = chaining_theory(count, n_buckets)
            return TableStatistics(
                entries=count,
                buckets=n_buckets,
                slots=1,
                theory="chaining",
                load=count / n_buckets,
                nbytes=self.nbytes,
                overhead=self.nbytes / count - self._width - 8 if count else 0.0,
                reseeds=self._reseeds,
                hashed=self._hashed,
                hit_probes=np.bincount(depth),
                hit_mean=float(depth.mean()) if count else 0.0,
                hit_mean_expected=hit_expected if count else 0.0,
                miss_mean=float(lengths.mean()),
                miss_mean_expected=miss_expected,
                longest=int(depth.max(initial=0)),
            )
