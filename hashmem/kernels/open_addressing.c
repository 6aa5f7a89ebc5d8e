/* Open addressing: buckets of one cache line that lead from a hash to a dense array of entries.
 *
 * A bucket is 64 bytes, after F14 (Bronson and Shi, "Open-sourcing F14 for faster, more
 * memory-efficient hash tables", Facebook, 2019):
 *
 *     bytes  0..11   tags: 8 bits of the hash of the entry in each of 12 slots, 1..255; 0 is empty
 *     byte   12      overflow: how many entries probed past this bucket; 255 is "255 or more"
 *     bytes 13..15   bits 32 and 33 of the 12 entry indexes, 2 bits each, slot 0 lowest
 *     bytes 16..63   bits 0..31 of the 12 entry indexes, uint32 little-endian
 *
 * A search starts at the bucket of the hash's high half and goes on by a stride of 1, 2, 4, … or 128
 * buckets, chosen by its low bits; the number of buckets is odd, so that it comes past all of them.
 * An entry lies in the first bucket on this path that had a free slot, and each bucket passed counts
 * it. So a search ends at the first bucket whose overflow is 0, and a deletion counts down again and
 * leaves no tombstone. A counter that has reached 255 stays there until the buckets are rebuilt. An
 * empty slot has index 0. (Strides instead of the next bucket: at 85 % load a miss touches 1.6
 * buckets instead of 2.2, and of 10 M entries the longest path is 27 instead of 58.)
 *
 * Entries are dense: digests uint8[capacity][width] and values int64[capacity], of which the first
 * `count` are in use. An index of `count` or above in a damaged bucket matches nothing.
 *
 * The argument every kernel starts with is the table: buckets, keys, digests, values, width, count.
 * hashmem.kernels.reference.open_addressing says what each kernel answers.
 *
 * Threads: any number may search while nobody writes.
 */
#include "hashing.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define LINE 64
#define SLOTS 12
#define OVERFLOW 12 /* its place in the bucket */
#define SATURATED 255
#define HIGH_BITS 13
#define LOW_BITS 16
#define MAX_ENTRIES ((uint64_t)1 << 34)
#define NONE UINT64_MAX
#define FLIGHTS 32 /* searches under way at once */
#define AHEAD 24   /* digests between asking for a line and using it, in kernels that write */
#define RING 64    /* their hashes: a power of two above 2 * AHEAD */

typedef struct {
    Py_buffer borrowed[4]; /* buckets, keys, digests, values */
    uint8_t *buckets;      /* [n_buckets][64] */
    uint64_t n_buckets;
    const uint64_t *keys; /* [HASH_KEYS] */
    uint8_t *digests;     /* [capacity][width] */
    int64_t *values;      /* [capacity] */
    uint64_t capacity, width, count;
} Table;

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
    return (uint32_t)_mm_movemask_epi8(equal) & ((1u << SLOTS) - 1);
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

ALWAYS_INLINE uint64_t entry_at(const uint8_t *bucket, unsigned slot) {
    const uint64_t high = bucket[HIGH_BITS + slot / 4] >> slot % 4 * 2 & 3;
    uint32_t low;
    memcpy(&low, bucket + LOW_BITS + 4 * slot, 4);
    return high << 32 | little_endian(low);
}

ALWAYS_INLINE void set_entry(uint8_t *bucket, unsigned slot, uint64_t entry) {
    uint8_t *high = bucket + HIGH_BITS + slot / 4;
    const unsigned shift = slot % 4 * 2;
    *high = (uint8_t)((*high & ~(3u << shift)) | (entry >> 32 & 3) << shift);
    const uint32_t low = little_endian((uint32_t)entry);
    memcpy(bucket + LOW_BITS + 4 * slot, &low, 4);
}

ALWAYS_INLINE uint8_t *home_of(const Table *t, uint64_t hash) {
    return t->buckets + LINE * bucket_of(hash, t->n_buckets);
}

