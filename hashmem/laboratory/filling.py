"""Tables and digests made to measure, for all experiments."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import WIDTHS, Digests, digest_many
from hashmem.tables import ChainingTable, DigestTable, OpenAddressingTable

__all__ = ["KINDS", "SEED", "digests_of", "empty", "filled", "numbered"]

SEED = 20_240_829
KINDS: tuple[type[DigestTable], ...] = (OpenAddressingTable, ChainingTable)
BLOCK = 1 << 20  # contents at a time
BATCHES = 128  # that fill a table


def empty(
    kind: type[DigestTable], entries: int, load: float, seed: int | None, width: int = 8
) -> DigestTable:
    """Return a table for digests of `width` bytes that `entries` fill up to `load`.

    Raises `ValueError` where this kind of table cannot be as full.
    """
    return kind(width=width, seed=seed, max_load=load, capacity=entries)


def filled(kind: type[DigestTable], digests: Digests, load: float, seed: int) -> DigestTable:
    """Return a table that `digests` (n, 8) fill up to `load`. Raises as `empty` does."""
    table = empty(kind, len(digests), load, seed)
    values = np.arange(len(digests))
    # Theory has entries come one by one; within a batch the reference kernels place them in rounds.
    step = max(len(digests) // BATCHES, 1)
    for start in range(0, len(digests), step):
        table.insert(digests[start : start + step], values[start : start + step])
    return table


def numbered(n: int, first: int = 0) -> NDArray[np.uint8]:
    """Return the contents that are digested, (n, 8): numbers from `first` on, little-endian."""
    return np.arange(first, first + n, dtype="<u8").view(np.uint8).reshape(n, 8)


def digests_of(n: int, algorithm: str = "sha256", first: int = 0) -> Digests:
    """Return the first 8 bytes (n, 8) of the digests of numbers from `first` on."""
    found = np.empty((n, 8), np.uint8)
    for start, stop in _blocks(n):
        contents = numbered(stop - start, first + start)
        found[start:stop] = digest_many(contents, algorithm)[:, : min(8, WIDTHS[algorithm])]
    return found


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))
