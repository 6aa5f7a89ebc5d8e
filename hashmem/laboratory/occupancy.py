"""Experiment: how evenly digests fill buckets, by their own bits and through the keyed hash."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.laboratory.experiment import Experiment, Row, Sizes, told
from hashmem.laboratory.filling import SEED, digests_of, filled, numbered
from hashmem.tables import ChainingTable
from hashmem.tables.fit import expected_occupancy, goodness_of_fit, occupancy

__all__ = ["DIGESTS", "measure"]

NAME = "occupancy"
TITLE = "Bucket occupancy by digest algorithm"
METHOD = """\
As many digests as buckets. *Unmixed*, a digest's own low bits name its bucket, as an unseeded table
has it; *mixed*, `ChainingTable` does by its keyed hash, under a fixed seed. Numbers are digested by
SHA-256, XXH3 of 128 and 64 bits; beside them the number itself, the number times 4096, as addresses
of pages are, and Java's hash of its decimal digits, kept to 64 bits, which is weak in its low bits.
Chi-square holds the buckets with 0, 1, 2, … digests against Poisson, the mean being given. In the
data buckets with 12 digests or more share a row."""

Counts = NDArray[np.int64]
Expected = NDArray[np.float64]

MOST = 12  # digests a bucket that rows tell apart; the last row has all beyond


def _java(n: int) -> Digests:
    """The sum of 31^i times the i-th digit of each number, as 8 bytes little-endian: distinct."""
    texts = np.arange(n)
    value = np.zeros(n, np.uint64)
    for place in range(len(str(max(n - 1, 1))) - 1, -1, -1):
        digit = (texts // 10**place % 10 + ord("0")).astype(np.uint64)
        value = value * np.uint64(31) + digit
    return value.astype("<u8").view(np.uint8).reshape(n, 8)


def _paged(n: int) -> Digests:
    return (np.arange(n, dtype="<u8") * np.uint64(4096)).view(np.uint8).reshape(n, 8)


DIGESTS: dict[str, Callable[[int], Digests]] = {
    "sha256": lambda n: digests_of(n, "sha256"),
    "xxh3_128": lambda n: digests_of(n, "xxh3_128"),
    "xxh3_64": lambda n: digests_of(n, "xxh3_64"),
    "the number": numbered,
    "the number × 4096": _paged,
    "Java's string hash": _java,
}


def measure(sizes: Sizes) -> Experiment:
    """Count the occupancy of as many buckets as digests for each algorithm, mixed and unmixed."""
    n = sizes.occupied
    expected = expected_occupancy(n, n)
    rows, summary = [], []
    for name, make in DIGESTS.items():
        digests = make(n)
        low = digests.view("<u8")[:, 0] % np.uint64(n)
        unmixed = np.bincount(np.bincount(low.astype(np.int64), minlength=n))
        mixed = occupancy(filled(ChainingTable, digests, 1.0, SEED))
        for way, observed in (("unmixed", unmixed), ("mixed", mixed)):
            row = {"digest": name, "bucket by": way}
            rows += [{**row, **cell} for cell in _cells(observed, expected)]
            fit = goodness_of_fit(observed, expected, fitted=1)
            empty, fullest = observed[0] / n, len(observed) - 1
            summary.append({**row, "empty": float(empty), "fullest": fullest, **told(fit)})
    return Experiment(NAME, TITLE, METHOD, _reading(summary), rows, summary)


def _cells(observed: Counts, expected: Expected) -> list[Row]:
    def cells(counts: Counts | Expected) -> list[float]:
        padded = np.pad(counts, (0, max(0, MOST + 1 - len(counts))))
        return [*padded[:MOST].tolist(), padded[MOST:].sum().item()]

    pairs = zip(cells(observed), cells(expected), strict=True)
    ends = [*range(MOST), max(MOST, len(observed) - 1)]
    return [
        {"digests from": k, "to": end, "observed": seen, "expected": float(due)}
        for k, (end, (seen, due)) in enumerate(zip(ends, pairs, strict=True))
    ]


def _reading(summary: list[Row]) -> str:
    def names(way: str, fits: bool) -> str:
        found = [r["digest"] for r in summary if r["bucket by"] == way and r["fits"] is fits]
        return ", ".join(found) or "none"

    worst = max((r for r in summary if r["bucket by"] == "unmixed"), key=lambda r: r["fullest"])
    mixed = max(r["fullest"] for r in summary if r["bucket by"] == "mixed")
    return (
        f"By their own low bits these fit Poisson: {names('unmixed', True)}; these do not: "
        f"{names('unmixed', False)}. Through the keyed hash these fit: {names('mixed', True)}; "
        f"these do not: {names('mixed', False)}. The fullest bucket of all holds "
        f"{worst['fullest']} digests unmixed ({worst['digest']}) and {mixed} mixed. Numbers in a "
        f"row fill buckets more evenly than chance (a share of {math.exp(-1):.3f} would be empty), "
        "which is no virtue to rely on: whoever chooses the numbers chooses the buckets."
    )
