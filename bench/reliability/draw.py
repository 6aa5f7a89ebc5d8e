"""Where generated arguments come from: cheap draws from pools of bytes made once.

All that is drawn follows from the seed, so an input can be made again from the number of its block
and its place in it. A buffer's content is a slice of a pool, since one slice costs less than any
generator: what decides how many inputs a second there are.
"""

import random
from array import array
from typing import Any, TypeVar

import numpy as np

from bench.reliability.buffers import Guarded

T = TypeVar("T")

POOL = 1 << 17  # items
SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 8, 10, 13, 16, 17, 20, 31, 32, 33, 40, 64, 65, 100)
LARGE = (300, 511, 512, 513, 600)  # beyond the kernels' blocks
EXTREMES = (
    *(-(2**63), -(2**63) + 1, -(2**62), -(2**32), -(2**31), -3, -2, -1, 0, 1, 2, 3, 255, 256),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33, 2**34, 2**40, 2**61, 2**62, 2**63 - 2, 2**63 - 1),
)


class Pools:
    """Random bytes, and int64 of several kinds, the same in every process."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20_240_829)
        self.noise = rng.bytes(8 * POOL)
        self.extremes = rng.choice(np.array(EXTREMES), POOL).tobytes()
        self.rows: dict[int, bytes] = {}
        self.rng = rng

    def rows_below(self, bound: int) -> bytes:
        """int64 from 0 to `bound` - 1, one of fifty is -1 or `bound` instead."""
        pool = self.rows.get(bound)
        if pool is None:
            rng = np.random.default_rng(bound)
            drawn = rng.integers(0, max(bound, 1), POOL)
            wrong = rng.random(POOL) < 0.02
            drawn[wrong] = rng.choice([-1, bound], int(wrong.sum()))
            pool = self.rows[bound] = drawn.tobytes()
        return pool


class Draw:
    """Draws for one block of inputs; `memory` holds the buffers of the input under way."""

    pools: Pools | None = None

    def __init__(self, seed: str, memory: Guarded) -> None:
        if Draw.pools is None:
            Draw.pools = Pools()
        self._pools = Draw.pools
        self._random = random.Random(seed).random
        self.memory = memory

    def below(self, bound: int) -> int:
        """An int from 0 to `bound` - 1."""
        return int(self._random() * bound)

    def chance(self, share: float) -> bool:
        return self._random() < share

    def of(self, choices: "tuple[T, ...] | list[T]") -> T:
        return choices[int(self._random() * len(choices))]

    def size(self) -> int:
        """A length: mostly short, now and then beyond the kernels' blocks."""
        return self.of(LARGE) if self._random() < 0.004 else self.of(SIZES)

    # Contents of buffers.

    def noise(self, size: int) -> bytes:
        at = int(self._random() * (8 * POOL - size))
        return self._pools.noise[at : at + size]

    def extremes(self, items: int) -> bytes:
        return self._slice(self._pools.extremes, items)

    def rows(self, items: int, bound: int) -> bytes:
        """`items` int64, nearly all of them rows below `bound`."""
        return self._slice(self._pools.rows_below(bound), items)

    def _slice(self, pool: bytes, items: int) -> bytes:
        at = 8 * int(self._random() * (POOL - items))
        return pool[at : at + 8 * items]

    def rising(self, items: int, limit: int) -> "array[int]":
        """`items` int64 in ascending order, 0 to `limit`; often from 0 and up to it."""
        drawn = self._random
        numbers = array("q", sorted([int(drawn() * (limit + 1)) for _ in range(items)]))
        if items and drawn() < 0.8:
            numbers[0] = 0
            if items > 1:
                numbers[-1] = limit
        return numbers

    # Buffers.

    def buffer(self, content: bytes) -> memoryview:
        return self.memory.put(content)

    def out(self, size: int) -> memoryview:
        """A buffer of `size` bytes that hold anything."""
        return self.memory.put(self.noise(size))


def as_array(buffer: Any, dtype: Any, row: tuple[int, ...]) -> Any:
    """Copy a buffer into an array (n, *row)."""
    return np.frombuffer(bytearray(buffer), dtype).reshape(-1, *row)
