"""Whether the order of the lines matters: the same chains under several shuffles, and a test.

Every query is asked under each order, so answers are paired: what is compared is a table of right
and wrong, queries × orders. W. G. Cochran's Q (Biometrika 37, 1950, p. 256) asks whether the
columns differ by more than chance would make them, where chance leaves each query as many right
answers as it has and deals them out to the orders alike. Its distribution is taken from exactly
that, by counting or by drawing, and not from the chi-square that it tends to. Two orders at a time
are compared by McNemar's exact test (Psychometrika 12, 1947, p. 153), and these p-values are
adjusted for their number after Holm (Scand. J. Statist. 6, 1979, p. 65).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.hashhop.results import Result, Source, as_results
from hashmem.hashhop.score import wilson_interval

ROUNDS = 9_999  # draws, where there are too many tables to count
_STEPS = 100_000  # of counting, about 0.2 s
# What metadata says of the shuffled text. All else must be the same for chains to be the same.
_OF_THE_ORDER = ("order", "sha256", "token")


@dataclass(frozen=True)
class Pair:
    """Two orders compared on the same queries."""

    first: int
    second: int
    only_first: int  # queries right under the first order alone
    only_second: int
    p: float  # McNemar's, exact, two-sided
    adjusted_p: float  # after Holm, over all pairs of the comparison


@dataclass(frozen=True, eq=False)
class OrderComparison:
    """What the answers to the same queries under several orders tell."""

    orders: tuple[int, ...]
    queries: tuple[str, ...]  # those that were replied to under every order
    correct: NDArray[np.bool_]  # (queries, orders)
    left_out: int  # queries without a reply under at least one order
    statistic: float  # Cochran's Q
    p: float
    draws: int  # random tables behind `p`; 0: exact, all were counted
    pairs: tuple[Pair, ...]

    @property
    def accuracy(self) -> dict[int, tuple[float, float, float]]:
        """Order → accuracy and the bounds of its 95 % Wilson interval, on `queries`."""
        count = len(self.queries)
        hits = self.correct.sum(axis=0).tolist()
        return {
            order: (n / count if count else math.nan, *wilson_interval(n, count))
            for order, n in zip(self.orders, hits, strict=True)
        }


def compare_orders(
    results: Sequence[Source] | Mapping[str, Source | Sequence[Source]],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> OrderComparison:
    """Compare the scores of one sample under several orders: `Score` objects or their JSON.

    Queries that one of them has no reply to are left out of all. `rounds` and `seed` are those of
    `cochran_test`. Raises `ValueError` on fewer than two results, on an order given twice, and on
    samples that differ in more than their order.
    """
    checked = as_results(results)
    if len(checked) < 2:
        raise ValueError("one order compares with nothing: give the scores of at least two")
    first = checked[0]
    for result in checked:
        if not isinstance(result.sample.get("order"), int):
            raise ValueError(
                f"{result.name}: a sample in the {result.sample['format']} format has no order"
            )
        if (differing := _difference(first.sample, result.sample)) is not None:
            raise ValueError(
                f"{first.name} and {result.name} are of samples that differ in {differing!r}, "
                "not in 'order' alone: their queries are not the same"
            )
    orders = tuple(int(result.sample["order"]) for result in checked)
    if len(set(orders)) < len(orders):
        twice = next(order for order in orders if orders.count(order) > 1)
        raise ValueError(f"order {twice} was given twice: leave one result out")
    tables = [result.correct for result in checked]
    queries = tuple(query for query in tables[0] if all(query in table for table in tables))
    correct = np.array([[table[query] for table in tables] for query in queries], bool)
    correct = correct.reshape(len(queries), len(orders))
    asked = [result.data["queries"] + result.data["failed"] for result in checked]
    statistic, p, draws = cochran_test(correct, rounds=rounds, seed=seed)
    return OrderComparison(
        orders=orders,
        queries=queries,
        correct=correct,
        left_out=max(asked) - len(queries),
        statistic=statistic,
        p=p,
        draws=draws,
        pairs=_compare_pairs(orders, correct),
    )


def shuffles_of_one(result: Result) -> str:
    """Return what results of the same chains, answered by the same system, have in common."""
    shared = {key: value for key, value in result.sample.items() if not _is_of_the_order(key)}
    return repr((result.system, sorted(shared.items(), key=lambda item: item[0])))


def cochran_q(correct: ArrayLike) -> float:
    """Return Cochran's Q of a table of right and wrong, (queries, orders); 0 where none differ.

    >>> cochran_q([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    4.666666666666667
    """
    table = np.asarray(correct, bool)
    columns, rows = table.sum(axis=0), table.sum(axis=1)
    k, total = table.shape[1], int(rows.sum())
    spread = k * total - int((rows**2).sum())
    if not spread:
        return 0.0
    return float((k - 1) * (k * int((columns**2).sum()) - total**2) / spread)


def cochran_test(
    correct: ArrayLike, *, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float, int]:
    """Return Cochran's Q of a table (queries, orders), its p-value, and how many draws gave that.

    The p-value is the share of tables with a Q as large, among all that have the same number of
    right answers in each row. They are counted (0 draws) where that takes a fraction of a second,
    and for two orders always, where the test is McNemar's. Otherwise `rounds` are drawn from
    `seed`, and the table itself counts as one more of them, so that p is never below
    1 / (rounds + 1). Queries that are right under every order or under none say nothing.
    O(queries · orders + rounds · orders²). Raises `ValueError` on a table of fewer than two orders
    and on no rounds.

    >>> cochran_test([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    (4.666666666666667, 0.2222222222222222, 0)
    """
    table = np.asarray(correct, bool)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"a table of queries by at least 2 orders is compared, not {table.shape}")
    if rounds < 1:
        raise ValueError(f"at least 1 round is drawn, not {rounds}")
    k = table.shape[1]
    if k == 2:
        alone = [int((table[:, a] & ~table[:, 1 - a]).sum()) for a in (0, 1)]
        return cochran_q(table), mcnemar_test(*alone), 0
    rows = table.sum(axis=1)
    telling = Counter(rows[(rows > 0) & (rows < k)].tolist())  # right answers in a row → rows
    # Q grows with the sum of squares of the columns and all else in it is fixed: whole numbers.
    columns = table[(rows > 0) & (rows < k)].sum(axis=0)
    observed = int((columns**2).sum())
    counted = _count_tables(telling, k)
    if counted is not None:
        extreme = sum(n for sums, n in counted.items() if sum(s * s for s in sums) >= observed)
        return cochran_q(table), extreme / sum(counted.values()), 0
    drawn = _draw_columns(telling, k, rounds, np.random.default_rng(seed))
    extreme = int(((drawn**2).sum(axis=1) >= observed).sum())
    return cochran_q(table), (extreme + 1) / (rounds + 1), rounds


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p-value from the queries right in one of two ways alone.

    Each of these goes either way with chance 1 / 2 where neither is better: the binomial tail from
    the smaller count on, twice, 1 at most (Psychometrika 12, 1947, p. 153). O(n) operations on
    numbers of n bits.

    >>> mcnemar_test(1, 5)
    0.21875
    """
    n = only_first + only_second
    tail = ways = 1  # of choosing i from n; whole numbers, so that no rounding adds up
    for i in range(min(only_first, only_second)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return float(min(1.0, 2 * tail / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number after Holm, in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _count_tables(telling: Mapping[int, int], k: int) -> dict[tuple[int, ...], int] | None:
    """Column sums → tables that have them, in any order of columns; None: too many to count.

    Columns are alike under the null, so sums are kept in ascending order.
    """
    counted = {(0,) * k: 1}
    steps = 0
    for right, rows in telling.items():
        # Before anything is listed: of 40 orders half can be chosen in 10^11 ways.
        if math.comb(k, right) > _STEPS:
            return None
        choices = list(combinations(range(k), right))
        for _ in range(rows):
            steps += len(counted) * len(choices)
            if steps > _STEPS:
                return None
            following: Counter[tuple[int, ...]] = Counter()
            for sums, n in counted.items():
                for choice in choices:
                    added = list(sums)
                    for column in choice:
                        added[column] += 1
                    following[tuple(sorted(added))] += n
            counted = dict(following)
    return counted


def _draw_columns(
    telling: Mapping[int, int], k: int, rounds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the column sums of `rounds` random tables, (rounds, k), without the tables.

    Of the rows that have r right answers left for c columns, the next column takes each with
    chance r / c. So the rows only have to be counted by r.
    """
    left = np.zeros((rounds, k + 1), np.int64)  # rows by the right answers they have left
    for right, rows in telling.items():
        left[:, right] = rows
    sums = np.empty((rounds, k), np.int64)
    for column in range(k):
        chance = np.minimum(np.arange(k + 1) / (k - column), 1.0)  # above: no rows are there
        taken = rng.binomial(left, chance)
        sums[:, column] = taken.sum(axis=1)
        left -= taken
        left[:, :-1] += taken[:, 1:]
    return sums


def _compare_pairs(orders: tuple[int, ...], correct: NDArray[np.bool_]) -> tuple[Pair, ...]:
    counts = []
    for a, b in combinations(range(len(orders)), 2):
        first, second = correct[:, a], correct[:, b]
        alone = int((first & ~second).sum()), int((second & ~first).sum())
        counts.append((orders[a], orders[b], *alone))
    p_values = [mcnemar_test(*alone) for _, _, *alone in counts]
    found = zip(counts, p_values, holm(p_values), strict=True)
    return tuple(Pair(*count, p=p, adjusted_p=adjusted) for count, p, adjusted in found)


def _is_of_the_order(key: str) -> bool:
    return any(part in key for part in _OF_THE_ORDER)


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """The first key, besides those of the order, under which two samples differ."""
    for key in sorted({*first, *second}):
        if not _is_of_the_order(key) and (
            key not in first or key not in second or first[key] != second[key]
        ):
            return key
    return None
