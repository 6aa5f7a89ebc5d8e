"""BM25 over the words of the chunks themselves: what decides among the candidates.

    score(q, t) = Σ_w idf(w) · f(w) · (k1 + 1) / (f(w) + k1 · (1 - b + b · |t| / mean |t|))
                + ½ · Σ_{neighbours v w of q that are neighbours in t} (idf(v) + idf(w)) / 2
    idf(w) = ln(1 + (N - n(w) + ½) / (n(w) + ½))

with f(w) how often w stands in text t and |t| its number of words (Robertson and Zaragoza, The
Probabilistic Relevance Framework: BM25 and Beyond, 2009). The second sum prefers texts that keep
the query's words together.

n(w) is how many of the *candidates* hold w, N how many texts there are in all. The candidates were
chosen for holding the query's words, so nearly all texts with a rare word are among them and its
n(w) is right; a common word's is too low, but never below the share that matters. Measured, this
finds as well as exact counts over all texts do, and nothing has to be kept or stored for it.
"""

import numpy as np
from numpy.typing import NDArray

from hashmem.text.tokenizing import HashedWords

__all__ = ["bm25", "inverse_document_frequency"]

_K1, _B = 1.2, 0.75  # the usual middle values
_TOGETHER = 0.5  # of a word's worth for standing beside the one it stands beside in the query
_LOW = 0xFFF  # the bits of a hash looked at first
_JOIN = np.uint64(0xC2B2AE3D27D4EB4F)  # any odd number: makes pairs of words comparable as one


def inverse_document_frequency(containing: NDArray[np.int64], texts: int) -> NDArray[np.float32]:
    """How much each word says, (m,), when `containing` (m,) of `texts` hold it: always above 0."""
    return np.log1p((texts - containing + 0.5) / (containing + 0.5)).astype(np.float32)


def bm25(query: NDArray[np.uint64], candidates: HashedWords, total: int) -> NDArray[np.float32]:
    """Score n candidates, chosen out of `total` texts, for the words of `query` (m,), (n,).

    `query` is in its own order; a word said twice counts once. 0 means: no word in common.
    O(words of the candidates · log m + n · m).
    """
    distinct, place = np.unique(query, return_inverse=True)
    counts = _count(distinct, candidates)
    idf = inverse_document_frequency(np.count_nonzero(counts, axis=0), total)
    lengths = np.diff(candidates.offsets)
    room = _K1 * (1 - _B + _B * lengths / max(len(candidates.hashes) / max(len(lengths), 1), 1))
    scores = (counts * (_K1 + 1) / (counts + room[:, None])) @ idf
    if len(query) > 1:
        said = idf[place.reshape(-1)]
        pairs, first = np.unique(query[:-1] * _JOIN + query[1:], return_index=True)
        worth = _TOGETHER * (said[first] + said[first + 1]) / 2
        scores += (_count(pairs, _pairs(candidates)) > 0) @ worth
    return scores.astype(np.float32)


def _count(wanted: NDArray[np.uint64], texts: HashedWords) -> NDArray[np.int64]:
    """How often each of `wanted` (m,), distinct and rising, stands in each of n texts, (n, m)."""
    n, m = len(texts.offsets) - 1, len(wanted)
    if not m:
        return np.zeros((n, 0), np.int64)
    # Most words are not wanted: their low bits alone say so, ten times faster than a search.
    likely = np.zeros(_LOW + 1, np.bool_)
    likely[wanted & np.uint64(_LOW)] = True
    places = np.flatnonzero(likely[texts.hashes & np.uint64(_LOW)])
    words = texts.hashes[places]
    at = np.searchsorted(wanted[:-1], words)
    hit = wanted[at] == words
    rows = np.searchsorted(texts.offsets, places[hit], "right") - 1
    return np.bincount(rows * m + at[hit], minlength=n * m).reshape(n, m)


def _pairs(texts: HashedWords) -> HashedWords:
    """Each word joined with the next one of its text, in its place; a text's last joins none."""
    joined = texts.hashes * _JOIN
    joined[:-1] += texts.hashes[1:]
    ends = texts.offsets[1:][np.diff(texts.offsets) > 0]
    joined[ends - 1] = 0
    return HashedWords(joined, texts.offsets)
