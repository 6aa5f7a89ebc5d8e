"""Node numbers ↔ the hashes that stand for them.

A hash is a row of symbols: letters, unless told otherwise. Its first symbols, as many as a machine
word holds (ten letters of 52), are its node's number, sent through a keyed bijection on
0 … symbols^10 − 1 and written in that base. So two nodes never share them, no set of the hashes
already given is kept, and no hash is drawn twice. Their number is even, so that the bijection's
range has an exact square root. The symbols after them, the *tail*, are a keyed hash of the number,
as many from each 64 bits as leave a remainder that favours none by more than 2^−28 (six letters).

A *near miss* of a hash differs from it in its tail alone, so it is no hash of another node, and
near misses of two hashes differ.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.permutation import Permutation, UInt64s, round_keys, scatter

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_LENGTH = 64  # characters: the widest digest that a hashmem table takes
NEAR_MISSES = ("letter", "case", "prefix")

_CORE, _TAIL = 1 << 58, 1 << 35  # what a machine word holds, with room; what 64 bits spread over
_BYTE = 256  # symbols: of no more, two at a time are written from a table

Letters = NDArray[np.uint8]


class Alphabet:
    """The symbols that hashes are made of, all of one width: letters, digits, or short words.

    Raises `ValueError` on fewer than two, on two that are equal or of different widths, and on
    what is not ASCII letters and digits, which tell where a hash ends.
    """

    def __init__(self, symbols: str | Sequence[str] = ALPHABET) -> None:
        self.symbols = tuple(symbols)
        self.width = len(self.symbols[0]) if self.symbols else 0  # characters
        bad = [s for s in self.symbols if not (s.isascii() and s.isalnum())]
        if len(self.symbols) < 2 or bad:
            raise ValueError(
                f"an alphabet is two or more symbols of ASCII letters and digits, not {bad[:1]!r}"
                if bad
                else f"an alphabet has at least two symbols, not {len(self.symbols)}"
            )
        if any(len(s) != self.width for s in self.symbols):
            raise ValueError("the symbols of an alphabet have one length: leave out the others")
        if len(set(self.symbols)) < len(self.symbols):
            raise ValueError("an alphabet has no symbol twice")
        self.base = len(self.symbols)
        self.core = max(2, _digits(self.base, _CORE) // 2 * 2)  # symbols that the bijection fills
        self.tail = max(1, _digits(self.base, _TAIL))  # symbols from each further word
        one = np.array(self.symbols, f"S{self.width}")
        self._one = one.view(np.uint8).reshape(self.base, self.width)
        self._digit = np.full(256, -1, dtype=np.int64)  # of a letter, where symbols are letters
        self._digit[self._one[:, 0]] = np.arange(self.base)
        self._order = np.argsort(one)
        self._sorted = one[self._order]
        self._pairs = None  # letters two at a time, where there are few enough
        if self.width == 1 and self.base <= _BYTE:
            first, second = np.repeat(self._one, self.base), np.tile(self._one[:, 0], self.base)
            self._pairs = np.stack([first, second], axis=1).view(np.uint16).ravel()

    @property
    def characters(self) -> str:
        """Every character that occurs in a hash, each once."""
        return "".join(sorted(set("".join(self.symbols))))

    def spell(self, numbers: UInt64s, out: Letters) -> None:
        """Write the last digits of `numbers` (m,) in this base to `out` (m, characters)."""
        if self._pairs is not None:
            self._spell_pairs(numbers, out, self._pairs)
            return
        base, rest = np.uint64(self.base), numbers
        for end in range(out.shape[1], 0, -self.width):
            shorter = rest // base
            out[:, end - self.width : end] = self._one[rest - shorter * base]
            rest = shorter

    def _spell_pairs(self, numbers: UInt64s, out: Letters, two: NDArray[np.uint16]) -> None:
        count, base = out.shape[1], np.uint64(self.base)
        pairs = np.empty((len(numbers), (count + 1) // 2), dtype=np.uint16)
        rest = numbers
        if count % 2:  # an odd last letter goes alone, in the first byte of its pair
            shorter = rest // base
            pairs[:, -1] = 0
            pairs.view(np.uint8)[:, count - 1] = self._one[rest - shorter * base, 0]
            rest = shorter
        for column in range(count // 2 - 1, -1, -1):
            shorter = rest // (base * base)
            pairs[:, column] = two[rest - shorter * (base * base)]
            rest = shorter
        out[:] = pairs.view(np.uint8)[:, :count]

    def letters(self, digits: NDArray[np.int64]) -> Letters:
        """Return the symbols of these numbers, (m, symbols) → uint8 (m, characters)."""
        return self._one[digits].reshape(len(digits), digits.shape[1] * self.width)

    def digits(self, letters: Letters) -> NDArray[np.int64]:
        """Return the number of each symbol, (m, characters) → int64 (m, symbols); -1: none."""
        if self.width == 1:
            return self._digit[letters]
        found = np.ascontiguousarray(letters).view(f"S{self.width}")
        at = np.minimum(np.searchsorted(self._sorted, found), self.base - 1)
        return np.where(self._sorted[at] == found, self._order[at], -1)


def _digits(base: int, limit: int) -> int:
    """How many digits in `base` make numbers of at most `limit`."""
    return next(n for n in range(limit.bit_length()) if base ** (n + 1) > limit)


class HashNames:
    """The hashes of `length` characters that the nodes of one seed carry."""

    def __init__(self, length: int, seed: int, alphabet: Alphabet | None = None) -> None:
        self.alphabet = alphabet or Alphabet()
        width = self.alphabet.width
        if length % width:
            raise ValueError(
                f"a hash of symbols of {width} characters has a multiple of these, not {length}"
            )
        symbols = length // width
        self.length = length
        self.core = min(symbols, self.alphabet.core)  # symbols
        self.most = self.alphabet.base**self.core  # hashes
        other = [] if self.alphabet.symbols == tuple(ALPHABET) else [self.alphabet.symbols]
        self._keys = (length, seed, *other)
        self._numbers = Permutation(self.most, round_keys("hash", *self._keys))
        # (first symbol, symbols, key) of every word after the bijection's
        step = self.alphabet.tail
        self._tail = [
            (at, min(step, symbols - at), round_keys("letters", *self._keys, at)[0])
            for at in range(self.core, symbols, step)
        ]

    def letters(self, nodes: UInt64s) -> Letters:
        """Return the hashes of `nodes`, uint64 (m,), as ASCII letters, uint8 (m, length)."""
        out = np.empty((len(nodes), self.length), dtype=np.uint8)
        self.alphabet.spell(self._numbers.forward(nodes), out[:, : self.core * self.alphabet.width])
        self._spell_tail(nodes, out)
        return out

    def nodes(self, letters: Letters, *, by_core: bool = False) -> NDArray[np.int64]:
        """Return the node of each hash, uint8 (m, length) → int64 (m,); -1 where there is none.

        `by_core`: whatever the tail is.
        """
        digits = self.alphabet.digits(letters)
        spelled = (digits >= 0).all(axis=1)
        numbers = np.zeros(len(letters), dtype=np.uint64)
        for digit in np.maximum(digits, 0)[:, : self.core].T.astype(np.uint64):
            numbers = numbers * np.uint64(self.alphabet.base) + digit
        nodes = self._numbers.inverse(numbers)
        if not by_core:
            again = letters.copy()
            self._spell_tail(nodes, again)
            spelled &= (again == letters).all(axis=1)
        return np.where(spelled, nodes.astype(np.int64), -1)

    def near(self, nodes: UInt64s, kind: str) -> Letters:
        """Return a near miss of the hash of each of `nodes`, uint8 (m, length).

        It differs in one letter of the tail ("letter"), in the case of one ("case"), or shares all
        before the tail and nothing after ("prefix"). Raises `ValueError` on hashes without a tail.
        """
        alphabet, start = self.alphabet, self.core * self.alphabet.width
        if kind not in NEAR_MISSES:
            raise ValueError(f"no near miss is called {kind!r}: take {', '.join(NEAR_MISSES)}")
        if start == self.length:
            raise ValueError(
                f"a near miss keeps the first {start} characters of a hash, so it takes hashes of "
                f"more than {alphabet.core * alphabet.width}, not {self.length}"
            )
        swaps = {s: s.swapcase() for s in alphabet.symbols}
        if kind == "case" and any(s == t or t not in swaps for s, t in swaps.items()):
            raise ValueError("a near miss by case takes an alphabet of letters of both cases")
        out = self.letters(nodes)
        digits = alphabet.digits(out[:, start:])
        words = scatter(nodes, round_keys("near", *self._keys)[0]) >> np.uint64(32)
        place = words % np.uint64(digits.shape[1])
        step = (words // np.uint64(digits.shape[1]) % np.uint64(alphabet.base - 1)).astype(np.int64)
        rows = np.arange(len(nodes))
        if kind == "prefix":
            digits = (digits + 1 + step[:, None]) % alphabet.base
        elif kind == "letter":
            digits[rows, place] = (digits[rows, place] + 1 + step) % alphabet.base
        else:
            swapped = np.array([alphabet.symbols.index(t) for t in swaps.values()])
            digits[rows, place] = swapped[digits[rows, place]]
        out[:, start:] = alphabet.letters(digits)
        return out

    def _spell_tail(self, nodes: UInt64s, out: Letters) -> None:
        width = self.alphabet.width
        for at, count, key in self._tail:
            words = scatter(nodes, key)
            words ^= words >> np.uint64(29)  # the remainder below looks at the low bits too
            words %= np.uint64(self.alphabet.base**self.alphabet.tail)
            self.alphabet.spell(words, out[:, at * width : (at + count) * width])
