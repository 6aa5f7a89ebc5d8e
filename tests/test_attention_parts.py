"""attend and merge against attention written out in float64."""

import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hashmem.attention import Part, attend, merge, parts

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


@np.errstate(all="ignore")
def naive(q, k, v, mask=None, scale=None) -> tuple[Array, Array]:
    """Softmax attention in float64, all scores at once, keys repeated for their heads."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    if k.ndim > 2 and q.ndim > 2 and q.shape[-3] > k.shape[-3]:
        k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    if v.ndim > 2 and q.ndim > 2 and q.shape[-3] > v.shape[-3]:
        v = np.repeat(v, q.shape[-3] // v.shape[-3], axis=-3)
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = np.broadcast_to(
        scores, np.broadcast_shapes(scores.shape, (*v.shape[:-2], *scores.shape[-2:]))
    ).copy()
    if mask is not None:
        mask = np.asarray(mask)
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    output = (weights @ v) / np.where(total == 0, 1, total)
    return output, (top + np.log(total))[..., 0]


def close(part: Part, output: Array, lse: Array, size: float = 1.0, values: float = 1.0) -> None:
    """Compare to float32 accuracy for scores up to `size` and values up to `values`."""
    tolerance = 64 * float(np.finfo(part.output.dtype).eps) * max(size, 1.0)
    assert part.output.shape == output.shape
    assert part.lse.shape == lse.shape
    np.testing.assert_allclose(part.output, output, rtol=0, atol=tolerance * max(values, 1.0))
    np.testing.assert_allclose(part.lse, lse, rtol=0, atol=tolerance)


def largest(*arrays: Array) -> float:
    return max((float(np.abs(a).max(initial=0.0)) for a in arrays), default=0.0)


DTYPES = st.sampled_from([np.float16, np.float32, np.float64])


def floats_of(shape: tuple[int, ...], dtype: Any, bound: float = 8.0) -> st.SearchStrategy[Array]:
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, shape, elements=st.floats(-bound, bound, width=width))


@st.composite
def problems(draw, *, masks: bool = True, bound: float = 8.0):
    """Draw q, k, v, mask with heads, groups and a batch that may each be absent."""
    dtype = draw(DTYPES)
    queries, keys = draw(st.integers(0, 5)), draw(st.integers(0, 12))
    width, value_width = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    q_lead: tuple[int, ...] = ()
    kv_lead: tuple[int, ...] = ()
    if draw(st.booleans()):
        kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        q_lead, kv_lead = (kv_heads * group,), (kv_heads,)
        batch = draw(st.sampled_from([None, (2, 2), (2, 1), (1, 2), (0, 1)]))
        if batch:
            q_lead, kv_lead = (batch[0], *q_lead), (batch[1], *kv_lead)
        elif draw(st.booleans()):
            kv_lead = () if kv_heads == 1 else kv_lead
    q = draw(floats_of((*q_lead, queries, width), dtype, bound))
    k = draw(floats_of((*kv_lead, keys, width), dtype, bound))
    v = draw(floats_of((*kv_lead, keys, value_width), dtype))
    mask = None
    if masks and draw(st.booleans()):
        lead = np.broadcast_shapes(q_lead[:-1], kv_lead[:-1])
        full = (*lead, *q_lead[-1:], queries, keys)
        shape = tuple(n if draw(st.booleans()) else 1 for n in full)
        shape = shape[draw(st.integers(0, len(shape))) :]
        if draw(st.booleans()):
            mask = draw(hnp.arrays(np.bool_, shape))
        else:
            elements = st.floats(-8, 8, width=16) | st.just(-np.inf)
            mask = draw(hnp.arrays(dtype, shape, elements=elements))
    return q, k, v, mask


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three keys, so that few keys make many blocks."""
    monkeypatch.setattr(parts, "SCORES_PER_BLOCK", 1)
    monkeypatch.setattr(parts, "SMALLEST_BLOCK", 3)


