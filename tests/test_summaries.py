"""Hashed n-grams keep the contract, are what their formula says, and survive being stored."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import kernels
from hashmem.summaries import HashedNgrams, pack, row_scales
from hashmem.testing.summaries import TEXTS, SummaryContract
from hashmem.text import hash_words


def with_pairs():
    return HashedNgrams(dims=300, pair_weight=0.5)


class TestHashedNgrams(SummaryContract):
    factory = HashedNgrams


class TestHashedNgramsWithPairs(SummaryContract):
    factory = staticmethod(with_pairs)


@given(st.lists(st.text(max_size=60), max_size=4), st.integers(1, 40))
def test_rows_are_what_the_formula_says(texts, dims):
    rows = HashedNgrams(dims, pair_weight=0).encode(texts)
    hashed = hash_words(texts)
    for i, row in enumerate(rows):
        sums = np.zeros(dims)
        for h in hashed.hashes[hashed.offsets[i] : hashed.offsets[i + 1]].tolist():
            sums[(h >> 32) * dims >> 32] += 1 if h & 1 else -1
        damped = np.sign(sums) * np.log1p(np.abs(sums))
        length = np.linalg.norm(damped)
        np.testing.assert_allclose(row, damped / length if length else damped, atol=1e-6)


def test_both_kernels_give_the_same_bits():
    chosen = kernels.active
    try:
        made = []
        for name in kernels.available:
            kernels.select(name)
            made.append(HashedNgrams(128, 0.5).encode(TEXTS).tobytes())
        assert len(set(made)) == 1
    finally:
        kernels.select(chosen)


# What is stored under a name is compared with new rows for ever: a change needs a new name.
GOLDEN = ("hashed-ngrams-1-512-0", "7d71c6a896d5c9ed")


def test_stored_rows_of_a_name_never_change():
    method = HashedNgrams()
    digest = hashlib.sha256(pack(method.encode(TEXTS), method.dtype).tobytes()).hexdigest()
    assert (method.name, digest[:16]) == GOLDEN


def test_a_query_of_stop_words_asks_for_nothing():
    assert not HashedNgrams().encode_query("what is the").any()


@given(
    st.integers(1, 6).flatmap(
        lambda dims: st.lists(
            st.lists(st.floats(-1, 1, width=32), min_size=dims, max_size=dims), min_size=1
        )
    ),
    st.sampled_from([np.float32, np.float16, np.int8]),
)
def test_packing_keeps_the_direction(values, dtype):
    rows = np.array(values, np.float32)
    rows[np.abs(rows) < 1e-3] = 0
    packed = pack(rows, np.dtype(dtype))
    restored = packed.astype(np.float32) * row_scales(packed)[:, None]
    lengths = np.linalg.norm(rows, axis=1)
    units = np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=lengths[:, None] > 0)
    # Half a step of 127 in every value, and what that adds in length.
    np.testing.assert_allclose(restored, units, atol=1.5 * np.sqrt(rows.shape[1]) / 127)
    np.testing.assert_allclose(np.linalg.norm(restored, axis=1), lengths > 0, atol=1e-5)


@pytest.mark.parametrize(("dims", "weight"), [(0, 1), (-3, 1), (8, -1)])
def test_impossible_parameters_are_refused(dims, weight):
    with pytest.raises(ValueError, match="must be"):
        HashedNgrams(dims, weight)
