/* Building frozen tables: partition, search for pilots, placing; frozen.h says what they are.
 *
 * Buckets get their pilots in order of falling size. One for which no pilot leads to free slots
 * takes the one that evicts least, measured by squared bucket sizes, and the evicted look anew.
 */
#include "frozen.h"

#define PILOTS 256
#define RECENT 16    /* buckets placed last, which are not evicted */
#define EVICTIONS 32 /* a bucket, on average over a part: far more than any sound part took */
#define AHEAD 24     /* records between asking for a line and using it */
#define FREE UINT32_MAX

typedef struct {
    const uint8_t *records; /* [count][entry_bytes], in any order */
    const uint64_t *keys;
    uint64_t count, width, parts;
    uint64_t *starts; /* [parts + 1]: where the parts begin in hashes and rows */
    uint64_t *hashes, *rows; /* [count], by part; rows in ascending order within each */
} Partition;

ALWAYS_INLINE void partition(const Partition *p, size_t width) {
    const size_t size = entry_bytes(width);
    const uint8_t *digest = p->records + 8;
    memset(p->starts, 0, (p->parts + 1) * 8);
    for (uint64_t i = 0; i < p->count; i++)
        p->starts[part_of(hash_digest(digest + i * size, width, p->keys), p->parts)]++;
    uint64_t total = 0;
    for (uint64_t part = 0; part <= p->parts; part++) {
        const uint64_t amount = p->starts[part];
        p->starts[part] = total;
        total += amount;
    }
    for (uint64_t i = 0; i < p->count; i++) {
        const uint64_t hash = hash_digest(digest + i * size, width, p->keys);
        const uint64_t at = p->starts[part_of(hash, p->parts)]++;
        if (UNLIKELY(at >= p->count)) continue; /* somebody changed the records meanwhile */
        p->hashes[at] = hash;
        p->rows[at] = i;
    }
    memmove(p->starts + 1, p->starts, p->parts * 8); /* each cursor stands where the next begins */
    p->starts[0] = 0;
}

/* frozen_partition(records: uint8[n][entry], keys, width, starts: uint64[parts + 1],
 *                  hashes: uint64[n], rows: uint64[n]) */
KERNEL(hashmem_frozen_partition) {
    (void)module;
    if (expect_arguments("frozen_partition", nargs, 6) < 0) return NULL;
    Partition p = {0};
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    if (take_size(args[2], &p.width, "width") < 0 || check_width(p.width) < 0) return NULL;
    if (borrow(args[0], &b[0], READ, (Py_ssize_t)entry_bytes(p.width), "records") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "keys") < 0 ||
        borrow_numbers(args[3], &b[2], WRITE, 8, "starts") < 0 ||
        borrow_numbers(args[4], &b[3], WRITE, 8, "hashes") < 0 ||
        borrow_numbers(args[5], &b[4], WRITE, 8, "rows") < 0)
        goto done;
    p.count = (uint64_t)b[0].len / entry_bytes(p.width);
    p.parts = b[2].len >= 8 ? (uint64_t)b[2].len / 8 - 1 : 0;
    if (check_counts(p.parts, 1) < 0 || expect_bytes(&b[1], HASH_KEYS, 8, "keys") < 0 ||
        expect_bytes(&b[3], p.count, 8, "hashes") < 0 ||
        expect_bytes(&b[4], p.count, 8, "rows") < 0 ||
        expect_apart(b, 5, 1 << 2 | 1 << 3 | 1 << 4) < 0)
        goto done;
    p.records = b[0].buf;
    p.keys = b[1].buf;
    p.starts = b[2].buf;
    p.hashes = b[3].buf;
    p.rows = b[4].buf;
    Py_BEGIN_ALLOW_THREADS
    FOR_WIDTH(p.width, partition(&p, W))
    Py_END_ALLOW_THREADS
    answer = Py_NewRef(Py_None);
done:
    give_back(b, 5);
    return answer;
}

