"""Following links, row → row. The definition of `kernels/hops.c`."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def hop(successors: Rows, starts: Rows, n: int, out: Rows) -> None:
    """Write to `out` (m,) the row `n` successors on from each of `starts` (m,), or -1.

    `successors` (rows,) holds a row or -1; a start or successor that is no row counts as -1.
    n array reads a start.
    """
    rows = np.where((starts >= 0) & (starts < len(successors)), starts, -1)
    alive = np.flatnonzero(rows >= 0)
    at = rows[alive]
    for _ in range(n):
        if not len(alive):
            break
        at = successors[at]
        keep = (at >= 0) & (at < len(successors))
        if not keep.all():
            rows[alive[~keep]] = -1
            alive, at = alive[keep], at[keep]
    rows[alive] = at
    out[:] = rows
