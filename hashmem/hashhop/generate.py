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

Harder texts have short cycles, or lines beside the cycle that lead astray (`graph.py`).

Layout of the text: lines of 2 · hash_length + 3 letters and a newline after every one, also the
last, so that pieces can be joined. Length lines · (2 · hash_length + 4) characters, all ASCII.

A sample does not change once it is made and may be read from several threads.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from numbers import Integral
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.fitting import Wanted
from hashmem.hashhop.graph import spread
from hashmem.hashhop.measuring import Count, counted, most_that_fits
from hashmem.hashhop.names import ALPHABET, MAX_LENGTH, Alphabet, HashNames, Letters
from hashmem.hashhop.permutation import Permutation, UInt64s, round_keys
from hashmem.hashhop.tasks import NONE, positions, question

FORMAT_VERSION = 1
CHARACTERS_PER_TOKEN = 3  # where no tokenizer is named

T = TypeVar("T")

_BLOCK = 1 << 14  # lines computed at once: the arrays in use stay within a core's own cache


class HashHop:
    """A sample: `characters` (or `tokens`) of shuffled pairs, and `queries` chains to follow.

    The text is the most whole lines that fit into the size asked for; `characters` then tells its
    exact length, which gives the same sample when asked for again. Tokens are three characters
    each; or those of a tokenizer, `count` (text → tokens), found by counting, and `tokens` then
    tells how many the text has.

    hops:         edges from a query to its end; or (least, most), and each query has its own.
    hash_length:  characters in a hash, 1 to 64.
    seed, order:  choose the hashes and chains, and how the lines are shuffled. The same seed under
                  another order has the same lines and the same answers.
    mode:         what an answer names: every hash on the way ("step"), the end only ("direct"), or
                  every `stride`-th one and the end ("skip").
    alphabet:     the letters and digits that hashes are made of; or symbols of one length, such as
                  words that are one token each (`single_tokens`).
    cycle:        close the chains after so many hashes, so that longer ones come round again.
    overwritten:  this share of the hashes has a second line, earlier in the text, with a wrong end.
    branches:     for each hash this share of a line that leads into the cycle from elsewhere, so
                  that the way back is not one.
    near:         for this share of the hashes a near miss of it is on lines of its own: one letter
                  or its case is another, or only the first ten letters are the same (`near_kind`
                  "letter", "case", "prefix"). Takes hashes of more letters than these ten.
    unanswerable: so many of the queries are on no line, and their answer is "none".

    Raises `ValueError` on what cannot be met, saying what would work.

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
        count: Count | None = None,
        hops: int | Sequence[int] = 6,
        hash_length: int = 16,
        queries: int = 5,
        seed: int = 0,
        order: int = 0,
        mode: str = "step",
        stride: int = 2,
        alphabet: str | Sequence[str] = ALPHABET,
        cycle: int | None = None,
        overwritten: float = 0.0,
        branches: float = 0.0,
        near: float = 0.0,
        near_kind: str = "letter",
        unanswerable: int = 0,
    ) -> None:
        if tokens is not None and characters is not None:
            raise ValueError("the size was given twice: drop characters or tokens")
        if tokens is None and count is not None:
            raise ValueError("a tokenizer counts tokens: pass tokens=, how many there may be")
        if tokens is not None and count is None:
            characters = tokens * CHARACTERS_PER_TOKEN
        if characters is None:
            if tokens is None:
                raise ValueError(
                    "no size was given: pass characters, or tokens of 3 characters each"
                )
            characters = 0  # to be found
        if isinstance(hops, Sequence) and len(hops) != 2:
            raise ValueError(f"hops are a number, or the least and the most, not {hops!r}")
        least, most = hops if isinstance(hops, Sequence) else (hops, hops)
        whole = (characters, least, most, hash_length, queries, seed, order, stride, unanswerable)
        if not all(isinstance(number, Integral) for number in (*whole, tokens or 0)):
            raise TypeError("sizes, counts and seeds are whole numbers: write 3_000_000, not 3e6")
        characters, least, most, hash_length, queries, seed, order, stride, unanswerable = map(
            int, whole
        )
        if not 1 <= hash_length <= MAX_LENGTH:
            raise ValueError(f"hash_length is 1 to {MAX_LENGTH} letters, not {hash_length}")
        if least > most:
            raise ValueError(f"hops from {least} to {most} are none: give the fewer first")
        self.hash_length = hash_length
        self.line_length = 2 * hash_length + 4  # characters, the newline included
        self.hops = most  # of the longest chains
        self.queries, self.unanswerable = queries, unanswerable
        self.seed, self.order = seed, order
        self.mode, self.stride = mode, stride
        self._lengths = range(least, most + 1)
        self.positions = tuple(
            sorted({p for n in self._lengths for p in positions(n, mode, stride)})
        )  # of the hashes that answers name
        self.alphabet = Alphabet(alphabet)
        self.near_kind = near_kind
        self._names = HashNames(hash_length, seed, self.alphabet)
        shares = {"overwritten": overwritten, "branches": branches, "near": near}
        self._wanted = Wanted(
            seed, self._names, most, queries, unanswerable, cycle, shares, near_kind
        )
        self.tokens: int | None = None  # of the text, where they were counted
        if count is not None and tokens is not None:
            characters = self._measured(tokens, count)
        self._lay_out(characters)

    def _measured(self, tokens: int, count: Count) -> int:
        """The characters of the longest text of at most so many tokens, which `tokens` then has."""

        def text(lines: int) -> str:
            self._lay_out(lines * self.line_length)
            return self.text()

        lines = most_that_fits(tokens, text, count, *self._wanted.bounds())
        self.tokens = counted(count, text(lines))
        return lines * self.line_length

    def _lay_out(self, characters: int) -> None:
        self._graph = self._wanted.graph(characters)
        self._order = Permutation(len(self), round_keys("order", self.seed, self.order))

    def __repr__(self) -> str:
        told = [f"characters={self.characters}"]
        for name, value in self.config().items():
            if name in _ALWAYS or value != _DEFAULTS[name]:
                told.append(f"{name}={value!r}")
        return f"HashHop({', '.join(told)})"

    def config(self) -> dict[str, object]:
        """Return all parameters but the size, fit for JSON: what tells samples apart."""
        least = self._lengths[0]
        return {
            "hops": self.hops if least == self.hops else [least, self.hops],
            "hash_length": self.hash_length,
            "queries": self.queries,
            "seed": self.seed,
            "order": self.order,
            "mode": self.mode,
            "stride": self.stride,
            "alphabet": _as_given(self.alphabet.symbols),
            "cycle": self._wanted.cycle,
            **self._wanted.shares,
            "near_kind": self.near_kind,
            "unanswerable": self.unanswerable,
        }

    def __len__(self) -> int:
        """The number of lines."""
        return self._graph.lines

    @property
    def characters(self) -> int:
        """The exact length of the text in characters, and in bytes."""
        return len(self) * self.line_length

    # The lines

    def line(self, i: int) -> str:
        """Return line `i`, without its newline. Costs the same for every line."""
        if not 0 <= i < len(self):
            raise IndexError(f"line {i} is not one of the {len(self)} lines")
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

    def write(self, file: BinaryIO, progress: Callable[[int], object] | None = None) -> None:
        """Write the whole text to a binary file, a block at a time.

        `progress` is called with the characters just written.
        """
        for block in self.blocks():
            file.write(block)
            if progress is not None:
                progress(len(block))

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of the whole text, in hexadecimal. O(characters), once."""
        return self._sha256

    def pairs(self, start: int = 0, stop: int | None = None) -> tuple[Letters, Letters]:
        """Return the sources and targets of lines `start` … `stop` − 1 as fixed-width keys.

        Each is uint8 (lines, width) with width = max(8, hash_length): the ASCII letters, with
        zeros behind them where a hash is shorter than the 8 bytes that tables start at. Many are
        made by as many threads as there are processors; of all lines each hash is made once, which
        takes `width` bytes a hash more meanwhile.
        """
        spans = list(self._spans(start, stop, 2 * _BLOCK))  # or threads hinder each other
        first = spans[0][0] if spans else 0
        count = spans[-1][1] - first if spans else 0
        shape = (count, max(8, self.hash_length))
        sources, targets = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)

        spell = self._letters
        if count == len(self) and len(spans) > 1:
            hashes = np.empty((self._graph.hashes, self.hash_length), np.uint8)

            def name(span: tuple[int, int]) -> None:
                hashes[slice(*span)] = self._letters(np.arange(*span, dtype=np.uint64))

            _in_threads(name, list(_cut(0, len(hashes), 2 * _BLOCK)))

            def spell(nodes: UInt64s) -> Letters:
                return np.take(hashes, nodes.view(np.int64), axis=0)

        def fill(span: tuple[int, int]) -> None:
            nodes, following = self._edges(*span)
            at = slice(span[0] - first, span[1] - first)
            sources[at, : self.hash_length] = spell(nodes)
            targets[at, : self.hash_length] = spell(following)

        _in_threads(fill, spans)
        return sources, targets

    def __contains__(self, text: object) -> bool:
        """Whether `text` is one of the sample's hashes. Computed, without the lines."""
        if not isinstance(text, str) or len(text) != self.hash_length or not text.isascii():
            return False
        letters = np.frombuffer(text.encode(), np.uint8).reshape(1, -1)
        if 0 <= self._names.nodes(letters)[0] < self._graph.named:
            return True
        node = self._names.nodes(letters, by_core=True) if self._graph.near else np.array([-1])
        if not 0 <= node[0] < self._graph.nodes:
            return False
        near = self._names.near(node.astype(np.uint64), self.near_kind)
        return bool(self._graph.is_near(int(node[0])) and (near == letters).all())

    # What is asked

    def _chain_nodes(self) -> UInt64s:
        """The nodes of every chain that has an answer, uint64 (chains, most hops + 1)."""
        graph, stretch = self._graph, self._wanted.cycle or self.hops + 1
        chains = Permutation(graph.nodes // stretch, round_keys("queries", self.seed))
        asked = chains.forward(np.arange(self.queries - self.unanswerable, dtype=np.uint64))
        edges = np.arange(self.hops + 1, dtype=np.uint64) % np.uint64(graph.cycle)
        return (asked * np.uint64(stretch))[:, None] + edges

    def chain_letters(self) -> Letters:
        """Return every chain that has an answer: uint8 (chains, most hops + 1, hash_length).

        The query first, and as far as the longest goes.
        """
        nodes = self._chain_nodes()
        letters = self._names.letters(nodes.ravel())
        return letters.reshape(*nodes.shape, self.hash_length)

    def chain_hops(self) -> NDArray[np.int64]:
        """Return the hops that each chain of `chain_letters` is asked for: int64 (chains,)."""
        count = self.queries - self.unanswerable
        drawn = spread(self.seed, "hops", count, len(self._lengths))
        return drawn.astype(np.int64) + self._lengths[0]

    def chain_lines(self) -> list[NDArray[np.int64]]:
        """Return for each of `chains` the line that each of its hops is taken on. O(queries)."""
        nodes, hops = self._chain_nodes(), self.chain_hops()
        lines = self._graph.lines_of(self._order, nodes.ravel()).reshape(nodes.shape)
        answerable = [row[:n].astype(np.int64) for row, n in zip(lines, hops.tolist(), strict=True)]
        return self._mixed(answerable, [np.empty(0, np.int64)] * self.unanswerable)

    @cached_property
    def chains(self) -> list[tuple[str, ...]]:
        """Every asked chain as its hashes, from the query to the end; only the query where it is
        on no line."""
        width, letters, hops = self.hash_length, self.chain_letters(), self.chain_hops()
        rows = [str(row.tobytes(), "ascii") for row in letters]
        answerable = [
            tuple(row[i : i + width] for i in range(0, width * (n + 1), width))
            for row, n in zip(rows, hops.tolist(), strict=True)
        ]
        first = np.uint64(self._graph.named)
        unknown = self._names.letters(first + np.arange(self.unanswerable, dtype=np.uint64))
        return self._mixed(answerable, [(str(row.tobytes(), "ascii"),) for row in unknown])

    def _mixed(self, answerable: list[T], unanswerable: list[T]) -> list[T]:
        """Both kinds of queries in the order in which they are asked."""
        if not unanswerable:
            return answerable
        places = Permutation(self.queries, round_keys("asked", self.seed))
        both = answerable + unanswerable
        return [both[i] for i in places.forward(np.arange(self.queries, dtype=np.uint64)).tolist()]

    @property
    def characters_of_hashes(self) -> str:
        """Every character that occurs in hashes."""
        return self.alphabet.characters

    @cached_property
    def asked(self) -> dict[str, tuple[int, ...]]:
        """Each query and how many hops away the hashes are that its answer names, () for none."""
        named = {n: positions(n, self.mode, self.stride) for n in self._lengths} | {0: ()}
        return {chain[0]: named[len(chain) - 1] for chain in self.chains}

    @property
    def targets(self) -> dict[str, str]:
        """Each query and its answer, the hashes that the mode asks for joined by " = "."""
        asked = self.asked
        return {c[0]: " = ".join(c[i] for i in asked[c[0]]) or NONE for c in self.chains}

    @property
    def completion(self) -> str:
        """The wanted reply: a line ``query = answer`` for each query."""
        return "".join(f"{query} = {answer}\n" for query, answer in self.targets.items())

    def question(self, form: str = "A = B") -> str:
        """Return what is asked about the text, with every query on a line of its own.

        `form`: how a pair is written, where it is otherwise than here.
        """
        unknown = spread(self.seed, "unknown", self.unanswerable, len(self._lengths)).tolist()
        hops = self._mixed(self.chain_hops().tolist(), [self._lengths[i] for i in unknown])
        return question(
            [(chain[0], n) for chain, n in zip(self.chains, hops, strict=True)],
            self.mode,
            self.stride,
            form=form,
            overwritten=self._graph.stale > 0,
            unanswerable=self.unanswerable > 0,
        )

    @property
    def prompt(self) -> str:
        """The whole text with the question after it."""
        return f"{self.text()}\n{self.question()}"

    def metadata(self) -> dict[str, object]:
        """Return all that it takes to make this sample again, and what tells that it is the same,
        fit for JSON. O(characters) for the text's SHA-256, once."""
        return {
            "format": "hashmem",
            "version": FORMAT_VERSION,
            **self.config(),
            "positions": list(self.positions),
            "lines": len(self),
            "characters": self.characters,
            "tokens": self.tokens,
            "sha256": self.sha256(),
        }

    # Lines from numbers

    def _spans(self, start: int, stop: int | None, step: int = _BLOCK) -> Iterator[tuple[int, int]]:
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"lines {start} to {stop} are not within the {len(self)} lines")
        return _cut(start, stop, step)

    def _edges(self, start: int, stop: int) -> tuple[UInt64s, UInt64s]:
        """The nodes that lines `start` … `stop` − 1 lead from and to."""
        return self._graph.edges(self._order, np.arange(start, stop, dtype=np.uint64))

    def _letters(self, nodes: UInt64s) -> Letters:
        """The hashes of nodes, near misses included."""
        graph = self._graph
        if not graph.near:
            return self._names.letters(nodes)
        near = np.flatnonzero(nodes >= np.uint64(graph.named))
        nodes = nodes.copy()
        nodes[near] = graph.near_to(nodes[near])
        letters = self._names.letters(nodes)
        letters[near] = self._names.near(nodes[near], self.near_kind)
        return letters

    def _block(self, start: int, stop: int) -> Letters:
        """The text of lines `start` … `stop` − 1, uint8 (lines, line_length)."""
        sources, targets = self._edges(start, stop)
        width = self.hash_length
        text = np.empty((stop - start, self.line_length), np.uint8)
        text[:, :width] = self._letters(sources)
        text[:, width : width + 3] = np.frombuffer(b" = ", np.uint8)
        text[:, width + 3 : -1] = self._letters(targets)
        text[:, -1] = ord("\n")
        return text


def _cut(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    for a in range(start, stop, step):
        yield a, min(a + step, stop)


def _in_threads(work: Callable[[tuple[int, int]], None], spans: Sequence[tuple[int, int]]) -> None:
    if len(spans) < 2:
        list(map(work, spans))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, spans))


def _as_given(symbols: tuple[str, ...]) -> str | list[str]:
    """An alphabet as it is given: letters as one text."""
    return "".join(symbols) if len(symbols[0]) == 1 else list(symbols)


_DEFAULTS = HashHop.__init__.__kwdefaults__ or {}
_ALWAYS = ("hops", "hash_length", "queries", "seed", "order", "mode")  # `repr` shows them
