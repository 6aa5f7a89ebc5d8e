/* XXH3 of 64 and 128 bits, seed 0 and the default secret, written from the specification
 * (github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), whose names and numbers these are.
 *
 * Up to 240 bytes it is multiplications of 64 by 64 bits; beyond, stripes of 64 bytes, with AVX2
 * where the CPU has it, with SSE2 on other x86-64, and in plain C. Digests are written in canonical
 * form: big-endian, the higher half first.
 */
#include "digests.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_VECTORS 1
#include <immintrin.h>
#else
#define HAVE_VECTORS 0
#endif

#define PRIME32_1 0x9E3779B1U
#define PRIME32_2 0x85EBCA77U
#define PRIME32_3 0xC2B2AE3DU
#define PRIME64_1 0x9E3779B185EBCA87ULL
#define PRIME64_2 0xC2B2AE3D27D4EB4FULL
#define PRIME64_3 0x165667B19E3779F9ULL
#define PRIME64_4 0x85EBCA77C2B2AE63ULL
#define PRIME64_5 0x27D4EB2F165667C5ULL
#define PRIME_MX1 0x165667919E3779F9ULL
#define PRIME_MX2 0x9FB21C651E98DF25ULL

#define STRIPE 64                /* bytes */
#define STRIPES_A_BLOCK 16       /* (sizeof secret - 64) / 8 */
#define LAST_STRIPE (192 - 71)   /* places in the secret */
#define SCRAMBLE (192 - 64)
#define MERGE_LOW 11
#define MERGE_HIGH (192 - 75)

static const uint8_t secret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

typedef struct {
    uint64_t low, high;
} Wide; /* a product, or a digest of 128 bits */

#if (defined(__GNUC__) || defined(__clang__)) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SWAP64 __builtin_bswap64

ALWAYS_INLINE uint64_t word(const uint8_t *at) {
    uint64_t value;
    return memcpy(&value, at, 8), value;
}

ALWAYS_INLINE uint64_t half_word(const uint8_t *at) {
    uint32_t value;
    return memcpy(&value, at, 4), value;
}

ALWAYS_INLINE void write_big(uint8_t *to, uint64_t value) {
    value = SWAP64(value);
    memcpy(to, &value, 8);
}
#else
ALWAYS_INLINE uint64_t half_word(const uint8_t *at) {
    return at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

ALWAYS_INLINE uint64_t word(const uint8_t *at) { return half_word(at) | half_word(at + 4) << 32; }

ALWAYS_INLINE void write_big(uint8_t *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (56 - 8 * i));
}

ALWAYS_INLINE uint64_t SWAP64(uint64_t value) {
    uint8_t bytes[8];
    write_big(bytes, value);
    return word(bytes);
}
#endif

ALWAYS_INLINE Wide times(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (Wide){(uint64_t)product, (uint64_t)(product >> 64)};
#else
    const uint64_t mask = 0xFFFFFFFF, a0 = a & mask, a1 = a >> 32, b0 = b & mask, b1 = b >> 32;
    const uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (middle & mask);
    return (Wide){other << 32 | (low & mask), a1 * b1 + (middle >> 32) + (other >> 32)};
#endif
}

ALWAYS_INLINE uint64_t folded(uint64_t a, uint64_t b) {
    const Wide product = times(a, b);
    return product.low ^ product.high;
}

ALWAYS_INLINE uint64_t rotl(uint64_t x, int by) { return x << by | x >> (64 - by); }

ALWAYS_INLINE uint64_t avalanche(uint64_t x) {
    x = (x ^ x >> 37) * PRIME_MX1;
    return x ^ x >> 32;
}

ALWAYS_INLINE uint64_t avalanche_xxh64(uint64_t x) {
    x = (x ^ x >> 33) * PRIME64_2;
    x = (x ^ x >> 29) * PRIME64_3;
    return x ^ x >> 32;
}

/* The words of the secret from a place on, two of them xored. Constants, once compiled. */
ALWAYS_INLINE uint64_t secret_pair(int at) { return word(secret + at) ^ word(secret + at + 8); }

/* 0 to 16 bytes. */

/* 1 to 3 bytes and their number, each byte in a place of its own */
ALWAYS_INLINE uint64_t combined_1to3(const uint8_t *data, uint64_t bytes) {
    return data[bytes - 1] | bytes << 8 | (uint64_t)data[0] << 16 | (uint64_t)data[bytes >> 1] << 24;
}

