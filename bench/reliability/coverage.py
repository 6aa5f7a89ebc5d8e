"""What the fuzzer's inputs reach of the compiled kernels.

The kernels are compiled once more so that gcov counts how often each line runs, and blocks of the
campaign's first inputs are run on them. A line counts as reached where it ran at all, in whichever
of the files that include it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from bench.reliability import builds
from bench.reliability.inputs import BLOCK

NAME = "kernel_coverage"
BLOCKS = 100
QUICK_BLOCKS = 1


def measure(blocks: int) -> dict[str, dict[str, Any]]:
    """Run so many blocks. By source file: its lines that can run, and those that never did."""
    with tempfile.TemporaryDirectory() as built:
        folder = Path(built)
        builds.build(folder, builds.COUNTED)
        with tempfile.NamedTemporaryFile() as place:
            place.write(bytes(16))
            place.flush()
            arguments = (place.name, "0", str(blocks), "1", "")
            subprocess.run(
                [sys.executable, "-m", "bench.reliability.fuzz_worker", *arguments],
                cwd=folder,
                env=builds.environment(folder, False),
                stdout=subprocess.DEVNULL,
                check=True,
            )
        return _reached(folder / "hashmem" / "kernels")


def _reached(kernels: Path) -> dict[str, dict[str, Any]]:
    runs: dict[str, Counter[int]] = {}
    for counts in sorted(kernels.glob("*.gcda")):
        command = ["gcov", "--json-format", "--stdout", counts.name]
        said = subprocess.run(command, cwd=kernels, capture_output=True, text=True, check=True)
        for file in json.loads(said.stdout)["files"]:
            if not Path(file["file"]).is_absolute():  # not a header of the system or of Python
                lines = runs.setdefault(file["file"], Counter())
                for line in file["lines"]:
                    lines[line["line_number"]] += line["count"]
    return {
        file: {
            "lines": len(lines),
            "never ran": sorted(line for line, count in lines.items() if not count),
        }
        for file, lines in sorted(runs.items())
    }


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="one block; nothing is written")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    blocks = QUICK_BLOCKS if options.quick else BLOCKS
    files = measure(blocks)
    for name, file in files.items():
        missed = file["never ran"]
        print(f"{name}: {file['lines'] - len(missed)} of {file['lines']} lines; not {missed}")
    if options.quick:
        return
    result = {
        "name": NAME,
        "description": __doc__,
        "machine": machine(),
        "compiler": builds.compiler_version(),
        "inputs": blocks * BLOCK,
        "files": files,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (options.results / f"{NAME}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
