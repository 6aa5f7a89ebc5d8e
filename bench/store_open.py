"""Opening a large store in processes that did nothing else: time, and memory that is their own.

Everything is imported before the clock starts and before memory is first looked at. The store's
files were written or read a moment ago, so they lie in the system's memory.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import hashmem
from bench import harness
from bench.harness import Result

LIMIT = 120  # seconds a process is waited for


def _shared_bytes() -> int:
    """Return this process's memory, pages that n processes share counted as an nth; 0 if unknown.

    (Linux: "proportional set size", Pss.)
    """
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
    return int(found[0]) * 1024 if found else 0


def _imported() -> None:
    """Import all that a store on disk needs, by using one that is thrown away."""
    import tempfile

    with (
        tempfile.TemporaryDirectory() as folder,
        hashmem.MemoryStore(f"{folder}/small.hashmem") as small,
    ):
        digest = small.put(b"something")
        small.commit()
        small[digest]


def _opener(path: str, digest: bytes, pipe: Connection) -> None:
    _imported()
    resident, shared = harness.resident_bytes(), _shared_bytes()
    start = time.perf_counter()
    store = hashmem.MemoryStore(path, readonly=True)
    opened = time.perf_counter() - start
    pipe.send("open")
    pipe.recv()  # until the other one is open, too
    found = {
        "open": opened,
        "resident": harness.resident_bytes() - resident,
        "shared": _shared_bytes() - shared,
    }
    pipe.send("looked")
    pipe.recv()  # until the other one has looked, too
    start = time.perf_counter()
    record = store[digest]
    found["first get"] = time.perf_counter() - start
    pipe.send((found, record))
    store.close()


def opened(path: str, digest: bytes, processes: int) -> list[tuple[dict[str, float], bytes]]:
    """Open the store at `path` in fresh processes at once → per process, figures and the record.

    Figures: seconds to open, seconds of the first get, and the growth of resident memory, whole
    and with shared pages divided, in bytes.
    """
    context = multiprocessing.get_context("spawn")
    pipes, running = [], []
    try:
        for _ in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=_opener, args=(path, digest, there))
            process.start()
            there.close()
            pipes.append(here)
            running.append(process)

        def hear(pipe: Connection) -> object:
            if not pipe.poll(LIMIT):
                raise TimeoutError(f"a process did not open the store within {LIMIT} s")
            return pipe.recv()

        for _ in ("open", "looked"):
            for pipe in pipes:
                hear(pipe)
            for pipe in pipes:
                pipe.send("go on")
        return [hear(pipe) for pipe in pipes]  # type: ignore[misc]
    finally:
        for process in running:
            process.join(LIMIT)
            if process.is_alive():
                process.kill()


def measure(
    result: Result, title: str, path: str, digest: bytes, payload: bytes, rounds: int
) -> None:
    """Add a table of opening the store at `path`, and its headlines. Closed stores only."""
    alone = [opened(path, digest, 1)[0] for _ in range(rounds)]
    pairs = [opened(path, digest, 2) for _ in range(rounds)]
    if any(record != payload for _, record in [*alone, *(one for pair in pairs for one in pair)]):
        raise RuntimeError("a process that opened the store read another record")
    table, name = f"{title}: a fresh process opens them", "hashmem MemoryStore"
    single = [figures for figures, _ in alone]
    both = [figures for pair in pairs for figures, _ in pair]
    cells = {
        "open (ms)": [1e3 * f["open"] for f in single],
        "first get after it (ms)": [1e3 * f["first get"] for f in single],
        "memory gained (MB)": [f["resident"] / 1e6 for f in single],
        "two at once, memory gained (MB)": [f["resident"] / 1e6 for f in both],
        "two at once, shared pages halved (MB)": [f["shared"] / 1e6 for f in both],
    }
    for column, samples in cells.items():
        result.add(table, column, name, "ours", [max(s, 1e-3) for s in samples])
    result.headline(f"{title}: open (ms)", cells["open (ms)"], 100)
    result.headline(
        f"{title}: open and first get (ms)",
        [1e3 * (f["open"] + f["first get"]) for f in single],
        100,
    )
    result.headline(
        f"{title}: memory of a process that opened them and touched nothing (MB)",
        cells["memory gained (MB)"],
        100,
    )
    result.headline(
        f"{title}: the same, of each of two at once, shared pages halved (MB)",
        cells["two at once, shared pages halved (MB)"],
        100,
    )
