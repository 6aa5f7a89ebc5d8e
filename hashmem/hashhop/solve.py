"""Baselines that answer HashHop by lookup, every answer checked.

A solver is built from the text, `Solver(text)`, and `follow` then names hashes along the chains of
many queries. A source that is given twice counts as its last line says. All three are right on
every sample that the generator makes: what they show is that the plumbing works and what it costs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.hashhop.names import Letters
from hashmem.hashhop.parse import Text, parse_pairs

MIN_WIDTH = 8  # bytes: the narrowest digest that a table takes


class Solver(Protocol):
    """Answers queries about one text."""

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        """Return the hashes that are `positions` (ascending) hops from `queries` (m, length).

        uint8 (m, positions, length), zeros where a chain has left the text.
        """


class Links(Protocol):
    """What the store's solver asks of a store; `hashmem.MemoryStore` has it."""

    def link_many(self, sources: Letters, targets: Letters) -> Any:
        """Make each target the successor of its source, digests uint8 (n, 32)."""

    def hop(self, starts: Letters, n: int) -> tuple[Letters, NDArray[np.bool_]]:
        """Return the digests n hops on, uint8 (m, 32), and which were found, bool (m,)."""


class Sample(Protocol):
    """What `solve` asks of a sample; `HashHop` and `MultiHopSample` have it."""

    @property
    def chains(self) -> list[tuple[str, ...]]: ...
    @property
    def positions(self) -> tuple[int, ...]: ...
    def text(self) -> str: ...


class DictionarySolver:
    """The plain Python way: a dict over the lines, and one lookup a hop."""

    def __init__(self, text: Text) -> None:
        data: Any = text
        lines = (data if isinstance(data, str) else str(data, "ascii")).split("\n")
        if not lines[-1]:  # the last newline ends a line and begins none
            del lines[-1]
        if not lines:
            raise ValueError("the text is empty: it takes a line 'source = target' for each pair")
        self._width = lines[0].find(" = ")
        self._links: dict[str, str] = {}
        for i, line in enumerate(lines):
            source, _, target = line.partition(" = ")
            if target[:1] == target[-1:] == "'":
                target = target[1:-1]
            if not 0 < len(source) == len(target) == self._width:
                raise ValueError(f"line {i + 1} of the text is not 'source = target': {line!r}")
            self._links[source] = target

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = _make_answers(queries, positions, self._width)
        for i, query in enumerate(queries):
            at: str | None = str(query.tobytes(), "ascii")
            hops = 0
            for j, position in enumerate(positions):
                while at is not None and hops < position:
                    at = self._links.get(at)
                    hops += 1
                if at is not None:
                    out[i, j] = np.frombuffer(at.encode(), np.uint8)
        return out


class TableSolver:
    """A hash table from source to line, once; from then on every hop is one array read.

    O(lines) to build, 8 bytes a line for the hops besides the table and the targets.
    """

    def __init__(self, text: Text) -> None:
        from hashmem import OpenAddressingTable

        sources, self._targets = parse_pairs(text)
        keys = _as_keys(sources)
        self._table = OpenAddressingTable(width=keys.shape[1], capacity=len(keys))
        self._table.insert(keys, np.arange(len(keys)))
        self._successors: NDArray[np.int64] = self._table.find(_as_keys(self._targets))

    def follow(self, queries: Letters, positions: Sequence[int]) -> Letters:
        out = _make_answers(queries, positions, self._targets.shape[1])
        rows: NDArray[np.int64] = self._table.find(_as_keys(queries))
        hops = 1  # what a line names is one hop on from its source
        for j, position in enumerate(positions):
            after = np.empty_like(rows)
            kernels.current.hop(self._successors, rows, position - hops, after)
            rows, hops = after, position
            found = np.flatnonzero(rows >= 0)
            out[found, j] = self._targets[rows[found]]
        return out


class StoreSolver:
    """A store's links between the SHA-256 digests of the hashes, as if each were a record's text.

    The records themselves are left out: a store follows links to what it does not hold yet, and a
    sixteen-letter payload would measure nothing but its own overhead. A table leads from the
    digests that the store answers with back to the text.
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

        out = _make_answers(queries, positions, self._targets.shape[1])
        starts = digest_many(queries)
        for j, position in enumerate(positions):
            ends, found = self._store.hop(starts, position)
            at = np.flatnonzero(found)
            out[at, j] = self._targets[self._lines.find(ends[at])]
        return out


@dataclass(frozen=True)
class Solution:
    """How a solver did on one sample: what it got right and how long it took."""

    method: str
    queries: int
    correct: int  # queries of which every hash that was asked for is right
    wrong: list[str]  # the other queries
    hops: int  # of each query, from its start to its end
    build_seconds: float  # text → links
    follow_seconds: float  # all queries → all answers

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        return asdict(self)


def solve(sample: Sample, method: str = "table", *, store: Links | None = None) -> Solution:
    """Answer `sample` by "dictionary", "table" or "store" and check every answer.

    `store` is where "store" puts its links: an open `hashmem.MemoryStore` of SHA-256 digests.
    Making the text is not counted. Raises `ValueError` on another method or a missing store.
    """
    text = sample.text()
    chains = np.array(sample.chains)
    width = chains.dtype.itemsize // 4  # NumPy keeps a character in 4 bytes
    letters = chains.view(np.uint32).astype(np.uint8).reshape(*chains.shape, width)

    begun = perf_counter()
    solver: Solver
    if method == "dictionary":
        solver = DictionarySolver(text)
    elif method == "table":
        solver = TableSolver(text)
    elif method != "store":
        raise ValueError(f"no method is called {method!r}: take 'dictionary', 'table' or 'store'")
    elif store is None:
        raise ValueError("the method 'store' puts links somewhere: pass store=")
    else:
        solver = StoreSolver(text, store)
    built = perf_counter()
    answers = solver.follow(np.ascontiguousarray(letters[:, 0]), sample.positions)
    followed = perf_counter()

    right = (answers == letters[:, list(sample.positions)]).all(axis=(1, 2))
    return Solution(
        method=method,
        queries=len(chains),
        correct=int(right.sum()),
        wrong=[str(chains[i, 0]) for i in np.flatnonzero(~right)],
        hops=chains.shape[1] - 1,
        build_seconds=built - begun,
        follow_seconds=followed - built,
    )


def _make_answers(queries: Letters, positions: Sequence[int], width: int) -> Letters:
    if queries.shape[1:] != (width,):
        raise ValueError(
            f"queries of shape {queries.shape} do not fit a text whose hashes have {width} letters"
        )
    return np.zeros((len(queries), len(positions), width), np.uint8)


def _as_keys(letters: Letters) -> Letters:
    """The hashes as digests for a table, with zeros behind those of fewer than 8 letters."""
    missing = max(0, MIN_WIDTH - letters.shape[1])
    return np.pad(letters, ((0, 0), (0, missing))) if missing else letters
