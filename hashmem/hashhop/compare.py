"""What an external memory is worth to a model: the same queries with and without it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hashmem.hashhop.ask import Endpoint
from hashmem.hashhop.measuring import Count
from hashmem.hashhop.orders import mcnemar_test
from hashmem.hashhop.questions import AskedSample
from hashmem.hashhop.run import Result, run


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same queries, query by query; those that lack a reply are left out."""

    without: list[Result]
    with_tools: list[Result]
    both: int  # queries right in both runs
    only_without: int  # right only without tools
    only_with_tools: int
    neither: int
    left_out: int  # no reply came in one of the runs, or in both

    @property
    def p_value(self) -> float:
        """The two-sided exact p of McNemar's test that both do equally well."""
        return mcnemar_test(self.only_without, self.only_with_tools)

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {
            **counts,
            "p_value": self.p_value,
            "without": [result.to_dict() for result in self.without],
            "with_tools": [result.to_dict() for result in self.with_tools],
        }

    def table(self) -> str:
        """Return the paired counts as a table of plain text."""
        paired = self.both + self.only_without + self.only_with_tools + self.neither
        rows = [
            ("right without lookup", f"{self.both + self.only_without} of {paired}"),
            ("right with lookup", f"{self.both + self.only_with_tools} of {paired}"),
            ("only without", f"{self.only_without}"),
            ("only with", f"{self.only_with_tools}"),
            ("exact McNemar", f"p = {self.p_value:.3g}"),
            ("left out", f"{self.left_out}"),
        ]
        return "\n".join(f"{name:<20}  {value}" for name, value in rows)


def compare(
    samples: Sequence[AskedSample],
    endpoint: Endpoint,
    *,
    replies: str | os.PathLike[str] | None = None,
    each: bool = False,
    keep_text: bool = False,
    rounds: int | None = None,
    concurrency: int = 8,
    window: int | None = None,
    count: Count | None = None,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Run `samples` without tools and with `lookup`; return both scores and their paired counts.

    Every argument as of `run`, whose errors it raises.
    """

    def half(tools: bool) -> list[Result]:
        return run(
            samples, endpoint, replies=replies, each=each, tools=tools, keep_text=keep_text,
            rounds=rounds, concurrency=concurrency, window=window, count=count, progress=progress,
        )  # fmt: skip

    return pair_results(half(False), half(True))


def pair_results(without: list[Result], with_tools: list[Result]) -> Comparison:
    """Pair two runs over the same samples, in the same order, query by query.

    Raises `ValueError` where they are not.
    """
    counts = {(a, b): 0 for a in (False, True) for b in (False, True)}
    left_out = 0
    if len(without) != len(with_tools):
        raise ValueError(f"runs of {len(without)} and {len(with_tools)} samples make no pairs")
    for number, (first, second) in enumerate(zip(without, with_tools, strict=True)):
        if first.score.sample != second.score.sample:
            raise ValueError(f"sample {number} of one run is another than that of the other")
        right = {mark.query: mark.correct for mark in second.score.marks}
        paired = [(m.correct, right[m.query]) for m in first.score.marks if m.query in right]
        for pair in paired:
            counts[pair] += 1
        left_out += len(first.score.marks) + first.score.failed - len(paired)
    return Comparison(
        without=without,
        with_tools=with_tools,
        both=counts[True, True],
        only_without=counts[True, False],
        only_with_tools=counts[False, True],
        neither=counts[False, False],
        left_out=left_out,
    )
