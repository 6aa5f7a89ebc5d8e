"""HashHop text → its pairs as arrays, in NumPy passes over the buffer.

Reads lines ``source = target`` and ``source = 'target'``, all hashes of one length, which is that
of the first. A hash is any run of bytes above the space. The last line may end without a newline.
"""

from collections.abc import Iterator
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.names import Letters

Text = str | bytes | bytearray | memoryview | mmap | NDArray[np.uint8]

_NEWLINE, _SPACE, _QUOTE = b"\n '"
_EQUALS = np.frombuffer(b" = ", np.uint8)
_PIECE = 1 << 19  # bytes parsed at once: the arrays in use stay within a core's own cache
_SHOWN = 80  # bytes of a bad line that an error shows


def parse_pairs(text: Text) -> tuple[Letters, Letters]:
    """Return the sources and the targets of every line, each uint8 (lines, hash_length).

    O(len(text)), and no memory to speak of besides what is returned. Raises `ValueError` on a
    text without pairs and on the first line that is none.

    >>> sources, targets = parse_pairs("ab = cd\\ncd = 'ef'")
    >>> sources.tobytes(), targets.tobytes()
    (b'abcd', b'cdef')
    """
    data: Any = text.encode() if isinstance(text, str) else text
    buffer = np.frombuffer(data, np.uint8)
    if not len(buffer):
        raise ValueError("the text is empty: it takes a line 'source = target' for each pair")
    width = _hash_length(buffer)
    most = (len(buffer) + 1) // (2 * width + 4)  # lines, were none quoted
    sources, targets = np.empty((most, width), np.uint8), np.empty((most, width), np.uint8)
    count = 0
    for piece in _pieces(buffer):
        starts, lengths = _find_lines(piece)
        bad = _parse_lines(piece, starts, lengths, sources[count:], targets[count:])
        if bad is not None:
            line = piece[starts[bad] :][: lengths[bad]]
            raise _no_pair(line, count + bad, f"a pair of {width}-letter hashes")
        count += len(starts)
    return sources[:count], targets[:count]


def _hash_length(buffer: NDArray[np.uint8]) -> int:
    """The length of the first line's source."""
    first = next(_pieces(buffer))
    _, lengths = _find_lines(first)
    line = first[: lengths[0]]
    width = line.tobytes().find(_EQUALS.tobytes())
    if width < 1:
        raise _no_pair(line, 0, "'source = target'")
    return width


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


def _find_lines(piece: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every line starts and how long it is without its newline."""
    ends = np.flatnonzero(piece == _NEWLINE).astype(np.int64)
    if piece[-1] != _NEWLINE:
        ends = np.append(ends, len(piece))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    return starts, ends - starts


def _parse_lines(
    piece: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    sources: Letters,
    targets: Letters,
) -> int | None:
    """Write the hashes of every line; or return the first line that is no pair."""
    width = sources.shape[1]
    quoted = lengths == 2 * width + 5
    good = quoted | (lengths == 2 * width + 3)
    fit = len(starts) if good.all() else int(np.argmin(good))
    if not fit:
        return 0
    starts, quoted, good = starts[:fit], quoted[:fit], good[:fit]  # all inside the piece
    targets_at = starts + (width + 3) + quoted
    hashes = np.lib.stride_tricks.sliding_window_view(piece, width)
    sources[:fit] = hashes[starts]
    targets[:fit] = hashes[targets_at]
    for i, sign in enumerate(_EQUALS):
        good &= piece[starts + width + i] == sign
    for letters in (sources[:fit], targets[:fit]):
        if letters.min() <= _SPACE:  # over rows of few letters it is slower to ask row by row
            good &= letters.min(axis=1) > _SPACE
    at = np.flatnonzero(quoted)
    for place in (targets_at[at] - 1, targets_at[at] + width):
        good[at] &= piece[place] == _QUOTE
    if not good.all():
        return int(np.argmin(good))
    return fit if fit < len(lengths) else None


def _no_pair(line: NDArray[np.uint8], number: int, wanted: str) -> ValueError:
    shown = line[:_SHOWN].tobytes().decode("utf-8", "replace")
    return ValueError(f"line {number + 1} of the text is not {wanted}: {shown!r}")