/* One part while pilots are sought for it. */
typedef struct {
    uint64_t count, slots, buckets;
    uint64_t *hashes;  /* [count], by bucket */
    uint32_t *begins;  /* [buckets + 1]: in hashes */
    uint32_t *order;   /* [buckets], by falling size */
    uint32_t *owner;   /* [slots]: the bucket whose digest lies there, or FREE */
    uint64_t *taken;   /* one bit a slot: the same, small enough for the fastest cache */
    uint32_t *waiting; /* [buckets]: buckets without a place, the largest last */
    uint64_t n_waiting;
    uint32_t *chosen; /* [largest bucket]: the slots of the bucket at hand */
    uint8_t *pilots;  /* [buckets] */
    uint32_t recent[RECENT];
} Part;

ALWAYS_INLINE uint32_t size_of(const Part *p, uint32_t bucket) {
    return p->begins[bucket + 1] - p->begins[bucket];
}

ALWAYS_INLINE int is_taken(const Part *p, uint64_t slot) {
    return p->taken[slot >> 6] >> (slot & 63) & 1;
}

ALWAYS_INLINE void take(const Part *p, uint64_t slot) {
    p->taken[slot >> 6] |= (uint64_t)1 << (slot & 63);
}

ALWAYS_INLINE void vacate(const Part *p, uint64_t slot) {
    p->taken[slot >> 6] &= ~((uint64_t)1 << (slot & 63));
}

/* Take the bucket's slots for this pilot, if all are free and different. */
ALWAYS_INLINE int take_all(const Part *p, const uint64_t *hashes, uint32_t size, unsigned pilot) {
    for (uint32_t i = 0; i < size; i++) {
        p->chosen[i] = (uint32_t)slot_of(hashes[i], pilot, p->slots);
        if (is_taken(p, p->chosen[i])) return 0;
    }
    for (uint32_t i = 0; i < size; i++) {
        if (is_taken(p, p->chosen[i])) {
            while (i--) vacate(p, p->chosen[i]);
            return 0;
        }
        take(p, p->chosen[i]);
    }
    return 1;
}

static void settle(const Part *p, uint32_t bucket, unsigned pilot) {
    p->pilots[bucket] = (uint8_t)pilot;
    for (uint32_t i = 0; i < size_of(p, bucket); i++) p->owner[p->chosen[i]] = bucket;
}

/* Put a bucket in line: larger ones, and of equal ones those with lower numbers, come out first. */
static void enqueue(Part *p, uint32_t bucket) {
    const uint32_t size = size_of(p, bucket);
    uint64_t at = p->n_waiting++;
    for (; at; at--) {
        const uint32_t before = p->waiting[at - 1], its = size_of(p, before);
        if (its < size || (its == size && before > bucket)) break;
        p->waiting[at] = before;
    }
    p->waiting[at] = bucket;
}

/* What the pilot would evict: the sum of the squares of the sizes, one for each slot; UINT64_MAX
 * where two digests of the bucket meet or a bucket was placed only just now, and anything above
 * `best` once it is clear that it is not below. */
static uint64_t damage(const Part *p, const uint64_t *hashes, uint32_t size, unsigned pilot,
                       uint64_t best) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < size; i++) {
        const uint32_t slot = (uint32_t)slot_of(hashes[i], pilot, p->slots), by = p->owner[slot];
        p->chosen[i] = slot;
        if (by == FREE) continue;
        const uint64_t its = size_of(p, by);
        sum += its * its;
        if (sum >= best) return UINT64_MAX;
        for (int r = 0; r < RECENT; r++)
            if (p->recent[r] == by) return UINT64_MAX;
    }
    for (uint32_t i = 1; i < size; i++)
        for (uint32_t j = 0; j < i; j++)
            if (p->chosen[i] == p->chosen[j]) return UINT64_MAX;
    return sum;
}

/* Take the slots of the pilot that does the least damage, tried from `from` on, and put those that
 * it evicts in line. 0, with nothing done, where no pilot will do. */
