"""Replies to a HashHop sample → marks, by query, by hop and by kind of error.

A query is correct when its answer names the right hashes in the right order and no others before
or after. Where only the end is asked for, the last hash of the answer counts, and an answer that
wrote others before it is marked as having shown steps: whether those may count as direct answers
is the reader's choice, and the number is there to see.

The first wrong or missing hash decides the kind of error:

intermediate  another hash of the query's own chain, the query included, or the answer stops there
wrong_chain   a hash from elsewhere in the text
invented      a hash that the text does not hold
refused       no hash, and the reply says that it cannot or will not
empty         no hash and no such words

A query that is on no line is correct when its answer names no hash and says so ("none", "unknown",
"not in the text").

A reply that never arrived (None) is counted as failed and marked neither right nor wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hashmem.hashhop.extract import find_answers, find_words, is_refusal

ERROR_KINDS = ("intermediate", "wrong_chain", "invented", "refused", "empty")
_Z = 1.959963984540054  # the 97.5 % point of the normal distribution: intervals of 95 %


class ScoredSample(Protocol):
    """What `score` asks of a sample; `HashHop` and `MultiHopSample` have it."""

    @property
    def chains(self) -> list[tuple[str, ...]]: ...
    @property
    def asked(self) -> dict[str, tuple[int, ...]]: ...
    @property
    def positions(self) -> tuple[int, ...]: ...
    @property
    def characters_of_hashes(self) -> str: ...
    @property
    def hash_length(self) -> int: ...
    def __contains__(self, text: object) -> bool: ...
    def metadata(self) -> dict[str, object]: ...


@dataclass(frozen=True)
class Mark:
    """What one query's answer was worth."""

    query: str
    positions: tuple[int, ...]  # how many hops from the query each hash is that was asked for
    answer: tuple[str, ...]  # the hashes that were read from the reply and counted
    right: tuple[bool, ...]  # for every hash that was asked for
    error: str | None  # one of ERROR_KINDS, None where correct
    shown_steps: bool = False  # only the end was asked for and others were written before it

    @property
    def correct(self) -> bool:
        """Whether the answer is exactly what was asked for."""
        return self.error is None

    @property
    def first_broken(self) -> int | None:
        """How many hops from the query the first wrong hash is; None: none is."""
        return self.positions[self.right.index(False)] if False in self.right else None


