"""Hypothesis strategies for what tables and stores hold: digests, contents, metadata, records.

Everything is made from small integers by fixed functions, and from no random generator, so that
a failure shrinks to few digests and small numbers. Digest number i of a *kind* is
the same in every run: `number_digests`.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

__all__ = [
    "KINDS",
    "digest_batches",
    "digest_pools",
    "digests",
    "metadata",
    "number_digests",
    "payloads",
    "record_batches",
    "records",
]

Digests = NDArray[np.uint8]  # (n, width)
Record = tuple[bytes, dict[str, Any] | None]

# What weak hashes and careless comparisons stumble over; failures shrink towards the first.
KINDS = (
    "counters",  # small numbers, lowest byte first, zeros after them
    "common prefix",  # equal but for the last two bytes
    "common suffix",  # equal but for the first two bytes
    "equal low bits",  # equal in the first three and the last three bytes
    "one byte differs",  # equal but for one byte, wherever it is
    "zeros and ones",  # all zeros, all ones, and all but one bit of either
    "uniform",  # as good digests are
)
NUMBERS = 1 << 16  # digests of a kind: up to so many are distinct, where the kind has as many


def number_digests(numbers: Any, width: int, kind: str = "uniform", fill: int = 0) -> Digests:
    """Return digest number i of a kind for each of `numbers` (n,): uint8 (n, width).

    `fill`, 0 to 255, is the byte that digests of a kind have in common ("uniform": another set).
    Numbers below 65536 give distinct digests, but for "one byte differs" (255 · width + 1 of them)
    and "zeros and ones" (16 · width + 2), after which they repeat. Raises `ValueError` on another
    kind or a width below 8. O(n · width).

    >>> number_digests([0, 1, 258], width=8, kind="common suffix", fill=7)
    array([[0, 0, 7, 7, 7, 7, 7, 7],
           [1, 0, 7, 7, 7, 7, 7, 7],
           [2, 1, 7, 7, 7, 7, 7, 7]], dtype=uint8)
    """
    if width < 8:
        raise ValueError(f"width must be 8 bytes or more, got {width}")
    numbers = np.asarray(numbers, np.int64) % NUMBERS
    each = np.arange(len(numbers))
    two = numbers.astype("<u2").view(np.uint8).reshape(-1, 2)
    made = np.full((len(numbers), width), fill, np.uint8)
    if kind == "counters":
        made[:] = 0
        made[:, :2] = two
    elif kind == "common prefix":
        made[:, -2:] = two[:, ::-1]
    elif kind == "common suffix":
        made[:, :2] = two
    elif kind == "equal low bits":
        made[:, 3 : width - 3] = _mixed(numbers, width - 6, fill)
        made[:, 3:5] = two
    elif kind == "one byte differs":
        numbers = numbers % (255 * width + 1)
        made[each, (numbers - 1) % width] += (-(-numbers // width)).astype(np.uint8)
    elif kind == "zeros and ones":
        numbers = numbers % (16 * width + 2)
        made[:] = np.where(numbers % 2, 255, 0)[:, None]
        bit = np.maximum(numbers // 2 - 1, 0)
        made[each, bit // 8] ^= np.where(numbers < 2, 0, 1 << bit % 8).astype(np.uint8)
    elif kind == "uniform":
        made[:] = _mixed(numbers, width, fill)
    else:
        raise ValueError(f"there is no kind {kind!r} of digests: take one of {', '.join(KINDS)}")
    return made


def _mixed(numbers: NDArray[np.int64], width: int, fill: int) -> Digests:
    """Bytes (n, width) like random ones: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    lanes = np.arange(-(-width // 8), dtype=np.uint64)
    x = (numbers.astype(np.uint64)[:, None] << np.uint64(16)) + (lanes << np.uint64(8))
    x = (x + np.uint64(fill + 1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    made: Digests = (x ^ (x >> np.uint64(31))).astype("<u8").view(np.uint8)[:, :width]
    return made


# -- digests --------------------------------------------------------------------------------------


def _kinds(kind: str | None) -> st.SearchStrategy[str]:
    if kind not in (None, *KINDS):
        raise ValueError(f"there is no kind {kind!r} of digests: take one of {', '.join(KINDS)}")
    return st.sampled_from(KINDS) if kind is None else st.just(kind)


def digests(width: int, kind: str | None = None) -> st.SearchStrategy[bytes]:
    """Draw one digest, `bytes` of `width`, of a kind of `KINDS` or of any."""
    return st.builds(
        lambda kind, fill, number: number_digests([number], width, kind, fill).tobytes(),
        _kinds(kind),
        st.integers(0, 255),
        st.integers(0, NUMBERS - 1),
    )


@st.composite
def digest_batches(
    draw: st.DrawFn,
    width: int,
    kind: str | None = None,
    *,
    min_size: int = 0,
    max_size: int = 40,
    unique: bool = False,
) -> Digests:
    """Draw a batch of digests, uint8 (n, width), of one kind of `KINDS` or of any.

    Duplicates are frequent, unless `unique`. Shrinks to fewer digests, of lower numbers.
    """
    chosen, fill = draw(_kinds(kind)), draw(st.integers(0, 255))
    most = NUMBERS - 1 if unique else max(max_size, 1)
    numbers = st.integers(0, most)
    key = (lambda n: number_digests([n], width, chosen, fill).tobytes()) if unique else None
    drawn = draw(st.lists(numbers, min_size=min_size, max_size=max_size, unique_by=key))
    return number_digests(drawn, width, chosen, fill)


def digest_pools(
    width: int, size: int = 300, kind: str | None = None
) -> st.SearchStrategy[Digests]:
    """Draw `size` digests (size, width) of one kind, not all distinct, to choose batches from.

    The last is the first again; all zeros and all ones are among them. For large batches: only the
    kind shrinks.
    """

    def made(kind: str, fill: int) -> Digests:
        pool = number_digests(np.arange(size), width, kind, fill)
        pool[-3:] = [[0] * width, [255] * width, pool[0]]
        return pool

    return st.builds(made, _kinds(kind), st.integers(0, 255))


# -- records --------------------------------------------------------------------------------------


def payloads(largest: int = 1 << 16) -> st.SearchStrategy[bytes]:
    """Draw a content: empty, one of a few that come often, any short one, or up to `largest` bytes.

    Large ones repeat one byte, so that they shrink to a size and a byte.
    """
    return (
        st.sampled_from([b"", b"a", b"b"])
        | st.binary(max_size=16)
        | st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), sizes(largest))
    )


def sizes(largest: int) -> st.SearchStrategy[int]:
    """Draw a number of bytes, small and large ones alike."""
    return st.integers(0, min(64, largest)) | st.integers(0, largest)


def metadata() -> st.SearchStrategy[dict[str, Any]]:
    """Draw metadata: a map from text to what msgpack stores and gives back as it was."""
    one = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=8)
        | st.binary(max_size=8)
    )
    nested = st.recursive(
        one,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )
    return st.dictionaries(st.text(max_size=5), nested, max_size=4)


def records(largest: int = 1 << 16) -> st.SearchStrategy[Record]:
    """Draw a record: a content of up to `largest` bytes, and its metadata or None."""
    return st.tuples(payloads(largest), st.none() | metadata())


def record_batches(max_size: int = 12, largest: int = 1 << 16) -> st.SearchStrategy[list[Record]]:
    """Draw a list of records; equal contents in one batch are frequent, with other metadata."""
    return st.lists(records(largest), max_size=max_size)
