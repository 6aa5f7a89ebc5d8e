"""attend_chunks: what it selects, captures and promises, against full attention in float64."""

import inspect
import json
import re
import textwrap
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hashmem.attention import attend, attend_chunks, chunk_boxes, merge

Array = np.ndarray[Any, Any]


def full(q: Array, keys: Array, values: Array, **more: Any) -> Array:
    return attend(np.float64(q), np.float64(keys), np.float64(values), **more).output


def exact_share(q: Array, keys: Array, read: Array, scale: float | None = None) -> Array:
    """Share of the softmax mass on the keys marked in `read`, in float64, all scores at once."""
    scores = np.float64(q) @ np.float64(keys).T * (q.shape[-1] ** -0.5 if scale is None else scale)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    kept, left = weights[..., read].sum(axis=-1), weights[..., ~read].sum(axis=-1)
    return kept / (kept + left)  # exactly 0 and 1 where none and all are read


def rows_of(selected: Array, offsets: Array) -> Array:
    return np.isin(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), selected)


def error(result: Any, output: Array) -> Array:
    return np.sqrt(((result.output - output) ** 2).sum(axis=-1))


@st.composite
def memories(draw, dtype=None):
    """Draw q, keys, values and offsets of up to six chunks, some of them empty."""
    dtype = dtype or draw(st.sampled_from([np.float16, np.float32, np.float64]))
    lengths = draw(st.lists(st.integers(0, 4), max_size=6))
    width, value_width, queries = (draw(st.integers(1, 4)) for _ in range(3))
    elements = st.floats(-6, 6, width=16)
    return (
        draw(hnp.arrays(dtype, (queries, width), elements=elements)),
        draw(hnp.arrays(dtype, (sum(lengths), width), elements=elements)),
        draw(hnp.arrays(dtype, (sum(lengths), value_width), elements=elements)),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


@given(memories(), st.sampled_from(["exact", "boxes"]), st.integers(0, 3), st.booleans())
def test_all_chunks_selected_is_full_attention(memory, mass, extra, summarised):
    q, keys, values, offsets = memory
    chunks = len(offsets) - 1
    summaries = np.ones((chunks, q.shape[-1])) if summarised else None
    result = attend_chunks(
        q, keys, values, offsets, top=chunks + extra, mass=mass, summaries=summaries
    )
    np.testing.assert_allclose(result.output, full(q, keys, values), atol=1e-3, rtol=0)
    assert (result.selected == np.arange(chunks)).all()
    assert (result.captured == 1).all()
    assert (result.bound == 0).all()


@given(memories(), st.integers(0, 6), st.sampled_from([None, 1.0, -0.5]))
def test_captured_and_bound_hold(memory, top, scale):
    q, keys, values, offsets = memory
    boxes = chunk_boxes(keys, values, offsets)
    exact = attend_chunks(q, keys, values, offsets, top=top, scale=scale)
    cheap = attend_chunks(q, keys, values, offsets, top=top, scale=scale, mass="boxes", boxes=boxes)
    assert (exact.selected == cheap.selected).all()
    assert len(exact.selected) == min(top, len(offsets) - 1)
    np.testing.assert_array_equal(exact.output, cheap.output)
    assert (exact.bound <= cheap.bound + 1e-4).all()
    difference = error(exact, full(q, keys, values, scale=scale))
    assert (difference <= exact.bound + 1e-3).all()
    assert (difference <= cheap.bound + 1e-3).all()
    if len(keys):
        share = exact_share(q, keys, rows_of(exact.selected, offsets), scale)
        np.testing.assert_allclose(exact.captured, share, atol=1e-4, rtol=0)
        assert (cheap.captured <= exact.captured).all()
        assert (cheap.captured <= share * (1 + 1e-15)).all()  # certified, float32 or not
    else:
        assert (exact.captured == 1).all()


@given(memories(), st.integers(0, 6), st.integers(0, 3), st.sampled_from(["exact", "boxes"]))
def test_local_attention_is_merged_and_counted(memory, top, local_keys, mass):
    q, keys, values, offsets = memory
    local_keys = min(local_keys, len(keys))
    local = (keys[:local_keys] / 2, values[:local_keys] * 3)
    mask = np.ones((len(q), local_keys), bool)
    mask[0] = False
    result = attend_chunks(q, keys, values, offsets, top=top, local=(*local, mask), mass=mass)
    everything = np.concatenate([keys, local[0]]), np.concatenate([values, local[1]])
    whole_mask = np.concatenate([np.ones((len(q), len(keys)), bool), mask], axis=1)
    difference = error(result, full(q, *everything, mask=whole_mask))
    assert (difference <= result.bound + 3e-3).all()
    alone = attend_chunks(q, keys, values, offsets, top=top)
    expected = merge([alone.part, attend(q, *local, mask)])
    np.testing.assert_array_equal(result.output, expected.output)
    np.testing.assert_array_equal(result.part.lse, expected.lse)


@given(memories(dtype=np.float64))
def test_a_box_bounds_every_key_in_it(memory):
    _, keys, values, offsets = memory
    assume(len(keys))
    boxes = chunk_boxes(keys, values, offsets)
    chunk = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    assert (boxes.lower[chunk] <= keys).all()
    assert (boxes.upper[chunk] >= keys).all()
    assert (boxes.norms[chunk] >= np.linalg.norm(values, axis=1) * (1 - 1e-12)).all()
    for c in np.unique(chunk):  # and no wider than it must be
        assert (boxes.lower[c] == keys[chunk == c].min(axis=0)).all()
        assert (boxes.upper[c] == keys[chunk == c].max(axis=0)).all()
    assert boxes.lengths.tolist() == np.diff(offsets).tolist()


# Real text: the chunks are runs of lines of this machine's own Python standard library, their
# keys the hashed token counts of each line, their values those of the line that follows.

WIDTH = 32


def line_vectors(source: str) -> Array:
    """Return hashed token counts of each line that has any, of length 1: (lines, WIDTH)."""
    rows = []
    for line in source.splitlines():
        row = np.zeros(WIDTH, np.float32)
        for token in re.findall(r"\w+", line):
            row[zlib.crc32(token.encode()) % WIDTH] += 1
        if row.any():
            rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.fixture(scope="module")
def library() -> tuple[Array, Array, Array]:
    """Keys (n, WIDTH), values (n, WIDTH) and offsets of chunks of 16 lines."""
    vectors = line_vectors("".join(inspect.getsource(m) for m in (json.decoder, textwrap, re)))
    keys, values = vectors[:-1], vectors[1:]
    offsets = np.append(np.arange(0, len(keys), 16), len(keys))
    return keys, values, offsets


@pytest.mark.parametrize("scale", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("top", [1, 4, 16])
@pytest.mark.parametrize("by", ["boxes", "means"])
def test_bounds_on_real_text(library, scale, top, by):
    keys, values, offsets = library
    q = line_vectors("def raw_decode(self, s, idx=0):\nself.width = width\nreturn lines")
    boxes = chunk_boxes(keys, values, offsets)
    means = np.add.reduceat(keys, offsets[:-1]) / np.diff(offsets)[:, None]
    given_boxes = {"boxes": boxes, "summaries": means if by == "means" else None}
    output = full(q, keys, values, scale=scale)
    for mass in ("exact", "boxes"):
        result = attend_chunks(
            q, keys, values, offsets, top=top, scale=scale, mass=mass, **given_boxes
        )
        share = exact_share(q, keys, rows_of(result.selected, offsets), scale)
        assert (error(result, output) <= result.bound + 1e-5).all()
        assert (result.bound <= 2 * np.linalg.norm(values, axis=1).max() * (1 + 1e-6)).all()
        if mass == "exact":
            np.testing.assert_allclose(result.captured, share, rtol=1e-5)
        else:
            assert (result.captured <= share).all()
            assert (result.captured > 0).all()


def test_certified_mass_reads_nothing_that_is_left_out(library):
    """Keys and values left out may be anything, even NaN: they are not looked at."""
    keys, values, offsets = (x.copy() for x in library)
    q = keys[:1] * 20
    boxes = chunk_boxes(keys, values, offsets)
    want = attend_chunks(q, keys, values, offsets, top=3, boxes=boxes, mass="boxes")
    left_out = ~rows_of(want.selected, offsets)
    keys[left_out], values[left_out] = np.nan, np.nan
    got = attend_chunks(q, keys, values, offsets, top=3, boxes=boxes, mass="boxes")
    for field, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(field, expected)


def test_certified_mass_allows_for_the_rounding_of_large_scores(library):
    """Chunks of one key, where a box is exact and only float32 rounding could break the bound."""
    keys, values, _ = library
    keys, q = keys * 50, keys[::5] * 50  # scores up to 2500, off by up to 1e-4
    offsets = np.arange(len(keys) + 1)
    result = attend_chunks(q, keys, values, offsets, top=20, scale=1.0, mass="boxes")
    share = exact_share(q, keys, rows_of(result.selected, offsets), 1.0)
    assert (result.captured <= share * (1 + 1e-15)).all()


def test_certified_mass_allows_for_the_coarser_of_two_dtypes(library):
    """float64 local keys do not make the chunks' float32 scores exact."""
    keys, values, _ = library
    keys, q = keys * 50, keys[::5] * 50
    offsets = np.arange(len(keys) + 1)
    local = np.zeros((1, WIDTH)), np.zeros((1, WIDTH))
    result = attend_chunks(q, keys, values, offsets, top=20, local=local, scale=1.0, mass="boxes")
    read = np.append(rows_of(result.selected, offsets), True)
    share = exact_share(q, np.concatenate([keys, local[0]]), read, 1.0)
    assert (result.captured <= share * (1 + 1e-15)).all()


@pytest.mark.parametrize("mass", ["exact", "boxes"])
def test_bound_counts_long_local_values(mass):
    q, keys, values = np.ones((1, 2)), np.ones((2, 2)), np.zeros((2, 1))
    local = np.ones((1, 2)), np.full((1, 1), 90.0)
    result = attend_chunks(q, keys, values, [0, 1, 2], top=1, local=local, mass=mass)
    assert result.output[0, 0] == 45  # of two keys; with the third it is 30
    assert result.bound[0] == pytest.approx(2 * 90 / 3)


def test_selection_is_by_summary_where_given_else_by_box():
    keys = np.array([[9.0, 0], [0, 1], [0, 1], [0, 2]])
    values, offsets = np.eye(4), [0, 1, 3, 4]
    q = np.array([[1.0, 0]])
    assert attend_chunks(q, keys, values, offsets, top=1).selected.tolist() == [0]
    summaries = np.array([[0.0, 0], [0, 0], [5, 0]])
    by_summary = attend_chunks(q, keys, values, offsets, top=1, summaries=summaries)
    assert by_summary.selected.tolist() == [2]
    tied = attend_chunks(q, keys, values, offsets, top=2, summaries=np.zeros((3, 2)))
    assert tied.selected.tolist() == [0, 1]
    # The largest over the queries decides, not their sum: -8 for chunk 0, 2 for chunk 1.
    two = np.array([[1.0, 0], [-9, 1]])
    worth = np.array([[1.0, 0], [0, 0.5], [0, 0]])
    assert attend_chunks(two, keys, values, offsets, top=1, summaries=worth).selected.tolist() == [
        0
    ]


def test_heads_share_keys_and_selection():
    vectors = line_vectors(inspect.getsource(json.decoder))[:96]
    keys, values = vectors.reshape(2, 48, WIDTH), vectors[::-1].reshape(2, 48, WIDTH)
    q, offsets = vectors[:12].reshape(4, 3, WIDTH) * 9, np.arange(0, 49, 8)
    for mass in ("exact", "boxes"):
        result = attend_chunks(q, keys, values, offsets, top=2, mass=mass)
        assert result.output.shape == (4, 3, WIDTH)
        assert result.captured.shape == result.bound.shape == (4, 3)
        assert (error(result, full(q, keys, values)) <= result.bound + 1e-5).all()
        read = rows_of(result.selected, offsets)
        share = np.stack([exact_share(q[h], keys[h // 2], read) for h in range(4)])
        assert (result.captured <= share * (1 + 1e-5)).all()
    summaries = keys.reshape(2, 6, 8, WIDTH).mean(axis=2)
    one = attend_chunks(q, keys, values, offsets, top=1, summaries=summaries)
    expected = max(
        range(6), key=lambda c: max(float((q[h] @ summaries[h // 2, c]).max()) for h in range(4))
    )
    assert one.selected.tolist() == [expected]


def test_no_chunk_read_leaves_a_bound_that_still_holds():
    q, keys, values = np.ones((2, 2)), np.ones((3, 2)), np.full((3, 1), 5.0)
    result = attend_chunks(q, keys, values, [0, 3], top=0)
    assert (result.output == 0).all()
    assert np.isneginf(result.lse).all()
    assert (result.captured == 0).all()
    assert (result.bound == 10).all()


GOOD: dict[str, Any] = {
    "q": np.ones((2, 3)),
    "keys": np.ones((4, 3)),
    "values": np.ones((4, 5)),
    "offsets": np.array([0, 2, 4]),
    "top": 1,
}
NAN_KEYS = np.where(np.eye(4, 3, -1) > 0, np.nan, 1.0)
BAD = [
    ({"offsets": [0, 3]}, ValueError, "offsets runs from 0 to 3.*number of keys, 4"),
    ({"offsets": [1, 4]}, ValueError, "offsets runs from 1"),
    ({"offsets": [0, 3, 2, 4]}, ValueError, "offsets falls from 3 to 2 at 2"),
    ({"offsets": [0.0, 4.0]}, ValueError, "offsets is float64"),
    ({"offsets": np.zeros((0,), int)}, ValueError, r"offsets is int64 of shape \(0,\)"),
    ({"values": np.ones((3, 5))}, ValueError, "keys.*and values.*differ in length"),
    ({"keys": NAN_KEYS}, ValueError, r"keys holds nan at \(1, 0\)"),
    (
        {"summaries": np.ones((2, 3)), "values": np.where(np.eye(4, 5, -3) > 0, np.nan, 1.0)},
        ValueError,
        r"values holds nan at \(3, 0\)",  # in the chunk that is left out
    ),
    ({"q": np.ones((2, 2))}, ValueError, "q and k differ in width"),
    ({"q": np.full((2, 3), np.nan)}, ValueError, r"q holds nan at \(0, 0\)"),
    ({"keys": np.ones((4, 3), int)}, TypeError, "keys has dtype int64"),
    ({"top": -1}, ValueError, "top is -1"),
    ({"top": 1.0}, TypeError, "top is 1.0"),
    ({"top": True}, TypeError, "top is True"),
    ({"mass": "some"}, ValueError, "mass is 'some'.*'exact' or 'boxes'"),
    ({"summaries": np.ones((3, 3))}, ValueError, r"summaries has shape \(3, 3\).*2, 3"),
    ({"summaries": np.full((2, 3), np.inf)}, ValueError, r"summaries holds inf at \(0, 0\)"),
    ({"boxes": (1, 2)}, TypeError, "boxes is of type tuple.*chunk_boxes"),
    (
        {"boxes": chunk_boxes(np.ones((4, 3)), np.ones((4, 5)), [0, 1, 4])},
        ValueError,
        "boxes were made of other chunks",
    ),
    ({"local": (np.ones((1, 3)),)}, TypeError, r"local must be a tuple \(k, v\)"),
    ({"local": (np.ones((1, 3)), np.ones((1, 4)))}, ValueError, "local attention has shape"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD)
def test_bad_arguments_are_named(change, kind, words):
    with pytest.raises(kind, match=words):
        attend_chunks(**{**GOOD, **change})
