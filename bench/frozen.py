"""Frozen tables: made, opened and searched, beside the growing table and constant databases.

Keys are SHA-256 digests of counters, cut for the narrower tables; values are their positions. Finds
come in batches of 2^20 random digests, in arrays. A frozen table is searched mapped from a file,
whose pages the system holds in memory, and as bytes. "Opened" is from the path to a table that can
be searched; the first batch after it verifies the checksum of every block it touches, which here
is all of them. Making starts from a table in memory and ends with a synced file, or with bytes.

- **lmdb**: digest → 8 bytes, appended in order, one `get` a digest within one transaction.
- **pure-cdb**: a constant database (Bernstein's cdb, 64-bit form), keys and values in one file.
- **marisa-trie**: a RecordTrie, saved and mapped; its keys are text, so digests go in as hex.
- **bbhash**: a minimal perfect hash alone, over the first 8 bytes: no digest is kept to compare,
  so that a miss is not seen, and none is asked for.

The first three take one key at a time: keys are made beforehand, untimed, and they run on fewer
digests. Left out unnamed are python-cdb and cdblib, whose sources no longer compile, and sparkey,
which needs a library of the system's.
Overhead is bytes an entry beyond digest and value: of the whole file, and of the memory that the
growing table holds.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

import hashmem
from bench import harness
from bench.harness import Result, Timed
from bench.store_lmdb import MAP
from bench.table_rivals import as_bytes, as_words, digests_of
from hashmem import kernels
from hashmem.tables import freeze

CASES = ((1_000_000, 32), (10_000_000, 8), (10_000_000, 16), (10_000_000, 32))
RIVALS_UP_TO = 1_000_000  # entries
BATCH, ONE_BY_ONE = 1 << 20, 100_000  # queries in a find
ROUNDS, MAKING_ROUNDS, OPENING_ROUNDS = 7, 3, 20
QUICK_CASES, QUICK_BATCH, QUICK_ROUNDS = ((1000, 8), (1000, 32)), 200, 2

HITS, MISSES = "find, hits (ns)", "find, misses (ns)"
FIRST = "find, first batch after opening (ns)"
OPEN = "open (ms)"
MAKE = "make (ns a digest)"
OVERHEAD = "overhead (B an entry)"

GROWING = "hashmem OpenAddressingTable"
MAPPED = "hashmem FrozenTable, mapped"
HELD = "hashmem FrozenTable, bytes"


class Contestant:
    """One way to keep digests that do not change: `make`, then `open`, then `find`."""

    name: str
    kind = "rival"
    arrays = False  # takes a batch as an array
    sees_misses = True
    opens = True
    reader: Any = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, digests: np.ndarray) -> Timed:
        raise NotImplementedError

    def open(self) -> Any:
        raise NotImplementedError

    def find(self, digests: np.ndarray) -> Timed:
        """The call that finds values, -1 or None where there is none."""
        get, keys = self.getter(), as_bytes(digests)
        return lambda: [get(key) for key in keys]

    def getter(self) -> Callable[[Any], Any]:
        raise NotImplementedError

    def close(self) -> None:
        self.reader = None

    def nbytes(self) -> int:
        return self.path.stat().st_size


class Growing(Contestant):
    name, kind, arrays, opens = GROWING, "ours", True, False

    def make(self, digests: np.ndarray) -> Timed:
        self.reader = None

        def fill() -> None:
            self.reader = hashmem.OpenAddressingTable(digests.shape[1])
            self.reader.insert(digests, np.arange(len(digests)))

        return fill

    def open(self) -> Any:
        return self.reader

    def find(self, digests: np.ndarray) -> Timed:
        return lambda: self.reader.find(digests)

    def nbytes(self) -> int:
        return self.reader.nbytes


class Mapped(Growing):
    """Freezes the table it is given beforehand; making that is not its work."""

    name, opens = MAPPED, True
    growing: Any

    def make(self, digests: np.ndarray) -> Timed:
        self.reader = None
        return lambda: freeze(self.growing.reader, self.path)

    def open(self) -> Any:
        return hashmem.FrozenTable.open(self.path)

    def nbytes(self) -> int:
        return self.path.stat().st_size


class Held(Mapped):
    name, frozen = HELD, b""

    def make(self, digests: np.ndarray) -> Timed:
        self.reader = None
        self.frozen = b""

        def fill() -> None:
            self.frozen = freeze(self.growing.reader)

        return fill

    def open(self) -> Any:
        return hashmem.FrozenTable(self.frozen)


class Lmdb(Contestant):
    name = "lmdb"
    environment: Any = None

    def make(self, digests: np.ndarray) -> Timed:
        self.close()
        self.path.unlink(missing_ok=True)
        pairs = zip(as_bytes(digests), as_bytes(values_of(digests)), strict=True)

        def fill() -> None:
            with (
                lmdb.open(str(self.path), subdir=False, map_size=MAP) as environment,
                environment.begin(write=True) as transaction,
            ):
                transaction.cursor().putmulti(sorted(pairs), append=True)

        return fill

    def open(self) -> Any:
        self.close()
        self.environment = lmdb.open(str(self.path), subdir=False, map_size=MAP, readonly=True)
        return self.environment.begin()

    def close(self) -> None:
        self.reader = None
        if self.environment is not None:
            self.environment.close()
            self.environment = None

    def getter(self) -> Callable[[Any], Any]:
        return self.reader.get


class Cdb(Contestant):
    name = "pure-cdb"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import cdblib

        self.library = cdblib

    def make(self, digests: np.ndarray) -> Timed:
        pairs = zip(as_bytes(digests), as_bytes(values_of(digests)), strict=True)

        def fill() -> None:
            with open(self.path, "wb") as file, self.library.Writer64(file) as writer:
                for key, value in pairs:
                    writer.put(key, value)

        return fill

    def open(self) -> Any:
        return self.library.Reader64.from_file_path(str(self.path))

    def getter(self) -> Callable[[Any], Any]:
        return self.reader.get


class Marisa(Contestant):
    name = "marisa-trie"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import marisa_trie

        self.new = marisa_trie.RecordTrie

    def make(self, digests: np.ndarray) -> Timed:
        pairs = zip(
            map(bytes.hex, as_bytes(digests)), ((i,) for i in range(len(digests))), strict=True
        )
        return lambda: self.new("<q", pairs).save(str(self.path))

    def open(self) -> Any:
        return self.new("<q").mmap(str(self.path))

    def find(self, digests: np.ndarray) -> Timed:
        get, keys = self.reader.get, [key.hex() for key in as_bytes(digests)]
        return lambda: [get(key) for key in keys]


class BbHash(Contestant):
    name = "bbhash, 8-byte keys"
    arrays = True
    sees_misses = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import bbhash

        self.library = bbhash

    def make(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests).tolist()
        return lambda: self.library.PyMPHF(keys, len(keys), 1, 2.0).save(str(self.path))

    def open(self) -> Any:
        return self.library.load_mphf(str(self.path))

    def find(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests)
        return lambda: self.reader.lookup_many(keys)


OURS = (Growing, Mapped, Held)
RIVALS = (Lmdb, Cdb, Marisa, BbHash)
CONTESTANTS = {make.name: make for make in (*OURS, *RIVALS)}


def values_of(digests: np.ndarray) -> np.ndarray:
    """The positions as rows of 8 bytes."""
    return np.arange(len(digests), dtype="<i8").view(np.uint8).reshape(-1, 8)


def value_of(found: Any) -> int:
    """What a contestant found, as a number."""
    if isinstance(found, bytes):
        return int.from_bytes(found, "little")
    return int(found[0][0]) if isinstance(found, list) else int(found)


def contestants(result: Result, folder: Path, rivals: bool) -> Iterator[Contestant]:
    """Make all that can run here; name the rest in the result."""
    growing = Growing(folder / "none")
    for name, make in CONTESTANTS.items():
        if make in RIVALS and not rivals:
            continue
        try:
            contestant = growing if make is Growing else make(folder / f"table-{make.__name__}")
        except (ImportError, AttributeError) as error:
            result.left_out[name] = str(error)
            continue
        if isinstance(contestant, Mapped):
            contestant.growing = growing
        yield contestant


def _race_case(result: Result, n: int, width: int, quick: bool, folder: Path) -> None:
    title = f"{n:,} digests of {width} bytes".replace(",", " ")
    digests = digests_of(0, n, width)
    amount = QUICK_BATCH if quick else BATCH
    random = np.random.default_rng(harness.SEED)
    hits, misses = digests[random.integers(0, n, amount)], digests_of(n, amount, width)
    running = list(contestants(result, folder, n <= RIVALS_UP_TO))

    def add(column: str, samples: dict[str, list[float]], scale: float) -> None:
        for contestant in running:
            if contestant.name in samples:
                shown = [scale * sample for sample in samples[contestant.name]]
                result.add(title, column, contestant.name, contestant.kind, shown)

    making = {c.name: partial(lambda c, _: c.make(digests), c) for c in running}
    add(MAKE, harness.race(making, QUICK_ROUNDS if quick else MAKING_ROUNDS), 1e9 / n)
    overheads = {c.name: [max(c.nbytes() / n - 8 - width, 1e-9)] for c in running if c.name != HELD}
    add(OVERHEAD, {name: found for name, found in overheads.items() if "bbhash" not in name}, 1)

    opening = {c.name: partial(lambda c, _: c.open, c) for c in running if c.opens}
    add(OPEN, harness.race(opening, QUICK_ROUNDS if quick else OPENING_ROUNDS), 1e3)
    first: dict[str, list[float]] = {}
    for contestant in running:
        contestant.reader = contestant.open()
        asked = hits if contestant.arrays else hits[:ONE_BY_ONE]
        took = harness.seconds(contestant.find(asked)) / len(asked)
        if contestant.opens:
            first[contestant.name] = [took]
    add(FIRST, first, 1e9)
    for column, queries in ((HITS, hits), (MISSES, misses)):
        able = [c for c in running if c.sees_misses or column == HITS]
        for several in (True, False):
            asked = queries if several else queries[:ONE_BY_ONE]
            racing = {
                c.name: partial(lambda c, _, asked=asked: c.find(asked), c)
                for c in able
                if c.arrays == several
            }
            found = harness.race(racing, QUICK_ROUNDS if quick else ROUNDS)
            add(column, found, 1e9 / len(asked))
    for contestant in running:
        contestant.close()


def _headlines(result: Result, title: str) -> None:
    for column, target in ((HITS, 1.2), (MISSES, 1.2)):
        mapped, growing = (result.samples(title, column, name) for name in (MAPPED, GROWING))
        what = f"frozen and mapped ÷ growing, {column.split(' (')[0]}, {title}"
        result.ratio(what, mapped, growing, target)
    overhead = result.samples(title, OVERHEAD, MAPPED)
    result.headline(f"frozen: bytes an entry beyond digest and value, {title}", overhead, 1.0)
    opening = result.samples(title, OPEN, MAPPED)
    result.headline(f"frozen: milliseconds to open, {title}", opening, 10.0)


def run(quick: bool = False, folder: Path | None = None) -> Result:
    """Race all over each case; files lie in a temporary folder inside `folder`."""
    result = Result("frozen", __doc__)
    before = kernels.active
    kernels.select(kernels.available[0])
    try:
        for n, width in QUICK_CASES if quick else CASES:
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                _race_case(result, n, width, quick, Path(temporary))
    finally:
        kernels.select(before)
    for title in dict.fromkeys(row.table for row in result.rows):
        _headlines(result, title)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
