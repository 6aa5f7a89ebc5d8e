"""Finds, beside what the lines that they touch take: hits, misses and Zipf, on both kinds of page.

The limit reads, for each query, as many lines of an index and as many entries as a search of our
table does on average by its own statistics, in arrays as large as the table's, each read waiting
for the one before it, and as many queries in flight as is fastest; the entries are those that the
queries ask for. It computes nothing and writes no answers.
"""

import ctypes
import itertools
import os
import sys

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from bench.limits import Arrays
from bench.table_race import OURS, Case, absent_digests, contestants, race, zipf_ranks
from bench.table_rivals import BASELINE, Contestant

HITS = "find, hits (ns)"
ZIPF = "find, Zipf hits (ns)"
MISSES = "find, misses (ns)"
COLUMNS = (HITS, ZIPF, MISSES)
OVERHEAD = "overhead, mean over the fill (B an entry)"
STEPS = 90  # of the fill, from a tenth on

# Bytes of a bucket in the index, and of an entry beyond its digest.
LAYOUTS = {BASELINE: (64, 8), OURS[1]: (8, 16)}
PR_SET_THP_DISABLE = 41  # <linux/prctl.h>
SMALL_PAGES = {"HASHMEM_HUGE_PAGES": "0", "NUMPY_MADVISE_HUGEPAGE": "0"}


def limit_of(name: str) -> str:
    """What the limit of our table `name` is called."""
    return f"memory alone: {name.removeprefix('hashmem ').partition(',')[0]}"


class Limit:
    """What memory allows to one of our tables. Raises `ImportError` without a compiler."""

    def __init__(self, contestant: Contestant, huge: bool) -> None:
        bucket, header = LAYOUTS[contestant.name]
        statistics = contestant.table.statistics()
        entry = -(-(header + contestant.table.width) // 8) * 8
        index = statistics.buckets * bucket
        self.arrays = Arrays(index, statistics.entries, entry, huge)
        hit, miss = statistics.hit_mean, statistics.miss_mean
        # Open addressing looks into buckets and then at the entry; chaining at a head and at nodes.
        chained = contestant.name != BASELINE
        self.hit, self.miss = ((1.0, hit), (1.0, miss)) if chained else ((hit, 1.0), (miss, 0.0))

    def find(self, picks: np.ndarray, present: bool) -> Timed:
        """Prepare the reads of a find of these entries, or of as many that are absent."""
        return self.arrays.touch(picks, *(self.hit if present else self.miss))


def grow(result: Result, case: Case, contestant: Contestant, digests: np.ndarray) -> None:
    """Fill one of our tables step by step, and keep what it takes beyond digests and values."""
    steps = np.linspace(case.n // 10, case.n, STEPS + 1, dtype=int)
    contestant.insert(digests[: steps[0]], calls=1)()
    table, values, overheads = contestant.table, np.arange(case.n), []
    for begin, end in itertools.pairwise(steps):
        table.insert(digests[begin:end], values[begin:end])
        overheads.append(table.nbytes / end - case.width - 8)
    result.add(case.title, OVERHEAD, contestant.name, "ours", [float(np.mean(overheads))])


def limits_of(result: Result, case: Case, running: list[Contestant]) -> dict[str, Limit]:
    """Make the limit of each of our tables that runs."""
    limits = {}
    for contestant in running:
        if contestant.name in OURS:
            try:
                limits[limit_of(contestant.name)] = Limit(contestant, case.huge)
            except ImportError as error:
                result.left_out[limit_of(contestant.name)] = str(error)
    return limits


def race_finds(
    result: Result,
    case: Case,
    running: list[Contestant],
    digests: np.ndarray,
    limits: dict[str, Limit] | None = None,
) -> None:
    """Race all that hold `digests` at finding some of them, and at missing others."""
    random = np.random.default_rng(harness.SEED)
    order = random.permutation(case.n)  # rank is no hint of when a digest was inserted
    absent = iter(absent_digests(case))
    if limits is None:
        limits = limits_of(result, case, running)

    def uniform() -> np.ndarray:
        return random.integers(0, case.n, case.queries)

    for column in COLUMNS:
        drawn = []  # new queries each round, the same for all
        for _ in range(case.rounds()):
            picks = order[zipf_ranks(case.n, case.queries, random)] if column == ZIPF else uniform()
            drawn.append((picks, next(absent) if column == MISSES else digests[picks]))

        def look_up(contestant: Contestant, number: int, drawn: list = drawn) -> Timed:
            return contestant.find(drawn[number][1].copy())  # as if just made: warm alike for all

        def read(name: str, number: int, drawn: list = drawn, column: str = column) -> Timed:
            return limits[name].find(drawn[number][0], column != MISSES)

        beside = {name: lambda number, name=name, read=read: read(name, number) for name in limits}
        race(result, case, column, case.queries, running, look_up, beside=beside)
    for limit in limits.values():
        limit.arrays.close()


def _without_huge_pages() -> None:
    """Have Linux give this process none, whoever asks, and whatever the system's setting."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _alone(case: Case) -> Result:
    if not case.huge:
        _without_huge_pages()
    result = Result("tables", "")
    running = contestants(result, case.names)
    digests = case.digests()
    for contestant in running:
        contestant.insert(digests)()
    race_finds(result, case, running, digests)
    return result


def race_in_small_pages(result: Result, case: Case) -> None:
    """Race finds in a process of its own where nothing asks for huge pages."""
    before = {name: os.environ.get(name) for name in SMALL_PAGES}
    os.environ.update(SMALL_PAGES)
    try:
        found = harness.in_child(_alone, case)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    result.rows += found.rows
    result.left_out |= found.left_out
