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
_EQUALS = b" = "
_BLOCK = 1 << 24  # bytes searched for newlines at once
_SHOWN = 80  # bytes of a bad line that an error shows


def parse_pairs(text: Text) -> tuple[Letters, Letters]:
    """Return the sources and the targets of every line, each uint8 (lines, hash_length).

    Raises `ValueError` on a text without pairs and on the first line that is none.

    >>> sources, targets = parse_pairs("ab = cd\\ncd = 'ef'")
    >>> sources.tobytes(), targets.tobytes()
    (b'abcd', b'cdef')
    """
    data: Any = text.encode() if isinstance(text, str) else text
    buffer = np.frombuffer(data, np.uint8)
    starts, lengths = _find_lines(buffer)
    if not len(starts):
        raise ValueError("the text is empty: it takes a line 'source = target' for each pair")
    first = buffer[: lengths[0]].tobytes()
    width = first.find(_EQUALS)
    if width < 1:
        raise _no_pair(buffer, 0, lengths[0], 0, "'source = target'")
    windows = np.lib.stride_tricks.sliding_window_view
    quoted = lengths == 2 * width + 5
    good = quoted | (lengths == 2 * width + 3)
    if good.all():  # every place below is then inside the buffer
        targets_at = starts + (width + 3) + quoted
        sources = windows(buffer, width)[starts]
        targets = windows(buffer, width)[targets_at]
        good &= (windows(buffer, 3)[starts + width] == np.frombuffer(_EQUALS, np.uint8)).all(axis=1)
        good &= (sources > _SPACE).all(axis=1) & (targets > _SPACE).all(axis=1)
        at = np.flatnonzero(quoted)
        good[at] &= (buffer[targets_at[at] - 1] == _QUOTE) & (
            buffer[targets_at[at] + width] == _QUOTE
        )
        if good.all():
            return sources, targets
    bad = int(np.argmin(good))
    raise _no_pair(buffer, starts[bad], lengths[bad], bad, f"a pair of {width}-letter hashes")


def _find_lines(buffer: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every line starts and how long it is without its newline."""
    ends = np.concatenate([*_find_newlines(buffer)] or [np.empty(0, np.int64)])
    if len(buffer) and buffer[-1] != _NEWLINE:
        ends = np.append(ends, len(buffer))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    return starts, ends - starts


def _find_newlines(buffer: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(buffer), _BLOCK):
        yield np.flatnonzero(buffer[at : at + _BLOCK] == _NEWLINE).astype(np.int64) + at


def _no_pair(
    buffer: NDArray[np.uint8], start: int, length: int, line: int, wanted: str
) -> ValueError:
    shown = buffer[start : start + min(length, _SHOWN)].tobytes().decode("utf-8", "replace")
    return ValueError(f"line {line + 1} of the text is not {wanted}: {shown!r}")
