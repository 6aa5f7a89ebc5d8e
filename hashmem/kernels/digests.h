/* What digests.c, which knows Python, asks of the algorithms, which do not. */
#ifndef HASHMEM_DIGESTS_H
#define HASHMEM_DIGESTS_H

#include "kernels.h"

typedef struct {
    const uint8_t *data;
    uint64_t bytes;
} Piece;

/* Write the digests of n pieces one after the other. */
typedef void DigestPieces(const Piece *pieces, Py_ssize_t n, uint8_t *out);

/* The function for this CPU, NULL where it lacks the instructions. To be called under the GIL. */
DigestPieces *sha256_pieces(void);
DigestPieces *xxh3_64_pieces(void);
DigestPieces *xxh3_128_pieces(void);

#endif
