"""One record a commit: how long until it is durable, by one thread and by eight at once.

Upon a store of 50 000 records, hashmem's handle and LMDB's environment commit one record of 512
bytes at a time, digest included; the floor appends and syncs a file. By eight threads, each puts
and commits its own record after record through the one handle, and what is quoted is the time a
commit: eight threads that shared every sync would take an eighth of one's.
"""

import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from bench import harness
from bench.harness import Result, Timed
from bench.store_contract import Contestant, HashMem, PlainFile
from bench.store_data import Payloads, digests_of, payloads_of, source_text
from bench.store_lmdb import Lmdb
from bench.store_race import check, fill

HELD, QUICK_HELD = 50_000, 200  # records already stored
SIZE = 512  # bytes of a record
THREADS = 8
COMMITS, QUICK_COMMITS = 400, 16  # a sample
ROUNDS = 7

TABLE = "One record of 512 bytes a commit"
COLUMNS = {1: "one thread (µs a commit)", THREADS: f"{THREADS} threads (µs a commit)"}


def committing(contestant: Contestant, payloads: Payloads, threads: int) -> Timed:
    """Prepare to commit each payload by itself, spread over `threads`, each of its own account."""
    contestant.commit_every = 1
    if threads == 1:
        return lambda: contestant.write(payloads)
    shares = [payloads[i::threads] for i in range(threads)]

    def run() -> None:
        errors: list[BaseException] = []

        def work(share: Payloads) -> None:
            try:
                contestant.write(share)
            except BaseException as error:
                errors.append(error)

        workers = [threading.Thread(target=work, args=(share,)) for share in shares]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if errors:
            raise errors[0]

    return run


def measure(result: Result, folder: Path, quick: bool) -> None:
    """Add both columns, in stores made in `folder`, and check that all came to be stored."""
    held, commits = (QUICK_HELD, QUICK_COMMITS) if quick else (HELD, COMMITS)
    text = source_text()
    makers = {HashMem: COLUMNS, Lmdb: COLUMNS, PlainFile: {1: COLUMNS[1]}}
    fresh = itertools.count(held, commits)  # numbers of payloads that nobody has yet
    with tempfile.TemporaryDirectory(dir=folder) as own:
        stores = {m: fill(m, Path(own), payloads_of(held, SIZE, text)) for m in makers}
        written: dict[type[Contestant], list[bytes]] = {make: [] for make in makers}

        def prepared(make: type[Contestant], threads: int) -> Callable[[int], Timed]:
            def prepare(_: int) -> Timed:
                payloads = payloads_of(commits, SIZE, text, next(fresh))
                written[make] += payloads
                return committing(stores[make], payloads, threads)

            return prepare

        runs = {
            (make, threads): prepared(make, threads)
            for make, columns in makers.items()
            for threads in columns
        }
        names = {f"{make.name} {threads}": prepare for (make, threads), prepare in runs.items()}
        found = harness.race(names, 2 if quick else ROUNDS)
        for make, threads in runs:
            samples = [1e6 * s / commits for s in found[f"{make.name} {threads}"]]
            result.add(TABLE, COLUMNS[threads], make.name, make.kind, samples)
        for make, contestant in stores.items():
            contestant.close()
            if make.kind != "floor":
                contestant.open()
                check(contestant, digests_of(written[make]), written[make])
                contestant.close()
    ours, lmdb = HashMem.name, Lmdb.name
    one, many = (result.samples(TABLE, COLUMNS[threads], HashMem.name) for threads in (1, THREADS))
    result.ratio("put one, durable: ours / lmdb, one commit of one entry",
                 one, result.samples(TABLE, COLUMNS[1], lmdb), 1.5)  # fmt: skip
    result.ratio(f"put one, durable: {THREADS} threads' commits a second to one thread's",
                 one, many, 4, at_least=True)  # fmt: skip
    result.ratio(f"put one, durable, {THREADS} threads: {lmdb} / {ours}",
                 result.samples(TABLE, COLUMNS[THREADS], lmdb), many)  # fmt: skip
