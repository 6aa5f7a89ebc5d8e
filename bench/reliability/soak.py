"""Mixed load from four processes on one store, for half an hour.

Two writers put batches of records of 50 to 8000 bytes with metadata, link them, delete their oldest
so that each keeps about 20 000, commit after each, and read; one of them compacts the store now and
then. Two readers refresh and read: batches, single digests, chains of links, metadata. Every
process knows from memory that all share which records must be there and which must not, and
compares every byte that it reads; a record that its writer deletes meanwhile may be there or not.

The run is cut in windows. Kept for each: resident memory of each process, memory of its own in that
(without what is mapped from files), the median and 99th percentile of each operation's time, and
the bytes of all files in the folder against what is live and what was deleted since the last
compaction: at most 1.3 times payloads and 48 bytes a record of both, and 4 MiB, or twice the first
while a compaction writes the next file. Flat means: the median over the windows of the last third
is at most so many times that of the first third: 1.1 of memory, 1.25 of median times, 1.5 of 99th
percentiles. The first tenth of the windows warms up and is left out.
"""

import argparse
import json
import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.machine import machine
from bench.reliability import forks
from hashmem import MemoryStore

NAME = "soak"
MINUTES = 30.0
QUICK_SECONDS = 5.0
SEED = 20_240_829
WRITERS, READERS = 2, 2
WINDOWS = 30
LIVE = 20_000  # records that each writer keeps, about
BATCH = 100
COMPACT_EVERY = 200  # batches of the first writer
RECORD = 48  # bytes a record may take beside its payload
LIMITS = {"memory": 1.1, "p50": 1.25, "p99": 1.5}  # last third to first third, at most
SPACE, SPACE_FIXED = 1.3, 4 << 20

# What is shared: for each writer, records below `low` may be gone, below `gone` are gone, below
# `high` are there. And bytes deleted since the last compaction, and whether one runs.
HIGH, LOW, GONE, LIVE_BYTES, DEAD_BYTES, DEAD = range(6)
COMPACTING = -1  # a last row: how many compactions began, twice, less one while one runs; …
FAILED = 1  # … and whether a process has failed, which ends the others

noise = random.Random(SEED).randbytes(1 << 20)


def payload(writer: int, number: int) -> bytes:
    """The content of a writer's record."""
    chance = (number * 2654435761 + writer * 40503) & 0xFFFFFFFF
    size = 50 + chance % 500 if chance % 10 else 50 + chance % 7950
    start = chance % ((1 << 20) - 8000)
    return b"%d %d " % (writer, number) + noise[start : start + size]


def batch(writer: int, start: int, stop: int) -> list[bytes]:
    return [payload(writer, number) for number in range(start, stop)]


class Wrong(Exception):
    """Something else was read than was written."""


