/* Hashed words of text, and how often each bucket of hashed word n-grams occurs.
 *
 * hashmem/kernels/reference/ngrams.py defines both and says what a word is. One multiplication a
 * byte, no allocation.
 */
#include "kernels.h"

enum { SEPARATOR = 0, LOWER = 1, UPPER = 2, DIGIT = 4, CASELESS = 8 };

#define WORD_BASE UINT64_C(0x9E3779B97F4A7C15)   /* odd: the reference needs its inverse */
#define BIGRAM_FACTOR UINT64_C(0xC2B2AE3D27D4EB4F)

ALWAYS_INLINE int class_of(unsigned char byte) {
    if (byte >= 'a' && byte <= 'z') return LOWER;
    if (byte >= 'A' && byte <= 'Z') return UPPER;
    if (byte >= '0' && byte <= '9') return DIGIT;
    return byte >= 0x80 ? CASELESS : SEPARATOR;
}

/* The finaliser of MurmurHash3: every input bit reaches every output bit. */
ALWAYS_INLINE uint64_t mix(uint64_t h) {
    h = (h ^ (h >> 33)) * UINT64_C(0xFF51AFD7ED558CCD);
    h = (h ^ (h >> 33)) * UINT64_C(0xC4CEB9FE1A85EC53);
    return h ^ (h >> 33);
}

/* Does a word begin at `at` within a run of letters and digits that began before it? */
ALWAYS_INLINE int camel_border(const unsigned char *at, const unsigned char *end,
                               const unsigned char *classes) {
    if (classes[at[0]] != UPPER) return 0;
    if (classes[at[-1]] & (LOWER | DIGIT)) return 1;
    return classes[at[-1]] == UPPER && end - at > 2 && classes[at[1]] == LOWER &&
           classes[at[2]] == LOWER;
}

/* 1 where a word of four bytes or more ends in an s that the singular lacks. */
ALWAYS_INLINE int plural(const unsigned char *word, const unsigned char *end) {
    if (end - word < 4 || (end[-1] | 32) != 's') return 0;
    const int before = end[-2] | 32;
    return before != 's' && before != 'u' && before != 'i';
}

/* offsets[0..n] rise from 0 to `limit`, so that no slice leaves its buffer. */
static int check_offsets(const int64_t *offsets, Py_ssize_t n, Py_ssize_t limit,
                         const char *name) {
    int64_t before = 0;
    for (Py_ssize_t i = 0; i <= n; i++) {
        if (offsets[i] < before || offsets[i] > limit) {
            PyErr_Format(PyExc_ValueError, "%s[%zd] is %lld: offsets rise from 0 to at most %zd",
                         name, i, (long long)offsets[i], limit);
            return -1;
        }
        before = offsets[i];
    }
    return 0;
}

/* hash_words(text: uint8[bytes], offsets: int64[n + 1], hashes: uint64[room],
 *            word_offsets: int64[n + 1]) -> words */
