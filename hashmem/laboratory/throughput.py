"""Experiment: the time of an insert and of a find, at each load."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from hashmem.digests import Digests
from hashmem.laboratory.experiment import Experiment, Row, Sizes, figure
from hashmem.laboratory.filling import KINDS, SEED, digests_of, empty
from hashmem.tables import DigestTable

__all__ = ["measure", "seconds"]

NAME = "throughput"
TITLE = "Throughput against load"
METHOD = """\
Tables with room for a given number of entries are filled to that in one batch, room reserved, then
asked for all of them in random order and for as many that are absent. Nanoseconds an item, the
median of the rounds, in which tables and loads take turns. Of chaining, load is entries a bucket.
All tables have the same number of slots (buckets, of chaining half as many), so that a lower load
also means fewer entries."""

COLUMNS = ("insert (ns)", "hits (ns)", "misses (ns)")


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(sizes: Sizes) -> Experiment:
    """Time every kind of table at every load."""
    most = int(max(sizes.loads) * sizes.timed)
    digests, absent = digests_of(most), digests_of(most, first=most)
    samples: dict[tuple[str, float], list[list[float]]] = {}
    for number in range(sizes.rounds):
        for load in sizes.loads:
            n = int(load * sizes.timed)
            asked = digests[np.random.default_rng(SEED + number).permutation(n)]
            for made, make in _makers(load, n):
                found = _timed(make, digests[:n], asked, absent[:n])
                samples.setdefault((made, round(load, 3)), []).append(found)
    rows = []
    for (kind, load), rounds in samples.items():
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        figures = dict(zip(COLUMNS, medians, strict=True))
        shown = 2 * load if kind == "ChainingTable" else load
        rows.append({"table": kind, "load": shown, "entries": int(load * sizes.timed), **figures})
    rows.sort(key=lambda row: (row["table"], row["load"]))
    return Experiment(NAME, TITLE, METHOD, _reading(rows), rows)


def _makers(load: float, entries: int) -> Iterator[tuple[str, Callable[[], DigestTable]]]:
    for kind in KINDS:
        full = 2 * load if kind.__name__ == "ChainingTable" else load
        yield kind.__name__, partial(empty, kind, entries, full, SEED)


def _timed(
    make: Callable[[], DigestTable], digests: Digests, asked: Digests, absent: Digests
) -> list[float]:
    values = np.arange(len(digests))
    table = make()
    took = [
        seconds(lambda: table.insert(digests, values)),
        seconds(lambda: table.find(asked)),
        seconds(lambda: table.find(absent)),
    ]
    return [1e9 * each / len(digests) for each in took]


def _reading(rows: list[Row]) -> str:
    parts = []
    for kind in dict.fromkeys(row["table"] for row in rows):
        own = [row for row in rows if row["table"] == kind]
        lowest, highest = own[0], own[-1]
        times = ", ".join(
            f"{column.split()[0]} {figure(lowest[column])} → {figure(highest[column])}"
            for column in COLUMNS
        )
        parts.append(
            f"{kind}, load {figure(lowest['load'])} → {figure(highest['load'])} "
            f"({figure(lowest['entries'])} → {figure(highest['entries'])} entries), ns an item: "
            f"{times}."
        )
    return " ".join(parts)