with_small_blocks = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize(("block", "scores"), [(3, 1), (3, 24), (512, 1 << 20)])
@given(problems(), st.sampled_from([None, 0.5, -1.0, 0.0]))
def test_attend_is_softmax_attention(block, scores, problem, scale):
    """Whether keys, queries, both or none are taken in several blocks."""
    q, k, v, mask = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SCORES_PER_BLOCK", scores)
        patch.setattr(parts, "SMALLEST_BLOCK", block)
        part = attend(q, k, v, mask, scale)
    assert part.output.dtype == (np.float64 if q.dtype == np.float64 else np.float32)
    assert part.lse.dtype == np.float64
    size = largest(q) * largest(k) * q.shape[-1] + 8
    close(part, *naive(q, k, v, mask, scale), size, largest(v))


@given(st.data())
def test_merge_of_any_split_in_any_order_is_attention_to_all(data):
    q, k, v, _ = data.draw(problems(masks=False))
    number = data.draw(st.integers(1, 5))
    owner = data.draw(hnp.arrays(np.int64, k.shape[-2], elements=st.integers(0, number - 1)))
    split = [attend(q, k[..., owner == i, :], v[..., owner == i, :]) for i in range(number)]
    order = data.draw(st.permutations(split))
    cut = data.draw(st.integers(1, number))
    nested = [merge(order[:cut]), *order[cut:]]
    whole = attend(q, k, v)
    size, values = largest(q) * largest(k) * q.shape[-1] + 8, largest(v)
    close(merge(part for part in order), *whole, size, values)
    close(merge(nested), *whole, size, values)


@given(problems(bound=100.0))
def test_large_scores_keep_the_rounding_of_their_dtype(problem):
    q, k, v, mask = problem
    size = largest(q) * largest(k) * q.shape[-1] + 8  # up to 5e4
    close(attend(q, k, v, mask, 1.0), *naive(q, k, v, mask, 1.0), size, largest(v))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_half_precision_scores_do_not_saturate(dtype):
    q = np.full((1, 128), 60000, dtype)
    k = np.stack([np.full(128, 60000), np.full(128, -60000), np.full(128, 59000)]).astype(dtype)
    part = attend(q, k, np.array([[1.0], [2.0], [3.0]], dtype))
    assert part.output[0, 0] == 1
    scores = np.float64(q[0]) @ np.float64(k[0]) / np.sqrt(128)
    assert part.lse[0] == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize("score", [1e4, -1e4])
def test_scores_of_ten_thousand(score):
    q, k = np.full((1, 1), score, np.float32), np.array([[1.0], [1.0], [0.5]], np.float32)
    part = attend(q, k, np.array([[1.0], [3.0], [8.0]], np.float32), scale=1.0)
    expected = 2.0 if score > 0 else 8.0
    assert part.output[0, 0] == expected
    other = attend(q, k[:1], np.array([[5.0]], np.float32), scale=1.0)
    assert merge([part, other]).output[0, 0] == pytest.approx(3.0 if score > 0 else 8.0)


@pytest.mark.parametrize("mask", [None, np.ones((2, 0), bool), np.ones((2, 1), bool)])
def test_no_keys_is_an_empty_part(mask):
    part = attend(np.ones((2, 3)), np.ones((0, 3)), np.ones((0, 4)), mask)
    assert (part.output == 0).all()
    assert part.output.shape == (2, 4)
    assert np.isneginf(part.lse).all()
    both = merge([part, part])
    assert (both.output == 0).all()
    assert np.isneginf(both.lse).all()


@with_small_blocks
@pytest.mark.parametrize(("forbid", "allow"), [(False, True), (-np.inf, 0.0)])
def test_masked_rows_are_empty_and_leave_the_others_alone(forbid, allow):
    q, k, v = np.eye(2, 4, dtype=np.float32), np.eye(8, 4, dtype=np.float32), np.eye(8)
    part = attend(q, k, v, np.array([[forbid] * 8, [allow] * 8]))
    assert (part.output[0] == 0).all()
    assert np.isneginf(part.lse[0])
    close(Part(part.output[1:], part.lse[1:]), *naive(q[1:], k, v))
    whole = attend(q, k, v)
    merged = merge([part, attend(q, k, v, np.array([[allow] * 8, [forbid] * 8]))])
    np.testing.assert_allclose(merged.output, whole.output, rtol=1e-12)
    np.testing.assert_allclose(merged.lse, whole.lse, rtol=1e-12)


def test_merge_ignores_the_output_of_an_empty_row():
    """Other implementations leave NaN where nothing was attended to."""
    empty = Part(np.full((1, 2), np.nan), np.array([-np.inf]))
    full = Part(np.ones((1, 2)), np.array([0.5]))
    merged = merge([empty, full])
    assert (merged.output == 1).all()
    assert merged.lse[0] == 0.5
    assert (merge([empty]).output == 0).all()


