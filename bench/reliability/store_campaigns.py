"""What the campaigns on stores share: forked children, counts, and how they are shown.

A campaign is a row of cases that follow from their number. Each case, or a block of them, runs in a
child forked from a process that has imported everything, so a crash or a hang is one more outcome.
Counts are kept in `bench/results/`, and a campaign goes on behind the last case that is kept there.
"""

import argparse
import faulthandler
import gc
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from hashmem import kernels

SECONDS = 30.0  # that one child may take before it counts as hanging
EVERY = 60.0  # seconds between one writing of the counts and the next
MEMORY = 1 << 30  # bytes that one child may take beyond what it starts with
MOST_KEPT = 3  # failures of one kind written out; all are counted


@dataclass(frozen=True)
class Ended:
    """What a child told before it ended, and how it did."""

    told: list[Any]  # made of what JSON can say
    signal: int = 0
    code: int = 0  # 0 unless the job raised

    @property
    def what(self) -> str:
        """ "" for an orderly end, "hang", "crash (SIGBUS)" and the like otherwise."""
        if self.signal == signal.SIGALRM:
            return "hang"
        if self.signal:
            return f"crash ({signal.Signals(self.signal).name})"
        return f"exit {self.code}" if self.code else ""


def in_fork(
    job: Callable[[Callable[[Any], None]], None], seconds: float = SECONDS, memory: int = MEMORY
) -> Ended:
    """Run `job` in a forked child, held to so much more memory, and to so much time between one
    call of `tell`, which it is given, and the next.

    The alarm's default action ends the child wherever it is, in C too.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 3

        def tell(value: Any) -> None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            line = json.dumps(value).encode() + b"\n"
            while line:
                line = line[os.write(writing, line) :]

        try:
            os.close(reading)
            faulthandler.disable()  # a crash is an outcome here, and says nothing on the terminal
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            limit_memory(memory)
            job(tell)
            code = 0
        except BaseException:  # the parent is told by the exit code, and sees why
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as told_by:
        lines = told_by.read().split(b"\n")[:-1]
    _, status = os.waitpid(child, 0)
    told = [json.loads(line) for line in lines]
    if os.WIFSIGNALED(status):
        return Ended(told, signal=os.WTERMSIG(status))
    return Ended(told, code=os.waitstatus_to_exitcode(status))


def limit_memory(more: int) -> None:
    """Let this process take `more` bytes beyond what it has. Mapped files do not count."""
    if sys.platform != "linux":
        return
    has = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData:")
    )
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = has + more if hard == resource.RLIM_INFINITY else min(has + more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def side_by_side(
    job: Callable[[int, int], Any], numbers: Iterable[int], jobs: int
) -> Iterator[Any]:
    """Yield ``job(number, slot)`` for each of `numbers`, in order, `jobs` at a time.

    With several, each runs in a forked child and returns what JSON can say; no two that run at the
    same time have the same slot, from 0 to `jobs`.
    """
    if jobs == 1:
        for number in numbers:
            yield job(number, 0)
        return
    running: deque[tuple[int, int, int]] = deque()  # process, pipe, slot
    free, waiting = list(range(jobs)), iter(numbers)
    while True:
        while free:
            try:
                number = next(waiting)
            except StopIteration:
                break
            running.append(_started(job, number, free.pop()))
        if not running:
            return
        child, reading, slot = running.popleft()
        with open(reading, "rb") as told_by:
            told = told_by.read()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError("a part of the campaign ended without a result")
        free.append(slot)
        yield json.loads(told)


def _started(job: Callable[[int, int], Any], number: int, slot: int) -> tuple[int, int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.close(reading)
            with open(writing, "wb") as file:
                file.write(json.dumps(job(number, slot)).encode())
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(writing)
    return child, reading, slot


class Place:
    """Where a child is, for a parent that has to know after it died: memory that both share."""

    _PLACE = struct.Struct("<Q")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def set(self, number: int) -> None:
        self._PLACE.pack_into(self._memory, 0, number)

    def get(self) -> int:
        return int(self._PLACE.unpack_from(self._memory)[0])


def fewer(count: int) -> int:
    """So many cases for a test, or a tenth of them where the slow reference kernels serve."""
    return count if kernels.active == "native" else max(1, count // 10)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one, removed at the end."""
    shared = Path("/dev/shm")
    where = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="hashmem-", dir=where) as folder:
        yield Path(folder)


