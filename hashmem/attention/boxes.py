"""Per-chunk boxes: what can be promised about a chunk's attention without reading its keys.

A box is the elementwise minimum and maximum of a chunk's keys (Quest, arXiv 2406.10774). For any
query q and any key k in the box, component by component,

    q·k  <=  sum_i max(q_i lower_i, q_i upper_i)  =  max(q, 0)·upper + min(q, 0)·lower

so a chunk of L keys weighs at most L exp(that), and what is left out can be bounded from
2d + 1 numbers a chunk.

Layout: the keys of all chunks lie one after the other; chunk c holds rows offsets[c] to
offsets[c + 1]. Boxes do not change and hold no reference to the keys.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.attention.inputs import Floats, check_finite, floats, layout, raise_overflow


class Boxes(NamedTuple):
    """The bounds of each chunk's keys and the length of its largest value."""

    lower: Floats  # (..., chunks, d), 0 for a chunk without keys
    upper: Floats  # (..., chunks, d), 0 for a chunk without keys
    lengths: NDArray[np.int64]  # (chunks,) keys a chunk
    norms: NDArray[np.float64]  # (chunks,) largest Euclidean norm of a value, over all heads
    reach: float  # no key is longer than this


def chunk_boxes(keys: ArrayLike, values: ArrayLike, offsets: ArrayLike) -> Boxes:
    """Measure the chunks of keys (..., n, d) and values (..., n, dv), offsets (chunks + 1,).

    O(n * (d + dv)), once; keep the result for all queries.

    Raises TypeError or ValueError for NaN or infinity, unfitting shapes, and offsets that do not
    run from 0 to n in order.

    >>> import numpy as np
    >>> boxes = chunk_boxes(np.array([[1.0, 5.0], [2.0, 4.0], [9.0, 9.0]]), np.eye(3), [0, 2, 3])
    >>> boxes.lower.tolist(), boxes.upper.tolist()
    ([[1.0, 4.0], [9.0, 9.0]], [[2.0, 5.0], [9.0, 9.0]])
    """
    keys, values = floats("keys", keys), floats("values", values)
    starts = checked_offsets(offsets, keys, values)
    check_finite("keys", keys)
    check_finite("values", values)
    lengths = np.diff(starts)
    held = np.flatnonzero(lengths)  # reduceat would give an empty chunk its neighbour's row
    shape = (*keys.shape[:-2], len(lengths), keys.shape[-1])
    lower, upper, norms = np.zeros(shape, keys.dtype), np.zeros(shape, keys.dtype), lengths * 0.0
    if len(held):
        lower[..., held, :] = np.minimum.reduceat(keys, starts[held], axis=-2)
        upper[..., held, :] = np.maximum.reduceat(keys, starts[held], axis=-2)
        norms[held] = np.maximum.reduceat(row_norms(values), starts[held])
    reach = row_norms(np.maximum(np.abs(lower), np.abs(upper))).max(initial=0.0)
    return Boxes(lower, upper, lengths, norms, float(reach))


def checked_offsets(offsets: ArrayLike, keys: Floats, values: Floats) -> NDArray[np.int64]:
    """Return offsets (chunks + 1,) as int64, checked against keys and values."""
    if keys.shape[-2] != values.shape[-2]:
        raise ValueError(
            f"keys {keys.shape} and values {values.shape} differ in length: "
            "they are (..., n, d) and (..., n, dv)"
        )
    given = np.asarray(offsets)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
        raise ValueError(
            f"offsets is {given.dtype} of shape {given.shape}: pass integers (chunks + 1,)"
        )
    starts = given.astype(np.int64)
    falls = np.flatnonzero(np.diff(starts) < 0)
    if len(falls):
        raise ValueError(
            f"offsets falls from {starts[falls[0]]} to {starts[falls[0] + 1]} at {falls[0] + 1}: "
            "chunks lie one after the other"
        )
    if starts[0] != 0 or starts[-1] != keys.shape[-2]:
        raise ValueError(
            f"offsets runs from {starts[0]} to {starts[-1]}: it must run from 0 to the number "
            f"of keys, {keys.shape[-2]}"
        )
    return starts


def row_norms(values: Floats) -> NDArray[np.float64]:
    """Return the largest Euclidean norm of each row of values (..., n, dv) over `...`: (n,)."""
    # float64: a float32 square overflows from 1.8e19 on.
    squares = np.einsum("...d,...d->...", values, values, dtype=np.float64)
    lead = tuple(range(squares.ndim - 1))
    norms: NDArray[np.float64] = np.sqrt(squares.max(axis=lead, initial=0.0))
    return norms


def box_scores(queries: Floats, boxes: Boxes) -> NDArray[np.float64]:
    """Return an upper bound on queries (..., H, Lq, d) · key, for any key of each chunk.

    (..., H, Lq, chunks), in float64, so that rounding stays far below that of float32 scores.
    O(Lq * chunks * d).
    """
    shape = layout(queries, boxes.lower, boxes.upper)
    rows = shape.pack(queries.astype(np.float64))
    upper = boxes.upper.astype(np.float64).swapaxes(-1, -2)
    lower = boxes.lower.astype(np.float64).swapaxes(-1, -2)
    with np.errstate(over="ignore", invalid="ignore"):
        scores: Floats = np.maximum(rows, 0) @ upper + np.minimum(rows, 0) @ lower
    if not np.isfinite(scores).all():
        raise_overflow("q times the boxes of the keys", scores.dtype)
    return shape.unpack(scores, len(boxes.lengths)).astype(np.float64, copy=False)


def checked_boxes(boxes: Any, keys: Floats, lengths: NDArray[np.int64]) -> Boxes:
    """Return `boxes` where they were made of chunks of these lengths and this width."""
    if not isinstance(boxes, Boxes):
        raise TypeError(f"boxes is of type {type(boxes).__name__}: pass what chunk_boxes returned")
    expected = (*keys.shape[:-2], len(lengths), keys.shape[-1])
    if boxes.lower.shape != expected or not np.array_equal(boxes.lengths, lengths):
        raise ValueError(
            f"boxes were made of other chunks: bounds {boxes.lower.shape} where {expected} was "
            "expected, or other lengths; call chunk_boxes on these keys, values and offsets"
        )
    return boxes
