"""Buffers for kernels to run over, laid so that a write beside them is seen.

`Guarded` cuts them from one block of memory, with canary bytes before and behind each. `Separate`
gives each an allocation of its own size, for a build whose sanitizer watches what lies around it.
"""

import numpy as np

GUARD = 32  # bytes
CANARY = bytes(range(0xA1, 0xA1 + GUARD))
ALIGNMENT = 16  # bytes, as malloc's


class Overwritten(AssertionError):
    """A kernel wrote outside its buffers."""


class Guarded:
    """Buffers between canaries in one block of `room` bytes."""

    def __init__(self, room: int = 1 << 20) -> None:
        raw = np.zeros(room + 64, np.uint8)
        skip = -raw.__array_interface__["data"][0] % 64
        self._block = memoryview(raw)[skip : skip + room]
        self._places: list[tuple[int, int]] = []
        self._end = 0

    def clear(self) -> None:
        """Forget all buffers; the next ones take their memory."""
        self._places.clear()
        self._end = 0

    def take(self, size: int, skew: int = 0) -> memoryview:
        """Return `size` writable bytes that begin `skew` bytes beyond an aligned address."""
        start = (self._end + GUARD + ALIGNMENT - 1 & -ALIGNMENT) + skew
        stop = start + size
        block = self._block
        if stop + GUARD > len(block):
            raise MemoryError(f"{size} bytes do not fit into what is left of {len(block)}")
        block[start - GUARD : start] = CANARY
        block[stop : stop + GUARD] = CANARY
        self._places.append((start, stop))
        self._end = stop + GUARD
        return block[start:stop]

    def put(self, content: bytes, skew: int = 0) -> memoryview:
        """Return a buffer that holds a copy of `content`."""
        buffer = self.take(len(content), skew)
        buffer[:] = content
        return buffer

    def check(self) -> None:
        """Raise `Overwritten` unless every canary is as it was."""
        block = self._block
        for start, stop in self._places:
            if block[start - GUARD : start] != CANARY or block[stop : stop + GUARD] != CANARY:
                raise Overwritten(f"bytes beside a buffer of {stop - start} bytes were written")


class Separate(Guarded):
    """Buffers that are an allocation each; what is written beside them, a sanitizer reports."""

    def __init__(self, room: int = 0) -> None:
        super().__init__(0)

    def take(self, size: int, skew: int = 0) -> memoryview:
        return memoryview(np.zeros(size + skew, np.uint8))[skew:]
