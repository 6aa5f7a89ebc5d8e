"""Tables: insert, find and delete in batches, beside dict, hirola, cykhash and pandas.

Keys are SHA-256 digests of counters, cut to 8 bytes for the narrower tables; values are their
positions. Inserts come into a table that starts empty and grows, once all in one call and
once in 16 batches; finds in batches of 2^20 random digests. What each rival can do differs, and
each gets its best form:

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

Eight bytes are not enough to address content, so these two have the easier task. Zipf queries have
exponent 0.99. Memory is what a fresh process grows by, filled with random bytes of the same width;
the key array that a pandas Index refers to is not counted.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from bench.table_rivals import (
    BASELINE,
    MAKERS,
    REFERENCE,
    Contestant,
    Cykhash,
    DictLoop,
    Hirola,
    Pandas,
    digests_of,
)
from hashmem import kernels

CASES = (  # keys, bytes of each; the last gives the headlines
    (10_000, 32),
    (1_000_000, 32),
    (10_000_000, 8),
    (10_000_000, 32),
)
BATCH = 1 << 20  # queries in a find
INSERT_ROUNDS = 3
FIND_ROUNDS = 5
DELETE_ROUNDS = 3
ZIPF_EXPONENT = 0.99  # YCSB's: a few digests take most of the queries
QUICK_CASES, QUICK_BATCH, QUICK_ROUNDS = ((1000, 8), (1000, 32)), 500, 2

AT_ONCE = "insert from empty, one call (ns)"
INSERT = "insert from empty, 16 batches (ns)"
HITS = "find, hits (ns)"
ZIPF = "find, Zipf hits (ns)"
MISSES = "find, misses (ns)"
DELETE = "delete (ns)"
MEMORY = "memory (B an entry)"
PEAK = "peak while inserting (B an entry)"


def zipf_ranks(n: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw `count` ranks in [0, n) with probability ∝ 1 / (rank + 1)**ZIPF_EXPONENT."""
    heights = np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
    return np.searchsorted(heights, random.random(count) * heights[-1])


def contestants(result: Result) -> list[Contestant]:
    """Make all that can run here; name the rest in the result."""
    made = []
    for name, make in MAKERS.items():
        try:
            made.append(make())
        except ImportError as error:
            result.left_out[name] = str(error)
    return made


def _title(n: int, width: int) -> str:
    return f"{n:,} keys of {width} bytes".replace(",", " ")


def _race_table(result: Result, n: int, width: int, quick: bool) -> None:
    random = np.random.default_rng(harness.SEED)
    running = contestants(result)
    digests = digests_of(0, n, width)
    queries = QUICK_BATCH if quick else BATCH

    def race(
        column: str,
        count: int,
        rounds: int,
        able: list[Contestant],
        prepare: Callable[[Contestant, int], Timed],
    ) -> None:
        found = harness.race({c.name: partial(prepare, c) for c in able}, rounds)
        for contestant in able:
            per_key = [1e9 * s / count for s in found[contestant.name]]
            result.add(_title(n, width), column, contestant.name, contestant.kind, per_key)

    rounds = QUICK_ROUNDS if quick else INSERT_ROUNDS
    arrays = [contestant for contestant in running if not contestant.loops]
    race(AT_ONCE, n, rounds, arrays, lambda c, _: c.insert(digests, calls=1))
    race(INSERT, n, rounds, running, lambda c, _: c.insert(digests))

    shuffled = digests[random.permutation(n)]  # rank is no hint of when a digest was inserted
    absent = itertools.count(n, queries)
    rounds = QUICK_ROUNDS if quick else FIND_ROUNDS
    for column, draw in (
        (HITS, lambda: digests[random.integers(0, n, queries)]),
        (ZIPF, lambda: shuffled[zipf_ranks(n, queries, random)]),
        (MISSES, lambda: digests_of(next(absent), queries, width)),
    ):
        drawn = [draw() for _ in range(rounds)]  # new queries each round, the same for all

        def look_up(contestant: Contestant, number: int, drawn: list = drawn) -> Timed:
            return contestant.find(drawn[number].copy())  # as if just made: warm alike for all

        race(column, queries, rounds, running, look_up)

    rounds = QUICK_ROUNDS if quick else DELETE_ROUNDS
    removed = np.array_split(shuffled[: min(n // 2, rounds * queries)], rounds)
    able = [c for c in running if c.can_delete]
    race(DELETE, len(removed[0]), rounds, able, lambda c, r: c.delete(removed[r]))


def resident_growth(name: str, n: int, width: int) -> tuple[int, int]:
    """Return the bytes this process grew by filling the contestant's table: at the end, at peak.

    Run in a child process. The input is made first and leaves nothing freed behind that the table
    could move into.
    """
    contestant = MAKERS[name]()
    random = np.random.default_rng(harness.SEED)
    digests = random.integers(0, 256, (n, width), np.uint8)
    fill = contestant.insert(digests)
    before = harness.resident_bytes()
    fill()
    return harness.resident_bytes() - before, harness.resident_bytes(peak=True) - before


def _measure_memory(result: Result, n: int, width: int) -> None:
    for contestant in contestants(result):
        if isinstance(contestant, DictLoop):
            continue  # its bytes are made beforehand: the other dict counts them
        grown, peak = harness.in_child(resident_growth, contestant.name, n, width)
        for column, size in ((MEMORY, grown), (PEAK, peak)):
            result.add(_title(n, width), column, contestant.name, contestant.kind, [size / n])


def _headlines(result: Result, n: int, width: int) -> None:
    title = _title(n, width)

    def samples(column: str, name: str) -> list[float] | None:
        return result.samples(title, column, name)

    def headline(column: str, what: str, ours: str, rival: str, target: float) -> None:
        operation = column.removesuffix(" (ns)")
        ratio = f"{title}, {operation}: {what}"
        result.ratio(ratio, samples(column, ours), samples(column, rival), target)

    for column in (HITS, MISSES):
        headline(column, "ours / pandas", BASELINE, Pandas.name, 0.5)
        headline(column, "ours / hirola", BASELINE, Hirola.name, 0.2)
    arrays = [c.name for c in (Hirola, Cykhash, Pandas) if samples(INSERT, c.name)]
    for column in (AT_ONCE, INSERT) if arrays else ():
        fastest = min(arrays, key=lambda name: harness.summary(samples(column, name))["median"])
        headline(column, f"ours / fastest of three, {fastest}", BASELINE, fastest, 0.5)
    for column in (INSERT, HITS, MISSES):
        headline(column, "ours, reference kernels / dict loop", REFERENCE, DictLoop.name, 1.0)


def run(quick: bool = False, cases: Sequence[tuple[int, int]] = CASES) -> Result:
    """Race every contestant at every number of keys and width; headlines from the last."""
    if quick:
        cases = QUICK_CASES
    result = Result("tables", __doc__)
    before = kernels.active
    try:
        for n, width in cases:
            _race_table(result, n, width, quick)
            if not quick:
                _measure_memory(result, n, width)
    finally:
        kernels.select(before)
    _headlines(result, *cases[-1])
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--n", type=int, help="this number of keys only")
    parser.add_argument("--width", type=int, default=32, help="bytes a key, with --n")
    options = parser.parse_args()
    cases = ((options.n, options.width),) if options.n else CASES
    harness.finish(run(options.quick, cases), options)


if __name__ == "__main__":
    main()
