"""What theory expects of the specimens: whole distributions of probes, and their moments.

All are limits for large tables of random hashes, at load a = entries / slots. Shares are arrays
[i]: the share that takes exactly i probes, so that [0] is 0; they end where nothing is left.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "birthday_pairs",
    "linear_probing_hits",
    "linear_probing_means",
    "linear_probing_misses",
    "robin_hood_hits",
    "robin_hood_moments",
]

Shares = NDArray[np.float64]
TERMS = 1 << 16  # probes that distributions are followed to: at load 0.98 1e-6 of misses lie beyond
WAITS = 1 << 13  # the same for Robin Hood, whose tail is thin
STEPS = 64  # Gauss-Legendre nodes


def linear_probing_means(load: float) -> tuple[float, float]:
    """Mean probes of a hit and of a miss under linear probing.

    (1 + 1/(1 - a)) / 2 and (1 + 1/(1 - a)²) / 2 (Knuth, The Art of Computer Programming, vol. 3,
    section 6.4, theorem K).
    """
    return (1 + 1 / (1 - load)) / 2, (1 + 1 / (1 - load) ** 2) / 2


def linear_probing_misses(load: float) -> Shares:
    """Shares of misses by their probes: (1 - a) P(B ≥ i), B Borel distributed.

    Slots fall into blocks, each some taken ones and the free one after them; a block's length B
    has P(B = k) = e^(-ak) (ak)^(k-1) / k!, and there are 1 - a blocks a slot. A miss takes i probes
    from the one slot that is i from the end of each block of i or more.
    """
    return np.append(0.0, (1 - load) * _tail(_borel(load)))


def linear_probing_hits(load: float) -> Shares:
    """Shares of hits by their probes under linear probing, first come, first served.

    An entry is found by the probes of the miss that preceded it: the mean of
    `linear_probing_misses` over the loads at which entries came.
    """
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    came = (nodes + 1) / 2 * load
    shares = [w / 2 * linear_probing_misses(a) for a, w in zip(came, weights, strict=True)]
    return np.asarray(np.sum(shares, axis=0))


def robin_hood_hits(load: float) -> Shares:
    """Shares of hits by their probes under Robin Hood linear probing.

    In the order of their homes entries are a queue: Poisson(a) come to each slot, one is served.
    Probes less one are the waiting time, with generating function
    (1 - a)/a (e^(a(z-1)) - 1) / (z - e^(a(z-1))) (Viola, Exact distribution of individual
    displacements in linear probing hashing, ACM Transactions on Algorithms 1, 2005; Janson,
    Individual displacements for linear probing hashing with different insertion policies, the
    same). Its coefficients are read off the unit circle by a Fourier transform.
    """
    z = np.exp(-2j * np.pi * np.arange(1, WAITS) / WAITS)
    arrived = np.exp(load * (z - 1))
    values = np.append(1.0, (1 - load) / load * (arrived - 1) / (z - arrived))
    shares = np.fft.ifft(values).real
    return np.append(0.0, np.where(shares < 1e-15, 0, shares))  # below is rounding


def robin_hood_moments(load: float) -> tuple[float, float]:
    """Mean and variance of a hit's probes under Robin Hood linear probing.

    From the second-order expansion of the generating function in `robin_hood_hits` at z = 1: with
    b = a²/(2(1-a)) and c = a³/(6(1-a)), the displacement D has E[D] = a/2 + b and
    E[D(D-1)] / 2 = a²/6 + ab/2 + b² + c. The mean is that of first come, first served: policies
    share out the same sum.
    """
    b, c = load**2 / (2 * (1 - load)), load**3 / (6 * (1 - load))
    mean = load / 2 + b
    return 1 + mean, 2 * (load**2 / 6 + load * b / 2 + b**2 + c) + mean - mean**2


def birthday_pairs(digests: int, bits: int) -> tuple[float, float]:
    """Mean and variance of the pairs that agree among random `digests` of `bits`.

    n (n - 1) / 2^(bits + 1); pairs are independent two by two, so the variance is that of as many
    single throws. At n = 1.18 × 2^(bits / 2) the first pair is as likely there as not.
    """
    mean = digests * (digests - 1) / 2.0 ** (bits + 1)
    return mean, mean * (1 - 2.0**-bits)


def _borel(load: float) -> Shares:
    """P(B = 1), …, P(B = TERMS)."""
    k, weights = _borel_terms()
    return np.asarray(np.exp(k * (math.log(load) - load) + weights) / load)


@cache
def _borel_terms() -> tuple[Shares, Shares]:
    """k from 1 to TERMS, and log(k^(k-1) / k!): what all loads share."""
    k = np.arange(1.0, TERMS + 1)
    return k, (k - 1) * np.log(k) - np.cumsum(np.log(k))


def _tail(shares: Shares) -> Shares:
    """P(≥ 1), P(≥ 2), …: from the sum, so that what lies past the last term counts too."""
    return np.asarray(np.maximum(1 - np.append(0.0, np.cumsum(shares)[:-1]), 0))
