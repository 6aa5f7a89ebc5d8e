"""Packs: what is built is read back, what is damaged or made up is refused, runs fit."""

import itertools
import struct
import tracemalloc

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hashmem.errors import CorruptStoreError
from hashmem.store import packs
from hashmem.store.packs import PACK_LIMIT, build, cut, parse

HEADER = struct.Struct("<4sHHIIQQQII")

rows_of = st.one_of(
    st.integers(0, 2**40).flatmap(
        lambda first: st.integers(0, 20).map(lambda n: list(range(first, first + n)))
    ),
    st.lists(st.integers(0, 2**40), max_size=20),
)


@given(rows_of, st.data(), st.booleans())
def test_what_is_built_is_read_back(rows, data, fixed):
    rows = np.array(rows, np.int64)
    if fixed:
        size = data.draw(st.integers(1, 9))
        items = [data.draw(st.binary(min_size=size, max_size=size)) for _ in rows]
        lengths = size
        expected = [size] * len(rows)
    else:
        items = [data.draw(st.none() | st.binary(max_size=9)) for _ in rows]
        expected = [-1 if item is None else len(item) for item in items]
        lengths = np.array(expected, np.int64)
    items = [item or b"" for item in items]
    one = [(0, 3), (2, 3)] if len(rows) == 1 else []  # of an item in parts, a pack has one
    part, parts = data.draw(st.sampled_from([(0, 1), *one]))
    index, body = build(7, rows, lengths, items, part, parts)
    pack = parse(memoryview(index), 7)
    assert pack.rows.tolist() == rows.tolist()
    assert pack.lengths.tolist() == expected
    assert (pack.part, pack.parts, pack.body_bytes) == (part, parts, len(body))
    assert pack.is_sound(memoryview(body))
    sizes = np.maximum(pack.lengths, 0)
    found = [body[o : o + s] for o, s in zip(pack.offsets, sizes, strict=True)]
    assert found == items


def sample(rows, fixed):
    lengths = 3 if fixed else np.full(len(rows), 3)
    return build(7, np.array(rows, np.int64), lengths, [b"abc"] * len(rows))


@pytest.mark.parametrize("rows", [[], [5], [5, 6, 7], [9, 2, 2, 40]])
@pytest.mark.parametrize("fixed", [False, True])
def test_every_flipped_bit_and_lost_byte_is_noticed(rows, fixed):
    index, body = sample(rows, fixed)
    for at in range(8 * len(index)):
        damaged = bytearray(index)
        damaged[at // 8] ^= 1 << at % 8
        try:
            pack = parse(memoryview(damaged), 7)
        except CorruptStoreError:
            continue
        assert 56 <= at // 8 < 64  # only the body's checksum says nothing of the index
        assert not pack.is_sound(memoryview(body))
    for size in range(len(index)):
        with pytest.raises(CorruptStoreError):
            parse(memoryview(index[:size]), 7)
    with pytest.raises(CorruptStoreError):
        parse(memoryview(index + b"\0"), 7)
    with pytest.raises(CorruptStoreError, match="no pack of column 8"):
        parse(memoryview(index), 8)
    pack = parse(memoryview(index), 7)
    for at in range(8 * len(body)):
        damaged = bytearray(body)
        damaged[at // 8] ^= 1 << at % 8
        assert not pack.is_sound(memoryview(damaged))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(noise):
    with pytest.raises(CorruptStoreError):
        parse(memoryview(noise), 7)


numbers = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 3, 2**31, 2**48, 2**63, 2**64 - 1])
small = st.integers(0, 2**32 - 1) | st.integers(0, 4)


@given(
    flags=st.integers(0, 3), size=small, count=numbers | st.integers(0, 4), first=numbers,
    body_bytes=numbers, part=small, parts=small, arrays=st.binary(max_size=60),
)  # fmt: skip
def test_a_lie_with_the_right_checksum_is_refused_without_much_memory(
    flags, size, count, first, body_bytes, part, parts, arrays
):
    header = HEADER.pack(b"HMPK", 1, 7, flags, size, count, first, body_bytes, part, parts)
    sums = struct.pack("<QQ", xxhash.xxh3_64_intdigest(header + arrays), 0)
    tracemalloc.start()
    try:
        pack = parse(memoryview(header + sums + arrays), 7)
        assert len(pack.rows) == len(pack.lengths) == count
        assert np.maximum(pack.lengths, 0).sum() == body_bytes
    except CorruptStoreError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 300 << 20


@pytest.mark.parametrize("size", [0, 1, 2**31])
@pytest.mark.parametrize("count", [2**30, 2**62])
def test_a_made_up_count_does_not_take_memory(size, count):
    header = HEADER.pack(b"HMPK", 1, 7, 3, size, count, 0, (size * count) % 2**64, 0, 1)
    sums = struct.pack("<QQ", xxhash.xxh3_64_intdigest(header), 0)
    tracemalloc.start()
    with pytest.raises(CorruptStoreError, match="claims"):
        parse(memoryview(header + sums), 7)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@given(st.lists(st.integers(-1, 40), max_size=60), st.integers(1, 50))
def test_runs_cover_everything_and_fit(lengths, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PACK_LIMIT", limit)
        runs = cut(np.array(lengths, np.int64))
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(lengths)))
    for start, stop in runs:
        assert stop - start == 1 or sum(max(n, 0) for n in lengths[start:stop]) <= limit
    for (start, stop), (_, after) in itertools.pairwise(runs):  # none could have gone on
        assert after > stop
        assert sum(max(n, 0) for n in lengths[start : stop + 1]) > limit


def test_the_limit_is_what_the_documentation_says():
    assert PACK_LIMIT == 4 << 20
