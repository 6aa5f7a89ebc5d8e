"""Arguments of attention: checked once, and laid out so that query heads share their keys.

Rules
- Numbers are float16, float32 or float64. The work is done in float32, or in float64 as soon as
  one of q, k, v is float64; a half-precision score would saturate at 65 504.
- Leading dimensions broadcast as in NumPy, except that the head axis (the third from the right)
  may also hold H query heads over Hkv key heads, H = g * Hkv; head h reads key head h // g.
- Keys are never repeated: the g query heads of one key head become g * Lq rows of one matrix
  product, which is also what makes one-token decoding fast.
"""

from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Shape = tuple[int, ...]


def floats(name: str, value: ArrayLike, ndim: int = 2) -> Floats:
    """Return `value` as an array of float16, float32 or float64 with at least `ndim` axes.

    Raises TypeError for any other dtype and ValueError for too few axes.
    """
    array = np.asarray(value)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"{name} has dtype {array.dtype}: convert it to float16, float32 or float64 first"
        )
    if array.ndim < ndim:
        raise ValueError(
            f"{name} has shape {array.shape}: it needs at least {ndim} axes, the last two being "
            "(positions, width)"
        )
    return array


def working_dtype(*arrays: Floats) -> np.dtype[np.floating[Any]]:
    """Return float64 where any of `arrays` is float64, else float32."""
    return np.result_type(np.float32, *(array.dtype for array in arrays))


def first_position(bad: NDArray[np.bool_]) -> Shape:
    """Return the index of the first True in `bad`."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def check_finite(name: str, array: Floats) -> None:
    """Raise ValueError naming the first NaN or infinity in `array`."""
    finite = np.isfinite(array)
    if not finite.all():
        position = first_position(~finite)
        raise ValueError(
            f"{name} holds {array[position]} at {position}: remove or replace it first; "
            "to leave a key out, mask it"
        )


def raise_overflow(what: str, dtype: np.dtype[np.floating[Any]]) -> NoReturn:
    """Raise ValueError for finite arguments whose sums leave the range of `dtype`."""
    remedy = "scale the inputs down"
    if dtype != np.float64:
        remedy += " or pass them as float64"
    raise ValueError(f"{what} overflows {dtype}: {remedy}")


class Layout(NamedTuple):
    """How the heads of q, k and v lie over each other.

    Inside attention there is always a head axis, and queries are (..., Hkv, g * Lq, d).
    """

    result: Shape  # leading dimensions of the result: (..., H), or () without heads
    packed: Shape  # leading dimensions inside: (..., Hkv)
    group: int  # g, query heads per key head
    queries: int  # Lq

    def pack(self, q: Floats) -> Floats:
        """Return q (..., H, Lq, d) as (..., Hkv, g * Lq, d)."""
        if q.ndim == 2:
            return q[None]
        heads = q.shape[-3] // self.group
        return q.reshape(*q.shape[:-3], heads, self.group * self.queries, q.shape[-1])

    def unpack(self, rows: Floats, *widths: int) -> Floats:
        """Return rows (..., Hkv, g * Lq, *widths) as (..., H, Lq, *widths)."""
        return rows.reshape(*self.result, self.queries, *widths)

    def pack_mask(self, mask: NDArray[Any], keys: int) -> NDArray[Any]:
        """Return a view of `mask` that broadcasts against scores (..., Hkv, g, Lq, Lk).

        Raises ValueError where the mask does not broadcast to (..., H, Lq, Lk).
        """
        scores = (*self.result, self.queries, keys)
        try:
            fits = np.broadcast_shapes(mask.shape, scores) == scores
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"mask has shape {mask.shape}, which does not broadcast to {scores} "
                "(..., H, Lq, Lk): add axes of length 1 where it is shared"
            )
        mask = mask[(None,) * (3 - mask.ndim)] if mask.ndim < 3 else mask
        *lead, heads, rows, columns = mask.shape
        split = (1, 1) if heads == 1 else (heads // self.group, self.group)
        return mask.reshape(*lead, *split, rows, columns)


def layout(q: Floats, k: Floats, v: Floats) -> Layout:
    """Return how q (..., H, Lq, d), k (..., Hkv, Lk, d) and v (..., Hkv, Lk, dv) fit together.

    Raises ValueError naming the axes that do not fit.
    """
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k differ in width: {shapes}; q is (..., Lq, d), k is (..., Lk, d)")
    if q.shape[-1] == 0:
        raise ValueError(f"q and k have width 0: {shapes}; a score needs at least one component")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"k and v differ in length: {shapes}; k is (..., Lk, d), v is (..., Lk, dv)"
        )
    q_lead = q.shape[:-2] or (1,)
    try:
        kv_lead = np.broadcast_shapes(k.shape[:-2], v.shape[:-2]) or (1,)
        outer = np.broadcast_shapes(q_lead[:-1], kv_lead[:-1])
    except ValueError:
        raise ValueError(
            f"leading dimensions do not broadcast: {shapes}; those left of the heads must be "
            "equal, 1 or absent"
        ) from None
    heads, kv_heads = q_lead[-1], kv_lead[-1]
    group = 1
    if heads not in (1, kv_heads):
        if kv_heads == 0 or heads % kv_heads:
            raise ValueError(
                f"{heads} query heads cannot share {kv_heads} key heads: {shapes}; the heads "
                "(third axis from the right) of q must be a multiple of those of k and v"
            )
        group = heads // kv_heads
    any_heads = q.ndim > 2 or k.ndim > 2 or v.ndim > 2
    return Layout(
        result=(*outer, kv_heads * group) if any_heads else (),
        packed=(*outer, kv_heads),
        group=group,
        queries=q.shape[-2],
    )


def scaled(q: Floats, scale: float | None, dtype: np.dtype[np.floating[Any]]) -> Floats:
    """Return q times `scale` (1/sqrt(d) where None) in `dtype`, which scales every score.

    Raises TypeError or ValueError where q or scale is not finite.
    """
    check_finite("q", q)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(factor, bool | np.bool_) or not isinstance(
        factor, int | float | np.integer | np.floating
    ):
        raise TypeError(f"scale is {factor!r}: pass a number, or None for 1/sqrt(d)")
    if not np.isfinite(factor):
        raise ValueError(f"scale is {factor}: pass a finite number, or None for 1/sqrt(d)")
    with np.errstate(over="ignore", under="ignore"):
        product: Floats = q.astype(dtype) * dtype.type(factor)
    if not np.isfinite(product).all():
        raise_overflow(f"q times scale {factor}", dtype)
    return product
