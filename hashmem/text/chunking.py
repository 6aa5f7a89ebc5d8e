"""Text → chunks: by lines, by words, or where the content itself sets the borders.

Chunks that do not overlap give the text back when joined, exactly; borders fall between
characters, never inside one; an empty text has no chunks. A line ends after its ``"\\n"``, and
only there, so that line numbers are those an editor shows. Everything here is linear in the text,
also where it is a single line of many megabytes.

Content-defined borders (`chunk_content`) depend on the text around them alone, so a change moves
the borders near it and no others: the chunks of two versions of a file are mostly equal, and a
store that addresses them by content keeps them once. The idea is that of LBFS (Muthitacharoen,
Chen and Mazières, SOSP 2001); the rolling hash is the Gear hash of FastCDC (Xia et al., USENIX
ATC 2016); choosing the best border in reach instead of the first one that passes a mask is the
local-maximum method (Bjørner, Blass and Gurevich, 2010), which also bounds the sizes.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hashmem.kernels.reference.ngrams import mix
from hashmem.text.tokenizing import word_spans

__all__ = ["Chunk", "chunk_content", "chunk_lines", "chunk_words"]

Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.uint32]
Positions: TypeAlias = NDArray[np.int64]

_NEWLINE, _RETURN, _SPACE, _TAB = 10, 13, 32, 9

# A number without pattern for each value of a character's low byte; part of the method for ever.
_GEAR = (mix(np.arange(1, 257, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text: ``text[start:end]``, offsets in characters, lines counted from 1."""

    text: str
    start: int
    end: int
    first_line: int
    last_line: int


def chunk_lines(text: str, lines: int = 40, overlap: int = 0) -> list[Chunk]:
    """Cut `text` after every `lines` lines, the next chunk beginning `overlap` lines earlier.

    >>> [chunk.text for chunk in chunk_lines("a\\nb\\nc", lines=2)]
    ['a\\nb\\n', 'c']
    """
    _check_step("lines", lines, overlap)
    borders = _line_starts(_codes(text)).tolist()
    total = len(borders)
    starts, ends = _windows(total, lines, overlap)
    edges = [*borders, len(text)]
    return [
        Chunk(text[edges[first] : edges[last]], edges[first], edges[last], first + 1, last)
        for first, last in zip(starts, ends, strict=True)
    ]


def chunk_words(text: str, words: int = 256, overlap: int = 0) -> list[Chunk]:
    """Cut `text` before every `words`-th word (`hashmem.text.words`), with `overlap` words shared.

    What stands between two words goes with the first. A text without any word is one chunk.

    >>> [chunk.text for chunk in chunk_words("one two, three", words=2)]
    ['one two, ', 'three']
    """
    _check_step("words", words, overlap)
    if not text:
        return []
    spans = word_spans(text)
    edges = [0, *(start for start, _ in spans[1:]), len(text)]
    starts, ends = _windows(len(edges) - 1, words, overlap)
    lines = _line_starts(_codes(text))
    return _chunks(text, [edges[at] for at in starts], [edges[at] for at in ends], lines)


def chunk_content(text: str, minimum: int = 500, maximum: int = 2000) -> list[Chunk]:
    """Cut `text` where its content says, into chunks of `minimum` to `maximum` characters.

    The next border is the best of those in reach: before a line that follows a blank one and is
    indented least (a new function, class or paragraph), else before any line that is not blank,
    else before any line; among equals the Gear hash of the 32 characters before decides. Where no
    line begins in reach, the hash alone decides between characters. Chunks come out about
    (minimum + maximum) / 2 characters long; only the last one may be shorter than `minimum`.

    >>> first, second = chunk_content("def a():\\n    pass\\n\\ndef b():\\n    pass\\n", 10, 30)
    >>> second.text, second.first_line
    ('def b():\\n    pass\\n', 4)
    """
    if not 1 <= minimum <= maximum:
        raise ValueError(f"sizes must be 1 <= minimum <= maximum, not {minimum} and {maximum}")
    if not text:
        return []
    codes = _codes(text)
    lines = _line_starts(codes)
    cuts = [0]
    if len(text) > maximum:
        gear = _gear(codes)
        ranks = _line_ranks(codes, lines, gear)
        borders = lines.tolist()
    while len(text) - cuts[-1] > maximum:
        first, last = cuts[-1] + minimum, cuts[-1] + maximum
        low, high = bisect_left(borders, first), bisect_right(borders, last)
        if low < high:
            cuts.append(borders[low + int(ranks[low:high].argmax())])
        else:
            cuts.append(first + int(gear[first - 1 : last].argmax()))
    return _chunks(text, cuts, [*cuts[1:], len(text)], lines)


def _line_ranks(codes: Codes, lines: Positions, gear: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How good a border before each line is, (lines,): its structure above, its hash below."""
    inked = np.flatnonzero((codes != _SPACE) & (codes != _TAB) & (codes != _RETURN))
    at = np.append(inked, len(codes))[np.searchsorted(inked, lines)]
    indent = np.minimum(at - lines, 63)
    blank = np.append(codes, _NEWLINE)[at] == _NEWLINE
    after_blank = np.append(True, blank[:-1])
    structure = np.where(after_blank, 128 - indent, 1) * ~blank
    ranks: NDArray[np.int64] = structure << 32 | gear[lines - 1]
    return ranks  # that of the first line means nothing and is never looked at


def _gear(codes: Codes) -> NDArray[np.uint32]:
    """The Gear hash of the 32 characters up to each: Σ_{j<32} gear[c[i-j]] · 2^j modulo 2^32.

    The sum over 2w characters is that over w plus 2^w times that over the w before: five steps.
    """
    sums = _GEAR[codes.astype(np.uint8)]  # of a character's number, the low byte is enough
    for width in (1, 2, 4, 8, 16):
        sums[width:] += sums[:-width] << np.uint32(width)
    return sums


def _codes(text: str) -> Codes:
    """The numbers of the characters of `text`, (characters,)."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _line_starts(codes: Codes) -> Positions:
    """Where each line begins, in characters, (lines,)."""
    if not len(codes):
        return np.zeros(0, np.int64)
    return np.append(0, np.flatnonzero(codes[:-1] == _NEWLINE) + 1)


def _chunks(text: str, starts: list[int], ends: list[int], lines: Positions) -> list[Chunk]:
    first = np.searchsorted(lines, starts, "right").tolist()
    last = np.searchsorted(lines, ends, "left").tolist()
    return [
        Chunk(text[start:end], start, end, top, bottom)
        for start, end, top, bottom in zip(starts, ends, first, last, strict=True)
    ]


def _windows(total: int, size: int, overlap: int) -> tuple[list[int], list[int]]:
    """Starts and ends of windows of `size` over range(total), `overlap` into the one before."""
    starts = list(range(0, max(total - overlap, min(total, 1)), size - overlap))
    return starts, [min(start + size, total) for start in starts]


def _check_step(unit: str, size: int, overlap: int) -> None:
    if size < 1:
        raise ValueError(f"{unit} must be 1 or more, not {size}")
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be 0 or more and less than {unit} ({size}), not {overlap}")
