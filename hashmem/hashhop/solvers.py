"""Solvers that look every hop up, and are right on every sample.

A solver is built from the text, `Solver(text)`, and `follow` then names hashes along the chains of
many queries. A source that is given twice counts as its last line says. What they show is that the
plumbing works and what it costs. Those that cost far more or guess are in `baselines.py`.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.hashhop.names import Letters
from hashmem.hashhop.parse import (
    Text,
    as_buffer,
    hash_length,
    most_lines,
    no_pair,
    parse_pairs,
    parse_pieces,
)

MIN_WIDTH = 8  # bytes: the narrowest digest that a table takes

_THREADS = 2  # kernels let go of the GIL; the memory that they wait for is shared by all cores
_SEARCHED = 1 << 16  # hashes that a thread looks up at a time
_SHARE = 1 << 14  # queries of a thread at least: to start one costs as much as some thousand
_COMMIT = 1 << 20  # lines between two commits: a store holds what is not committed in memory


class Solver(ABC):
    """Answers queries about one text."""

    note = ""  # what a reader of its results must know
    open_seconds = 0.0  # of making it: to open what had been closed

    @abstractmethod
    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        """Return the hashes that are `positions` (ascending) hops from `queries` (m, length).

        uint8 (m, positions, length), zeros where a chain has left the text. Raises `ValueError`
        where queries are not as long as the text's hashes.
        """

    def close(self) -> None:
        """Let go of files. Nothing can be followed afterwards."""
        return


class Links(Protocol):
    """What the store's solver asks of a store; `hashmem.MemoryStore` has it."""

    def link_many(self, sources: Letters, targets: Letters) -> Any:
        """Make each target the successor of its source, digests uint8 (n, 32)."""

    def hop(self, starts: Letters, n: int) -> tuple[Letters, NDArray[np.bool_]]:
        """Return the digests n hops on, uint8 (m, 32), and which were found, bool (m,)."""


class DictionarySolver(Solver):
    """The plain Python way: a dict over the lines, and one lookup a hop."""

    def __init__(self, text: Text) -> None:
        buffer = as_buffer(text)
        self._width = width = hash_length(buffer)
        lines = str(buffer.data, "latin-1").split("\n")  # a byte a character, and as fast as ASCII
        if not lines[-1]:  # the last newline ends a line and begins none
            del lines[-1]
        self._links: dict[str, str] = {}
        for i, line in enumerate(lines):
            source, _, target = line.partition(" = ")
            if target[:1] == target[-1:] == "'" and len(target) == width + 2:
                target = target[1:-1]
            if not len(source) == len(target) == width:
                raise no_pair(line.encode("latin-1"), i, f"a pair of {width}-letter hashes")
            self._links[source] = target

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = make_answers(queries, positions, self._width)
        for i, query in enumerate(queries):
            at: str | None = str(query.tobytes(), "latin-1")
            hops = 0
            for j, position in enumerate(positions):
                while at is not None and hops < position:
                    at = self._links.get(at)
                    hops += 1
                if at is not None:
                    out[i, j] = np.frombuffer(at.encode("latin-1"), np.uint8)
        return out


