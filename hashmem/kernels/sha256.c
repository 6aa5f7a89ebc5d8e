/* SHA-256 (FIPS 180-4) of many pieces of one buffer, by the CPU's own instructions.
 *
 * Two messages are digested side by side: the instructions of one wait for each other, so a second
 * one in between costs little. Where the CPU has no such instructions the kernel answers False and
 * the caller takes hashlib; so this file holds no portable SHA-256.
 */
#include "kernels.h"

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_SHA 1
#include <cpuid.h>
#include <immintrin.h>
#define TARGET __attribute__((target("sha,sse4.1,ssse3")))
#else
#define HAVE_SHA 0
#endif

#if HAVE_SHA

#define BLOCK 64 /* bytes */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static int cpu_has_sha(void) {
    static int has = -1; /* asked once, under the GIL: under virtualisation it takes 25 µs */
    unsigned a, b, c, d;
    if (has < 0)
        has = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_1) && (c & bit_SSSE3) &&
              __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
    return has;
}

/* One message under way. The state is kept as the instructions want it: ABEF and CDGH. */
typedef struct {
    __m128i abef, cdgh;
    const uint8_t *data;
    uint64_t blocks;        /* whole blocks in data */
    uint8_t tail[2 * BLOCK]; /* the rest, padded */
    uint64_t tail_blocks;   /* 1 or 2 */
} Message;

TARGET ALWAYS_INLINE void start(Message *m, const uint8_t *data, uint64_t bytes) {
    m->abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    m->cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    m->data = data;
    m->blocks = bytes / BLOCK;
    const uint64_t rest = bytes % BLOCK, bits = bytes * 8;
    m->tail_blocks = rest + 9 > BLOCK ? 2 : 1;
    memset(m->tail, 0, sizeof m->tail);
    if (rest) memcpy(m->tail, data + m->blocks * BLOCK, rest);
    m->tail[rest] = 0x80;
    uint8_t *end = m->tail + m->tail_blocks * BLOCK;
    for (int i = 1; i <= 8; i++) end[-i] = (uint8_t)(bits >> (8 * (i - 1)));
}

ALWAYS_INLINE const uint8_t *block_of(const Message *m, uint64_t i) {
    return i < m->blocks ? m->data + i * BLOCK : m->tail + (i - m->blocks) * BLOCK;
}

/* One block for each of `lanes` messages, 1 or 2. */
TARGET ALWAYS_INLINE void compress(Message *messages, const uint8_t *const *from, int lanes) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i words[2][4], abef[2], cdgh[2];
    for (int l = 0; l < lanes; l++) {
        abef[l] = messages[l].abef;
        cdgh[l] = messages[l].cdgh;
        for (int i = 0; i < 4; i++)
            words[l][i] = _mm_shuffle_epi8(
                _mm_loadu_si128((const __m128i *)(const void *)(from[l] + 16 * i)), swap);
    }
#pragma GCC unroll 16
    for (int group = 0; group < 16; group++) { /* of four rounds */
        const __m128i k = _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * group));
        for (int l = 0; l < lanes; l++) {
            __m128i *w = words[l];
            const __m128i sum = _mm_add_epi32(w[group & 3], k);
            cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], sum);
            abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(sum, 0x0e));
            if (group < 12) { /* the words of four groups on, in the place of these */
                const __m128i after = w[(group + 1) & 3], last = w[(group + 3) & 3];
                const __m128i seventh = _mm_alignr_epi8(last, w[(group + 2) & 3], 4);
                w[group & 3] = _mm_sha256msg2_epu32(
                    _mm_add_epi32(_mm_sha256msg1_epu32(w[group & 3], after), seventh), last);
            }
        }
    }
    for (int l = 0; l < lanes; l++) {
        messages[l].abef = _mm_add_epi32(abef[l], messages[l].abef);
        messages[l].cdgh = _mm_add_epi32(cdgh[l], messages[l].cdgh);
    }
}

TARGET ALWAYS_INLINE void finish(const Message *m, uint8_t *out) {
    const __m128i feba = _mm_shuffle_epi32(m->abef, 0x1b), dchg = _mm_shuffle_epi32(m->cdgh, 0xb1);
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i dcba = _mm_blend_epi16(feba, dchg, 0xf0);
    const __m128i hgfe = _mm_alignr_epi8(dchg, feba, 8);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_shuffle_epi8(dcba, swap));
    _mm_storeu_si128((__m128i *)(void *)(out + 16), _mm_shuffle_epi8(hgfe, swap));
}

TARGET static void digest_all(const uint8_t *data, const int64_t *offsets, Py_ssize_t n,
                              uint8_t *out) {
    for (Py_ssize_t i = 0; i < n; i += 2) {
        Message pair[2];
        const int lanes = n - i < 2 ? 1 : 2;
        uint64_t blocks[2] = {0, 0};
        for (int l = 0; l < lanes; l++) {
            start(&pair[l], data + offsets[i + l], (uint64_t)(offsets[i + l + 1] - offsets[i + l]));
            blocks[l] = pair[l].blocks + pair[l].tail_blocks;
        }
        uint64_t at = 0;
        for (; at < blocks[0] && at < blocks[1]; at++) {
            const uint8_t *from[2] = {block_of(&pair[0], at), block_of(&pair[1], at)};
            compress(pair, from, 2);
        }
        for (int l = 0; l < lanes; l++) { /* what the longer one has left */
            for (uint64_t rest = at; rest < blocks[l]; rest++) {
                const uint8_t *from[1] = {block_of(&pair[l], rest)};
                compress(&pair[l], from, 1);
            }
            finish(&pair[l], out + 32 * (i + l));
        }
    }
}

#endif

/* sha256(data: bytes, offsets: int64[n + 1], out: uint8[n][32]) -> whether it could */
KERNEL(hashmem_sha256) {
    (void)module;
    if (expect_arguments("sha256", nargs, 3) < 0) return NULL;
#if HAVE_SHA
    if (!cpu_has_sha()) Py_RETURN_FALSE;
    Py_buffer b[3] = {{0}};
    PyObject *answer = NULL;
    if (borrow(args[0], &b[0], READ, 1, "data") < 0 ||
        borrow(args[1], &b[1], READ, 8, "offsets") < 0 ||
        borrow(args[2], &b[2], WRITE, 32, "out") < 0)
        goto done;
    if (overlap(&b[2], &b[0]) || overlap(&b[2], &b[1])) {
        PyErr_SetString(PyExc_ValueError, "out must not overlap data or offsets");
        goto done;
    }
    const int64_t *offsets = b[1].buf;
    const Py_ssize_t n = b[2].len / 32;
    if (b[1].len / 8 != n + 1) {
        PyErr_Format(PyExc_ValueError, "%zd offsets do not cut %zd pieces", b[1].len / 8, n);
        goto done;
    }
    for (Py_ssize_t i = 0; i <= n; i++) {
        if (offsets[i] < (i ? offsets[i - 1] : 0) || offsets[i] > (int64_t)b[0].len) {
            PyErr_Format(PyExc_ValueError, "offset %zd is out of order or beyond the data", i);
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    digest_all(b[0].buf, offsets, n, b[2].buf);
    Py_END_ALLOW_THREADS
    answer = Py_NewRef(Py_True);
done:
    give_back(b, 3);
    return answer;
#else
    Py_RETURN_FALSE;
#endif
}
