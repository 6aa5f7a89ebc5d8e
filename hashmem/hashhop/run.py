"""HashHop asked of a model behind an OpenAI-compatible endpoint.

Conversations are had by `concurrency` threads. Each answer is kept on disk before it counts
(`replies.py`), so a run that ends early, however it ends, goes on where it was: what was answered
is not asked again. What was under way at that moment is, and so are queries that failed.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from hashmem.hashhop.ask import Endpoint, Stopped
from hashmem.hashhop.conversation import Asker, Conversation, converse
from hashmem.hashhop.hidden import HiddenHop
from hashmem.hashhop.lookup import Lookup
from hashmem.hashhop.measuring import Count
from hashmem.hashhop.questions import (
    AskedSample,
    Question,
    check_window,
    list_questions,
)
from hashmem.hashhop.replies import Replies
from hashmem.hashhop.score import Score, score

SPARE_ROUNDS = 4  # for calls that go wrong, and the answer


@dataclass(frozen=True)
class Result:
    """How a model did on one sample, and what that took."""

    score: Score
    model: str
    tools: bool
    requests: int  # answered
    cached: int  # of them, by an earlier run
    retries: int
    seconds: float  # that the endpoint took for what it answered, added up
    prompt_tokens: int  # as the endpoint counts, where it does
    completion_tokens: int
    untold: int  # requests whose tokens the endpoint did not tell
    lookups: int  # calls of the tool
    failures: dict[str, str]  # query → why no answer came: neither right nor wrong
    cut_off: tuple[str, ...]  # queries whose reply ended at the limit of tokens; they count
    rounds_spent: tuple[str, ...]  # queries whose conversation ended at the limit of rounds

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON, with the score as `score` holds it."""
        fields = {name: value for name, value in vars(self).items() if name != "score"}
        lists = {name: list(fields[name]) for name in ("cut_off", "rounds_spent")}
        return {**self.score.to_dict(), **fields, **lists}

    def table(self) -> str:
        """Return the score and what it took as a table of plain text."""
        rows = [
            ("model", self.model + (" with lookup" if self.tools else "")),
            ("requests", f"{self.requests}, {self.cached} of them kept from before"),
            ("retries", f"{self.retries}"),
            ("seconds", f"{self.seconds:.1f}"),
            ("tokens", f"{self.prompt_tokens} in, {self.completion_tokens} out"),
            ("tokens untold", f"{self.untold} requests"),
            ("lookups", f"{self.lookups}"),
            ("cut off", f"{len(self.cut_off)}"),
            ("rounds spent", f"{len(self.rounds_spent)}"),
        ]
        lines = [self.score.table(), *(f"{name:<14}  {value}" for name, value in rows)]
        lines += [f"no reply to {query}: {why}" for query, why in self.failures.items()]
        return "\n".join(lines)


