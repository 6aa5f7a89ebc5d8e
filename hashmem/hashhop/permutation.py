"""Keyed bijections on 0 … size − 1, computed and not stored.

A value is split as left · b + right with a · b ≥ size, and six Feistel rounds add to one half,
modulo its own size, a keyed function of the other. Adding can be undone, so every round is a
bijection whatever the function is. The few values that land in size … a · b − 1 go through the
rounds again until they are inside (cycle walking), which keeps the whole a bijection on
0 … size − 1; there are fewer than a of them, so nearly none.

Only uint64 additions, multiplications and shifts are used, all modulo 2^64: the same bits on
every machine and NumPy version. This scatters; it is no cipher.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

_ROUNDS = 6
_FIRST = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_SECOND = np.uint64(0xD1B54A32D192ED03)  # odd, with no short additive relation to the first
_HALF = np.uint64(32)


def round_keys(*purpose: object) -> UInt64s:
    """Derive eight keys, uint64 (8,), from the parts of `purpose` with BLAKE2b."""
    name = "\n".join(["hashmem.hashhop 1", *map(str, purpose)])
    keys = np.frombuffer(hashlib.blake2b(name.encode()).digest(), dtype="<u8")
    return keys.astype(np.uint64)


def scatter(values: UInt64s, key: np.uint64) -> UInt64s:
    """Hash each value under `key`; the high half of the 64 bits is the good one."""
    mixed = values + key
    mixed *= _FIRST
    mixed ^= mixed >> _HALF
    mixed *= _SECOND
    return mixed


class Permutation:
    """A bijection on 0 … `size` − 1 chosen by `keys` (at least six); size from 1 to 2^63.

    >>> places = Permutation(10, round_keys("example"))
    >>> sorted(places.forward(np.arange(10, dtype=np.uint64)).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, size: int, keys: UInt64s) -> None:
        if not 1 <= size <= 1 << 63:
            raise ValueError(f"a permutation has 1 to 2^63 places, not {size}")
        a = math.isqrt(size - 1) + 1  # at most 2^31.5, so that 32-bit fractions of it fit uint64
        self._size = np.uint64(size)
        self._a = np.uint64(a)
        self._b = np.uint64(-(-size // a))
        self._keys = keys[:_ROUNDS]

    def forward(self, values: UInt64s) -> UInt64s:
        """Return where each of `values`, uint64 (m,), goes. About 30 ns each."""
        return self._walk(values, backward=False)

    def inverse(self, values: UInt64s) -> UInt64s:
        """Return what went to each of `values`, uint64 (m,)."""
        return self._walk(values, backward=True)

    def _walk(self, values: UInt64s, backward: bool) -> UInt64s:
        step = self._undo_rounds if backward else self._do_rounds
        places = step(values)
        outside = np.flatnonzero(places >= self._size)
        while len(outside):
            places[outside] = step(places[outside])
            outside = outside[places[outside] >= self._size]
        return places

    def _do_rounds(self, values: UInt64s) -> UInt64s:
        left = values // self._b
        right = values - left * self._b
        for i in range(0, _ROUNDS, 2):
            left += self._fraction(right, i, self._a)
            left = np.minimum(left, left - self._a)  # below a the difference wraps and is larger
            right += self._fraction(left, i + 1, self._b)
            right = np.minimum(right, right - self._b)
        left *= self._b
        left += right
        return left

    def _undo_rounds(self, values: UInt64s) -> UInt64s:
        left = values // self._b
        right = values - left * self._b
        for i in range(_ROUNDS - 2, -1, -2):
            right -= self._fraction(left, i + 1, self._b)
            right = np.minimum(right, right + self._b)
            left -= self._fraction(right, i, self._a)
            left = np.minimum(left, left + self._a)
        left *= self._b
        left += right
        return left

    def _fraction(self, values: UInt64s, i: int, size: np.uint64) -> UInt64s:
        """A number below `size` from each value: the hash's high half as a fraction of it."""
        mixed = scatter(values, self._keys[i])
        mixed >>= _HALF
        mixed *= size
        mixed >>= _HALF
        return mixed
