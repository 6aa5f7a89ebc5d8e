/* What both kinds of tables share: how entries lie in memory, and what every kernel starts with.
 *
 * Entries are dense. Each begins with a header that the kind defines, whose last 8 bytes are its
 * value, and then has its digest, padded to 8 bytes: value and digest mostly lie on one line. With an
 * empty header they are digests alone, which no kernel writes.
 *
 * The arguments every kernel starts with are the table: index, keys, entries, width, hashed, count.
 * Only the first `hashed` bytes of a digest are hashed: 8, or all of them in a table that has met
 * digests which agree in the first ones. The first `count` entries are in use.
 */
#ifndef HASHMEM_TABLES_H
#define HASHMEM_TABLES_H

#include "hashing.h"

#define NONE UINT64_MAX
#define TABLE_ARGUMENTS 6

typedef struct {
    Py_buffer borrowed[3]; /* index, keys, entries */
    uint8_t *index;
    uint64_t n_buckets;
    const uint64_t *keys; /* [HASH_KEYS] */
    uint8_t *entries;     /* [capacity][stride] */
    uint64_t capacity, count;
    size_t stride, header, width, hashed; /* bytes */
} Table;

/* How a kind lays out its table. */
typedef struct {
    const char *index;      /* what it is called */
    size_t bucket, header;  /* bytes */
    uint64_t most_entries;
} Layout;

/* How an insertion goes. */
typedef struct {
    uint64_t room;  /* entries to stop at */
    uint64_t limit; /* the kind's bound on looking for a place */
    int interning;  /* values are answered: an entry's own, or its index plus `offset` if it is new */
    int keep;       /* an entry that is there keeps its value */
    int64_t offset;
    uint64_t mismatches; /* digests compared that were others */
} Insertion;

ALWAYS_INLINE uint64_t hash_of(const Table *t, const uint8_t *digest, size_t width) {
    return t->hashed == MIN_WIDTH ? hash_digest(digest, MIN_WIDTH, t->keys)
                                  : hash_digest(digest, width, t->keys);
}

/* Header and digest, in whole words. Both are constants where `width` is. */
ALWAYS_INLINE size_t stride_of(size_t header, size_t width) { return header + ((width + 7) & ~(size_t)7); }

static int borrow_table(PyObject *const *args, int write, const Layout *layout, Table *t) {
    memset(t, 0, sizeof *t);
    Py_buffer *b = t->borrowed;
    uint64_t width, hashed;
    if (borrow_numbers(args[0], &b[0], write, (Py_ssize_t)layout->bucket, layout->index) < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "keys") < 0 ||
        borrow_numbers(args[2], &b[2], write && layout->header, 8, "entries") < 0 ||
        take_size(args[3], &width, "width") < 0 || take_size(args[4], &hashed, "hashed") < 0 ||
        take_size(args[5], &t->count, "count") < 0)
        return -1;
    if (width < MIN_WIDTH || width > MAX_WIDTH) {
        PyErr_Format(PyExc_ValueError, "width must be %d to %d bytes, got %llu", MIN_WIDTH,
                     MAX_WIDTH, (unsigned long long)width);
        return -1;
    }
    if (hashed != MIN_WIDTH && hashed != width) {
        PyErr_Format(PyExc_ValueError, "hashed must be %d or the width, got %llu", MIN_WIDTH,
                     (unsigned long long)hashed);
        return -1;
    }
    t->index = b[0].buf;
    t->n_buckets = (uint64_t)b[0].len / layout->bucket;
    t->keys = b[1].buf;
    t->entries = b[2].buf;
    t->header = layout->header;
    t->width = (size_t)width;
    t->hashed = (size_t)hashed;
    t->stride = stride_of(t->header, t->width);
    if (!t->n_buckets || t->n_buckets >> 32) {
        PyErr_Format(PyExc_ValueError, "%s must hold 1 to 2^32 - 1 items of %zd bytes",
                     layout->index, (Py_ssize_t)layout->bucket);
        return -1;
    }
    t->capacity = (uint64_t)b[2].len / t->stride;
    if (t->capacity > layout->most_entries) t->capacity = layout->most_entries;
    if (t->count > t->capacity) {
        PyErr_Format(PyExc_ValueError, "count is %llu, but there is memory for %llu entries",
                     (unsigned long long)t->count, (unsigned long long)t->capacity);
        return -1;
    }
    if (expect_bytes(&b[1], HASH_KEYS, 8, "keys") < 0) return -1;
    return write ? expect_apart(b, 3, 1 | 4) : 0;
}

#endif
