/* Open addressing: buckets of one cache line that lead from a hash to dense entries.
 *
 * A bucket is 64 bytes, with twelve slots as in F14 (Bronson and Shi, "Open-sourcing F14 for faster,
 * more memory-efficient hash tables", Facebook, 2019):
 *
 *     bytes  0..11   tags: 8 bits of the hash of the entry in each slot, 1..255; 0 is empty
 *     byte   12      how many entries at home here lie in their other bucket; 255: that many or more
 *     bytes 13..15   24 bits: the 12 lowest say which slots hold entries that are away from home,
 *                    the 12 highest are bit 32 of the slots' entry indexes; slot 0 lowest
 *     bytes 16..63   bits 0..31 of the 12 entry indexes, uint32 little-endian
 *
 * An entry lies in one of two buckets: at home, which the hash's high half chooses, or if that is
 * full in its other bucket, a stride further that the tag chooses. Where both are full, entries move
 * to their other bucket to make room, along the shortest way that a breadth-first search finds (Li,
 * Andersen, Kaminsky and Freedman, "Algorithmic improvements for fast concurrent cuckoo hashing",
 * EuroSys 2014). Tag and away bit tell an entry's other bucket without a look at its digest (Fan,
 * Andersen, Kaminsky and Mitzenmacher, "Cuckoo filter", CoNEXT 2014). So no search ever touches more
 * than two buckets, and one whose home says that nothing is away touches one. Deletion leaves
 * nothing behind but a count that has reached 255, which stays until the buckets are rebuilt. An
 * empty slot has index 0 and no bits.
 *
 * An entry is its value, int64, and its digest; in rows.c, which includes this file, it is its digest
 * alone, and its value is its index. An index of `count` or above in a damaged bucket matches
 * nothing. hashmem.kernels.reference.open_addressing says what each kernel answers.
 *
 * Threads: searches beside a change may answer wrongly, but stay within the buffers.
 */
#include "tables.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define LINE 64
#define SLOTS 12
#define ALL_SLOTS ((1u << SLOTS) - 1)
#define AWAY 12 /* the byte that counts the entries away */
#define SATURATED 255
#define LOW_BITS 16
#ifndef HEADER
#define HEADER 8 /* bytes of an entry before its digest: its value, or with 0 none */
#define TABLE(operation) hashmem_open_##operation
#endif
#define AHEAD 24    /* digests between asking for a line and using it */
#define RING 64     /* digests under way: a power of two above 2 * AHEAD */
#define STEP 8      /* digests that a stage of a find takes in turn */
#define LATE 128    /* searches whose ends wait for each other */
#define BLOCK 4096  /* digests, whose numbers fit into an int */
#define QUEUE 2048  /* buckets that the search for room looks at, at most */

static const Layout LAYOUT = {"buckets", LINE, HEADER, (uint64_t)1 << 33};

typedef struct {
    uint8_t *bucket;
    unsigned slot;
    uint64_t entry; /* or NONE */
} Place;

ALWAYS_INLINE uint8_t tag_of(uint64_t hash) {
    return (uint8_t)(1 + ((hash & 0xffffffffu) * 255 >> 32));
}

/* One bit for each slot whose tag is `tag`. */
ALWAYS_INLINE uint32_t matches(const uint8_t *bucket, uint8_t tag) {
#if defined(__SSE2__)
    const __m128i tags = _mm_loadu_si128((const __m128i *)bucket);
    const __m128i equal = _mm_cmpeq_epi8(tags, _mm_set1_epi8((char)tag));
    return (uint32_t)_mm_movemask_epi8(equal) & ALL_SLOTS;
#else
    uint32_t mask = 0;
    for (int i = 0; i < SLOTS; i++) mask |= (uint32_t)(bucket[i] == tag) << i;
    return mask;
#endif
}

ALWAYS_INLINE unsigned lowest(uint32_t mask) {
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctz(mask);
#else
    unsigned at = 0;
    while (!(mask >> at & 1)) at++;
    return at;
#endif
}

