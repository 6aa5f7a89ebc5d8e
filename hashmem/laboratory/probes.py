"""Experiment: how many probes find an entry, at each load, beside what theory expects."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashmem.laboratory import specimens, theory
from hashmem.laboratory.experiment import Experiment, Row, Sizes, figure, told
from hashmem.laboratory.filling import KINDS, SEED, digests_of, filled
from hashmem.tables.fit import (
    SIGNIFICANCE,
    Fit,
    expected_occupancy,
    expected_probe_histogram,
    goodness_of_fit,
    occupancy,
    thinned,
)

__all__ = ["measure"]

NAME = "probes"
TITLE = "Probe lengths at each load"
METHOD = """\
Entries by the probes that find them (a probe is a bucket of a cache line, a node of a chain, or a
slot of a specimen), and slots by the probes of a miss that starts there. Chaining is held against
Poisson; `OpenAddressingTable`, whose entries lie in one of two buckets of 12 slots and move to the
other to make room, against the mean-field model of `hashmem.tables.statistics.two_choice_theory`,
which leaves out ways of more than one move: these send more entries away above load 0.95. Linear
probing is held against Knuth's means (TAOCP, vol. 3, section 6.4) and the distributions behind
them; Robin Hood linear probing against the mean and variance of its waiting line (Viola 2005,
Janson 2005; `hashmem.laboratory.theory` derives each). These two are specimens, fed with a
generator of random numbers. Chi-square tests a sample of the entries so small that they do not
crowd each other, or the lengths of all chains; where theory leaves too few cells for that, there is
none. Loads are entries a slot; of chaining, entries a bucket, twice as many."""

CLUMP = 16  # entries away come about two together; one in 16 behaves as independent
MOVES_MATTER = 0.95  # the load above which the model of two choices leaves out too much
EXACT = 16  # probes up to which a histogram shows each; beyond, bins widen by a quarter

Counts = NDArray[np.int64]
Expected = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One histogram and its theory."""

    table: str
    load: float
    searches: str  # "hits" or "misses"
    observed: Counts
    expected: Expected  # [i]: as counts
    mean_expected: float
    variance_expected: float | None = None
    independent: int = 0  # how many of the counted behave as independent
    fit: Fit | None = None
    misses: tuple[float, float] | None = None  # mean, and as theory has it, where known beside hits


def measure(sizes: Sizes) -> Experiment:
    """Measure every table and specimen at every load."""
    found = [*_tables(sizes), *_linear(sizes), *_robin_hood(sizes)]
    summary = [_summarised(one) for one in found]
    rows = [row for one in found for row in _histogram(one)]
    return Experiment(NAME, TITLE, METHOD, _reading(summary), rows, summary)


def _tables(sizes: Sizes) -> Iterator[Measured]:
    for kind in KINDS:
        chains = kind.__name__ == "ChainingTable"
        for load in sizes.loads:
            digests = digests_of(int(load * sizes.slots))
            table = filled(kind, digests, 2 * load if chains else load, SEED)
            found = table.statistics()
            fit = None
            if chains:
                due = expected_occupancy(found.entries, found.buckets)
                fit = goodness_of_fit(occupancy(table), due, fitted=1)
            independent = 0 if chains else found.entries // CLUMP
            yield Measured(
                kind.__name__, found.load, "hits", found.hit_probes,
                expected_probe_histogram(table), found.hit_mean_expected,
                independent=independent, fit=fit,
                misses=(found.miss_mean, found.miss_mean_expected),
            )  # fmt: skip


def _linear(sizes: Sizes) -> Iterator[Measured]:
    size = sizes.slots
    homes = np.random.default_rng(SEED).integers(0, size, int(max(sizes.loads) * size))
    slots, probes = specimens.linear_probing(homes, size)
    for load in sizes.loads:
        n = int(load * size)
        hit, miss = theory.linear_probing_means(n / size)
        alone = int(size * (1 - load) ** 2 / 32)  # entries come in blocks of about 1 / (1 - a)²
        yield Measured(
            "linear probing", n / size, "hits", np.bincount(probes[:n]),
            n * theory.linear_probing_hits(n / size), hit, independent=alone,
        )  # fmt: skip
        missed = np.bincount(specimens.miss_probes(slots[:n], size))
        yield Measured(
            "linear probing", n / size, "misses", missed,
            size * theory.linear_probing_misses(n / size), miss, independent=alone,
        )  # fmt: skip


