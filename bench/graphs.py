"""Graphs: searches along any number of links, reverses, and several values for one digest.

A million rows and eight million links: *uniform*, from anywhere to anywhere, and *Zipf*, where few
rows are what most links lead to (exponent 1), rows in random order. Every rival has the links in
the form that it likes best, made beforehand. *Whole graph*: all that one row leads to, with
distances where a rival gives them. *Nearest*: the first rows that a breadth-first search comes to
from a random row, a hundred searches in a sample. *Shortest chain*: between random rows, ten in a
sample; hashmem and the bidirectional rival are given the reverse, made once.

- **list of lists**: a queue and a set of rows found, in plain Python; for chains one from each end.
- **NumPy, level by level**: all links of a level at once; found rows are flags.
- **scipy**: `breadth_first_order`, which has no limit and searches from one end; the reverse is
  `csr_array.tocsc`. It sorts each row's links, so it comes to the rows of a level in another order.
- **one random read a link**: as many reads of 8 bytes from the array of targets, in random order.

Multimaps: four million pairs of an 8-byte digest and a number, a million digests, in random order,
in 16 batches. Finds ask for a random million of the digests at once.

- **dict of lists**: bytes → list, one pair at a time.
- **pandas**: `groupby` of the digests as numbers, `indices`; one look-up a digest. No pair can be
  added to it.
- **NumPy, sorted**: a stable argsort of the digests as numbers, searched by bisection. The same.
"""

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from bench.table_race import zipf_ranks
from bench.table_rivals import as_bytes, as_words, digests_of
from hashmem import DigestMultimap, hops, kernels

ROWS, DEGREE, ROUNDS = 1_000_000, 8, 5
DIGESTS, VALUES, BATCHES = 1_000_000, 4, 16
SEARCHES, LIMIT, CHAINS = 100, 1000, 10
QUICK_ROWS, QUICK_DIGESTS, QUICK_ROUNDS = 1000, 500, 2

OURS = "hashmem"
REFERENCE = "hashmem, without a compiler"
LISTS, LEVELS, SCIPY = "list of lists", "NumPy, level by level", "scipy"
READS = "one random read a link"
WHOLE, REVERSE = "whole graph (ns a link)", "reverse (ns a link)"
NEAREST, CHAIN = "nearest {} rows (µs a search)", "shortest chain (µs)"
ADD, FIND = "add (ns a pair)", "find (ns a value)"
DICT, PANDAS, SORTED = "dict of lists", "pandas groupby", "NumPy, sorted"

Rows = np.ndarray
Lists = list[list[int]]


