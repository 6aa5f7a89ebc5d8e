"""Hashed word n-grams: a summary that needs no model, no vocabulary and no training.

For a text with words w_1 … w_t (`hashmem.text.words`; pairs are neighbours w_j w_{j+1}) and d dims:

    c[b] = Σ_{words in bucket b} ±1 + β · Σ_{pairs in bucket b} ±1
    s[b] = sign(c[b]) · ln(1 + |c[b]|),   summary = s / ‖s‖

Bucket and sign of a feature come from its hash, so that features that share a bucket cancel on
average and inner products are right in expectation (feature hashing: Weinberger et al., 2009).
The logarithm damps repetition. How rare a word is cannot be known when a chunk is written, so
rarity is weighed on the query's side: a query is Σ idf(w) · (± at w's bucket), pairs with β times
the mean of their two words' weights, stop words left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hashmem import kernels
from hashmem.summaries.base import Float32, SummaryMethod, TermWeights, unit_rows
from hashmem.text.tokenizing import hash_words, is_stop_word

__all__ = ["HashedNgrams"]

_BLOCK = 256  # texts a step: its counts (256, dims) stay in the cache
_FURTHEST = 1023  # counts beyond ± this are taken as this


class HashedNgrams(SummaryMethod):
    """Counts of words and neighbouring pairs, hashed to `dims` buckets. `pair_weight` is β above.

    >>> method = HashedNgrams()
    >>> near, far = method.encode(["def read_file(path): open(path)", "class Tree: left, right"])
    >>> query = method.encode_query("open a file")
    >>> bool(query @ near > query @ far)
    True
    """

    # Counts are integers in the kernels: a word is 4, a pair β · 4.
    _UNIT = 4

    def __init__(self, dims: int = 1024, pair_weight: float = 0.5) -> None:
        if dims < 1:
            raise ValueError(f"dims must be 1 or more, not {dims}")
        self.dims = dims
        self.dtype = np.dtype(np.int8)
        self._pair = round(pair_weight * self._UNIT)
        if self._pair < 0:
            raise ValueError(f"pair_weight must be 0 or more, not {pair_weight}")
        self.name = f"hashed-ngrams-1-d{dims}-p{self._pair}"
        size = np.arange(-_FURTHEST, _FURTHEST + 1)
        self._damped = (np.sign(size) * np.log1p(np.abs(size) / self._UNIT)).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> Float32:
        rows = np.empty((len(texts), self.dims), np.float32)
        hashed = hash_words(texts)
        for at in range(0, len(texts), _BLOCK):
            offsets = hashed.offsets[at : at + _BLOCK + 1]
            counts = np.empty((len(offsets) - 1, self.dims), np.int32)
            kernels.current.count_ngrams(
                hashed.hashes, offsets, self._UNIT, self._pair, self.dims, counts
            )
            np.clip(counts, -_FURTHEST, _FURTHEST, out=counts)
            counts += _FURTHEST
            np.take(self._damped, counts, out=rows[at : at + _BLOCK])
        return unit_rows(rows)

    def encode_query(self, text: str, weights: TermWeights | None = None) -> Float32:
        words = hash_words([text]).hashes
        words = words[~is_stop_word(words)]
        said = np.ones(len(words), np.float32) if weights is None else weights(words)
        # One row a word, then one row a pair, each with a single ±1.
        row = said @ self._features(words, 1)
        if len(words) > 1 and self._pair:
            pairs = np.stack([words[:-1], words[1:]], axis=1).reshape(-1)
            both = (said[:-1] + said[1:]) / 2 * (self._pair / self._UNIT)
            row += both @ self._features(pairs, 2)
        unit: Float32 = unit_rows(row[None].astype(np.float32))[0]
        return unit

    def _features(self, words: NDArray[np.uint64], size: int) -> Float32:
        """The signed bucket of every `size` words (1, or 2 for pairs) as a row, (n, dims)."""
        offsets = np.arange(0, len(words) + 1, size)
        rows = np.empty((len(offsets) - 1, self.dims), np.int32)
        kernels.current.count_ngrams(words, offsets, size == 1, size == 2, self.dims, rows)
        return rows.astype(np.float32)
