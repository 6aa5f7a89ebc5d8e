/* Separate chaining: heads that lead to linked nodes, one node for each dense entry.
 *
 * heads uint64[n_buckets] and nodes [capacity] of two words, link and value, beside digests
 * uint8[capacity][width]; the first `count` entries are in use. A link is
 *
 *     bits  0..39   the index of the entry it points to, plus one; 0 ends the chain
 *     bits 40..63   24 bits of that entry's hash
 *
 * so a chain is walked along the nodes, one line each, and a digest is read only where 24 bits of
 * its hash agree. New entries go to the front of their chain: along a chain indexes fall, until
 * the first deletion. A link beyond `count` in a damaged table ends the chain.
 *
 * The argument every kernel starts with is the table: heads, keys, digests, nodes, width, count.
 * hashmem.kernels.reference.chaining says what each kernel answers.
 *
 * Threads: any number may search while nobody writes.
 */
#include "hashing.h"

#define TAG_SHIFT 40
#define INDEX_MASK (((uint64_t)1 << TAG_SHIFT) - 1)
#define MAX_ENTRIES (INDEX_MASK - 1)
#define NONE UINT64_MAX
#define FLIGHTS 32 /* searches under way at once */
#define BLOCK 512  /* digests searched for before anything is changed */

typedef struct {
    uint64_t link; /* to the next node of the chain */
    int64_t value;
} Node;

typedef struct {
    Py_buffer borrowed[4]; /* heads, keys, digests, nodes */
    uint64_t *heads;       /* [n_buckets] */
    uint64_t n_buckets;
    const uint64_t *keys; /* [HASH_KEYS] */
    uint8_t *digests;     /* [capacity][width] */
    Node *nodes;          /* [capacity] */
    uint64_t capacity, width, count;
} Table;

ALWAYS_INLINE uint64_t link_to(uint64_t hash, uint64_t entry) {
    return hash << TAG_SHIFT | (entry + 1);
}

/* The entry a link points to; at the end of a chain a number that no entry has. */
ALWAYS_INLINE uint64_t entry_of(uint64_t link) { return (link & INDEX_MASK) - 1; }

ALWAYS_INLINE int tag_agrees(uint64_t link, uint64_t hash) {
    return link >> TAG_SHIFT == (hash & 0xffffff);
}

ALWAYS_INLINE uint64_t *head_of(const Table *t, uint64_t hash) {
    return &t->heads[bucket_of(hash, t->n_buckets)];
}

ALWAYS_INLINE void approach(const Table *t, const uint8_t *digest, size_t width, uint64_t *hash) {
    *hash = hash_digest(digest, width, t->keys);
    PREFETCH(head_of(t, *hash));
}

/* Search for a block of digests: found[i] is the entry of the i-th or NONE, walked[i] how many nodes
 * its search touched.
 *
 * Chains differ in length, so searches are interleaved: each of FLIGHTS takes one step, asks for what
 * its next step reads, and gives way; one that has ended starts the next digest's (Kocberber,
 * Falsafi and Grot, "Asynchronous memory access chaining", VLDB 2015). */
ALWAYS_INLINE void search(const Table *t, const uint8_t *digests, size_t width, int n,
                          uint64_t *hashes, uint64_t *found, uint64_t *walked) {
    struct {
        uint64_t link;
        int i, at_head;
    } flights[FLIGHTS];
    int started = 0, flying = 0;
    for (; flying < FLIGHTS && started < n; flying++, started++) {
        approach(t, digests + started * width, width, &hashes[started]);
        flights[flying].i = started;
        flights[flying].at_head = 1;
    }
    for (int f = 0; flying; f = f + 1 < flying ? f + 1 : 0) {
        const int i = flights[f].i;
        uint64_t link;
        if (flights[f].at_head) {
            flights[f].at_head = 0;
            walked[i] = 0;
            found[i] = NONE;
            link = *head_of(t, hashes[i]);
        } else {
            link = flights[f].link;
            const uint64_t entry = entry_of(link);
            /* No chain is longer than the table, so a circle in a damaged one ends too. */
            const int last = ++walked[i] >= t->count;
            if (tag_agrees(link, hashes[i]) &&
                same_digest(t->digests + entry * width, digests + i * width, width)) {
                found[i] = entry;
                link = 0;
            } else {
                link = last ? 0 : t->nodes[entry].link;
            }
        }
        const uint64_t entry = entry_of(link);
        if (entry < t->count) {
            PREFETCH(&t->nodes[entry]);
            if (tag_agrees(link, hashes[i]))
                prefetch_digest(t->digests + entry * width, width);
            flights[f].link = link;
        } else if (started < n) {
            approach(t, digests + started * width, width, &hashes[started]);
            flights[f].i = started++;
            flights[f].at_head = 1;
        } else {
            flights[f] = flights[--flying];
        }
    }
}

