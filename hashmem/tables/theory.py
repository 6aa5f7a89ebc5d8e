"""How many probes theory has searches take.

Both theories hold for hashes that behave as random, and for tables that deletions have not thinned
unevenly; a keyed hash that works shows measured means within a few percent of them, also on hostile
digests.
"""

import math

import numpy as np
from numpy.typing import NDArray

STEPS = 64  # Gauss-Legendre nodes over the loads at which entries came


def chaining_theory(entries: int, buckets: int) -> tuple[float, float]:
    """Mean entries touched by a hit and by a miss under separate chaining.

    1 + (n - 1) / 2m and n / m (Knuth, The Art of Computer Programming, vol. 3, section 6.4).
    """
    return 1 + max(entries - 1, 0) / (2 * buckets), entries / buckets


def two_choice_theory(entries: int, buckets: int, slots: int) -> tuple[float, float]:
    """Mean buckets touched by a hit and by a miss where entries lie at home or in one other bucket.

    A mean-field model. Each entry ends in some bucket that had room, so a bucket fills as a Poisson
    variable of rate 1 / (1 - f) that stops at `slots`, f the share of full ones (compare Larson,
    "Analysis of uniform hashing", Journal of the ACM 30, 1983). Once full it stays full, and
    whatever else comes to it leaves one of its own entries in its other bucket, itself or one that
    moved for it: f dt go away in a time dt that brings dt entries a bucket. Ways of more than one
    move, which matter above load 0.95, are left out. A hit touches 1 + the share that is away; a
    miss goes on from a bucket that has any of its own away, with probability
    integral of f(t) e^(t - T) dt up to the end T.
    """
    if not entries:
        return 1.0, 1.0
    stored = entries / buckets
    highest = arrivals(stored, slots)
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    away = going_on = 0.0
    for x, weight in zip((nodes + 1) / 2 * highest, weights / 2 * highest, strict=True):
        below = poisson(x, slots)
        full = 1 - float(below.sum())
        held = float(below @ np.arange(slots)) + slots * full
        away += weight * full * (1 - full)  # dt = (1 - f) dx
        going_on += weight * full * (1 - full) * math.exp(held - stored)
    return 1 + away / stored, 1 + going_on


def arrivals(stored: float, slots: int) -> float:
    """The mean x of a Poisson variable X with E[min(X, slots)] = `stored` entries a bucket."""
    low, high = stored, stored + 40.0 * slots
    for _ in range(60):  # bisection, to the last bit
        x = (low + high) / 2
        below = poisson(x, slots)
        held = float(below @ np.arange(slots)) + slots * (1 - float(below.sum()))
        low, high = (x, high) if held < stored else (low, x)
    return (low + high) / 2


def poisson(mean: float, terms: int) -> NDArray[np.float64]:
    """P(X = 0), …, P(X = `terms` - 1) of a Poisson variable."""
    if not mean:
        return np.append(1.0, np.zeros(terms - 1))
    logs = np.log(mean) - np.log(np.arange(1, terms))
    return np.asarray(np.exp(-mean + np.append(0.0, np.cumsum(logs))))
