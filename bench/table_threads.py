"""Two threads on finds, each with half of the queries, beside one; and the same of memory alone.

How far two threads come where neither computes is the machine's own scaling: cores that share a
memory controller, a cache or a physical core do not reach twice.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from bench.table_finds import limit_of, limits_of
from bench.table_race import OURS, Case
from bench.table_rivals import Contestant

ONE, TWO = "find, hits, one thread (ns)", "find, hits, two threads (ns)"
BATCHES = 4  # queries, in batches of the other finds
ROUNDS = 7


def measure_threads(
    result: Result, case: Case, running: list[Contestant], digests: np.ndarray
) -> None:
    """Time finds of our tables, and reads of memory, in one thread and in two."""
    count = BATCHES * case.queries
    picks = np.random.default_rng(harness.SEED).integers(0, case.n, count)
    queries, ours = digests[picks], [c for c in running if c.name in OURS]
    limits = limits_of(result, case, ours)
    halves = slice(0, count // 2), slice(count // 2, count)
    parts: dict[str, tuple[Timed, Timed, Timed]] = {}  # all of it, and each half
    for contestant in ours:
        find = contestant.find
        parts[contestant.name] = (find(queries), *(find(queries[half].copy()) for half in halves))
        limit = limits.get(limit_of(contestant.name))
        if limit is not None:
            parts[limit_of(contestant.name)] = (
                limit.find(picks, True),
                *(limit.find(picks[half], True) for half in halves),
            )
    with ThreadPoolExecutor(2) as pool:

        def together(name: str) -> Timed:
            return lambda: list(pool.map(lambda half: half(), parts[name][1:]))

        calls = {(name, ONE): lambda _, name=name: parts[name][0] for name in parts}
        calls |= {(name, TWO): lambda _, name=name: together(name) for name in parts}
        ordered = sorted(calls, key=lambda key: list(parts).index(key[0]))  # one, two of each
        found = harness.race({key: calls[key] for key in ordered}, case.rounds(ROUNDS))
    for (name, column), samples in found.items():
        kind = "ours" if name in OURS else "floor"
        result.add(case.title, column, name, kind, [1e9 * s / count for s in samples])
    for limit in limits.values():
        limit.arrays.close()
