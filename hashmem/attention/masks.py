"""Masks of attention, boolean or additive, laid over a block of scores at a time.

A boolean mask says where a query may attend. A floating one is added to the scores: -inf forbids,
NaN and +inf are refused when the block that holds them is reached. The mask given is never copied
or expanded as a whole, only a block of it.
"""

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.attention.inputs import Floats, Layout, first_position


class Mask:
    """A boolean or additive mask, applied to one block of scores at a time."""

    def __init__(
        self, mask: ArrayLike, shape: Layout, keys: int, dtype: np.dtype[np.floating[Any]]
    ):
        self.given = np.asarray(mask)
        self.boolean = self.given.dtype == np.bool_
        if not self.boolean and self.given.dtype not in (np.float16, np.float32, np.float64):
            raise TypeError(
                f"mask has dtype {self.given.dtype}: pass booleans (True = may attend) or "
                "floating numbers to add to the scores"
            )
        self.shape, self.dtype = shape, dtype
        self.grouped = shape.pack_mask(self.given, keys)  # (..., Hkv, g, Lq, Lk), each may be 1

    def of_queries(self, some: slice) -> "Mask":
        """Return the mask of the queries in the slice `some`."""
        part = copy.copy(self)
        part.shape = self.shape._replace(queries=some.stop - some.start)
        if self.grouped.shape[-2] != 1:
            part.grouped = self.grouped[..., some, :]
        return part

    def apply(self, scores: Floats, start: int, stop: int) -> None:
        """Mask scores (..., Hkv, g * Lq, stop - start) in place."""
        grouped = self.grouped
        block = grouped if grouped.shape[-1] == 1 else grouped[..., start:stop]
        # Splitting an axis never copies, so what is written to `view` lands in `scores`.
        view = scores.reshape(
            *scores.shape[:-2], self.shape.group, self.shape.queries, scores.shape[-1]
        )
        if self.boolean:
            np.copyto(view, -np.inf, where=~block)
            return
        block = block.astype(self.dtype, copy=False)
        if block.size and not block.max() < np.inf:
            bad = ~(self.given.astype(self.dtype) < np.inf)
            position = first_position(bad)
            raise ValueError(
                f"mask holds {self.given[position]} at {position}: a mask to add holds finite "
                f"{self.dtype} numbers, or -inf to forbid"
            )
        view += block

    def allows_any(self, rows: NDArray[np.bool_]) -> bool:
        """Return whether some row marked in `rows` (..., Hkv, g * Lq) may attend to a key."""
        allowed = self.grouped if self.boolean else self.grouped.astype(self.dtype) > -np.inf
        grouped = rows.reshape(*rows.shape[:-1], self.shape.group, self.shape.queries)
        return bool((grouped & allowed.any(axis=-1)).any())
