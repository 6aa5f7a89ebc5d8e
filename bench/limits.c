/* What memory alone allows to a table or to hops: the same lines, touched in the same order, with
 * nothing computed in between. Called through bench/limits.py.
 *
 * Reads of one query depend on each other, as a table's do: where an entry lies is known from the
 * bucket. Reads of different queries do not, and a pipeline keeps `depth` queries between one read
 * of a query and the next, each prefetched when the one before it is there.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 1 << 21, MOST_STEPS = 8, RING = 1024 /* queries in the pipeline, a power of 2 */ };

/* Written once, so that each page is there; NULL where there is no memory. */
void *limits_array(size_t bytes, int huge)
{
    bytes = (bytes / HUGE_PAGE + 1) * HUGE_PAGE;
    void *array = aligned_alloc(HUGE_PAGE, bytes);
    if (array == NULL)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(array, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
    memset(array, 0, bytes);
    return array;
}

void limits_free(void *array)
{
    free(array);
}

static inline __attribute__((always_inline)) uint64_t
touch(const uint64_t *words, const uint32_t *plan, size_t n, size_t steps, const uint32_t *spans,
      size_t depth)
{
    uint64_t carried[RING] = {0}, sum = 0;
    for (size_t i = 0; i < n + steps * depth; i++)
        for (size_t s = 0; s <= steps; s++) {
            const size_t j = i - s * depth; /* wraps to beyond n where it is not that far */
            if (j >= n)
                continue;
            uint64_t *carry = &carried[j % RING];
            if (s == 0) {
                *carry = 0;
            } else {
                const uint64_t *at = words + plan[j * steps + s - 1];
                *carry += at[0] + at[spans[s - 1]];
            }
            if (s == steps) {
                sum += *carry;
            } else { /* the zeros read so far, which the compiler cannot know, make it wait */
                const uint64_t *at = words + plan[j * steps + s] + *carry;
                __builtin_prefetch(at);
                __builtin_prefetch(at + spans[s]);
            }
        }
    return sum;
}

/* Touch for each of n queries the words plan[query][step], and the one spans[step] after it. */
uint64_t limits_touch(const uint64_t *words, const uint32_t *plan, size_t n, size_t steps,
                      const uint32_t *spans, size_t depth)
{
    if (steps > MOST_STEPS || steps * depth >= RING)
        return UINT64_MAX;
    switch (steps) { /* known, so that the loop over them unrolls */
    case 1:
        return touch(words, plan, n, 1, spans, depth);
    case 2:
        return touch(words, plan, n, 2, spans, depth);
    case 3:
        return touch(words, plan, n, 3, spans, depth);
    default:
        return touch(words, plan, n, steps, spans, depth);
    }
}

/* Follow n chains by so many hops, `group` of them side by side. */
void limits_chains(const int64_t *next, const int64_t *starts, int64_t *out, size_t n, size_t hops,
                   size_t group)
{
    for (size_t begin = 0; begin < n; begin += group) {
        const size_t end = begin + group < n ? begin + group : n;
        memcpy(out + begin, starts + begin, (end - begin) * sizeof *out);
        for (size_t h = 0; h < hops; h++)
            for (size_t i = begin; i < end; i++)
                out[i] = next[out[i]];
    }
}
