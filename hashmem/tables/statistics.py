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
    """Mean buckets touched by a hit and by a miss under linear probing with buckets of `slots`.

    With load a, the number of entries that pass on from one bucket to the next is Lindley's
    recursion (1952) c' = max(0, c + Poisson(a slots) - slots), as in Knuth, vol. 3, section 6.4.
    A hit touches 1 + E[c] / (a slots) buckets: each passing costs one entry one step. A miss goes
    on while c > 0. Solved as a Markov chain cut off where c is no longer reached.
    """
    if not entries:
        return 1.0, 1.0
    mean = entries / buckets
    gap = 1 - mean / slots
    states = int(min(2000, 40 + 40 / gap))  # the tail of c falls as exp(-2 gap c)
    arrivals = _poisson(mean, states + slots)
    step = np.zeros((states, states))
    for c in range(states):
        to = np.clip(c + np.arange(len(arrivals)) - slots, 0, states - 1)
        np.add.at(step[c], to, arrivals)
    # The stationary distribution: pi (step - 1) = 0 with sum 1.
    system = np.vstack([step.T - np.eye(states), np.ones(states)])
    stationary = np.linalg.lstsq(system, np.r_[np.zeros(states), 1.0], rcond=None)[0]
    passing = float(stationary @ np.arange(states))
    # further[c]: buckets a miss still looks at after one that c > 0 entries passed.
    further = np.linalg.solve(np.eye(states - 1) - step[1:, 1:], np.ones(states - 1))
    return 1 + passing / mean, 1 + float(stationary[1:] @ further)


def _poisson(mean: float, terms: int) -> NDArray[np.float64]:
    k = np.arange(1, terms)
    logs = -mean + np.r_[0.0, np.cumsum(np.log(mean) - np.log(k))]
    p = np.exp(logs)
    return np.asarray(p / p.sum())
