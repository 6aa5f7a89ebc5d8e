"""The summaries of a collection in memory: digests in, the nearest digests out.

Every digest has a slot: column `slot` of a (dims, room) array in the type the summaries are stored
in, so that one value of all summaries lies together and a sparse query reads only what it asks
for. A slot given up holds zeros, is passed over, and is used again.

Not safe for use by several threads at once; its owner takes turns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.retrieval.exact import top_k, weigh_rare
from hashmem.summaries.base import row_scales
from hashmem.tables import OpenAddressingTable

__all__ = ["SummaryIndex"]

Digests = NDArray[np.uint8]  # (n, width)


class SummaryIndex:
    """Stored summaries by digest, searched exactly."""

    def __init__(self, width: int, dims: int, dtype: np.dtype[Any]) -> None:
        self._slots = OpenAddressingTable(width)  # digest → slot
        self._digests = np.zeros((0, width), np.uint8)  # (room, width)
        self._values = np.zeros((dims, 0), dtype)  # (dims, room)
        self._scales = np.zeros(0, np.float32)  # (room,)
        self._used = 0  # slots ever taken
        self._free = np.zeros(0, np.int64)  # of these, given up

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self._digests, self._values, self._scales, self._free)
        return self._slots.nbytes + sum(array.nbytes for array in arrays)

    def put(self, digests: Digests, rows: NDArray[Any]) -> None:
        """Set the stored summary, rows (n, dims), of each of n distinct digests. O(n · dims)."""
        slots = self._slots.find(digests)
        new = np.flatnonzero(slots < 0)
        reused = min(len(new), len(self._free))
        fresh = len(new) - reused
        self._reserve(self._used + fresh)
        slots[new[:reused]], self._free = self._free[:reused], self._free[reused:]
        slots[new[reused:]] = np.arange(self._used, self._used + fresh)
        self._used += fresh
        self._slots.insert(digests, slots)
        self._digests[slots] = digests
        self._values[:, slots] = rows.T
        self._scales[slots] = row_scales(rows)

    def discard(self, digests: Digests) -> None:
        """Forget each of n distinct digests that is there. O(n · dims)."""
        slots = self._slots.find(digests)
        slots = slots[slots >= 0]
        self._slots.delete(digests)
        self._values[:, slots] = 0
        self._scales[slots] = 0
        self._free = np.concatenate([self._free, slots])

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Say for each digest whether its summary is here, (n,)."""
        return self._slots.contains(digests)

    def search(self, query: NDArray[np.float32], k: int, sparse: bool) -> Digests:
        """Find the at most `k` digests nearest to `query` (dims,), nearest first, (m, width).

        None for a query of zeros. `sparse` weighs the query's values by their rarity
        (`hashmem.retrieval.weigh_rare`). O(n · non-zeros of the query).
        """
        rows = self._values[:, : self._used].T
        if sparse:
            query = weigh_rare(query, rows, len(self))
        # A slot given up scores 0, which is more than what points away does: look past them all.
        slots, _ = top_k(rows, query, k + len(self._free), self._scales[: self._used])
        slots = slots[~np.isin(slots, self._free)][:k]
        return self._digests[slots]

    def _reserve(self, room: int) -> None:
        if room <= len(self._scales):
            return
        room = max(room, len(self._scales) * 3 // 2)
        added = room - len(self._scales)
        self._digests = np.pad(self._digests, ((0, added), (0, 0)))
        self._values = np.pad(self._values, ((0, 0), (0, added)))
        self._scales = np.pad(self._scales, (0, added))
