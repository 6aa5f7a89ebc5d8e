"""Stores: write, read, delete and size, beside LMDB used directly, SQLite, diskcache and RocksDB.

Records are pieces of the Python standard library's source, each with a counter stamped in so that
all are distinct, addressed by SHA-256 computed within the timed write. Every 50 000 records are
made durable before the next, by fsync or the library's own equivalent. Within a round each
contestant in turn fills an empty folder, is closed and opened again, and reads random digests
(with repeats, the file's pages still in memory): once the first byte of every record, once every
record as a bytes object. Then it compacts, commits some records one at a time, and deletes one in
twenty. Each at its best settings of those tried:

- **lmdb**: one entry per record, keys sorted within each commit; once with `put` and `get`, once
  with `putmulti` and `getmulti` of 100 keys at a time, and once with one `getmulti` for all keys,
  where Python's garbage collector comes to look at the many views again and again. It has no
  compaction in place.
- **sqlite3**: a table with a unique index on the digest, WAL, synchronous=FULL, 256 MiB cache,
  memory-mapped; `VACUUM` compacts.
- **diskcache**: one transaction a commit, nothing evicted, synchronous=FULL; it runs on one record
  in twenty, being slow.
- **rocksdict**: raw mode, one synced WriteBatch a commit, Bloom filters, 256 MiB block cache; once
  compressed, so that its files can be smaller than the payload, once not, which reads faster.
- **plain file**: the same bytes appended and synced, with digests and a dict of places in memory
  that would be lost, and once without digests. A floor, not a store.
"""

import hashlib
import itertools
import os
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import harness
from bench.harness import Result
from bench.store_contract import Contestant, HashMem, NamelessFile, Payloads, PlainFile
from bench.store_rivals import (
    DiskCache,
    Lmdb,
    LmdbMulti,
    LmdbOneGet,
    RocksDict,
    RocksDictPlain,
    Sqlite,
)

CONTESTANTS = (
    HashMem,
    Lmdb,
    LmdbMulti,
    LmdbOneGet,
    Sqlite,
    DiskCache,
    RocksDict,
    RocksDictPlain,
    PlainFile,
    NamelessFile,
)
CASES = ((1_000_000, 512), (200_000, 4096))  # records, bytes of each
ROUNDS = 3
READS = 200_000
SINGLES = 200  # records committed one at a time
DELETED = 0.05  # of the records
QUICK_CASES = ((400, 512),)
QUICK_ROUNDS = 1
STAMP = 8  # bytes of the counter that ends every payload

WRITE = "put, hash, commit every 50 000 (µs a record)"
SINGLE = "put and commit one (µs)"
OPEN = "open again (ms)"
FIRST = "get, first byte (µs)"
ALL = "get as bytes (µs)"
DELETE = "delete (µs)"
COMPACT = "compact (µs a record)"
SIZE = "file / payload"
COMPACTED = "file / payload, compacted"


