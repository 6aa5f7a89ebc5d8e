"""One conversation with a model: a question, its calls of the tool, its last word.

Every request of it goes through `Asker.answer`, which asks the endpoint only what is not kept. So
a conversation that was cut off is had again up to the point where it was, at no cost, and goes on
from there; and asked without an endpoint, it tells which request comes next.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hashmem.hashhop.ask import Answer, Endpoint, NoAnswer
from hashmem.hashhop.chat import parse_completion
from hashmem.hashhop.lookup import TOOL, Lookup
from hashmem.hashhop.questions import Question
from hashmem.hashhop.replies import Replies


@dataclass
class Conversation:
    """What a conversation came to, added up over its requests."""

    question: Question
    reply: str | None = None  # None: no answer, or not all is kept
    failure: str | None = None  # why no answer came
    missing: list[dict[str, Any]] | None = None  # where nobody is asked: the messages, after the
    # first, of the request that is not kept
    requests: int = 0
    cached: int = 0  # of them, from an earlier run
    retries: int = 0
    seconds: float = 0.0  # that the endpoint took for the attempts it answered
    prompt_tokens: int = 0
    completion_tokens: int = 0
    untold: int = 0  # requests whose tokens the endpoint did not tell
    lookups: int = 0
    cut_off: bool = False  # a reply ended at the limit of tokens
    rounds_spent: bool = False  # it ended by the limit of rounds


class Asker:
    """Answers requests from what is kept, or asks and keeps; nothing twice. Shared by threads."""

    def __init__(self, endpoint: Endpoint, replies: Replies, *, may_ask: bool = True) -> None:
        self.endpoint = endpoint
        self.stop = threading.Event()
        self._replies = replies
        self._may_ask = may_ask
        self._turns: dict[bytes, threading.Lock] = {}  # digest → held by whoever asks it
        self._lock = threading.Lock()  # of that dict

    def answer(self, request: dict[str, Any]) -> tuple[Answer, bool] | None:
        """Return the answer and whether it was kept; None where it is not and none may be asked.

        Raises what `Endpoint.ask` raises.
        """
        digest = self._replies.digest(self.endpoint, request)
        with self._lock:
            turn = self._turns.setdefault(digest, threading.Lock())
        with turn:  # of those that ask the same at the same time the rest find it kept
            kept = self._replies.get(digest)
            if kept is not None:
                return kept, True
            if not self._may_ask:
                return None
            answer = self.endpoint.ask(request, self.stop)
            self._replies.keep(digest, self.endpoint.model, answer)
            return answer, False


def converse(
    asker: Asker, question: Question, rounds: int, memory: Callable[[], Lookup]
) -> Conversation:
    """Have the conversation that `question` begins, of at most `rounds` requests.

    `memory` gives what the tool looks up in; it is called where the model calls the tool. A reply
    without calls ends it, and so does the last round, with whatever that reply says. No answer is
    no error: the conversation tells. Raises `EndpointError`, `Stopped`.
    """
    had = Conversation(question)
    messages = question.messages()
    while had.reply is None:
        request = asker.endpoint.request(messages, [TOOL] if question.tools else None)
        try:
            found = asker.answer(request)
        except NoAnswer as error:
            had.failure = str(error)
            had.retries += error.retries
            return had
        if found is None:
            had.missing = messages[1:]
            return had
        answer, kept = found
        completion = parse_completion(answer.body)
        had.requests += 1
        had.cached += kept
        had.retries += answer.retries
        had.seconds += answer.seconds
        had.cut_off |= completion.cut_off
        had.untold += None in (completion.prompt_tokens, completion.completion_tokens)
        had.prompt_tokens += completion.prompt_tokens or 0
        had.completion_tokens += completion.completion_tokens or 0
        calls = completion.calls if question.tools else ()
        had.rounds_spent = bool(calls) and had.requests >= rounds
        if not calls or had.rounds_spent:
            had.reply = completion.text
            return had
        had.lookups += len(calls)
        messages.append(completion.message())
        for call in calls:
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": memory().answer(call)}
            )
    return had