/* Strides are short for the sake of the TLB. */
ALWAYS_INLINE uint8_t *next_bucket(const Table *t, uint8_t *bucket, uint64_t hash) {
    const uint64_t at = (uint64_t)(bucket - t->buckets) / LINE + (1u << (hash & 7));
    return t->buckets + LINE * (at < t->n_buckets ? at : at % t->n_buckets);
}

ALWAYS_INLINE Place locate(const Table *t, const uint8_t *digest, size_t width, uint64_t hash) {
    uint8_t *bucket = home_of(t, hash);
    const uint8_t tag = tag_of(hash);
    for (uint64_t probe = 0; probe < t->n_buckets; probe++) {
        for (uint32_t mask = matches(bucket, tag); mask; mask &= mask - 1) {
            const unsigned slot = lowest(mask);
            const uint64_t entry = entry_at(bucket, slot);
            if (LIKELY(entry < t->count && same_digest(t->digests + entry * width, digest, width)))
                return (Place){bucket, slot, entry};
        }
        if (LIKELY(!bucket[OVERFLOW])) break;
        bucket = next_bucket(t, bucket, hash);
    }
    return (Place){NULL, 0, NONE};
}

/* Put `entry` into the first free slot from its home on. How many buckets that touched, or 0 where
 * every slot is taken (then nothing was placed, and the counters no longer count: a caller that
 * keeps the load below 1 never sees it). */
ALWAYS_INLINE uint64_t place(const Table *t, uint64_t hash, uint64_t entry) {
    uint8_t *bucket = home_of(t, hash);
    for (uint64_t probe = 1; probe <= t->n_buckets; probe++) {
        const uint32_t vacant = matches(bucket, 0);
        if (LIKELY(vacant)) {
            const unsigned slot = lowest(vacant);
            bucket[slot] = tag_of(hash);
            set_entry(bucket, slot, entry);
            return probe;
        }
        if (bucket[OVERFLOW] != SATURATED) bucket[OVERFLOW]++;
        bucket = next_bucket(t, bucket, hash);
    }
    return 0;
}

/* One search under way. */
typedef struct {
    uint64_t hash;
    uint8_t *bucket;
    uint32_t mask;   /* its slots still to compare; 0: the bucket itself is still to be read */
    uint32_t passed; /* buckets before it */
    Py_ssize_t i;    /* which digest */
} Flight;

ALWAYS_INLINE void approach(const Table *t, const uint8_t *digest, size_t width, uint64_t *hash) {
    *hash = hash_digest(digest, width, t->keys);
    PREFETCH(home_of(t, *hash));
}

ALWAYS_INLINE void take_off(const Table *t, Flight *f, const uint8_t *digests, Py_ssize_t i,
                            size_t width) {
    approach(t, digests + i * width, width, &f->hash);
    f->bucket = home_of(t, f->hash);
    f->mask = f->passed = 0;
    f->i = i;
}

/* Ask for the entry that the home bucket points to, or else for the next bucket. */
ALWAYS_INLINE void approach_entry(const Table *t, uint64_t hash, size_t width) {
    uint8_t *bucket = home_of(t, hash);
    const uint32_t mask = matches(bucket, tag_of(hash));
    if (LIKELY(mask)) {
        const uint64_t entry = entry_at(bucket, lowest(mask));
        prefetch_digest(t->digests + entry * width, width);
        PREFETCH(t->values + entry);
    } else if (bucket[OVERFLOW]) {
        PREFETCH(next_bucket(t, bucket, hash));
    }
}