def _robin_hood(sizes: Sizes) -> Iterator[Measured]:
    size = sizes.slots
    homes = np.random.default_rng(SEED + 1).integers(0, size, int(max(sizes.loads) * size))
    for load in sizes.loads:
        n = int(load * size)
        mean, variance = theory.robin_hood_moments(n / size)
        observed = np.bincount(specimens.robin_hood(homes[:n], size))
        yield Measured(
            "Robin Hood", n / size, "hits", observed, n * theory.robin_hood_hits(n / size),
            mean, variance, independent=int(size * (1 - load) ** 2 / 32),
        )  # fmt: skip


def _summarised(one: Measured) -> Row:
    total = one.observed.sum()
    probes = np.arange(len(one.observed))
    mean = float(one.observed @ probes / total)
    variance = float(one.observed @ (probes - mean) ** 2 / total)
    missed, missed_expected = one.misses or (None, None)
    return {
        "table": one.table, "load": round(one.load, 3), "searches": one.searches,
        "counted": int(total), "mean": mean, "mean, theory": float(one.mean_expected),
        "variance": variance, "variance, theory": one.variance_expected,
        "longest": len(one.observed) - 1, "misses' mean": missed,
        "misses' mean, theory": missed_expected, **told(one.fit or _tested(one)),
    }  # fmt: skip


def _tested(one: Measured) -> Fit | None:
    sample = thinned(one.observed, one.independent, SEED)
    due = one.expected / one.expected.sum() * sample.sum()
    try:
        return goodness_of_fit(sample, due)
    except ValueError:  # too few lie elsewhere than at home
        return None


def _histogram(one: Measured) -> Iterator[Row]:
    end = len(one.observed)
    expected = np.zeros(end)
    expected[: len(one.expected)] = one.expected[:end]
    starts = [*range(1, min(EXACT, end))]
    while starts[-1] * 5 // 4 < end - 1:
        starts.append(max(starts[-1] + 1, starts[-1] * 5 // 4))
    for first, last in zip(starts, [*(start - 1 for start in starts[1:]), end - 1], strict=True):
        yield {
            "table": one.table, "load": round(one.load, 3), "searches": one.searches,
            "probes from": first, "to": last,
            "observed": int(one.observed[first : last + 1].sum()),
            "expected": float(expected[first : last + 1].sum()),
        }  # fmt: skip


def _reading(summary: list[Row]) -> str:
    tested = [row for row in summary if row["fits"] is not None]
    fit = [row for row in tested if row["fits"]]
    parts = [
        f"{len(fit)} of the {len(tested)} histograms that can be tested fit their theory; at the "
        f"threshold chance alone lets {SIGNIFICANCE * len(tested):.2g} of as many not fit."
    ]
    for row in tested:
        if not row["fits"]:
            longer = row["table"] == "OpenAddressingTable" and row["load"] > MOVES_MATTER
            parts.append(
                f"{row['table']} at load {row['load']} ({row['searches']}) does not "
                f"(p = {row['p']:.1g}; mean {row['mean']:.4g}, theory {row['mean, theory']:.4g}"
                + ("; the model leaves out ways of more than one move)." if longer else ").")
            )
    for table in dict.fromkeys(row["table"] for row in summary):
        highest = [row for row in summary if row["table"] == table and row["searches"] == "hits"][
            -1
        ]
        spread = figure(highest["variance"] ** 0.5)
        parts.append(
            f"{table} at load {highest['load']}: a hit takes {figure(highest['mean'])} probes "
            f"(theory {figure(highest['mean, theory'])}), standard deviation {spread}, the longest "
            f"{highest['longest']}."
        )
    return " ".join(parts)
