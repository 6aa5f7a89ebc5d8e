"""Giving back the space of what was deleted or replaced, a little with each commit.

A pack never changes, so what is deleted in it stays until the pack goes. Where more than `SHARE` of
the bytes of a column's packs are dead, the packs with the largest dead share are written anew
without them, in the transaction that commits something else, up to a budget, and LMDB uses their
pages again. With deletions at random that writes (1 - SHARE) / SHARE times what is given back.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.errors import CorruptStoreError
from hashmem.store.backend import Transaction
from hashmem.store.columns import Written
from hashmem.store.layout import body_prefix, pack_number
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.placed import PlacedColumn

__all__ = ["reclaim"]

Rows = NDArray[np.int64]

SHARE = 0.12  # of the bytes in packs that may be dead
LEAST = 1 << 18  # bytes that are worth looking for
BUDGET = 1 << 25  # bytes written anew with one commit, or `TIMES` what it writes itself
TIMES = 8


def reclaim(
    column: PlacedColumn, transaction: Transaction, next_pack: int, merged: list[int]
) -> tuple[list[Written], list[int]]:
    """Write packs anew that are dead in part, if enough is; `merged` are gone already.

    Returns the packs written, numbered from `next_pack`, and the numbers of those replaced.
    O(packs + bytes written), and O(rows) for the first time. What is damaged is left as it is.
    """
    if column.replaced < LEAST:
        return [], []
    live = column.live_bytes()
    sizes = {
        pack_number(key): size
        for key, size in transaction.sizes(body_prefix(column.namespace, column.number))
    }
    for number in merged:
        sizes.pop(number, None)
    numbers = np.fromiter(sizes, np.int64, len(sizes))
    total = np.fromiter(sizes.values(), np.int64, len(sizes))
    alive = np.fromiter((live.get(number, 0) for number in sizes), np.int64, len(sizes))
    dead = total - alive
    excess = int(dead.sum()) - SHARE * int(total.sum())
    if excess < LEAST:
        column.replaced = 0
        return [], []
    waiting = int(np.maximum(column.pending.final()[1], 0).sum()) if column.pending else 0
    budget = max(BUDGET, TIMES * waiting)
    pieces: list[tuple[Rows, Rows, memoryview]] = []
    gone = []
    for i in np.argsort(alive / np.maximum(total, 1), kind="stable").tolist():
        if excess <= 0 or budget <= 0 or not dead[i]:
            break
        piece = _what_lives(column, transaction, int(numbers[i]))
        if piece is None:
            continue
        pieces.append(piece)
        gone.append(int(numbers[i]))
        excess -= (1 - SHARE) * int(dead[i])
        budget -= int(alive[i])
    if excess <= 0:
        column.replaced = 0
    for number in gone:
        column.delete_pack(transaction, number)
    return _write(column, transaction, next_pack, pieces), sorted(gone)


def _what_lives(
    column: PlacedColumn, transaction: Transaction, number: int
) -> tuple[Rows, Rows, memoryview] | None:
    """Rows, lengths and content of what counts in a pack; None where it must stay as it is."""
    try:
        pack = column.index(transaction, number)
        body = column.sound_body(transaction, number)
    except CorruptStoreError:
        return None
    if pack.parts > 1:  # a part of a large item is dead as a whole, or not at all
        return (np.empty(0, np.int64), np.empty(0, np.int64), memoryview(b""))
    packs = column.places(pack.rows)[0]
    counts = packs == number
    removed = (pack.lengths < 0) & (packs < 0)  # for packs before it that have the row still
    lives = counts & (pack.lengths >= 0)
    lengths = pack.lengths[lives]
    out = np.empty(int(lengths.sum()), np.uint8)
    to = np.cumsum(lengths) - lengths
    which = np.zeros(len(lengths), np.int64)
    kernels.current.gather((body,), which, pack.offsets[lives], lengths, out, to)
    kept = lives | removed
    return pack.rows[kept], pack.lengths[kept], out.data


def _write(
    column: PlacedColumn,
    transaction: Transaction,
    next_pack: int,
    pieces: list[tuple[Rows, Rows, memoryview]],
) -> list[Written]:
    """Write pieces, several to a pack where they fit."""
    written: list[Written] = []
    ends = np.cumsum([len(content) for _, _, content in pieces])
    start = 0
    while start < len(pieces):
        used = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, used + PACK_LIMIT, side="right")))
        rows, lengths, contents = zip(*pieces[start:stop], strict=True)
        numbered, sizes = np.concatenate(rows), np.concatenate(lengths)
        if len(numbered):
            joined = b"".join(contents)
            written += column.write(
                transaction,
                next_pack + len(written),
                numbered,
                sizes,
                lambda *_: [joined],  # noqa: B023
            )
        start = stop
    return written
