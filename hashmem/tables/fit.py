"""Whether what a table shows is what theory expects: histograms, and a chi-square test of them.

Everything is read from a table's public `statistics()`, or computed from sizes alone, so that the
same functions serve any table that has them, a user's own too. `probe_histogram` needs `hit_probes`
of it. The others hold it against a theory, which its statistics must name (`theory`, with `slots`),
as those of this package do: nothing is guessed from a load. Of other tables, hold the histogram
against one of the functions that take sizes alone, or against a theory of your own.

The test's threshold: counts are said to fit unless theory gives a deviation as large a probability
below `SIGNIFICANCE`, one in a thousand. One in a thousand of right tables is then called wrong.

Chi-square supposes independent observations. Bucket occupancies are nearly that; probe lengths of
entries that share a table are not, since one crowded place lengthens many of them together. So
probe lengths are tested on a random sample of the entries (`thinned`): of n entries in clumps of
about c, a sample of s ≪ n / c behaves as independent.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.tables.theory import poisson, two_choice_theory

__all__ = [
    "SIGNIFICANCE",
    "Fit",
    "chaining_histogram",
    "chi_square_tail",
    "expected_occupancy",
    "expected_probe_histogram",
    "goodness_of_fit",
    "occupancy",
    "probe_histogram",
    "thinned",
    "two_choice_histogram",
]

SIGNIFICANCE = 0.001
CHAINING, TWO_CHOICES = "chaining", "two choices"  # what `theory` of statistics can be
LEAST_EXPECTED = 5.0  # in a cell: below that, chi-square's own approximation fails (Cochran 1954)

Counts = NDArray[np.int64]
Expected = NDArray[np.float64]


class Counted(Protocol):
    """What is read of a table's statistics."""

    @property
    def entries(self) -> int: ...
    @property
    def buckets(self) -> int: ...
    @property
    def hit_probes(self) -> Counts: ...


class OnTop(Protocol):
    """Statistics of what is built on a table, as a multimap is."""

    @property
    def table(self) -> Counted: ...


class Measured(Protocol):
    """A table, as far as these functions know it; a multimap counts as the table below it."""

    def statistics(self) -> Counted | OnTop: ...


@dataclass(frozen=True)
class Fit:
    """How far observed counts lie from expected ones."""

    statistic: float  # chi-square: sum of (observed - expected)² / expected over the pooled cells
    degrees: int  # of freedom
    p_value: float  # how often chance alone gives at least this statistic

    @property
    def fits(self) -> bool:
        """Whether the p-value is at least `SIGNIFICANCE`."""
        return self.p_value >= SIGNIFICANCE


# -- any table -----------------------------------------------------------------------------------


def probe_histogram(table: Measured) -> Counts:
    """Count the entries by the probes that find them: [i] takes exactly i. O(n).

    Raises `TypeError` for a table whose statistics have no probes, as those of a frozen one.

    >>> from hashmem import ChainingTable
    >>> int(probe_histogram(ChainingTable(width=8)).sum())
    0
    """
    return _counted_in(table).hit_probes


def expected_probe_histogram(table: Measured) -> Expected:
    """Return what theory expects `probe_histogram` to be for a table of this kind and size.

    Of entries that were only inserted. Cells go as far as the theory has half an entry; the last
    one holds all that lies beyond. Raises `ValueError` for a table whose statistics name no theory,
    and `TypeError` as `probe_histogram` does.
    """
    found = _counted_in(table)
    if _theory(found) == CHAINING:
        return chaining_histogram(found.entries, found.buckets)
    slots: int = getattr(found, "slots", 0)
    return two_choice_histogram(found.entries, found.buckets, slots)


def occupancy(table: Measured) -> Counts:
    """Count the buckets of a chaining table by their entries: [k] hold exactly k. O(n).

    As many entries are found by exactly k probes as buckets hold k or more. Raises `ValueError` for
    a table with open addressing, whose probes do not tell it, and otherwise as
    `expected_probe_histogram` does.
    """
    found = _counted_in(table)
    if _theory(found) != CHAINING:
        raise ValueError(
            "probes tell the occupancy of chains only: of open addressing, take probe_histogram"
        )
    at_least = np.concatenate([[found.buckets], found.hit_probes[1:], [0]])
    return np.asarray(-np.diff(at_least), np.int64)


def _counted_in(table: Measured) -> Counted:
    """The statistics of `table`, or of the table below a multimap."""
    found: Any = table.statistics()
    counted: Counted = getattr(found, "table", found)
    if not hasattr(counted, "hit_probes"):
        from hashmem.tables.frozen import FrozenTable  # which needs this module's package

        if isinstance(table, FrozenTable):
            raise TypeError("a frozen table has no probes: every find looks at one slot")
        raise TypeError(f"the statistics of a {type(table).__name__} have no hit_probes")
    return counted


def _theory(found: Counted) -> str:
    """The theory that statistics name."""
    theory = getattr(found, "theory", None)
    if theory == CHAINING or (theory == TWO_CHOICES and hasattr(found, "slots")):
        return str(theory)
    raise ValueError(
        f"statistics name no theory to hold them against, neither {CHAINING!r} nor, with slots, "
        f"{TWO_CHOICES!r}: expected_occupancy, chaining_histogram and two_choice_histogram take "
        "sizes alone"
    )


