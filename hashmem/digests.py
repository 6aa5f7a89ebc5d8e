"""Bytes → digest: the address of every record.

========== ===== =========================== =======================================
algorithm  bytes plain                       with a key
========== ===== =========================== =======================================
sha256     32    SHA-256 (FIPS 180-4)        HMAC-SHA-256 (RFC 2104)
xxh3_128   16    XXH3 128 bits, canonical    BLAKE2b of 16 bytes, keyed (RFC 7693)
xxh3_64    8     XXH3 64 bits, canonical     BLAKE2b of 8 bytes, keyed (RFC 7693)
========== ===== =========================== =======================================

XXH3 is no cryptographic hash: anyone can make two contents with one digest, and no seed prevents
it. Take sha256 where contents may come from somebody else. A key makes every algorithm resist
that as far as its width goes (at 8 bytes 2^32 attempts find a pair), which is why the keyed forms
of the two short ones are BLAKE2b. All functions here are pure and safe in any number of threads.
"""

import hashlib
import hmac
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from hashmem import kernels

__all__ = ["WIDTHS", "BytesLike", "Digests", "as_digests", "digest", "digest_many", "hasher"]

BytesLike = bytes | bytearray | memoryview | NDArray[Any]
Digests = NDArray[np.uint8]  # (n, width)

WIDTHS: Final = {"sha256": 32, "xxh3_128": 16, "xxh3_64": 8}  # bytes a digest
KEY_LIMIT: Final = 64  # bytes: the longest key BLAKE2b takes, and a block of SHA-256


def hasher(algorithm: str = "sha256", *, key: bytes | None = None) -> Callable[[Any], bytes]:
    """Return the function content → digest of `algorithm`, under `key` where one is given.

    Raises `ValueError` on an unknown algorithm or a key that is not 1 to 64 bytes long, and
    `TypeError` on a key that is not bytes. The function raises `TypeError` on what is not
    contiguous bytes-like.

    >>> hasher("xxh3_64")(b"abc").hex()
    '78af5f94892f3950'
    """
    if algorithm not in WIDTHS:
        raise ValueError(f"unknown algorithm {algorithm!r}: take one of {', '.join(WIDTHS)}")
    if key is None:
        return _PLAIN[algorithm]
    if not isinstance(key, bytes):
        raise TypeError(f"a digest key is bytes, not {type(key).__name__}")
    if not 1 <= len(key) <= KEY_LIMIT:
        raise ValueError(f"a digest key has 1 to {KEY_LIMIT} bytes, not {len(key)}")
    if algorithm == "sha256":
        return lambda data: hmac.digest(key, data, "sha256")
    width = WIDTHS[algorithm]
    return lambda data: hashlib.blake2b(data, digest_size=width, key=key).digest()


def digest(data: BytesLike, algorithm: str = "sha256", *, key: bytes | None = None) -> bytes:
    """Return the digest of `data`: 32, 16 or 8 bytes. O(len(data)).

    Raises as `hasher` does.

    >>> digest(b"abc").hex()[:16]
    'ba7816bf8f01cfea'
    """
    one = hasher(algorithm, key=key)
    try:
        return one(data)
    except _NOT_BYTES:
        raise _not_bytes(data, "data") from None


def digest_many(
    items: Iterable[BytesLike] | BytesLike,
    algorithm: str = "sha256",
    *,
    offsets: NDArray[np.integer[Any]] | None = None,
    key: bytes | None = None,
) -> Digests:
    """Return the digests of many items as uint8 (n, width), without copying an item.

    `items` is one of

    - an iterable of bytes-like objects;
    - a NumPy array of one or more dimensions: each row (entry of the first axis) is an item, made
      of that row's bytes in memory;
    - with `offsets`, one contiguous bytes-like buffer: item i is bytes ``offsets[i]`` up to
      ``offsets[i + 1]``, `offsets` being n + 1 integers that never decrease and stay
      within the buffer; or, of shape (n, 2), from ``offsets[i, 0]`` up to ``offsets[i, 1]``, in any
      order.

    O(total bytes). Raises as `hasher` does; `TypeError` names the position of an item that is not
    bytes-like, `ValueError` offsets that lie.

    >>> digest_many([b"a", b"b"], algorithm="xxh3_128").shape
    (2, 16)
    >>> np.array_equal(digest_many(b"ab", offsets=np.array([0, 1, 2])), digest_many([b"a", b"b"]))
    True
    """
    one = hasher(algorithm, key=key)
    contents = _Slices(items, offsets) if offsets is not None else _contents(items)
    if key is None:
        return _plain_many(contents, algorithm)
    try:
        done = bytearray().join(map(one, contents))
    except _NOT_BYTES:
        position, culprit = _find_culprit(one, contents)
        raise _not_bytes(culprit, f"items[{position}]") from None
    return np.frombuffer(done, np.uint8).reshape(-1, WIDTHS[algorithm])


