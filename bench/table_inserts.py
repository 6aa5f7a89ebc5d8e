"""Inserts into a table that starts empty and grows: how long, and how long the longest pause."""

import statistics
from functools import partial

import numpy as np

from bench import harness
from bench.harness import Result
from bench.table_race import SLOW_FROM, Case, race
from bench.table_rivals import Contestant

AT_ONCE = "insert from empty, one call (ns)"
INSERT = "insert from empty, 16 batches (ns)"
DELETE = "delete (ns)"
PAUSE = "longest batch of 65 536 (ms)"
COPY = "copying the arrays that it left (ms)"
ROUNDS = 3
PAUSE_BATCH = 1 << 16


def race_inserts(
    result: Result, case: Case, running: list[Contestant], digests: np.ndarray
) -> None:
    """Race all that can insert; each is left with a table of all digests."""
    able = [c for c in running if c.can_insert]
    arrays = [c for c in able if not c.loops and not (c.slow and case.n >= SLOW_FROM)]
    race(result, case, AT_ONCE, case.n, arrays, lambda c, _: c.insert(digests, calls=1), ROUNDS)
    race(result, case, INSERT, case.n, able, lambda c, _: c.insert(digests), ROUNDS)
    for contestant in running:
        if not contestant.can_insert:
            contestant.insert(digests)()


def race_deletes(
    result: Result, case: Case, running: list[Contestant], digests: np.ndarray
) -> None:
    """Race all that can delete, up to half of what is there."""
    amount = min(case.n // 2, ROUNDS * case.queries)
    picks = np.random.default_rng(harness.SEED).choice(case.n, amount, replace=False)
    removed = np.array_split(digests[picks], case.rounds(ROUNDS))
    able = [c for c in running if c.can_delete]
    race(result, case, DELETE, len(removed[0]), able, lambda c, r: c.delete(removed[r]), ROUNDS)


def measure_pauses(result: Result, case: Case, contestant: Contestant, digests: np.ndarray) -> None:
    """Time each batch of a growing table, and a copy of as much memory as the longest one left."""
    size = min(PAUSE_BATCH, case.n // 16)
    values = np.arange(case.n)
    pauses, copies = [], []
    for _ in range(case.rounds(ROUNDS)):
        contestant.insert(digests[:0], calls=1)()
        table, longest, nbytes = contestant.table, 0.0, 0
        for begin in range(0, case.n, size):
            part = slice(begin, begin + size)
            took = harness.seconds(partial(table.insert, digests[part], values[part]))
            if took > longest:
                longest, nbytes = took, table.nbytes
        pauses.append(1e3 * longest)
        held = np.ones(nbytes, np.uint8)
        copies.append(1e3 * statistics.median(harness.seconds(held.copy) for _ in range(3)))
    result.add(case.title, PAUSE, contestant.name, "ours", pauses)
    result.add(case.title, COPY, contestant.name, "floor", copies)
