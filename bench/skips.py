"""Skips: any number of hops at once, beside a single hop and doubling.

Graphs of ten million links, rows in random order; a million random starts a call. Numbers of hops
are uniform to 10^9, to 100, or to what is left of the start's chain (its cycle, where it comes to
one). What is timed is the whole call.

- **one hop**: one successor from the same starts, the floor.
- **doubling**: `hashmem.hops.hop`, which squares the map of all rows for each bit of n; 10^9 hops.
- **one pass**: one hop from every row, in random order as they are; the floor of building.

Changed links: a twentieth as many rows are new, each leading to a random old one; or one in twenty
of the links leads to another random row. There the index is kept from being built anew.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from hashmem import SkipIndex, hops, kernels, skips

ROWS, STARTS, ROUNDS = 10_000_000, 1_000_000, 5
QUICK_ROWS, QUICK_STARTS, QUICK_ROUNDS = 3000, 100, 2
FAR, NEAR = 10**9, 100

OURS, ONE_HOP, DOUBLING, ONE_PASS = "SkipIndex", "one hop", "hop, by doubling", "one pass"
BUILD, MEMORY = "build (ns a link)", "memory (bytes a link)"
PATHS = ("path", "cycle")  # what is held to four times one hop, the others to ten times


def relabelled(above: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same graph with its rows in random order; -1 is an end."""
    names = random.permutation(len(above))
    successors = np.full(len(above), -1, np.int64)
    linked = above >= 0
    successors[names[linked]] = names[above[linked]]
    return successors


