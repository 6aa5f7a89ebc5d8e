"""Node numbers ↔ the letter hashes that stand for them.

The first min(length, 10) letters of a hash are its node's number, sent through a keyed bijection
on 0 … 52^10 − 1 (52^length where that is less) and written in base 52. So two nodes never share
these letters, no set of the hashes already given is kept, and no hash is drawn twice. The bijection
stops at ten letters because 52^10 < 2^57 fits a machine word and has an exact square root; the
letters after them are a keyed hash of the number, six letters for each 64 bits (the remainder
modulo 52^6 favours no letter by more than 10^−9).
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.permutation import Permutation, UInt64s, round_keys, scatter

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_LENGTH = 64  # letters: the widest digest that a hashmem table takes

_CORE = 10  # letters that the bijection fills
_TAIL = 6  # letters from each further word
_BASE = len(ALPHABET)
_ONE = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)
_TWO = np.stack([np.repeat(_ONE, _BASE), np.tile(_ONE, _BASE)], axis=1).view(np.uint16).ravel()
_PAIRS = np.uint64(_BASE * _BASE)
_DIGIT = np.full(256, -1, dtype=np.int64)
_DIGIT[_ONE] = np.arange(_BASE)

Letters = NDArray[np.uint8]


class HashNames:
    """The hashes of `length` letters that the nodes of one seed carry."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self._core = min(length, _CORE)
        self._numbers = Permutation(_BASE**self._core, round_keys("hash", length, seed))
        # (first letter, letters, key) of every word after the bijection's
        self._tail = [
            (at, min(_TAIL, length - at), round_keys("letters", length, seed, at)[0])
            for at in range(self._core, length, _TAIL)
        ]

    def letters(self, nodes: UInt64s) -> Letters:
        """Return the hashes of `nodes`, uint64 (m,), as ASCII letters, uint8 (m, length)."""
        out = np.empty((len(nodes), self.length), dtype=np.uint8)
        _spell(self._numbers.forward(nodes), out[:, : self._core])
        self._spell_tail(nodes, out)
        return out

    def nodes(self, letters: Letters) -> NDArray[np.int64]:
        """Return the node of each hash, uint8 (m, length) → int64 (m,); -1 where there is none."""
        digits = _DIGIT[letters]
        spelled = (digits >= 0).all(axis=1)
        numbers = np.zeros(len(letters), dtype=np.uint64)
        for digit in np.maximum(digits, 0)[:, : self._core].T.astype(np.uint64):
            numbers = numbers * np.uint64(_BASE) + digit
        nodes = self._numbers.inverse(numbers)
        again = letters.copy()
        self._spell_tail(nodes, again)
        spelled &= (again == letters).all(axis=1)
        return np.where(spelled, nodes.astype(np.int64), -1)

    def _spell_tail(self, nodes: UInt64s, out: Letters) -> None:
        for at, count, key in self._tail:
            words = scatter(nodes, key)
            words ^= words >> np.uint64(29)  # the remainder below looks at the low bits too
            words %= np.uint64(_BASE**_TAIL)
            _spell(words, out[:, at : at + count])


def _spell(numbers: UInt64s, out: Letters) -> None:
    """Write the last base-52 digits of `numbers` (m,) as letters to `out` (m, letters)."""
    count = out.shape[1]
    pairs = np.empty((len(numbers), (count + 1) // 2), dtype=np.uint16)
    rest = numbers
    if count % 2:  # an odd last letter goes alone, in the first byte of its pair
        shorter = rest // np.uint64(_BASE)
        pairs[:, -1] = 0
        pairs.view(np.uint8)[:, count - 1] = _ONE[rest - shorter * np.uint64(_BASE)]
        rest = shorter
    for column in range(count // 2 - 1, -1, -1):
        shorter = rest // _PAIRS
        pairs[:, column] = _TWO[rest - shorter * _PAIRS]
        rest = shorter
    out[:] = pairs.view(np.uint8)[:, :count]