class TableSolver(Solver):
    """A hash table from source to line, once; from then on every hop is one array read.

    O(lines) to build: a thread inserts a piece of the text while the next one is parsed, then two
    look up where each target is a source. 8 bytes a line for the hops besides the table and the
    targets.
    """

    def __init__(self, text: Text) -> None:
        from hashmem import OpenAddressingTable

        buffer = as_buffer(text)
        most, width = most_lines(buffer), hash_length(buffer)
        targets = np.empty((most, width), np.uint8)
        self._table = OpenAddressingTable(width=max(width, MIN_WIDTH), capacity=most)
        count = 0
        with ThreadPoolExecutor(1) as pool:
            inserting: Future[Any] | None = None
            for pairs in parse_pieces(buffer):
                end = count + len(pairs.sources)
                targets[count:end] = pairs.targets
                if inserting is not None:
                    inserting.result()
                arguments = _as_keys(pairs.sources), np.arange(count, end)
                if end == most:  # nothing is left to parse meanwhile
                    self._table.insert(*arguments)
                else:
                    inserting = pool.submit(self._table.insert, *arguments)
                count = end
            if inserting is not None:
                inserting.result()
        self._targets = targets[:count]
        self._successors = np.empty(count, np.int64)
        _share(self._resolve, range(0, count, _SEARCHED))

    def _resolve(self, start: int) -> None:
        """Find the lines that some lines' targets lead to."""
        some = slice(start, start + _SEARCHED)
        self._successors[some] = self._table.find(_as_keys(self._targets[some]))

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = make_answers(queries, positions, self._targets.shape[1])
        parts = 1 + min(_THREADS - 1, len(queries) // _SHARE)
        some = np.array_split(queries, parts), np.array_split(out, parts)
        _share(self._follow, *some, repeat(positions, parts))
        return out

    def _follow(self, queries: Letters, out: Letters, positions: Sequence[int]) -> None:
        """Write the answers of some queries to `out`."""
        rows: NDArray[np.int64] = self._table.find(_as_keys(queries))
        hops = 1  # what a line names is one hop on from its source
        for j, position in enumerate(positions):
            after = np.empty_like(rows)
            kernels.current.hop(self._successors, rows, position - hops, after)
            rows, hops = after, position
            # For -1 the last line's, which costs less than leaving these out: they are few.
            out[:, j] = self._targets.take(rows, axis=0, mode="wrap")
            out[rows < 0, j] = 0


class StoreSolver(Solver):
    """A store's links between the SHA-256 digests of the hashes, as if each were a record's text.

    The records themselves are left out: a store follows links to what it does not hold yet. A table
    leads from the digests that the store answers with back to the text.
    """

    def __init__(self, text: Text, store: Links) -> None:
        from hashmem import OpenAddressingTable, digest_many

        sources, self._targets = parse_pairs(text)
        digests = digest_many(self._targets)
        store.link_many(digest_many(sources), digests)
        self._store = store
        self._lines = OpenAddressingTable(width=digests.shape[1], capacity=len(digests))
        self._lines.insert(digests, np.arange(len(digests)))

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        from hashmem import digest_many

        out = make_answers(queries, positions, self._targets.shape[1])
        starts = digest_many(queries)
        for j, position in enumerate(positions):
            ends, found = self._store.hop(starts, position)
            at = np.flatnonzero(found)
            out[at, j] = self._targets[self._lines.find(ends[at])]
        return out


class ReopenedSolver(Solver):
    """A store on LMDB at `path`, committed, closed and opened again: nothing else is kept.

    Each hash is a record of its letters and each line a link, so the store alone answers. What is
    in a store at `path` already stays, save for links from the text's hashes.
    """

    def __init__(self, text: Text, path: str | os.PathLike[str]) -> None:
        from hashmem import MemoryStore

        buffer = as_buffer(text)
        self._width = hash_length(buffer)
        with MemoryStore(path) as store:
            pending = 0
            for pairs in parse_pieces(buffer):
                sources, targets = store.put_many(pairs.sources), store.put_many(pairs.targets)
                store.link_many(sources, targets)
                pending += len(sources)
                if pending >= _COMMIT:
                    store.commit()
                    pending = 0
        begun = perf_counter()
        self._store = MemoryStore(path, readonly=True)
        self.open_seconds = perf_counter() - begun

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        from hashmem import digest_many

        out = make_answers(queries, positions, self._width)
        starts = digest_many(queries, self._store.algorithm)
        for j, position in enumerate(positions):
            ends, found = self._store.hop(starts, position)
            at = np.flatnonzero(found)
            with self._store.get_many(ends[at]) as records:
                letters = b"".join(record or b"" for record in records)
            out[at, j] = np.frombuffer(letters, np.uint8).reshape(-1, self._width)
        return out

    def close(self) -> None:
        self._store.close()


def make_answers(queries: Letters, positions: Sequence[int], width: int) -> Letters:
    """Return room for the answers, all zeros. Raises `ValueError` on queries of another length."""
    if queries.shape[1:] != (width,):
        raise ValueError(
            f"queries of shape {queries.shape} do not fit a text whose hashes have {width} letters"
        )
    return np.zeros((len(queries), len(positions), width), np.uint8)


def _share(function: Callable[..., object], *arguments: Iterable[Any]) -> None:
    """Call a function as `map` does, two calls at a time where there is more than one."""
    calls = list(zip(*arguments, strict=True))
    if len(calls) == 1 or (os.cpu_count() or 1) == 1:
        for call in calls:
            function(*call)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda call: function(*call), calls))


def _as_keys(letters: Letters) -> Letters:
    """The hashes as digests for a table, with zeros behind those of fewer than 8 letters."""
    missing = max(0, MIN_WIDTH - letters.shape[1])
    return np.pad(letters, ((0, 0), (0, missing))) if missing else letters
