/* The keyed hash of a digest, and what both tables need to handle digests.
 *
 * A digest's own bits are cheap to grind: whoever chooses the content chooses them. So a slot is
 * chosen by a keyed hash over every byte, Multilinear-HM (Lemire and Kaser, "Strongly universal
 * string hashing is fast", The Computer Journal 57, 2014): with w the digest as 32-bit little-endian
 * words, padded with zeros to an even count, and k 64-bit keys,
 *
 *     sum = k[0] + (k[1] + w[1]) (k[2] + w[2]) + (k[3] + w[3]) (k[4] + w[4]) + …   mod 2^64
 *
 * has strongly universal high 32 bits. Two sums under independent keys are joined to 64 bits and
 * pass a bijection (the finaliser of MurmurHash3), which spreads them over all bits.
 *
 * The guarantee: for any two different digests of a table, the 64-bit hashes are independent and
 * uniform over the choice of keys. Digests chosen without knowing the keys therefore collide as
 * random ones do, however many of their bits agree.
 */
#ifndef HASHMEM_HASHING_H
#define HASHMEM_HASHING_H

#include "kernels.h"

#define MIN_WIDTH 8  /* bytes of a digest */
#define MAX_WIDTH 64
#define SUM_KEYS (1 + MAX_WIDTH / 4)
#define HASH_KEYS (2 * SUM_KEYS) /* uint64: the keys of the first sum, then those of the second */

ALWAYS_INLINE uint64_t load_words(const uint8_t *from, size_t bytes) {
    uint64_t pair = 0;
    memcpy(&pair, from, bytes);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    pair = __builtin_bswap64(pair);
#endif
    return pair;
}

ALWAYS_INLINE void add_words(uint64_t pair, const uint64_t *keys, uint64_t *a, uint64_t *b) {
    const uint64_t first = (uint32_t)pair, second = pair >> 32;
    *a += (keys[1] + first) * (keys[2] + second);
    *b += (keys[SUM_KEYS + 1] + first) * (keys[SUM_KEYS + 2] + second);
}

ALWAYS_INLINE uint64_t hash_digest(const uint8_t *digest, size_t width, const uint64_t *keys) {
    uint64_t a = keys[0], b = keys[SUM_KEYS];
    size_t at = 0;
    for (; at + 8 <= width; at += 8) add_words(load_words(digest + at, 8), keys + at / 4, &a, &b);
    if (at < width) add_words(load_words(digest + at, width - at), keys + at / 4, &a, &b);
    uint64_t h = (a & 0xffffffff00000000u) | b >> 32;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

/* The hash's high half chooses among up to 2^32 buckets, by multiplying instead of dividing
 * (Lemire, "Fast random integer generation in an interval", 2019); its low half makes tags. */
ALWAYS_INLINE uint64_t bucket_of(uint64_t hash, uint64_t buckets) {
    return (hash >> 32) * buckets >> 32;
}

ALWAYS_INLINE int same_digest(const uint8_t *a, const uint8_t *b, size_t width) {
    uint64_t difference = 0, x, y;
    size_t at = 0;
    for (; at + 8 <= width; at += 8) {
        memcpy(&x, a + at, 8);
        memcpy(&y, b + at, 8);
        difference |= x ^ y;
    }
    if (at < width) { /* the last 8 bytes overlap the ones before: no digest is shorter */
        memcpy(&x, a + width - 8, 8);
        memcpy(&y, b + width - 8, 8);
        difference |= x ^ y;
    }
    return difference == 0;
}

/* Ask for every line that a digest lies on. */
ALWAYS_INLINE void prefetch_digest(const uint8_t *digest, size_t width) {
    PREFETCH(digest);
    if (((uintptr_t)digest & 63) + width > 64) PREFETCH(digest + width - 1);
}

/* Run `statement` with `W` the table's width: a constant for the widths of the common digests, so
 * that the compiler unrolls hashing and comparing. */
#define FOR_WIDTH(width, statement)                                    \
    switch (width) {                                                   \
        case 8: { enum { W = 8 }; statement; } break;                  \
        case 16: { enum { W = 16 }; statement; } break;                \
        case 20: { enum { W = 20 }; statement; } break;                \
        case 32: { enum { W = 32 }; statement; } break;                \
        default: { const size_t W = (width); statement; } break;       \
    }

/* A non-negative int argument. 0 on success, -1 with an exception set. */
ALWAYS_INLINE int take_size(PyObject *object, uint64_t *size, const char *name) {
    const long long given = PyLong_AsLongLong(object);
    if (given == -1 && PyErr_Occurred()) return -1;
    if (given < 0) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative, got %lld", name, given);
        return -1;
    }
    *size = (uint64_t)given;
    return 0;
}

ALWAYS_INLINE int expect_bytes(const Py_buffer *buffer, uint64_t items, uint64_t item,
                               const char *name) {
    if ((uint64_t)buffer->len / item >= items) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes do not hold %llu items of %llu bytes", name,
                 buffer->len, (unsigned long long)items, (unsigned long long)item);
    return -1;
}

#endif