KERNEL(hashmem_hash_words) {
    (void)module;
    if (expect_arguments("hash_words", nargs, 4) < 0) return NULL;
    Py_buffer b[4] = {{0}};
    if (borrow(args[0], &b[0], READ, 1, "text") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[2], &b[2], WRITE, 8, "hashes") < 0 ||
        borrow_numbers(args[3], &b[3], WRITE, 8, "word_offsets") < 0)
        goto fail;
    if (b[1].len < 8 || b[3].len != b[1].len) {
        PyErr_SetString(PyExc_ValueError,
                        "offsets must hold n + 1 values and word_offsets as many");
        goto fail;
    }
    if (expect_apart(b, 4, 1 << 2 | 1 << 3) < 0) goto fail;
    const unsigned char *text = b[0].buf;
    const int64_t *offsets = b[1].buf;
    uint64_t *hashes = b[2].buf;
    int64_t *word_offsets = b[3].buf;
    const Py_ssize_t n = b[1].len / 8 - 1, room = b[2].len / 8;
    if (check_offsets(offsets, n, b[0].len, "offsets") < 0) goto fail;

    Py_ssize_t words = 0;
    int full = 0;
    Py_BEGIN_ALLOW_THREADS
    unsigned char classes[256], lowered[256];
    for (int i = 0; i < 256; i++) {
        classes[i] = (unsigned char)class_of((unsigned char)i);
        lowered[i] = (unsigned char)(classes[i] == UPPER ? i + 32 : i);
    }
    word_offsets[0] = 0;
    for (Py_ssize_t i = 0; i < n && !full; i++) {
        const unsigned char *at = text + offsets[i], *end = text + offsets[i + 1];
        while (at < end) {
            if (classes[*at] == SEPARATOR) {
                at++;
                continue;
            }
            const unsigned char *word = at;
            do {
                at++;
            } while (at < end && classes[*at] != SEPARATOR && !camel_border(at, end, classes));
            const unsigned char *stop = at - plural(word, at);
            uint64_t h = 0;
            while (word < stop) h = h * WORD_BASE + lowered[*word++];
            if (words == room) {
                full = 1;
                break;
            }
            h = mix(h);
            hashes[words++] = h ? h : 1; /* 0 means: no word */
        }
        word_offsets[i + 1] = words;
    }
    Py_END_ALLOW_THREADS

    if (full) {
        PyErr_SetString(PyExc_ValueError, "hashes is too short: bytes / 2 + n values are enough");
        goto fail;
    }
    give_back(b, 4);
    return PyLong_FromSsize_t(words);
fail:
    give_back(b, 4);
    return NULL;
}

/* count_ngrams(hashes: uint64[words], offsets: int64[n + 1], unigram: int, bigram: int,
 *              dims: int, counts: int32[n * dims]) */
KERNEL(hashmem_count_ngrams) {
    (void)module;
    if (expect_arguments("count_ngrams", nargs, 6) < 0) return NULL;
    Py_buffer b[3] = {{0}};
    const uint32_t unigram = (uint32_t)PyLong_AsLong(args[2]);
    const uint32_t bigram = (uint32_t)PyLong_AsLong(args[3]);
    const long long dims = PyLong_AsLongLong(args[4]);
    if (PyErr_Occurred()) return NULL;
    if (borrow_numbers(args[0], &b[0], READ, 8, "hashes") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[5], &b[2], WRITE, 4, "counts") < 0)
        goto fail;
    const Py_ssize_t n = b[1].len / 8 - 1;
    if (n < 0 || dims < 1 || dims > INT32_MAX || b[2].len % (4 * dims) != 0 ||
        b[2].len / (4 * dims) != n) {
        PyErr_SetString(PyExc_ValueError, "counts must hold n rows of dims values");
        goto fail;
    }
    if (expect_apart(b, 3, 1 << 2) < 0) goto fail;
    const uint64_t *hashes = b[0].buf;
    const int64_t *offsets = b[1].buf;
    /* Unsigned: sums beyond 2^31 wrap instead of being undefined. */
    uint32_t *counts = b[2].buf;
    if (check_offsets(offsets, n, b[0].len / 8, "offsets") < 0) goto fail;

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t *row = counts + i * dims;
        uint64_t before = 0;
        memset(row, 0, (size_t)dims * 4);
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            const uint64_t h = hashes[j];
            if (h) row[(h >> 32) * (uint64_t)dims >> 32] += h & 1 ? unigram : 0u - unigram;
            if (h && before && bigram) {
                const uint64_t pair = mix(before * BIGRAM_FACTOR + h);
                row[(pair >> 32) * (uint64_t)dims >> 32] += pair & 1 ? bigram : 0u - bigram;
            }
            before = h;
        }
    }
    Py_END_ALLOW_THREADS

    give_back(b, 3);
    Py_RETURN_NONE;
fail:
    give_back(b, 3);
    return NULL;
}
