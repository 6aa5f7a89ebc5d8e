"""A model's reply → the hashes it gives as its answer to each query.

Models echo the query, quote, draw arrows, number their lines, think aloud first and correct
themselves. So nothing is matched but the hashes: runs of exactly `length` of the characters that
hashes are made of, as the text breaks them apart. An ordinary word of that length (capitals
nowhere, first or throughout) counts only where it is a hash of the sample.

A line whose first hash is a query opens the answer to that query, and the answer runs to the next
such line, thinking text left out. A hash said twice in a row, as in "A = B, B = C", counts once.
Of several answers to one query the last of the length asked for counts, or the last where none is
of that length: a chain and then "so A leads to D" is one answer in steps. Where one query was asked
and no line begins with it, the whole reply is its answer.
"""

import re
from collections.abc import Container, Mapping

from hashmem.hashhop.names import ALPHABET

_THINKING_TAG = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)
_AROUND = " \t\r\n.'\"`*"
_REFUSAL = re.compile(
    r"\b(can ?not|can['’]t|could ?n['’]t|unable|sorry|won['’]t|refuse|decline|impossible"
    r"|not (possible|able|found|present|in the)|do(es)? ?n['’]t (know|appear|exist)"
    r"|no (such|answer|match|matching)|none|unknown)\b",
    re.IGNORECASE,
)


def without_thinking(reply: str) -> str:
    """Return the reply without its thinking text, also where a tag is missing at either side.

    One pass: models that run in circles write a tag ten thousand times.
    """
    kept: list[str] = []
    at, thinking = 0, False
    for tag in _THINKING_TAG.finditer(reply):
        if not thinking:
            kept.append(reply[at : tag.start()])
            if tag[1]:  # nothing was open, so its opening tag was cut off
                kept.clear()
        at, thinking = tag.end(), not tag[1]
    if not thinking:
        kept.append(reply[at:])
    return "\n".join(kept)


def is_refusal(reply: str) -> bool:
    """Whether the reply says that it has no answer. Asked only of a reply without a hash."""
    return bool(_REFUSAL.search(without_thinking(reply)))


def find_answers(
    reply: str,
    queries: Mapping[str, int],
    length: int,
    known: Container[str],
    characters: str = ALPHABET,
) -> dict[str, list[str]]:
    """Return the hashes that `reply` gives to each query, in order; none: an empty list.

    `queries` says how many hashes each asks for; these have `length` of `characters`; `known` tells
    those of the sample. O(len(reply)).

    >>> find_answers("AbCd -> 'EfGh'\\nIjKl -> 'MnOp'", {"AbCd": 1, "IjKl": 1}, 4, ())
    {'AbCd': ['EfGh'], 'IjKl': ['MnOp']}
    """
    run = _hashes(length, characters)
    given: dict[str, list[list[str]]] = {query: [] for query in queries}
    everything: list[str] = []
    query, answer = "", everything  # what is said before the first echo
    for line in without_thinking(reply).splitlines():
        hashes = [text for text in run.findall(line) if not _is_word(text) or text in known]
        if hashes and hashes[0] in given:
            query, answer = hashes[0], []
            given[query].append(answer)
        for text in hashes:
            if text != (answer[-1] if answer else query):
                answer.append(text)
        if not answer and hashes.count(query) > 1:
            answer.append(query)  # round a cycle
    if len(queries) == 1:
        ((asked, count),) = queries.items()
        if not query:
            without = [text for text in everything if text != asked]
            return {asked: _choose([everything, without], count)}
        if without_thinking(reply).strip(_AROUND) == asked:  # nothing else: round a cycle
            return {asked: [asked]}
    return {query: _choose(answers, queries[query]) for query, answers in given.items()}


def find_words(reply: str, query: str, length: int, characters: str = ALPHABET) -> str:
    """Return what `reply` says of a query without naming a hash: the lines that name it, or else
    all of it."""
    run = _hashes(length, characters)
    lines = without_thinking(reply).splitlines()
    return "\n".join(line for line in lines if query in run.findall(line)) or reply


def _hashes(length: int, characters: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])[{characters}]{{{length}}}(?![^\W_])")


def _is_word(text: str) -> bool:
    return text[1:].islower() or text.isupper()


def _choose(answers: list[list[str]], count: int) -> list[str]:
    said = [answer for answer in answers if answer]
    fitting = [answer for answer in said if len(answer) == count]
    return (fitting or said or [[]])[-1]