static int borrow_table(PyObject *const *args, int write, Table *t) {
    memset(t, 0, sizeof *t);
    Py_buffer *b = t->borrowed;
    if (borrow(args[0], &b[0], write, LINE, "buckets") < 0 ||
        borrow(args[1], &b[1], READ, 8, "keys") < 0 ||
        borrow(args[2], &b[2], write, 1, "digests") < 0 ||
        borrow(args[3], &b[3], write, 8, "values") < 0 ||
        take_size(args[4], &t->width, "width") < 0 || take_size(args[5], &t->count, "count") < 0)
        return -1;
    t->buckets = b[0].buf;
    t->n_buckets = (uint64_t)b[0].len / LINE;
    t->keys = b[1].buf;
    t->digests = b[2].buf;
    t->values = b[3].buf;
    if (t->width < MIN_WIDTH || t->width > MAX_WIDTH) {
        PyErr_Format(PyExc_ValueError, "width must be %d to %d bytes, got %llu", MIN_WIDTH,
                     MAX_WIDTH, (unsigned long long)t->width);
        return -1;
    }
    if (!(t->n_buckets & 1) || t->n_buckets >> 32) { /* an even number: strides would miss some */
        PyErr_SetString(PyExc_ValueError, "there must be 1 to 2^32 - 1 buckets, an odd number");
        return -1;
    }
    t->capacity = (uint64_t)b[2].len / t->width;
    if ((uint64_t)b[3].len / 8 < t->capacity) t->capacity = (uint64_t)b[3].len / 8;
    if (t->capacity > MAX_ENTRIES) t->capacity = MAX_ENTRIES;
    if (t->count > t->capacity) {
        PyErr_Format(PyExc_ValueError, "count is %llu, but digests and values hold %llu entries",
                     (unsigned long long)t->count, (unsigned long long)t->capacity);
        return -1;
    }
    return expect_bytes(&b[1], HASH_KEYS, 8, "keys");
}

/* Write to out[i] the value of digest i, or `missing`.
 *
 * Searches differ in length, so they are interleaved: each of FLIGHTS takes one step, asks for what
 * its next step reads, and gives way; one that has ended starts the next digest's (Kocberber,
 * Falsafi and Grot, "Asynchronous memory access chaining", VLDB 2015). */
ALWAYS_INLINE void find_all(const Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *out,
                            int64_t missing, size_t width) {
    Flight flights[FLIGHTS];
    Py_ssize_t started = 0;
    int flying = 0;
    while (flying < FLIGHTS && started < n)
        take_off(t, &flights[flying++], queries, started++, width);
    for (int at = 0; flying; at = at + 1 < flying ? at + 1 : 0) {
        Flight *f = &flights[at];
        int64_t answer = missing;
        if (f->mask) {
            const uint64_t entry = entry_at(f->bucket, lowest(f->mask));
            if (LIKELY(entry < t->count &&
                       same_digest(t->digests + entry * width, queries + f->i * width, width))) {
                answer = t->values[entry];
                goto landed;
            }
            f->mask &= f->mask - 1;
        } else {
            f->mask = matches(f->bucket, tag_of(f->hash));
        }
        if (f->mask) {
            const uint64_t entry = entry_at(f->bucket, lowest(f->mask));
            prefetch_digest(t->digests + entry * width, width);
            PREFETCH(t->values + entry);
            continue;
        }
        if (f->bucket[OVERFLOW] && ++f->passed < t->n_buckets) {
            f->bucket = next_bucket(t, f->bucket, f->hash);
            PREFETCH(f->bucket);
            continue;
        }
    landed:
        out[f->i] = answer;
        if (started < n)
            take_off(t, f, queries, started++, width);
        else
            *f = flights[--flying];
    }
}

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
        const uint64_t known = locate(t, digest, width, hash).entry;
        new[at] = known == NONE;
        if (known != NONE) {
            if (how->interning)
                values[at] = t->values[known];
            else
                t->values[known] = values[at];
            continue;
        }
        if (t->count >= how->room) return at;
        const uint64_t entry = t->count, probes = place(t, hash, entry);
        if (!probes) return at;
        memcpy(t->digests + entry * width, digest, width);
        if (how->interning) values[at] = (int64_t)(entry + (uint64_t)how->offset);
        t->values[entry] = values[at];
        t->count++;
        if (probes > how->longest) how->longest = probes;
        if (UNLIKELY(probes > how->limit)) return at + 1;
    }
    return n;
}

