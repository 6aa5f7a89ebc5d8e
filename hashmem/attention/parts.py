"""Exact attention in parts: attend to some keys now, to others later, and merge.

A part is what softmax attention over one set of keys leaves behind: its output o and the
logarithm l of its summed weights. Parts over disjoint keys combine to what attention over all
the keys at once would have given:

    m = max l_i,   w_i = exp(l_i - m),   o = sum w_i o_i / sum w_i,   l = m + log sum w_i

`attend` is itself such a merge, over blocks of keys, so its memory does not grow with their
number (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).

Rules
- A row with no key to attend to (Lk = 0, or all masked) has o = 0 and l = -inf, never NaN.
- Scores, weights and outputs are float32, or float64 where any of q, k, v is; see `inputs`.
  The log-sum-exp is always float64: next to scores of 10 000 a float32 one would be off by
  5e-4, and so would every weight of a merge.
- NaN and infinity are refused, also under a mask. k and v are not read a second time for that:
  0 * NaN and 0 * inf are NaN, so a bad key shows in every score and a bad value in every output.
- Nothing is written to the arguments, which may be read-only maps of a file. No state is kept;
  calls may run in parallel.
"""

import math
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.attention.inputs import (
    Floats,
    Layout,
    check_finite,
    first_position,
    floats,
    layout,
    raise_overflow,
    scaled,
    working_dtype,
)
from hashmem.attention.masks import Mask

SCORES_PER_BLOCK = 1 << 20  # 4 MiB of float32; from 1 << 19 to 1 << 21 speed hardly differs
SMALLEST_BLOCK = 512  # keys; queries are split before keys are taken in smaller blocks


class Part(NamedTuple):
    """Attention over one set of keys, ready to be merged with that over others."""

    output: Floats  # (..., Lq, dv), 0 where there was no key to attend to
    lse: Floats  # (..., Lq), natural log of the summed exp(score), -inf where there was no key