ALWAYS_INLINE uint32_t little_endian(uint32_t word) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap32(word);
#else
    return word;
#endif
}

/* Bytes 12..15: the count in the lowest byte, above it a bit for each slot that is away, above them
 * the high bits. */
ALWAYS_INLINE uint32_t bits_of(const uint8_t *bucket) {
    uint32_t bits;
    memcpy(&bits, bucket + AWAY, 4);
    return little_endian(bits);
}

ALWAYS_INLINE uint32_t away_in(const uint8_t *bucket) { return bits_of(bucket) >> 8 & ALL_SLOTS; }

ALWAYS_INLINE uint64_t entry_at(const uint8_t *bucket, unsigned slot) {
    uint32_t low;
    memcpy(&low, bucket + LOW_BITS + 4 * slot, 4);
    return (uint64_t)(bits_of(bucket) >> (20 + slot) & 1) << 32 | little_endian(low);
}

ALWAYS_INLINE void set_entry(uint8_t *bucket, unsigned slot, uint64_t entry) {
    uint32_t bits = bits_of(bucket) & ~(1u << (20 + slot));
    bits = little_endian(bits | (uint32_t)(entry >> 32 & 1) << (20 + slot));
    memcpy(bucket + AWAY, &bits, 4);
    const uint32_t low = little_endian((uint32_t)entry);
    memcpy(bucket + LOW_BITS + 4 * slot, &low, 4);
}

ALWAYS_INLINE void set_slot(uint8_t *bucket, unsigned slot, uint8_t tag, int away, uint64_t entry) {
    bucket[slot] = tag;
    uint32_t bits = bits_of(bucket) & ~(1u << (8 + slot));
    bits = little_endian(bits | (uint32_t)away << (8 + slot));
    memcpy(bucket + AWAY, &bits, 4);
    set_entry(bucket, slot, entry);
}

ALWAYS_INLINE uint64_t number_of(const Table *t, const uint8_t *bucket) {
    return (uint64_t)(bucket - t->index) / LINE;
}

ALWAYS_INLINE uint8_t *home_of(const Table *t, uint64_t hash) {
    return t->index + LINE * bucket_of(hash, t->n_buckets);
}

/* How far the other bucket of an entry with this tag is: not far, for the sake of the TLB. */
ALWAYS_INLINE uint64_t distance_of(const Table *t, uint8_t tag) {
    const uint64_t distance = 16 * (uint64_t)tag + 1, n = t->n_buckets;
    return LIKELY(distance < n) ? distance : n < 2 ? 0 : 1 + tag % (n - 1);
}

ALWAYS_INLINE uint8_t *other_of(const Table *t, const uint8_t *home, uint8_t tag) {
    const uint64_t at = number_of(t, home) + distance_of(t, tag);
    return t->index + LINE * (at < t->n_buckets ? at : at - t->n_buckets);
}

/* Where the entry in a slot has its other place. */
ALWAYS_INLINE uint8_t *elsewhere(const Table *t, const uint8_t *bucket, unsigned slot) {
    if (!(away_in(bucket) >> slot & 1)) return other_of(t, bucket, bucket[slot]);
    const uint64_t at = number_of(t, bucket), back = distance_of(t, bucket[slot]);
    return t->index + LINE * (at >= back ? at - back : at + t->n_buckets - back);
}

ALWAYS_INLINE uint8_t *entry_of(const Table *t, uint64_t entry, size_t width) {
    return t->entries + entry * stride_of(HEADER, width);
}

ALWAYS_INLINE int64_t value_of(const Table *t, const uint8_t *entry, size_t width) {
    int64_t value = 0;
    if (HEADER == 0) return (entry - t->entries) / (int64_t)stride_of(HEADER, width);
    memcpy(&value, entry, HEADER);
    return value;
}

ALWAYS_INLINE void prefetch_entry(const Table *t, uint64_t entry, size_t width) {
    prefetch_digest(entry_of(t, entry, width), HEADER + width);
}

