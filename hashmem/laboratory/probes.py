"""Experiment: how many probes find an entry, at each load, beside what theory expects."""

from collections.abc import Callable, Iterator
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
crowd each other (*sample* has how many), or the lengths of all chains; where theory leaves too few
cells for that, there is none. One table near full is a small sample, since a few long blocks hold
most of it: its mean and variance vary from seed to seed. So from load 0.9 on 16 specimens under
seeds of their own are counted together (*tables*). Loads are entries a slot; of chaining, entries a
bucket, twice as many."""

CLUMP = 16  # entries away come about two together; one in 16 behaves as independent
MOVES_MATTER = 0.95  # the load above which the model of two choices leaves out too much
NEARLY_FULL = 0.9  # the load from which on several specimens are counted together
TABLES = 16  # that are then: one of 2^20 slots at load 0.98 is as good as 13 entries alone
LINEAR, ROBIN_HOOD = 0, 1  # whose homes are drawn
EXACT = 16  # probes up to which a histogram shows each; beyond, bins widen by a quarter

Counts = NDArray[np.int64]
Expected = NDArray[np.float64]
Histogram = tuple[tuple[float, str], Counts]  # load and kind of search, and what was counted


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
    chains: int | None = None  # that it tested
    tables: int = 1  # that were counted together
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
                independent=independent, fit=fit, chains=found.buckets if chains else None,
                misses=(found.miss_mean, found.miss_mean_expected),
            )  # fmt: skip


def _linear(sizes: Sizes) -> Iterator[Measured]:
    def histograms(homes: Counts, size: int, loads: list[float]) -> Iterator[Histogram]:
        slots, probes = specimens.linear_probing(homes, size)
        for load in loads:
            n = int(load * size)
            yield (load, "hits"), np.bincount(probes[:n])
            yield (load, "misses"), np.bincount(specimens.miss_probes(slots[:n], size))

    size, counted = sizes.slots, _together(sizes, LINEAR, histograms)
    for load in sizes.loads:
        n, tables = int(load * size), _tables_at(load)
        hit, miss = theory.linear_probing_means(n / size)
        alone = _alone(sizes, load)
        yield Measured(
            "linear probing", n / size, "hits", counted[load, "hits"],
            tables * n * theory.linear_probing_hits(n / size), hit, independent=alone,
            tables=tables,
        )  # fmt: skip
        yield Measured(
            "linear probing", n / size, "misses", counted[load, "misses"],
            tables * size * theory.linear_probing_misses(n / size), miss, independent=alone,
            tables=tables,
        )  # fmt: skip


def _robin_hood(sizes: Sizes) -> Iterator[Measured]:
    def histograms(homes: Counts, size: int, loads: list[float]) -> Iterator[Histogram]:
        for load in loads:
            probes = specimens.robin_hood(homes[: int(load * size)], size)
            yield (load, "hits"), np.bincount(probes)

    size, counted = sizes.slots, _together(sizes, ROBIN_HOOD, histograms)
    for load in sizes.loads:
        n, tables = int(load * size), _tables_at(load)
        mean, variance = theory.robin_hood_moments(n / size)
        yield Measured(
            "Robin Hood", n / size, "hits", counted[load, "hits"],
            tables * n * theory.robin_hood_hits(n / size), mean, variance,
            independent=_alone(sizes, load), tables=tables,
        )  # fmt: skip


def _together(
    sizes: Sizes, which: int, histograms: Callable[[Counts, int, list[float]], Iterator[Histogram]]
) -> dict[tuple[float, str], Counts]:
    """Histograms by load and kind of search, those of all the tables of a load added up."""
    total: dict[tuple[float, str], Counts] = {}
    for number in range(TABLES):
        loads = [load for load in sizes.loads if number < _tables_at(load)]
        if not loads:
            break
        random = np.random.default_rng([SEED, which, number])
        homes = random.integers(0, sizes.slots, int(max(loads) * sizes.slots))
        for key, counts in histograms(homes, sizes.slots, loads):
            had = total.get(key, np.zeros(1, np.int64))
            end = max(len(had), len(counts))
            total[key] = np.pad(had, (0, end - len(had))) + np.pad(counts, (0, end - len(counts)))
    return total


def _tables_at(load: float) -> int:
    return TABLES if load >= NEARLY_FULL else 1


def _alone(sizes: Sizes, load: float) -> int:
    """Entries that behave as independent: they come in blocks of about 1 / (1 - a)²."""
    return int(_tables_at(load) * sizes.slots * (1 - load) ** 2 / 32)


def _summarised(one: Measured) -> Row:
    total = one.observed.sum()
    probes = np.arange(len(one.observed))
    mean = float(one.observed @ probes / total)
    variance = float(one.observed @ (probes - mean) ** 2 / total)
    missed, missed_expected = one.misses or (None, None)
    fit, sample = (one.fit, one.chains) if one.fit else _tested(one)
    return {
        "table": one.table, "load": round(one.load, 3), "searches": one.searches,
        "tables": one.tables, "counted": int(total), "mean": mean,
        "mean, theory": float(one.mean_expected),
        "variance": variance, "variance, theory": one.variance_expected,
        "longest": len(one.observed) - 1, "misses' mean": missed,
        "misses' mean, theory": missed_expected, "sample": sample, **told(fit),
    }  # fmt: skip


def _tested(one: Measured) -> tuple[Fit | None, int | None]:
    """The test of a sample and the size of that."""
    sample = thinned(one.observed, one.independent, SEED)
    due = one.expected / one.expected.sum() * sample.sum()
    try:
        return goodness_of_fit(sample, due), int(sample.sum())
    except ValueError:  # too few lie elsewhere than at home
        return None, None


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
        several = f" ({highest['tables']} tables)" if highest["tables"] > 1 else ""
        parts.append(
            f"{table} at load {highest['load']}{several}: a hit takes "
            f"{figure(highest['mean'])} probes (theory {figure(highest['mean, theory'])}), "
            f"standard deviation {spread}, the longest {highest['longest']}."
        )
    return " ".join(parts)