def source_text() -> bytes:
    """Return the Python standard library's own source, in one piece."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(p for p in library.rglob("*.py") if "site-packages" not in p.parts)
    return b"".join(path.read_bytes() for path in files)


def payloads_of(n: int, size: int, text: bytes) -> list[bytes]:
    """Cut `n` distinct payloads of `size` bytes; the text repeats where it is too short."""
    piece = size - STAMP
    starts = range(0, len(text) - piece, piece)
    return [
        text[start : start + piece] + number.to_bytes(STAMP, "little")
        for number, start in zip(range(n), itertools.cycle(starts), strict=False)
    ]


def digests_of(payloads: Payloads) -> np.ndarray:
    """Return the SHA-256 of every payload → uint8 (n, 32)."""
    joined = b"".join([hashlib.sha256(payload).digest() for payload in payloads])
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)


def lifetime(
    contestant: Contestant, payloads: Payloads, digests: np.ndarray, number: int
) -> dict[str, float]:
    """Take one contestant through its whole life in round `number` → figure by column."""
    n = max(1, round(len(payloads) * contestant.share))
    singles = min(SINGLES, max(1, n // 40))
    bulk, few = payloads[: n - singles], payloads[n - singles : n]
    random = np.random.default_rng([harness.SEED, number])  # the same questions for all
    wanted = digests[random.integers(0, len(bulk), min(READS, n))]
    removed = digests[random.permutation(len(bulk))[: max(1, int(DELETED * n))]]
    size = sum(map(len, bulk))
    found: dict[str, float] = {}

    contestant.open()
    os.sync()  # what others left to be written must not be paid here
    found[WRITE] = 1e6 * harness.seconds(lambda: contestant.write(bulk)) / len(bulk)
    contestant.close()
    os.sync()
    found[SIZE] = contestant.nbytes() / size
    found[OPEN] = 1e3 * harness.seconds(contestant.open)
    if contestant.reads:
        for column, prepare in ((FIRST, contestant.first_bytes), (ALL, contestant.all_bytes)):
            found[column] = 1e6 * harness.seconds(prepare(wanted)) / len(wanted)
    if contestant.can_compact:
        found[COMPACT] = 1e6 * harness.seconds(contestant.compact) / len(bulk)
        contestant.close()
        os.sync()
        found[COMPACTED] = contestant.nbytes() / size
        contestant.open()
    if contestant.can_delete:
        contestant.commit_every = 1
        found[SINGLE] = 1e6 * harness.seconds(lambda: contestant.write(few)) / len(few)
        found[DELETE] = 1e6 * harness.seconds(contestant.delete(removed)) / len(removed)
    contestant.close()
    return found


def _race(result: Result, n: int, size: int, rounds: int, folder: Path) -> None:
    payloads = payloads_of(n, size, source_text())
    digests = digests_of(payloads)
    samples: dict[tuple[str, type[Contestant]], list[float]] = {}
    for number in range(rounds):
        for make in CONTESTANTS:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                try:
                    contestant = make(Path(own))
                except ImportError as error:
                    result.left_out[make.name] = str(error)
                    continue
                for column, figure in lifetime(contestant, payloads, digests, number).items():
                    samples.setdefault((column, make), []).append(figure)
    for (column, make), figures in samples.items():
        result.add(_title(n, size), column, make.name, make.kind, figures)


def _title(n: int, size: int) -> str:
    return f"{n:,} records of {size} bytes".replace(",", " ")


def _headlines(result: Result, n: int, size: int) -> None:
    title, ours = _title(n, size), HashMem.name

    def faster(column: str, rival: type[Contestant], target: float | None) -> None:
        operation = column.rpartition(" (")[0]
        what = f"{title}, {operation}: {rival.name} / ours"
        slow, fast = (result.samples(title, column, name) for name in (rival.name, ours))
        result.ratio(what, slow, fast, target, at_least=True)

    faster(WRITE, LmdbMulti, 6)
    faster(WRITE, Lmdb, 6)
    faster(FIRST, LmdbOneGet, 4)
    faster(FIRST, LmdbMulti, 4)
    faster(FIRST, Lmdb, None)
    faster(ALL, Lmdb, None)
    for column, target in ((SIZE, 1.3), (COMPACTED, 1.15)):
        result.headline(f"{title}: {column}", result.samples(title, column, ours), target)


def run(
    quick: bool = False,
    folder: Path | None = None,
    cases: Sequence[tuple[int, int]] = CASES,
) -> Result:
    """Race every contestant at every size, in temporary folders inside `folder`."""
    cases, rounds = (QUICK_CASES, QUICK_ROUNDS) if quick else (cases, ROUNDS)
    result = Result("store", __doc__)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        result.machine = harness.machine(Path(temporary))
        for n, size in cases:
            _race(result, n, size, rounds, Path(temporary))
    _headlines(result, *cases[0])
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--n", type=int, help="records of 512 bytes, instead of both cases")
    options = parser.parse_args()
    cases = ((options.n, 512),) if options.n else CASES
    harness.finish(run(options.quick, options.folder, cases), options)


if __name__ == "__main__":
    main()
