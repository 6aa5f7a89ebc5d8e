/* What the CPU gives: SHA-256 by its instructions and XXH3 by its author's header, in plain loops.
 *
 * Each function digests n messages of the same number of bytes, `messages` being their addresses,
 * and writes the digests one after the other. What the machine or the system lacks is left out.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SHA__
#include <immintrin.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

typedef struct {
    __m128i abef, cdgh;
} State;

/* One block of each of `lanes` messages. */
static inline __attribute__((always_inline)) void block(State *state, const uint8_t **at, int lanes)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[2][4];
    State s[2];
    for (int l = 0; l < lanes; l++) {
        s[l] = state[l];
        for (int i = 0; i < 4; i++)
            w[l][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(at[l] + 16 * i)), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        for (int l = 0; l < lanes; l++) {
            __m128i *const m = w[l];
            const __m128i sum = _mm_add_epi32(m[i % 4], _mm_loadu_si128((const __m128i *)K + i));
            s[l].cdgh = _mm_sha256rnds2_epu32(s[l].cdgh, s[l].abef, sum);
            s[l].abef = _mm_sha256rnds2_epu32(s[l].abef, s[l].cdgh, _mm_shuffle_epi32(sum, 0x0e));
            if (i < 12)
                m[i % 4] = _mm_sha256msg2_epu32(
                    _mm_add_epi32(_mm_sha256msg1_epu32(m[i % 4], m[(i + 1) % 4]),
                                  _mm_alignr_epi8(m[(i + 3) % 4], m[(i + 2) % 4], 4)),
                    m[(i + 3) % 4]);
        }
    for (int l = 0; l < lanes; l++) {
        state[l].abef = _mm_add_epi32(state[l].abef, s[l].abef);
        state[l].cdgh = _mm_add_epi32(state[l].cdgh, s[l].cdgh);
        at[l] += 64;
    }
}

static inline __attribute__((always_inline)) void sha256(const uint8_t *const *messages,
                                                         uint64_t bytes, uint64_t n, uint8_t *out,
                                                         int lanes)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const uint64_t rest = bytes % 64, ends = rest + 9 > 64 ? 2 : 1;
    const uint64_t bits = __builtin_bswap64(8 * bytes);
    uint8_t tail[2][128] = {{0}};
    for (int l = 0; l < lanes; l++) {
        tail[l][rest] = 0x80;
        memcpy(tail[l] + 64 * ends - 8, &bits, 8);
    }
    for (uint64_t i = 0; i + (uint64_t)lanes <= n; i += (uint64_t)lanes) {
        State state[2];
        const uint8_t *at[2];
        for (int l = 0; l < lanes; l++) {
            state[l].abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
            state[l].cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
            at[l] = messages[i + (uint64_t)l];
            memcpy(tail[l], at[l] + bytes - rest, rest);
        }
        for (uint64_t b = 0; b < bytes / 64; b++)
            block(state, at, lanes);
        for (int l = 0; l < lanes; l++)
            at[l] = tail[l];
        for (uint64_t b = 0; b < ends; b++)
            block(state, at, lanes);
        for (int l = 0; l < lanes; l++) {
            const __m128i feba = _mm_shuffle_epi32(state[l].abef, 0x1b);
            const __m128i dchg = _mm_shuffle_epi32(state[l].cdgh, 0xb1);
            __m128i *to = (__m128i *)(out + 32 * (i + (uint64_t)l));
            _mm_storeu_si128(to, _mm_shuffle_epi8(_mm_blend_epi16(feba, dchg, 0xf0), swap));
            _mm_storeu_si128(to + 1, _mm_shuffle_epi8(_mm_alignr_epi8(dchg, feba, 8), swap));
        }
    }
}

void sha256_single(const uint8_t *const *messages, uint64_t bytes, uint64_t n, uint8_t *out)
{
    sha256(messages, bytes, n, out, 1);
}

/* n is even. */
void sha256_paired(const uint8_t *const *messages, uint64_t bytes, uint64_t n, uint8_t *out)
{
    sha256(messages, bytes, n, out, 2);
}
#endif

#if __has_include(<xxhash.h>)
#define XXH_INLINE_ALL
#include <xxhash.h>

void xxh3_64(const uint8_t *const *messages, uint64_t bytes, uint64_t n, uint8_t *out)
{
    for (uint64_t i = 0; i < n; i++)
        XXH64_canonicalFromHash((XXH64_canonical_t *)out + i, XXH3_64bits(messages[i], bytes));
}

void xxh3_128(const uint8_t *const *messages, uint64_t bytes, uint64_t n, uint8_t *out)
{
    for (uint64_t i = 0; i < n; i++)
        XXH128_canonicalFromHash((XXH128_canonical_t *)out + i, XXH3_128bits(messages[i], bytes));
}
#endif
