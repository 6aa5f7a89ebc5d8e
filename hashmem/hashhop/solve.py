"""Answering a sample by one method, every answer checked, with what it took.

Lookups are in `solvers.py`, search without an index and guessing in `baselines.py`.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hashmem.hashhop.baselines import GrepSolver, QuoteSolver, RandomSolver, ScanSolver
from hashmem.hashhop.names import Letters
from hashmem.hashhop.parse import Text
from hashmem.hashhop.resident import PeakMemory
from hashmem.hashhop.solvers import (
    DictionarySolver,
    Links,
    ReopenedSolver,
    Solver,
    StoreSolver,
    TableSolver,
)

EXACT = ("dictionary", "table", "store", "reopened", "scan", "grep")
GUESSES = ("random", "quotes")
METHODS = EXACT + GUESSES

StrPath = str | os.PathLike[str]


class Sample(Protocol):
    """What `solve` asks of a sample; `HashHop` and `MultiHopSample` have it."""

    @property
    def chains(self) -> list[tuple[str, ...]]: ...
    @property
    def asked(self) -> dict[str, tuple[int, ...]]: ...
    def text(self) -> str: ...


@dataclass(frozen=True)
class Solution:
    """How a solver did on one sample: what it got right and what that took."""

    method: str
    queries: int
    correct: int  # queries of which every hash that was asked for is right
    wrong: list[str]  # the other queries
    hops: int  # of each query, from its start to its end; of the longest where they differ
    total_hops: int  # of all queries together
    build_seconds: float  # text → links; for "reopened" until they are committed and closed
    open_seconds: float  # "reopened": to open them again; else 0
    follow_seconds: float  # all queries → all answers
    peak_bytes: int  # resident memory of the process at its highest meanwhile, `PeakMemory`
    note: str = ""  # what a reader must know of these figures

    @property
    def accuracy(self) -> float:
        """The share of queries that are right: 1 for a lookup, about chance for a guess."""
        return self.correct / self.queries

    @property
    def hops_per_second(self) -> float:
        """Hops of all queries by the time it took to follow them; building left aside."""
        return self.total_hops / self.follow_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        derived = {"accuracy": self.accuracy, "hops_per_second": self.hops_per_second}
        return asdict(self) | derived


def solve(
    sample: Sample,
    method: str = "table",
    *,
    store: Links | None = None,
    path: StrPath | None = None,
    seed: int = 0,
) -> Solution:
    """Answer `sample` by a method and check every answer.

    - "dictionary": a dict over the lines, one lookup a hop
    - "table": a hash table, and after that one array read a hop
    - "store": links in `store`, an open `hashmem.MemoryStore` of SHA-256 digests
    - "reopened": records and links in a store on LMDB at `path` (default: a temporary folder),
      committed, closed, and opened again to be followed
    - "scan": a pass over the text for every hop
    - "grep": a call of the system's grep for every hop
    - "random": guesses any target; `seed` chooses which
    - "quotes": guesses every end among the quoted targets, where there are any

    The first six are right on every sample; a guess that is wrong is no error. Making the text is
    not counted. Raises `ValueError` on another method, a missing store or a text with a line that
    is no pair, and `FileNotFoundError` where there is no grep.
    """
    text = sample.text()
    options = _Options(store, path, seed, None)
    return _solve(sample, method, lambda: text, options)


def solve_file(
    sample: Sample,
    file: StrPath,
    method: str = "table",
    *,
    store: Links | None = None,
    path: StrPath | None = None,
    seed: int = 0,
) -> Solution:
    """Answer `sample`, whose text lies in `file`, as `solve` does: mapped, parsed, followed.

    Reading counts as building. Raises as `solve` does, and `OSError` where the file cannot be read.
    """
    return _solve(sample, method, lambda: _map(file), _Options(store, path, seed, file))


class _Options(NamedTuple):
    store: Links | None
    path: StrPath | None
    seed: int
    file: StrPath | None


class _Asked(NamedTuple):
    """Queries of the same length that ask for the same hashes."""

    at: NDArray[np.int64]  # (m,) which chains of the sample
    letters: Letters  # (m, hops + 1, hash_length)
    positions: tuple[int, ...]


def _solve(sample: Sample, method: str, read: Callable[[], Text], options: _Options) -> Solution:
    chains = sample.chains
    asked = _group(sample)
    with ExitStack() as stack:
        peak, begun = PeakMemory(), perf_counter()
        solver = _build(method, read(), options, stack)
        stack.callback(solver.close)
        built = perf_counter()
        queries = [np.ascontiguousarray(group.letters[:, 0]) for group in asked]
        ready = perf_counter()
        answers = [
            solver.follow(starts, group.positions)
            for starts, group in zip(queries, asked, strict=True)
        ]
        followed = perf_counter()
        peak_bytes = peak.read()

    right = np.empty(len(chains), np.bool_)
    for group, answer in zip(asked, answers, strict=True):
        wanted = group.letters[:, list(group.positions)]
        right[group.at] = (answer == wanted).all(axis=(1, 2))
    return Solution(
        method=method,
        queries=len(chains),
        correct=int(right.sum()),
        wrong=[chains[i][0] for i in np.flatnonzero(~right)],
        hops=max(map(len, chains)) - 1,
        total_hops=sum(map(len, chains)) - len(chains),
        build_seconds=built - begun - solver.open_seconds,
        open_seconds=solver.open_seconds,
        follow_seconds=followed - ready,
        peak_bytes=peak_bytes,
        note=solver.note,
    )


def _build(method: str, text: Text, options: _Options, stack: ExitStack) -> Solver:
    if method == "dictionary":
        return DictionarySolver(text)
    if method == "table":
        return TableSolver(text)
    if method == "store":
        if options.store is None:
            raise ValueError("the method 'store' puts links somewhere: pass store=")
        return StoreSolver(text, options.store)
    if method == "reopened":
        path = options.path
        if path is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hashhop-"))
            path = Path(folder) / "links.hashmem"
        return ReopenedSolver(text, path)
    if method == "scan":
        return ScanSolver(text)
    if method == "grep":
        return GrepSolver(text, options.file)
    if method == "random":
        return RandomSolver(text, options.seed)
    if method == "quotes":
        return QuoteSolver(text, options.seed)
    names = ", ".join(map(repr, METHODS[:-1]))
    raise ValueError(f"no method is called {method!r}: take {names} or {METHODS[-1]!r}")


def _map(file: StrPath) -> Text:
    """The file's bytes as mapped memory, which ends with the last view of it."""
    with open(file, "rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return b""  # which cannot be mapped
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _group(sample: Sample) -> list[_Asked]:
    """Sort the sample's queries by how long their chains are and what they ask for."""
    chains, asked = sample.chains, sample.asked
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, chain in enumerate(chains):
        groups.setdefault((len(chain) - 1, asked[chain[0]]), []).append(i)
    found = []
    for (hops, positions), at in groups.items():
        data = "".join(["".join(chains[i]) for i in at]).encode()
        letters = np.frombuffer(data, np.uint8).reshape(len(at), hops + 1, -1)
        if not hops:  # on no line: nothing should be found
            letters = np.concatenate([letters, np.zeros_like(letters)], axis=1)
            positions = (1,)
        found.append(_Asked(np.array(at), letters, positions))
    return found
