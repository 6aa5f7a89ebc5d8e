"""Hashed words of text, and signed counts of hashed word n-grams. The definition of `ngrams.c`.

A word is a run of ASCII letters, digits and bytes from 0x80 on, cut once more before a capital
that follows a lower-case letter or a digit (``parseArgs`` → parse, args) and before a capital
that follows a capital and is followed by two lower-case letters (``HTTPServer`` → http, server;
``URLs`` stays whole). Capitals A to Z count as a to z. Everything else separates. A word of four
bytes or more loses a last s that does not follow s, u or i: plurals and singulars are one word,
``class`` and ``status`` stay (the S-stemmer: Harman, How effective is suffixing?, 1991).

The hash of a word of bytes c is Σ c[i]·B^(len-1-i) modulo 2^64, passed through the finaliser of
MurmurHash3. As B is odd it has an inverse, so all words come from one prefix sum:
Σ_{s≤i<e} c[i]·B^(e-1-i) = B^(e-1) · (Q[e] - Q[s]) with Q[e] = Σ_{i<e} c[i]·B^(-i). It spreads
well and is not meant to withstand someone who builds collisions: search only ranks with it.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]
Offsets: TypeAlias = NDArray[np.int64]

WORD_BASE = 0x9E3779B97F4A7C15
BIGRAM_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)
_INVERSE = pow(WORD_BASE, -1, 1 << 64)

_BLOCK = 1 << 16  # bytes a step: its arrays stay in the cache
_SEPARATOR, _LOWER, _UPPER, _DIGIT, _CASELESS = 0, 1, 2, 4, 8

_CLASSES = np.zeros(256, np.uint8)
_CLASSES[ord("a") : ord("z") + 1] = _LOWER
_CLASSES[ord("A") : ord("Z") + 1] = _UPPER
_CLASSES[ord("0") : ord("9") + 1] = _DIGIT
_CLASSES[0x80:] = _CASELESS
_LOWERED = np.arange(256, dtype=np.uint64)
_LOWERED[ord("A") : ord("Z") + 1] += 32


def mix(h: Hashes) -> Hashes:
    """Spread every bit of `h` over all bits: the finaliser of MurmurHash3 (Appleby, 2011)."""
    thirty_three = np.uint64(33)
    h = (h ^ (h >> thirty_three)) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> thirty_three)) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> thirty_three)


def hash_words(
    text: NDArray[np.uint8], offsets: Offsets, hashes: Hashes, word_offsets: Offsets
) -> int:
    """Write the hash of every word of `text` to `hashes`, in order, and return their number.

    Chunk i is ``text[offsets[i]:offsets[i + 1]]``, `offsets` (n + 1,) rises from 0, and words end
    at borders of chunks; its words are ``hashes[word_offsets[i]:word_offsets[i + 1]]``. No hash
    is 0. bytes / 2 + n values of room are always enough. One multiplication a byte.

    Raises `ValueError` where `hashes` is too short or offsets leave the text.
    """
    check_offsets(offsets, len(text), "offsets")
    if len(word_offsets) != len(offsets):
        raise ValueError("offsets must hold n + 1 values and word_offsets as many")
    starts, ends = _word_borders(text, offsets)
    words = len(starts)
    if words > len(hashes):
        raise ValueError("hashes is too short: bytes / 2 + n values are enough")
    ends = ends - _plural(text, starts, ends)
    done = 0
    while done < words:
        first = int(starts[done])
        upto = max(done + 1, int(np.searchsorted(ends, first + _BLOCK, "right")))
        block = text[first : ends[upto - 1]]
        hashes[done:upto] = _hash_slices(block, starts[done:upto] - first, ends[done:upto] - first)
        done = upto
    word_offsets[:] = np.searchsorted(starts, offsets)
    return words


def count_ngrams(
    hashes: Hashes,
    offsets: Offsets,
    unigram: int,
    bigram: int,
    dims: int,
    counts: NDArray[np.int32],
) -> None:
    """Write to `counts` (n, dims) how often each bucket's words and word pairs occur, signed.

    Row i counts ``hashes[offsets[i]:offsets[i + 1]]``. A feature adds `unigram` or `bigram` to
    the bucket given by the upper half of its hash, with the sign given by its lowest bit, so that
    features sharing a bucket cancel on average (feature hashing: Weinberger et al., 2009). A hash
    of 0 stands for a word left out: it adds nothing and is in no pair. O(words + n · dims).
    """
    n = len(offsets) - 1
    if n < 0 or dims < 1 or counts.size != n * dims:
        raise ValueError("counts must hold n rows of dims values")
    check_offsets(offsets, len(hashes), "offsets")
    first, last = int(offsets[0]), int(offsets[-1])
    words = hashes[first:last]
    row_of = np.repeat(np.arange(n), np.diff(offsets))
    kept = words != 0
    paired = kept[1:] & kept[:-1] & (row_of[1:] == row_of[:-1])
    pairs = mix(words[:-1][paired] * BIGRAM_FACTOR + words[1:][paired])
    features = np.concatenate([words[kept], pairs])
    rows = np.concatenate([row_of[kept], row_of[1:][paired]])
    weights = np.repeat([float(unigram), float(bigram)], [int(kept.sum()), len(pairs)])
    buckets = ((features >> np.uint64(32)) * np.uint64(dims) >> np.uint64(32)).astype(np.int64)
    signed = np.where(features & np.uint64(1), weights, -weights)
    # Sums of small integers: exact in float64, whatever their order.
    counts.reshape(-1)[:] = np.bincount(rows * dims + buckets, signed, minlength=n * dims)


def check_offsets(offsets: Offsets, limit: int, name: str) -> None:
    """Raise `ValueError` unless `offsets` is not empty and rises from 0 or more to `limit`."""
    bounded = np.concatenate([[0], offsets, [limit]])
    wrong = np.flatnonzero(bounded[1:] < bounded[:-1])  # differences could overflow
    if not len(offsets) or len(wrong):
        at = int(min(wrong[0], len(offsets) - 1)) if len(wrong) else 0
        raise ValueError(f"{name}[{at}]: offsets rise from 0 to at most {limit}")


def _word_borders(text: NDArray[np.uint8], offsets: Offsets) -> tuple[Offsets, Offsets]:
    """The first byte of every word and the byte after its last, both (words,)."""
    begin, stop = int(offsets[0]), int(offsets[-1])
    # One class before and two behind, so that every byte has its neighbours.
    classes = np.zeros(stop - begin + 3, np.uint8)
    classes[1:-2] = _CLASSES[text[begin:stop]]
    edge = np.zeros(stop - begin + 3, np.bool_)  # here a chunk begins
    edge[offsets - begin + 1] = True
    here, before, after, second = classes[1:-2], classes[:-3], classes[2:-1], classes[3:]
    word = here != _SEPARATOR
    fresh = edge[1:-2] | (before == _SEPARATOR)
    capital = here == _UPPER
    after_small = (before & (_LOWER | _DIGIT)) != 0
    two_small = (after == _LOWER) & (second == _LOWER) & ~edge[2:-1] & ~edge[3:]
    starts = word & (fresh | (capital & (after_small | ((before == _UPPER) & two_small))))
    # A word ends where the next one starts or a separator or a chunk's border comes.
    begins = np.flatnonzero(starts)
    cut = np.flatnonzero(starts | ~word | edge[1:-2])
    at = np.searchsorted(cut, begins, "right")
    ends = np.append(cut, stop - begin)[at]
    return begins + begin, ends + begin


def _plural(text: NDArray[np.uint8], starts: Offsets, ends: Offsets) -> NDArray[np.bool_]:
    """Which words end in an s that the singular lacks, (words,)."""
    last, before = text[ends - 1] | 32, text[np.maximum(ends - 2, 0)] | 32
    singular = (before == ord("s")) | (before == ord("u")) | (before == ord("i"))
    plural: NDArray[np.bool_] = (ends - starts >= 4) & (last == ord("s")) & ~singular
    return plural


def _hash_slices(text: NDArray[np.uint8], starts: Offsets, ends: Offsets) -> Hashes:
    powers, inverses = _powers(WORD_BASE, len(text)), _powers(_INVERSE, len(text))
    prefix = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(_LOWERED[text] * inverses, out=prefix[1:])
    mixed = mix((prefix[ends] - prefix[starts]) * powers[ends - 1])
    mixed[mixed == 0] = 1
    return mixed


_POWERS: dict[int, Hashes] = {}


def _powers(base: int, count: int) -> Hashes:
    """base^0, base^1, … (count,) modulo 2^64; those of a block are kept."""
    known = _POWERS.get(base)
    if known is not None and count <= len(known):
        return known[:count]
    factors = np.full(max(count, _BLOCK), base, np.uint64)
    factors[0] = 1
    made = np.cumprod(factors)
    if len(made) == _BLOCK:
        _POWERS[base] = made
    return made[:count]
