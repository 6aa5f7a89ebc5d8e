"""What a summary method promises: text in, one short vector out, the same on every machine.

A summary chooses which chunks are worth reading; it never answers in their place. Rows have unit
length, or are zero where a text says nothing, so an inner product is a cosine. Two processes, two
machines and two releases give the same row for the same text as long as `name` is the same, for
stored rows are compared with new ones.

Only the direction of a stored row matters, so `pack` may scale it: `dtype` int8 keeps a row's
largest value as 127 and needs no scale beside it. `row_scales` gives back what makes stored rows
unit length.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float32", "SummaryMethod", "pack", "row_scales", "unit_rows"]

Float32: TypeAlias = NDArray[np.float32]


class SummaryMethod(ABC):
    """A way to summarise texts as vectors. Implementations hold no state that encoding changes."""

    name: str  # of the method with all its parameters: rows of one name are comparable
    dims: int  # values in a row
    dtype: np.dtype[Any]  # how rows are stored: float32, float16 or int8
    sparse: bool = False  # rows are mostly zero, and a value that few rows have says more

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Float32:
        """Summarise each text, (n, dims): unit rows, or zero where a text says nothing."""

    def encode_query(self, text: str) -> Float32:
        """Summarise a query, (dims,), to be compared with rows of `encode`.

        Unit length, or zero where the query asks for nothing.
        """
        row: Float32 = self.encode([text])[0]
        return row


def unit_rows(rows: Float32) -> Float32:
    """Scale each row of (n, dims) to unit length in place; zero rows stay zero."""
    rows *= row_scales(rows)[:, None]
    return rows


def row_scales(rows: NDArray[Any]) -> Float32:
    """What each row of (n, dims), stored in any dtype, is multiplied by to have unit length, (n,).

    0 for zero rows.
    """
    squares = np.empty(len(rows), np.float32)
    for at in range(0, len(rows), 256):  # a block of float32 rows stays in the cache
        block = np.asarray(rows[at : at + 256], np.float32)
        np.einsum("ij,ij->i", block, block, out=squares[at : at + 256])
    return np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


def pack(rows: Float32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn unit rows (n, dims) into what is stored: as float, or each scaled to fill int8."""
    if dtype != np.int8:
        return rows.astype(dtype)
    packed = np.empty(rows.shape, np.int8)
    for at in range(0, len(rows), 256):
        block = rows[at : at + 256]
        largest = np.abs(block).max(axis=1, initial=0, keepdims=True)
        scale = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0)
        packed[at : at + 256] = np.rint(block * scale)
    return packed