def graph_of(rows: int, zipf: bool, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the links as (offsets, targets)."""
    edges = rows * DEGREE
    sources = np.sort(random.integers(0, rows, edges))
    if zipf:
        targets = random.permutation(rows)[zipf_ranks(rows, edges, random)]
    else:
        targets = random.integers(0, rows, edges)
    return np.append(0, np.cumsum(np.bincount(sources, minlength=rows))), targets


def as_lists(offsets: Rows, targets: Rows) -> Lists:
    flat, bounds = targets.tolist(), offsets.tolist()
    return [flat[begin:end] for begin, end in itertools.pairwise(bounds)]


# ---------------------------------------------------------------- rivals: what is found, in order


def lists_nearest(lists: Lists, start: int, limit: int) -> list[int]:
    found, queue, order = {start}, deque([start]), [start]
    while queue:
        for target in lists[queue.popleft()]:
            if target not in found:
                if len(order) == limit:
                    return order
                found.add(target)
                order.append(target)
                queue.append(target)
    return order


def lists_shortest(lists: Lists, parents: Lists, start: int, end: int) -> list[int]:
    """Search from both ends, a level at a time where fewer rows wait."""
    if start == end:
        return [start]
    sides = ({start: -1}, [start], lists), ({end: -1}, [end], parents)
    while sides[0][1] and sides[1][1]:
        near, far = sides if len(sides[0][1]) <= len(sides[1][1]) else sides[::-1]
        known, level, links = near
        fresh = []
        for row in level:
            for target in links[row]:
                if target not in known:
                    known[target] = row
                    if target in far[0]:
                        ways = [_way(side[0], target) for side in sides]
                        return [*ways[0][::-1], *ways[1][1:]]
                    fresh.append(target)
        level[:] = fresh
    return []


def _way(origins: dict[int, int], row: int) -> list[int]:
    way = []
    while row >= 0:
        way.append(row)
        row = origins[row]
    return way


def levels_nearest(offsets: Rows, targets: Rows, start: int, limit: int) -> Rows:
    seen = np.zeros(len(offsets) - 1, np.bool_)
    seen[start] = True
    level = np.array([start])
    found, count = [level], 1
    while len(level) and count < limit:
        begins, sizes = offsets[level], offsets[level + 1] - offsets[level]
        ends = np.cumsum(sizes)
        reached = targets[np.repeat(begins - (ends - sizes), sizes) + np.arange(sizes.sum())]
        reached = reached[~seen[reached]]
        _, first = np.unique(reached, return_index=True)
        level = reached[np.sort(first)][: limit - count]
        seen[level] = True
        found.append(level)
        count += len(level)
    return np.concatenate(found)


class Scipy:
    """The same links as a `csr_array`."""

    def __init__(self, offsets: Rows, targets: Rows) -> None:
        from scipy.sparse import csgraph, csr_array

        links = np.ones(len(targets), np.int8), targets, offsets
        self.graph = csr_array(links, shape=(len(offsets) - 1,) * 2)
        self.search = csgraph.breadth_first_order

    def whole(self, start: int) -> Rows:
        return self.search(self.graph, start, return_predecessors=False)

    def shortest(self, start: int, end: int) -> list[int]:
        if start == end:
            return [start]
        _, origins = self.search(self.graph, start)
        return _way(origins, end)[::-1] if origins[end] >= 0 else []


def scipy_of(result: Result, offsets: Rows, targets: Rows) -> Scipy | None:
    """The rival, or None where it is not installed."""
    try:
        return Scipy(offsets, targets)
    except ImportError as error:
        result.left_out[SCIPY] = str(error)
        return None


# ------------------------------------------------------------------------------------------ races

Calls = dict[str, Callable[[], Any]]  # by contestant


def searches(
    graph: tuple[Rows, Rows], lists: Lists, scipy: Scipy | None, starts: list[int], limit: int
) -> tuple[Calls, Calls]:
    """All that searches a whole graph from the first start, and up to a limit from each."""
    rows = len(lists)

    def each(search: Callable[[int], Any]) -> Callable[[], list[Any]]:
        return lambda: [search(start) for start in starts]

    def ours(kernel: str, start: int, limit: int) -> Rows:
        kernels.select(kernel)
        return hops.frontier(*graph, np.array([start]), limit=limit)[0]

    whole: Calls = {}
    nearest: Calls = {}
    for name, search in (
        (OURS, partial(ours, kernels.available[0])),
        (REFERENCE, partial(ours, "reference")),
        (LEVELS, partial(levels_nearest, *graph)),
        (LISTS, partial(lists_nearest, lists)),
    ):
        whole[name] = partial(search, starts[0], rows)
        nearest[name] = each(partial(lambda start, search: search(start, limit), search=search))
    if scipy is not None:
        whole[SCIPY] = partial(scipy.whole, starts[0])
    return whole, nearest


def chains(
    graph: tuple[Rows, Rows], lists: Lists, scipy: Scipy | None, pairs: list[tuple[int, int]]
) -> Calls:
    """All that finds a shortest chain for each of the pairs."""
    back = hops.reverse(*graph)
    parents = as_lists(*back)

    def each(search: Callable[[int, int], Any]) -> Callable[[], list[Any]]:
        return lambda: [search(*pair) for pair in pairs]

    found: Calls = {
        OURS: each(partial(hops.shortest, *graph, reverse=back)),
        LISTS: each(partial(lists_shortest, lists, parents)),
    }
    if scipy is not None:
        found[SCIPY] = each(scipy.shortest)
    return found


def _race(
    result: Result, table: str, column: str, calls: Calls, rounds: int, scale: float
) -> dict[str, list[float]]:
    prepared: dict[str, Callable[[int], Timed]] = {
        name: partial(lambda call, _: call, call) for name, call in calls.items()
    }
    found = harness.race(prepared, rounds)
    for name, samples in found.items():
        kind = "floor" if name == READS else "ours" if name.startswith(OURS) else "rival"
        result.add(table, column, name, kind, [scale * sample for sample in samples])
    return found


def _graph(result: Result, name: str, rows: int, rounds: int) -> None:
    random = np.random.default_rng(harness.SEED)
    graph = graph_of(rows, name == "Zipf", random)
    lists, scipy = as_lists(*graph), scipy_of(result, *graph)
    edges = len(graph[1])
    table = f"{name}: {rows:,} rows, {edges:,} links".replace(",", " ")
    starts = random.permutation(np.flatnonzero(np.diff(graph[0])))[:SEARCHES].tolist()
    limit = min(LIMIT, rows // 10)
    whole, nearest = searches(graph, lists, scipy, starts, limit)
    everywhere, out = random.permutation(edges), np.empty(edges, np.int64)
    native = kernels.available[0]
    reached = np.isin(np.arange(rows), hops.frontier(*graph, np.array(starts[:1]))[0])
    followed = int(np.diff(graph[0])[reached].sum())
    calls = {
        READS: partial(kernels.current.hop, graph[1], everywhere[:followed], 1, out[:followed])
    }
    found = _race(result, table, WHOLE, {**whole, **calls}, rounds, 1e9 / followed)
    result.ratio(f"{table}: a link of a whole search to a random read", found[OURS], found[READS])
    _race(result, table, NEAREST.format(limit), nearest, rounds, 1e6 / len(starts))

    kernels.select(native)
    pairs = random.integers(0, rows, (CHAINS, 2)).tolist()
    _race(result, table, CHAIN, chains(graph, lists, scipy, pairs), rounds, 1e6 / CHAINS)

    one_pass = partial(kernels.current.hop, graph[1], everywhere, 1, out)
    calls: Calls = {OURS: partial(hops.reverse, *graph), READS: one_pass}
    if scipy is not None:
        calls[SCIPY] = scipy.graph.tocsc
    found = _race(result, table, REVERSE, calls, rounds, 1e9 / edges)
    result.ratio(f"{table}: a link of a reverse to a random read", found[OURS], found[READS])


# -------------------------------------------------------------------------------------- multimaps


class Multimap:
    """`add` all pairs anew, then `find`: each prepares its input untimed and returns the call."""

    held: Any = None

    def add(self, digests: Rows, values: Rows) -> Timed:
        raise NotImplementedError

    def find(self, digests: Rows) -> Timed:
        raise NotImplementedError

    def _keep(self, held: Any) -> None:
        self.held = held


class Ours(Multimap):
    def add(self, digests: Rows, values: Rows) -> Timed:
        self.held = None
        parts = list(
            zip(np.array_split(digests, BATCHES), np.array_split(values, BATCHES), strict=True)
        )

        def fill() -> None:
            self.held = DigestMultimap(digests.shape[1])
            for some, its in parts:
                self.held.add(some, its)

        return fill

    def find(self, digests: Rows) -> Timed:
        return lambda: self.held.find(digests)


class Dict(Multimap):
    def add(self, digests: Rows, values: Rows) -> Timed:
        self.held = None
        keys, numbers = as_bytes(digests), values.tolist()

        def fill() -> None:
            held: dict[bytes, list[int]] = {}
            for key, number in zip(keys, numbers, strict=True):
                held.setdefault(key, []).append(number)
            self.held = held

        return fill

    def find(self, digests: Rows) -> Timed:
        keys = as_bytes(digests)
        return lambda: [self.held.get(key) for key in keys]


class Pandas(Multimap):
    def __init__(self) -> None:
        import pandas

        self.series = pandas.Series

    def add(self, digests: Rows, values: Rows) -> Timed:
        self.held = None
        words = as_words(digests)
        self.values = values
        return lambda: self._keep(self.series(values).groupby(words, sort=False).indices)

    def find(self, digests: Rows) -> Timed:
        words = as_words(digests).tolist()
        return lambda: [self.values[self.held[word]] for word in words]


class Sorted(Multimap):
    def add(self, digests: Rows, values: Rows) -> Timed:
        words = as_words(digests)

        def fill() -> None:
            order = np.argsort(words, kind="stable")
            self.held = words[order], values[order]

        return fill

    def find(self, digests: Rows) -> Timed:
        words = as_words(digests)

        def look_up() -> tuple[Rows, Rows]:
            keys, values = self.held
            begins = np.searchsorted(keys, words)
            sizes = np.searchsorted(keys, words, side="right") - begins
            ends = np.cumsum(sizes)
            places = np.repeat(begins - (ends - sizes), sizes) + np.arange(sizes.sum())
            return np.append(0, ends), values[places]

        return look_up


MULTIMAPS = {OURS: Ours, DICT: Dict, PANDAS: Pandas, SORTED: Sorted}


def multimaps(result: Result) -> dict[str, Multimap]:
    """Make all that can run here; name the rest in the result."""
    made = {}
    for name, make in MULTIMAPS.items():
        try:
            made[name] = make()
        except ImportError as error:
            result.left_out[name] = str(error)
    return made


def _multimaps(result: Result, amount: int, rounds: int) -> None:
    random = np.random.default_rng(harness.SEED)
    owners = random.integers(0, amount, amount * VALUES)
    digests, values = digests_of(0, amount, 8), np.arange(len(owners))
    pairs, asked = digests[owners], digests[random.integers(0, amount, amount)]
    table = f"{len(owners):,} values of {amount:,} digests".replace(",", " ")
    asked = asked[np.isin(as_words(asked), as_words(pairs))]  # some have no value
    running = multimaps(result)
    adding = {name: partial(lambda m, _: m.add(pairs, values), m) for name, m in running.items()}
    kinds = {name: "ours" if name == OURS else "rival" for name in running}
    for name, samples in harness.race(adding, rounds).items():
        result.add(table, ADD, name, kinds[name], [1e9 * s / len(values) for s in samples])
    finding = {name: partial(lambda m, _: m.find(asked), m) for name, m in running.items()}
    found = len(running[OURS].find(asked)()[1])
    for name, samples in harness.race(finding, rounds).items():
        result.add(table, FIND, name, kinds[name], [1e9 * s / found for s in samples])


def run(quick: bool = False) -> Result:
    """Race searches over both graphs, then the multimaps."""
    result = Result("graphs", __doc__)
    rows, digests, rounds = (
        (QUICK_ROWS, QUICK_DIGESTS, QUICK_ROUNDS) if quick else (ROWS, DIGESTS, ROUNDS)
    )
    before = kernels.active
    kernels.select(kernels.available[0])
    try:
        for name in ("uniform", "Zipf"):
            _graph(result, name, rows, rounds)
        _multimaps(result, digests, rounds)
    finally:
        kernels.select(before)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