# -- sizes ---------------------------------------------------------------------------------------


def expected_occupancy(entries: int, buckets: int) -> Expected:
    """Expect so many of `buckets` to hold exactly k of `entries` thrown at random: [k].

    Poisson. The last cell holds all that lies beyond half a bucket.
    """
    return _counted(buckets, poisson(entries / buckets, _terms(entries / buckets)))


def chaining_histogram(entries: int, buckets: int) -> Expected:
    """Expect so many of `entries` at place i of their chain: [i], under separate chaining.

    buckets × P(X ≥ i) with X Poisson (Knuth, The Art of Computer Programming, vol. 3, section 6.4).
    """
    mean = entries / buckets
    if not entries:
        return np.zeros(1)
    below = np.cumsum(poisson(mean, _terms(mean)))
    return _counted(entries, np.append(0.0, np.maximum(1 - below, 0) / mean))


def two_choice_histogram(entries: int, buckets: int, slots: int) -> Expected:
    """Expect so many of `entries` at home, [1], and in their other bucket, [2].

    As `two_choice_theory` has it.
    """
    away = two_choice_theory(entries, buckets, slots)[0] - 1
    return entries * np.array([0, 1 - away, away])


def _terms(mean: float) -> int:
    """Terms beyond which a Poisson variable has nothing that a double could show."""
    return int(mean + 12 * math.sqrt(mean) + 40)


def _counted(total: int, shares: Expected) -> Expected:
    """Make counts of shares, all that lies past half a count in the last cell."""
    counts = total * shares
    end = int(np.flatnonzero(counts >= 0.5).max(initial=0)) + 1
    counts = counts[: end + 1].copy()
    counts[-1] = total - counts[:-1].sum()
    return counts


# -- the test ------------------------------------------------------------------------------------


def goodness_of_fit(observed: ArrayLike, expected: ArrayLike, fitted: int = 0) -> Fit:
    """Test by Pearson's chi-square whether counts `observed` (k,) fit those `expected` (k,).

    Neighbouring cells are pooled until each expects at least 5; the shorter array is taken to go on
    with zeros. `fitted` is how many parameters of the expectation came from the observations: 1
    where its mean did, as that of an occupancy does. Degrees of freedom are cells - 1 - `fitted`.
    Raises `ValueError` where counts are negative, the two sums differ, or no cells are left to
    compare.

    >>> goodness_of_fit([18, 22, 20], [20, 20, 20]).fits
    True
    >>> goodness_of_fit([40, 0, 20], [20, 20, 20]).fits
    False
    """
    seen, due = np.asarray(observed, np.float64), np.asarray(expected, np.float64)
    if seen.ndim != 1 or due.ndim != 1:
        raise ValueError(f"counts must have one dimension, got shapes {seen.shape}, {due.shape}")
    size = max(len(seen), len(due))
    seen, due = np.pad(seen, (0, size - len(seen))), np.pad(due, (0, size - len(due)))
    if not (np.isfinite(seen).all() and np.isfinite(due).all()):
        raise ValueError("counts must be finite")
    if (seen < 0).any() or (due < -1e-6 * due.sum()).any():
        raise ValueError("counts must not be negative")
    if not math.isclose(seen.sum(), due.sum(), rel_tol=1e-6):
        raise ValueError(
            f"{seen.sum():g} were observed and {due.sum():g} expected: scale the expectation, and "
            "put what lies beyond its last cell into that"
        )
    starts = _pooled(due)
    degrees = len(starts) - 1 - fitted
    if degrees < 1:
        raise ValueError(
            f"{len(starts)} cells expect 5 or more, which leaves nothing to compare: observe more"
        )
    seen, due = np.add.reduceat(seen, starts), np.add.reduceat(due, starts)
    statistic = float(((seen - due) ** 2 / due).sum())
    return Fit(statistic, degrees, chi_square_tail(statistic, degrees))


def _pooled(expected: Expected) -> list[int]:
    """Where each pooled cell begins; a rest at the end that expects too little joins the last."""
    starts, held = [0], 0.0
    for place, due in enumerate(expected):
        if held >= LEAST_EXPECTED:
            starts.append(place)
            held = 0.0
        held += due
    if held < LEAST_EXPECTED and len(starts) > 1:
        starts.pop()
    return starts


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(chi-square of `degrees` ≥ `statistic`), a finite sum for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.4.4 and 26.4.5.

    >>> round(chi_square_tail(3.841, 1), 3), round(chi_square_tail(18.307, 10), 3)
    (0.05, 0.05)
    """
    half = statistic / 2
    if half <= 0:
        return 1.0
    odd = degrees % 2
    powers = np.arange(degrees // 2) + odd / 2
    factorials = np.array([math.lgamma(power + 1) for power in powers])
    terms = np.exp(powers * math.log(half) - half - factorials)
    return min(1.0, float(terms.sum()) + (math.erfc(math.sqrt(half)) if odd else 0.0))


def thinned(counts: ArrayLike, sample: int, seed: int = 0) -> Counts:
    """Draw `sample` of the counted at random, without replacement: their counts (k,).

    All of them where there are no more.
    """
    whole = np.asarray(counts, np.int64)
    if sample >= whole.sum():
        return whole
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(whole, sample)
    return np.asarray(drawn, np.int64)
