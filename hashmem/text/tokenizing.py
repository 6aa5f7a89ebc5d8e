"""The words of a text: what summaries count, what search matches, what token chunks are cut by.

A word is a run of letters and digits, cut at camelCase borders as well, with letters in lower
case and the s of a plural dropped. Everything else, `_` included, separates. Letters outside
ASCII are kept, whole runs at a time (a run of Chinese is one word: see the limits in
``docs/text.md``).

Two forms with one definition: `words` gives strings and is for people, `hash_words` gives 64-bit
hashes, a hundred times faster, and is for everything that counts or compares. Hashes are equal on
every machine, for all characters that its Python's Unicode has, and in every release that stores
the same summary method.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels

__all__ = ["STOP_WORDS", "HashedWords", "hash_words", "is_stop_word", "word_spans", "words"]

# Words that say nothing about which text is meant: they are dropped from queries.
_STOP_WORDS = """
a about an and any are as at be been but by can could did do does for from had has have how
i if in into is it its me my no not of on or our should so some such than that the their them
then there these they this those to was we were what when where which while who whom why will
with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_BORDER = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_RUN = re.compile("[0-9A-Za-z\x80-\U0010ffff]+")


class HashedWords(NamedTuple):
    """The words of n texts: those of text i are ``hashes[offsets[i]:offsets[i + 1]]``."""

    hashes: NDArray[np.uint64]  # (words,)
    offsets: NDArray[np.int64]  # (n + 1,)


def words(text: str) -> list[str]:
    """Cut `text` into its words, in order. O(len(text)).

    >>> words("parse_HTTPHeaders(rawBytes, utf8) URLs")
    ['parse', 'http', 'header', 'raw', 'byte', 'utf8', 'url']
    """
    folded = fold(text)
    return [_normal(folded[start:end]) for start, end in word_spans(folded)]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Find where each word of `text` starts and ends, in characters."""
    folded = fold(text)
    spans = []
    for run in _RUN.finditer(folded):
        start = run.start()
        for border in _BORDER.finditer(folded, run.start(), run.end()):
            if border.start() > start:
                spans.append((start, border.start()))
                start = border.start()
        spans.append((start, run.end()))
    return spans


def hash_words(texts: Iterable[str | bytes]) -> HashedWords:
    """Hash every word of every text (or its UTF-8) to 64 bits, none of them 0. O(bytes).

    The hash, and why it is no protection against someone who builds collisions, is described in
    `hashmem.kernels.reference.ngrams`.

    >>> hashed = hash_words(["openFile", "file"])
    >>> hashed.offsets.tolist(), bool(hashed.hashes[1] == hashed.hashes[2])
    ([0, 2, 3], True)
    """
    encoded = [_folded_bytes(text) for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffer = np.frombuffer(b"".join(encoded), np.uint8)
    hashes = np.empty(len(buffer) // 2 + len(encoded), np.uint64)
    word_offsets = np.empty(len(offsets), np.int64)
    count = kernels.current.hash_words(buffer, offsets, hashes, word_offsets)
    return HashedWords(hashes[:count].copy(), word_offsets)


def _folded_bytes(text: str | bytes) -> bytes:
    if text.isascii():  # needs no folding: the kernels lower its capitals
        return text if isinstance(text, bytes) else text.encode()
    return fold(text.decode() if isinstance(text, bytes) else text).encode()


def is_stop_word(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Say for each hashed word whether it is one of `STOP_WORDS`."""
    if not _stop_hashes:
        _stop_hashes.append(np.sort(hash_words(sorted(STOP_WORDS)).hashes))
    known = _stop_hashes[0]
    found: NDArray[np.bool_] = known[np.searchsorted(known[:-1], hashes)] == hashes
    return found


_stop_hashes: list[NDArray[np.uint64]] = []


class _Folding(dict[int, str]):
    """What stands for a character in a folded text, found once for each character.

    ASCII stays as it is, for capitals mark borders and the kernels lower them.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code >= 0x80:
            letter = character.isalnum() or unicodedata.category(character)[0] == "M"
            lowered = character.lower() if letter else " "
            character = lowered if len(lowered) == 1 else character
        self[code] = character
        return character


_folding = _Folding()


def fold(text: str) -> str:
    """Lower the letters outside ASCII, and put a space for what is no letter, digit or mark there.

    As long as `text`, character by character, so that places in one are places in the other.
    """
    return text if text.isascii() else text.translate(_folding)


def _normal(word: str) -> str:
    """One word as it is counted: ASCII in lower case, without the s of a plural."""
    lowered = word.encode().lower()
    if len(lowered) >= 4 and lowered[-1:] == b"s" and lowered[-2:-1] not in b"sui":
        lowered = lowered[:-1]
    return lowered.decode()