ALWAYS_INLINE uint64_t low_1to3(const uint8_t *data, uint64_t bytes) {
    return avalanche_xxh64(half_word(secret) ^ half_word(secret + 4) ^ combined_1to3(data, bytes));
}

ALWAYS_INLINE uint64_t small_64(const uint8_t *data, uint64_t bytes) {
    if (bytes > 8) {
        const uint64_t low = secret_pair(24) ^ word(data);
        const uint64_t high = secret_pair(40) ^ word(data + bytes - 8);
        return avalanche(bytes + SWAP64(low) + high + folded(low, high));
    }
    if (bytes >= 4) {
        uint64_t x = secret_pair(8) ^ (half_word(data + bytes - 4) | half_word(data) << 32);
        x = (x ^ rotl(x, 49) ^ rotl(x, 24)) * PRIME_MX2;
        x = (x ^ ((x >> 35) + bytes)) * PRIME_MX2;
        return x ^ x >> 28;
    }
    return bytes ? low_1to3(data, bytes) : avalanche_xxh64(secret_pair(56));
}

ALWAYS_INLINE Wide small_128(const uint8_t *data, uint64_t bytes) {
    if (bytes > 8) {
        const uint64_t last = word(data + bytes - 8);
        const uint64_t second = secret_pair(48) ^ last;
        Wide x = times(secret_pair(32) ^ word(data) ^ last, PRIME64_1);
        x.low += (bytes - 1) << 54;
        x.high += second + (second & 0xFFFFFFFF) * (PRIME32_2 - 1);
        const Wide y = times(x.low ^ SWAP64(x.high), PRIME64_2);
        return (Wide){avalanche(y.low), avalanche(y.high + x.high * PRIME64_2)};
    }
    if (bytes >= 4) {
        const uint64_t both = half_word(data) | half_word(data + bytes - 4) << 32;
        Wide x = times(secret_pair(16) ^ both, PRIME64_1 + (bytes << 2));
        x.high += x.low << 1;
        x.low ^= x.high >> 3;
        x.low = (x.low ^ x.low >> 35) * PRIME_MX2;
        return (Wide){x.low ^ x.low >> 28, avalanche(x.high)};
    }
    if (!bytes) return (Wide){avalanche_xxh64(secret_pair(64)), avalanche_xxh64(secret_pair(80))};
    const uint64_t swapped = SWAP64(combined_1to3(data, bytes)) >> 32;
    const uint64_t turned = (swapped << 13 | swapped >> 19) & 0xFFFFFFFF;
    return (Wide){low_1to3(data, bytes),
                  avalanche_xxh64(half_word(secret + 8) ^ half_word(secret + 12) ^ turned)};
}

/* 17 to 240 bytes. */

ALWAYS_INLINE uint64_t mix(const uint8_t *data, uint64_t at) {
    return folded(word(data) ^ word(secret + at), word(data + 8) ^ word(secret + at + 8));
}

ALWAYS_INLINE void mix_two(Wide *acc, const uint8_t *one, const uint8_t *two, uint64_t at) {
    acc->low = (acc->low + mix(one, at)) ^ (word(two) + word(two + 8));
    acc->high = (acc->high + mix(two, at + 16)) ^ (word(one) + word(one + 8));
}

static uint64_t medium_64(const uint8_t *data, uint64_t bytes) {
    const uint8_t *end = data + bytes;
    uint64_t acc = bytes * PRIME64_1;
    if (bytes <= 128) { /* sums: their order is free */
        acc += mix(data, 0) + mix(end - 16, 16);
        if (bytes > 32) acc += mix(data + 16, 32) + mix(end - 32, 48);
        if (bytes > 64) acc += mix(data + 32, 64) + mix(end - 48, 80);
        if (bytes > 96) acc += mix(data + 48, 96) + mix(end - 64, 112);
        return avalanche(acc);
    }
    for (uint64_t i = 0; i < 8; i++) acc += mix(data + 16 * i, 16 * i);
    acc = avalanche(acc);
    for (uint64_t i = 8; i < bytes / 16; i++) acc += mix(data + 16 * i, 16 * (i - 8) + 3);
    return avalanche(acc + mix(end - 16, 119));
}

