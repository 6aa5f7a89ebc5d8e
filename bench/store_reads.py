"""Reading at random from one large store, warm: many, one, as Python objects, verified.

- *many*: `get_many`, up to the `Records` it returns, and with the first and the last byte of every
  record read in C (`Records.ends`). The floor reads these two bytes by NumPy's `take` from the
  same records in a mapped file, places known.
- *as Python objects*: a list of every record as bytes, hashmem and LMDB's `getmulti` alike, asked
  in batches of several sizes; each is quoted at its best.
- *one*: `store[digest]` beside LMDB's `get`, in a transaction open for all and in one for each.
- *verified*: `get_many(verify=True)` beside `digest_many` of the same contents, in memory already.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import hashmem
from bench import harness
from bench.harness import Result, Timed
from bench.store_contract import HashMem, PlainFile
from bench.store_data import Payloads, digests_of, payloads_of, picks, source_text, title
from bench.store_lmdb import Lmdb, LmdbMulti
from bench.store_race import WrongAnswer, fill

N, QUICK_N = 1_000_000, 600
SIZE = 512  # bytes of a record
BATCHES, QUICK_BATCHES = (1000, 100_000, 1_000_000), (100, 1000)
OBJECTS, QUICK_OBJECTS = 200_000, 400  # records read as Python objects
OBJECT_BATCHES = (100, 1000, 10_000, OBJECTS)
ONES, QUICK_ONES = 2000, 50  # records read one at a time, a round
VERIFIED = ((100, 200_000), (512, 200_000), (4096, 50_000), (65_536, 4000))  # bytes, records
ROUNDS, ONE_ROUNDS = 7, 25

MAPPED = "mapped file, NumPy take at known places"
RECORDS, ENDS = "hashmem, up to Records", "hashmem, Records and both ends"
VERIFY, BARE = "hashmem, get_many(verify=True)", "digest_many of contents in memory"
STORE_ONE = "hashmem, store[digest]"
OPEN_ONE, EACH_ONE = "lmdb, get in an open transaction", "lmdb, begin, get, abort"


def measure(result: Result, folder: Path, quick: bool) -> None:
    """Add all that is read, from stores made in `folder`."""
    n = QUICK_N if quick else N
    payloads = payloads_of(n, SIZE, source_text())
    digests = digests_of(payloads)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        ours, lmdb, file = (
            fill(make, Path(own), payloads) for make in (HashMem, LmdbMulti, PlainFile)
        )
        assert isinstance(ours, HashMem)
        assert isinstance(lmdb, LmdbMulti)
        _many(result, ours, file, payloads, digests, quick)
        _objects(result, ours, lmdb, digests, quick)
        _one(result, ours, lmdb, payloads, digests, quick)
        for contestant in (ours, lmdb, file):
            contestant.close()
    _verified(result, folder, quick)


# ------------------------------------------------------------------------------------------ many


def _many(
    result: Result, ours: HashMem, file: Any, payloads: Payloads, digests: np.ndarray, quick: bool
) -> None:
    n, table = len(payloads), f"get_many from {title(len(payloads), SIZE)}, random, warm"
    view = np.frombuffer(file.map, np.uint8)  # of the records in the order they were written
    for size in QUICK_BATCHES if quick else BATCHES:
        column = f"batches of {size:,} (ns a record)".replace(",", " ")
        batches = max(1, (QUICK_BATCHES if quick else BATCHES)[-1] // 10 // size)
        wanted = picks(batches * size, n, size).reshape(batches, size)
        asked = [digests[rows] for rows in wanted]
        starts = [rows.astype(np.int64) * SIZE for rows in wanted]
        _check_ends(ours, asked[0], [payloads[i] for i in wanted[0].tolist()])
        contestants = {RECORDS: _up_to_records(ours, asked)}
        if hasattr(hashmem.store.Records, "ends"):
            contestants[ENDS] = _with_ends(ours, asked)
        contestants[MAPPED] = _taken(view, starts)
        found = harness.race(
            {name: _again(call) for name, call in contestants.items()},
            2 if quick else ROUNDS,
        )
        for name, samples in found.items():
            kind = "floor" if name == MAPPED else "ours"
            per_record = [1e9 * s / (batches * size) for s in samples]
            result.add(table, column, name, kind, per_record)
        result.headline(
            f"get_many, {column.replace(' (ns a record)', '')}: Records and both ends (ns)",
            result.samples(table, column, ENDS),
            150,
        )
    del view


def _again(call: Timed) -> Callable[[int], Timed]:
    """Prepare the same call every round."""
    return lambda _: call


def _up_to_records(ours: HashMem, asked: list[np.ndarray]) -> Timed:
    def read() -> None:
        for digests in asked:
            ours.store.get_many(digests).close()

    return read


def _with_ends(ours: HashMem, asked: list[np.ndarray]) -> Timed:
    def read() -> None:
        for digests in asked:
            with ours.store.get_many(digests) as records:
                ends: Any = records
                ends.ends()

    return read


def _taken(view: np.ndarray, starts: list[np.ndarray]) -> Timed:
    def read() -> None:
        for places in starts:
            view.take(places), view.take(places + (SIZE - 1))

    return read


def _check_ends(ours: HashMem, asked: np.ndarray, expected: Payloads) -> None:
    with ours.store.get_many(asked) as records:
        ends: Any = getattr(records, "ends", None)
        if not records.found.all():
            raise WrongAnswer("hashmem does not find what was written")
        if ends is not None:
            right = np.array([[payload[0], payload[-1]] for payload in expected], np.uint8)
            if not np.array_equal(ends(), right):
                raise WrongAnswer("Records.ends: not the ends of what was written")


# --------------------------------------------------------------------------------------- objects


def _objects(
    result: Result, ours: HashMem, lmdb: LmdbMulti, digests: np.ndarray, quick: bool
) -> None:
    n = QUICK_OBJECTS if quick else OBJECTS
    wanted = digests[picks(n, len(digests), 2)]
    table, column = "Reading all as Python objects, by size of batch", "list of bytes (µs)"
    contestants: dict[str, Timed] = {}
    for size in (min(size, n) for size in OBJECT_BATCHES):
        text = f"{size:,}".replace(",", " ")
        contestants[f"hashmem, {text} a call"] = _listed(ours, wanted, size)
        contestants[f"lmdb getmulti, {text} a call"] = _multi(lmdb, wanted, size)
    first = next(iter(contestants.values()))()
    if any(call() != first for call in contestants.values()):
        raise WrongAnswer("hashmem and lmdb read different records")
    rounds = {name: _again(call) for name, call in contestants.items()}
    medians: dict[str, dict[str, float]] = {"ours": {}, "rival": {}}
    for name, samples in harness.race(rounds, 2 if quick else ROUNDS).items():
        kind = "ours" if name.startswith("hashmem") else "rival"
        per_record = [1e6 * s / n for s in samples]
        result.add(table, column, name, kind, per_record)
        medians[kind][name] = statistics.median(per_record)
    best = {kind: sorted(of, key=of.__getitem__)[0] for kind, of in medians.items()}
    result.ratio(
        f"all as Python objects: {best['rival']} / {best['ours']}",
        result.samples(table, column, best["rival"]),
        result.samples(table, column, best["ours"]),
        5,
        at_least=True,
    )


def _listed(ours: HashMem, wanted: np.ndarray, size: int) -> Timed:
    parts = [wanted[start : start + size] for start in range(0, len(wanted), size)]

    def read() -> list[bytes | None]:
        found: list[bytes | None] = []
        for part in parts:
            found += ours.store.get_many(part)
        return found

    return (lambda: list(ours.store.get_many(wanted))) if len(parts) == 1 else read


def _multi(lmdb: LmdbMulti, wanted: np.ndarray, size: int) -> Timed:
    reader = LmdbMulti(lmdb.folder)
    reader.environment, reader.keys_a_call = lmdb.environment, size
    return reader.all_bytes(wanted)


# ------------------------------------------------------------------------------------------- one


def _each(
    way: Callable[[np.ndarray], Timed], digests: np.ndarray, n: int
) -> Callable[[int], Timed]:
    """Prepare a way to read for n records, others each round."""
    return lambda number: way(digests[picks(n, len(digests), 3, number)])


def _one(
    result: Result,
    ours: HashMem,
    lmdb: Lmdb,
    payloads: Payloads,
    digests: np.ndarray,
    quick: bool,
) -> None:
    n, table, column = QUICK_ONES if quick else ONES, "One record at a time, warm", "get one (µs)"
    ways = {
        STORE_ONE: ours.one_by_one,
        OPEN_ONE: lmdb.one_by_one,
        EACH_ONE: lmdb.each_begun,
    }
    wanted = picks(n, len(digests), 3)
    expected = [payloads[i] for i in wanted.tolist()]
    for name, prepare in ways.items():
        if prepare(digests[wanted])() != expected:
            raise WrongAnswer(f"{name}: not what was written")
    found = harness.race(
        {name: _each(way, digests, n) for name, way in ways.items()},
        2 if quick else ONE_ROUNDS,
    )
    for name, samples in found.items():
        kind = "ours" if name == STORE_ONE else "rival"
        result.add(table, column, name, kind, [1e6 * s / n for s in samples])
    for name, target in ((OPEN_ONE, 1.5), (EACH_ONE, None)):
        result.ratio(f"get one: store[digest] / {name}", found[STORE_ONE], found[name], target)


# -------------------------------------------------------------------------------------- verified


def _verified(result: Result, folder: Path, quick: bool) -> None:
    table = "get_many, verified, beside the bare digests"
    text = source_text()
    for size, n in VERIFIED:
        n = 200 if quick else n
        payloads = payloads_of(n, size, text)
        digests = digests_of(payloads)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            ours = fill(HashMem, Path(own), payloads)
            assert isinstance(ours, HashMem)
            order = np.random.default_rng(harness.SEED).permutation(n)
            wanted, store = digests[order], ours.store
            contents = list(store.get_many(wanted))
            if contents != [payloads[i] for i in order.tolist()]:
                raise WrongAnswer("hashmem: not what was written")

            def verify(wanted: np.ndarray = wanted, store: Any = store) -> None:
                store.get_many(wanted, verify=True).close()

            def bare(contents: list[Any] = contents) -> np.ndarray:
                return hashmem.digest_many(contents)

            found = harness.race({VERIFY: lambda _: verify, BARE: lambda _: bare},
                                 2 if quick else ROUNDS)  # fmt: skip
            ours.close()
        for name, samples in found.items():
            kind = "ours" if name == VERIFY else "floor"
            result.add(table, f"{size} bytes (µs a record)", name, kind,
                       [1e6 * s / n for s in samples])  # fmt: skip
        what = f"get_many verified, {size} bytes: bare digests / ours (share of their speed)"
        result.ratio(what, found[BARE], found[VERIFY], 0.9, at_least=True)
