"""What the parts of the table bench share: who runs, at which sizes, and how often."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench import harness, table_peers, table_rivals, yardsticks
from bench.harness import Result, Timed
from bench.table_rivals import BASELINE, CHAINING, Contestant, Cykhash, DictLoop, Hirola, Pandas

MAKERS: dict[str, Callable[[], Contestant]] = {
    **table_rivals.MAKERS,
    **table_peers.MAKERS,
    **yardsticks.MAKERS,
}
OURS = (BASELINE, CHAINING)  # whose limit is measured beside them
SWIFT = (*OURS, DictLoop.name, Hirola.name, Cykhash.name, Pandas.name)  # at every size
ROUNDS, SLOW_ROUNDS, SLOW_FROM = 5, 2, 1_000_000  # keys
WARM = 1 << 26  # bytes: more than the results of a batch take
BATCH, QUICK_BATCH, QUICK_ROUNDS = 1 << 20, 300, 2  # queries in a find
ZIPF_EXPONENT = 0.99  # YCSB's: a few digests take most of the queries


@dataclass(frozen=True)
class Case:
    """One size that all run at: `n` digests of `width` bytes."""

    n: int
    width: int
    names: tuple[str, ...] = tuple(MAKERS)
    quick: bool = False
    huge: bool = True  # pages

    @property
    def title(self) -> str:
        pages = "" if self.huge else ", small pages"
        return f"{self.n:,}".replace(",", " ") + f" digests of {self.width} bytes{pages}"

    @property
    def queries(self) -> int:
        return QUICK_BATCH if self.quick else BATCH

    def rounds(self, most: int = ROUNDS) -> int:
        return min(most, QUICK_ROUNDS) if self.quick else most

    def digests(self) -> np.ndarray:
        """The digests that every contestant holds → uint8 (n, width)."""
        return table_rivals.random_digests(0, self.n, self.width)


def contestants(result: Result, names: Iterable[str]) -> list[Contestant]:
    """Make all of `names` that can run here; name the rest in the result."""
    made = []
    for name in names:
        try:
            made.append(MAKERS[name]())
        except ImportError as error:
            result.left_out[name] = str(error)
    return made


def zipf_ranks(n: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw `count` ranks in [0, n) with probability ∝ 1 / (rank + 1)**ZIPF_EXPONENT."""
    heights = np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
    return np.searchsorted(heights, random.random(count) * heights[-1])


def race(
    result: Result,
    case: Case,
    column: str,
    count: int,
    able: Sequence[Contestant],
    prepare: Callable[[Contestant, int], Timed],
    rounds: int = ROUNDS,
    beside: dict[str, Callable[[int], Timed]] | None = None,
) -> None:
    """Race all that are `able`, and the floors `beside` them, over `count` keys: ns each.

    Those that take long take fewer rounds where there are many keys, after the others.
    """
    slow = [c for c in able if c.slow and case.n >= SLOW_FROM]
    quick = [c for c in able if c not in slow]
    found: dict[str, list[float]] = {}
    for group, most in ((quick, rounds), (slow, min(rounds, SLOW_ROUNDS))):
        calls = {c.name: partial(prepare, c) for c in group}
        if group is quick:
            calls |= beside or {}
        found |= harness.race(calls, case.rounds(most), warm=0 if case.quick else WARM)
    kinds = {c.name: c.kind for c in able} | dict.fromkeys(beside or {}, "floor")
    for name, kind in kinds.items():
        result.add(case.title, column, name, kind, [1e9 * s / count for s in found[name]])


def absent_digests(case: Case) -> Iterable[np.ndarray]:
    """Yield batches of digests that no table holds."""
    for seed in itertools.count(1):
        yield table_rivals.random_digests(seed, case.queries, case.width)
