"""Tables after ten rounds of churn, and the lines that searches touch by load.

Churn, in a process of its own for each table: every round deletes a random half of the entries, in
one call, and inserts as many new ones. Beside it stands a fresh table of what is there at the end.
Resident memory is what the process grew by when the table was made, and by then.

Lines are counted from the table's own statistics: the buckets that searches touch, the lines that
an entry of this size covers wherever it lies, and for misses the entries looked at because a tag
agreed by chance, one occupied slot in 255.
"""

import ctypes

import numpy as np

import hashmem
from bench import harness, table_rivals
from bench.harness import Result
from bench.table_finds import LAYOUTS
from bench.table_race import OURS, Case
from bench.table_rivals import INSERTS, batches
from hashmem.tables.base import DigestTable

CHURN_ROUNDS = 10
FINDS = 5
FIND = "find, hits (ns)"
MEMORY = "memory, as the table says (B an entry)"
RESIDENT = "memory, resident (B an entry)"
FRESH, CHURNED = "fresh", "after ten rounds of churn"

LOADS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
LINES_N, QUICK_LINES_N = 2_000_000, 2000  # slots, about
LINE, SLOTS, TAGS = 64, 12, 255  # bytes; a bucket's slots; tags of occupied slots
TABLES = dict(zip(OURS, (hashmem.OpenAddressingTable, hashmem.ChainingTable), strict=True))


# ------------------------------------------------------------------------------------------- churn


def _resident() -> int:
    """Resident bytes in use: what was freed goes back to the system first."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    return harness.resident_bytes()


def _churned(case: Case, name: str) -> dict[str, dict[str, list[float]]]:
    """Churn one table and compare it with a fresh one: samples by column and table."""
    digests, random = case.digests().copy(), np.random.default_rng(harness.SEED)
    fresh_ones = table_rivals.random_digests(1, case.n // 2, case.width)
    warm = TABLES[name](case.width, capacity=16)  # loads what the first call loads
    warm.insert(digests[:16], np.arange(16))
    tables, resident = {}, {}

    def made(digests: np.ndarray) -> DigestTable:
        table = TABLES[name](case.width)
        for part, values in batches(digests, INSERTS):
            table.insert(part, values)
        return table

    before = _resident()
    tables[CHURNED] = table = made(digests)
    for number in range(CHURN_ROUNDS):
        half = random.permutation(case.n)[: case.n // 2]
        table.delete(digests[half])
        fresh_ones = table_rivals.random_digests(2 + number, len(half), case.width)
        digests[half] = fresh_ones
        table.insert(fresh_ones, half)
    del half
    resident[CHURNED] = _resident() - before
    before = _resident()
    tables[FRESH] = made(digests)
    resident[FRESH] = _resident() - before

    drawn = [digests[random.integers(0, case.n, case.queries)] for _ in range(case.rounds(FINDS))]
    calls = {
        which: lambda number, table=table: lambda: table.find(drawn[number])
        for which, table in tables.items()
    }
    found = harness.race(calls, len(drawn))
    return {
        FIND: {which: [1e9 * s / case.queries for s in found[which]] for which in tables},
        MEMORY: {which: [table.nbytes / case.n] for which, table in tables.items()},
        RESIDENT: {which: [max(size, 1) / case.n] for which, size in resident.items()},
    }


def churn_title(case: Case, name: str) -> str:
    return f"Churn: {name.partition(',')[0].removeprefix('hashmem ')}, {case.title}"


def measure_churn(result: Result, case: Case) -> None:
    """Churn each of our tables in a process of its own."""
    for name in OURS:
        found = harness.in_child(_churned, case, name)
        for column, samples in found.items():
            for which in (FRESH, CHURNED):
                result.add(churn_title(case, name), column, which, "ours", samples[which])


# ------------------------------------------------------------------------------------------- lines


def entry_lines(stride: int) -> np.ndarray:
    """Share of entries that touch 0, 1, 2, … lines, where they lie one behind the other."""
    begins = np.arange(LINE) * stride
    lines = (begins + stride - 1) // LINE - begins // LINE + 1
    return np.bincount(lines) / LINE


def percentile(shares: np.ndarray, share: float) -> float:
    """How many lines at most this share of searches touches."""
    return float(np.searchsorted(np.cumsum(shares) / shares.sum(), share - 1e-12))


def _false_matches(slots: float) -> np.ndarray:
    """Shares of misses that look at 0, 1, 2, 3 entries, each slot agreeing by chance."""
    shares = np.empty(4)
    for k in range(4):
        shares[k] = np.prod([(slots - i) / (i + 1) for i in range(k)]) / TAGS**k
        shares[k] *= (1 - 1 / TAGS) ** (slots - k)
    return shares / shares.sum()


def lines_at(table: DigestTable, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares of hits, and of misses, that touch 0, 1, 2, … lines."""
    statistics = table.statistics()
    entry = entry_lines(-(-(LAYOUTS[name][1] + table.width) // 8) * 8)
    hits = np.convolve(statistics.hit_probes / statistics.entries, entry)
    onward = statistics.miss_mean - 1  # to the other bucket; there is no third
    occupied = statistics.load * SLOTS
    misses = np.zeros(2 + 2 * 3 + 1)
    for buckets, share in ((1, 1 - onward), (2, onward)):
        matches = np.convolve(_false_matches(occupied * buckets), [1.0])
        for entries, chance in enumerate(matches):
            misses[min(buckets + entries, len(misses) - 1)] += share * chance
    return hits, misses


def measure_lines(result: Result, width: int, quick: bool) -> None:
    """Count the lines that finds in an open-addressing table touch as it fills."""
    highest = hashmem.OpenAddressingTable._highest_load
    slots = QUICK_LINES_N if quick else LINES_N
    table = hashmem.OpenAddressingTable(width, max_load=highest, capacity=int(slots * highest))
    slots = table.statistics().buckets * SLOTS
    digests = table_rivals.random_digests(0, slots, width)
    for load in (load for load in LOADS if load <= highest):
        more = digests[len(table) : int(load * slots)]
        table.insert(more, np.arange(len(more)))
        for what, shares in zip(("hits", "misses"), lines_at(table, OURS[0]), strict=True):
            mean = float(shares @ np.arange(len(shares)) / shares.sum())
            median, p99 = percentile(shares, 0.5), percentile(shares, 0.99)
            for how, figure in (("mean", mean), ("median", median), ("p99", p99)):
                result.add(lines_title(width), f"{what}, {how}", f"load {load}", "ours", [figure])


def lines_title(width: int) -> str:
    return f"Lines of the cache that a find touches, digests of {width} bytes"
