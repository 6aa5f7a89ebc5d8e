"""Training examples in stages: remember a pair, relate several steps, skip steps.

A `Curriculum` is a row of `Stage`s. Example i is computed from (seed, i) alone: its stage and how
far that has come from i, its hops, its length and its sample's seed from keys of both. So examples
can be had in any order, by any number of workers, again after a stop, and nothing is kept.

Every example is a `HashHop` sample of its own with hashes of its own. Their seeds are 64-bit keys:
none meets an evaluation's small seed but by a chance of 2^−64 each.

What counts in training is marked over the completion's characters, which are bytes as well, since
completions are ASCII:

answers     the hashes that an answer names (the default)
ends        only the last hash of each answer, none of those between
completion  every character: also the echoed query, the signs and the newline

A curriculum does not change once it is made and may be read from several threads.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, count, product
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.generate import HashHop
from hashmem.hashhop.permutation import round_keys
from hashmem.hashhop.schedules import Amount, Linear, bounds, is_scheduled
from hashmem.hashhop.tasks import positions

COUNTED = ("answers", "ends", "completion")


@dataclass(frozen=True)
class Stage:
    """Examples of one kind, `examples` of them; None: without end, which only a last stage may be.

    hops, lines: whole numbers, schedules, or pairs (low, high) of these to draw from evenly
                 (`hashmem.hashhop.schedules`).
    characters:  the length of the text instead of `lines`; lines are not cut.
    queries, hash_length, mode, stride: as in `HashHop`, the same for every example.
    options:     further arguments of `HashHop`, passed on as they are.

    Raises `ValueError` where the first or the last example cannot be made, saying what would work.

    >>> Stage(hops=(1, Linear(1, 6)), lines=Linear(16, 256), examples=10_000).at(1.0)
    {'hops': (1, 6), 'lines': (256, 256)}
    """

    hops: Amount
    lines: Amount | None = None
    characters: Amount | None = None
    examples: int | None = None
    queries: int = 1
    hash_length: int = 16
    mode: str = "step"
    stride: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.lines is None) == (self.characters is None):
            raise ValueError("a stage has one length: pass either lines or characters")
        if self.examples is not None and (
            not isinstance(self.examples, Integral) or self.examples < 1
        ):
            raise ValueError(
                f"a stage has at least one example, not {self.examples!r}: pass a whole number, or "
                "None for a last stage without end"
            )
        if self.examples is None and (is_scheduled(self.hops) or is_scheduled(self._length)):
            raise ValueError(
                "a stage without end has no progress for a schedule to follow: pass examples=, or "
                "fixed hops and lengths"
            )
        for progress in (0.0, 1.0):
            # Few lines may not hold the most hops, and many lines need more hashes than there are.
            (fewest, most), (shortest, longest) = self.at(progress).values()
            for hops, length in product((fewest, most), (shortest, longest)):
                self._make(hops, length, seed=0)

    @property
    def _length(self) -> Amount:
        amount = self.characters if self.lines is None else self.lines
        assert amount is not None  # one of both is given: __post_init__
        return amount

    def at(self, progress: float) -> dict[str, tuple[int, int]]:
        """Return the least and greatest number of hops and of lines (or characters)."""
        unit = "characters" if self.lines is None else "lines"
        return {
            "hops": bounds(self.hops, progress, "hops"),
            unit: bounds(self._length, progress, unit),
        }

    def sample(self, progress: float, keys: NDArray[np.uint64]) -> HashHop:
        """Return the sample that three `keys` draw at `progress`, 0 … 1."""
        hops, length = (
            low + int(key) % (high - low + 1)
            for (low, high), key in zip(self.at(progress).values(), keys, strict=False)
        )
        return self._make(hops, length, seed=int(keys[2]))

    def _make(self, hops: int, length: int, seed: int) -> HashHop:
        if self.lines is not None:
            length *= 2 * self.hash_length + 4
        # Said here, since HashHop would call the stride wrong where the hops are.
        if self.mode == "skip" and hops <= self.stride:
            raise ValueError(
                f"a stride of {self.stride} over {hops} hops skips nothing or everything: take at "
                f"least {self.stride + 1} hops, or mode 'step' or 'direct'"
            )
        return HashHop(
            characters=length,
            hops=hops,
            hash_length=self.hash_length,
            queries=self.queries,
            mode=self.mode,
            stride=self.stride,
            seed=seed,
            **self.options,
        )


@dataclass(frozen=True)
class Example:
    """A prompt, the completion to learn, and which of its characters count."""

    index: int
    stage: int  # counted from 0
    prompt: str
    completion: str
    spans: tuple[tuple[int, int], ...]  # [start, stop) in the completion: what counts
    metadata: dict[str, object] = field(repr=False, hash=False)  # the sample's

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which characters of the completion count, bool (len(completion),)."""
        mask = np.zeros(len(self.completion), bool)
        for start, stop in self.spans:
            mask[start:stop] = True
        return mask