static Wide medium_128(const uint8_t *data, uint64_t bytes) {
    const uint8_t *end = data + bytes;
    Wide acc = {bytes * PRIME64_1, 0};
    if (bytes <= 128) {
        if (bytes > 96) mix_two(&acc, data + 48, end - 64, 96);
        if (bytes > 64) mix_two(&acc, data + 32, end - 48, 64);
        if (bytes > 32) mix_two(&acc, data + 16, end - 32, 32);
        mix_two(&acc, data, end - 16, 0);
    } else {
        for (uint64_t i = 0; i < 4; i++) mix_two(&acc, data + 32 * i, data + 32 * i + 16, 32 * i);
        acc = (Wide){avalanche(acc.low), avalanche(acc.high)};
        for (uint64_t i = 4; i < bytes / 32; i++)
            mix_two(&acc, data + 32 * i, data + 32 * i + 16, 32 * (i - 4) + 3);
        mix_two(&acc, end - 16, end - 32, 103);
    }
    const uint64_t high = acc.low * PRIME64_1 + acc.high * PRIME64_4 + bytes * PRIME64_2;
    return (Wide){avalanche(acc.low + acc.high), 0 - avalanche(high)};
}

/* Beyond 240 bytes: eight accumulators. */

typedef void Consume(uint64_t acc[8], const uint8_t *data, uint64_t bytes);

/* Define a function that takes in all stripes: whole blocks with a scramble after each, of the last
 * block all but its last stripe, then the last 64 bytes. `count` vectors hold the accumulators. */
#define CONSUME(name, target, Vector, count, load, store, accumulate, scramble)                  \
    target static void name(uint64_t acc[8], const uint8_t *data, uint64_t bytes) {               \
        Vector v[count];                                                                          \
        const uint8_t *last = data + bytes - STRIPE;                                              \
        uint64_t stripes = (bytes - 1) / STRIPE;                                                  \
        for (int i = 0; i < count; i++) v[i] = load(acc + i * (8 / count));                       \
        for (; stripes >= STRIPES_A_BLOCK; stripes -= STRIPES_A_BLOCK) {                          \
            for (int s = 0; s < STRIPES_A_BLOCK; s++, data += STRIPE)                             \
                accumulate(v, data, secret + 8 * s);                                              \
            scramble(v);                                                                          \
        }                                                                                         \
        for (uint64_t s = 0; s < stripes; s++, data += STRIPE) accumulate(v, data, secret + 8 * s); \
        accumulate(v, last, secret + LAST_STRIPE);                                                \
        for (int i = 0; i < count; i++) store(acc + i * (8 / count), v[i]);                       \
    }

#if HAVE_VECTORS

#define AVX2 __attribute__((target("avx2")))

#define LOAD_256(from) _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define STORE_256(to, value) _mm256_storeu_si256((__m256i *)(void *)(to), value)
#define LOAD_128(from) _mm_loadu_si128((const __m128i *)(const void *)(from))
#define STORE_128(to, value) _mm_storeu_si128((__m128i *)(void *)(to), value)

AVX2 ALWAYS_INLINE void accumulate_avx2(__m256i *acc, const uint8_t *data, const uint8_t *key) {
    for (int i = 0; i < 2; i++) {
        const __m256i stripe = LOAD_256(data + 32 * i);
        const __m256i value = _mm256_xor_si256(stripe, LOAD_256(key + 32 * i));
        const __m256i product = _mm256_mul_epu32(value, _mm256_srli_epi64(value, 32));
        const __m256i swapped = _mm256_shuffle_epi32(stripe, 0x4e); /* the other of two lanes */
        acc[i] = _mm256_add_epi64(_mm256_add_epi64(acc[i], swapped), product);
    }
}

AVX2 ALWAYS_INLINE void scramble_avx2(__m256i *acc) {
    const __m256i prime = _mm256_set1_epi64x(PRIME32_1);
    for (int i = 0; i < 2; i++) {
        __m256i x = _mm256_xor_si256(acc[i], _mm256_srli_epi64(acc[i], 47));
        x = _mm256_xor_si256(x, LOAD_256(secret + SCRAMBLE + 32 * i));
        const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), prime);
        acc[i] = _mm256_add_epi64(_mm256_mul_epu32(x, prime), _mm256_slli_epi64(high, 32));
    }
}

ALWAYS_INLINE void accumulate_sse2(__m128i *acc, const uint8_t *data, const uint8_t *key) {
    for (int i = 0; i < 4; i++) {
        const __m128i stripe = LOAD_128(data + 16 * i);
        const __m128i value = _mm_xor_si128(stripe, LOAD_128(key + 16 * i));
        const __m128i product = _mm_mul_epu32(value, _mm_srli_epi64(value, 32));
        const __m128i swapped = _mm_shuffle_epi32(stripe, 0x4e);
        acc[i] = _mm_add_epi64(_mm_add_epi64(acc[i], swapped), product);
    }
}