/* What is counted at an entry's home when it leaves (+1) or comes back (-1). */
ALWAYS_INLINE void count_away(uint8_t *home, int change) {
    if (home[AWAY] != SATURATED) home[AWAY] = (uint8_t)(home[AWAY] + change);
}

ALWAYS_INLINE Place locate(const Table *t, const uint8_t *digest, size_t width, uint64_t hash,
                           uint64_t *mismatches) {
    uint8_t *bucket = home_of(t, hash);
    const uint8_t tag = tag_of(hash);
    uint32_t mask = matches(bucket, tag) & ~away_in(bucket);
    for (int away = 0;; away = 1) {
        for (; mask; mask &= mask - 1) {
            const unsigned slot = lowest(mask);
            const uint64_t entry = entry_at(bucket, slot);
            if (LIKELY(entry < t->count &&
                       same_digest(entry_of(t, entry, width) + HEADER, digest, width)))
                return (Place){bucket, slot, entry};
            ++*mismatches;
        }
        if (away || LIKELY(!bucket[AWAY])) return (Place){NULL, 0, NONE};
        bucket = other_of(t, bucket, tag);
        mask = matches(bucket, tag) & away_in(bucket);
    }
}

/* A bucket that the search for room has come to, by moving an entry out of the one before. */
typedef struct {
    uint8_t *bucket;
    uint32_t from; /* the step before */
    uint32_t slot; /* and the slot there */
} Step;

/* Make one slot free in `home` or its other bucket by moving entries to their other buckets, having
 * looked at `limit` buckets at most. The bucket, or NULL where no way was found; then nothing moved.
 *
 * What comes first in the queue is reached by fewest moves, so no bucket is on a way twice. */
static uint8_t *make_room(const Table *t, uint8_t *home, uint8_t *other, uint64_t limit) {
    Step queue[QUEUE];
    uint32_t end = 2;
    if (limit > QUEUE) limit = QUEUE;
    queue[0] = (Step){home, 0, 0};
    queue[1] = (Step){other, 1, 0};
    for (uint32_t at = 0; at < end; at++) {
        uint8_t *full = queue[at].bucket;
        for (unsigned slot = 0; slot < SLOTS; slot++) PREFETCH_WRITE(elsewhere(t, full, slot));
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            uint8_t *to = elsewhere(t, full, slot);
            uint32_t vacant = matches(to, 0);
            if (LIKELY(!vacant)) {
                if (end < limit) queue[end++] = (Step){to, at, slot};
                continue;
            }
            for (uint32_t step = at;; slot = queue[step].slot, step = queue[step].from) {
                uint8_t *from = queue[step].bucket;
                const int was_away = (int)(away_in(from) >> slot & 1);
                set_slot(to, lowest(vacant), from[slot], !was_away, entry_at(from, slot));
                count_away(was_away ? to : from, was_away ? -1 : 1);
                set_slot(from, slot, 0, 0, 0);
                if (step < 2) return from;
                to = from;
                vacant = 1u << slot;
            }
        }
    }
    return NULL;
}

/* Put `entry`, whose digest is not there, into one of its buckets. Whether there was a place. */
ALWAYS_INLINE int place(const Table *t, uint64_t hash, uint64_t entry, uint64_t limit) {
    uint8_t *home = home_of(t, hash), *bucket = home;
    const uint8_t tag = tag_of(hash);
    uint32_t vacant = matches(bucket, 0);
    if (UNLIKELY(!vacant)) {
        uint8_t *other = other_of(t, home, tag);
        vacant = matches(bucket = other, 0);
        if (UNLIKELY(!vacant)) {
            bucket = make_room(t, home, other, limit);
            if (!bucket) return 0;
            vacant = matches(bucket, 0);
        }
        if (bucket != home) count_away(home, 1);
    }
    set_slot(bucket, lowest(vacant), tag, bucket != home, entry);
    return 1;
}

