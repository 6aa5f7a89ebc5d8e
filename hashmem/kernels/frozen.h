/* Frozen tables: a perfect hash over the digests, entries where it says.
 *
 * After PtrHash (Groot Koerkamp, "PtrHash: Minimal perfect hashing at RAM throughput", 2025), with
 * parts of whatever size chance gives them and without its remapping: a part has a few slots more
 * than entries (1 in 128, as tables do it), and its free slots repeat an entry of the part.
 *
 * A digest's 64-bit keyed hash (hashing.h) names its part by the high half, and a bucket of the
 * part by the low half, so skewed that few buckets are large. Each bucket has a pilot, one byte,
 * for which the slots of its digests are all different from each other and from those of all other
 * buckets of the part:
 *
 *     slot = offsets[part] + high32((hash ^ pilot * PILOT_MIX) * SLOT_MIX) * slots of the part >> 32
 *
 * A part in which two digests have one hash, or for which no pilots are found, takes another turn:
 * bucket and slot come from a hash under the next of a few sets of keys. So what is unlikely in one
 * part stays so in a million, and two hashes of 2^34 that agree, as some will, are no harm.
 *
 * An entry is the value, int64 little-endian, the digest, and zeros up to a multiple of 8 bytes.
 * A find reads one pilot and one entry, and compares the whole digest. A slot whose entry belongs
 * elsewhere needs no mark: a search for that entry's digest never comes there.
 */
#ifndef HASHMEM_FROZEN_H
#define HASHMEM_FROZEN_H

#include "hashing.h"

#define PILOT_MIX 0x9e3779b97f4a7c15u
#define SLOT_MIX 0xd1342543de82ef95u

ALWAYS_INLINE uint64_t part_of(uint64_t hash, uint64_t parts) { return bucket_of(hash, parts); }

/* x -> x^2 (1 + x) / 2, with 1/256 of x, on fractions of 2^32: what PtrHash takes for the optimal
 * x + (1 - x) ln(1 - x) (Hermann et al., "PHOBIC", 2024). */
ALWAYS_INLINE uint64_t group_of(uint64_t hash, uint64_t buckets) {
    const uint64_t x = hash & 0xffffffffu, square = x * x >> 32;
    const uint64_t cubic = (square >> 1) * (((uint64_t)1 << 32) + x) >> 32;
    return (cubic - (cubic >> 8) + (x >> 8)) * buckets >> 32;
}

ALWAYS_INLINE uint64_t slot_of(uint64_t hash, uint64_t pilot, uint64_t slots) {
    return ((hash ^ pilot * PILOT_MIX) * SLOT_MIX >> 32) * slots >> 32;
}

ALWAYS_INLINE size_t entry_bytes(size_t width) { return 8 + ((width + 7) & ~(size_t)7); }

ALWAYS_INLINE int check_width(uint64_t width) {
    if (width >= MIN_WIDTH && width <= MAX_WIDTH) return 0;
    PyErr_Format(PyExc_ValueError, "width must be %d to %d bytes, got %llu", MIN_WIDTH, MAX_WIDTH,
                 (unsigned long long)width);
    return -1;
}

ALWAYS_INLINE int check_counts(uint64_t parts, uint64_t buckets) {
    if (parts && parts < (uint64_t)1 << 31 && buckets && buckets < (uint64_t)1 << 31) return 0;
    PyErr_SetString(PyExc_ValueError, "there must be 1 to 2^31 - 1 parts, and buckets in each");
    return -1;
}

#endif