def run(
    samples: Sequence[AskedSample],
    endpoint: Endpoint,
    *,
    replies: str | os.PathLike[str] | None = None,
    each: bool = False,
    tools: bool = False,
    keep_text: bool = False,
    rounds: int | None = None,
    concurrency: int = 8,
    window: int | None = None,
    count: Count | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Result]:
    """Ask the model at `endpoint` all queries of `samples`; return a result for each sample.

    replies:     the folder of a store that keeps every answer; None keeps none beyond the call.
    each:        one request for each query, instead of one for each sample.
    tools:       the model may call `lookup`, which knows the pairs; the text is then not shown,
                 unless `keep_text`.
    rounds:      requests that such a conversation may take; by default hops · queries + 4.
    concurrency: requests under way at the same time.
    window:      tokens that prompt and reply may have together, by `count`, text → tokens.
    progress:    called with the number of queries just answered or given up.

    Raises `ValueError` on bad arguments and, before anything is asked, where a prompt does not fit
    into the window; `EndpointError` as soon as the endpoint refuses for good. These, and Ctrl-C,
    end the run once the requests under way have ended, and what they answer is kept. A query whose
    request failed for as often as the endpoint retries is among the result's `failures`.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is 1 or more requests at a time, not {concurrency}")
    questions = make_questions(samples, each=each, tools=tools, keep_text=keep_text, rounds=rounds)
    if window is not None:
        if count is None:
            raise ValueError("a window is in tokens: pass count, a callable text -> tokens")
        check_window(questions, window, count, endpoint.reply_limit)
    with Replies(replies) as kept:
        asker = Asker(endpoint, kept)
        memories = Memories()
        counting = threading.Lock()

        def have(question: Question) -> Conversation:
            limit = round_limit(question, rounds)
            had = converse(asker, question, limit, memories.of(question))
            if progress is not None:
                with counting:
                    progress(len(question.queries))
            return had

        conversations = _in_threads(have, questions, concurrency, asker.stop)
    of: list[list[Conversation]] = [[] for _ in samples]
    for had in conversations:
        of[had.question.number].append(had)
    return [
        _result(sample, endpoint, each, tools, had) for sample, had in zip(samples, of, strict=True)
    ]


def make_questions(
    samples: Sequence[AskedSample], *, each: bool, tools: bool, keep_text: bool, rounds: int | None
) -> list[Question]:
    """Return the conversations to have. Raises `ValueError` on arguments that do not fit."""
    if rounds is not None and rounds < 1:
        raise ValueError(f"a conversation takes at least 1 round, not {rounds}")
    return list_questions(samples, each=each, tools=tools, keep_text=keep_text)


def round_limit(question: Question, rounds: int | None) -> int:
    """The requests that a conversation may take: one for every hop, and a few to spare."""
    return rounds or question.sample.hops * len(question.queries) + SPARE_ROUNDS


class Memories:
    """What the tool looks up in: one for each sample, while a conversation about it is had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[int, Lookup] = WeakValueDictionary()

    def of(self, question: Question) -> Callable[[], Lookup]:
        """Return what gives the memory of the question's sample, made when first called."""
        held: list[Lookup] = []  # by the conversation

        def memory() -> Lookup:
            if not held:
                with self._lock:
                    found = self._known.get(question.number)
                    if found is None:
                        sample = question.sample
                        bare = sample.sample if isinstance(sample, HiddenHop) else sample
                        found = Lookup(bare.text(), sample.hash_length)
                        self._known[question.number] = found
                held.append(found)
            return held[0]

        return memory


def _in_threads(
    have: Callable[[Question], Conversation],
    questions: Sequence[Question],
    concurrency: int,
    stop: threading.Event,
) -> list[Conversation]:
    """Have all conversations; an error stops the rest and is raised."""

    def have_or_stop(question: Question) -> Conversation:
        try:
            return have(question)
        except BaseException:
            stop.set()  # at once: whoever is free would ask the next
            raise

    with ThreadPoolExecutor(concurrency, "hashhop") as pool:
        futures: list[Future[Conversation]] = []
        try:
            futures += [pool.submit(have_or_stop, question) for question in questions]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # nothing is left to stop where all went well
            stop.set()
            for future in futures:
                future.cancel()
    errors = [error for f in futures if not f.cancelled() and (error := f.exception())]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Stopped))
    return [future.result() for future in futures]


def _result(
    sample: AskedSample, endpoint: Endpoint, each: bool, tools: bool, had: list[Conversation]
) -> Result:
    replies: str | dict[str, str | None] = {one.question.queries[0]: one.reply for one in had}
    if not each:  # one reply for all
        replies = had[0].reply if had[0].reply is not None else {}

    def queries(those: Callable[[Conversation], bool]) -> tuple[str, ...]:
        return tuple(query for one in had if those(one) for query in one.question.queries)

    return Result(
        score=score(sample, replies),
        model=endpoint.model,
        tools=tools,
        requests=sum(one.requests for one in had),
        cached=sum(one.cached for one in had),
        retries=sum(one.retries for one in had),
        seconds=sum(one.seconds for one in had),
        prompt_tokens=sum(one.prompt_tokens for one in had),
        completion_tokens=sum(one.completion_tokens for one in had),
        untold=sum(one.untold for one in had),
        lookups=sum(one.lookups for one in had),
        failures={q: one.failure for one in had if one.failure for q in one.question.queries},
        cut_off=queries(lambda one: one.cut_off),
        rounds_spent=queries(lambda one: one.rounds_spent),
    )