def as_digests(digests: Any, width: int, what: str = "digests") -> Digests:
    """Return `digests` as a C-contiguous uint8 (n, width) array, copying only where it must.

    Takes such an array, one digest as bytes or as a row (width,), or a sequence of bytes. Raises
    `ValueError` on another width or shape, `TypeError` on another type; both name the position.

    >>> as_digests([b"12345678"], 8).shape
    (1, 8)
    """
    if isinstance(digests, np.ndarray):
        if digests.dtype != np.uint8:
            raise TypeError(f"{what}: expected a uint8 array, got {digests.dtype}")
        if digests.shape == (width,):
            digests = digests[None]  # a row of a batch: one digest
        if digests.ndim != 2 or digests.shape[1] != width:
            raise ValueError(f"{what}: expected shape (n, {width}), got {digests.shape}")
        return np.ascontiguousarray(digests)
    if isinstance(digests, bytes | bytearray | memoryview):
        digests = [digests]
    try:
        listed = list(digests)
    except TypeError:
        raise TypeError(
            f"{what}: expected a uint8 array (n, {width}) or digests of {width} bytes, "
            f"not {type(digests).__name__}"
        ) from None
    for i, item in enumerate(listed):
        if not isinstance(item, bytes | bytearray | memoryview):
            hint = "; call bytes.fromhex on hexadecimal text" if isinstance(item, str) else ""
            raise TypeError(
                f"{what}[{i}]: a digest is {width} bytes, not {type(item).__name__}{hint}"
            )
        if len(item) != width:
            raise ValueError(f"{what}[{i}]: a digest here has {width} bytes, this has {len(item)}")
    return np.frombuffer(b"".join(listed), np.uint8).reshape(-1, width)


def _sha256(data: Any) -> bytes:
    return hashlib.sha256(data).digest()


_PLAIN: Final[dict[str, Callable[[Any], bytes]]] = {
    "sha256": _sha256,
    "xxh3_128": xxhash.xxh3_128_digest,
    "xxh3_64": xxhash.xxh3_64_digest,
}


def _contents(items: Any) -> Any:
    """The items to hash, as something that can be gone through twice."""
    if isinstance(items, np.ndarray):
        if items.ndim < 1 or items.dtype.hasobject:
            raise TypeError("items: an array has one item a row, so at least one axis, no objects")
        rows = np.ascontiguousarray(items)  # a copy only where the rows are not contiguous
        if rows.size == 0:  # a memoryview cannot be cast to no bytes
            return [b""] * len(rows)
        return rows.reshape(len(rows), -1).view(np.uint8)
    if isinstance(items, str | bytes | bytearray | memoryview):
        raise TypeError(
            f"items: expected many bytes-like objects, got one {type(items).__name__}; "
            "put it in a list, or give offsets"
        )
    return items if isinstance(items, list | tuple) else list(items)


def _plain_many(contents: Any, algorithm: str) -> Digests:
    """The digests without a key, by the kernels; by hashlib where the CPU lacks instructions."""
    out = np.empty((len(contents), WIDTHS[algorithm]), np.uint8)
    if isinstance(contents, list | tuple):
        _digest_items(contents, algorithm, out)
        return out
    data, offsets = (
        (contents.view, contents.bounds)
        if isinstance(contents, _Slices)
        else (contents, contents.shape[1])  # bytes a row
    )
    if not kernels.current.digest_pieces(algorithm, data, offsets, out):
        kernels.reference.digest_pieces(algorithm, data, offsets, out)
    return out


def _digest_items(items: Any, algorithm: str, out: Digests) -> None:
    one, kernel, at = _PLAIN[algorithm], kernels.current.digest_items, 0
    while at < len(out):
        at = kernel(algorithm, items, at, out)
        if at < 0:
            kernel, at = kernels.reference.digest_items, 0
        elif at < len(out):  # here is what kernels do not take: it may be bytes-like all the same
            try:
                item = items[at]
            except IndexError:
                raise RuntimeError("items became fewer while they were digested") from None
            try:
                out[at] = np.frombuffer(one(item), np.uint8)
            except _NOT_BYTES:
                raise _not_bytes(item, f"items[{at}]") from None
            at += 1


class _Slices:
    """The pieces of one buffer between offsets, made when asked for."""

    def __init__(self, buffer: Any, offsets: Any) -> None:
        self.view = memoryview(buffer).cast("B")
        bounds = np.array(offsets)  # a copy, as what is checked stays
        apart = bounds.ndim == 2 and bounds.shape[1] == 2
        if not (apart or (bounds.ndim == 1 and len(bounds))) or bounds.dtype.kind not in "iu":
            raise ValueError("offsets: expected n + 1 integers in one dimension, or (n, 2)")
        wrong = (bounds < 0) | (bounds > len(self.view))
        if apart:
            wrong[:, 0] |= bounds[:, 0] > bounds[:, 1]
        else:
            wrong[:-1] |= bounds[:-1] > bounds[1:]
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"offsets: each must be 0 to {len(self.view)}, the buffer's bytes, and not below "
                f"the one before it in a piece; look at position {at // 2 if apart else at}, which "
                f"is {bounds.ravel()[at]}"
            )
        self.bounds = bounds.astype(np.int64, copy=False)
        self.count = len(bounds) if apart else len(bounds) - 1

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[memoryview]:
        view, bounds = self.view, self.bounds.tolist()
        pairs = bounds if self.bounds.ndim == 2 else itertools.pairwise(bounds)
        return (view[a:b] for a, b in pairs)


_NOT_BYTES = (TypeError, BufferError, ValueError)  # what hashlib, NumPy and xxhash answer


def _find_culprit(one: Callable[[Any], bytes], contents: Any) -> tuple[int, Any]:
    for position, item in enumerate(contents):
        try:
            one(item)
        except _NOT_BYTES:
            return position, item
    raise RuntimeError("an item changed while it was being digested")


def _not_bytes(item: Any, where: str) -> TypeError:
    hint = "; encode text first, for example with .encode()" if isinstance(item, str) else ""
    return TypeError(
        f"{where}: expected contiguous bytes-like content, got {type(item).__name__}{hint}"
    )
