"""BM25 over the words of the chunks themselves: what decides among the candidates.

    score(q, t) = Σ_w idf(w) · f(w) · (k1 + 1) / (f(w) + k1 · (1 - b + b · |t| / mean |t|))
    idf(w) = ln(1 + (N - n(w) + ½) / (n(w) + ½))

with f(w) how often w stands in text t, |t| its number of words, n(w) how many of N texts hold w
(Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009).
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.text.tokenizing import HashedWords

__all__ = ["bm25", "inverse_document_frequency"]

_K1, _B = 1.2, 0.75  # the usual middle values


def inverse_document_frequency(containing: NDArray[np.int64], texts: int) -> NDArray[np.float32]:
    """How much each word says, (m,): the rarer, the more; always above 0."""
    return np.log1p((texts - containing + 0.5) / (containing + 0.5)).astype(np.float32)


def bm25(
    query: NDArray[np.uint64],
    idf: NDArray[np.float32],
    texts: HashedWords,
    mean_length: float,
) -> NDArray[np.float32]:
    """Score n texts for the distinct words of `query` (m,) weighed by `idf` (m,), float32 (n,).

    O(words of the texts · log m).
    """
    lengths = np.diff(texts.offsets)
    counts = count_terms(query, texts)
    room = _K1 * (1 - _B + _B * lengths / max(mean_length, 1))
    gains = counts * (_K1 + 1) / (counts + room[:, None])
    return (gains @ idf).astype(np.float32)


def count_terms(query: NDArray[np.uint64], texts: HashedWords) -> NDArray[np.int64]:
    """How often each distinct word of `query` (m,) stands in each of n texts, (n, m)."""
    n, m = len(texts.offsets) - 1, len(query)
    order = np.argsort(query)
    at = np.searchsorted(query[order[:-1]], texts.hashes)  # the last is what stays beyond
    hit = query[order][at] == texts.hashes
    rows = np.repeat(np.arange(n), np.diff(texts.offsets))[hit]
    return np.bincount(rows * m + order[at[hit]], minlength=n * m).reshape(n, m)
