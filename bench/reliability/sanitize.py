"""The property tests, on kernels built with sanitizers.

The kernels are compiled with AddressSanitizer (accesses outside of allocations, use after free)
and UndefinedBehaviorSanitizer (overflow, misaligned access, shifts), each of which ends the process
with a report. Every test file that makes the kernels work runs on them in a process of its own,
with an allocation for each buffer. Leaks are not looked for: the interpreter's own would hide them.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from bench.reliability import builds

NAME = "sanitize"
SUBJECTS = (
    *("kernels", "tables", "hops", "digests", "summaries", "skips", "multimap", "frozen", "graphs"),
    *("xxh3", "memory", "retrieval", "text", "store", "backends", "testing", "bad_input"),
    *("reentry", "statistics", "collisions", "fuzz"),
)
QUICK_SUBJECTS = ("kernels",)
LIMIT = 600  # seconds a file
# Test → why it cannot run under a sanitizer.
LEFT_OUT: dict[str, str] = {}


def test_files(folder: Path, subjects: tuple[str, ...]) -> list[Path]:
    """The test files of `folder` whose name says that they are of one of the subjects."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        name = path.stem.removeprefix("test_")
        if any(name == subject or name.startswith(f"{subject}_") for subject in subjects):
            found.append(path)
    return found


def run_file(folder: Path, path: Path, reports: Path) -> dict[str, Any]:
    """Run one test file on the copy in `folder`. What pytest and the sanitizers said."""
    log = reports / path.stem
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    command += ["-W", "ignore::hypothesis.errors.HypothesisWarning"]
    for test in LEFT_OUT:
        command += ["--deselect", test]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=builds.environment(folder, True, log),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        said, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, code = f"{error.stdout!r}", 124
    counts = {
        outcome: sum(int(n) for n in re.findall(rf"(\d+) {outcome}", said.splitlines()[-1]))
        if said
        else 0
        for outcome in ("passed", "failed", "skipped", "error")
    }
    found = {
        "file": path.name,
        **counts,
        "exit": code,
        "reports": [file.read_text()[:4000] for file in sorted(reports.glob(f"{path.stem}.*"))],
        "seconds": round(time.monotonic() - start, 1),
    }
    if code:
        found["said"] = said[-4000:]
    return found


def run(subjects: tuple[str, ...]) -> list[dict[str, Any]]:
    """Build the sanitized kernels and run the tests of `subjects` on them."""
    found = []
    with tempfile.TemporaryDirectory() as built, tempfile.TemporaryDirectory() as reports:
        folder = Path(built)
        builds.build(folder, builds.SANITIZED)
        prove(folder, Path(reports) / "proof")
        for path in test_files(folder / "tests", subjects):
            result = run_file(folder, path, Path(reports))
            found.append(result)
            print(
                f"{result['file']}: {result['passed']} passed, {result['failed']} failed, "
                f"{len(result['reports'])} reports, {result['seconds']} s",
                flush=True,
            )
            for report in result["reports"]:
                print(report)
            if result["exit"]:
                print(result["said"])
    return found


def prove(folder: Path, log: Path) -> None:
    """Raise `RuntimeError` unless what runs in the copy are its own sanitized kernels."""
    program = (
        "from hashmem import kernels; from hashmem.kernels import _native; "
        "assert kernels.active == 'native'; print(_native.__file__); "
        "print('__asan_init' in open('/proc/self/maps').read() or 'libasan' in "
        "open('/proc/self/maps').read())"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=builds.environment(folder, True, log),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not said[0].startswith(str(folder.resolve())) or said[1] != "True":
        raise RuntimeError(f"other kernels than the sanitized ones would run: {said}")


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="the kernels' own tests; no result")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    found = run(QUICK_SUBJECTS if options.quick else SUBJECTS)
    result = {
        "name": NAME,
        "description": __doc__,
        "machine": machine(),
        "compiler": builds.compiler_version(),
        "flags": " ".join(builds.SANITIZED),
        "left_out": LEFT_OUT,
        "files": found,
    }
    if not options.quick:
        options.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        (options.results / f"{NAME}.json").write_text(text, encoding="utf-8")
    return 1 if any(file["exit"] or file["reports"] for file in found) else 0


if __name__ == "__main__":
    sys.exit(main())