ALWAYS_INLINE void scramble_sse2(__m128i *acc) {
    const __m128i prime = _mm_set1_epi64x(PRIME32_1);
    for (int i = 0; i < 4; i++) {
        __m128i x = _mm_xor_si128(acc[i], _mm_srli_epi64(acc[i], 47));
        x = _mm_xor_si128(x, LOAD_128(secret + SCRAMBLE + 16 * i));
        const __m128i high = _mm_mul_epu32(_mm_srli_epi64(x, 32), prime);
        acc[i] = _mm_add_epi64(_mm_mul_epu32(x, prime), _mm_slli_epi64(high, 32));
    }
}

CONSUME(consume_avx2, AVX2, __m256i, 2, LOAD_256, STORE_256, accumulate_avx2, scramble_avx2)
CONSUME(consume_sse2, , __m128i, 4, LOAD_128, STORE_128, accumulate_sse2, scramble_sse2)

static Consume *consume = consume_sse2; /* set under the GIL, before a digest */

static void choose(void) {
    if (__builtin_cpu_supports("avx2")) consume = consume_avx2;
}

#else

#define LOAD_64(from) (*(from))
#define STORE_64(to, value) (*(to) = (value))

ALWAYS_INLINE void accumulate_plain(uint64_t *acc, const uint8_t *data, const uint8_t *key) {
    for (int i = 0; i < 8; i++) {
        const uint64_t lane = word(data + 8 * i), value = lane ^ word(key + 8 * i);
        acc[i ^ 1] += lane;
        acc[i] += (value & 0xFFFFFFFF) * (value >> 32);
    }
}

ALWAYS_INLINE void scramble_plain(uint64_t *acc) {
    for (int i = 0; i < 8; i++)
        acc[i] = (acc[i] ^ acc[i] >> 47 ^ word(secret + SCRAMBLE + 8 * i)) * PRIME32_1;
}

CONSUME(consume, , uint64_t, 8, LOAD_64, STORE_64, accumulate_plain, scramble_plain)

static void choose(void) {}

#endif

ALWAYS_INLINE uint64_t merged(const uint64_t acc[8], uint64_t from, int at) {
    for (int i = 0; i < 8; i += 2)
        from += folded(acc[i] ^ word(secret + at + 8 * i), acc[i + 1] ^ word(secret + at + 8 * i + 8));
    return avalanche(from);
}

#define FIRST_ACCUMULATORS                                                                       \
    {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1}

static uint64_t large_64(const uint8_t *data, uint64_t bytes) {
    uint64_t acc[8] = FIRST_ACCUMULATORS;
    consume(acc, data, bytes);
    return merged(acc, bytes * PRIME64_1, MERGE_LOW);
}

static Wide large_128(const uint8_t *data, uint64_t bytes) {
    uint64_t acc[8] = FIRST_ACCUMULATORS;
    consume(acc, data, bytes);
    return (Wide){merged(acc, bytes * PRIME64_1, MERGE_LOW),
                  merged(acc, ~(bytes * PRIME64_2), MERGE_HIGH)};
}

#define ASKED 512 /* bytes: longer ones the hardware reads ahead, faster if it is left alone */

static void digest_64(const Piece *pieces, Py_ssize_t n, uint8_t *out) {
    for (Py_ssize_t i = 0; i < n; i++) {
        if (pieces[i].bytes <= ASKED) ask_ahead(pieces, i, n);
        const uint8_t *data = pieces[i].data;
        const uint64_t bytes = pieces[i].bytes;
        write_big(out + 8 * i, bytes <= 16    ? small_64(data, bytes)
                               : bytes <= 240 ? medium_64(data, bytes)
                                              : large_64(data, bytes));
    }
}

static void digest_128(const Piece *pieces, Py_ssize_t n, uint8_t *out) {
    for (Py_ssize_t i = 0; i < n; i++) {
        if (pieces[i].bytes <= ASKED) ask_ahead(pieces, i, n);
        const uint8_t *data = pieces[i].data;
        const uint64_t bytes = pieces[i].bytes;
        const Wide digest = bytes <= 16    ? small_128(data, bytes)
                            : bytes <= 240 ? medium_128(data, bytes)
                                           : large_128(data, bytes);
        write_big(out + 16 * i, digest.high);
        write_big(out + 16 * i + 8, digest.low);
    }
}

DigestPieces *xxh3_64_pieces(void) {
    choose();
    return digest_64;
}

DigestPieces *xxh3_128_pieces(void) {
    choose();
    return digest_128;
}