def attend(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: ArrayLike | None = None,
    scale: float | None = None,
) -> Part:
    """Attend from queries to keys: softmax(scale * q kᵀ + mask) v, with its log-sum-exp.

    O(Lq * Lk * (d + dv)) time. Beside the result, memory holds one block of scores whatever Lq
    and Lk: 4 MiB in float32, or 512 keys for one query of each head where that is more.

    Parameters
    ----------
    q : (..., H, Lq, d)
    k : (..., Hkv, Lk, d), H a multiple of Hkv; query head h reads key head h // (H / Hkv).
    v : (..., Hkv, Lk, dv). Other leading dimensions broadcast, and may be absent everywhere.
    mask : broadcastable to (..., H, Lq, Lk). Boolean: True where a query may attend. Floating:
        added to the scores, -inf to forbid.
    scale : factor of every score, 1/sqrt(d) by default.

    Returns
    -------
    Part of output (..., H, Lq, dv), float64 where any of q, k, v is and otherwise float32, and
    lse (..., H, Lq), float64. Without a float64 argument both carry the rounding of float32
    scores, about 1e-7 times the largest score.

    Raises
    ------
    TypeError for a dtype that is not floating. ValueError for shapes that do not fit, NaN or
    infinity in q, k, v or scale, NaN or +inf in the mask, and scores too large for the dtype.

    >>> import numpy as np
    >>> part = attend(np.ones((1, 4)), np.ones((3, 4)), np.array([[0.0], [3.0], [6.0]]))
    >>> part.output
    array([[3.]])
    >>> round(float(part.lse[0] - np.log(3)), 6)  # the score of each key, (1*1)*4 / sqrt(4)
    2.0
    """
    q, k, v = floats("q", q), floats("k", k), floats("v", v)
    shape = layout(q, k, v)
    dtype = working_dtype(q, k, v)
    q = scaled(q, scale, dtype)
    bias = None if mask is None else Mask(mask, shape, k.shape[-2], dtype)
    step = max(1, SCORES_PER_BLOCK // (SMALLEST_BLOCK * max(1, math.prod(shape.result))))
    parts = [
        _attend_queries(q, k, v, bias, shape, slice(start, min(start + step, shape.queries)))
        for start in range(0, max(1, shape.queries), step)
    ]
    if len(parts) == 1:
        return parts[0]
    return Part(
        np.concatenate([part.output for part in parts], axis=-2),
        np.concatenate([part.lse for part in parts], axis=-1),
    )


def _attend_queries(
    q: Floats, k: Floats, v: Floats, bias: Mask | None, shape: Layout, some: slice
) -> Part:
    """Attend from the queries in the slice `some` to all keys; q is scaled."""
    shape = shape._replace(queries=some.stop - some.start)
    queries = shape.pack(q[..., some, :])
    if bias is not None:
        bias = bias.of_queries(some)
    # NumPy's own warnings are off: what they would report is either harmless here (a weight that
    # rounds to 0) or turned into an error below.
    with np.errstate(all="ignore"):
        sums = reduce(_add, _blocks(queries, k, v, bias, shape))
        if not np.isfinite(sums.output).all():
            check_finite("v", v)
            raise_overflow("the weighted sum of v", q.dtype)
        part = _part(sums)
    # A score below the range of the dtype looks like a masked one: tell the two apart.
    empty = part.lse == -np.inf
    if k.shape[-2] and empty.any() and (bias is None or bias.allows_any(empty)):
        raise_overflow("q times k", q.dtype)
    return Part(shape.unpack(part.output, v.shape[-1]), shape.unpack(part.lse))


def merge(parts: Iterable[Part]) -> Part:
    """Merge attention over disjoint sets of keys into attention over all of them.

    Exact whatever the order and the split, up to rounding; the result is a part, so merges nest.
    Rows that are empty in every part stay empty (output 0, lse -inf). The output of a row whose
    lse is -inf is not looked at. O(parts * Lq * dv) time; an iterator is consumed part by part,
    so only one is held at a time.

    Raises TypeError where an item is no Part, ValueError where there is none, where their shapes
    differ, or for a NaN or infinity in them (an lse may be -inf).

    >>> import numpy as np
    >>> q, k, v = np.eye(2, 4), np.eye(6, 4), np.arange(12.0).reshape(6, 2)
    >>> whole = attend(q, k, v)
    >>> merged = merge([attend(q, k[:4], v[:4]), attend(q, k[4:], v[4:])])
    >>> bool(np.allclose(merged.output, whole.output) and np.allclose(merged.lse, whole.lse))
    True
    """
    checked = _checked(parts)
    first = next(checked, None)
    if first is None:
        raise ValueError("nothing to merge: pass at least one part")
    with np.errstate(all="ignore"):
        return _part(reduce(_add, checked, first))


class _Sums(NamedTuple):
    """Sums over some keys, relative to the largest of their scores."""

    top: NDArray[np.float64]  # (..., Lq) that score, -inf without keys
    total: NDArray[np.float64]  # (..., Lq) sum of exp(score - top)
    output: Floats  # (..., Lq, dv) sum of exp(score - top) * value


def _add(a: _Sums, b: _Sums) -> _Sums:
    """Return the sums over the keys of both."""
    top = np.maximum(a.top, b.top)
    base = np.where(top == -np.inf, 0, top)  # -inf - -inf would be NaN
    weight_a, weight_b = np.exp(a.top - base), np.exp(b.top - base)
    dtype = np.result_type(a.output, b.output)
    output = weight_a.astype(dtype)[..., None] * a.output
    output += weight_b.astype(dtype)[..., None] * b.output
    return _Sums(top, weight_a * a.total + weight_b * b.total, output)


def _part(sums: _Sums) -> Part:
    total = np.where(sums.total == 0, 1, sums.total).astype(sums.output.dtype)
    return Part(sums.output / total[..., None], sums.top + np.log(sums.total))


def _checked(parts: Iterable[Part]) -> Iterator[_Sums]:
    """Yield each part as sums, checked by itself and against the shape of the first."""
    shape = None
    for number, part in enumerate(parts):
        output, lse = _checked_part(number, part)
        shape = shape or output.shape
        if output.shape != shape:
            raise ValueError(
                f"part {number} has output {output.shape}, those before it {shape}: "
                "merge parts of the same queries and value width"
            )
        held = lse != -np.inf
        output = np.where(held[..., None], output, 0).astype(working_dtype(output), copy=False)
        yield _Sums(lse.astype(np.float64), held.astype(np.float64), output)


def _checked_part(number: int, part: Part) -> tuple[Floats, Floats]:
    if not isinstance(part, Part):
        raise TypeError(
            f"part {number} is of type {type(part).__name__}: pass a list of Part, "
            "as in merge([part, other])"
        )
    output = floats(f"part {number}'s output", part.output)
    lse = floats(f"part {number}'s lse", part.lse, ndim=1)
    if output.shape[:-1] != lse.shape:
        raise ValueError(
            f"part {number} has output {output.shape} and lse {lse.shape}: "
            "they must be (..., Lq, dv) and (..., Lq)"
        )
    bad = np.isnan(lse) | np.isposinf(lse)
    if bad.any():
        raise ValueError(
            f"part {number}'s lse is {lse[first_position(bad)]} at {first_position(bad)}: "
            "it must be finite, or -inf for a row without keys"
        )
    bad = ~np.isfinite(output) & ~np.isneginf(lse)[..., None]
    if bad.any():
        raise ValueError(
            f"part {number}'s output is {output[first_position(bad)]} at {first_position(bad)}: "
            "it must be finite where its lse is"
        )
    return output, lse


def _blocks(
    queries: Floats,
    k: Floats,
    v: Floats,
    bias: Mask | None,
    shape: Layout,
) -> Iterator[_Sums]:
    """Yield the sums over one block of keys after the other; at least one, if without keys."""
    dtype = queries.dtype
    rows = (*shape.packed, queries.shape[-2])
    length = k.shape[-2]
    size = max(SMALLEST_BLOCK, SCORES_PER_BLOCK // max(1, math.prod(rows)))
    buffer = np.empty((*rows, min(size, length)), dtype)
    for start in range(0, max(1, length), size):
        stop = min(start + size, length)
        scores: Floats = buffer[..., : stop - start]
        keys = k[..., start:stop, :].astype(dtype, copy=False)
        np.matmul(queries, keys.swapaxes(-1, -2), out=scores)
        if not np.isfinite(scores[..., :1, :]).all():
            check_finite("k", k)
        if bias is not None:
            bias.apply(scores, start, stop)
        top = scores.max(axis=-1, initial=-np.inf)
        if not (top < np.inf).all():
            check_finite("k", k)
            raise_overflow("q times k", dtype)
        scores -= np.where(top == -np.inf, 0, top)[..., None]
        np.exp(scores, out=scores)
        values = v[..., start:stop, :].astype(dtype, copy=False)
        total = scores.sum(axis=-1)
        yield _Sums(top.astype(np.float64), total.astype(np.float64), scores @ values)
