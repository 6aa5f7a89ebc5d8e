/* Separate chaining: heads that lead to linked entries, which lie dense and side by side.
 *
 * heads are uint64[n_buckets]. An entry is its link, uint64, its value, int64, and its digest: one
 * line mostly holds all that a step along a chain reads. A link is
 *
 *     bits  0..39   the index of the entry it points to, plus one; 0 ends the chain
 *     bits 40..63   24 bits of that entry's hash
 *
 * and a digest is compared only where 24 bits of its hash agree. New entries go to the front of
 * their chain: along a chain indexes fall, until the first deletion. A link beyond `count` in a
 * damaged table ends the chain. hashmem.kernels.reference.chaining says what each kernel answers.
 *
 * Threads: searches beside a change may answer wrongly, but stay within the buffers.
 */
#include "tables.h"

#define TAG_SHIFT 40
#define INDEX_MASK (((uint64_t)1 << TAG_SHIFT) - 1)
#define VALUE 8 /* bytes of an entry before its value */
#define HEADER 16
#define FLIGHTS 32 /* searches under way at once */
#define BLOCK 512  /* digests searched for before anything is changed */

static const Layout LAYOUT = {"heads", 8, HEADER, INDEX_MASK - 1};

ALWAYS_INLINE uint64_t link_to(uint64_t hash, uint64_t entry) {
    return hash << TAG_SHIFT | (entry + 1);
}

/* The entry a link points to; at the end of a chain a number that no entry has. */
ALWAYS_INLINE uint64_t entry_of(uint64_t link) { return (link & INDEX_MASK) - 1; }

ALWAYS_INLINE int tag_agrees(uint64_t link, uint64_t hash) {
    return link >> TAG_SHIFT == (hash & 0xffffff);
}

ALWAYS_INLINE uint64_t *head_of(const Table *t, uint64_t hash) {
    return (uint64_t *)(void *)t->index + bucket_of(hash, t->n_buckets);
}

ALWAYS_INLINE uint8_t *record_of(const Table *t, uint64_t entry, size_t width) {
    return t->entries + entry * stride_of(HEADER, width);
}

/* The link that leads on from an entry. */
ALWAYS_INLINE uint64_t *link_of(const Table *t, uint64_t entry, size_t width) {
    return (uint64_t *)(void *)record_of(t, entry, width);
}

ALWAYS_INLINE int64_t *value_of(const Table *t, uint64_t entry, size_t width) {
    return (int64_t *)(void *)(record_of(t, entry, width) + VALUE);
}

ALWAYS_INLINE uint8_t *digest_of(const Table *t, uint64_t entry, size_t width) {
    return record_of(t, entry, width) + HEADER;
}

ALWAYS_INLINE void approach(const Table *t, const uint8_t *digest, size_t width, uint64_t *hash) {
    *hash = hash_of(t, digest, width);
    PREFETCH(head_of(t, *hash));
}

/* What the search for a digest came to. */
typedef struct {
    uint64_t hash;
    uint64_t entry;  /* or NONE */
    uint64_t walked; /* entries it touched */
} Search;

/* Search for a block of digests, and count those compared that were others.
 *
 * Chains differ in length, so searches are interleaved: each of FLIGHTS takes one step, asks for what
 * its next step reads, and gives way; one that has ended starts the next digest's (Kocberber,
 * Falsafi and Grot, "Asynchronous memory access chaining", VLDB 2015). */
ALWAYS_INLINE uint64_t search(const Table *t, const uint8_t *digests, size_t width, int n,
                              Search *searches) {
    struct {
        uint64_t link;
        int i, at_head;
    } flights[FLIGHTS];
    uint64_t mismatches = 0;
    int started = 0, flying = 0;
    for (; flying < FLIGHTS && started < n; flying++, started++) {
        approach(t, digests + started * width, width, &searches[started].hash);
        flights[flying].i = started;
        flights[flying].at_head = 1;
    }
    for (int f = 0; flying; f = f + 1 < flying ? f + 1 : 0) {
        const int i = flights[f].i;
        Search *s = &searches[i];
        uint64_t link;
        if (flights[f].at_head) {
            flights[f].at_head = 0;
            s->walked = 0;
            s->entry = NONE;
            link = *head_of(t, s->hash);
        } else {
            link = flights[f].link;
            const uint64_t entry = entry_of(link);
            /* No chain is longer than the table, so a circle in a damaged one ends too. */
            const int last = ++s->walked >= t->count, agrees = tag_agrees(link, s->hash);
            if (agrees && same_digest(digest_of(t, entry, width), digests + i * width, width)) {
                s->entry = entry;
                link = 0;
            } else {
                mismatches += (uint64_t)agrees;
                link = last ? 0 : *link_of(t, entry, width);
            }
        }
        const uint64_t entry = entry_of(link);
        if (entry < t->count) {
            prefetch_digest(record_of(t, entry, width),
                            tag_agrees(link, s->hash) ? HEADER + width : HEADER);
            flights[f].link = link;
        } else if (started < n) {
            approach(t, digests + started * width, width, &searches[started].hash);
            flights[f].i = started++;
            flights[f].at_head = 1;
        } else {
            flights[f] = flights[--flying];
        }
    }
    return mismatches;
}

ALWAYS_INLINE void find_all(const Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *out,
                            int64_t missing, size_t width) {
    Search searches[BLOCK];
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        search(t, queries + base * width, width, size, searches);
        for (int i = 0; i < size; i++)
            out[base + i] =
                searches[i].entry == NONE ? missing : *value_of(t, searches[i].entry, width);
    }
}