def test_read_only_and_strided_arguments_are_left_as_they_are():
    q = np.arange(24, dtype=np.float32).reshape(2, 3, 4).swapaxes(0, 1)
    k = np.arange(80, dtype=np.float32).reshape(10, 2, 4).swapaxes(0, 1)[:, ::2]
    q.flags.writeable = k.flags.writeable = False
    before = q.copy(), k.copy()
    close(attend(q[:2], k, k), *naive(q[:2], k, k), 1e3, 80)
    assert (q == before[0]).all()
    assert (k == before[1]).all()


def test_one_key_set_serves_all_heads_and_batches():
    q = np.linspace(-1, 1, 2 * 4 * 3 * 5).reshape(2, 4, 3, 5)
    k, v = np.linspace(0, 1, 7 * 5).reshape(7, 5), np.linspace(2, 3, 7 * 2).reshape(7, 2)
    part = attend(q, k, v)
    assert part.output.shape == (2, 4, 3, 2)
    for index in np.ndindex(2, 4):
        close(Part(part.output[index], part.lse[index]), *naive(q[index], k, v))


def test_one_query_set_reads_several_key_sets():
    q, k = np.ones((3, 5)), np.linspace(0, 1, 4 * 7 * 5).reshape(4, 7, 5)
    assert attend(q, k, k).output.shape == (4, 3, 5)
    close(attend(q, k, k), *naive(q, k, k))
    close(attend(q, k[0], k), *naive(q, k[0], k))  # the keys are the same for all, values not


# What is refused. Each case: the argument to replace, its value, the error and words of it.

GOOD: dict[str, Any] = {
    "q": np.ones((4, 3, 2), np.float32),
    "k": np.ones((2, 5, 2), np.float32),
    "v": np.ones((2, 5, 6), np.float32),
}


def spoiled(name: str, index: tuple[int, ...], value: float) -> Array:
    array = GOOD[name].copy()
    array[index] = value
    return array


