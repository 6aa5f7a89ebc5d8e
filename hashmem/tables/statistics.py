"""Probe lengths of a table, measured and as theory has them.

A probe is one bucket looked at (open addressing) or one node (chaining). Both theories hold for
hashes that behave as random, and for tables that deletions have not thinned unevenly; a keyed hash
that works shows measured means within a few percent of them, also on hostile digests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TableStatistics:
    """How full a table is and how far searches go."""

    entries: int
    buckets: int
    load: float  # entries a slot (open addressing) or a bucket (chaining)
    nbytes: int
    overhead: float  # bytes an entry beyond its digest and its value
    reseeds: int  # how often a probe left the expected range
    hit_probes: NDArray[np.int64]  # [i]: entries found by exactly i probes
    hit_mean: float
    hit_mean_expected: float
    miss_mean: float  # over all buckets a miss can start from
    miss_mean_expected: float
    longest: int

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)


def chaining_theory(entries: int, buckets: int) -> tuple[float, float]:
    """Mean nodes touched by a hit and by a miss under separate chaining.

    1 + (n - 1) / 2m and n / m (Knuth, The Art of Computer Programming, vol. 3, section 6.4).
    """
    return 1 + max(entries - 1, 0) / (2 * buckets), entries / buckets


def open_addressing_theory(entries: int, buckets: int, slots: int) -> tuple[float, float]:
    """Mean buckets touched by a hit and by a miss under double hashing with buckets of `slots`.

    Larson, "Analysis of uniform hashing", Journal of the ACM 30 (1983): as many entries come to a
    bucket, at home or passing by, as a Poisson variable X whose mean x solves E[min(X, slots)] =
    entries / buckets. A hit touches x buckets / entries; a miss goes on with P(X > slots).
    """
    if not entries:
        return 1.0, 1.0
    stored = entries / buckets
    low, high = stored, stored + 20.0 * slots
    for _ in range(60):  # bisection, to the last bit
        x = (low + high) / 2
        below = _poisson(x, slots)
        held = float(below @ np.arange(slots)) + slots * (1 - float(below.sum()))
        low, high = (x, high) if held < stored else (low, x)
    going_on = 1 - float(_poisson(x, slots + 1).sum())
    return x / stored, 1 / (1 - going_on)


def _poisson(mean: float, terms: int) -> NDArray[np.float64]:
    """P(X = 0), …, P(X = terms - 1) of a Poisson variable."""
    logs = np.log(mean) - np.log(np.arange(1, terms))
    return np.asarray(np.exp(-mean + np.r_[0.0, np.cumsum(logs)]))
