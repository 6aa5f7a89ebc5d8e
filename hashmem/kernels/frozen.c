/* Searching frozen tables; frozen.h says what they are.
 *
 * Pilots and entries lie in a body that may be a mapped file. It is verified in blocks of 64 KiB:
 * nothing of a block is looked at unless verified[block] is set.
 */
#include "frozen.h"

#define BLOCK_BITS 16
#define AHEAD 24   /* digests between asking for a line and using it */
#define RING 64    /* digests under way: a power of two above 2 * AHEAD */
#define STEP 8     /* digests that a stage takes in turn */
#define SAMPLE 32  /* digests, a multiple of STEP */
#define MANY 1024  /* digests for which it pays to see whether all blocks are verified */
#define LARGEST 72 /* bytes of an entry */

typedef struct {
    Py_buffer borrowed[5];   /* body, offsets, turns, keys, verified */
    const uint8_t *body;     /* pilots from 0 on, entries from entries_at on */
    const uint64_t *offsets; /* [parts + 1]: the first slot of each part */
    const uint8_t *turns;    /* [parts]: which set of keys */
    const uint64_t *keys;    /* [key_sets][HASH_KEYS] */
    const uint8_t *verified; /* [blocks of the body] */
    uint64_t width, parts, buckets, entries_at, slots, key_sets, blocks;
    uint8_t *wanted; /* [blocks of the body]: set where a search stopped, or NULL to stop at once */
} Frozen;

typedef struct {
    uint64_t hash, part;
    uint64_t at; /* of the pilot in the body; then the slot */
    const uint8_t *entry;
    int outcome;
} Search;

enum { MISSING = 0, PERHAPS = 1, LEFT_OUT };

static const uint8_t nothing[LARGEST]; /* compared where there is no entry */

/* Whether the `bytes` from `at` on may be read; if not, their blocks are wanted. */
ALWAYS_INLINE int may_read(const Frozen *f, uint64_t at, uint64_t bytes) {
    const uint64_t first = at >> BLOCK_BITS, last = (at + bytes - 1) >> BLOCK_BITS;
    if (LIKELY(f->verified[first] & f->verified[last])) return 1;
    if (f->wanted) {
        f->wanted[first] |= !f->verified[first];
        f->wanted[last] |= !f->verified[last];
    }
    return 0;
}

/* `yes ? a : b` without a branch, where it could not be foretold. */
ALWAYS_INLINE uint64_t chosen(int yes, uint64_t a, uint64_t b) {
    return b ^ ((a ^ b) & (0 - (uint64_t)(yes != 0)));
}

/* Name the digest's pilot, and ask for it. */
ALWAYS_INLINE void start(const Frozen *f, Search *s, const uint8_t *digest, size_t width) {
    s->hash = hash_digest(digest, width, f->keys);
    s->part = part_of(s->hash, f->parts);
    const uint64_t turn = f->turns[s->part];
    if (UNLIKELY(turn && turn < f->key_sets))
        s->hash = hash_digest(digest, width, f->keys + turn * HASH_KEYS);
    s->at = s->part * f->buckets + group_of(s->hash, f->buckets);
    PREFETCH(f->body + s->at);
}

/* Name the digest's slot, and ask for its entry; where digests are `rarely` found, no further than
 * most need to be told from others. */
ALWAYS_INLINE void choose(const Frozen *f, Search *s, int rarely, int sound, size_t width) {
    const size_t size = entry_bytes(width);
    s->entry = nothing;
    s->outcome = LEFT_OUT;
    if (UNLIKELY(!sound && !may_read(f, s->at, 1))) return;
    const uint64_t first = f->offsets[s->part], room = f->offsets[s->part + 1] - first;
    s->at = first + slot_of(s->hash, f->body[s->at], room);
    const int holds = (room != 0) & (s->at < f->slots);
    s->outcome = holds;
    s->entry = (const uint8_t *)chosen(holds, (uintptr_t)f->body + f->entries_at + s->at * size,
                                       (uintptr_t)nothing);
    PREFETCH(s->entry); /* no branch for entries on one line: it could not be foretold */
    PREFETCH(s->entry + (rarely ? 15 : size - 1));
}

/* Write the digest's answer, unless it has to be left out. Whether it has. */
ALWAYS_INLINE int compare(const Frozen *f, const Search *s, const uint8_t *digest, int64_t *out,
                          int64_t missing, int slots, int rarely, int sound, size_t width) {
    const size_t size = entry_bytes(width);
    if (!sound && s->outcome != MISSING &&
        (s->outcome == LEFT_OUT || !may_read(f, f->entries_at + s->at * size, size)))
        return 1;
    if (rarely && width > 8 && !same_digest(s->entry + 8, digest, 8)) {
        *out = missing;
        return 0;
    }
    int64_t value;
    memcpy(&value, s->entry, 8);
    if (slots) value = (int64_t)s->at;
    const int same = same_digest(s->entry + 8, digest, width) & (s->outcome == PERHAPS);
    *out = (int64_t)chosen(same, (uint64_t)value, (uint64_t)missing);
    return 0;
}

/* Write to out[i] the value of digest i, or its slot, or `missing`. How many had to be left out
 * because blocks are not verified; all of the rest too where nobody asks which blocks. `sound`: all
 * blocks are verified.
 *
 * A pipeline, as in open_addressing.c: AHEAD digests lie between two stages, each of which takes STEP
 * digests in turn. */
