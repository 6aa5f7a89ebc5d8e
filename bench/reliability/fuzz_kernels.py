"""Fuzzing of the compiled kernels.

Every kernel is called with generated arguments: valid ones, ones with garbage in their buffers, and
ones that are wrong. Bytes beside each buffer are watched, and a sample of the answers is compared
with the reference kernels (`bench/reliability/inputs.py`). Inputs come in blocks that follow from
their number, and run in child processes: a crash, an input that does not end and a wrong answer are
kept with block and place, from which `--replay BLOCK PLACE` makes the input again.

There is no coverage guiding the inputs: the tools for that (libFuzzer, Atheris) need kernels that
clang has instrumented. What the inputs reach of the kernels' lines is counted afterwards
(`bench.reliability.coverage`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from bench.reliability import builds
from bench.reliability.fuzz_worker import PLACE
from bench.reliability.inputs import BLOCK, Block

NAME = "fuzz_kernels"
INPUTS = 10_000_000
QUICK_INPUTS = 20_000
STALLED = 60  # seconds that one input may take
MOST_FAILURES = 20
ALL = ("",)  # kernels, by the beginnings of their names
OUTCOMES = ("inputs", "answered", "refused", "compared")


class Worker:
    """A child process that runs every `step`-th block from `first` on, and what it has found."""

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        step: int,
        only: tuple[str, ...] = ALL,
    ) -> None:
        self.environment, self.folder, self.step, self.only = environment, folder, step, only
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self.next_block = 0

    def run(self, first: int, last: int, deadline: float) -> None:
        """Run blocks until `last` or the deadline; where the child dies, go on behind its block."""
        self.next_block = first
        while self.next_block < last and time.monotonic() < deadline:
            if len(self.failures) >= MOST_FAILURES:
                return
            self._child(last, deadline)

    def _child(self, last: int, deadline: float) -> None:
        with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryFile("w+") as complaints:
            file.write(PLACE.pack(self.next_block, 0))
            file.flush()
            numbers = (str(self.next_block), str(last), str(self.step), *self.only)
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.reliability.fuzz_worker", file.name, *numbers],
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                cwd=self.folder,
                env=self.environment,
            )
            watch = _Watch(child, Path(file.name), deadline)
            assert child.stdout is not None
            for line in child.stdout:
                self._take(json.loads(line))
                if len(self.failures) >= MOST_FAILURES:
                    child.kill()
            child.wait()
            watch.end()
            if child.returncode == 0 or watch.out_of_time:
                return
            block, place = PLACE.unpack(Path(file.name).read_bytes())
            complaints.seek(0)
            what = "did not end" if watch.stalled else f"ended with {child.returncode}"
            self.failures.append(
                {"block": block, "place": place, "what": what, "said": complaints.read()[-3000:]}
            )
            self.next_block = block + self.step

    def _take(self, line: dict[str, Any]) -> None:
        self.counts.update(line["counts"])
        self.next_block = line["block"] + self.step
        if "failure" in line:
            self.failures.append({"block": line["block"], "what": line["failure"]})


class _Watch(threading.Thread):
    """Ends a child whose input does not end, or when time is up."""

    def __init__(self, child: "subprocess.Popen[str]", place: Path, deadline: float) -> None:
        super().__init__(daemon=True)
        self.child, self.place, self.deadline = child, place, deadline
        self.stalled = self.out_of_time = False
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        before, since = b"", time.monotonic()
        while not self._over.wait(0.25):
            now = self.place.read_bytes()
            if now != before:
                before, since = now, time.monotonic()
            self.stalled = time.monotonic() - since > STALLED
            self.out_of_time = time.monotonic() > self.deadline
            if self.stalled or self.out_of_time:
                self.child.kill()
                return

    def end(self) -> None:
        self._over.set()
        self.join()


def campaign(
    inputs: int,
    seconds: float,
    first: int = 0,
    workers: int = 1,
    sanitized: bool = False,
    only: tuple[str, ...] = ALL,
) -> dict[str, Any]:
    """Run blocks of at least `inputs` inputs, or for so long. What came of them, by kernel."""
    with tempfile.TemporaryDirectory() as built:
        folder = harness.ROOT
        if sanitized:
            folder = Path(built)
            builds.build(folder, builds.SANITIZED)
        environment = builds.environment(folder, sanitized)
        start = time.monotonic()
        last = first + -(-inputs // BLOCK)
        running = [Worker(environment, folder, workers, only) for _ in range(workers)]
        threads = [
            threading.Thread(target=worker.run, args=(first + place, last, start + seconds))
            for place, worker in enumerate(running)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts: Counter[str] = sum((worker.counts for worker in running), Counter())
    kernels = sorted({name.split()[0] for name in counts})
    return {
        "blocks": [first, min(last, max(worker.next_block for worker in running))],
        "inputs": sum(counts[f"{kernel} inputs"] for kernel in kernels),
        "seconds": round(time.monotonic() - start, 1),
        "failures": [failure for worker in running for failure in worker.failures],
        "kernels": {
            kernel: {outcome: counts[f"{kernel} {outcome}"] for outcome in OUTCOMES}
            for kernel in kernels
        },
    }


def joined(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """One part of a campaign and the next as one."""
    kernels = {
        kernel: dict(
            Counter(before["kernels"].get(kernel, {})) + Counter(after["kernels"].get(kernel, {}))
        )
        for kernel in sorted({*before["kernels"], *after["kernels"]})
    }
    return {
        "blocks": [before["blocks"][0], after["blocks"][1]],
        "inputs": before["inputs"] + after["inputs"],
        "seconds": round(before["seconds"] + after["seconds"], 1),
        "failures": before["failures"] + after["failures"],
        "kernels": {
            kernel: {outcome: found.get(outcome, 0) for outcome in OUTCOMES}
            for kernel, found in kernels.items()
        },
    }


def replay(number: int, place: int, only: tuple[str, ...]) -> None:
    """Make one input again, say what it is, and call the kernel with it."""
    from hashmem.kernels import _native

    def shown(at: int, call: Any, lies: list[str]) -> None:
        if at != place:
            return
        print(f"{call.kernel} ({'; '.join(lies) or 'valid'})")
        for argument in call.arguments:
            content = argument.hex() if isinstance(argument, memoryview) else repr(argument)
            print(f"  {content}", flush=True)

    separate = builds.is_sanitized()
    Block(number, _native, separate=separate, shown=shown, only=only).run(place + 1, place)


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then")
    parser.add_argument("--workers", type=int, default=1, help="child processes side by side")
    parser.add_argument("--sanitized", action="store_true", help="on kernels built with sanitizers")
    parser.add_argument(
        "--only", nargs="+", default=ALL, help="kernels whose names begin so, as on a replay"
    )
    parser.add_argument("--resume", action="store_true", help="add to what the results hold")
    parser.add_argument("--quick", action="store_true", help="few inputs; nothing is written")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    parser.add_argument("--replay", type=int, nargs=2, metavar=("BLOCK", "PLACE"))
    options = parser.parse_args()
    if options.replay:
        replay(*options.replay, tuple(options.only))
        return 0

    path = options.results / f"{NAME}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    build = "sanitized" if options.sanitized else "ordinary"
    before = kept.get(build) if options.resume else None
    inputs = QUICK_INPUTS if options.quick else options.inputs - (before["inputs"] if before else 0)
    first = before["blocks"][1] if before else 0
    found = campaign(
        inputs, options.seconds, first, options.workers, options.sanitized, tuple(options.only)
    )
    if before:
        found = joined(before, found)
    for kernel, outcomes in found["kernels"].items():
        print(kernel, *(f"{count} {outcome}" for outcome, count in outcomes.items()))
    print(f"{found['inputs']} inputs, {found['inputs'] / found['seconds']:.0f} a second, {build}")
    for failure in found["failures"]:
        print(json.dumps(failure, indent=1).replace("\\n", "\n"))
    if not options.quick:
        kept |= {"name": NAME, "description": __doc__, "machine": machine(), build: found}
        kept["compiler"] = builds.compiler_version()
        options.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
