"""HashHop samples whose every line follows from (seed, line number) alone.

The lines ``source = target`` form one closed cycle over all n hashes: node i points to node i + 1
and the last to the first. A node's hash comes from a keyed bijection (`names.py`), the node that a
line number carries from a keyed permutation of 0 … n − 1 (`permutation.py`). So memory does not
grow with the sample, any line can be computed alone, and the text is the same on every machine.

The cycle is what leaves no shortcut. Every hash is a source once and a target once, no line is
marked, so nothing tells a chain's head or end from any other hash. A query may start anywhere and
asks for at most n / 2 hops, so that walking backwards is never shorter. The chains asked for are
drawn by a further permutation from stretches of hops + 1 nodes each: no hash belongs to two of
them, so no answer helps with another.

Layout of the text: n lines of 2 · hash_length + 3 letters and a newline after every one, also the
last, so that pieces can be joined. Length n · (2 · hash_length + 4) characters, all ASCII.

A sample does not change once it is made and may be read from several threads.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from numbers import Integral
from typing import BinaryIO

import numpy as np

from hashmem.hashhop.names import MAX_LENGTH, HashNames, Letters
from hashmem.hashhop.permutation import Permutation, UInt64s, round_keys
from hashmem.hashhop.tasks import positions, question

FORMAT_VERSION = 1
CHARACTERS_PER_TOKEN = 3  # where no tokenizer is named

_BLOCK = 1 << 14  # lines computed at once: the arrays in use stay within a core's own cache


class HashHop:
    """A sample: `characters` (or `tokens`) of shuffled pairs, and `queries` chains to follow.

    The text is the most whole lines that fit into the size asked for; `characters` then tells its
    exact length, which gives the same sample when asked for again.

    hops:        edges from a query to its end.
    hash_length: letters in a hash, 1 to 64.
    seed, order: choose the hashes and chains, and how the lines are shuffled. The same seed under
                 another order has the same lines and the same answers.
    mode:        what an answer names: every hash on the way ("step"), the end only ("direct"), or
                 every `stride`-th one and the end ("skip").

    Raises `ValueError` on sizes that cannot be met, saying what would work.

    >>> sample = HashHop(characters=1_000, hops=2, hash_length=8, queries=1, seed=7)
    >>> sample.characters, len(sample)
    (1000, 50)
    >>> sample.line(0)
    'bljMIScT = KtUtbqqV'
    >>> sample.targets
    {'dLuApsnj': 'fosOKdza = sDdbAajp'}
    """

    def __init__(
        self,
        *,
        characters: int | None = None,
        tokens: int | None = None,
        hops: int = 6,
        hash_length: int = 16,
        queries: int = 5,
        seed: int = 0,
        order: int = 0,
        mode: str = "step",
        stride: int = 2,
    ) -> None:
        if tokens is not None:
            if characters is not None:
                raise ValueError("the size was given twice: drop characters or tokens")
            characters = tokens * CHARACTERS_PER_TOKEN
        if characters is None:
            raise ValueError("no size was given: pass characters, or tokens of 3 characters each")
        whole = (characters, hops, hash_length, queries, seed, order, stride)
        if not all(isinstance(number, Integral) for number in whole):
            raise TypeError("sizes, counts and seeds are whole numbers: write 3_000_000, not 3e6")
        characters, hops, hash_length, queries, seed, order, stride = map(int, whole)
        if not 1 <= hash_length <= MAX_LENGTH:
            raise ValueError(f"hash_length is 1 to {MAX_LENGTH} letters, not {hash_length}")
        self.hash_length = hash_length
        self.line_length = 2 * hash_length + 4  # characters, the newline included
        self.hops = hops
        self.queries = queries
        self.seed = seed
        self.order = order
        self.mode = mode
        self.positions = positions(hops, mode, stride)  # of the hashes that an answer names
        self.stride = stride
        self._lines = characters // self.line_length
        self._check_sizes(characters)
        self._names = HashNames(hash_length, seed)
        self._order = Permutation(self._lines, round_keys("order", seed, order))

    def _check_sizes(self, characters: int) -> None:
        lines, hops = self._lines, self.hops
        if lines < 2 * hops:
            raise ValueError(
                f"{characters} characters hold {lines} lines and {hops} hops need {2 * hops}: "
                f"take at most {lines // 2} hops or at least {2 * hops * self.line_length} "
                "characters"
            )
        if lines > 52**self.hash_length:
            enough = next(n for n in range(1, MAX_LENGTH) if characters // (2 * n + 4) <= 52**n)
            raise ValueError(
                f"only {52**self.hash_length} hashes have {self.hash_length} letters and "
                f"{characters} characters need {lines}: take hash_length {enough} or at most "
                f"{52**self.hash_length * self.line_length} characters"
            )
        chains = lines // (hops + 1)
        if not 1 <= self.queries <= chains:
            raise ValueError(
                f"{lines} lines hold {chains} chains of {hops} hops apart from each other: take "
                f"1 to {chains} queries, not {self.queries}"
            )

    def __repr__(self) -> str:
        stride = f", stride={self.stride}" if self.mode == "skip" else ""
        return (
            f"HashHop(characters={self.characters}, hops={self.hops}, "
            f"hash_length={self.hash_length}, queries={self.queries}, seed={self.seed}, "
            f"order={self.order}, mode={self.mode!r}{stride})"
        )

    def __len__(self) -> int:
        """The number of lines, which is the number of hashes too."""
        return self._lines

    @property
    def characters(self) -> int:
        """The exact length of the text in characters, and in bytes."""
        return self._lines * self.line_length

    # The lines

    def line(self, i: int) -> str:
        """Return line `i`, without its newline. Costs the same for every line."""
        if not 0 <= i < self._lines:
            raise IndexError(f"line {i} is not one of the {self._lines} lines")
        return str(self._block(i, i + 1)[0, :-1].tobytes(), "ascii")

    def lines(self, start: int = 0, stop: int | None = None) -> str:
        """Return the text of lines `start` … `stop` − 1, each with its newline."""
        return str(b"".join(self.blocks(start, stop)), "ascii")

    def text(self) -> str:
        """Return the whole text, `characters` long."""
        return self.lines()

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the text of lines `start` … `stop` − 1 in pieces of up to 16 384 lines."""
        for a, b in self._spans(start, stop):
            yield self._block(a, b).tobytes()

    def write(self, file: BinaryIO) -> None:
        """Write the whole text to a binary file, a block at a time."""
        for block in self.blocks():
            file.write(block)

    def sha256(self) -> str:
        """Return the SHA-256 of the whole text, in hexadecimal."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def pairs(self, start: int = 0, stop: int | None = None) -> tuple[Letters, Letters]:
        """Return the sources and targets of lines `start` … `stop` − 1 as fixed-width keys.

        Each is uint8 (lines, width) with width = max(8, hash_length): the ASCII letters, with
        zeros behind them where a hash is shorter than the 8 bytes that tables start at.
        """
        spans = list(self._spans(start, stop))
        first = spans[0][0] if spans else 0
        count = spans[-1][1] - first if spans else 0
        shape = (count, max(8, self.hash_length))
        sources, targets = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        for a, b in spans:
            nodes, following = self._nodes(a, b)
            sources[a - first : b - first, : self.hash_length] = self._names.letters(nodes)
            targets[a - first : b - first, : self.hash_length] = self._names.letters(following)
        return sources, targets

    def __contains__(self, text: object) -> bool:
        """Whether `text` is one of the sample's hashes. Computed, without the lines."""
        if not isinstance(text, str) or len(text) != self.hash_length or not text.isascii():
            return False
        letters = np.frombuffer(text.encode(), np.uint8).reshape(1, -1)
        return bool(0 <= self._names.nodes(letters)[0] < self._lines)

    # What is asked

    def chain_letters(self) -> Letters:
        """Return every asked chain, uint8 (queries, hops + 1, hash_length): query first."""
        chains = Permutation(self._lines // (self.hops + 1), round_keys("queries", self.seed))
        asked = chains.forward(np.arange(self.queries, dtype=np.uint64))
        edges = np.arange(self.hops + 1, dtype=np.uint64)
        nodes = (asked * np.uint64(self.hops + 1))[:, None] + edges
        letters = self._names.letters(nodes.ravel())
        return letters.reshape(self.queries, self.hops + 1, self.hash_length)

    @cached_property
    def chains(self) -> list[tuple[str, ...]]:
        """Every asked chain as its `hops` + 1 hashes, from the query to the end."""
        width = self.hash_length
        rows = (str(row.tobytes(), "ascii") for row in self.chain_letters())
        return [tuple(row[i : i + width] for i in range(0, len(row), width)) for row in rows]

    @property
    def targets(self) -> dict[str, str]:
        """Each query and its answer, the hashes that the mode asks for joined by " = "."""
        return {c[0]: " = ".join(c[i] for i in self.positions) for c in self.chains}

    @property
    def completion(self) -> str:
        """The wanted reply: a line ``query = answer`` for each query."""
        return "".join(f"{query} = {answer}\n" for query, answer in self.targets.items())

    def question(self) -> str:
        """Return what is asked about the text, with every query on a line of its own."""
        return question(self.hops, self.positions, [chain[0] for chain in self.chains])

    @property
    def prompt(self) -> str:
        """The whole text with the question after it."""
        return f"{self.text()}\n{self.question()}"

    def metadata(self) -> dict[str, object]:
        """Return all that it takes to make this sample again, fit for JSON."""
        return {
            "format": "hashmem",
            "version": FORMAT_VERSION,
            "seed": self.seed,
            "order": self.order,
            "hash_length": self.hash_length,
            "hops": self.hops,
            "queries": self.queries,
            "mode": self.mode,
            "positions": list(self.positions),
            "lines": self._lines,
            "characters": self.characters,
        }

    # Lines from numbers

    def _spans(self, start: int, stop: int | None) -> Iterator[tuple[int, int]]:
        stop = self._lines if stop is None else stop
        if not 0 <= start <= stop <= self._lines:
            raise IndexError(f"lines {start} to {stop} are not within the {self._lines} lines")
        for a in range(start, stop, _BLOCK):
            yield a, min(a + _BLOCK, stop)

    def _nodes(self, start: int, stop: int) -> tuple[UInt64s, UInt64s]:
        """The nodes that lines `start` … `stop` − 1 carry, and those they point to."""
        nodes = self._order.forward(np.arange(start, stop, dtype=np.uint64))
        following = nodes + np.uint64(1)
        following[following == np.uint64(self._lines)] = 0
        return nodes, following

    def _block(self, start: int, stop: int) -> Letters:
        """The text of lines `start` … `stop` − 1, uint8 (lines, line_length)."""
        nodes, following = self._nodes(start, stop)
        width = self.hash_length
        text = np.empty((stop - start, self.line_length), np.uint8)
        text[:, :width] = self._names.letters(nodes)
        text[:, width : width + 3] = np.frombuffer(b" = ", np.uint8)
        text[:, width + 3 : -1] = self._names.letters(following)
        text[:, -1] = ord("\n")
        return text
