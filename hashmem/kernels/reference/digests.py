"""Digests of many pieces: hashlib and xxhash are the definition. That of `digests.c`."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import xxhash

__all__ = ["digest_items", "digest_pieces"]


def _sha256(data: Any) -> bytes:
    return hashlib.sha256(data).digest()


_ALGORITHMS: Final[dict[Any, tuple[Callable[[Any], bytes], int]]] = {
    "sha256": (_sha256, 32),
    "xxh3_128": (xxhash.xxh3_128_digest, 16),
    "xxh3_64": (xxhash.xxh3_64_digest, 8),
}


def digest_pieces(algorithm: str, data: Any, offsets: Any, out: Any) -> bool:
    """Digest n pieces of `data` into `out`, n times the digest's bytes.

    Piece i is ``data[offsets[i]:offsets[i + 1]]``; where there are 2 n offsets, for pieces that lie
    apart, ``data[offsets[2 * i]:offsets[2 * i + 1]]``; and where `offsets` is an int, row i of so
    many bytes. Returns whether it could: the compiled kernel cannot where the CPU lacks
    instructions, and nothing is written then. Raises `ValueError` where a piece lies outside the
    data.
    """
    one, width = _algorithm(algorithm)
    view, target = _flat(data), _flat(out)
    n, rest = divmod(len(target), width)
    if rest:
        raise ValueError(f"out: {len(target)} bytes is no multiple of {width}")
    if isinstance(offsets, int):
        bounds = [i * offsets for i in range(n + 1)] if offsets or not n else [0] * (n + 1)
    else:
        bounds = offsets.ravel().tolist()
    step = 1 if len(bounds) == n + 1 else 2
    if step == 2 and len(bounds) != 2 * n:
        raise ValueError(f"{len(bounds)} offsets do not cut {n} pieces")
    for i in range(0, step * n, step):
        if not 0 <= bounds[i] <= bounds[i + 1] <= len(view):
            raise ValueError(f"offset {i} or {i + 1} is out of order or beyond the data")
    for i in range(n):
        start, stop = bounds[step * i : step * i + 2]
        target[i * width : (i + 1) * width] = one(view[start:stop])
    return True


def digest_items(algorithm: str, items: Sequence[Any], first: int, out: Any) -> int:
    """Digest ``items[first:]`` into their places in `out`; `items` is a list or a tuple.

    Returns the first item that is no contiguous bytes-like object of at most one dimension, or
    ``len(items)``; what comes before it is digested. The compiled kernel returns -1 where the CPU
    lacks instructions.
    """
    one, width = _algorithm(algorithm)
    target = _flat(out)
    if len(target) != len(items) * width or not 0 <= first <= len(items):
        raise ValueError(
            f"{len(items)} items from {first} on and room for {len(target) // width} digests"
        )
    for i in range(first, len(items)):
        try:
            view = memoryview(items[i])
        except TypeError:
            return i
        except IndexError:
            raise RuntimeError("items became fewer while they were digested") from None
        if not view.c_contiguous or view.ndim > 1:
            return i
        target[i * width : (i + 1) * width] = one(view)
    return len(items)


def _flat(buffer: Any) -> memoryview:
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")  # zeros in a shape cannot be cast


def _algorithm(name: str) -> tuple[Callable[[Any], bytes], int]:
    if name not in _ALGORITHMS:
        raise ValueError(f"no kernel digests by {name!r}")
    return _ALGORITHMS[name]
