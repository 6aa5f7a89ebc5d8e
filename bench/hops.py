"""Hops: following a chain of links by any number of steps, beside a dict and LMDB.

A million records in one chain, in random order. Starts are random digests, given as an array;
answers are digests, for each start that far from the chain's end. What is timed is the whole call:
digests in, digests out.

- **dict**: digest → digest, bytes made beforehand, one lookup a hop.
- **lmdb**: digest → digest, one `get` a hop within one transaction, the file in memory.

These two run on as few starts as keep them within two million hops; hashmem runs on all.

Then a million chains of six hops over ten million records, again in random order. *Memory alone*:
a C loop that follows as many links between rows, six reads a chain that wait for one another, with
as many chains side by side as is fastest. *Rows*: `hashmem.hops.hop`, which does the same; a store
finds each start's row first, and gives the digest at the end, from ten million of 32 bytes.
"""

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb
import numpy as np

import hashmem
from bench import harness, limits
from bench.harness import Result, Timed
from bench.store_lmdb import MAP
from bench.table_rivals import as_bytes
from hashmem import hops as row_hops
from hashmem import kernels

RECORDS = 1_000_000
STARTS = 20_000
HOPS = (1, 6, 100, 10_000)
MOST = 2_000_000  # hops that the step-by-step rivals take in one sample
ROUNDS = 5
MANY_RECORDS, MANY_STARTS, MANY_HOPS = 10_000_000, 1_000_000, 6
QUICK_RECORDS, QUICK_STARTS, QUICK_HOPS, QUICK_ROUNDS = 2000, 50, (1, 100), 2

OURS = "hashmem MemoryStore, "  # and the kernels' name
ROWS, DICT, ALONE = "hashmem.hops.hop, rows", "dict, one lookup a hop", "memory alone"
LINK = "link (ns a link)"
Walk = Callable[[np.ndarray, int], Timed]  # starts uint8 (m, width), hops → the call to time


def chain(records: int) -> tuple["hashmem.MemoryStore", np.ndarray]:
    """Return a store in memory and its digests in the chain's order, not linked yet."""
    store = hashmem.MemoryStore()
    digests = store.put_many([number.to_bytes(8, "little") for number in range(records)])
    return store, digests[np.random.default_rng(harness.SEED).permutation(records)]


def walk_store(store: "hashmem.MemoryStore", kernel: str) -> Walk:
    def prepare(starts: np.ndarray, n: int) -> Timed:
        kernels.select(kernel)
        return lambda: store.hop(starts, n)

    return prepare


def walk_map(get: Callable[[bytes], bytes | None]) -> Walk:
    def prepare(starts: np.ndarray, n: int) -> Timed:
        keys = as_bytes(starts)

        def walk() -> list[bytes | None]:
            ends: list[bytes | None] = []
            for key in keys:
                for _ in range(n):
                    key = get(key)
                ends.append(key)
            return ends

        return walk

    return prepare


def contestants(
    store: "hashmem.MemoryStore", digests: np.ndarray, transaction: lmdb.Transaction
) -> dict[str, Walk]:
    """Give the rivals the chain that `digests` is, and return every way to walk it."""
    pairs = dict(itertools.pairwise(as_bytes(digests)))
    transaction.cursor().putmulti(sorted(pairs.items()))
    return {
        **{OURS + kernel: walk_store(store, kernel) for kernel in kernels.available},
        DICT: walk_map(pairs.get),
        "lmdb, one get a hop": walk_map(transaction.get),
    }