ALWAYS_INLINE Py_ssize_t delete_all(Table *t, const uint8_t *queries, Py_ssize_t n, uint8_t *out,
                                    int64_t *holes, size_t width) {
    Py_ssize_t removed = 0;
    uint64_t ring[RING];
    for (Py_ssize_t step = 0; step < n + 2 * AHEAD; step++) {
        if (step < n) approach(t, queries + step * width, width, &ring[step % RING]);
        const Py_ssize_t next = step - AHEAD, at = next - AHEAD;
        if (next >= 0 && next < n) approach_entry(t, ring[next % RING], width);
        if (at < 0) continue;
        const uint64_t hash = ring[at % RING];
        const Place found = locate(t, queries + at * width, width, hash);
        out[at] = found.entry != NONE;
        if (found.entry == NONE) continue;
        found.bucket[found.slot] = 0;
        set_entry(found.bucket, found.slot, 0);
        for (uint8_t *b = home_of(t, hash); b != found.bucket; b = next_bucket(t, b, hash))
            if (b[OVERFLOW] != SATURATED) b[OVERFLOW]--;
        holes[removed++] = (int64_t)found.entry;
    }
    return removed;
}

ALWAYS_INLINE uint64_t build_all(const Table *t, uint64_t limit, size_t width) {
    uint64_t longest = 0, ring[RING];
    for (uint64_t step = 0; step < t->count + AHEAD; step++) {
        if (step < t->count) approach(t, t->digests + step * width, width, &ring[step % RING]);
        if (step < AHEAD) continue;
        const uint64_t entry = step - AHEAD, probes = place(t, ring[entry % RING], entry);
        if (probes > longest) longest = probes;
        if (UNLIKELY(probes > limit || !probes)) return longest;
    }
    return longest;
}

/* open_build(table…, limit) -> longest */
KERNEL(hashmem_open_build) {
    (void)module;
    if (expect_arguments("open_build", nargs, 7) < 0) return NULL;
    Table t;
    uint64_t limit;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &t) == 0 && take_size(args[6], &limit, "limit") == 0) {
        uint64_t longest = 0;
        if (t.count > SLOTS * t.n_buckets) {
            PyErr_SetString(PyExc_ValueError, "buckets do not hold that many entries");
        } else {
            Py_BEGIN_ALLOW_THREADS
            FOR_WIDTH(t.width, longest = build_all(&t, limit, W))
            Py_END_ALLOW_THREADS
            answer = PyLong_FromUnsignedLongLong(longest);
        }
    }
    give_back(t.borrowed, 4);
    return answer;
}

/* The slot that holds `entry`; comparing indexes needs no digest. */
ALWAYS_INLINE Place locate_entry(const Table *t, uint64_t hash, uint64_t entry) {
    uint8_t *bucket = home_of(t, hash);
    const uint8_t tag = tag_of(hash);
    for (uint64_t probe = 0; probe < t->n_buckets; probe++) {
        for (uint32_t mask = matches(bucket, tag); mask; mask &= mask - 1)
            if (entry_at(bucket, lowest(mask)) == entry)
                return (Place){bucket, lowest(mask), entry};
        if (!bucket[OVERFLOW]) break;
        bucket = next_bucket(t, bucket, hash);
    }
    return (Place){NULL, 0, NONE};
}

ALWAYS_INLINE void move_all(const Table *t, const int64_t *from, const int64_t *to, Py_ssize_t n,
                            size_t width) {
    for (Py_ssize_t base = 0; base < n; base += FLIGHTS) {
        const int size = n - base < FLIGHTS ? (int)(n - base) : FLIGHTS;
        uint64_t hashes[FLIGHTS];
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i];
            if (entry >= t->count) continue;
            approach(t, t->digests + entry * width, width, &hashes[i]);
        }
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i], target = (uint64_t)to[base + i];
            if (entry >= t->count || target >= t->count) continue;
            const Place found = locate_entry(t, hashes[i], entry);
            if (found.entry == NONE) continue;
            set_entry(found.bucket, found.slot, target);
            memcpy(t->digests + target * width, t->digests + entry * width, width);
            t->values[target] = t->values[entry];
        }
    }
}

#define TABLE(operation) hashmem_open_##operation
#include "table_kernels.h"