static int evict(Part *p, uint32_t bucket, unsigned from) {
    const uint64_t *hashes = p->hashes + p->begins[bucket];
    const uint32_t size = size_of(p, bucket);
    uint64_t best = UINT64_MAX;
    unsigned pilot = 0;
    for (unsigned i = 0; i < PILOTS && best; i++) {
        const unsigned tried = (from + i) % PILOTS;
        const uint64_t sum = damage(p, hashes, size, tried, best);
        if (sum < best) best = sum, pilot = tried;
    }
    if (best == UINT64_MAX) return 0;
    for (uint32_t i = 0; i < size; i++) {
        const uint32_t by = p->owner[slot_of(hashes[i], pilot, p->slots)];
        if (by == FREE) continue;
        for (uint32_t k = p->begins[by]; k < p->begins[by + 1]; k++) {
            const uint64_t slot = slot_of(p->hashes[k], p->pilots[by], p->slots);
            p->owner[slot] = FREE;
            vacate(p, slot);
        }
        enqueue(p, by);
    }
    take_all(p, hashes, size, pilot);
    settle(p, bucket, pilot);
    return 1;
}

/* Find a place for the bucket and for all that it drives out. */
static int settle_all(Part *p, uint32_t first, uint64_t *evictions) {
    for (int r = 0; r < RECENT; r++) p->recent[r] = FREE;
    enqueue(p, first);
    for (uint64_t placed = 0; p->n_waiting; placed++) {
        const uint32_t bucket = p->waiting[--p->n_waiting], size = size_of(p, bucket);
        const uint64_t *hashes = p->hashes + p->begins[bucket];
        unsigned pilot = 0;
        while (pilot < PILOTS && !take_all(p, hashes, size, pilot)) pilot++;
        if (LIKELY(pilot < PILOTS)) {
            settle(p, bucket, pilot);
        } else {
            if (*evictions == EVICTIONS * p->buckets) return 0;
            if (!evict(p, bucket, (unsigned)((*evictions)++ * 37 % PILOTS))) return 0;
        }
        p->recent[placed % RECENT] = bucket;
    }
    return 1;
}

/* Sort the part's hashes by bucket, and its buckets by falling size. */
static void sort_part(Part *p, const uint64_t *hashes) {
    uint32_t *cursor = p->order, *sizes = p->owner; /* not in use yet; slots exceed count */
    memset(p->begins, 0, (p->buckets + 1) * sizeof *p->begins);
    for (uint64_t i = 0; i < p->count; i++) p->begins[group_of(hashes[i], p->buckets)]++;
    uint32_t total = 0;
    for (uint64_t b = 0; b <= p->buckets; b++) {
        const uint32_t amount = p->begins[b];
        p->begins[b] = total;
        if (b < p->buckets) cursor[b] = total;
        total += amount;
    }
    for (uint64_t i = 0; i < p->count; i++)
        p->hashes[cursor[group_of(hashes[i], p->buckets)]++] = hashes[i];

    memset(sizes, 0, (p->count + 1) * sizeof *sizes);
    for (uint64_t b = 0; b < p->buckets; b++) sizes[size_of(p, (uint32_t)b)]++;
    total = 0;
    for (uint64_t size = p->count + 1; size--;) {
        const uint32_t amount = sizes[size];
        sizes[size] = total;
        total += amount;
    }
    for (uint64_t b = 0; b < p->buckets; b++)
        p->order[sizes[size_of(p, (uint32_t)b)]++] = (uint32_t)b;
}

static int find_pilots(Part *p, const uint64_t *hashes) {
    sort_part(p, hashes);
    for (uint64_t s = 0; s < p->slots; s++) p->owner[s] = FREE;
    memset(p->taken, 0, (p->slots + 63) / 64 * 8);
    memset(p->pilots, 0, p->buckets);
    uint64_t evictions = 0;
    p->n_waiting = 0; /* a try that failed has left some in line */
    for (uint64_t i = 0; i < p->buckets && size_of(p, p->order[i]); i++)
        if (!settle_all(p, p->order[i], &evictions)) return 0;
    return 1;
}

