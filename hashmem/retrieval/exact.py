"""Exact search: the k rows with the largest inner product, compared one with all.

Rows may be stored as float32, float16 or int8; scores are float32. Queries that are mostly zero,
as those of hashed words are, read only the columns they touch: keep such rows in Fortran order
(column after column), and a query over n rows reads n · (its non-zero values) of them, one after
the other. A dense query over int8 rows costs their conversion to float32 as well.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.retrieval.bm25 import inverse_document_frequency

__all__ = ["scores_of", "top_k", "weigh_rare"]

_BLOCK = 4096  # rows a step
_SPARSE = 4  # a query with fewer than one value in so many not zero is taken column by column


def top_k(
    rows: NDArray[Any],
    query: NDArray[Any],
    k: int,
    scales: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the `k` of `rows` (n, dims) with the largest inner product with `query` (dims,).

    Gives row numbers and scores, both (min(k, n),), best first, ties by the lower number.
    `scales` (n,) multiplies each row, as for rows stored as int8 (`hashmem.summaries.row_scales`).
    A query of zeros asks for nothing and finds nothing. O(n · dims), and O(n · non-zeros) for
    queries that are mostly zero.

    >>> found, scores = top_k(np.eye(3, dtype=np.float32), np.array([0, 2, 1]), k=2)
    >>> found.tolist(), scores.tolist()
    ([1, 2], [2.0, 1.0])

    Raises `ValueError` where k < 1, shapes do not fit, or a score is NaN.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if not np.any(query):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    scores = scores_of(rows, query, scales)
    return best(scores, k)


def weigh_rare(query: NDArray[np.float32], rows: NDArray[Any], total: int) -> NDArray[np.float32]:
    """Multiply each value of `query` (dims,) by how rare it is among `rows` (n, dims).

    A value that r of `total` rows share, with the same sign, is worth ln(1 + (total - r + ½) /
    (r + ½)), as a word in BM25. For rows that are mostly zero. Where hashing put several words in
    one place it weighs the place, crowded or not, and finds better for it than the words' own
    rarity does. O(n · non-zeros).
    """
    weighed = query.copy()
    for column in np.flatnonzero(query).tolist():
        values = rows[:, column]
        same = np.count_nonzero(values > 0 if query[column] > 0 else values < 0)
        weighed[column] *= inverse_document_frequency(np.array(same), total)
    return weighed


def scores_of(
    rows: NDArray[Any], query: NDArray[Any], scales: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The inner product of every one of `rows` (n, dims) with `query` (dims,), float32 (n,)."""
    query = np.asarray(query, np.float32)
    if rows.ndim != 2 or query.shape != rows.shape[1:]:
        raise ValueError(f"rows {rows.shape} and query {query.shape} are not (n, dims) and (dims,)")
    if scales is not None and scales.shape != rows.shape[:1]:
        raise ValueError(f"scales {scales.shape} must hold one value for each of {len(rows)} rows")
    touched = np.flatnonzero(query)  # NaN is not zero either
    dense = len(touched) * _SPARSE >= len(query)
    scores = np.zeros(len(rows), np.float32)
    if dense and rows.dtype == np.float32:
        np.matmul(rows, query, out=scores)
    elif dense and rows.flags.c_contiguous:
        for at in range(0, len(rows), _BLOCK):
            block = rows[at : at + _BLOCK].astype(np.float32)
            np.matmul(block, query, out=scores[at : at + _BLOCK])
    else:
        for column in touched.tolist():
            scores += rows[:, column] * query[column]
    return scores if scales is None else scores * scales


def best(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The places and values of the `k` largest of `scores` (n,), best first, ties by place."""
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise ValueError(f"the score of row {wrong[0]} is NaN: rows and query must hold numbers")
    found = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        level = np.flatnonzero(scores == least)[: k - len(above)]
        found = np.sort(np.concatenate([above, level]))
    found = found[np.argsort(-scores[found], kind="stable")]
    return found, scores[found]