BAD = [
    ("q", spoiled("q", (1, 2, 0), np.nan), ValueError, r"q holds nan at \(1, 2, 0\)"),
    ("q", spoiled("q", (0, 0, 1), np.inf), ValueError, r"q holds inf at \(0, 0, 1\)"),
    ("k", spoiled("k", (1, 4, 1), np.nan), ValueError, r"k holds nan at \(1, 4, 1\)"),
    ("k", spoiled("k", (1, 4, 1), -np.inf), ValueError, r"k holds -inf at \(1, 4, 1\)"),
    ("v", spoiled("v", (0, 3, 5), np.inf), ValueError, r"v holds inf at \(0, 3, 5\)"),
    ("v", spoiled("v", (0, 3, 5), np.nan), ValueError, r"v holds nan at \(0, 3, 5\)"),
    ("q", GOOD["q"].astype(int), TypeError, "q has dtype int64.*float32"),
    ("k", GOOD["k"].astype(object), TypeError, "k has dtype object"),
    ("v", GOOD["v"].astype(bool), TypeError, "v has dtype bool"),
    ("v", GOOD["v"].astype(complex), TypeError, "v has dtype complex128"),
    ("q", np.ones(2), ValueError, r"q has shape \(2,\).*at least 2 axes"),
    ("q", np.ones((4, 3, 3)), ValueError, "q and k differ in width"),
    ("v", np.ones((2, 4, 6)), ValueError, "k and v differ in length"),
    ("q", np.ones((3, 3, 2)), ValueError, "3 query heads cannot share 2 key heads"),
    ("v", np.ones((3, 5, 6)), ValueError, "leading dimensions do not broadcast"),
    ("scale", np.inf, ValueError, "scale is inf"),
    ("scale", np.nan, ValueError, "scale is nan"),
    ("scale", "1", TypeError, "scale is '1'"),
    ("scale", 1e39, ValueError, "q times scale 1e.39 overflows float32.*float64"),
    ("mask", np.ones((3, 5), int), TypeError, "mask has dtype int64"),
    ("mask", np.ones((3, 4), bool), ValueError, r"mask has shape \(3, 4\).*\(4, 3, 5\)"),
    ("mask", np.ones((2, 4, 3, 5), bool), ValueError, "does not broadcast"),
    ("mask", np.where(np.eye(3, 5) > 0, np.nan, 0), ValueError, r"mask holds nan at \(0, 0\)"),
    ("mask", np.where(np.eye(3, 5, 2) > 0, np.inf, 0), ValueError, r"holds inf at \(0, 2\)"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD)
def test_bad_arguments_are_named(name, value, error, words):
    with pytest.raises(error, match=words):
        attend(**{**GOOD, name: value})


@pytest.mark.parametrize("name", ["k", "v"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("width", [1, 8, 64])
@settings(max_examples=10)
@given(st.data())
def test_a_bad_number_is_found_behind_zeros_and_masks(name, value, width, data):
    """It must show through a zero in the query and a zero weight, however BLAS multiplies."""
    arrays = {n: np.zeros((40, width), np.float32) for n in ("k", "v")}
    row, column = data.draw(st.integers(0, 39)), data.draw(st.integers(0, width - 1))
    arrays[name][row, column] = value
    queries = data.draw(st.sampled_from([1, 2, 9]))
    mask = np.ones((1, 40), bool)
    mask[0, row] = False
    with pytest.raises(ValueError, match=rf"{name} holds -?(nan|inf) at \({row}, {column}\)"):
        attend(np.zeros((queries, width), np.float32), **arrays, mask=mask)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("mask", [None, np.ones((1, 2), bool), np.zeros((1, 2))])
def test_scores_beyond_the_dtype_are_refused_not_taken_for_masked(sign, mask):
    q, k = np.full((1, 2), sign * 1e30, np.float32), np.full((2, 2), 1e30, np.float32)
    with pytest.raises(ValueError, match="q times k overflows float32.*float64"):
        attend(q, k, k, mask)
    close(attend(np.float64(q), k, np.ones((2, 2))), *naive(q, k, np.ones((2, 2))), 1e61)


def test_values_beyond_the_dtype_are_refused():
    v = np.full((4, 1), 3e38, np.float32)
    with pytest.raises(ValueError, match="weighted sum of v overflows float32"):
        attend(np.ones((1, 2), np.float32), np.ones((4, 2), np.float32), v)


PART = Part(np.ones((2, 3)), np.zeros(2))
BAD_MERGES = [
    ([], ValueError, "nothing to merge: pass at least one part"),
    (PART, TypeError, r"part 0 is of type ndarray.*merge\(\[part, other\]\)"),
    ([PART, (np.ones((2, 3)), np.zeros(2))], TypeError, "part 1 is of type tuple"),
    ([PART, Part(np.ones((3, 3)), np.zeros(3))], ValueError, r"part 1 has output \(3, 3\)"),
    ([PART, Part(np.ones((2, 4)), np.zeros(2))], ValueError, r"part 1 has output \(2, 4\)"),
    ([Part(np.ones((2, 3)), np.zeros(3))], ValueError, r"output \(2, 3\) and lse \(3,\)"),
    ([Part(np.ones((2, 3)), np.array([0, np.nan]))], ValueError, r"lse is nan at \(1,\)"),
    ([Part(np.ones((2, 3)), np.array([np.inf, 0]))], ValueError, r"lse is inf at \(0,\)"),
    ([Part(np.full((2, 3), np.nan), np.zeros(2))], ValueError, r"output is nan at \(0, 0\)"),
    ([Part(np.ones((2, 3), int), np.zeros(2))], TypeError, "part 0's output has dtype int64"),
]


@pytest.mark.parametrize(("bad", "error", "words"), BAD_MERGES)
def test_bad_merges_are_named(bad, error, words):
    with pytest.raises(error, match=words):
        merge(bad)


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_keys():
    q, k = np.ones((64, 4), np.float32), np.ones((1 << 18, 4), np.float16)
    scores = 64 * len(k) * 4  # 64 MiB as float32
    assert peak_bytes(lambda: attend(q, k, k, np.ones(len(k), bool))) < scores / 4


def test_grouped_heads_do_not_repeat_the_keys():
    q, k = np.ones((64, 1, 32), np.float32), np.ones((1, 1 << 14, 32), np.float32)
    repeated = 64 * k.nbytes  # 128 MiB
    assert peak_bytes(lambda: attend(q, k, k)) < repeated / 8
