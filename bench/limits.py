"""What memory alone allows: the lines that a find or a hop touches, and nothing else done.

The arrays are as large as the table's, and so many queries are in flight at once as is fastest.
"""

import ctypes
from collections.abc import Sequence
from functools import partial

import numpy as np

from bench import harness
from bench.compiled import address, library
from bench.harness import Timed

LINE = 64  # bytes
DEPTHS = (8, 16, 32, 64)  # queries between a prefetch and the read
GROUPS = (16, 32, 64, 128)  # chains side by side


def _c() -> ctypes.CDLL:
    c = library("limits.c")
    c.limits_array.restype = ctypes.c_void_p
    c.limits_array.argtypes = [ctypes.c_size_t, ctypes.c_int]
    c.limits_free.argtypes = [ctypes.c_void_p]
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    c.limits_touch.argtypes = [pointer, pointer, size, size, pointer, size]
    c.limits_touch.restype = ctypes.c_uint64
    c.limits_chains.argtypes = [pointer, pointer, pointer, size, size, size]
    return c


class Arrays:
    """An index of `index` bytes and `count` entries of `stride` bytes behind it, in one piece.

    Raises `ImportError` where there is no C compiler.
    """

    def __init__(self, index: int, count: int, stride: int, huge: bool = True) -> None:
        self._c = _c()
        self.lines, self.count, self.stride = max(1, index // LINE), count, stride
        self._words = self._c.limits_array(self.lines * LINE + count * stride, int(huge))
        if not self._words:
            raise MemoryError(f"no memory for {index + count * stride} bytes")
        self._depths: dict[tuple[int, int], int] = {}

    def touch(self, picks: np.ndarray, index_reads: float, entry_reads: float) -> Timed:
        """Prepare the call that reads, for each of `picks` (n,), entries in [0, count), so many
        lines of the index and so many entries on average: the one picked, and others after it.

        A line of the index goes with a pick, so that picks that come often find it in the cache.
        """
        steps, spans = [], []
        for number in range(int(np.ceil(index_reads))):
            line = _mixed(picks, number) % np.uint64(self.lines) * np.uint64(LINE // 8)
            steps.append(_as_often(index_reads - number, picks, line, steps))
            spans.append(0)
        for number in range(int(np.ceil(entry_reads))):
            entry = picks.astype(np.uint64)
            if number:
                entry = _mixed(picks, 16 + number) % np.uint64(self.count)
            word = np.uint64(self.lines * LINE // 8) + entry * np.uint64(self.stride // 8)
            steps.append(_as_often(entry_reads - number, picks, word, steps))
            spans.append(self.stride // 8 - 1)
        plan = np.stack(steps, axis=1).astype(np.uint32)  # (n, steps), in words
        widths = np.array(spans, np.uint32)
        key = len(spans), round(entry_reads)
        if key not in self._depths:
            sample = plan[: 1 << 18]
            self._depths[key] = _fastest(
                {depth: partial(self._run, sample, widths, depth) for depth in DEPTHS}
            )
        return partial(self._run, plan, widths, self._depths[key])

    def _run(self, plan: np.ndarray, spans: np.ndarray, depth: int) -> None:
        n, steps = plan.shape
        summed = self._c.limits_touch(self._words, address(plan), n, steps, address(spans), depth)
        assert summed == 0

    def close(self) -> None:
        if self._words:
            self._c.limits_free(self._words)
            self._words = None

    def __del__(self) -> None:
        if hasattr(self, "_words"):
            self.close()


def chains(successors: np.ndarray, starts: np.ndarray, hops: int) -> Timed:
    """Prepare the call that follows `starts` (m,) by `hops` dependent reads of `successors`."""
    c, out = _c(), np.empty_like(starts)

    def run(group: int, starts: np.ndarray = starts) -> np.ndarray:
        n = len(starts)
        c.limits_chains(address(successors), address(starts), address(out), n, hops, group)
        return out

    few = starts[: 1 << 17]
    return partial(run, _fastest({group: partial(run, group, few) for group in GROUPS}))


def _fastest(calls: dict[int, Timed]) -> int:
    for call in calls.values():
        call()
    found = harness.race({str(k): lambda _, call=call: call for k, call in calls.items()}, 3)
    return min(calls, key=lambda k: min(found[str(k)]))


def _mixed(picks: np.ndarray, salt: int) -> np.ndarray:
    x = (picks.astype(np.uint64) + np.uint64(1 + (salt << 40))) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    return x ^ x >> np.uint64(32)


def _as_often(
    share: float, picks: np.ndarray, place: np.ndarray, before: Sequence[np.ndarray]
) -> np.ndarray:
    """`place` for this share of the picks; the others read again what they read before."""
    if share >= 1:
        return place
    chosen = _mixed(picks, 64 + len(before)) >> np.uint64(40) < np.uint64(share * (1 << 24))
    return np.where(chosen, place, before[-1] if before else place)
