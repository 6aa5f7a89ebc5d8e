"""What the table bench's figures come to, as ratios with targets: the worst over all widths each.

A ratio over a rival says how many times faster we are. The fastest peer is the fastest Python
library in that cell, also where it holds no more than 8 bytes of each digest.
"""

from collections.abc import Callable, Iterable, Sequence

from bench import table_upkeep
from bench.harness import Result, per_round, summary
from bench.table_finds import COLUMNS, HITS, MISSES, OVERHEAD, ZIPF, limit_of
from bench.table_inserts import AT_ONCE, COPY, INSERT, PAUSE
from bench.table_race import OURS, Case
from bench.table_rivals import REFERENCE, DictFromArrays, DictLoop, Hirola
from bench.table_singles import FRESH, KNOWN, SMALL
from bench.table_threads import ONE, TWO
from bench.yardsticks import PREFIX

Samples = Sequence[float]
Pair = tuple[Samples | None, Samples | None]
SHORT = {OURS[0]: "open addressing", OURS[1]: "chaining"}


def _median(samples: Samples) -> float:
    return summary(samples)["median"]


def _worst(
    result: Result,
    what: str,
    titles: Iterable[str],
    pair: Callable[[str], Pair],
    target: float | None,
    at_least: bool = False,
) -> None:
    """Keep the worst of a ratio over the tables of these titles; nothing where none ran."""
    found = {}
    for title in titles:
        numerator, denominator = pair(title)
        if numerator and denominator:
            found[title] = per_round(numerator, denominator)
    if found:
        choose = min if at_least else max
        title = choose(found, key=lambda title: _median(found[title]))
        worst = f" (the worst: {title})" if len(found) > 1 else f" ({title})"
        result.headline(what + worst, found[title], target, at_least)


def _fastest_peer(result: Result, title: str, column: str) -> Samples | None:
    loops = DictLoop.name, DictFromArrays.name
    found = [
        row.samples
        for row in result.rows
        if (row.table, row.column, row.kind) == (title, column, "rival")
        and not row.contestant.startswith(PREFIX)
        and row.contestant not in loops
    ]
    return min(found, key=_median, default=None)


def add_headlines(result: Result, cases: Sequence[Case]) -> None:
    """Add every headline that the rows of these cases, all of one size, give."""
    cell = result.samples
    for huge in (True, False):
        titles = [case.title for case in cases if case.huge == huge]
        for column in COLUMNS:
            _finds(result, titles, column, "" if huge else ", small pages")
    titles = [case.title for case in cases if case.huge]
    for column in (AT_ONCE, INSERT):
        for name in OURS:
            _worst(
                result,
                f"{column.removesuffix(' (ns)')}: {SHORT[name]} faster than the fastest peer",
                titles,
                lambda title, name=name, column=column: (
                    _fastest_peer(result, title, column),
                    cell(title, column, name),
                ),
                3,
                at_least=True,
            )
    for name in OURS:
        _worst(
            result,
            f"{SHORT[name]}: longest pause to a copy of the arrays",
            titles,
            lambda title, name=name: (cell(title, PAUSE, name), cell(title, COPY, name)),
            2,
        )
    for name, target in zip(OURS, (12, 16), strict=True):
        overheads = {title: cell(title, OVERHEAD, name) for title in titles}
        overheads = {title: samples for title, samples in overheads.items() if samples}
        if overheads:
            title = max(overheads, key=lambda title: _median(overheads[title]))
            worst = f"the worst: {title}" if len(overheads) > 1 else title
            what = f"{SHORT[name]}: overhead, mean over the fill, B an entry ({worst})"
            result.headline(what, overheads[title], target)
    _threads_and_singles(result, titles)
    _reference(result, titles)


def _finds(result: Result, titles: list[str], column: str, pages: str) -> None:
    cell, asked = result.samples, column.removesuffix(" (ns)") + pages
    for name in OURS:
        _worst(
            result,
            f"{asked}: {SHORT[name]} to memory alone",
            titles,
            lambda title, name=name: (
                cell(title, column, name),
                cell(title, column, limit_of(name)),
            ),
            1.5,
        )
        for what, target in (("the fastest peer", 3), ("a dict loop", 10)):
            _worst(
                result,
                f"{asked}: {SHORT[name]} faster than {what}",
                titles,
                lambda title, name=name, what=what: (
                    cell(title, column, DictLoop.name)
                    if what == "a dict loop"
                    else _fastest_peer(result, title, column),
                    cell(title, column, name),
                ),
                target,
                at_least=True,
            )


def _threads_and_singles(result: Result, titles: list[str]) -> None:
    cell = result.samples
    for name in OURS:
        for who, target in ((name, 1.8), (limit_of(name), None)):
            _worst(
                result,
                f"two threads to one on hits: {SHORT.get(who, who)}",
                titles,
                lambda title, who=who: (cell(title, ONE, who), cell(title, TWO, who)),
                target,
                at_least=True,
            )
    for name in OURS:
        for column, where, target in ((FRESH, [SMALL], 5), (KNOWN, [SMALL], 5), (FRESH, titles, 1)):
            _worst(
                result,
                f"{column.removesuffix(' (ns)')}: {SHORT[name]} to dict",
                where,
                lambda title, name=name, column=column: (
                    cell(title, column, name),
                    cell(title, column, DictLoop.name),
                ),
                target,
            )


def _reference(result: Result, titles: list[str]) -> None:
    for column in (INSERT, HITS, ZIPF, MISSES):
        _worst(
            result,
            f"{column.removesuffix(' (ns)')}: reference kernels to hirola",
            titles,
            lambda title, column=column: (
                result.samples(title, column, REFERENCE),
                result.samples(title, column, Hirola.name),
            ),
            1,
        )


def add_upkeep_headlines(result: Result, cases: Sequence[Case]) -> None:
    """Add what churn and load come to."""
    for name in OURS:
        titles = [table_upkeep.churn_title(case, name) for case in cases]
        for column in (table_upkeep.FIND, table_upkeep.MEMORY, table_upkeep.RESIDENT):
            _worst(
                result,
                f"after ten rounds of churn to fresh, {column.partition(' (')[0]}: {SHORT[name]}",
                titles,
                lambda title, column=column: (
                    result.samples(title, column, table_upkeep.CHURNED),
                    result.samples(title, column, table_upkeep.FRESH),
                ),
                1.1,
            )
    for case in cases:
        table = table_upkeep.lines_title(case.width)
        for load in (0.85, 0.9, 0.95):
            for column, target in (("hits, mean", 2), ("hits, p99", 4), ("misses, p99", 4)):
                result.headline(
                    f"lines touched by {column}: load {load}, {case.width} bytes",
                    result.samples(table, column, f"load {load}"),
                    target,
                )
