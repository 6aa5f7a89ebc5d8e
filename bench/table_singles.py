"""One digest at a time, `table[digest]`, beside a dict: in the cache, and far beyond it.

*Fresh*: bytes made of an array just before, as whoever reads or receives digests has them; a dict
hashes them. *Known*: the very objects that the dict holds as its keys, hashed long before; it
compares no bytes at all.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

import hashmem
from bench import harness
from bench.harness import Result, Timed
from bench.table_race import OURS, Case
from bench.table_rivals import Contestant, DictLoop, as_bytes

FRESH, KNOWN = "table[digest], fresh (ns)", "table[digest], known (ns)"
SMALL = "1000 digests of 32 bytes, in the cache"
LOOKUPS, QUICK_LOOKUPS, ROUNDS = 200_000, 100, 7
SMALL_LOOKUPS, SMALL_ROUNDS = 5000, 31  # so that the keys stay in the cache as well
Keys = Callable[[], list[bytes]]  # makes the keys, untimed


def one_by_one(table: Mapping[bytes, int], keys: Sequence[bytes]) -> Timed:
    """Return the loop over `table[key]`."""

    def loop() -> None:
        for key in keys:
            table[key]

    return loop


def _race(
    result: Result,
    title: str,
    column: str,
    tables: Mapping[str, Mapping[bytes, int]],
    draw: Callable[[], Keys],
    rounds: int,
) -> None:
    drawn = [draw() for _ in range(rounds)]  # the same for all; each makes its own objects of them

    def look_up(name: str, number: int) -> Timed:
        return one_by_one(tables[name], drawn[number]())

    found = harness.race({name: partial(look_up, name) for name in tables}, rounds)
    count = len(drawn[0]())
    for name, samples in found.items():
        kind = "rival" if name == DictLoop.name else "ours"
        result.add(title, column, name, kind, [1e9 * s / count for s in samples])


def measure_small(result: Result, quick: bool) -> None:
    """Look up digests among a thousand, fresh and known ones."""
    case = Case(1000, 32, quick=quick)
    digests, random = case.digests(), np.random.default_rng(harness.SEED)
    keys = as_bytes(digests)
    tables: dict[str, Mapping[bytes, int]] = {
        OURS[0]: hashmem.OpenAddressingTable(32),
        OURS[1]: hashmem.ChainingTable(32),
        DictLoop.name: dict(zip(keys, range(1000), strict=True)),
    }
    for name in OURS:
        tables[name].insert(digests, np.arange(1000))
    amount = QUICK_LOOKUPS if quick else SMALL_LOOKUPS

    def fresh() -> Keys:
        picks = random.integers(0, 1000, amount)
        return lambda: as_bytes(digests[picks])

    def known() -> Keys:
        picks = random.integers(0, 1000, amount).tolist()
        return lambda: [keys[pick] for pick in picks]

    _race(result, SMALL, FRESH, tables, fresh, case.rounds(SMALL_ROUNDS))
    _race(result, SMALL, KNOWN, tables, known, case.rounds(SMALL_ROUNDS))


def measure_large(
    result: Result, case: Case, running: list[Contestant], digests: np.ndarray
) -> None:
    """Look up fresh digests in the tables that were filled."""
    names = (*OURS, DictLoop.name)
    tables = {c.name: c.table for c in running if c.name in names}
    random = np.random.default_rng(harness.SEED)

    def fresh() -> Keys:
        picks = random.integers(0, case.n, QUICK_LOOKUPS if case.quick else LOOKUPS)
        return lambda: as_bytes(digests[picks])

    _race(result, case.title, FRESH, tables, fresh, case.rounds(ROUNDS))