/* Find the part's pilots under the first set of keys that has some, hashing anew from the second
 * on. Which set it was, or as many as there are where none has. */
ALWAYS_INLINE uint64_t take_turns(Part *p, const uint8_t *records, uint64_t *hashes,
                                  const uint64_t *rows, const uint64_t *keys, uint64_t key_sets,
                                  size_t width) {
    uint64_t turn = 0;
    while (turn < key_sets && !find_pilots(p, hashes)) {
        if (++turn == key_sets) break;
        for (uint64_t i = 0; i < p->count; i++)
            hashes[i] = hash_digest(records + rows[i] * entry_bytes(width) + 8, width,
                                    keys + turn * HASH_KEYS);
    }
    return turn;
}

/* Copy the part's records to their slots, and into each free slot the entry before it. */
ALWAYS_INLINE void place_part(const Part *p, const uint8_t *records, const uint64_t *hashes,
                              const uint64_t *rows, uint8_t *entries, size_t width) {
    const size_t size = entry_bytes(width);
    for (uint64_t i = 0; i < p->count + AHEAD; i++) {
        if (i < p->count) {
            PREFETCH(records + rows[i] * size);
            PREFETCH(records + rows[i] * size + size - 1);
        }
        if (i < AHEAD) continue;
        const uint64_t hash = hashes[i - AHEAD];
        const unsigned pilot = p->pilots[group_of(hash, p->buckets)];
        uint8_t *entry = entries + slot_of(hash, pilot, p->slots) * size;
        memcpy(entry, records + rows[i - AHEAD] * size, size);
        if (width % 8) memset(entry + 8 + width, 0, size - 8 - width);
    }
    uint64_t last = 0; /* a taken slot: the one before, or the first of all */
    while (last < p->slots && !is_taken(p, last)) last++;
    for (uint64_t s = 0; s < p->slots; s++) {
        if (is_taken(p, s))
            last = s;
        else
            memcpy(entries + s * size, entries + last * size, size);
    }
}

/* 0 where the sizes of the parts are such as can be built. */
static int check_parts(const uint64_t *starts, const uint64_t *offsets, uint64_t parts,
                       uint64_t count, uint64_t slots, uint64_t *most_count, uint64_t *most_slots) {
    if (starts[0] || offsets[0] || starts[parts] != count || offsets[parts] != slots) return -1;
    for (uint64_t i = 0; i < parts; i++) {
        const uint64_t amount = starts[i + 1] - starts[i], room = offsets[i + 1] - offsets[i];
        if (starts[i + 1] < starts[i] || offsets[i + 1] < offsets[i]) return -1;
        if (amount ? room <= amount : room) return -1;
        if (room >> 31) return -1;
        if (amount > *most_count) *most_count = amount;
        if (room > *most_slots) *most_slots = room;
    }
    return 0;
}

/* frozen_build(records: uint8[n][entry], width, keys, hashes: uint64[n], rows: uint64[n],
 *              starts: uint64[parts + 1], offsets: uint64[parts + 1], buckets, turns: uint8[parts],
 *              pilots: uint8[parts * buckets], entries: uint8[slots][entry]) -> bool */