@dataclass(frozen=True)
class Score:
    """The marks of all queries of one sample that were replied to, and what they sum up to."""

    sample: dict[str, object]  # its metadata: a score without it says little
    positions: tuple[int, ...]  # how many hops from a query hashes are that were asked for
    marks: tuple[Mark, ...]
    failed: int  # queries whose reply never arrived

    @property
    def correct(self) -> int:
        """The number of exact matches."""
        return sum(mark.correct for mark in self.marks)

    @property
    def accuracy(self) -> float:
        """The share of exact matches among the replies; NaN where there are none."""
        return self.correct / len(self.marks) if self.marks else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of `accuracy`."""
        return wilson_interval(self.correct, len(self.marks))

    @property
    def asked(self) -> dict[int, int]:
        """How many answers were asked for each hop."""
        return {hop: len(of) for hop, of in self._right.items()}

    @property
    def by_hop(self) -> dict[int, float]:
        """The share of answers that are right at each hop, of those asked for it; NaN of none."""
        return {hop: sum(of) / len(of) if of else math.nan for hop, of in self._right.items()}

    @property
    def _right(self) -> dict[int, list[bool]]:
        right: dict[int, list[bool]] = {hop: [] for hop in self.positions}
        for mark in self.marks:
            for hop, is_right in zip(mark.positions, mark.right, strict=True):
                right[hop].append(is_right)
        return right

    @property
    def first_broken(self) -> dict[int, int]:
        """How many answers go wrong first at each hop that was asked for."""
        first = [mark.first_broken for mark in self.marks]
        return {hop: first.count(hop) for hop in self.positions}

    @property
    def errors(self) -> dict[str, int]:
        """How many answers are wrong in each way."""
        kinds = [mark.error for mark in self.marks]
        return {kind: kinds.count(kind) for kind in ERROR_KINDS}

    @property
    def shown_steps(self) -> int:
        """How many answers wrote other hashes before the only one asked for."""
        return sum(mark.shown_steps for mark in self.marks)

    def to_dict(self) -> dict[str, Any]:
        """Return the result and every answer fit for JSON; a share of nothing is None."""
        low, high = self.interval
        return {
            "sample": self.sample,
            "queries": len(self.marks),
            "failed": self.failed,
            "correct": self.correct,
            "accuracy": _number(self.accuracy),
            "interval": [low, high],
            "asked": {str(hop): n for hop, n in self.asked.items()},
            "by_hop": {str(hop): _number(share) for hop, share in self.by_hop.items()},
            "first_broken": {str(hop): n for hop, n in self.first_broken.items()},
            "errors": self.errors,
            "shown_steps": self.shown_steps,
            "answers": [
                {"query": m.query, "answer": list(m.answer), "error": m.error} for m in self.marks
            ],
        }

    def table(self) -> str:
        """Return the result as a table of plain text."""
        low, high = self.interval
        rows = [
            ("sample", f"{self.sample['format']} format, {self.sample['mode']}"),
            ("characters", f"{self.sample['characters']}"),
            ("hops", f"{self.sample['hops']}"),
            ("correct", f"{self.correct} of {len(self.marks)}"),
            ("accuracy", f"{self.accuracy:.1%} (95 %: {low:.1%} to {high:.1%})"),
            *((f"right at hop {hop}", f"{share:.1%}") for hop, share in self.by_hop.items()),
            *((kind.replace("_", " "), f"{n}") for kind, n in self.errors.items()),
            ("steps shown", f"{self.shown_steps}"),
            ("no reply", f"{self.failed}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def score(sample: ScoredSample, replies: str | Mapping[str, str | None]) -> Score:
    """Mark the `replies` to `sample`: one text that answers every query, or query → reply.

    A query that a mapping lacks, or whose reply is None, counts as failed. Raises `ValueError` on
    a reply to something that is no query of the sample.
    """
    chains = {chain[0]: chain for chain in sample.chains}
    counts = {query: len(positions) for query, positions in sample.asked.items()}
    asked = sample.hash_length, sample, sample.characters_of_hashes
    texts: dict[str, str | None] = {}
    found: dict[str, list[str]] = {}
    if isinstance(replies, str):
        texts = dict.fromkeys(chains, replies)
        found = find_answers(replies, counts, *asked)
    else:
        strange = [query for query in replies if query not in chains]
        if strange:
            raise ValueError(
                f"{strange[0]!r} is not a query of this sample: was another one asked?"
            )
        for query in chains:
            text = texts[query] = replies.get(query)
            if text is not None:
                found |= find_answers(text, {query: counts[query]}, *asked)
    marks = tuple(
        _mark(sample, chains[query], found[query], text)
        for query, text in texts.items()
        if text is not None
    )
    return Score(sample.metadata(), sample.positions, marks, failed=len(chains) - len(marks))


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, p. 209).

    >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    if not total:
        return 0.0, 1.0
    share = correct / total
    shrink = 1 + _Z**2 / total
    centre = (share + _Z**2 / (2 * total)) / shrink
    reach = _Z / shrink * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    # At the ends the bounds are 0 and 1; rounding would miss them by a little.
    return (centre - reach if correct else 0.0), (centre + reach if correct < total else 1.0)


def _mark(sample: ScoredSample, chain: tuple[str, ...], found: list[str], reply: str) -> Mark:
    positions = sample.asked[chain[0]]
    wanted = tuple(chain[i] for i in positions)
    shown_steps = len(wanted) == 1 and len(found) > 1
    answer = tuple(found[-1:] if shown_steps else found)
    right = tuple(j < len(answer) and answer[j] == text for j, text in enumerate(wanted))
    says_none = not answer and is_refusal(
        find_words(reply, chain[0], sample.hash_length, sample.characters_of_hashes)
    )
    error = None
    if answer != wanted or (not wanted and not says_none):
        error = _error_kind(sample, chain, wanted, answer, says_none)
    return Mark(chain[0], positions, answer, right, error, shown_steps)


def _error_kind(
    sample: ScoredSample,
    chain: tuple[str, ...],
    wanted: tuple[str, ...],
    answer: tuple[str, ...],
    says_none: bool,
) -> str:
    if not answer:
        return "refused" if says_none else "empty"
    same = [a == b for a, b in zip(answer, wanted, strict=False)]
    at = same.index(False) if False in same else len(same)  # past the end: too few or too many
    if at == len(answer) or answer[at] in chain:
        return "intermediate"
    return "wrong_chain" if answer[at] in sample else "invented"


def _number(share: float) -> float | None:
    return None if math.isnan(share) else share
