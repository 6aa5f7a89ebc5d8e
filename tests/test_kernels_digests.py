"""The kernels of digests against hashlib and xxhash: every length, any mixture, under threads."""

import hashlib
import itertools
import random
import threading

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hashmem import digest, digest_many, kernels
from hashmem.digests import WIDTHS

ONE = {
    "sha256": lambda item: hashlib.sha256(item).digest(),
    "xxh3_64": xxhash.xxh3_64_digest,
    "xxh3_128": xxhash.xxh3_128_digest,
}
NOISE = random.Random(3).randbytes(1 << 17)
algorithms = pytest.mark.parametrize("algorithm", sorted(WIDTHS))
sets = pytest.mark.parametrize("kernel", kernels.available)
lengths = st.one_of(
    st.integers(0, 300),
    st.sampled_from([511, 512, 1023, 1024, 1025, 2048, 2049]),
    st.integers(0, 90_000),
)
makers = st.sampled_from([bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])


@pytest.fixture(autouse=True)
def restored():
    before = kernels.active
    yield
    kernels.select(before)


def definition(algorithm, items):
    return b"".join(map(ONE[algorithm], items))


@sets
@algorithms
def test_every_length(algorithm, kernel):
    kernels.select(kernel)
    items = [NOISE[length : 2 * length] for length in range(2001)]
    expected = definition(algorithm, items)
    assert digest_many(items, algorithm).tobytes() == expected
    random.Random(5).shuffle(items)  # messages side by side whose sizes differ
    assert digest_many(items, algorithm).tobytes() == definition(algorithm, items)


@sets
@algorithms
def test_every_alignment(algorithm, kernel):
    kernels.select(kernel)
    for skew in range(65):
        data = np.frombuffer(NOISE, np.uint8)[skew:]
        offsets = np.cumsum([0, *range(0, 280, 9), 1024, 3333])
        items = [NOISE[skew + a : skew + b] for a, b in itertools.pairwise(offsets)]
        made = digest_many(data, algorithm, offsets=offsets)
        assert made.tobytes() == definition(algorithm, items)
        listed = [memoryview(NOISE)[skew + a : skew + b] for a, b in itertools.pairwise(offsets)]
        assert digest_many(listed, algorithm).tobytes() == made.tobytes()


@given(
    st.sampled_from(sorted(WIDTHS)),
    st.lists(st.tuples(lengths, makers), max_size=80),
    st.booleans(),
)
def test_any_mixture(algorithm, drawn, as_tuple):
    items = [make(NOISE[i : i + length]) for i, (length, make) in enumerate(drawn)]
    expected = definition(algorithm, map(bytes, items))
    assert digest_many(tuple(items) if as_tuple else items, algorithm).tobytes() == expected


@sets
@algorithms
@pytest.mark.parametrize("width", [0, 1, 16, 64, 300])
def test_rows(algorithm, kernel, width):
    kernels.select(kernel)
    rows = np.frombuffer(NOISE, np.uint8)[: 301 * width].reshape(301, width)
    expected = definition(algorithm, map(bytes, rows))
    assert digest_many(rows, algorithm).tobytes() == expected
    assert digest_many(rows[::2], algorithm).tobytes() == definition(
        algorithm, map(bytes, rows[::2])
    )


@sets
@algorithms
def test_nothing_to_digest(algorithm, kernel):
    kernels.select(kernel)
    for empty in ([], (), iter([]), np.empty((0, 7), np.uint8)):
        assert digest_many(empty, algorithm).shape == (0, WIDTHS[algorithm])
    assert digest_many(b"", algorithm, offsets=np.array([0])).shape == (0, WIDTHS[algorithm])


@sets
@algorithms
@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 2047, 2048, 9000])
def test_what_is_not_bytes_is_named(algorithm, kernel, at):
    kernels.select(kernel)
    for wrong in ("text", 7, None, memoryview(b"abcdef")[::2], [b"a"], np.arange(9)[::3]):
        items = [b"abc"] * 10_000
        items[at] = wrong
        with pytest.raises(TypeError, match=rf"items\[{at}\]: .*got {type(wrong).__name__}"):
            digest_many(items, algorithm)


class Named(bytes):
    """A subclass of bytes."""


