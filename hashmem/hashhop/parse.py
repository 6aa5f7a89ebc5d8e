"""HashHop text → its pairs as arrays, in NumPy passes over the buffer.

Reads lines ``source = target`` and ``source = 'target'``, all hashes of one length, which is that
of the first. A hash is any run of bytes above the space. The last line may end without a newline.
"""

from collections.abc import Iterator
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.names import Letters

Text = str | bytes | bytearray | memoryview | mmap | NDArray[np.uint8]

_NEWLINE, _SPACE, _QUOTE = b"\n '"
_EQUALS = np.frombuffer(b" = ", np.uint8)
_PIECE = 1 << 19  # bytes parsed at once: the arrays in use stay within a core's own cache
_SHOWN = 80  # bytes of a bad line that an error shows


class Pairs(NamedTuple):
    """The pairs of some lines in a row."""

    sources: Letters  # uint8 (lines, hash_length)
    targets: Letters  # the same
    quoted: NDArray[np.bool_]  # (lines,) whether the target stood in quotes


def as_buffer(text: Text) -> NDArray[np.uint8]:
    """Return the bytes of `text`, copied only where it is a str. Raises `ValueError` on none."""
    data: Any = text.encode() if isinstance(text, str) else text
    buffer = np.frombuffer(data, np.uint8)
    if not len(buffer):
        raise ValueError("the text is empty: it takes a line 'source = target' for each pair")
    return buffer


def most_lines(buffer: NDArray[np.uint8]) -> int:
    """Return how many pairs a text of this size has at most, by the length of its first hash."""
    return (len(buffer) + 1) // (2 * hash_length(buffer) + 4)


def parse_pairs(text: Text) -> tuple[Letters, Letters]:
    """Return the sources and the targets of every line, each uint8 (lines, hash_length).

    O(len(text)), and no memory to speak of besides what is returned. Raises `ValueError` on a
    text without pairs and on the first line that is none.

    >>> sources, targets = parse_pairs("ab = cd\\ncd = 'ef'")
    >>> sources.tobytes(), targets.tobytes()
    (b'abcd', b'cdef')
    """
    buffer = as_buffer(text)
    shape = most_lines(buffer), hash_length(buffer)
    sources, targets = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    count = 0
    for piece in parse_pieces(buffer):
        sources[count : count + len(piece.sources)] = piece.sources
        targets[count : count + len(piece.targets)] = piece.targets
        count += len(piece.sources)
    return sources[:count], targets[:count]


def parse_pieces(buffer: NDArray[np.uint8]) -> Iterator[Pairs]:
    """Yield the pairs of every line, those of half a megabyte of text at a time.

    Raises `ValueError` when it comes to the first line that is no pair.
    """
    width = hash_length(buffer)
    count = 0
    for piece in _pieces(buffer):
        pairs = _parse_even(piece, width)
        if pairs is None:
            pairs = _parse_lines(piece, width, count)
        yield pairs
        count += len(pairs.sources)


def read_line(line: bytes, number: int, width: int) -> tuple[bytes, bytes]:
    """Return source and target of one line. Raises `ValueError`, naming line `number` from 0."""
    source, sign, target = line[:width], line[width : width + 3], line[width + 3 :]
    if len(target) == width + 2 and target[:1] == target[-1:] == b"'":
        target = target[1:-1]
    if sign != b" = " or len(target) != width or min(source + target) <= _SPACE:
        raise no_pair(line, number, f"a pair of {width}-letter hashes")
    return source, target


def hash_length(buffer: NDArray[np.uint8]) -> int:
    """Return the length of the first line's source. Raises `ValueError` where that is no pair."""
    line = _first_line(buffer)
    width = line.find(_EQUALS.tobytes())
    if width < 1:
        raise no_pair(line, 0, "'source = target'")
    return width


def _first_line(buffer: NDArray[np.uint8]) -> bytes:
    start = buffer[:_PIECE].tobytes()
    return (start if b"\n" in start else buffer.tobytes()).partition(b"\n")[0]


def _pieces(buffer: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Cut the text after newlines, each piece as long as it may be but at least a line."""
    start = 0
    while start < len(buffer):
        piece = buffer[start : start + _PIECE]
        if start + _PIECE < len(buffer):
            end = piece.tobytes().rfind(b"\n") + 1
            piece = piece[:end] if end else buffer[start:]
        yield piece
        start += len(piece)


def _parse_even(piece: NDArray[np.uint8], width: int) -> Pairs | None:
    """The pairs of a piece without quotes whose lines are all as long; None where it is not so.

    A third of the time of `_parse_lines`: rows of one length are copied and not gathered.
    """
    length = 2 * width + 4
    if len(piece) % length:
        return None
    rows = piece.reshape(-1, length)
    signs = (*zip(range(width, width + 3), _EQUALS, strict=True), (length - 1, _NEWLINE))
    if not all((rows[:, column] == sign).all() for column, sign in signs):
        return None
    sources, targets = rows[:, :width].copy(), rows[:, width + 3 : -1].copy()
    if min(sources.min(), targets.min()) <= _SPACE:
        return None
    return Pairs(sources, targets, np.zeros(len(rows), np.bool_))


def _parse_lines(piece: NDArray[np.uint8], width: int, count: int) -> Pairs:
    """The pairs of any piece, which comes after `count` lines, or `ValueError`."""
    starts, lengths = _find_lines(piece)
    quoted = lengths == 2 * width + 5
    good = quoted | (lengths == 2 * width + 3)
    fit = len(starts) if good.all() else int(np.argmin(good))  # lines before the first misfit
    at, good = starts[:fit], good[:fit]  # all inside the piece
    sources = targets = np.empty((0, width), np.uint8)
    if fit:
        targets_at = at + (width + 3) + quoted[:fit]
        hashes = np.lib.stride_tricks.sliding_window_view(piece, width)
        sources, targets = hashes[at], hashes[targets_at]
        for i, sign in enumerate(_EQUALS):
            good &= piece[at + width + i] == sign
        for letters in (sources, targets):
            if letters.min() <= _SPACE:  # over rows of few letters it is slower to ask row by row
                good &= letters.min(axis=1) > _SPACE
        marked = np.flatnonzero(quoted[:fit])
        for place in (targets_at[marked] - 1, targets_at[marked] + width):
            good[marked] &= piece[place] == _QUOTE
    bad = fit if good.all() else int(np.argmin(good))
    if bad < len(starts):
        line = piece[starts[bad] :][: lengths[bad]].tobytes()
        raise no_pair(line, count + bad, f"a pair of {width}-letter hashes")
    return Pairs(sources, targets, quoted)


def _find_lines(piece: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every line starts and how long it is without its newline."""
    ends = np.flatnonzero(piece == _NEWLINE).astype(np.int64)
    if piece[-1] != _NEWLINE:
        ends = np.append(ends, len(piece))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    return starts, ends - starts


def no_pair(line: bytes, number: int, wanted: str) -> ValueError:
    """Return the error that line `number`, counted from 0, is not what was `wanted`."""
    shown = line[:_SHOWN].decode("utf-8", "replace")
    return ValueError(f"line {number + 1} of the text is not {wanted}: {shown!r}")