ALWAYS_INLINE void approach(const Table *t, const uint8_t *digest, size_t width, uint64_t *hash) {
    *hash = hash_of(t, digest, width);
    PREFETCH(home_of(t, *hash));
}

/* Ask for the entry that the home bucket points to, or else for the other bucket. */
ALWAYS_INLINE void approach_entry(const Table *t, uint64_t hash, size_t width) {
    uint8_t *bucket = home_of(t, hash);
    const uint8_t tag = tag_of(hash);
    const uint32_t mask = matches(bucket, tag) & ~away_in(bucket);
    if (mask)
        prefetch_entry(t, entry_at(bucket, lowest(mask)), width);
    else if (bucket[AWAY] || !matches(bucket, 0))
        PREFETCH(other_of(t, bucket, tag));
}

/* The value of one digest; whether it is there. */
ALWAYS_INLINE int find_one(const Table *t, const uint8_t *digest, int64_t *value, size_t width) {
    uint64_t mismatches = 0;
    const uint64_t entry =
        locate(t, digest, width, hash_of(t, digest, width), &mismatches).entry;
    if (entry == NONE) return 0;
    *value = value_of(t, entry_of(t, entry, width), width);
    return 1;
}

static const uint8_t nothing[HEADER + MAX_WIDTH]; /* where a damaged index leads beyond the entries */

/* A search whose home bucket has the tag: the entry to compare, once it has come. */
typedef struct {
    const uint8_t *entry;
    uint64_t hash;
    uint32_t i; /* which digest of the block */
} Candidate;

/* A search that is not over with its first entry. */
typedef struct {
    uint64_t hash;
    uint32_t i, home; /* whether the home bucket has more to compare; else only the other has */
} Late;

/* Where the searches of a block stand. Candidates lie in a ring, and are compared in order. */
typedef struct {
    const Table *t;
    const uint8_t *digests;
    int64_t *out, missing;
    uint64_t hashes[RING];
    Candidate candidates[RING];
    uint64_t compared, chosen; /* candidates so far */
    Late late[LATE + RING];
    int n_late;
} Searches;

/* Choose what to compare for `count` digests from `begin` on, whose buckets have come.
 *
 * Nothing is branched on: a search that has no candidate or is not late writes one that the next
 * search overwrites. */
ALWAYS_INLINE void choose(Searches *s, int begin, int count, size_t width) {
    const Table *t = s->t;
    uint64_t chosen = s->chosen;
    int n_late = s->n_late;
    for (int i = begin; i < begin + count; i++) {
        const uint64_t hash = s->hashes[i % RING];
        const uint8_t *bucket = home_of(t, hash);
        const uint32_t bits = bits_of(bucket), mask = matches(bucket, tag_of(hash)) & ~(bits >> 8);
        const uint64_t entry = entry_at(bucket, lowest(mask | 1u << (SLOTS - 1)));
        const uint8_t *to = LIKELY(entry < t->count) ? entry_of(t, entry, width) : nothing;
        const uint8_t *at = mask ? to : bucket;
        PREFETCH(at);
        PREFETCH(at + HEADER + width - 1);
        s->out[i] = s->missing;
        s->candidates[chosen % RING] = (Candidate){to, hash, (uint32_t)i};
        chosen += mask != 0;
        s->late[n_late] = (Late){hash, (uint32_t)i, 0};
        n_late += (mask == 0) & ((bits & 255) != 0);
    }
    s->chosen = chosen;
    s->n_late = n_late;
}

/* Compare the next `count` candidates, which have come. */
ALWAYS_INLINE void compare(Searches *s, int count, size_t width) {
    int n_late = s->n_late;
    for (int k = 0; k < count; k++) {
        const Candidate c = s->candidates[(s->compared + (uint64_t)k) % RING];
        const int same = same_digest(c.entry + HEADER, s->digests + c.i * width, width) &
                         (c.entry != nothing);
        const int64_t value = value_of(s->t, c.entry, width);
        s->out[c.i] = same ? value : s->missing;
        s->late[n_late] = (Late){c.hash, c.i, 1};
        n_late += !same;
    }
    s->compared += (uint64_t)count;
    s->n_late = n_late;
}

