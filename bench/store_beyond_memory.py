"""Larger than memory: gigabytes of records written at a steady rate, then read from the disk.

Records of 4096 and 512 bytes by turns, SHA-256, made durable every 20 000, until the payload has
the size asked for; every sample of the write is a gigabyte. Then the store is opened again and read
at random, where most of what is asked for is not in memory: many a call, each sample other
records, and one a call. The disk's own rates are taken by turns with it, from the store's own
largest file: as many bytes at as many random places by `pread`, one after another and by sixteen
threads at once, and one pass over a gigabyte. Where a size fits in memory, this tells nothing of a
disk.

Needs free space for the size and a fifth more. The folder is removed at the end, however it ends,
unless the process is killed outright.
"""

import os
import shutil
import signal
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import numpy as np

from bench import harness
from bench.harness import Result, Timed
from bench.machine import machine
from bench.store_contract import HashMem
from bench.store_data import digests_of, payloads_of, picks, source_text
from bench.store_race import WrongAnswer, check

GIGABYTES, QUICK_GIGABYTES = 40.0, 0.02
GB = 1_000_000_000
SIZES = (4096, 512)  # bytes of a record, by turns
COMMIT, QUICK_COMMIT = 20_000, 1000  # records
READS, QUICK_READS = 20_000, 200  # records a sample
ROUNDS = 5
THREADS = 16  # that read at once
STEP = 1 << 20  # bytes a call of the pass over the file
ROOM = 1.2  # of the payload: free space needed
STEADY = 1.2  # the most that a gigabyte of the last quarter may take, to the first quarter's
NEAR = 1.25  # the most that a random read may take, to a pread

OURS = "hashmem MemoryStore"
ALONE, AT_ONCE = "pread, one after another", f"pread by {THREADS} threads"
PASS = "pread of 1 MiB, in order"
WRITE = "write (s a GB)"
MANY, ONE, IN_ORDER = "get_many (µs a record)", "get one (µs)", "in order of writing (s a GB)"
PEAK, HELD = "resident at the peak (GB)", "resident but for mapped files (GB)"


def payload_part(first: int, n: int, text: bytes) -> list[bytes]:
    """Make records `first` to `first + n`: the even ones large, the odd ones small."""
    return [payloads_of(1, SIZES[i % 2], text, i)[0] for i in range(first, first + n)]


def write(contestant: HashMem, goal: int, commit: int, text: bytes) -> tuple[list[float], int]:
    """Write until the payload has `goal` bytes → seconds a GB, one sample a GB, and the records.

    Only putting and committing is timed.
    """
    samples: list[float] = []
    records = payload = 0
    spent, since = 0.0, 0
    while payload < goal:
        part = payload_part(records, commit, text)
        spent += harness.seconds(lambda part=part: contestant.write(part))  # type: ignore[misc]
        size = sum(map(len, part))
        records, payload, since = records + commit, payload + size, since + size
        ended = payload >= goal and (since >= GB / 2 or not samples)  # too little tells nothing
        if since >= GB or ended:
            samples.append(spent * GB / since)
            print(f"{payload / GB:.1f} GB: {samples[-1]:.2f} s a GB", flush=True)
            spent, since = 0.0, 0
    return samples, records


def _asked(n: int, records: int, seed: int, text: bytes) -> tuple[np.ndarray, list[bytes]]:
    """Choose n records at random → their digests (n, 32) and what they hold."""
    payloads = [payload_part(i, 1, text)[0] for i in picks(n, records, 7, 1 + seed).tolist()]
    return digests_of(payloads), payloads


def _preads(path: Path, lengths: list[int], seed: int, threads: int) -> Timed:
    """Prepare to read so many bytes at random places of a file each, by some threads."""
    size = path.stat().st_size
    random = np.random.default_rng([harness.SEED, seed, threads])
    places = random.integers(0, size - max(lengths), len(lengths)).tolist()
    asked = list(zip(lengths, places, strict=True))

    def some(part: list[tuple[int, int]]) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            for length, place in part:
                os.pread(file, length, place)
        finally:
            os.close(file)

    def read() -> None:
        if threads == 1:
            some(asked)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [asked[i::threads] for i in range(threads)]))

    return read


def _passes(path: Path, at: float, most: int) -> tuple[Timed, int]:
    """Prepare one pass over a stretch of the file from a share of it on → the call, the bytes."""
    size = path.stat().st_size
    stretch = min(most, size)
    start = int((size - stretch) * at)

    def read() -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            for place in range(start, start + stretch, STEP):
                os.pread(file, min(STEP, start + stretch - place), place)
        finally:
            os.close(file)

    return read, stretch


