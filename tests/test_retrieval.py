"""Exact search against a sort of everything; BM25 against its formula, word by word."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem.retrieval import (
    bm25,
    inverse_document_frequency,
    scores_of,
    top_k,
    weigh_rare,
)
from hashmem.text import hash_words


@st.composite
def searches(draw):
    """Rows, query and scales of small integers: ties are common, float32 sums exact."""
    n, dims = draw(st.integers(0, 30)), draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    dtype = draw(st.sampled_from([np.float32, np.float16, np.int8]))
    rows = random.integers(-2, 3, (n, dims)).astype(dtype)
    query = random.integers(-2, 3, dims) * (random.random(dims) < draw(st.sampled_from([0.05, 1])))
    scales = draw(st.sampled_from([None, random.integers(0, 3, n).astype(np.float32)]))
    layout = draw(st.sampled_from("CF"))
    return np.asarray(rows, order=layout), query.astype(np.float32), scales


@given(searches(), st.integers(1, 40))
def test_the_best_rows_are_those_of_a_full_sort(search, k):
    rows, query, scales = search
    scores = rows.astype(np.float64) @ query * (1 if scales is None else scales)
    expected = sorted(range(len(rows)), key=lambda row: (-scores[row], row))[:k]
    found, values = top_k(rows, query, k, scales)
    if not query.any():
        expected = []
    assert found.tolist() == expected
    assert values.tolist() == scores[expected].tolist()
    assert (scores_of(rows, query, scales) == scores).all()


def test_more_rows_than_a_block():
    random = np.random.default_rng(5)
    rows = random.integers(-9, 9, (10_000, 3)).astype(np.float32)
    scores = rows @ np.array([1, 2, 3], np.float32)
    found, _ = top_k(rows, np.array([1, 2, 3]), 50)
    assert found.tolist() == np.argsort(-scores, kind="stable")[:50].tolist()


@pytest.mark.parametrize("at", ["rows", "query", "scales"])
@pytest.mark.parametrize("dims", [2, 40])
def test_nan_is_refused(at, dims):
    given = {
        "rows": np.ones((3, dims), np.float32),
        "query": np.r_[np.ones(2), np.zeros(dims - 2)].astype(np.float32),
        "scales": np.ones(3, np.float32),
    }
    given[at].reshape(-1)[0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(given["rows"], given["query"], 2, given["scales"])


def test_arguments_that_do_not_fit_are_refused():
    rows = np.ones((3, 2), np.float32)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be"):
            top_k(rows, np.ones(2), k)
    with pytest.raises(ValueError, match="query"):
        top_k(rows, np.ones(3), 1)
    with pytest.raises(ValueError, match="scales"):
        top_k(rows, np.ones(2), 1, np.ones(2, np.float32))


@given(searches())
def test_values_that_few_rows_share_weigh_more(search):
    rows, query, _ = search
    total = len(rows) + 1
    weighed = weigh_rare(query, rows, total)
    for at, value in enumerate(query):
        same = sum(np.sign(row[at]) == np.sign(value) for row in rows)
        expected = value * math.log(1 + (total - same + 0.5) / (same + 0.5)) if value else 0
        assert weighed[at] == pytest.approx(expected, rel=1e-5)


vocabulary = st.lists(st.sampled_from(["red", "green", "blue", "dark", "light"]), max_size=12)


@given(st.lists(vocabulary, min_size=1, max_size=6), vocabulary, st.integers(0, 1000))
def test_bm25_is_its_formula(texts, query, more):
    total = len(texts) + more
    mean = max(sum(map(len, texts)) / len(texts), 1)
    holding = {word: sum(word in text for text in texts) for word in query}
    idf = {word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    expected = []
    for text in texts:
        score = 0.0
        for word in set(query):
            often = text.count(word)
            score += idf[word] * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(text) / mean))
        for first, second in set(pairwise(query)) & set(pairwise(text)):
            score += 0.5 * (idf[first] + idf[second]) / 2
        expected.append(score)
    hashed = hash_words([" ".join(query)]).hashes
    found = bm25(hashed, hash_words([" ".join(text) for text in texts]), total)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rare_words_say_more():
    idf = inverse_document_frequency(np.array([0, 1, 50, 100]), 100)
    assert (np.diff(idf) < 0).all()
    assert idf[3] == pytest.approx(math.log1p(0.5 / 100.5))
