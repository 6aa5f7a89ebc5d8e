"""A large store: ten million records written, opened in fresh processes, read and compacted.

Records of 512 bytes, as in the bench of stores, SHA-256, made durable every 50 000. Each sample of
the write is a million records, so that the percentiles tell whether the rate is steady. The file
without digests is appended and synced at the same points. LMDB, one entry per record with
`putmulti`, holds one record in five, which favours it.

*A fresh process opens them*: everything is imported before the clock starts; memory is what the
process gained by opening, in all and with pages that several processes share divided among them,
in one process alone and in two at once. The files lie in the system's memory.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import hashmem
from bench import harness, store_open
from bench.harness import Result
from bench.machine import machine
from bench.store_contract import Contestant, HashMem, NamelessFile
from bench.store_data import digests_of, payloads_of, picks, source_text, title
from bench.store_lmdb import LmdbMulti
from bench.store_race import WrongAnswer, check

N, QUICK_N = 10_000_000, 2000
SIZE = 512  # bytes of a record
BLOCK = 50_000  # records a commit
BLOCKS_A_SAMPLE = 20
SHARE = 0.2  # of the records for LMDB and the file
READS = 1_000_000  # records a batch of get_many
OBJECTS = 200_000  # records read as Python objects
ONES = 2000  # records read one at a time, a sample
ROUNDS, ONE_ROUNDS, OPEN_ROUNDS = 5, 25, 5

WRITE = "put, hash, commit every 50 000 (µs a record)"
COMPACT = "compact (µs a record)"
SIZES = "file / payload"
COMPACTED = "file / payload, compacted"
RECORDS = "get_many, up to Records (ns a record)"
ENDS = "get_many, Records and both ends (ns a record)"
ALL = "get as bytes (µs)"
ONE = "get one (µs)"


def written(
    contestant: Contestant, n: int, block: int, text: bytes
) -> tuple[list[float], np.ndarray]:
    """Write n records → µs a record, one sample each `BLOCKS_A_SAMPLE` blocks, and the digests.

    Records are made and hashed for later beside the clock, so that memory holds only some.
    """
    contestant.commit_every = block
    contestant.open()
    samples, digests, spent, since = [], [], 0.0, 0
    for first in range(0, n, block):
        part = payloads_of(min(block, n - first), SIZE, text, first)
        digests.append(digests_of(part))
        spent += harness.seconds(lambda part=part: contestant.write(part))  # type: ignore[misc]
        since += len(part)
        if since >= block * BLOCKS_A_SAMPLE or first + block >= n:
            samples.append(1e6 * spent / since)
            spent, since = 0.0, 0
    contestant.close()
    os.sync()
    return samples, np.concatenate(digests)


def _content(number: int, text: bytes) -> bytes:
    return payloads_of(1, SIZE, text, number)[0]


def _read(result: Result, name: str, contestants: list[Contestant], keys: list[np.ndarray],
          quick: bool) -> None:  # fmt: skip
    """Add reads of records as objects and one at a time, by turns; each has digests of its own."""
    for column, n, rounds, way in (
        (ALL, OBJECTS, ROUNDS, "all_bytes"),
        (ONE, ONES, ONE_ROUNDS, "one_by_one"),
    ):
        n, rounds = (100, 2) if quick else (n, rounds)

        def prepared(at: int, way: str = way, n: int = n) -> Any:
            def prepare(number: int) -> harness.Timed:
                wanted = keys[at][picks(n, len(keys[at]), number)]
                return getattr(contestants[at], way)(wanted)  # type: ignore[no-any-return]

            return prepare

        found = harness.race({c.name: prepared(i) for i, c in enumerate(contestants)}, rounds)
        for contestant in contestants:
            per_record = [1e6 * s / n for s in found[contestant.name]]
            result.add(name, column, contestant.name, contestant.kind, per_record)
        ours, theirs = (found[contestant.name] for contestant in contestants)
        if column == ONE:
            result.ratio(f"{name}: get one, ours / {contestants[1].name}", ours, theirs, 1.5)
        else:
            what = f"{name}: get as bytes, {contestants[1].name} / ours"
            result.ratio(what, theirs, ours, 5, at_least=True)


def _batches(result: Result, name: str, ours: HashMem, digests: np.ndarray, quick: bool) -> None:
    n = 200 if quick else READS
    has_ends = hasattr(hashmem.store.Records, "ends")
    for column in (RECORDS, ENDS) if has_ends else (RECORDS,):

        def prepare(number: int, column: str = column) -> harness.Timed:
            wanted = digests[picks(n, len(digests), number)]

            def read() -> None:
                with ours.store.get_many(wanted) as records:
                    if column == ENDS:
                        ends: Any = records
                        ends.ends()

            return read

        prepare(0)()  # warm
        samples = harness.race({ours.name: prepare}, 2 if quick else ROUNDS)[ours.name]
        result.add(name, column, ours.name, ours.kind, [1e9 * s / n for s in samples])
    result.headline(f"{name}: get_many of a million, Records and both ends (ns)",
                    result.samples(name, ENDS, ours.name), 150)  # fmt: skip


def _measure(result: Result, n: int, folder: Path, quick: bool) -> None:
    name, text, block = title(n, SIZE), source_text(), 200 if quick else BLOCK
    ours, lmdb, file = (
        make(Path(tempfile.mkdtemp(dir=folder))) for make in (HashMem, LmdbMulti, NamelessFile)
    )
    assert isinstance(ours, HashMem)
    keys: dict[str, np.ndarray] = {}
    for contestant in (ours, lmdb, file):
        many = n if contestant is ours else round(n * SHARE)
        samples, keys[contestant.name] = written(contestant, many, block, text)
        result.add(name, WRITE, contestant.name, contestant.kind, samples)
        size = contestant.nbytes() / (many * SIZE)
        result.add(name, SIZES, contestant.name, contestant.kind, [size])
    for rival, target in ((lmdb, 8.0), (file, 0.6)):
        what = f"{name}, put, hash, commit: {rival.name} / ours"
        theirs, mine = (result.samples(name, WRITE, c.name) for c in (rival, ours))
        result.ratio(what, theirs, mine, target, at_least=True)

    digests = keys[ours.name]
    last = n - 1
    rounds = 2 if quick else OPEN_ROUNDS
    store_open.measure(result, name, ours.path, bytes(digests[last]), _content(last, text), rounds)
    lmdb.open()
    ours.open()
    for contestant in (ours, lmdb):
        some = picks(100, len(keys[contestant.name]))
        expected = [_content(i, text) for i in some.tolist()]
        check(contestant, keys[contestant.name][some], expected)
    _batches(result, name, ours, digests, quick)
    _read(result, name, [ours, lmdb], [digests, keys[lmdb.name]], quick)
    lmdb.close()

    seconds = harness.seconds(ours.compact)
    result.add(name, COMPACT, ours.name, ours.kind, [1e6 * seconds / n])
    if len(ours.store) != n:
        raise WrongAnswer(f"compact left {len(ours.store)} of {n} records")
    ours.close()
    os.sync()
    result.add(name, COMPACTED, ours.name, ours.kind, [ours.nbytes() / (n * SIZE)])
    allowed = 1.05 * n * SIZE + 48 * n + (1 << 20)
    what = f"{name}: file after compact / (1.05 × payload + 48 B a record + 1 MiB)"
    result.headline(what, [ours.nbytes() / allowed], 1.0)


def run(quick: bool = False, folder: Path | None = None, n: int = N) -> Result:
    """Measure `n` records in a temporary folder inside `folder`."""
    result = Result("store_large", __doc__)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        result.machine = machine(Path(temporary))
        _measure(result, QUICK_N if quick else n, Path(temporary), quick)
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--n", type=int, default=N, help="records of 512 bytes")
    options = parser.parse_args()
    harness.finish(run(options.quick, options.folder, options.n), options)


if __name__ == "__main__":
    main()
