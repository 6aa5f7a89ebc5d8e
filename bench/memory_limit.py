"""The machine's own limits: random and sequential reads of memory, and the cost of an fsync.

No table can find faster than its array can be read at random, and no store can commit faster than
the disk confirms. Each sample is 4 Mi reads at uniformly random places. *Overlapped*: the addresses
do not depend on what was read, so the core keeps several reads in flight. *One in flight*: each
address is made from the value read before. A small C program, built on the spot, reads with and
without huge pages; NumPy reads with what the system gives it.

*Searches* read, for 2^20 random queries, the lines that a search in a table would: of an index and
of the entries behind it, as large as those of so many entries in open addressing. Lines that depend
on each other are prefetched as soon as they are known, with as many queries in flight as is fastest
(`bench/limits.c`); other benches hold tables against these reads.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench import harness
from bench.harness import Result
from bench.limits import Arrays

SIZES = (80_000_000, 250_000_000, 1_000_000_000)  # bytes
SAMPLES = 7
QUICK_SIZES = (1_000_000,)
QUICK_SAMPLES = 2
READS = 1 << 22  # random reads per sample in NumPy
COMMIT = 25_600_000  # bytes: 50 000 records of 512 B

MODES = {  # mode of memory_limit.c → what it reads
    "chain8": "8 bytes, one in flight",
    "random8": "8 bytes, overlapped",
    "chain64": "a 64-byte line, one in flight",
    "random64": "a 64-byte line, overlapped",
}
READING = "Random reads of memory (ns each)"
STREAMING = "Sequential reads of memory (ns per 64 bytes)"
SEARCHING = "Searches of memory (ns each)"
SEARCHED = 1 << 20  # searches per sample
ENTRIES, QUICK_ENTRIES = (1_000_000, 10_000_000), (1000,)
INDEX_BYTES = 64 / 12 / 0.8  # an entry: buckets of twelve, four fifths full
SYNCING = "Making writes durable (ms)"


def _size(size: int) -> str:
    return f"{size / 1e6:g} MB"


def _build(folder: Path) -> Path | None:
    """Compile the C program into `folder`, None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / "memory_limit"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-O3", "-o", program, source], check=True)
    return program


def _run(program: Path, mode: str, size: int, huge: bool, samples: int) -> list[float] | None:
    """Return the program's samples, None where the system refuses the kind of page."""
    command = [str(program), mode, str(size), str(int(huge)), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()] if done.returncode == 0 else None


def _in_c(result: Result, program: Path, sizes: tuple[int, ...], samples: int) -> None:
    for size in sizes:
        for huge in (False, True):
            pages = "huge pages" if huge else "small pages"
            for mode, what in MODES.items():
                found = _run(program, mode, size, huge, samples)
                if found:
                    result.add(READING, _size(size), f"C, {pages}: {what}", "floor", found)
            found = _run(program, "stream", size, huge, samples)
            if found:
                result.add(STREAMING, _size(size), f"C, {pages}: sum", "floor", found)


def _in_numpy(result: Result, size: int, samples: int) -> None:
    random = np.random.default_rng(harness.SEED)
    words = np.zeros(size // 64 * 8, dtype=np.int64)
    words += 1  # makes every page real
    lines = words.reshape(-1, 8)  # (n, 8): not aligned to cache lines, as NumPy gives it
    picks = random.integers(0, len(words), READS)
    line_picks = random.integers(0, len(lines), READS)
    out = np.empty(READS, dtype=np.int64)
    line_out = np.empty((READS, 8), dtype=np.int64)

    def per_read(found: list[float]) -> list[float]:
        return [1e9 * s / READS for s in found]

    # mode="clip": with the default, take() goes through a buffer where `out` is given
    found = harness.measure(lambda: np.take(words, picks, out=out, mode="clip"), samples)
    result.add(READING, _size(size), "NumPy take: 8 bytes", "floor", per_read(found))
    found = harness.measure(
        lambda: np.take(lines, line_picks, axis=0, out=line_out, mode="clip"), samples
    )
    result.add(READING, _size(size), "NumPy take: rows of 64 bytes", "floor", per_read(found))
    found = [1e9 * s / len(lines) for s in harness.measure(words.sum, samples)]
    result.add(STREAMING, _size(size), "NumPy sum", "floor", found)


def _searches(result: Result, entries: int, samples: int) -> None:
    """Read one, two and three lines of an index, and entries after buckets."""
    random = np.random.default_rng(harness.SEED)
    column = f"{entries:,} entries".replace(",", " ")
    for huge in (True, False):
        pages = "huge pages" if huge else "small pages"
        for width in (8, 16, 32):
            stride = 8 + width
            arrays = Arrays(int(entries * INDEX_BYTES), entries, stride, huge)
            shapes = {f"a line, then an entry of {stride} bytes": (1, 1, 1)}
            if width == 8:
                shapes |= {f"lines, independent: {n}": (n, 1, 0) for n in (1, 2, 3)}
            for what, (times, lines, entry) in shapes.items():
                picks = random.integers(0, entries, times * SEARCHED)
                found = harness.measure(arrays.touch(picks, lines, entry), samples)
                per_search = [1e9 * s / SEARCHED for s in found]
                result.add(SEARCHING, column, f"C, {pages}: {what}", "floor", per_search)
            arrays.close()


def _syncs(result: Result, folder: Path, samples: int) -> None:
    blob = os.urandom(COMMIT)
    path = folder / "synced"
    with open(path, "wb", buffering=0) as file:
        for size, what in ((4096, "4 KiB"), (COMMIT, _size(COMMIT))):

            def append(size: int = size) -> None:
                file.write(blob[:size])
                os.fsync(file.fileno())

            found = [1e3 * s for s in harness.measure(append, 3 * samples)]
            result.add(SYNCING, f"append {what}, fsync", "plain file", "floor", found)
    path.unlink()


def run(quick: bool = False, folder: Path | None = None) -> Result:
    """Measure memory and, in a temporary folder inside `folder`, the disk."""
    sizes, samples = (QUICK_SIZES, QUICK_SAMPLES) if quick else (SIZES, SAMPLES)
    result = Result("memory_limit", __doc__)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        result.machine = harness.machine(Path(temporary))
        program = _build(Path(temporary))
        if program is None:
            result.left_out["C"] = "no C compiler"
        else:
            _in_c(result, program, sizes, samples)
            for entries in QUICK_ENTRIES if quick else ENTRIES:
                _searches(result, entries, samples)
        for size in sizes:
            _in_numpy(result, size, samples)
        _syncs(result, Path(temporary), samples)
    return result


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    options = parser.parse_args()
    harness.finish(run(options.quick, options.folder), options)


if __name__ == "__main__":
    main()
