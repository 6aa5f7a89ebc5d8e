/* One measurement of memory per run: memory_limit MODE BYTES HUGE SAMPLES → ns, one line a sample.
 *
 * MODE  chain8   8-byte reads, each address made from the value read before: one in flight
 *       random8  8-byte reads at independent addresses: as many in flight as the core can hold
 *       chain64, random64   the same, reading all of an aligned 64-byte line
 *       stream   every 8 bytes in order; ns per 64 bytes
 *
 * The array holds zeros, written once, so that each page is there and the chain's next address is
 * the generator's own, which the compiler cannot know.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { READS = 1 << 22, HUGE_PAGE = 1 << 21, LINE = 8 /* words */ };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A place in [0, n), n < 2^32, from the high bits of a 64-bit state. */
static uint64_t place(uint64_t state, uint64_t n)
{
    return ((state >> 32) * n) >> 32;
}

static uint64_t step(uint64_t state)
{
    return state * 6364136223846793005u + 1442695040888963407u;
}

static uint64_t line_sum(const uint64_t *line)
{
    uint64_t sum = 0;
    for (int i = 0; i < LINE; i++)
        sum += line[i];
    return sum;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const char *mode = argv[1];
    const size_t bytes = strtoull(argv[2], NULL, 10) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
    const int huge = atoi(argv[3]), samples = atoi(argv[4]);
    uint64_t *array = aligned_alloc(HUGE_PAGE, bytes);
    if (array == NULL)
        return 1;
#ifdef MADV_HUGEPAGE
    if (madvise(array, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0)
        return 3;
#else
    if (huge)
        return 3;
#endif
    memset(array, 0, bytes);

    const uint64_t words = bytes / sizeof *array, lines = words / LINE;
    uint64_t state = 88172645463325252u, sum = 0;
    for (int s = 0; s < samples; s++) {
        double count = READS;
        const double start = now();
        if (strcmp(mode, "chain8") == 0)
            for (int i = 0; i < READS; i++)
                state = step(state + array[place(state, words)]);
        else if (strcmp(mode, "random8") == 0)
            for (int i = 0; i < READS; i++)
                sum += array[place(state = step(state), words)];
        else if (strcmp(mode, "chain64") == 0)
            for (int i = 0; i < READS; i++)
                state = step(state + line_sum(array + place(state, lines) * LINE));
        else if (strcmp(mode, "random64") == 0)
            for (int i = 0; i < READS; i++)
                sum += line_sum(array + place(state = step(state), lines) * LINE);
        else if (strcmp(mode, "stream") == 0) {
            for (uint64_t i = 0; i < words; i++)
                sum += array[i];
            count = (double)lines;
        } else
            return 2;
        printf("%.4f\n", (now() - start) / count);
    }
    fprintf(stderr, "%llu\n", (unsigned long long)(state + sum)); /* keeps the reads alive */
    return 0;
}