/* End the searches that are late: in the other bucket, or among several with the same tag. */
ALWAYS_INLINE void finish(Searches *s, size_t width) {
    const Table *t = s->t;
    Candidate found[LATE + RING];
    int n_found = 0;
    for (int k = 0; k < s->n_late; k++)
        PREFETCH(other_of(t, home_of(t, s->late[k].hash), tag_of(s->late[k].hash)));
    for (int k = 0; k < s->n_late; k++) {
        const Late late = s->late[k];
        const uint8_t tag = tag_of(late.hash), *bucket = other_of(t, home_of(t, late.hash), tag);
        const uint32_t mask = matches(bucket, tag) & away_in(bucket);
        const uint64_t entry = mask ? entry_at(bucket, lowest(mask)) : NONE;
        const int is_candidate = !late.home & !(mask & (mask - 1)) & (entry < t->count);
        if (is_candidate) {
            const uint8_t *at = entry_of(t, entry, width);
            PREFETCH(at);
            PREFETCH(at + HEADER + width - 1);
            found[n_found++] = (Candidate){at, late.hash, late.i};
        } else if (UNLIKELY(late.home || mask)) {
            find_one(t, s->digests + late.i * width, &s->out[late.i], width);
        }
    }
    for (int k = 0; k < n_found; k++)
        if (same_digest(found[k].entry + HEADER, s->digests + found[k].i * width, width))
            s->out[found[k].i] = value_of(t, found[k].entry, width);
    s->n_late = 0;
}

/* Write to out[i] the value of digest i, or `missing`.
 *
 * A pipeline: AHEAD digests after a bucket was asked for, it chooses an entry, and AHEAD candidates
 * after that was asked for, it is compared. Each stage takes STEP digests in turn, so that requests
 * come evenly. What cannot be foretold is not branched on; searches in the other bucket, and the few
 * with two tags that agree, end together. */
ALWAYS_INLINE void find_all(const Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *out,
                            int64_t missing, size_t width) {
    Searches s = {.t = t, .missing = missing};
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        s.digests = queries + base * width;
        s.out = out + base;
        for (int begin = 0; begin < size + AHEAD; begin += STEP) {
            const int middle = begin - AHEAD, last = begin + STEP < size ? begin + STEP : size;
            for (int i = begin; i < last; i++)
                approach(t, s.digests + i * width, width, &s.hashes[i % RING]);
            if (middle < 0) continue;
            if (LIKELY(middle + STEP <= size))
                choose(&s, middle, STEP, width); /* a constant, so that the loop unrolls */
            else
                choose(&s, middle, size > middle ? size - middle : 0, width);
            while (s.chosen - s.compared >= AHEAD) compare(&s, STEP, width);
            if (UNLIKELY(s.n_late >= LATE)) finish(&s, width);
        }
        compare(&s, (int)(s.chosen - s.compared), width);
        finish(&s, width);
    }
}

/* Place all entries into empty buckets. How many there was a place for, in their order. */
ALWAYS_INLINE uint64_t build_all(const Table *t, uint64_t limit, size_t width) {
    uint64_t ring[RING];
    for (uint64_t step = 0; step < t->count + AHEAD; step++) {
        if (step < t->count)
            approach(t, entry_of(t, step, width) + HEADER, width, &ring[step % RING]);
        if (step < AHEAD) continue;
        if (UNLIKELY(!place(t, ring[(step - AHEAD) % RING], step - AHEAD, limit)))
            return step - AHEAD;
    }
    return t->count;
}

#if HEADER /* what follows writes entries */

