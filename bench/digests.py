"""Digests: many at once, beside a call an item and beside what the CPU gives.

Items of one size, up to 16 MiB or 100 000 of them, as a list of bytes and as the rows of an array.
What is timed is the whole call. The floors are loops in C, built on the spot for this very CPU,
over the addresses of the same items; like `digest_many` they write to an array made for the call,
whose pages the system has to give.

- **C, one message at a time**: SHA-256 by the CPU's instructions, what they give to a plain loop.
- **C, two side by side**: the same, with the instructions of two messages in turn.
- **C, xxhash.h**: XXH3 by its author's header.
"""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bench import harness
from bench.harness import Result, Timed
from hashmem import digest_many
from hashmem.digests import WIDTHS

SIZES = (16, 64, 256, 1 << 10, 4 << 10, 64 << 10)  # bytes
MOST_BYTES, MOST_ITEMS, ROUNDS = 16 << 20, 100_000, 15
QUICK_BYTES, QUICK_ROUNDS = 1 << 17, 2

OURS = "digest_many"
SINGLE, PAIRED, HEADER = "C, one message at a time", "C, two side by side", "C, xxhash.h"
RIVALS: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "sha256": ("hashlib, a call an item", lambda item: hashlib.sha256(item).digest()),
    "xxh3_64": ("xxhash, a call an item", xxhash.xxh3_64_digest),
    "xxh3_128": ("xxhash, a call an item", xxhash.xxh3_128_digest),
}
FLOORS = {  # algorithm → name → function of digests.c
    "sha256": {SINGLE: "sha256_single", PAIRED: "sha256_paired"},
    "xxh3_64": {HEADER: "xxh3_64"},
    "xxh3_128": {HEADER: "xxh3_128"},
}
BYTES_HEADER = bytes.__basicsize__ - 1  # where CPython keeps the first byte of bytes


def build(folder: Path) -> ctypes.CDLL | None:
    """Compile and load the loops in C, None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "digests.so"
    source = Path(__file__).with_suffix(".c")
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def floors(
    library: ctypes.CDLL | None, algorithm: str, result: Result
) -> Iterator[tuple[str, Any]]:
    """Yield the loops in C for an algorithm; tell the result of those that are not there."""
    for name, function in FLOORS[algorithm].items():
        if library is None:
            result.left_out[name] = "no C compiler"
        elif not hasattr(library, function):
            lack = "no xxhash.h" if name == HEADER else "this CPU has no SHA instructions"
            result.left_out[name] = lack
        else:
            yield name, getattr(library, function)


def in_c(function: Any, addresses: np.ndarray, size: int, width: int) -> Timed:
    """The call that digests what lies at the addresses, which it keeps."""

    def call() -> np.ndarray:
        out = np.empty((len(addresses), width), np.uint8)
        function(
            ctypes.c_void_p(addresses.ctypes.data),
            ctypes.c_uint64(size),
            ctypes.c_uint64(len(addresses)),
            ctypes.c_void_p(out.ctypes.data),
        )
        return out

    return call


def one_by_one(one: Callable[[Any], bytes], items: list[bytes]) -> list[bytes]:
    return [one(item) for item in items]


def contestants(
    result: Result, library: ctypes.CDLL | None, algorithm: str, rows: np.ndarray
) -> dict[tuple[str, str], Timed]:
    """Return the call to time by (column's kind, contestant): all digest the same items."""
    listed = [row.tobytes() for row in rows]
    rival, one = RIVALS[algorithm]
    calls: dict[tuple[str, str], Timed] = {
        ("list", OURS): partial(digest_many, listed, algorithm),
        ("array", OURS): partial(digest_many, rows, algorithm),
        ("list", rival): partial(one_by_one, one, listed),
    }
    addresses = {
        "list": np.array([id(item) for item in listed], np.uint64) + np.uint64(BYTES_HEADER),
        "array": rows.ctypes.data + np.arange(len(rows), dtype=np.uint64) * rows.shape[1],
    }
    for name, function in floors(library, algorithm, result):
        for kind, places in addresses.items():
            calls[kind, name] = in_c(function, places, rows.shape[1], WIDTHS[algorithm])
    return calls


def _size(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB"


def _race(
    result: Result, library: ctypes.CDLL | None, algorithm: str, rows: np.ndarray, rounds: int
) -> None:
    n, size = rows.shape
    calls = contestants(result, library, algorithm, rows)
    for call in calls.values():
        call()
    found = harness.race({f"{a}|{b}": lambda _, c=c: c for (a, b), c in calls.items()}, rounds)
    for kind, contestant in calls:
        ours, floor = contestant == OURS, contestant in FLOORS[algorithm]
        result.add(
            f"{algorithm}, {_size(size)}",
            f"{kind} (ns an item)",
            contestant,
            "ours" if ours else "floor" if floor else "rival",
            [1e9 * s / n for s in found[f"{kind}|{contestant}"]],
        )
    what = f"{algorithm}, {_size(size)}"
    for kind in ("list", "array"):
        ours = found[f"{kind}|{OURS}"]
        single, paired, header = (found.get(f"{kind}|{c}") for c in (SINGLE, PAIRED, HEADER))
        result.ratio(f"{what}, {kind}: speed of the SHA instructions", single, ours, 0.9, True)
        result.ratio(f"{what}, {kind}: speed of two messages side by side", paired, ours)
        result.ratio(f"{what}, {kind}: time to a loop in C", ours, header, 1.3)
    rival = RIVALS[algorithm][0]
    result.ratio(f"{what}, list: {rival} / ours", found[f"list|{rival}"], found[f"list|{OURS}"])


def run(quick: bool = False) -> Result:
    """Race the algorithms at every size."""
    result = Result("digests", __doc__)
    most, rounds = (QUICK_BYTES, QUICK_ROUNDS) if quick else (MOST_BYTES, ROUNDS)
    random = np.random.default_rng(harness.SEED)
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        for algorithm in WIDTHS:
            for size in SIZES:
                shape = (min(MOST_ITEMS, most // size), size)  # an even number of items
                rows = random.integers(0, 256, shape, np.uint8)
                _race(result, library, algorithm, rows, rounds)
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