def shapes(rows: int, random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each graph's name and successors."""
    row = np.arange(rows)
    yield "path", relabelled(row - 1, random)
    yield "cycle", relabelled(np.roll(row, 1), random)
    earlier = (random.random(rows) * row).astype(np.int64)
    earlier[0] = -1
    yield "random recursive tree", relabelled(earlier, random)
    half = rows // 2
    yield "caterpillar", relabelled(np.where(row < half, row - 1, row - half), random)
    # Paths of 1, 3, 5, … rows, the head of each below the head of the next: sqrt(rows) paths on the
    # way to the root where each row shares its path with its longest branch.
    heads = np.arange(int(rows**0.5) + 2) ** 2
    steps = row - 1
    inside = heads[:-1] < rows
    steps[heads[:-1][inside]] = np.where(heads[1:] < rows, heads[1:], -1)[inside]
    yield "paths of 1, 3, 5, …", relabelled(steps, random)
    yield "random map", random.integers(0, rows, rows)
    yield "binary tree", relabelled((row + 1) // 2 - 1, random)
    stretched = np.where(row % 10 == 0, (row // 10 + 1) // 2 * 10 - 1, row - 1)
    yield "binary tree, each link ten", relabelled(stretched, random)


def left_of(index: SkipIndex, starts: np.ndarray) -> np.ndarray:
    """How many hops there are to the end of each start's chain or into its cycle, about."""
    depths = np.abs(index._current().nodes[starts, 0].astype(np.int64))
    return np.where(depths > len(index), np.abs(depths - (1 << 30)), depths)


def _shape(
    result: Result, name: str, successors: np.ndarray, starts: int, rounds: int, target: float
) -> None:
    rows = len(successors)
    random = np.random.default_rng(harness.SEED)
    at = random.integers(0, rows, starts)
    index = SkipIndex(successors)
    counts = {
        f"n to {FAR:,}".replace(",", " "): random.integers(0, FAR, starts),
        f"n to {NEAR}": random.integers(0, NEAR, starts),
        "n to the end": (random.random(starts) * (left_of(index, at) + 1)).astype(np.int64),
    }
    out, everywhere = np.empty(starts, np.int64), np.empty(rows, np.int64)
    one_hop = partial(kernels.current.hop, successors, at, 1, out)
    one_pass = partial(kernels.current.hop, successors, successors, 1, everywhere)
    for what, n in counts.items():
        calls: dict[str, Callable[[int], Timed]] = {
            OURS: lambda _, n=n: partial(index.skip, at, n),
            ONE_HOP: lambda _: one_hop,
        }
        _warm(calls)
        found = harness.race(calls, rounds)
        column = f"{what} (ns a start)"
        for who, kind in ((OURS, "ours"), (ONE_HOP, "floor")):
            result.add(name, column, who, kind, [1e9 * s / starts for s in found[who]])
        result.ratio(f"{name}, {what}: a skip to one hop", found[OURS], found[ONE_HOP], target)
    column = f"{FAR:,} hops (ns a start)".replace(",", " ")
    few = {
        OURS: lambda _: partial(index.skip, at, FAR),
        DOUBLING: lambda _: partial(hops.hop, successors, at, FAR),
    }
    for who, samples in harness.race(few, min(rounds, 2)).items():
        kind = "ours" if who == OURS else "rival"
        result.add(name, column, who, kind, [1e9 * s / starts for s in samples])
    builds: dict[str, Callable[[int], Timed]] = {
        OURS: lambda _: index._build,
        ONE_PASS: lambda _: one_pass,
    }
    _warm(builds)
    found = harness.race(builds, min(rounds, 3))
    result.add(name, BUILD, OURS, "ours", [1e9 * s / rows for s in found[OURS]])
    result.add(name, BUILD, ONE_PASS, "floor", [1e9 * s / rows for s in found[ONE_PASS]])
    result.ratio(f"{name}: a build to one pass", found[OURS], found[ONE_PASS], 10)
    result.add(name, MEMORY, OURS, "ours", [index.nbytes / rows])


def _warm(calls: dict[str, Callable[[int], Timed]]) -> None:
    for prepare in calls.values():
        prepare(0)()


def _changes(result: Result, rows: int, starts: int, rounds: int) -> None:
    """Compare an index with changed links to one built anew of the same links."""
    for name, successors in shapes(rows, np.random.default_rng(harness.SEED)):
        if name not in (*PATHS, "random recursive tree"):
            continue
        random = np.random.default_rng(harness.SEED)
        some = random.choice(rows, rows // 20, replace=False)
        for sources, how, mosts in (
            (np.arange(rows, rows + rows // 20), "new rows", (NEAR, FAR)),
            (some, "redirected", (10, NEAR)),
        ):
            index = SkipIndex(successors)
            index.skip(np.zeros(1, np.int64), 1)  # so that it is there
            targets = random.integers(0, rows, len(sources))
            took = harness.seconds(partial(index.set, sources, targets))
            table = f"{name}, one link in twenty changed: {how}"
            result.add(table, "set (ns a link)", "changed", "ours", [1e9 * took / len(sources)])
            at = random.integers(0, len(index), starts)
            for most in mosts:
                n = random.integers(0, most, starts)
                _one_change(result, table, index, at, n, f"n to {most:,}".replace(",", " "), rounds)


def _one_change(
    result: Result,
    table: str,
    index: SkipIndex,
    at: np.ndarray,
    n: np.ndarray,
    what: str,
    rounds: int,
) -> None:
    anew = SkipIndex(index.successors)

    def changed(_: int) -> Timed:
        assert index._index is not None
        index._index.followed = 0  # lest it is built anew: here it is to be slow
        return partial(index.skip, at, n)

    calls: dict[str, Callable[[int], Timed]] = {
        "changed": changed,
        "built anew": lambda _: partial(anew.skip, at, n),
    }
    _warm(calls)
    found = harness.race(calls, rounds)
    for who, samples in found.items():
        per_start = [1e9 * s / len(at) for s in samples]
        result.add(table, f"{what} (ns a start)", who, "ours", per_start)
    ratio = f"{table}, {what}: changed to built anew"
    result.ratio(ratio, found["changed"], found["built anew"], 2)


def run(quick: bool = False) -> Result:
    """Race skips over every shape."""
    result = Result("skips", __doc__)
    rows, starts, rounds = (
        (QUICK_ROWS, QUICK_STARTS, QUICK_ROUNDS) if quick else (ROWS, STARTS, ROUNDS)
    )
    for name, successors in shapes(rows, np.random.default_rng(harness.SEED)):
        _shape(result, name, successors, starts, rounds, 4 if name in PATHS else 10)
    stale, skips.STALE = skips.STALE, 1.0
    try:
        _changes(result, rows, starts, rounds)
    finally:
        skips.STALE = stale
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
