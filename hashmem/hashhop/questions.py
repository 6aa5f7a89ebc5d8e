"""A sample → what a model is asked about it: all queries at once, or one by one.

The text comes first and the question after it, so that an endpoint that keeps what it has read of
a prompt (prefix caching) reads the text once for all queries of a sample. Prompts are made when
they are needed and not held: a hundred queries of a long text would be a hundred such texts.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from hashmem.hashhop.lookup import TOOL
from hashmem.hashhop.measuring import Count, counted
from hashmem.hashhop.score import ScoredSample
from hashmem.hashhop.tasks import question

_MEMORY = (
    'A text of lines "A = B" lies in an external memory. Call lookup with a hash A for the hash B '
    "of its line, as often as you need.\n\n"
)


class AskedSample(ScoredSample, Protocol):
    """What the runner asks of a sample; `HashHop` and `MultiHopSample` have it."""

    @property
    def hops(self) -> int: ...
    @property
    def mode(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    def text(self) -> str: ...


@dataclass(frozen=True)
class Question:
    """One conversation to be had: about which sample, for which queries, with which means."""

    number: int  # the sample's place among all
    sample: AskedSample
    queries: tuple[str, ...]
    tools: bool  # the model may call lookup
    shows_text: bool

    def text(self) -> str:
        """Return the part of the prompt that is the same for every query of the sample."""
        if not self.shows_text:
            return ""
        whole = getattr(self.sample, "question", None)
        if whole is None:  # the public format, whose prompt is the bare text
            return self.sample.text().rstrip("\n") + "\n\n"
        prompt, asked = self.sample.prompt, str(whole())
        if not prompt.endswith(asked):
            raise ValueError(f"sample {self.number}: its prompt does not end with its question")
        return prompt[: -len(asked)]

    @cached_property
    def asked(self) -> str:
        """The rest of it: the means there are, and the question."""
        return (_MEMORY if self.tools else "") + self._question()

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages that begin the conversation."""
        return [{"role": "user", "content": self.text() + self.asked}]

    def _question(self) -> str:
        whole = getattr(self.sample, "question", None)
        if whole is None:
            return question([(query, self.sample.hops) for query in self.queries], self.sample.mode)
        if len(self.queries) == len(self.sample.chains):
            return str(whole())
        before, marker, listed = str(whole()).rpartition("Queries:\n")
        lines = [line for line in listed.splitlines() if line.startswith(self.queries)]
        if not marker or len(lines) != len(self.queries):
            raise ValueError(
                f"sample {self.number}: its question does not list its queries line by line, so "
                "they cannot be asked each for itself"
            )
        return before + marker + "".join(f"{line}\n" for line in lines)


def list_questions(
    samples: Sequence[AskedSample], *, each: bool, tools: bool, keep_text: bool
) -> list[Question]:
    """Return the conversations that `samples` take: one for each of them, or for each query."""
    questions = []
    for number, sample in enumerate(samples):
        queries = tuple(chain[0] for chain in sample.chains)
        asked = [(query,) for query in queries] if each else [queries]
        questions += [Question(number, sample, one, tools, not tools or keep_text) for one in asked]
    return questions


def count_tokens(questions: Sequence[Question], count: Count) -> Iterator[int]:
    """Yield the tokens of the prompt of each question, those of one sample next to each other.

    Text and question are counted apart, and the text once for all queries of a sample: a tokenizer
    that joins letters over the blank line between them finds a token less. What a chat template
    adds is in no count.

    Raises `ValueError` where `count` fails or returns what is no number of tokens.
    """
    number, fixed = -1, 0
    for one in questions:
        if one.number != number:
            number, fixed = one.number, counted(count, one.text())
            fixed += counted(count, json.dumps(TOOL)) if one.tools else 0
        yield fixed + counted(count, one.asked)


def check_window(
    questions: Sequence[Question], window: int, count: Count, reply_limit: int | None
) -> None:
    """Raise `ValueError` where a prompt and its reply do not fit into `window` tokens.

    Of a conversation with tools the first prompt and reply, as how long it gets is the model's.

    The message names the first such sample, its tokens and the size that would fit.
    """
    room = window - (reply_limit or 1)
    for one, tokens in zip(questions, count_tokens(questions, count), strict=True):
        if tokens <= room:
            continue
        size = one.sample.metadata().get("characters")
        fitting = _fitting(one, room, count)
        advice = (
            f"about {fitting} characters of such a text fit"
            if fitting
            else "no text fits beside that: ask fewer queries at once or allow shorter replies"
        )
        raise ValueError(
            f"sample {one.number} ({size} characters): its prompt has {tokens} tokens, with "
            f"{reply_limit or 1} for the reply more than the window of {window}: {advice}"
        )


def _fitting(one: Question, room: int, count: Count) -> int:
    """How many characters of the text fit into `room` tokens, in whole lines, by measuring."""
    room -= counted(count, one.asked) + counted(count, json.dumps(TOOL)) * one.tools
    body = one.text().rstrip("\n")
    end = one.text()[len(body) :]
    lines = body.splitlines(keepends=True)
    low, high = 0, len(lines)  # `low` lines fit
    while low < high:
        middle = (low + high + 1) // 2
        if counted(count, "".join(lines[:middle]).rstrip("\n") + end) <= room:
            low = middle
        else:
            high = middle - 1
    return sum(map(len, lines[:low]))