KERNEL(hashmem_frozen_build) {
    (void)module;
    if (expect_arguments("frozen_build", nargs, 11) < 0) return NULL;
    uint64_t width, buckets, most_count = 0, most_slots = 0;
    Py_buffer b[9] = {{0}};
    PyObject *answer = NULL;
    void *scratch = NULL;
    if (take_size(args[1], &width, "width") < 0 || check_width(width) < 0 ||
        take_size(args[7], &buckets, "buckets") < 0)
        return NULL;
    const size_t size = entry_bytes(width);
    if (borrow(args[0], &b[0], READ, (Py_ssize_t)size, "records") < 0 ||
        borrow_numbers(args[2], &b[1], READ, 8, "keys") < 0 ||
        borrow_numbers(args[4], &b[2], READ, 8, "rows") < 0 ||
        borrow_numbers(args[5], &b[3], READ, 8, "starts") < 0 ||
        borrow_numbers(args[6], &b[4], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[3], &b[5], WRITE, 8, "hashes") < 0 ||
        borrow(args[8], &b[6], WRITE, 1, "turns") < 0 ||
        borrow(args[9], &b[7], WRITE, 1, "pilots") < 0 ||
        borrow(args[10], &b[8], WRITE, (Py_ssize_t)size, "entries") < 0)
        goto done;
    const uint64_t count = (uint64_t)b[0].len / size, slots = (uint64_t)b[8].len / size;
    const uint64_t parts = b[3].len >= 8 ? (uint64_t)b[3].len / 8 - 1 : 0;
    if (check_counts(parts, buckets) < 0 || expect_bytes(&b[1], HASH_KEYS, 8, "keys") < 0 ||
        expect_bytes(&b[2], count, 8, "rows") < 0 ||
        expect_bytes(&b[4], parts + 1, 8, "offsets") < 0 ||
        expect_bytes(&b[5], count, 8, "hashes") < 0 || expect_bytes(&b[6], parts, 1, "turns") < 0 ||
        expect_bytes(&b[7], parts * buckets, 1, "pilots") < 0 ||
        expect_apart(b, 9, 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8) < 0)
        goto done;
    const uint64_t *keys = b[1].buf, *rows = b[2].buf, *starts = b[3].buf, *offsets = b[4].buf;
    uint64_t *hashes = b[5].buf, key_sets = (uint64_t)b[1].len / 8 / HASH_KEYS;
    uint8_t *turns = b[6].buf, *pilots = b[7].buf, *entries = b[8].buf;
    if (key_sets > 255) key_sets = 255;
    if (check_parts(starts, offsets, parts, count, slots, &most_count, &most_slots) < 0) {
        PyErr_SetString(PyExc_ValueError, "starts and offsets do not cut entries into parts");
        goto done;
    }
    const size_t bytes_hashes = most_count * 8, bytes_taken = (most_slots + 63) / 64 * 8;
    const size_t words = (buckets + 1) * 3 + most_slots + 1 + most_count;
    scratch = PyMem_Malloc(bytes_hashes + bytes_taken + words * 4);
    if (!scratch) {
        PyErr_NoMemory();
        goto done;
    }
    Part p = {.buckets = buckets, .hashes = scratch};
    p.taken = p.hashes + most_count;
    p.begins = (uint32_t *)(p.taken + bytes_taken / 8);
    p.order = p.begins + buckets + 1;
    p.waiting = p.order + buckets + 1;
    p.owner = p.waiting + buckets + 1;
    p.chosen = p.owner + most_slots + 1;
    int built = 1;
    Py_BEGIN_ALLOW_THREADS
    for (uint64_t i = 0; i < count && built; i++) built = rows[i] < count;
    for (uint64_t part = 0; part < parts && built; part++) {
        uint64_t *its = hashes + starts[part], turn = 0;
        const uint64_t *its_rows = rows + starts[part];
        p.count = starts[part + 1] - starts[part];
        p.slots = offsets[part + 1] - offsets[part];
        p.pilots = pilots + part * buckets;
        FOR_WIDTH(width, turn = take_turns(&p, b[0].buf, its, its_rows, keys, key_sets, W))
        turns[part] = (uint8_t)turn;
        built = turn < key_sets;
        uint8_t *to = entries + offsets[part] * size;
        if (built) FOR_WIDTH(width, place_part(&p, b[0].buf, its, its_rows, to, W))
    }
    Py_END_ALLOW_THREADS
    answer = PyBool_FromLong(built);
done:
    PyMem_Free(scratch);
    give_back(b, 9);
    return answer;
}
