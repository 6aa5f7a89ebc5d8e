"""HashHop: making samples, and answering them by every baseline, from 10 K to 100 M tokens.

Tokens are of 3 characters each; hashes of 16 letters, queries of 6 hops that ask for the end only.
The text is written to a file once for each size, and every method then answers from that file, in
a process of its own: *build* goes from the file to links that can be followed, *follow* from all
queries to all answers, and memory is that process's at its highest, the mapped text and the queries
included. Every answer is checked. Hops per second are 10^9 by the nanoseconds a hop.

- **table**: a hash table, and after that one array read a hop; two threads build and follow.
- **store**: links between SHA-256 digests in a store on LMDB, followed before they are committed.
- **reopened store**: a record for each hash and a link for each line, committed, closed and opened
  again; *build* goes to the end of the commit, *open* is opening it.
- **dictionary**: a Python dict, one lookup a hop.
- **linear scan**: `bytes.rfind`, a pass over the text for every hop.
- **grep**: GNU grep or the system's own, a process for every hop. Its memory is not counted.
- **guesses**: a random target, and a random target among those in quotes. They stand as floors:
  what they are asked for is how seldom they are right.

Scan and grep are given as few queries as keep them within seconds; the title says how many. A
guess's share is taken over many small samples, of the own format and of the public one.

*From disk* is one call, from the path of the file to the checked answers of all queries: with the
file in the system's memory, and after the system was told to drop it from there. A thousand million
tokens are made, and answered by the table from their file, where they fit into memory.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.harness import Result
from hashmem import MemoryStore
from hashmem.hashhop import HashHop, MultiHopEval, solve
from hashmem.hashhop.resident import PeakMemory
from hashmem.hashhop.solve import Solution, solve_file


@dataclass(frozen=True)
class Size:
    """How large a sample is, and how often each method answers it."""

    tokens: int
    queries: int
    searched: int  # queries that scan and grep are given
    rounds: int  # of the table; others once where it is large
    others: int

    @property
    def title(self) -> str:
        return (
            f"{_spaced(self.tokens)} tokens, {_spaced(self.queries)} queries of {HOPS} hops "
            f"({self.searched} for scan and grep)"
        )


HOPS = 6
SIZES = (
    Size(10_000, 100, 100, 5, 5),
    Size(1_000_000, 10_000, 100, 5, 3),
    Size(10_000_000, 100_000, 20, 3, 1),
    Size(100_000_000, 100_000, 5, 3, 1),
)
QUICK_SIZES = (Size(2_000, 10, 2, 2, 1),)
LARGEST = Size(1_000_000_000, 100_000, 0, 1, 1)  # for the table alone
QUICK_LARGEST = Size(4_000, 10, 0, 1, 1)
BYTES = 140  # of memory a line, for text, table and answers
GUESSED = 200  # small samples whose ends are guessed
QUICK_GUESSED = 5
GUESSED_CHARACTERS = 30_000

TABLE = "hashmem table"
METHODS = {  # method → its name here and its kind
    "table": (TABLE, "ours"),
    "store": ("hashmem store", "ours"),
    "reopened": ("hashmem store, reopened", "ours"),
    "dictionary": ("dictionary", "rival"),
    "scan": ("linear scan", "rival"),
    "grep": ("grep", "rival"),
    "random": ("guess: any target", "floor"),
    "quotes": ("guess: any quoted target", "floor"),
}
GUESSES = ("random", "quotes")
BUILD, OPEN = "build (s)", "open (s)"
FOLLOW, MEMORY = "follow (ns a hop)", "peak memory (MB)"
TEXT, ARRAYS = "HashHop.write, text to a file", "HashHop.pairs, digest arrays"
TIME = "time (s)"
CACHED, DROPPED = "hashmem table, file in memory", "hashmem table, file dropped from memory"
DISK = "From text on disk to all answers"
WRONG = "wrong answers (%)"

Apart = Callable[..., Any]  # calls a function in a process of its own


class WrongAnswer(Exception):
    """A method that looks things up gave a wrong answer."""


def sample_of(size: Size, queries: int) -> HashHop:
    return HashHop(tokens=size.tokens, hops=HOPS, queries=queries, seed=harness.SEED, mode="direct")


# What runs in a child


def write_text(size: Size, path: Path, rounds: int) -> list[tuple[float, int]]:
    """Write the text → (seconds, peak bytes) for each round."""
    sample = sample_of(size, 1)

    def write() -> None:
        with open(path, "wb") as file:
            sample.write(file)

    return [_with_peak(write) for _ in range(rounds)]


def make_arrays(size: Size, rounds: int) -> list[tuple[float, int]]:
    """Make all sources and targets as arrays → (seconds, peak bytes) for each round."""
    return [_with_peak(sample_of(size, 1).pairs) for _ in range(rounds)]


def _with_peak(call: harness.Timed) -> tuple[float, int]:
    peak = PeakMemory()
    return harness.seconds(call), peak.read()


def answer(size: Size, method: str, path: Path, rounds: int) -> list[Solution]:
    """Answer the text at `path` by one method; raises `WrongAnswer` where a lookup is wrong."""
    sample = sample_of(size, size.searched if method in ("scan", "grep") else size.queries)
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if method == "store":
                with MemoryStore(Path(folder) / "links.hashmem") as store:
                    solution = solve_file(sample, path, method, store=store)
                    store.rollback()  # nobody asks for them again
            else:
                links = Path(folder) / "links.hashmem"
                solution = solve_file(sample, path, method, path=links, seed=number)
        if solution.wrong and method not in GUESSES:
            raise WrongAnswer(f"{method}: {len(solution.wrong)} wrong at {size.tokens} tokens")
        found.append(solution)
    return found


def from_disk(size: Size, path: Path, dropped: bool) -> tuple[float, Solution]:
    """Answer all queries from the file → seconds from its path to checked answers."""
    sample = sample_of(size, size.queries)
    sample.chains  # noqa: B018 - the queries are there before the clock starts
    if dropped:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    kept: list[Solution] = []
    seconds = harness.seconds(lambda: kept.append(solve_file(sample, path, "table")))
    if kept[0].wrong:
        raise WrongAnswer(f"table: {len(kept[0].wrong)} wrong at {size.tokens} tokens")
    return seconds, kept[0]


# What is kept of it


def _make(result: Result, size: Size, path: Path, apart: Apart) -> None:
    table = f"Making a sample of {_spaced(size.tokens)} tokens"
    for name, found in (
        (TEXT, apart(write_text, size, path, size.rounds)),
        (ARRAYS, apart(make_arrays, size, size.rounds)),
    ):
        _keep(result, table, name, found)


def _largest(result: Result, size: Size, path: Path, apart: Apart) -> None:
    needed, available = BYTES * len(sample_of(size, 1)), _available_bytes()
    if needed > available:
        result.left_out[f"{_spaced(size.tokens)} tokens"] = (
            f"they need {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} are free"
        )
        return
    _make(result, size, path, apart)
    _from_disk(result, size, path, apart)


def _keep(result: Result, table: str, name: str, found: list[tuple[float, int]]) -> None:
    result.add(table, TIME, name, "ours", [seconds for seconds, _ in found])
    result.add(table, MEMORY, name, "ours", [peak / 1e6 for _, peak in found])


def _answer(result: Result, size: Size, path: Path, apart: Apart) -> None:
    for method, (name, kind) in METHODS.items():
        if method == "quotes":
            continue  # nothing is quoted in this format
        if method == "grep" and shutil.which("grep") is None:
            result.left_out[name] = "there is none on the PATH"
            continue
        rounds = size.rounds if method == "table" else size.others
        found = apart(answer, size, method, path, rounds)
        add = partial(result.add, size.title)
        add(BUILD, name, kind, [s.build_seconds for s in found])
        if method == "reopened":
            add(OPEN, name, kind, [s.open_seconds for s in found])
        add(FOLLOW, name, kind, [1e9 / s.hops_per_second for s in found])
        add(MEMORY, name, kind, [s.peak_bytes / 1e6 for s in found])


def _from_disk(result: Result, size: Size, path: Path, apart: Apart) -> None:
    table = f"{DISK}: {_spaced(size.tokens)} tokens, {_spaced(size.queries)} queries"
    ways = {CACHED: False}
    if hasattr(os, "posix_fadvise"):
        ways[DROPPED] = True
    else:
        result.left_out[DROPPED] = "the system cannot be told to drop a file"
    for name, dropped in ways.items():
        found = [apart(from_disk, size, path, dropped) for _ in range(size.rounds)]
        result.add(table, TIME, name, "ours", [seconds for seconds, _ in found])
        result.add(table, MEMORY, name, "ours", [s.peak_bytes / 1e6 for _, s in found])
        result.add(table, FOLLOW, name, "ours", [1e9 / s.hops_per_second for _, s in found])


def _guess(result: Result, count: int) -> None:
    """Add how often guesses are wrong, over many samples of either format."""
    random.seed(harness.SEED)
    np.random.seed(harness.SEED % 2**32)  # noqa: NPY002 - the format's own generator
    chains = len(HashHop(characters=GUESSED_CHARACTERS, hops=HOPS)) // (HOPS + 1)
    samples: dict[str, list[Any]] = {
        "own format": [
            HashHop(characters=GUESSED_CHARACTERS, hops=HOPS, queries=chains, seed=i, mode="direct")
            for i in range(count)
        ],
        "public format": [
            MultiHopEval.make_one(GUESSED_CHARACTERS, chains, HOPS, 16, False) for _ in range(count)
        ],
    }
    for form, many in samples.items():
        table = (
            f"Guesses, {form}: {_spaced(count)} samples of {_spaced(GUESSED_CHARACTERS)} characters"
        )
        lines = many[0].text().count("\n") + (form == "public format")
        for method in GUESSES:
            name, kind = METHODS[method]
            found = [solve(sample, method, seed=i) for i, sample in enumerate(many)]
            right, asked = sum(s.correct for s in found), sum(s.queries for s in found)
            result.add(table, WRONG, name, kind, [100 * (1 - right / asked)])
            what = f"{form}, {name}: right, as a multiple of one in all {_spaced(lines)} lines"
            result.headline(what, [right / asked * lines])


def _headlines(result: Result, size: Size) -> None:
    tokens = f"{_spaced(size.tokens)} tokens"
    making = f"Making a sample of {tokens}"
    result.headline(f"HashHop, {tokens}: text to a file (s)", result.samples(making, TIME, TEXT), 6)
    result.headline(
        f"HashHop, {tokens}: text to a file, peak memory (MB)",
        result.samples(making, MEMORY, TEXT),
        200,
    )
    result.headline(
        f"HashHop, {tokens}: digest arrays (s)", result.samples(making, TIME, ARRAYS), 2
    )
    disk = f"{DISK}: {tokens}, {_spaced(size.queries)} queries"
    for name in (CACHED, DROPPED):
        for column, target in ((TIME, 8.0), (MEMORY, 1500.0), (FOLLOW, 25.0)):
            what = f"HashHop, {tokens}, from disk to all answers, {name}: {column}"
            result.headline(what, result.samples(disk, column, name), target)
    for name, kind in METHODS.values():
        found = result.samples(size.title, FOLLOW, name)
        if found and kind != "floor":
            per_second = [1e9 / nanoseconds for nanoseconds in found]
            result.headline(f"HashHop, {tokens}, {name}: hops per second", per_second)


def _available_bytes() -> int:
    """Memory that can be had, what the system caches included."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def run(
    quick: bool = False, folder: Path | None = None, sizes: tuple[Size, ...] | None = None
) -> Result:
    """Make and answer samples of every size in a temporary folder inside `folder`.

    In `quick`, which says nothing about memory either, all runs in this process.
    """
    result = Result("hashhop", __doc__)
    apart: Apart = _here if quick else harness.in_child
    whole = sizes is None
    sizes = sizes or (QUICK_SIZES if quick else SIZES)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        result.machine = harness.machine(Path(temporary))
        path = Path(temporary) / "sample.txt"
        for size in sizes:
            _make(result, size, path, apart)
            _answer(result, size, path, apart)
        _from_disk(result, sizes[-1], path, apart)
        if whole:
            _largest(result, QUICK_LARGEST if quick else LARGEST, path, apart)
    _guess(result, QUICK_GUESSED if quick else GUESSED)
    _headlines(result, sizes[-1])
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--tokens", type=int, help="only the sizes up to this one")
    options = parser.parse_args()
    sizes = None
    if options.tokens is not None:
        sizes = tuple(size for size in SIZES if size.tokens <= options.tokens)
        if not sizes:
            parser.error(f"the smallest size is {SIZES[0].tokens} tokens")
    harness.finish(run(options.quick, options.folder, sizes), options)


if __name__ == "__main__":
    main()
