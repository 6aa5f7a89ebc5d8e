"""What a table's methods accept, checked before anything is changed.

Each function returns the argument in the form kernels take, or raises `TypeError` or `ValueError`
that says what was wrong and where.
"""

import operator
from collections.abc import Iterable
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST, MOST = -(2**63), 2**63 - 1  # int64


def as_integer(name: str, value: SupportsIndex, lowest: int, highest: int) -> int:
    """Take `value`, called `name`, as an int between two bounds."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {lowest} to {highest}, got {number}")
    return number


def as_one(digest: bytes, width: int) -> NDArray[np.uint8]:
    """Take one digest of `width` bytes as a batch (1, width)."""
    if not isinstance(digest, bytes | bytearray | memoryview):
        raise TypeError(f"a digest must be bytes, got {type(digest).__name__}")
    if len(digest) != width:
        raise ValueError(f"a digest must be {width} bytes for this table, got {len(digest)}")
    try:
        return np.frombuffer(digest, np.uint8).reshape(1, width)
    except BufferError:
        raise TypeError("a digest must be contiguous bytes, got a view with gaps") from None


def as_batch(digests: ArrayLike, width: int) -> NDArray[np.uint8]:
    """Take a batch of digests (n, width) as one contiguous array, copied if it is not."""
    array = np.asarray(digests)
    if array.dtype != np.uint8:
        raise TypeError(f"digests must be a uint8 array (n, {width}), got dtype {array.dtype}")
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"digests must have shape (n, {width}) for this table, got {array.shape}")
    return np.ascontiguousarray(array)


def as_values(values: ArrayLike, n: int) -> NDArray[np.int64]:
    """Take `n` integers, of any integer type, as int64 (n,), contiguous and aligned."""
    array = np.asarray(values)
    if array.dtype == np.float64 and not isinstance(values, np.ndarray):
        array = np.asarray(values, object)  # NumPy makes floats of [0, 2**63]: look at each
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"values must have shape ({n},), one for each digest, got {array.shape}")
    if array.dtype.kind not in "iuO" and n:
        raise TypeError(f"values must be integers, got dtype {array.dtype}")
    for at in _doubtful(array):
        as_integer(f"the value at position {at}", array[at], LEAST, MOST)
    array = np.ascontiguousarray(array, np.int64)
    return array if array.flags.aligned else array.copy()


def _doubtful(array: NDArray[np.generic]) -> Iterable[int]:
    """The places whose values may not fit into int64."""
    if array.dtype.kind == "O":
        return range(len(array))
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and len(array):  # in either byte order
        return (int(array.argmax()),)
    return ()