def _held_bytes() -> int:
    """Return the memory that is this process's own, without mapped files; 0 if unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(found[0]) * 1024 if found else 0


def _reads(result: Result, table: str, contestant: HashMem, records: int, quick: bool) -> None:
    """Read at random by turns with the disk's own rate; some answers are checked."""
    text, store = source_text(), contestant.store
    n, rounds = (QUICK_READS, 2) if quick else (READS, ROUNDS)
    path = _largest(contestant.folder)
    lengths = [SIZES[i % 2] for i in range(n)]

    check(contestant, *_asked(min(n, 1000), records, -1, text))

    def many(number: int) -> Timed:
        wanted, _ = _asked(n, records, number, text)
        return lambda: list(store.get_many(wanted))

    def one(number: int) -> Timed:
        return contestant.one_by_one(_asked(n, records, 1000 + number, text)[0])

    found = harness.race(
        {
            MANY: many,
            ONE: one,
            ALONE: lambda number: _preads(path, lengths, number, 1),
            AT_ONCE: lambda number: _preads(path, lengths, number, THREADS),
        },
        rounds,
    )
    each = {name: [1e6 * s / n for s in samples] for name, samples in found.items()}
    for column, rows in ((MANY, (ALONE, AT_ONCE)), (ONE, (ALONE,))):
        result.add(table, column, OURS, "ours", each[column])
        for row in rows:
            result.add(table, column, row, "floor", each[row])
    result.ratio(f"{table}: get_many / {ALONE}", found[MANY], found[ALONE], NEAR)
    result.ratio(f"{table}: get_many / {AT_ONCE}", found[MANY], found[AT_ONCE])
    result.ratio(f"{table}: get one / {ALONE}", found[ONE], found[ALONE], NEAR)
    result.add(table, PEAK, OURS, "ours", [harness.resident_bytes(peak=True) / GB])
    result.add(table, HELD, OURS, "ours", [max(_held_bytes(), 1) / GB])


def _largest(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


def _in_order(result: Result, table: str, contestant: HashMem, records: int, quick: bool) -> None:
    """Read stretches in the order they were written, by turns with passes over the file."""
    text, store, path = source_text(), contestant.store, _largest(contestant.folder)
    rounds = 2 if quick else ROUNDS
    stretch = min(records // 2, 400 if quick else 200_000)
    ours, passes = [], []
    for number in range(rounds):
        first = (records - stretch) * number // rounds
        parts = range(first, first + stretch, COMMIT)
        wanted = np.concatenate(
            [digests_of(payload_part(at, min(COMMIT, first + stretch - at), text)) for at in parts]
        )
        with store.get_many(wanted) as found:
            size = int(found.lengths.sum())
        if size != sum(SIZES[i % 2] for i in range(first, first + stretch)):
            raise WrongAnswer("hashmem: not the sizes that were written")

        def read(wanted: np.ndarray = wanted) -> None:
            for start in range(0, len(wanted), COMMIT):
                with store.get_many(wanted[start : start + COMMIT]) as some:
                    some.gather()

        ours.append(harness.seconds(read) * GB / size)
        call, nbytes = _passes(path, (number + 0.5) / rounds, size)
        passes.append(harness.seconds(call) * GB / nbytes)
    result.add(table, IN_ORDER, OURS, "ours", ours)
    result.add(table, IN_ORDER, PASS, "floor", passes)
    result.ratio(f"{table}: in order of writing / {PASS}", ours, passes)


def run(quick: bool = False, folder: Path | None = None, gigabytes: float = GIGABYTES) -> Result:
    """Write `gigabytes` of payload into a temporary folder inside `folder`, and read.

    Raises `SystemExit` where the disk has not the room.
    """
    gigabytes = QUICK_GIGABYTES if quick else gigabytes
    result = Result("store_beyond_memory", __doc__)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as temporary:
        own = Path(temporary)
        free = shutil.disk_usage(own).free
        if free < ROOM * gigabytes * GB:
            sys.exit(f"{gigabytes:g} GB need {ROOM * gigabytes:.1f} GB free, not {free / GB:.1f}: "
                     "give --gigabytes or --folder")  # fmt: skip
        result.machine = machine(own)
        table = f"{gigabytes:g} GB of records of 4096 and 512 bytes"
        contestant = HashMem(own)
        contestant.commit_every = QUICK_COMMIT if quick else COMMIT
        contestant.open()
        samples, records = write(
            contestant, int(gigabytes * GB), contestant.commit_every, source_text()
        )
        contestant.close()
        result.add(table, WRITE, OURS, "ours", samples)
        quarter = max(1, len(samples) // 4)
        first, last = (statistics.median(s) for s in (samples[:quarter], samples[-quarter:]))
        result.headline(
            f"{table}: seconds a GB, last quarter / first quarter", [last / first], STEADY
        )
        result.add(table, "file / payload", OURS, "ours",
                   [contestant.nbytes() / (records / 2 * sum(SIZES))])  # fmt: skip
        result.add(table, "open again (ms)", OURS, "ours",
                   [1e3 * harness.seconds(contestant.open)])  # fmt: skip
        try:
            _reads(result, table, contestant, records, quick)
            _in_order(result, table, contestant, records, quick)
        finally:
            contestant.close()
    return result


def _ended(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)  # so that the folder is removed


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of payload")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    harness.finish(run(options.quick, options.folder, options.gigabytes), options)


if __name__ == "__main__":
    main()