static int borrow_table(PyObject *const *args, int write, Table *t) {
    memset(t, 0, sizeof *t);
    Py_buffer *b = t->borrowed;
    if (borrow(args[0], &b[0], write, 8, "heads") < 0 ||
        borrow(args[1], &b[1], READ, 8, "keys") < 0 ||
        borrow(args[2], &b[2], write, 1, "digests") < 0 ||
        borrow(args[3], &b[3], write, sizeof(Node), "nodes") < 0 ||
        take_size(args[4], &t->width, "width") < 0 || take_size(args[5], &t->count, "count") < 0)
        return -1;
    t->heads = b[0].buf;
    t->n_buckets = (uint64_t)b[0].len / 8;
    t->keys = b[1].buf;
    t->digests = b[2].buf;
    t->nodes = b[3].buf;
    if (t->width < MIN_WIDTH || t->width > MAX_WIDTH) {
        PyErr_Format(PyExc_ValueError, "width must be %d to %d bytes, got %llu", MIN_WIDTH,
                     MAX_WIDTH, (unsigned long long)t->width);
        return -1;
    }
    if (!t->n_buckets || t->n_buckets >> 32) {
        PyErr_SetString(PyExc_ValueError, "heads must hold 1 to 2^32 - 1 links of 8 bytes");
        return -1;
    }
    t->capacity = (uint64_t)b[2].len / t->width;
    if ((uint64_t)b[3].len / sizeof(Node) < t->capacity)
        t->capacity = (uint64_t)b[3].len / sizeof(Node);
    if (t->capacity > MAX_ENTRIES) t->capacity = MAX_ENTRIES;
    if (t->count > t->capacity) {
        PyErr_Format(PyExc_ValueError, "count is %llu, but digests and nodes hold %llu entries",
                     (unsigned long long)t->count, (unsigned long long)t->capacity);
        return -1;
    }
    return expect_bytes(&b[1], HASH_KEYS, 8, "keys");
}

ALWAYS_INLINE void find_all(const Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *out,
                            int64_t missing, size_t width) {
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        uint64_t hashes[BLOCK], found[BLOCK];
        uint64_t walked[BLOCK];
        search(t, queries + base * width, width, size, hashes, found, walked);
        for (int i = 0; i < size; i++)
            out[base + i] = found[i] == NONE ? missing : t->nodes[found[i]].value;
    }
}