def copied(files: dict[str, bytes], folder: Path) -> None:
    """Make `folder` hold exactly `files`."""
    if folder.exists():
        shutil.rmtree(folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# ------------------------------------------------------------------------------------ counts


def add(counts: dict[str, Any], *names: str, by: int = 1) -> None:
    """Count under ``counts[names[0]][names[1]]…``."""
    for name in names[:-1]:
        counts = counts.setdefault(name, {})
    counts[names[-1]] = counts.get(names[-1], 0) + by


def options_for(description: str, cases: int, what: str) -> argparse.ArgumentParser:
    """The arguments that every campaign takes; `cases` by default, which are `what`."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=plain)
    parser.add_argument(f"--{what}", type=int, default=cases, dest="cases", help="in all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then")
    parser.add_argument("--seed", type=int, default=harness.SEED)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--fresh", action="store_true", help="do not go on from what is kept")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    return parser


def kept(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What an earlier part of the campaign left; what a new one starts with otherwise."""
    gc.collect()
    gc.freeze()  # children then leave the pages of these objects alone
    path = options.results / f"{name}.json"
    if path.exists() and not options.fresh:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["seed"] == options.seed:
            return found
    return {"name": name, "seed": options.seed, "cases": 0, "seconds": 0.0, "failures": []}


class Running:
    """A campaign while it runs: its counts are written every minute, and at the end of the block.

    with Running(found, __doc__, options) as running:
        while running.goes_on():
            ...
    """

    def __init__(
        self, found: dict[str, Any], description: str | None, options: argparse.Namespace
    ) -> None:
        self.found, self.options = found, options
        self.start = self.kept = time.monotonic()
        found |= {"description": description, "machine": machine()}

    @property
    def is_in_time(self) -> bool:
        return bool(time.monotonic() - self.start < self.options.seconds)

    def goes_on(self) -> bool:
        """Whether there are cases and time left. Writes the counts where it is time to."""
        if time.monotonic() - self.kept > EVERY:
            self.keep()
        return bool(self.found["cases"] < self.options.cases) and self.is_in_time

    def keep(self) -> None:
        now, found = time.monotonic(), self.found
        found["seconds"] = round(found["seconds"] + now - self.kept, 1)
        self.kept = now
        self.options.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        path = self.options.results / f"{found['name']}.json"
        new = path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exception: object) -> None:
        self.keep()


def show(found: dict[str, Any], shown: str) -> int:
    """Print the figures of a section of the page. Returns the exit status."""
    print(shown.partition("\n\n**")[2])
    return 1 if found["failures"] else 0


def fail(found: dict[str, Any], kind: str, **failure: Any) -> None:
    """Count a failure, and keep the first few of its kind in full."""
    found["failed"] = found.get("failed", 0) + 1
    if sum(one["kind"] == kind for one in found["failures"]) < MOST_KEPT:
        found["failures"].append({"kind": kind, **failure})


# ------------------------------------------------------------------------------------ the page


def number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def table(counts: dict[str, dict[str, int]], first: str, order: tuple[str, ...] = ()) -> str:
    """Counts of counts as a table: a line each, a column for whatever was counted."""
    seen = {name for line in counts.values() for name in line}
    columns = [name for name in order if name in seen] + sorted(seen - set(order))
    rows = [[first, *columns], ["---"] * (len(columns) + 1)]
    for name, line in counts.items():
        rows.append([name, *(number(line.get(column, 0)) for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def failures(found: dict[str, Any]) -> str:
    """The failures that were kept, a line each; "" where there are none."""
    lines = []
    for failure in found["failures"]:
        rest = (f"{name} {value}" for name, value in failure.items() if name != "kind" and value)
        lines.append(f"- {failure['kind']} ({', '.join(rest)})"[:400].replace("|", "\\|"))
    return "\n".join(lines)


def method(found: dict[str, Any]) -> str:
    """The docstring of what made the result, without its title."""
    return str(found["description"]).partition("\n")[2].strip()
