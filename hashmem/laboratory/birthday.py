"""Experiment: real pairs of digests that agree once truncated, beside the birthday bound."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hashmem.laboratory.experiment import Experiment, Row, Sizes, figure
from hashmem.laboratory.filling import digests_of
from hashmem.laboratory.theory import birthday_pairs
from hashmem.tables.fit import SIGNIFICANCE, chi_square_tail

__all__ = ["measure", "pairs_that_agree", "two_sided"]

NAME = "birthday"
TITLE = "Collisions of truncated digests"
METHOD = """\
Numbers are digested, the digests cut to their first bits, and pairs that agree are counted: of n
digests of b bits n (n - 1) / 2^(b + 1) are expected. Where that is below a thousand the count is
held against Poisson, else against the normal distribution with the exact variance; *p* is
two-sided, and the threshold is that of all tests here. Prefixes of one set contain each other, so
rows of one algorithm are not independent of each other."""

BITS = (16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64)
ALGORITHMS = ("sha256", "xxh3_64")
MANY = 1000.0  # pairs expected, from which on a normal distribution is as good

Prefixes = NDArray[np.uint64]


def measure(sizes: Sizes) -> Experiment:
    """Count pairs in sets four times as large each, up to the power of two that is asked for."""
    top = sizes.truncated.bit_length() - 1
    exponents = range(10 + top % 2, top + 1, 2)  # the largest set is all that is digested
    rows = []
    for algorithm in ALGORITHMS:
        whole = digests_of(1 << top, algorithm).view(">u8")[:, 0].astype(np.uint64)
        for exponent in exponents:
            ordered = np.sort(whole[: 1 << exponent])
            rows += [{"digest": algorithm, **row} for row in _rows(ordered)]
    largest = [row for row in rows if row["digests"] == 1 << exponents[-1]]
    return Experiment(NAME, TITLE, METHOD, _reading(rows, largest), rows, largest)


def pairs_that_agree(ordered: Prefixes) -> int:
    """Count the pairs of equals among sorted numbers. O(n)."""
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    times = np.diff(ends, prepend=-1)
    return int((times * (times - 1) // 2).sum())


def two_sided(pairs: int, mean: float, variance: float) -> float:
    """Probability of a count as far from the expected one, on either side."""
    if mean >= MANY:
        return math.erfc(abs(pairs - mean) / math.sqrt(2 * variance))
    # P(Poisson ≤ k) is the tail of chi-square with 2 (k + 1) degrees at twice the mean.
    most = chi_square_tail(2 * mean, 2 * (pairs + 1))
    least = 1 - chi_square_tail(2 * mean, 2 * pairs) if pairs else 1.0
    return min(1.0, 2 * min(most, least))


def _rows(ordered: Prefixes) -> Iterator[Row]:
    for bits in BITS:
        pairs = pairs_that_agree(ordered >> np.uint64(64 - bits))
        mean, variance = birthday_pairs(len(ordered), bits)
        p = two_sided(pairs, mean, variance)
        yield {
            "bits": bits, "digests": len(ordered), "pairs": pairs, "expected": mean, "p": p,
            "fits": p >= SIGNIFICANCE,
        }  # fmt: skip


def _reading(rows: list[Row], largest: list[Row]) -> str:
    sha = [row for row in largest if row["digest"] == "sha256"]
    widest = max((row for row in sha if row["pairs"]), key=lambda row: row["bits"])
    last = sha[-1]
    wrong = [row for row in rows if not row["fits"]]
    named = "; ".join(f"{r['digest']}, {r['bits']} bits, {r['digests']} digests" for r in wrong)
    return (
        f"{len(rows) - len(wrong)} of {len(rows)} counts are as expected at p ≥ {SIGNIFICANCE}"
        + (f" (not: {named})" if wrong else "")
        + f". Among {figure(last['digests'])} digests by SHA-256 the widest prefix with a real "
        f"pair has {widest['bits']} bits: {figure(widest['pairs'])} found, "
        f"{figure(widest['expected'])} expected. At 64 bits {last['pairs']} were found and "
        f"{last['expected']:.1e} expected; an even chance of one pair takes "
        f"{1.1774 * 2.0**32:.1e} digests at 64 bits and {1.1774 * 2.0**64:.1e} at 128."
    )