class Curriculum:
    """The examples of `stages`, one stage after another: `curriculum[i]`, or iterated over.

    seed:     chooses all examples; another seed gives others.
    counted:  what the mask marks: "answers", "ends" or "completion" (the module's head).
    question: whether the prompt ends in the question. Without it the prompt is the text and an
              empty line, for models trained from nothing: the completion names the queries anyway,
              but nothing then says how many hops are asked for.

    Raises `ValueError` without stages, on a stage without end that is not the last, and on
    another `counted`.

    >>> curriculum = Curriculum([Stage(hops=1, lines=4, examples=2, hash_length=4)], seed=5)
    >>> len(curriculum), curriculum[1].completion
    (2, 'kQVn = FZND\\n')
    >>> example = curriculum[1]
    >>> [example.completion[start:stop] for start, stop in example.spans]
    ['FZND']
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        seed: int = 0,
        counted: str = "answers",
        question: bool = True,
    ) -> None:
        if not stages:
            raise ValueError("a curriculum has at least one stage: pass [Stage(…), …]")
        for number, stage in enumerate(stages[:-1]):
            if stage.examples is None:
                raise ValueError(
                    f"stage {number} has no end, so no stage after it is ever reached: give it "
                    "examples= or make it the last"
                )
        if counted not in COUNTED:
            raise ValueError(
                f"nothing is called {counted!r}: count 'answers', 'ends' or 'completion'"
            )
        self.stages = tuple(stages)
        self.seed = seed
        self.counted = counted
        self.question = question

    @cached_property
    def _ends(self) -> list[int]:
        """The number of the first example after each stage that ends."""
        return list(accumulate(s.examples for s in self.stages if s.examples is not None))

    @property
    def examples(self) -> int | None:
        """The number of examples; None where the last stage has no end."""
        return None if self.stages[-1].examples is None else self._ends[-1]

    def __len__(self) -> int:
        """The number of examples. Raises `TypeError` where they never end."""
        if self.examples is None:
            raise TypeError("the last stage has no end, so the examples have no number")
        return self.examples

    def __getitem__(self, i: int) -> Example:
        """Return example `i`, 0 or greater. Costs the same for every example of a length."""
        if i < 0 or (self.examples is not None and i >= self.examples):
            there = "counted from 0" if self.examples is None else f"0 to {self.examples - 1}"
            raise IndexError(f"example {i} is none of those there are, {there}")
        number = bisect_right(self._ends, i)
        stage = self.stages[number]
        progress = 0.0
        if stage.examples is not None and stage.examples > 1:
            first = self._ends[number] - stage.examples
            progress = (i - first) / (stage.examples - 1)
        try:
            sample = stage.sample(progress, round_keys("curriculum", self.seed, int(i)))
        except ValueError as error:
            raise ValueError(
                f"example {i}, in stage {number} at progress {progress:.3g}, cannot be made: "
                f"{error}"
            ) from error
        completion = sample.completion
        return Example(
            index=int(i),
            stage=number,
            prompt=sample.prompt if self.question else f"{sample.text()}\n",
            completion=completion,
            spans=_spans(completion, self.counted),
            metadata=sample.metadata(),
        )

    def __iter__(self) -> Iterator[Example]:
        """Yield every example in order."""
        return self.iterate()

    def iterate(self, start: int = 0, step: int = 1) -> Iterator[Example]:
        """Yield examples `start`, `start + step`, …

        Worker w of n takes `iterate(w, n)`, and goes on after k of its examples with
        `iterate(w + k * n, n)`. Raises `ValueError` on a negative start or a step below 1.
        """
        if start < 0 or step < 1:
            raise ValueError(
                f"examples are numbered from 0 and taken forward: not from {start} by {step}"
            )
        total = self.examples
        numbers = count(start, step) if total is None else range(start, total, step)
        return (self[i] for i in numbers)


def three_stages(
    examples: int,
    *,
    hops: int = 6,
    lines: Amount = 64,
    queries: int = 1,
    hash_length: int = 16,
    mode: str = "skip",
    stride: int = 2,
) -> tuple[Stage, Stage, Stage]:
    """Return pairs, then several steps, then skips, with a third of `examples` each.

    The first asks for one hop. In the second, hops are drawn from 1 up to a bound that rises
    from 2 to `hops`, and every hash is named. In the third they are drawn up to `hops` with some
    left out: `mode` is "skip", every `stride`-th and the end, or "direct", the end only. The three
    kinds of training are those of magic.dev's HashHop; the schedules are ours. Raises `ValueError`
    on fewer than three examples and on sizes that `Stage` refuses.
    """
    if examples < 3:
        raise ValueError(f"three stages take at least 3 examples, not {examples}")
    if hops < 2:
        raise ValueError(f"several steps are at least 2 hops, not {hops}")
    positions(hops, mode, stride)  # an error about the hops as given, before those drawn from
    third = examples // 3
    fewest = stride + 1 if mode == "skip" else 2
    same: dict[str, Any] = {"lines": lines, "queries": queries, "hash_length": hash_length}
    return (
        Stage(hops=1, examples=third, **same),
        Stage(hops=(1, Linear(2, hops)), examples=third, **same),
        Stage(hops=(fewest, hops), examples=examples - 2 * third, mode=mode, stride=stride, **same),
    )


def _spans(completion: str, counted: str) -> tuple[tuple[int, int], ...]:
    """Where in lines ``query = hash = …`` lies what counts."""
    if counted == "completion":
        return ((0, len(completion)),)
    spans = []
    at = 0
    for line in completion.splitlines(keepends=True):
        query, *named = line.rstrip("\n").split(" = ")
        start = at + len(query)
        hashes = []
        for text in named:
            start += len(" = ")
            hashes.append((start, start + len(text)))
            start += len(text)
        spans += hashes[-1:] if counted == "ends" else hashes
        at += len(line)
    return tuple(spans)