@sets
@algorithms
def test_what_one_takes_many_take(algorithm, kernel):
    kernels.select(kernel)
    grid = np.arange(6, dtype=np.uint8).reshape(2, 3)
    strange = [Named(b"abc"), np.arange(5), memoryview(grid), grid, grid.T, np.float32(2), b""]
    for item in strange:
        try:
            expected = digest(item, algorithm)
        except TypeError:
            with pytest.raises(TypeError, match=r"items\[1\]"):
                digest_many([b"before", item, b"after"], algorithm)
        else:
            assert digest_many([b"before", item, b"after"], algorithm)[1].tobytes() == expected


@algorithms
def test_others_may_change_and_drop_the_items(algorithm):
    """What stays must be digested right; the rest may be anything, but nothing may crash."""
    stop = threading.Event()
    kept = [NOISE[i : i + 40 + i] for i in range(100)]
    items = []

    def disturb():
        dice = random.Random(7)
        while not stop.is_set():
            for _ in range(50):
                at = 1 + 2 * dice.randrange(2000)
                size = dice.randrange(3000)
                items[at] = bytearray(size) if dice.random() < 0.5 else dice.randbytes(size)
                changed = items[1 + 2 * dice.randrange(2000)]
                try:
                    if isinstance(changed, bytearray) and changed:
                        changed[0] ^= 1
                        changed.extend(b"more" * 100)
                except BufferError:  # it is held while it is digested
                    pass

    for i in range(4001):
        items.append(kept[i // 2 % 100] if i % 2 == 0 else bytearray(1000))
    expected = [ONE[algorithm](item) for item in kept]
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(15):
            made = digest_many(items, algorithm)
            assert all(made[i].tobytes() == expected[i // 2 % 100] for i in range(0, 4001, 2))
    finally:
        stop.set()
        thread.join()


@algorithms
def test_a_list_that_becomes_shorter_is_an_error_or_whole(algorithm):
    items = [b"x" * 500] * 40_000

    def shorten():
        del items[100:]

    thread = threading.Timer(0.0005, shorten)
    thread.start()
    try:
        made = digest_many(items, algorithm)
    except (RuntimeError, ValueError) as error:
        assert "items" in str(error)  # noqa: PT017 either outcome is right
    else:
        assert made.tobytes() == ONE[algorithm](b"x" * 500) * len(made)
    thread.join()


@sets
@algorithms
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=600))
def test_pieces_that_lie_apart(algorithm, kernel, ends):
    kernels.select(kernel)
    ends = [tuple(sorted(pair)) for pair in ends]  # in any order, over each other, empty
    items = [NOISE[start:stop] for start, stop in ends]
    offsets = np.array(ends, np.int64).reshape(-1, 2)
    assert digest_many(NOISE, algorithm, offsets=offsets).tobytes() == definition(algorithm, items)


# What the kernels refuse.


@sets
@pytest.mark.parametrize(
    ("pieces", "offsets"),
    [
        *((1, offsets) for offsets in ([0, 9], [2, 1], [-1, 2], [0], [0, 1, 2])),
        (1, [2**62, 2**63 - 1]),
        *((2, ends) for ends in ([[0, 3], [1, 4]], [[0, 1], [2, 1]], [[-1, 2], [0, 1]])),
    ],
)
def test_offsets_that_lie(kernel, pieces, offsets):
    kernels.select(kernel)
    for algorithm, width in WIDTHS.items():
        out = np.zeros((pieces, width), np.uint8)
        try:
            could = kernels.current.digest_pieces(algorithm, b"abc", np.array(offsets), out)
        except ValueError:
            could = False  # what it says, too, where the CPU lacks the instructions
        assert could is False
        assert not out.any()


@pytest.mark.skipif("native" not in kernels.available, reason="the compiled kernels are not there")
def test_other_lies():
    kernels.select("native")
    pieces, items = kernels.current.digest_pieces, kernels.current.digest_items
    out = bytearray(16)
    for wrong in (2, 2**63, 2**64 - 1, 2**64, -1):  # rows beyond the data, wrapping when multiplied
        with pytest.raises((ValueError, OverflowError)):
            pieces("xxh3_64", b"abc", wrong, out)
    for at in (-1, 3, 2**70):
        with pytest.raises((ValueError, OverflowError)):
            items("xxh3_64", [b"a", b"b"], at, out)
    with pytest.raises(ValueError, match="room for 2"):
        items("xxh3_64", [b"a"], 0, out)
    with pytest.raises(ValueError, match="'md5'"):
        items("md5", [b"a"], 0, out)
    with pytest.raises(TypeError, match="list or a tuple"):
        items("xxh3_64", {b"a": 1}, 0, out)
    with pytest.raises(ValueError, match="overlap"):
        pieces("xxh3_64", out, 8, out)
    assert out == bytes(16)