ALWAYS_INLINE int find_one(const Table *t, const uint8_t *digest, int64_t *value, size_t width) {
    const uint64_t hash = hash_of(t, digest, width);
    uint64_t link = *head_of(t, hash), left = t->count;
    for (uint64_t entry; left-- && (entry = entry_of(link)) < t->count;
         link = *link_of(t, entry, width))
        if (tag_agrees(link, hash) && same_digest(digest_of(t, entry, width), digest, width)) {
            *value = *value_of(t, entry, width);
            return 1;
        }
    return 0;
}

ALWAYS_INLINE Py_ssize_t insert_all(Table *t, const uint8_t *queries, Py_ssize_t n, int64_t *values,
                                    uint8_t *new, Insertion *how, size_t width) {
    Search searches[BLOCK];
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        const uint8_t *block = queries + base * width;
        const uint64_t before = t->count;
        how->mismatches += search(t, block, width, size, searches);
        for (int i = 0; i < size; i++) {
            const Py_ssize_t at = base + i;
            const uint64_t hash = searches[i].hash;
            uint64_t *head = head_of(t, hash), known = searches[i].entry;
            uint64_t length = searches[i].walked + 1;
            /* The search did not see what the block itself has put to the front since. */
            for (uint64_t link = *head, above = t->count; known == NONE;) {
                const uint64_t entry = entry_of(link);
                if (entry >= above || entry < before) break; /* links only ever fall */
                above = entry;
                if (tag_agrees(link, hash)) {
                    if (same_digest(digest_of(t, entry, width), block + i * width, width))
                        known = entry;
                    else
                        how->mismatches++;
                }
                link = *link_of(t, entry, width);
                length++;
            }
            new[at] = known == NONE;
            if (known != NONE) {
                if (how->interning)
                    values[at] = *value_of(t, known, width);
                else if (!how->keep)
                    *value_of(t, known, width) = values[at];
                continue;
            }
            if (t->count >= how->room || UNLIKELY(length > how->limit)) return at;
            const uint64_t entry = t->count++;
            if (how->interning) values[at] = (int64_t)(entry + (uint64_t)how->offset);
            /* A dangling link of a damaged table must not come to mean this entry. */
            *link_of(t, entry, width) = entry_of(*head) < entry ? *head : 0;
            *value_of(t, entry, width) = values[at];
            memcpy(digest_of(t, entry, width), block + i * width, width);
            *head = link_to(hash, entry);
        }
    }
    return n;
}

/* The link that leads to an entry of this hash, or NULL. */
ALWAYS_INLINE uint64_t *link_before(const Table *t, uint64_t hash, uint64_t wanted, size_t width) {
    uint64_t *link = head_of(t, hash), entry = entry_of(*link);
    for (uint64_t step = 0; entry != wanted; step++) {
        if (entry >= t->count || step >= t->count) return NULL;
        link = link_of(t, entry, width);
        entry = entry_of(*link);
    }
    return link;
}

ALWAYS_INLINE Py_ssize_t delete_all(Table *t, const uint8_t *queries, Py_ssize_t n, uint8_t *out,
                                    int64_t *holes, size_t width) {
    Search searches[BLOCK];
    Py_ssize_t removed = 0;
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        search(t, queries + base * width, width, size, searches);
        for (int i = 0; i < size; i++) {
            const uint64_t entry = searches[i].entry;
            out[base + i] = 0;
            if (entry == NONE) continue;
            uint64_t *link = link_before(t, searches[i].hash, entry, width);
            if (!link) continue; /* the same digest came earlier in the block */
            *link = *link_of(t, entry, width);
            out[base + i] = 1;
            holes[removed++] = (int64_t)entry;
        }
    }
    return removed;
}

/* Link all entries into empty heads. There is a place for all: only searches see a chain's length. */
ALWAYS_INLINE uint64_t build_all(const Table *t, uint64_t limit, size_t width) {
    (void)limit;
    uint64_t ring[FLIGHTS];
    for (uint64_t step = 0; step < t->count + FLIGHTS; step++) {
        if (step >= FLIGHTS) {
            const uint64_t entry = step - FLIGHTS, hash = ring[step % FLIGHTS];
            uint64_t *head = head_of(t, hash);
            *link_of(t, entry, width) = entry_of(*head) < entry ? *head : 0;
            *head = link_to(hash, entry);
        }
        if (step < t->count)
            approach(t, digest_of(t, step, width), width, &ring[step % FLIGHTS]);
    }
    return t->count;
}

ALWAYS_INLINE void move_all(const Table *t, const int64_t *from, const int64_t *to, Py_ssize_t n,
                            size_t width) {
    uint64_t hashes[BLOCK];
    for (Py_ssize_t base = 0; base < n; base += BLOCK) {
        const int size = n - base < BLOCK ? (int)(n - base) : BLOCK;
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i];
            if (entry < t->count) approach(t, digest_of(t, entry, width), width, &hashes[i]);
        }
        for (int i = 0; i < size; i++) {
            const uint64_t entry = (uint64_t)from[base + i], target = (uint64_t)to[base + i];
            if (entry >= t->count || target >= t->count || entry == target) continue;
            uint64_t *link = link_before(t, hashes[i], entry, width);
            if (!link) continue;
            *link = link_to(hashes[i], target);
            memcpy(record_of(t, target, width), record_of(t, entry, width), HEADER + width);
        }
    }
}

static int fits(const Table *t) {
    (void)t;
    return 1;
}

#define TABLE(operation) hashmem_chain_##operation
#include "table_kernels.h"
