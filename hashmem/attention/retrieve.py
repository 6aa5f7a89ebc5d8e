"""Attend to the chunks that matter, and say what the others could have changed.

`attend_chunks` selects chunks, attends to them exactly, merges with local attention, and reports
the share of the attention mass it captured with a bound on the error of the output.

Why the bound holds. Let S be the keys attended to (selected chunks and local keys), R the ones
left out, and e the share of the softmax mass that lies on R. Softmax over all keys is a mixture:

    o_full = (1 - e) o_S + e o_R,   so   o_full - o_S = e (o_R - o_S)

and o_S and o_R are weighted means of values, no longer than the longest value, so

    ‖o_full - o_S‖  <=  e (‖o_R‖ + ‖o_S‖)  <=  2 e max‖v‖.

It grows with e, so an upper bound on e gives a bound too: that is what boxes are for.

Rules
- Chunks lie one after the other: chunk c is rows offsets[c] to offsets[c + 1].
- All queries of a call share one selection; ties go to the lower chunk number.
- With every chunk selected the output is that of full attention, captured is 1, bound is 0.
- Nothing is written to the arguments; calls may run in parallel.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashmem.attention.boxes import (
    Boxes,
    box_scores,
    checked_boxes,
    checked_offsets,
    chunk_boxes,
    row_norms,
)
from hashmem.attention.inputs import (
    Floats,
    check_finite,
    floats,
    layout,
    raise_overflow,
    scaled,
    working_dtype,
)
from hashmem.attention.parts import Part, attend, merge

Local = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None]
Shares = NDArray[np.float64]


class ChunkAttention(NamedTuple):
    """Attention over selected chunks, with what is known about the rest."""

    output: Floats  # (..., Lq, dv)
    lse: Floats  # (..., Lq)
    selected: NDArray[np.int64]  # (selected,) chunk numbers, ascending
    captured: Shares  # (..., Lq) share of the full attention mass; a lower bound with "boxes"
    bound: Shares  # (..., Lq) most by which output can differ from full attention, Euclidean norm

    @property
    def part(self) -> Part:
        """Output and lse, to be merged with attention over further keys."""
        return Part(self.output, self.lse)


def attend_chunks(
    q: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    offsets: ArrayLike,
    *,
    top: int,
    summaries: ArrayLike | None = None,
    boxes: Boxes | None = None,
    local: Local | None = None,
    scale: float | None = None,
    mass: Literal["exact", "boxes"] = "exact",
) -> ChunkAttention:
    """Attend to the `top` chunks for q, and to `local` keys, with the error of leaving the rest.

    A chunk's worth is the largest over all queries (and heads) of scale * q·summary where
    summaries are given; otherwise of its boxes' bound on the logarithm of its mass. The largest
    and not the sum: a chunk that one query needs is not outvoted by those that do not.

    Parameters
    ----------
    q : (..., Lq, d)
    keys, values : (n, d) and (n, dv), or with leading dimensions and heads as in `attend`.
    offsets : (chunks + 1,) integers from 0 to n; chunk c is rows offsets[c] to offsets[c + 1].
    top : chunks to attend to; as many as there are, where it is larger.
    summaries : (chunks, d), or (..., chunks, d) with the leading dimensions of keys.
    boxes : what `chunk_boxes` returned for these chunks. Made here where they are needed and not
        given, which reads every key and value.
    local : (k, v) or (k, v, mask), attended to in full besides the chunks.
    scale : factor of every score, 1/sqrt(d) by default.
    mass : how the captured mass is known. "exact" scores every key, O(n * d) a query and a block
        of memory, and takes the norm of every value unless `boxes` hold it. "boxes" costs
        O(chunks * d) a query, reads nothing that was left out, and gives a certified lower bound
        on the mass, so an upper bound on the error. Float rounding of the scores is allowed for;
        that of the output itself, about 1e-6 max‖v‖ in float32, is not.

    Raises TypeError or ValueError as `attend` does, and for offsets, summaries or boxes that do
    not fit the keys.

    >>> import numpy as np
    >>> keys, values = np.eye(4), np.arange(4.0)[:, None]
    >>> some = attend_chunks(np.eye(1, 4) * 9, keys, values, [0, 2, 4], top=1)
    >>> some.selected, some.captured.round(3)
    (array([0]), array([0.978]))
    >>> full = attend(np.eye(1, 4) * 9, keys, values)
    >>> bool(np.abs(full.output - some.output).max() <= some.bound[0])
    True
    """
    q, keys, values = floats("q", q), floats("keys", keys), floats("values", values)
    starts = checked_offsets(offsets, keys, values)
    lengths = np.diff(starts)
    layout(q, keys, values)
    local_k, local_v, local_mask = _checked_local(local, keys, values)
    # One dtype for all parts, so that one allowance for rounding covers them.
    q = q.astype(working_dtype(q, keys, values, local_k, local_v), copy=False)
    queries = scaled(q, scale, q.dtype)
    if mass not in ("exact", "boxes"):
        raise ValueError(f"mass is {mass!r}: pass 'exact' or 'boxes'")
    if boxes is not None:
        boxes = checked_boxes(boxes, keys, lengths)

    if summaries is None:
        boxes = boxes or chunk_boxes(keys, values, starts)
        worth: Floats = _mass_bounds(queries, boxes)
    else:
        worth = _summary_scores(queries, floats("summaries", summaries), len(lengths))
    selected = _largest(worth, top)
    left_out = np.ones(len(lengths), np.bool_)
    left_out[selected] = False
    unread = np.repeat(left_out, lengths)  # (n,) the keys that are left out

    part = _attend_rows(q, keys, values, ~unread, scale)
    if local is not None:
        part = _merge_local(part, attend(q, local_k, local_v, local_mask, scale))

    if not unread.any():
        left = np.full(part.lse.shape, -np.inf)
    elif mass == "exact":
        left = attend(q, keys, values[..., :0], mask=unread, scale=scale).lse
    else:
        boxes = boxes or chunk_boxes(keys, values, starts)
        masses = worth if summaries is None else _mass_bounds(queries, boxes)
        left = np.logaddexp.reduce(masses[..., left_out], axis=-1)
        left = left + _rounding(queries, boxes, local_k, part)
    captured, missed = _shares(part.lse, left)
    stored = row_norms(values) if boxes is None else boxes.norms
    longest = max(_longest(stored), _longest(row_norms(local_v)))
    if not np.isfinite(longest):
        check_finite("values", values)
    return ChunkAttention(*part, selected, captured, 2 * missed * longest)


def _largest(worth: Floats, top: int) -> NDArray[np.int64]:
    """Return the numbers, ascending, of the `top` chunks of largest worth (..., chunks)."""
    if isinstance(top, bool) or not isinstance(top, int | np.integer):
        raise TypeError(f"top is {top!r}: pass a whole number of chunks")
    if top < 0:
        raise ValueError(f"top is {top}: pass 0 or more chunks")
    best = worth.max(axis=tuple(range(worth.ndim - 1)), initial=-np.inf)
    order = np.argsort(-best, kind="stable")  # stable: equal worth, lower number first
    return np.sort(order[:top]).astype(np.int64, copy=False)


def _summary_scores(queries: Floats, summaries: Floats, chunks: int) -> Floats:
    """Return queries (..., H, Lq, d) · summaries (..., chunks, d): (..., H, Lq, chunks)."""
    if summaries.shape[-2:] != (chunks, queries.shape[-1]):
        raise ValueError(
            f"summaries has shape {summaries.shape}: it must be (chunks, d), "
            f"here (..., {chunks}, {queries.shape[-1]})"
        )
    check_finite("summaries", summaries)
    shape = layout(queries, summaries, summaries)
    with np.errstate(over="ignore", invalid="ignore"):
        columns = summaries.astype(queries.dtype, copy=False).swapaxes(-1, -2)
        scores: Floats = shape.pack(queries) @ columns
    if not np.isfinite(scores).all():
        raise_overflow("q times summaries", queries.dtype)
    return shape.unpack(scores, chunks)


def _mass_bounds(queries: Floats, boxes: Boxes) -> Shares:
    """Return an upper bound on the log of each chunk's mass, for each query: (..., Lq, chunks)."""
    with np.errstate(divide="ignore"):  # a chunk without keys has no mass: log 0 = -inf
        return box_scores(queries, boxes) + np.log(boxes.lengths)


