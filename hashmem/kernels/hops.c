/* Following links, row → row, a group of chains at a time so that their cache misses overlap. */
#include "kernels.h"

/* hop(successors: int64[rows], starts: int64[m], n: int, out: int64[m]) */
KERNEL(hashmem_hop) {
    (void)module;
    if (expect_arguments("hop", nargs, 4) < 0) return NULL;
    Py_buffer b[3] = {{0}};
    long long n = PyLong_AsLongLong(args[2]);
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (borrow_numbers(args[0], &b[0], READ, 8, "successors") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "starts") < 0 || borrow_numbers(args[3], &b[2], WRITE, 8, "out") < 0)
        goto fail;
    if (b[2].len != b[1].len) {
        PyErr_SetString(PyExc_ValueError, "out must be as long as starts");
        goto fail;
    }
    const int64_t *next = b[0].buf, *starts = b[1].buf;
    int64_t *out = b[2].buf;
    const uint64_t rows = (uint64_t)(b[0].len / 8);
    const Py_ssize_t m = b[1].len / 8;

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t base = 0; base < m; base += GROUP) {
        int64_t at[GROUP];
        const int size = m - base < GROUP ? (int)(m - base) : GROUP;
        int alive = 0;
        for (int i = 0; i < size; i++) {
            at[i] = (uint64_t)starts[base + i] < rows ? starts[base + i] : -1;
            if (at[i] >= 0) PREFETCH(&next[at[i]]), alive++;
        }
        for (long long step = 0; step < n && alive; step++) {
            alive = 0;
            for (int i = 0; i < size; i++) {
                if (at[i] < 0) continue;
                const int64_t to = next[at[i]];
                at[i] = (uint64_t)to < rows ? to : -1;
                if (at[i] >= 0) PREFETCH(&next[at[i]]), alive++;
            }
        }
        for (int i = 0; i < size; i++) out[base + i] = at[i];
    }
    Py_END_ALLOW_THREADS

    give_back(b, 3);
    Py_RETURN_NONE;
fail:
    give_back(b, 3);
    return NULL;
}
