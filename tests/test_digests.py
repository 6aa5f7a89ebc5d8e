"""Digests: published vectors, agreement of the batch forms, and what bad input is told."""

import hashlib
import hmac

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hashmem import digest, digest_many
from hashmem.digests import WIDTHS, as_digests, hasher

algorithms = st.sampled_from(sorted(WIDTHS))
keys = st.none() | st.binary(min_size=1, max_size=64)
contents = st.lists(st.binary(max_size=200), max_size=20)

VECTORS = [  # (algorithm, key, content, digest): FIPS 180-4, xxHash's specification, RFC 4231
    ("sha256", None, b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("sha256", None, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        "sha256",
        None,
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    ("xxh3_64", None, b"", "2d06800538d394c2"),
    ("xxh3_64", None, b"abc", "78af5f94892f3950"),
    ("xxh3_128", None, b"", "99aa06d3014798d86001c324468d497f"),
    ("xxh3_128", None, b"abc", "06b05ab6733a618578af5f94892f3950"),
    (
        "sha256",
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        "sha256",
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
]


@pytest.mark.parametrize(("algorithm", "key", "content", "expected"), VECTORS)
def test_published_vectors(algorithm, key, content, expected):
    assert digest(content, algorithm, key=key).hex() == expected


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=64))
def test_each_algorithm_is_the_primitive_it_names(content, key):
    assert digest(content) == hashlib.sha256(content).digest()
    assert digest(content, "xxh3_64") == xxhash.xxh3_64(content).digest()
    assert digest(content, "xxh3_128") == xxhash.xxh3_128(content).digest()
    assert digest(content, key=key) == hmac.new(key, content, "sha256").digest()
    for name, width in (("xxh3_128", 16), ("xxh3_64", 8)):
        keyed = hashlib.blake2b(content, digest_size=width, key=key).digest()
        assert digest(content, name, key=key) == keyed


@given(contents, algorithms, keys)
def test_all_batch_forms_agree_with_one_at_a_time(items, algorithm, key):
    expected = [digest(item, algorithm, key=key) for item in items]
    offsets = np.cumsum([0, *map(len, items)])
    for made in (
        digest_many(items, algorithm, key=key),
        digest_many(iter(items), algorithm, key=key),
        digest_many([memoryview(i) for i in items], algorithm, key=key),
        digest_many(b"".join(items), algorithm, offsets=offsets, key=key),
    ):
        assert made.shape == (len(items), WIDTHS[algorithm])
        assert made.dtype == np.uint8
        assert [row.tobytes() for row in made] == expected


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["u1", "<i4", "S5", "<f8"]))
def test_an_array_has_one_item_a_row(rows, columns, dtype):
    array = np.arange(rows * columns).reshape(rows, columns).astype(dtype)
    expected = [digest(row.tobytes()) for row in array]
    assert [row.tobytes() for row in digest_many(array)] == expected
    flipped = array[::-1]  # rows that are not laid out one after the other
    assert [row.tobytes() for row in digest_many(flipped)] == expected[::-1]


def test_one_dimension_of_fixed_width_items():
    names = np.array([b"alpha", b"beta"], dtype="S5")
    assert digest_many(names)[1].tobytes() == digest(b"beta\0")


@pytest.mark.parametrize("algorithm", sorted(WIDTHS))
def test_a_bad_item_is_named(algorithm):
    with pytest.raises(TypeError, match=r"items\[2\].*got str.*encode"):
        digest_many([b"a", b"b", "c"], algorithm)
    with pytest.raises(TypeError, match=r"items\[0\].*got int"):
        digest_many([7], algorithm)
    with pytest.raises(TypeError, match=r"data: .*got ndarray"):
        digest(np.arange(10)[::2], algorithm)


@pytest.mark.parametrize("items", ["text", b"bytes", bytearray(3)])
def test_one_item_is_no_batch(items):
    with pytest.raises(TypeError, match="put it in a list"):
        digest_many(items)


@pytest.mark.parametrize("offsets", [[0, 5], [-1, 2], [2, 1], [], [[0]], [0.0, 1.0], [0, 3, 2]])
def test_offsets_that_lie(offsets):
    with pytest.raises(ValueError, match="offsets"):
        digest_many(b"abc", offsets=np.array(offsets))


def test_unknown_algorithms_and_bad_keys():
    with pytest.raises(ValueError, match=r"'md5'.*sha256"):
        digest(b"", "md5")
    with pytest.raises(ValueError, match="1 to 64 bytes, not 65"):
        hasher(key=b"k" * 65)
    with pytest.raises(ValueError, match="not 0"):
        hasher(key=b"")
    with pytest.raises(TypeError, match="not str"):
        hasher(key="secret")


def test_as_digests():
    array = np.arange(32, dtype=np.uint8).reshape(2, 16)
    assert as_digests(array, 16) is array
    assert np.array_equal(as_digests(list(map(bytes, array)), 16), array)
    assert np.array_equal(as_digests(bytes(array[0]), 16), array[:1])
    assert as_digests([], 16).shape == (0, 16)
    with pytest.raises(ValueError, match=r"starts: expected shape \(n, 8\)"):
        as_digests(array, 8, "starts")
    with pytest.raises(ValueError, match=r"digests\[1\].*16 bytes, this has 15"):
        as_digests([bytes(16), bytes(15)], 16)
    with pytest.raises(TypeError, match="fromhex"):
        as_digests(["ab" * 16], 16)
    with pytest.raises(TypeError, match="uint8"):
        as_digests(array.astype(np.int64), 16)
    with pytest.raises(TypeError, match="not int"):
        as_digests(7, 16)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_sha256_around_block_borders(count):
    text = bytes(range(256)) * 4
    for size in [0, 1, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 121, 128, 129, 1000]:
        items = [text[i : i + max(0, size - i % 2)] for i in range(count)]  # sizes differ by one
        expected = [hashlib.sha256(item).digest() for item in items]
        assert [row.tobytes() for row in digest_many(items)] == expected


def test_batches_larger_than_a_joined_block():
    items = [bytes([i % 251]) * (i * 37 % 9000) for i in range(400)] + [b"x" * 600_000, b""]
    assert [row.tobytes() for row in digest_many(items)] == [
        hashlib.sha256(item).digest() for item in items
    ]


@pytest.mark.parametrize("places", [[[0, 5]], [[-1, 2]], [[0, 1], [2, 1]], [[0.0, 1.0]]])
def test_places_that_lie(places):
    with pytest.raises(ValueError, match="offsets"):
        digest_many(b"abc", offsets=np.array(places))


def test_offsets_whose_steps_wrap_are_refused():
    for algorithm in WIDTHS:
        with pytest.raises(ValueError, match="look at position"):
            digest_many(b"abcdefgh", algorithm, offsets=np.array([0, 2**63 - 1, -2, 5]))


def test_a_row_of_a_batch_is_one_digest():
    rows = digest_many([b"a", b"b"])
    assert as_digests(rows[1], 32).tolist() == rows[1:].tolist()
