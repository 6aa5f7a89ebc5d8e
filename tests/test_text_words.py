"""Words: the compiled kernels, the NumPy ones and the plain definition agree on any text."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import kernels
from hashmem.kernels.reference import ngrams as reference
from hashmem.text import STOP_WORDS, hash_words, is_stop_word, words
from hashmem.text.tokenizing import fold, word_spans

KERNELS = [getattr(kernels, "_native", None) or kernels.reference, kernels.reference]

codelike = st.text(alphabet="aAbBsSuU019_ .é—中\n\0", max_size=60)
texts = st.lists(st.one_of(st.text(max_size=40), codelike), max_size=6)


def plain_hash(word: str) -> int:
    h = 0
    for byte in word.encode():
        h = (h * reference.WORD_BASE + byte) % 2**64
    return int(reference.mix(np.array([h], np.uint64))[0]) or 1


def run(kernel, data: bytes, offsets):
    buffer = np.frombuffer(data, np.uint8)
    hashes = np.empty(len(data) // 2 + len(offsets) - 1, np.uint64)
    word_offsets = np.empty(len(offsets), np.int64)
    count = kernel.hash_words(buffer, np.array(offsets, np.int64), hashes, word_offsets)
    return hashes[:count].tolist(), word_offsets.tolist()


@given(texts)
def test_hashed_words_are_the_hashes_of_the_words(texts):
    hashed = hash_words(texts)
    for i, text in enumerate(texts):
        here = hashed.hashes[hashed.offsets[i] : hashed.offsets[i + 1]]
        assert here.tolist() == [plain_hash(word) for word in words(text)]


@given(st.data())
def test_kernels_agree_on_any_bytes_and_any_offsets(data):
    alphabet = st.sampled_from(b"abzAZ09sSui_ \n\x00\x80\xff")
    text = bytes(data.draw(st.lists(alphabet, max_size=80)))
    offsets = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=6)))
    native, expected = (run(kernel, text, offsets) for kernel in KERNELS)
    assert native == expected


def test_kernels_agree_on_texts_longer_than_a_block_of_the_reference():
    text = ("parseHTTPHeaders x1 " * 20_000).encode() + b"w" * 200_000 + b" end"
    assert run(KERNELS[0], text, [3, 100, len(text)]) == run(KERNELS[1], text, [3, 100, len(text)])


@given(
    st.lists(st.integers(0, 2**64 - 1).map(lambda h: h * (h % 5 > 0)), max_size=30),
    st.data(),
    st.integers(1, 70),
    st.integers(-5, 5),
    st.integers(-5, 5),
)
def test_ngram_counts_are_those_counted_one_by_one(hashes, data, dims, unigram, bigram):
    cuts = st.integers(0, len(hashes))
    offsets = sorted(data.draw(st.lists(cuts, min_size=1, max_size=5)))
    n = len(offsets) - 1
    expected = np.zeros((n, dims), np.int32)

    def add(row, feature, weight):
        expected[row, (feature >> 32) * dims >> 32] += weight if feature & 1 else -weight

    for row in range(n):
        part = hashes[offsets[row] : offsets[row + 1]]
        for word in filter(None, part):
            add(row, word, unigram)
        for first, second in pairwise(part):
            if first and second:
                joined = (first * int(reference.BIGRAM_FACTOR) + second) % 2**64
                add(row, int(reference.mix(np.array([joined], np.uint64))[0]), bigram)
    for kernel in KERNELS:
        counts = np.full((n, dims), 77, np.int32)
        kernel.count_ngrams(
            np.array(hashes, np.uint64), np.array(offsets, np.int64), unigram, bigram, dims, counts
        )
        assert (counts == expected).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("offsets", [[0, 4], [2, 1], [-1, 2], []])
def test_offsets_outside_the_text_are_refused(kernel, offsets):
    offsets = np.array(offsets, np.int64)
    with pytest.raises(ValueError, match="offsets"):
        kernel.hash_words(
            np.zeros(3, np.uint8), offsets, np.zeros(9, np.uint64), np.zeros_like(offsets)
        )
    counts = np.zeros(max(len(offsets) - 1, 1) * 8, np.int32)
    with pytest.raises(ValueError, match=r"offsets|counts"):
        kernel.count_ngrams(np.ones(3, np.uint64), offsets, 1, 1, 8, counts)


@pytest.mark.parametrize("kernel", KERNELS)
def test_outputs_too_small_are_refused(kernel):
    text, offsets = np.frombuffer(b"a b c", np.uint8), np.array([0, 5], np.int64)
    with pytest.raises(ValueError, match="hashes is too short"):
        kernel.hash_words(text, offsets, np.zeros(2, np.uint64), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="word_offsets"):
        kernel.hash_words(text, offsets, np.zeros(9, np.uint64), np.zeros(1, np.int64))
    for size, dims in ((7, 8), (9, 8), (0, 0), (8, -8)):
        with pytest.raises(ValueError, match="counts"):
            kernel.count_ngrams(
                np.ones(5, np.uint64), offsets, 1, 1, dims, np.zeros(size, np.int32)
            )
    with pytest.raises(ValueError, match="counts"):
        kernel.count_ngrams(
            np.ones(5, np.uint64), np.zeros(1, np.int64), 1, 1, 8, np.zeros(8, np.int32)
        )


def test_words_are_cut_and_folded_as_documented():
    assert words("") == []
    assert words("self.__class__ status bus") == ["self", "class", "status", "bus"]
    assert words("dataURLs IOError sha256Sum x509") == [
        "data", "url", "io", "error", "sha256", "sum", "x509",
    ]  # fmt: skip
    assert words("Größe—naïve „ÜBER“ हिन्दी") == ["größe", "naïve", "über", "हिन्दी"]


@given(st.text(max_size=80))
def test_folding_keeps_every_place_and_spans_follow_each_other(text):
    assert len(fold(text)) == len(text)
    edges = [edge for span in word_spans(text) for edge in span]
    assert edges == sorted(edges)
    assert all(start < end for start, end in word_spans(text))


def test_stop_words_are_found_by_hash():
    assert is_stop_word(hash_words(sorted(STOP_WORDS)).hashes).all()
    assert is_stop_word(hash_words(["The parser of a file"]).hashes).tolist() == [
        True, False, True, True, False,
    ]  # fmt: skip
