"""Having the system read places of a mapped file before they are touched, where that pays.

A fault of a mapped page waits for the disk, and by default has the system read around it as far as
the disk's read-ahead goes: megabytes a record, where that is large. So the map is declared to be
read at random (madvise(2)), and what will be read is said beforehand: a pack's body as a whole, and
the places of a batch. Saying so costs as much as reading a record that is in memory; so it is only
done after a batch that read from the disk, which the system counts (getrusage(2), `ru_inblock`), or
after a single read that took as long as only a disk does.
"""

import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reads", "ask_for", "declare_random"]

STEP = 1 << 17  # bytes: of more at once, Linux reads only the first (its default read-ahead)
LARGE = 1 << 16  # bytes: less is not worth a call
GAP = 1 << 14  # bytes between two places that are read as well
FEW = 16  # a batch that read from the disk for fewer than one record in so many was in memory
SLOW = 2e-5  # seconds: a few records' worth from memory, less than a disk takes
WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
BLOCK = 512  # bytes of `ru_inblock`


def declare_random(mapped: mmap.mmap) -> None:
    """Keep the system from reading around what is touched."""
    mapped.madvise(mmap.MADV_RANDOM)


def ask_for(mapped: mmap.mmap | bytes, start: int, stop: int) -> None:
    """Have the system begin to read bytes `start` to `stop`, if they are many."""
    if stop - start >= LARGE and isinstance(mapped, mmap.mmap):
        _ask(mapped, start, stop)


def _ask(mapped: mmap.mmap, start: int, stop: int) -> None:
    start -= start % mmap.PAGESIZE
    stop = min(stop, len(mapped))
    for at in range(start, stop, STEP):
        mapped.madvise(mmap.MADV_WILLNEED, at, min(STEP, stop - at))


class Reads:
    """Places read from one file, and whether the last came from the disk."""

    def __init__(self) -> None:
        self._cold = True  # as after opening
        self._slow = False  # the last single read

    def one(self, mapped: mmap.mmap | bytes, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop`, as many of them as there are. O(bytes)."""
        began = perf_counter()
        if self._slow and isinstance(mapped, mmap.mmap) and start < len(mapped):
            _ask(mapped, start, stop)  # all pages at once, where they would be waited for in turn
        found = mapped[start:stop]
        self._slow = perf_counter() - began > SLOW
        return found

    @contextmanager
    def batch(
        self, mapped: mmap.mmap | bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Iterator[None]:
        """Read the places within this context: bytes ``starts[i]`` on, ``lengths[i]`` of them.

        O(n log n) calls of the system where the last batch came from the disk, or else O(1).
        """
        if not len(starts) or not isinstance(mapped, mmap.mmap):
            yield
            return
        before = resource.getrusage(WHO).ru_inblock
        if self._cold:
            for start, stop in runs(starts, starts + lengths):
                _ask(mapped, start, stop)
        yield
        read = (resource.getrusage(WHO).ru_inblock - before) * BLOCK
        self._cold = read * FEW > len(starts) * mmap.PAGESIZE


def runs(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Join places that lie near each other: (start, stop) of each run, ascending. O(n log n)."""
    order = np.argsort(starts)
    starts, ends = starts[order], np.maximum.accumulate(stops[order])
    first = np.flatnonzero(np.append(True, starts[1:] > ends[:-1] + GAP))
    last = np.append(first[1:], len(starts)) - 1
    return list(zip(starts[first].tolist(), ends[last].tolist(), strict=True))
