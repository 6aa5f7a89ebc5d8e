"""Sizes in tokens of a tokenizer, found by counting: no ratio of characters to tokens is believed.

A tokenizer is any function text → number of tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["Count", "counted", "most_that_fits", "single_tokens"]

Count = Callable[[str], int]


def counted(count: Count, text: str) -> int:
    """Return the tokens of a text. Raises `ValueError` where the tokenizer fails."""
    try:
        tokens: Any = count(text)
    except Exception as error:
        raise ValueError(
            f"the tokenizer failed on a text of {len(text)} characters that begins with "
            f"{text[:40]!r}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(tokens, "__index__") or tokens < 0:
        raise ValueError(
            f"a tokenizer returns a number of tokens, not {tokens!r:.80}: "
            "pass lambda text: len(encode(text))"
        )
    return int(tokens)


def most_that_fits(
    tokens: int, text: Callable[[int], str], count: Count, least: int, most: int
) -> int:
    """Return the largest number of lines n whose ``text(n)`` has at most `tokens` tokens.

    From `least` to `most`, and n + 1 lines have more. Each trial makes a text and counts it; the
    next is where a straight line through two trials says, or half way where that gains too little,
    so that it takes a handful: O(log n) texts at most. Raises `ValueError` where `least` lines are
    too many.
    """
    fits, fitting = least, counted(count, text(least))  # lines, and their tokens
    if fitting > tokens:
        raise ValueError(
            f"the shortest text that has all that is asked for has {fitting} tokens: take at least "
            f"so many, not {tokens}"
        )
    over, above = fits, fitting  # lines that are too many
    while above <= tokens:
        fits, fitting = over, above
        if fits == most:
            return most
        over = max(2 * fits, min(64 * fits, int(1.02 * fits * tokens / max(fitting, 1)) + 1))
        over = min(over, most)
        above = counted(count, text(over))
    halve = False
    while over - fits > 1:
        guess = fits + int((over - fits) * (tokens - fitting + 0.5) / max(above - fitting, 1))
        middle = (fits + over) // 2 if halve else min(max(guess, fits + 1), over - 1)
        before = over - fits
        found = counted(count, text(middle))
        if found <= tokens:
            fits, fitting = middle, found
        else:
            over, above = middle, found
        halve = 2 * (over - fits) > before and not halve
    return fits


def single_tokens(words: Iterable[str], encode: Callable[[str], Sequence[int]]) -> list[str]:
    """Return those of `words` that are one token each, as an alphabet for `HashHop`.

    Alone and after a space, as they stand in a text. Of one length, that of which there are most.
    Raises `ValueError` where fewer than two are.

    >>> single_tokens(["ab", "cd", "efg", "hi"], lambda text: text.split("h"))
    ['ab', 'cd']
    """
    by_length: dict[int, dict[str, None]] = {}
    for word in words:
        plain = word.isascii() and word.isalnum()
        if plain and all(len(encode(text)) == 1 for text in (word, f" {word}")):
            by_length.setdefault(len(word), {})[word] = None
    found = max(by_length.values(), key=len, default={})
    if len(found) < 2:
        raise ValueError(
            "fewer than two of the words are ASCII letters and digits, of one length and one "
            "token each, alone and after a space: pass more words, such as the whole vocabulary"
        )
    return list(found)