def _race(result: Result, quick: bool, transaction: lmdb.Transaction) -> None:
    records, amount, counts, rounds = (
        (QUICK_RECORDS, QUICK_STARTS, QUICK_HOPS, QUICK_ROUNDS)
        if quick
        else (RECORDS, STARTS, HOPS, ROUNDS)
    )
    table = f"A chain of {records:,} records".replace(",", " ")
    store, digests = chain(records)
    with store:
        link = partial(store.link_many, digests[:-1], digests[1:])
        linking = [1e9 * harness.seconds(link) / (records - 1) for _ in range(rounds)]
        result.add(table, LINK, OURS + kernels.active, "ours", linking)

        walks = contestants(store, digests, transaction)
        random = np.random.default_rng(harness.SEED)
        for n in counts:
            starts = digests[random.integers(0, records - n, amount)]
            asked = {
                name: starts if name.startswith(OURS) else starts[: max(1, MOST // n)]
                for name in walks
            }

            def prepare(name: str, _: int, asked: dict = asked, n: int = n) -> Timed:
                return walks[name](asked[name], n)

            runs = {name: partial(prepare, name) for name in walks}
            label = f"{n:,} hops (ns a start)".replace(",", " ")
            for name, samples in harness.race(runs, rounds).items():
                per_start = [1e9 * s / len(asked[name]) for s in samples]
                kind = "ours" if name.startswith(OURS) else "rival"
                result.add(table, label, name, kind, per_start)


def _race_many(result: Result, quick: bool) -> None:
    """Walk many short chains over many records, beside the reads that this takes at least."""
    records, amount, rounds = (
        (QUICK_RECORDS, QUICK_STARTS, QUICK_ROUNDS)
        if quick
        else (MANY_RECORDS, MANY_STARTS, ROUNDS)
    )
    kernels.select(kernels.available[0])
    table = f"{amount:,} chains of {MANY_HOPS} hops over {records:,} records".replace(",", " ")
    store, digests = chain(records)
    with store:
        store.link_many(digests[:-1], digests[1:])
        pairs = dict(itertools.pairwise(as_bytes(digests)))
        random = np.random.default_rng(harness.SEED)
        rows = random.permutation(records)  # of the chain's records in its order, as the store's
        successors = np.full(records, -1)
        successors[rows[:-1]] = rows[1:]
        at = random.integers(0, records - MANY_HOPS, amount)
        starts, start_rows = digests[at], rows[at]
        few = starts[: MOST // MANY_HOPS]
        ours = OURS + kernels.active
        calls: dict[str, Callable[[], Timed]] = {
            ours: lambda: walk_store(store, kernels.available[0])(starts, MANY_HOPS),
            ROWS: lambda: partial(row_hops.hop, successors, start_rows, MANY_HOPS),
            DICT: lambda: walk_map(pairs.get)(few, MANY_HOPS),
        }
        try:
            alone = limits.chains(successors, start_rows, MANY_HOPS)
            calls[ALONE] = lambda: alone
        except ImportError as error:
            result.left_out[ALONE] = str(error)
        found = harness.race(
            {name: lambda _, make=make: make() for name, make in calls.items()}, rounds
        )
    kinds = {DICT: "rival", ALONE: "floor"}
    for name, samples in found.items():
        count = len(few) if name == DICT else amount
        per_start = [1e9 * s / count for s in samples]
        result.add(table, "6 hops (ns a start)", name, kinds.get(name, "ours"), per_start)
    cell = partial(result.samples, table, "6 hops (ns a start)")
    for name, what in ((ROWS, "rows"), (ours, "digests")):
        asked = f"{table}, {what}"
        result.ratio(f"{asked}: to memory alone", cell(name), cell(ALONE), 2)
        result.ratio(f"{asked}: faster than a dict loop", cell(DICT), cell(name), 20, at_least=True)


def run(quick: bool = False, folder: Path | None = None) -> Result:
    """Race the walks over one chain; LMDB's file lies in a temporary folder inside `folder`."""
    result = Result("hops", __doc__)
    before = kernels.active
    try:
        with (
            tempfile.TemporaryDirectory(dir=folder) as temporary,
            lmdb.open(temporary, map_size=MAP) as environment,
            environment.begin(write=True) as transaction,
        ):
            _race(result, quick, transaction)
        _race_many(result, quick)
    finally:
        kernels.select(before)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
