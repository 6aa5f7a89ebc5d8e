"""What a run would ask, take and cost, without asking anything."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hashmem.hashhop.ask import Endpoint
from hashmem.hashhop.conversation import Asker, converse
from hashmem.hashhop.measuring import Count, counted
from hashmem.hashhop.questions import (
    AskedSample,
    check_window,
    count_tokens,
)
from hashmem.hashhop.replies import Replies
from hashmem.hashhop.run import Memories, make_questions, round_limit


@dataclass(frozen=True)
class Preview:
    """What a run would still ask; what is kept already is counted apart and costs nothing."""

    conversations: int  # of the whole run
    finished: int  # of them, whose every answer is kept
    cached: int  # requests whose answer is kept
    requests: int  # to be asked; with tools the next one of each conversation
    characters: int  # of their prompts
    prompt_tokens: int | None  # None: there was no tokenizer
    completion_tokens: int | None  # at most; None: the endpoint's limit is not known
    cost: float | None  # at most, in the unit of the prices; None: not all of it is known
    at_least: bool  # with tools, how many further requests come is up to the model

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        return dict(vars(self))

    def table(self) -> str:
        """Return it as a table of plain text."""
        least = "at least " if self.at_least else ""
        unknown = "not known without a tokenizer, only the characters"
        tokens = unknown if self.prompt_tokens is None else f"{least}{self.prompt_tokens}"
        most = self.completion_tokens
        rows = [
            ("conversations", f"{self.conversations}, {self.finished} of them kept"),
            ("requests", f"{least}{self.requests}, and {self.cached} answered before"),
            ("characters", f"{least}{self.characters}"),
            ("prompt tokens", tokens),
            ("reply tokens", "no limit given" if most is None else f"at most {most}"),
            ("cost", "not known" if self.cost is None else f"at most {self.cost:.4f}"),
        ]
        if self.at_least:  # no bound holds for what the model decides
            rows[4:] = [(name, value.replace("at most", "for these")) for name, value in rows[4:]]
        return "\n".join(f"{name:<13}  {value}" for name, value in rows)


def preview(
    samples: Sequence[AskedSample],
    endpoint: Endpoint,
    *,
    replies: str | os.PathLike[str] | None = None,
    each: bool = False,
    tools: bool = False,
    keep_text: bool = False,
    rounds: int | None = None,
    window: int | None = None,
    count: Count | None = None,
    prices: tuple[float, float] | None = None,
) -> Preview:
    """Return what `run` with the same arguments would ask; nothing is asked or written.

    count:  text → tokens; without it characters are all that is known.
    prices: of a million tokens read and of a million written, in any currency.

    Without tools the cost is an upper bound: every reply as long as it may be. What an endpoint
    adds to a prompt, a chat template or its own instructions, is not counted. Raises what `run`
    raises before it asks.
    """
    if prices is not None and not min(prices) >= 0:
        raise ValueError(f"prices are 0 or more per million tokens, not {prices}")
    questions = make_questions(samples, each=each, tools=tools, keep_text=keep_text, rounds=rounds)
    limit = endpoint.reply_limit
    if window is not None:
        if count is None:
            raise ValueError("a window is in tokens: pass count, a callable text -> tokens")
        check_window(questions, window, count, limit)
    there = replies is not None and os.path.exists(os.path.join(replies, "CURRENT"))
    memories = Memories()
    with Replies(replies, readonly=True) if there else Replies(None) as kept:
        asker = Asker(endpoint, kept, may_ask=False)
        had = [
            converse(asker, question, round_limit(question, rounds), memories.of(question))
            for question in questions
        ]
    missing = [one.question for one in had if one.missing is not None]
    further = [json.dumps(one.missing) if one.missing else "" for one in had]
    tokens = None
    if count is not None:
        tokens = sum(count_tokens(missing, count))
        tokens += sum(counted(count, text) for text in further)
    most = None if limit is None else limit * len(missing)
    cost = None
    if prices is not None and tokens is not None and most is not None:
        cost = (tokens * prices[0] + most * prices[1]) / 1e6
    return Preview(
        conversations=len(questions),
        finished=len(questions) - len(missing),
        cached=sum(one.requests for one in had),
        requests=len(missing),
        characters=sum(len(one.text()) + len(one.asked) for one in missing)
        + sum(map(len, further)),
        prompt_tokens=tokens,
        completion_tokens=most,
        cost=cost,
        at_least=tools,
    )