ALWAYS_INLINE Py_ssize_t insert_all(Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *values,
                                    uint8_t *new, Insertion *how, size_t width) {
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        const uint8_t *block = queries + base * width;
        uint64_t hashes[BLOCK], found[BLOCK];
        uint64_t walked[BLOCK];
        const uint64_t before = t->count;
        search(t, block, width, size, hashes, found, walked);
        for (int i = 0; i < size; i++) {
            const Py_ssize_t at = base + i;
            uint64_t *head = head_of(t, hashes[i]), known = found[i], probes = walked[i] + 1;
            /* The search did not see what the block itself has put to the front since. */
            for (uint64_t link = *head, above = t->count; known == NONE;) {
                const uint64_t entry = entry_of(link);
                if (entry >= above || entry < before) break; /* links only ever fall */
                above = entry;
                if (tag_agrees(link, hashes[i]) &&
                    same_digest(t->digests + entry * width, block + i * width, width))
                    known = entry;
                link = t->nodes[entry].link;
                probes++;
            }
            new[at] = known == NONE;
            if (known != NONE) {
                if (how->interning)
                    values[at] = t->nodes[known].value;
                else
                    t->nodes[known].value = values[at];
                continue;
            }
            if (t->count >= how->room) return at;
            const uint64_t entry = t->count++;
            memcpy(t->digests + entry * width, block + i * width, width);
            if (how->interning) values[at] = (int64_t)(entry + (uint64_t)how->offset);
            /* A dangling link of a damaged table must not come to mean this entry. */
            t->nodes[entry] = (Node){entry_of(*head) < entry ? *head : 0, values[at]};
            *head = link_to(hashes[i], entry);
            if (probes > how->longest) how->longest = probes;
            if (UNLIKELY(probes > how->limit)) return at + 1;
        }
    }
    return n;
}

ALWAYS_INLINE Py_ssize_t delete_all(Table *t, const uint8_t *queries, Py_ssize_t n, uint8_t *out,
                                    int64_t *holes, size_t width) {
    Py_ssize_t removed = 0;
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        uint64_t hashes[BLOCK], found[BLOCK];
        uint64_t walked[BLOCK];
        search(t, queries + base * width, width, size, hashes, found, walked);
        for (int i = 0; i < size; i++) {
            out[base + i] = 0;
            if (found[i] == NONE) continue;
            uint64_t *link = head_of(t, hashes[i]), entry = entry_of(*link);
            for (uint64_t step = 0; entry != found[i] && entry < t->count && step < t->count; step++) {
                link = &t->nodes[entry].link;
                entry = entry_of(*link);
            }
            if (entry != found[i]) continue; /* the same digest came earlier in the block */
            *link = t->nodes[entry].link;
            out[base + i] = 1;
            holes[removed++] = (int64_t)entry;
        }
    }
    return removed;
}

ALWAYS_INLINE void build_all(const Table *t, size_t width) {
    uint64_t ring[FLIGHTS];
    for (uint64_t step = 0; step < t->count + FLIGHTS; step++) {
        if (step >= FLIGHTS) {
            const uint64_t entry = step - FLIGHTS, hash = ring[step % FLIGHTS];
            uint64_t *head = head_of(t, hash);
            t->nodes[entry].link = *head;
            *head = link_to(hash, entry);
        }
        if (step < t->count)
            approach(t, t->digests + step * width, width, &ring[step % FLIGHTS]);
    }
}

/* chain_build(table…): link all entries into empty heads */
KERNEL(hashmem_chain_build) {
    (void)module;
    if (expect_arguments("chain_build", nargs, 6) < 0) return NULL;
    Table t;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &t) == 0) {
        Py_BEGIN_ALLOW_THREADS
        FOR_WIDTH(t.width, build_all(&t, W))
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    give_back(t.borrowed, 4);
    return answer;
}

ALWAYS_INLINE void move_all(const Table *t, const int64_t *from, const int64_t *to, Py_ssize_t n,
                            size_t width) {
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        uint64_t hashes[BLOCK];
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i];
            if (entry >= t->count) continue;
            approach(t, t->digests + entry * width, width, &hashes[i]);
        }
        for (int i = 0; i < size; i++) {
            const uint64_t source = (uint64_t)from[base + i], target = (uint64_t)to[base + i];
            if (source >= t->count || target >= t->count) continue;
            uint64_t *link = head_of(t, hashes[i]), entry = entry_of(*link);
            for (uint64_t step = 0; entry != source && entry < t->count && step < t->count; step++) {
                link = &t->nodes[entry].link;
                entry = entry_of(*link);
            }
            if (entry != source) continue;
            *link = link_to(hashes[i], target);
            t->nodes[target] = t->nodes[source];
            memcpy(t->digests + target * width, t->digests + source * width, width);
        }
    }
}

#define TABLE(operation) hashmem_chain_##operation
#include "table_kernels.h"
