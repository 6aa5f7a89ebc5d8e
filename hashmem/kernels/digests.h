/* What digests.c, which knows Python, asks of the algorithms, which do not. */
#ifndef HASHMEM_DIGESTS_H
#define HASHMEM_DIGESTS_H

#include "kernels.h"

typedef struct {
    const uint8_t *data;
    uint64_t bytes;
} Piece;

#define PIECES_AHEAD 6
#define LINES_AHEAD 8 /* of each, at most: the hardware goes on from there */

/* When piece i is begun: ask for what a later one needs first, and for its end. */
ALWAYS_INLINE void ask_ahead(const Piece *pieces, Py_ssize_t i, Py_ssize_t n) {
    if (i + PIECES_AHEAD >= n) return;
    const Piece *piece = &pieces[i + PIECES_AHEAD];
    for (uint64_t at = 0; at < piece->bytes && at < 64 * LINES_AHEAD; at += 64)
        PREFETCH(piece->data + at);
    if (piece->bytes) PREFETCH(piece->data + piece->bytes - 1);
}

/* Write the digests of n pieces one after the other. */
typedef void DigestPieces(const Piece *pieces, Py_ssize_t n, uint8_t *out);

/* The function for this CPU, NULL where it lacks the instructions. To be called under the GIL. */
DigestPieces *sha256_pieces(void);
DigestPieces *xxh3_64_pieces(void);
DigestPieces *xxh3_128_pieces(void);

#endif