ALWAYS_INLINE Py_ssize_t find_frozen(const Frozen *f, const uint8_t *queries, Py_ssize_t n,
                                     int64_t *out, int64_t missing, int slots, int sound,
                                     size_t width) {
    Py_ssize_t left_out = 0;
    int rarely = 0, found = 0; /* whether few of the last SAMPLE were found, and how many so far */
    Search searches[RING];
    for (Py_ssize_t begin = 0; begin < n + 2 * AHEAD; begin += STEP) {
        const Py_ssize_t middle = begin - AHEAD, last = middle - AHEAD;
        for (Py_ssize_t i = begin; i < n && i < begin + STEP; i++)
            start(f, &searches[i % RING], queries + i * width, width);
        for (Py_ssize_t i = middle < 0 ? n : middle; i < n && i < middle + STEP; i++)
            choose(f, &searches[i % RING], rarely, sound, width);
        for (Py_ssize_t i = last < 0 ? n : last; i < n && i < last + STEP; i++) {
            if (compare(f, &searches[i % RING], queries + i * width, out + i, missing, slots, rarely,
                        sound, width)) {
                left_out++;
                if (!f->wanted) return left_out;
            } else {
                found += out[i] != missing;
            }
        }
        if (last >= 0 && last % SAMPLE == 0) {
            rarely = found < SAMPLE / 8;
            found = 0;
        }
    }
    return left_out;
}

static int borrow_frozen(PyObject *const *args, Frozen *f) {
    memset(f, 0, sizeof *f);
    Py_buffer *b = f->borrowed;
    if (borrow(args[0], &b[0], READ, 1, "body") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "offsets") < 0 ||
        borrow(args[2], &b[2], READ, 1, "turns") < 0 ||
        borrow_numbers(args[3], &b[3], READ, 8, "keys") < 0 ||
        borrow(args[4], &b[4], READ, 1, "verified") < 0 ||
        take_size(args[5], &f->width, "width") < 0 ||
        take_size(args[6], &f->buckets, "buckets") < 0 ||
        take_size(args[7], &f->entries_at, "entries_at") < 0)
        return -1;
    const uint64_t bytes = (uint64_t)b[0].len;
    f->body = b[0].buf;
    f->offsets = b[1].buf;
    f->turns = b[2].buf;
    f->keys = b[3].buf;
    f->key_sets = (uint64_t)b[3].len / 8 / HASH_KEYS;
    f->verified = b[4].buf;
    f->parts = b[1].len >= 8 ? (uint64_t)b[1].len / 8 - 1 : 0;
    if (check_width(f->width) < 0 || check_counts(f->parts, f->buckets) < 0) return -1;
    if (f->entries_at > bytes || f->parts * f->buckets > f->entries_at) {
        PyErr_SetString(PyExc_ValueError, "the body does not hold the pilots of all parts");
        return -1;
    }
    f->slots = (bytes - f->entries_at) / entry_bytes(f->width);
    f->blocks = (bytes + (1 << BLOCK_BITS) - 1) >> BLOCK_BITS;
    if (expect_bytes(&b[4], f->blocks, 1, "verified") < 0 ||
        expect_bytes(&b[2], f->parts, 1, "turns") < 0)
        return -1;
    return expect_bytes(&b[3], HASH_KEYS, 8, "keys");
}

/* frozen_find(body, offsets, turns, keys, verified, width, buckets, entries_at,
 *             queries: uint8[n][width], out: int64[n], missing, slots: bool,
 *             wanted: uint8[blocks] or empty) -> left out */
KERNEL(hashmem_frozen_find) {
    (void)module;
    if (expect_arguments("frozen_find", nargs, 13) < 0) return NULL;
    Frozen f;
    Py_buffer b[3] = {{0}};
    PyObject *answer = NULL;
    const int64_t missing = PyLong_AsLongLong(args[10]);
    if (missing == -1 && PyErr_Occurred()) return NULL;
    const int slots = PyObject_IsTrue(args[11]);
    if (slots < 0) return NULL;
    if (borrow_frozen(args, &f) < 0 ||
        borrow(args[8], &b[0], READ, (Py_ssize_t)f.width, "queries") < 0 ||
        borrow_numbers(args[9], &b[1], WRITE, 8, "out") < 0 ||
        borrow(args[12], &b[2], WRITE, 1, "wanted") < 0)
        goto done;
    const Py_ssize_t n = b[1].len / 8;
    if (b[0].len / (Py_ssize_t)f.width != n) {
        PyErr_Format(PyExc_ValueError, "out holds %zd items for %zd digests", n,
                     b[0].len / (Py_ssize_t)f.width);
        goto done;
    }
    if (b[2].len && expect_bytes(&b[2], (uint64_t)f.borrowed[4].len, 1, "wanted") < 0) goto done;
    for (int i = 0; i < 5; i++)
        if (overlap(&f.borrowed[i], &b[1]) || overlap(&f.borrowed[i], &b[2])) {
            PyErr_SetString(PyExc_ValueError, "out and wanted must not overlap what is read");
            goto done;
        }
    if (expect_apart(b, 3, 1 << 1 | 1 << 2) < 0) goto done;
    f.wanted = b[2].len ? b[2].buf : NULL;
    Py_ssize_t left_out = 0;
    Py_BEGIN_ALLOW_THREADS
    const int sound = n >= MANY && !memchr(f.verified, 0, (size_t)f.blocks);
    if (sound) {
        FOR_WIDTH(f.width, left_out = find_frozen(&f, b[0].buf, n, b[1].buf, missing, slots, 1, W))
    } else {
        FOR_WIDTH(f.width, left_out = find_frozen(&f, b[0].buf, n, b[1].buf, missing, slots, 0, W))
    }
    Py_END_ALLOW_THREADS
    answer = PyLong_FromSsize_t(left_out);
done:
    give_back(f.borrowed, 5);
    give_back(b, 3);
    return answer;
}
