"""Hashed word n-grams: a summary that needs no model, no vocabulary and no training.

For a text with words w_1 … w_t (`hashmem.text.words`; pairs are neighbours w_j w_{j+1}) and d dims:

    c[b] = Σ_{words in bucket b} ±1 + β · Σ_{pairs in bucket b} ±1
    s[b] = sign(c[b]) · ln(1 + |c[b]|),   summary = s / ‖s‖

Bucket and sign of a feature come from its hash, so that features that share a bucket cancel on
average and inner products are right in expectation (feature hashing: Weinberger et al., 2009).
The logarithm damps repetition. How rare a word is cannot be known when a chunk is written, so
rarity is weighed on the query's side (`hashmem.retrieval.weigh_rare`), from the stored rows.
"""

from collections.abc import Sequence

import numpy as np

from hashmem import kernels
from hashmem.summaries.base import Float32, SummaryMethod, unit_rows
from hashmem.text.tokenizing import HashedWords, hash_words, is_stop_word

__all__ = ["HashedNgrams"]

_BLOCK = 256  # texts a step: its counts (256, dims) stay in the cache
_UNIT = 4  # a word in the kernels' integer counts; a pair is β · 4
_FURTHEST = 1023  # counts beyond ± this are taken as this


class HashedNgrams(SummaryMethod):
    """Counts of words and neighbouring pairs, hashed to `dims` buckets; `pair_weight` is β above.

    Stored as int8. The defaults are measured: see ``docs/text.md``.

    >>> method = HashedNgrams()
    >>> near, far = method.encode(["def read_file(path): open(path)", "class Tree: left, right"])
    >>> query = method.encode_query("open a file")
    >>> bool(query @ near > query @ far)
    True
    """

    sparse = True

    def __init__(self, dims: int = 512, pair_weight: float = 0.0) -> None:
        if dims < 1:
            raise ValueError(f"dims must be 1 or more, not {dims}")
        self.dims = dims
        self.dtype = np.dtype(np.int8)
        self._pair = round(pair_weight * _UNIT)
        if self._pair < 0:
            raise ValueError(f"pair_weight must be 0 or more, not {pair_weight}")
        self.name = f"hashed-ngrams-1-{dims}-{self._pair}"
        counts = np.arange(-_FURTHEST, _FURTHEST + 1)
        self._damped = (np.sign(counts) * np.log1p(np.abs(counts) / _UNIT)).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> Float32:
        return self._encode(hash_words(texts))

    def encode_query(self, text: str) -> Float32:
        asked = hash_words([text]).hashes
        asked = asked[~is_stop_word(asked)]
        row: Float32 = self._encode(HashedWords(asked, np.array([0, len(asked)])))[0]
        return row

    def _encode(self, words: HashedWords) -> Float32:
        rows = np.empty((len(words.offsets) - 1, self.dims), np.float32)
        for at in range(0, len(rows), _BLOCK):
            offsets = words.offsets[at : at + _BLOCK + 1]
            counts = np.empty((len(offsets) - 1, self.dims), np.int32)
            kernels.current.count_ngrams(
                words.hashes, offsets, _UNIT, self._pair, self.dims, counts
            )
            np.clip(counts, -_FURTHEST, _FURTHEST, out=counts)
            counts += _FURTHEST
            np.take(self._damped, counts, out=rows[at : at + _BLOCK])
        return unit_rows(rows)