ALWAYS_INLINE Py_ssize_t insert_all(Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *values,
                                    uint8_t *new, Insertion *how, size_t width) {
    uint64_t ring[RING];
    for (Py_ssize_t step = 0; step < n + 2 * AHEAD; step++) {
        if (step < n) approach(t, queries + step * width, width, &ring[step % RING]);
        const Py_ssize_t next = step - AHEAD, at = next - AHEAD;
        if (next >= 0 && next < n) approach_entry(t, ring[next % RING], width);
        if (at < 0) continue;
        const uint8_t *digest = queries + at * width;
        const uint64_t hash = ring[at % RING];
        uint64_t entry = locate(t, digest, width, hash, &how->mismatches).entry;
        new[at] = entry == NONE;
        if (entry != NONE) {
            uint8_t *record = entry_of(t, entry, width);
            if (how->interning)
                memcpy(&values[at], record, 8);
            else if (!how->keep)
                memcpy(record, &values[at], 8);
            continue;
        }
        entry = t->count;
        if (entry >= how->room || !place(t, hash, entry, how->limit)) return at;
        if (how->interning) values[at] = (int64_t)(entry + (uint64_t)how->offset);
        uint8_t *record = entry_of(t, entry, width);
        memcpy(record, &values[at], 8);
        memcpy(record + HEADER, digest, width);
        t->count++;
    }
    return n;
}

ALWAYS_INLINE Py_ssize_t delete_all(Table *t, const uint8_t *queries, Py_ssize_t n, uint8_t *out,
                                    int64_t *holes, size_t width) {
    Py_ssize_t removed = 0;
    uint64_t ring[RING], mismatches = 0;
    for (Py_ssize_t step = 0; step < n + 2 * AHEAD; step++) {
        if (step < n) approach(t, queries + step * width, width, &ring[step % RING]);
        const Py_ssize_t next = step - AHEAD, at = next - AHEAD;
        if (next >= 0 && next < n) approach_entry(t, ring[next % RING], width);
        if (at < 0) continue;
        const Place found = locate(t, queries + at * width, width, ring[at % RING], &mismatches);
        out[at] = found.entry != NONE;
        if (found.entry == NONE) continue;
        if (away_in(found.bucket) >> found.slot & 1)
            count_away(elsewhere(t, found.bucket, found.slot), -1);
        set_slot(found.bucket, found.slot, 0, 0, 0);
        holes[removed++] = (int64_t)found.entry;
    }
    return removed;
}

/* The slot that holds `entry`; comparing indexes needs no digest. */
ALWAYS_INLINE Place locate_entry(const Table *t, uint64_t hash, uint64_t entry) {
    uint8_t *bucket = home_of(t, hash);
    const uint8_t tag = tag_of(hash);
    for (int away = 0; away < 2; away++, bucket = other_of(t, bucket, tag))
        for (uint32_t mask = matches(bucket, tag); mask; mask &= mask - 1)
            if (entry_at(bucket, lowest(mask)) == entry)
                return (Place){bucket, lowest(mask), entry};
    return (Place){NULL, 0, NONE};
}

ALWAYS_INLINE void move_all(const Table *t, const int64_t *from, const int64_t *to, Py_ssize_t n,
                            size_t width) {
    for (Py_ssize_t base = 0; base < n; base += AHEAD) {
        const int size = n - base < AHEAD ? (int)(n - base) : AHEAD;
        uint64_t hashes[AHEAD];
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i];
            if (entry < t->count)
                approach(t, entry_of(t, entry, width) + HEADER, width, &hashes[i]);
        }
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i], target = (uint64_t)to[base + i];
            if (entry >= t->count || target >= t->count || entry == target) continue;
            const Place found = locate_entry(t, hashes[i], entry);
            if (found.entry == NONE) continue;
            set_entry(found.bucket, found.slot, target);
            memcpy(entry_of(t, target, width), entry_of(t, entry, width), HEADER + width);
        }
    }
}

#endif

static int fits(const Table *t) { return t->count <= SLOTS * t->n_buckets; }

#include "table_kernels.h"
