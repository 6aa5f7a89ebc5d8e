/* SHA-256 (FIPS 180-4) of many pieces, by the CPU's own instructions.
 *
 * Two messages are digested side by side: the instructions of one wait for each other, so a second
 * one in between costs little. When one ends the next takes its place, so that sizes may differ.
 * Where the CPU has no such instructions the caller takes hashlib; so this file holds no portable
 * SHA-256.
 */
#include "digests.h"

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
    const uint8_t *data; /* the next block */
    uint64_t blocks;     /* from there on: first the whole ones, then those of the tail */
    uint64_t tail_blocks; /* 1 or 2; 0 once they are under way */
    uint8_t tail[2 * BLOCK]; /* what does not fill a block, padded */
    uint8_t *out;
} Message;

/* Copy fewer than 64 bytes. memcpy of an unknown size is a call. */
ALWAYS_INLINE void copy_short(uint8_t *to, const uint8_t *from, uint64_t bytes) {
    for (; bytes >= 16; bytes -= 16, to += 16, from += 16) memcpy(to, from, 16);
    if (bytes & 8) memcpy(to, from, 8), to += 8, from += 8;
    if (bytes & 4) memcpy(to, from, 4), to += 4, from += 4;
    if (bytes & 2) memcpy(to, from, 2), to += 2, from += 2;
    if (bytes & 1) *to = *from;
}

TARGET ALWAYS_INLINE void start(Message *m, const Piece *piece, uint8_t *out) {
    m->abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    m->cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    const uint64_t rest = piece->bytes % BLOCK, bits = __builtin_bswap64(piece->bytes * 8);
    m->data = piece->data;
    m->blocks = piece->bytes / BLOCK;
    m->tail_blocks = rest + 9 > BLOCK ? 2 : 1;
    m->out = out;
    for (int i = 0; i < 2 * BLOCK; i += 16) /* memset would be a slow string instruction */
        _mm_storeu_si128((__m128i *)(void *)(m->tail + i), _mm_setzero_si128());
    if (rest) copy_short(m->tail, piece->data + m->blocks * BLOCK, rest);
    m->tail[rest] = 0x80;
    memcpy(m->tail + m->tail_blocks * BLOCK - 8, &bits, 8);
}

/* Go from the whole blocks on to the tail: whether there was a tail to go to. */
ALWAYS_INLINE int go_on(Message *m) {
    if (!m->tail_blocks) return 0;
    m->data = m->tail;
    m->blocks = m->tail_blocks;
    m->tail_blocks = 0;
    return 1;
}

/* `blocks` blocks for each of `lanes` messages, 1 or 2. */
TARGET ALWAYS_INLINE void compress(Message *const *messages, int lanes, uint64_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef[2], cdgh[2];
    for (int l = 0; l < lanes; l++) {
        abef[l] = messages[l]->abef;
        cdgh[l] = messages[l]->cdgh;
        messages[l]->blocks -= blocks;
    }
    for (uint64_t block = 0; block < blocks; block++) {
        __m128i words[2][4], abef_before[2], cdgh_before[2];
        for (int l = 0; l < lanes; l++) {
            const uint8_t *data = messages[l]->data + block * BLOCK;
            for (int i = 0; i < 4; i++)
                words[l][i] = _mm_shuffle_epi8(
                    _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i)), swap);
            abef_before[l] = abef[l];
            cdgh_before[l] = cdgh[l];
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
            abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
            cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
        }
    }
    for (int l = 0; l < lanes; l++) {
        messages[l]->abef = abef[l];
        messages[l]->cdgh = cdgh[l];
        messages[l]->data += blocks * BLOCK;
    }
}

TARGET ALWAYS_INLINE void finish(const Message *m) {
    const __m128i feba = _mm_shuffle_epi32(m->abef, 0x1b), dchg = _mm_shuffle_epi32(m->cdgh, 0xb1);
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i dcba = _mm_blend_epi16(feba, dchg, 0xf0);
    const __m128i hgfe = _mm_alignr_epi8(dchg, feba, 8);
    _mm_storeu_si128((__m128i *)(void *)m->out, _mm_shuffle_epi8(dcba, swap));
    _mm_storeu_si128((__m128i *)(void *)(m->out + 16), _mm_shuffle_epi8(hgfe, swap));
}

/* Each lane has a message under way and one that is ready: its tail was stored in pieces, and a
 * load of several stores waits for them, so it is made while the one before is digested. */
TARGET static void digest_pieces(const Piece *pieces, Py_ssize_t n, uint8_t *out) {
    Message memory[4], *now[2] = {&memory[0], &memory[1]}, *ready[2] = {&memory[2], &memory[3]};
    Py_ssize_t next = 0;
    for (int l = 0; l < 2; l++) {
        now[l]->out = ready[l]->out = NULL; /* no message */
        if (next < n) start(now[l], &pieces[next], out + 32 * next), next++;
    }
    for (int l = 0; l < 2; l++)
        if (next < n) start(ready[l], &pieces[next], out + 32 * next), next++;
    while (now[0]->out || now[1]->out) {
        const int both = now[0]->out && now[1]->out, first = !now[0]->out;
        if (both)
            compress(now, 2,
                     now[0]->blocks < now[1]->blocks ? now[0]->blocks : now[1]->blocks);
        else
            compress(&now[first], 1, now[first]->blocks);
        for (int l = 0; l < 2; l++) {
            Message *ended = now[l];
            if (!ended->out || ended->blocks || go_on(ended)) continue;
            finish(ended);
            ended->out = NULL;
            now[l] = ready[l];
            ready[l] = ended;
            ask_ahead(pieces, next, n);
            if (next < n) start(ended, &pieces[next], out + 32 * next), next++;
        }
    }
}

DigestPieces *sha256_pieces(void) { return cpu_has_sha() ? digest_pieces : NULL; }

#else

DigestPieces *sha256_pieces(void) { return NULL; }

#endif