def _attend_rows(
    q: Floats, keys: Floats, values: Floats, rows: NDArray[np.bool_], scale: float | None
) -> Part:
    """Attend to the keys marked in `rows` (n,), which are copied unless all are."""
    if not rows.all():
        at = np.flatnonzero(rows)
        keys, values = keys[..., at, :], values[..., at, :]
    return attend(q, keys, values, scale=scale)


def _checked_local(
    local: Local | None, keys: Floats, values: Floats
) -> tuple[Floats, Floats, ArrayLike | None]:
    """Return local keys, values and mask; no keys where there is no local attention."""
    if local is None:
        return keys[..., :0, :], values[..., :0, :], None
    if not isinstance(local, tuple) or len(local) not in (2, 3):
        raise TypeError("local must be a tuple (k, v) or (k, v, mask)")
    mask = local[2] if len(local) == 3 else None
    return floats("local k", local[0]), floats("local v", local[1]), mask


def _merge_local(part: Part, local: Part) -> Part:
    if local.output.shape != part.output.shape:
        raise ValueError(
            f"local attention has shape {local.output.shape}, attention over the chunks "
            f"{part.output.shape}: give local the leading dimensions and value width of the chunks"
        )
    return merge([part, local])


def _longest(norms: Shares) -> float:
    return float(norms.max(initial=0.0))


def _rounding(queries: Floats, boxes: Boxes, local_k: Floats, part: Part) -> Shares:
    """Return how far rounding can take the computed lse of what was attended to: (..., Lq).

    A dot product of d terms is off by at most d eps ‖q‖ ‖k‖ (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, section 3.1), scaling q and subtracting the largest score add a
    few eps of it, and the summed weights are off by some 100 eps relative at most.
    """
    reach = max(boxes.reach, _longest(row_norms(local_k)))
    lengths = np.sqrt(np.einsum("...d,...d->...", queries, queries, dtype=np.float64))
    eps = float(np.finfo(part.output.dtype).eps)
    slack: Shares = eps * ((queries.shape[-1] + 4) * reach * lengths + 100)
    return slack


def _shares(kept: Floats, left: Floats) -> tuple[Shares, Shares]:
    """Return the shares of exp(kept) and exp(left) in their sum; 1 and 0 where left is -inf."""
    nothing = np.isneginf(left)
    with np.errstate(all="ignore"):
        captured = np.where(nothing, 1.0, 1 / (1 + np.exp(left - kept)))
        missed = np.where(nothing, 0.0, 1 / (1 + np.exp(kept - left)))
    return captured, missed