class Process:
    """One of the processes: its handle, its clocks, and what it knows of the writers."""

    def __init__(self, path: Path, shared: np.ndarray, number: int, ends: float, window: float):
        self.path, self.shared, self.number = path, shared, number
        self.ends, self.window = ends, window
        self.chance = random.Random(f"{SEED}/{number}")
        self.store = MemoryStore(path)
        self.times: dict[str, list[float]] = {}
        self.windows: list[dict[str, Any]] = []
        self.reads = 0

    def timed(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        self.times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def run(self) -> dict[str, Any]:
        """Turn after turn until the end → the windows, and how many reads were compared."""
        start = time.monotonic()
        closes = start + self.window
        while time.monotonic() < self.ends and not self.shared[COMPACTING, FAILED]:
            self.turn()
            if time.monotonic() >= closes:
                self.close_window(closes - start)
                closes += self.window
        self.store.close()
        return {"windows": self.windows, "reads": self.reads}

    def turn(self) -> None:
        raise NotImplementedError

    def close_window(self, seconds: float) -> None:
        """Keep what this window showed, and begin the next."""
        own, all_of_it = memory()
        operations = {}
        for name, times in self.times.items():
            shown = np.percentile(times, [50, 99]) * 1e3
            operations[name] = {"n": len(times), "p50": float(shown[0]), "p99": float(shown[1])}
        self.windows.append(
            {"seconds": round(seconds, 1), "own": own, "resident": all_of_it, "times": operations}
        )
        if self.number == 0:
            self.windows[-1]["space"] = space(self.path, self.shared)
        self.times = {}

    # -- reading, and comparing ------------------------------------------------------------------

    def read(self) -> None:
        """Read something that one of the writers wrote, and compare."""
        writer = self.chance.randrange(WRITERS)
        high, low, end = (int(self.shared[writer, i]) for i in (HIGH, LOW, GONE))  # before it
        self.timed("refresh", self.store.refresh)
        if high - low < BATCH:
            return
        kind = self.chance.choice(["get_many", "get_many", "get", "hop", "metadata", "gone"])
        first = self.chance.randrange(low, high - 1)
        if kind == "get":
            numbers = [first]
        elif kind == "gone":
            numbers = [self.chance.randrange(max(0, end - 5000), end)] if end else []
        else:
            numbers = list(range(first, min(high, first + BATCH)))
        contents = [payload(writer, number) for number in numbers]
        digests = [self.store.digest(content) for content in contents]
        if kind == "get" and digests:
            found = [self.timed("get", lambda: self.store.get(digests[0]))]
        elif kind == "gone":
            found = [self.store.get(digest) for digest in digests]
            if any(content is not None for content in found):
                raise Wrong(f"record {numbers[0]} of writer {writer} is there after its deletion")
            return
        elif kind == "hop":
            self.follow(writer, numbers, digests)
            return
        elif kind == "metadata":
            told = self.timed("metadata", lambda: self.store.metadata_many(digests))
            found = [
                None if one is None else contents[i] if one == {"n": numbers[i]} else b"wrong"
                for i, one in enumerate(told)
            ]
        else:

            def get_many() -> list[bytes | None]:
                with self.store.get_many(digests) as records:
                    return list(records)

            found = self.timed("get_many", get_many)
        gone = int(self.shared[writer, LOW])  # after the read: what may have gone meanwhile
        for number, content, expected in zip(numbers, found, contents, strict=True):
            if content is None and number >= gone:
                raise Wrong(f"{kind}: record {number} of writer {writer} is missing")
            if content is not None and content != expected:
                raise Wrong(f"{kind}: record {number} of writer {writer} is another")
        self.reads += len(numbers)

    def follow(self, writer: int, numbers: list[int], digests: list[bytes]) -> None:
        """Each record of a writer is followed by its next one, within a batch."""
        ends, found = self.timed("hop", lambda: self.store.hop(digests, 1))
        gone = int(self.shared[writer, LOW])
        for i, number in enumerate(numbers[:-1]):
            if (number + 1) % BATCH == 0:
                continue  # the last one of its batch leads nowhere
            if found[i] and bytes(ends[i]) != digests[i + 1]:
                raise Wrong(f"record {number} of writer {writer} leads elsewhere")
            if not found[i] and number >= gone:
                raise Wrong(f"record {number} of writer {writer} leads nowhere")
        self.reads += len(numbers) - 1


class Reader(Process):
    def turn(self) -> None:
        self.read()


class Writer(Process):
    def turn(self) -> None:
        """Put a batch and link it, delete the oldest where there are too many; read; compact."""
        mine = self.shared[self.number]
        high = int(mine[HIGH])
        payloads = batch(self.number, high, high + BATCH)
        metadata = [{"n": high + i} for i in range(BATCH)]

        def put() -> None:
            digests = self.store.put_many(payloads, metadata)
            self.store.link_many(digests[:-1], digests[1:])
            self.store.commit()

        self.timed("put_many and commit", put)
        mine[LIVE_BYTES] += sum(map(len, payloads))
        mine[HIGH] = high + BATCH
        low = int(mine[LOW])
        if high + BATCH - low > LIVE:
            self.delete(low, low + BATCH)
        self.put_one()
        for _ in range(3):
            self.read()
        if self.number == 0 and (high // BATCH) % COMPACT_EVERY == COMPACT_EVERY - 1:
            self.compact()

    def delete(self, low: int, stop: int) -> None:
        mine = self.shared[self.number]
        payloads = batch(self.number, low, stop)
        digests = [self.store.digest(content) for content in payloads]
        mine[LOW] = stop

        def delete() -> None:
            removed = self.store.delete_many(digests)
            if not removed.all():
                raise Wrong(f"{(~removed).sum()} records of a batch were gone before")
            self.store.commit()

        self.timed("delete_many and commit", delete)
        mine[GONE] = stop
        size = sum(map(len, payloads))
        mine[LIVE_BYTES] -= size
        mine[DEAD_BYTES] += size
        mine[DEAD] += stop - low

    def put_one(self) -> None:
        """A commit of one record that is there already but for its metadata."""
        mine = self.shared[self.number]
        number = self.chance.randrange(int(mine[LOW]), int(mine[HIGH]))
        content = payload(self.number, number)

        def put() -> None:
            self.store.put(content, {"n": number})
            self.store.commit()

        self.timed("put and commit", put)

    def compact(self) -> None:
        self.shared[COMPACTING, 0] += 1
        before = self.shared[:WRITERS, [DEAD_BYTES, DEAD]].copy()
        self.timed("compact", self.store.compact)
        # What others deleted meanwhile may be in the new file: it is taken off the next time.
        self.shared[:WRITERS, [DEAD_BYTES, DEAD]] -= before
        self.shared[COMPACTING, 0] += 1


def memory() -> tuple[int, int]:
    """This process's own resident bytes, and all of its resident bytes."""
    own = whole = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            own = int(value.split()[0]) * 1024
        elif name == "VmRSS":
            whole = int(value.split()[0]) * 1024
    return own, whole


def space(path: Path, shared: np.ndarray) -> dict[str, int]:
    """The bytes of all files of a store, and the bound that they must keep to."""
    before = int(shared[COMPACTING, 0])
    held = [entry.stat().st_size for entry in os.scandir(path) if not entry.name.endswith("-lock")]
    live_bytes, dead_bytes, dead = (
        int(shared[:WRITERS, i].sum()) for i in (LIVE_BYTES, DEAD_BYTES, DEAD)
    )
    live = int((shared[:WRITERS, HIGH] - shared[:WRITERS, GONE]).sum())
    needed = live_bytes + dead_bytes + RECORD * (live + dead)
    compacting = before % 2 or before != int(shared[COMPACTING, 0])
    bound = int(SPACE * needed) * (2 if compacting else 1) + SPACE_FIXED
    return {"files": sum(held), "live": live_bytes, "dead": dead_bytes, "bound": bound}


def run(seconds: float, folder: Path, windows: int = WINDOWS) -> dict[str, Any]:
    """Let the processes work on a store in `folder` for so long → what they found.

    Raises `RuntimeError` where one of them read what it should not, or died.
    """
    forks.prepare()
    path = folder / "store"
    MemoryStore(path).close()
    size = (WRITERS + 1) * 6 * 8
    shared = np.frombuffer(mmap.mmap(-1, size), np.int64).reshape(WRITERS + 1, 6)
    ends = time.monotonic() + seconds
    children = []
    for number in range(WRITERS + READERS):

        def work(pipe: int, number: int = number) -> None:
            kind = Writer if number < WRITERS else Reader
            try:
                text = json.dumps(
                    kind(path, shared, number, ends, seconds / windows).run()
                ).encode()
            except BaseException:
                shared[COMPACTING, FAILED] = 1
                raise
            while text:
                text = text[os.write(pipe, text) :]

        children.append(forks.fork(work, limit=int(seconds) + 120))
    said = [forks.read_all(pipe) for _, pipe in children]
    codes = [os.waitpid(child, 0)[1] for child, _ in children]
    for code, text in zip(codes, said, strict=True):
        if code:
            raise RuntimeError(f"a process ended with {code}: {text.decode()[-3000:]}")
    with MemoryStore(path) as store:
        verification = store.verify()
        if not verification.ok:
            raise RuntimeError(f"verify(): {verification.damage[:5]}")
        before = space(path, shared)
        store.compact()
        after = space(path, shared)
    processes = [json.loads(text) for text in said]
    return {
        "seconds": seconds,
        "reads": sum(process["reads"] for process in processes),
        "processes": [process["windows"] for process in processes],
        "records": int((shared[:WRITERS, HIGH] - shared[:WRITERS, GONE]).sum()),
        "written": int(shared[:WRITERS, HIGH].sum()),
        "compactions": int(shared[COMPACTING, 0]) // 2,
        "at the end": before,
        "compacted": after,
    }


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The figures: first and last third of each series, their ratio, and whether it is flat."""
    rows: dict[str, dict[str, Any]] = {}

    def compare(what: str, limit: float, series: list[float]) -> None:
        kept = series[len(series) // 10 :]
        third = max(1, len(kept) // 3)
        first, last = (statistics.median(part) for part in (kept[:third], kept[-third:]))
        ratio = last / first
        rows[what] = {"first": first, "last": last, "ratio": ratio, "flat": ratio <= limit}

    for number, windows in enumerate(found["processes"]):
        kind = "writer" if number < WRITERS else "reader"
        own = [window["own"] / 2**20 for window in windows]
        compare(f"memory of {kind} {number + 1} (MiB)", LIMITS["memory"], own)
    names = {name for windows in found["processes"] for one in windows for name in one["times"]}
    for name in sorted(names):
        for figure in ("p50", "p99"):
            series = []
            for together in zip(*found["processes"], strict=False):
                shown = [one["times"][name][figure] for one in together if name in one["times"]]
                if shown:
                    series.append(statistics.median(shown))
            compare(f"{name}, {figure} (ms)", LIMITS[figure], series)
    spaces = [window["space"] for window in found["processes"][0]]
    bounded = all(one["files"] <= one["bound"] for one in [*spaces, found["at the end"]])
    return {"rows": rows, "bounded": bounded, "flat": all(row["flat"] for row in rows.values())}


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--folder", type=Path, help="where the store is made (default: temporary)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} seconds; no result")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    seconds = QUICK_SECONDS if options.quick else options.minutes * 60
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = run(seconds, Path(folder), 5 if options.quick else WINDOWS)
    verdict = judged(found)
    for what, row in verdict["rows"].items():
        print(f"{what}: {row['first']:.3f}, {row['last']:.3f}, {row['ratio']:.2f} times")
    print(f"{found['reads']} reads compared, {found['written']} records, {found['at the end']}")
    if not options.quick:
        options.results.mkdir(parents=True, exist_ok=True)
        whole = {"name": NAME, "description": __doc__, **found, **verdict, "machine": machine()}
        text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        (options.results / f"{NAME}.json").write_text(text, encoding="utf-8")
    return 0 if verdict["bounded"] and verdict["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
