"""Ten thousand commits of one record each: what later reads cost beside one large commit.

Two stores hold the same records of 512 bytes, one written a record a commit, one in one commit.
Both are closed and opened again, then read at random, warm.
"""

import tempfile
from functools import partial
from pathlib import Path

from bench import harness
from bench.harness import Result
from bench.store_contract import HashMem
from bench.store_data import digests_of, payloads_of, picks, source_text
from bench.store_race import check

N, QUICK_N = 10_000, 40  # records
SIZE = 512  # bytes of a record
READS = 100_000  # by get_many, a sample
ONES = 5000  # one at a time, a sample
ROUNDS = 9

TABLE = "10 000 records of 512 bytes, by commits"
APART, TOGETHER = "hashmem, a commit each", "hashmem, one commit"


def measure(result: Result, folder: Path, quick: bool) -> None:
    """Add reads of both stores, and their ratios."""
    n = QUICK_N if quick else N
    reads, ones, rounds = (200, 50, 2) if quick else (READS, ONES, ROUNDS)
    payloads = payloads_of(n, SIZE, source_text())
    digests = digests_of(payloads)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        stores = {}
        for name, commit_every in ((APART, 1), (TOGETHER, n)):
            stores[name] = contestant = HashMem(Path(tempfile.mkdtemp(dir=own)))
            contestant.commit_every = commit_every
            contestant.open()
            contestant.write(payloads)
            contestant.close()
            contestant.open()
            check(contestant, digests, payloads)

        def up_to_records(store: HashMem, number: int) -> harness.Timed:
            wanted = digests[picks(reads, n, number)]
            return lambda: store.store.get_many(wanted).close()

        for column, count, prepare in (
            ("get_many, up to Records (ns)", reads, up_to_records),
            ("get_many as bytes (ns)", reads,
             lambda store, number: store.all_bytes(digests[picks(reads, n, number)])),
            ("get one (ns)", ones,
             lambda store, number: store.one_by_one(digests[picks(ones, n, number)])),
        ):  # fmt: skip
            found = harness.race(
                {name: partial(prepare, store) for name, store in stores.items()},
                rounds,
            )
            for name, samples in found.items():
                per_record = [1e9 * s / count for s in samples]
                result.add(TABLE, column, name, "ours", per_record)
            what = f"10 000 commits of one record to one commit: {column[:-5]}"
            result.ratio(what, found[APART], found[TOGETHER], 1.3)
        for store in stores.values():
            store.close()
