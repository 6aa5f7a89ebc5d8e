"""Tables: insert, find and delete in batches, beside the machine's memory and every rival.

Digests are random bytes, which is all that a table sees of any digest; values are their positions.
Inserts come into a table that starts empty and grows, once all in one call and once in 16 batches;
finds in batches of 2^20 random digests, by Zipf's law with exponent 0.99 too. *Memory alone* reads
the lines that a find in our table touches, as many as its own statistics say, in arrays as large,
from the same entries, and with as many reads in flight as is fastest; it does nothing else. *Small
pages*: in a process where neither tables nor arrays ask for huge pages. What each rival can do
differs, and each gets its best form:

- **dict**: bytes keys made beforehand, untimed, in a loop; and once with the making counted, as
  whoever holds arrays must do.
- **hirola**: the same digests as rows of uint8, growing eightfold at two thirds full as dict does,
  which was its fastest setting. It numbers keys instead of storing values, and cannot delete.
- **cykhash**: Int64 → Int64 by its buffer functions, on the first 8 bytes of each digest only. It
  takes all keys in one call, also where others get 16 batches, having no batch insert into a map
  that exists, and deletes one key at a time.
- **pandas**: an Index of uint64 on the first 8 bytes of each digest only. Its engine is built, at
  full size at once, within the timed insert, and beforehand for find. It numbers keys, cannot grow
  and cannot delete.
- **borghash**: whole digests, one at a time, with values of 8 bytes.
- **numba**: a typed.Dict of int64 on the first 8 bytes of each digest, in a compiled loop.
- **polars**, **pyarrow**: a left join and `index_in` on the first 8 bytes of each digest. They keep
  no table from one call to the next: a find includes making it.
- **C++**: yardsticks, built here with -O3 -march=native and called with a whole batch; they hash a
  digest by its first 8 bytes, compare all of it, and prefetch nothing.

What is timed finds 64 MiB of memory just used by the process: the first of a round would otherwise
pay for what a virtual machine takes to give out memory anew.

Eight bytes are not enough to address content, so these have the easier task. Memory is what a fresh
process grows by, filled with random bytes of the same width; the key array that a pandas Index
refers to is not counted. Overhead is what the table says it holds beyond digests and values, as it
grows from a tenth of its size in 90 steps. Churn: ten rounds in which a random half is deleted and
as many new ones inserted.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench import harness, table_rivals, table_singles, table_upkeep
from bench.harness import Result
from bench.table_finds import grow, race_finds, race_in_small_pages
from bench.table_headlines import add_headlines, add_upkeep_headlines
from bench.table_inserts import measure_pauses, race_deletes, race_inserts
from bench.table_race import MAKERS, OURS, SWIFT, Case, contestants
from bench.table_threads import measure_threads
from hashmem import kernels

YARDSTICKS = tuple(name for name in MAKERS if name.startswith("C++"))
NUMBA = "numba typed.Dict, 8-byte keys"
CASES = (  # those of the largest size give the headlines
    Case(10_000, 32),
    Case(1_000_000, 32),
    Case(10_000_000, 8, (*SWIFT, NUMBA, *YARDSTICKS)),
    Case(10_000_000, 16, (*SWIFT, NUMBA, *YARDSTICKS)),
    Case(10_000_000, 32),
)
QUICK_CASES = (Case(500, 8, SWIFT, quick=True), Case(1000, 32, quick=True))
MEMORY = "memory (B an entry)"
PEAK = "peak while inserting (B an entry)"


def _race_case(result: Result, case: Case) -> None:
    running = contestants(result, case.names)
    digests = case.digests()
    race_inserts(result, case, running, digests)
    ours = [c for c in running if c.name in OURS]
    for contestant in ours:
        measure_pauses(result, case, contestant, digests)
        grow(result, case, contestant, digests)
    race_finds(result, case, running, digests)
    measure_threads(result, case, running, digests)
    if ours:
        kernels.select("native")
        table_singles.measure_large(result, case, running, digests)
    race_deletes(result, case, running, digests)


def resident_growth(name: str, n: int, width: int) -> tuple[int, int]:
    """Return the bytes this process grew by filling the contestant's table: at the end, at peak.

    Run in a child process. The input is made first and leaves nothing freed behind that the table
    could move into.
    """
    contestant = MAKERS[name]()
    digests = table_rivals.random_digests(0, n, width)
    fill = contestant.insert(digests)
    before = harness.resident_bytes()
    fill()
    return harness.resident_bytes() - before, harness.resident_bytes(peak=True) - before


def _measure_memory(result: Result, case: Case) -> None:
    for contestant in contestants(result, case.names):
        if not contestant.can_insert or contestant.name == table_rivals.DictLoop.name:
            continue  # its bytes are made beforehand: the other dict counts them
        grown, peak = harness.in_child(resident_growth, contestant.name, case.n, case.width)
        for column, size in ((MEMORY, grown), (PEAK, peak)):
            result.add(case.title, column, contestant.name, contestant.kind, [size / case.n])


def run(quick: bool = False, cases: Sequence[Case] = CASES) -> Result:
    """Race every contestant at every number of digests and width; headlines from the largest."""
    if quick:
        cases = QUICK_CASES
    result = Result("tables", __doc__)
    largest = [case for case in cases if case.n == max(case.n for case in cases)]
    small = [replace(case, names=SWIFT, huge=False) for case in largest]
    before = kernels.active
    try:
        for case in cases:
            _race_case(result, case)
        kernels.select(kernels.available[0])
        if "native" in kernels.available:
            table_singles.measure_small(result, quick)
            for case in small:
                race_in_small_pages(result, case)
            for case in largest:
                table_upkeep.measure_churn(result, case)
                table_upkeep.measure_lines(result, case.width, quick)
        if not quick:
            _measure_memory(result, largest[-1])
    finally:
        kernels.select(before)
    add_headlines(result, [*largest, *small])
    add_upkeep_headlines(result, largest)
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--n", type=int, help="this number of digests only")
    parser.add_argument("--width", type=int, default=32, help="bytes of a digest, with --n")
    options = parser.parse_args()
    cases = (Case(options.n, options.width),) if options.n else CASES
    harness.finish(run(options.quick, cases), options)


if __name__ == "__main__":
    main()
