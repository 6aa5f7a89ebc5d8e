"""The demo: wall time and peak memory of `hashmem demo`, as a user runs it.

Memory is the sum over the command's process and all its children, read twenty times a second; the
highest sum is kept. The store goes to a temporary folder, as by default.
"""

import subprocess
import sys
import tempfile
import time

from bench import harness
from bench.harness import Result

ROUNDS = 5
INTERVAL = 0.05  # seconds between two looks at the memory
COMMAND = "from hashmem.cli import main; raise SystemExit(main())"
TABLE = OURS = "hashmem demo"


def family_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants, in bytes."""
    import psutil

    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:  # one ended between being listed and being looked at
        pass
    return total


def demonstrate(*arguments: str) -> tuple[float, int]:
    """Run `hashmem demo` once → (seconds, peak bytes of it and its children).

    Raises `RuntimeError` with what it said where it fails.
    """
    command = [sys.executable, "-P", "-c", COMMAND, "demo", *arguments]
    with tempfile.TemporaryFile() as said:
        start, peak = time.perf_counter(), 0
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while True:
            peak = max(peak, family_bytes(child.pid))
            try:
                child.wait(timeout=INTERVAL)
                break
            except subprocess.TimeoutExpired:
                continue
        elapsed = time.perf_counter() - start
        if child.returncode != 0:
            said.seek(0)
            message = said.read().decode(errors="replace")
            raise RuntimeError(f"hashmem demo ended with {child.returncode}:\n{message}")
    return elapsed, peak


def run(quick: bool = False) -> Result:
    """Run the demo some times; once where `quick`."""
    result = Result("demo", __doc__)
    found = [demonstrate() for _ in range(1 if quick else ROUNDS)]
    seconds = [elapsed for elapsed, _ in found]
    gigabytes = [peak / 1e9 for _, peak in found]
    result.add(TABLE, "wall time (s)", OURS, "ours", seconds)
    result.add(TABLE, "peak memory (GB)", OURS, "ours", gigabytes)
    result.headline("hashmem demo, wall time (s)", seconds, 30)
    result.headline("hashmem demo, peak memory (GB)", gigabytes, 1)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
