/* What the compiled kernels share: argument checking, the GIL, compiler builtins.
 *
 * Every kernel is a METH_FASTCALL function over buffers. It borrows its buffers with `borrow`,
 * checks their sizes, releases the GIL for the loop, and gives all of them back with `give_back`.
 * The pure-Python module hashmem.kernels.reference defines what each must answer.
 */
#ifndef HASHMEM_KERNELS_H
#define HASHMEM_KERNELS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch((const void *)(address), 0, 3)
#define PREFETCH_WRITE(address) __builtin_prefetch((const void *)(address), 1, 3)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)(address))
#define PREFETCH_WRITE(address) ((void)(address))
#define LIKELY(x) (x)
#define UNLIKELY(x) (x)
#define ALWAYS_INLINE static inline
#endif

/* Iterations in flight: enough to keep every line-fill buffer of a core busy (10 to 16 on x86). */
#define GROUP 32

enum { READ = 0, WRITE = 1 };

/* Borrow argument `object` as one contiguous buffer whose size is a multiple of `item` bytes.
 * `name` is what the error calls it. 0 on success, -1 with an exception set. */
ALWAYS_INLINE int borrow(PyObject *object, Py_buffer *buffer, int write, Py_ssize_t item,
                         const char *name) {
    buffer->obj = NULL;
    if (PyObject_GetBuffer(object, buffer, write ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) return -1;
    if (item > 0 && buffer->len % item != 0) {
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes is no multiple of %zd", name, buffer->len,
                     item);
        return -1;
    }
    return 0;
}

/* Borrow numbers: as `borrow`, and they must be aligned, to 8 bytes or to one item if that is less. */
ALWAYS_INLINE int borrow_numbers(PyObject *object, Py_buffer *buffer, int write, Py_ssize_t item,
                                 const char *name) {
    const Py_ssize_t alignment = item < 8 ? item : 8;
    if (borrow(object, buffer, write, item, name) < 0) return -1;
    if (!buffer->len || (uintptr_t)buffer->buf % (uintptr_t)alignment == 0) return 0;
    PyErr_Format(PyExc_ValueError, "%s must begin at a multiple of %zd bytes in memory", name,
                 alignment);
    return -1;
}

ALWAYS_INLINE void give_back(Py_buffer *buffers, int count) {
    for (int i = 0; i < count; i++)
        if (buffers[i].obj) PyBuffer_Release(&buffers[i]);
}

ALWAYS_INLINE int overlap(const Py_buffer *a, const Py_buffer *b) {
    const uintptr_t from = (uintptr_t)a->buf, to = (uintptr_t)b->buf;
    return a->len && b->len && from < to + (uintptr_t)b->len && to < from + (uintptr_t)a->len;
}

/* Refuse buffers that overlap where one of them is written, which `written` has a bit for each of:
 * a loop must not change what was checked for it. */
ALWAYS_INLINE int expect_apart(const Py_buffer *buffers, int count, unsigned written) {
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (((written >> i | written >> j) & 1) && overlap(&buffers[i], &buffers[j])) {
                PyErr_SetString(PyExc_ValueError, "what is written must not overlap other buffers");
                return -1;
            }
    return 0;
}

ALWAYS_INLINE int expect_arguments(const char *kernel, Py_ssize_t given, Py_ssize_t expected) {
    if (given == expected) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", kernel, expected, given);
    return -1;
}

#define KERNEL(name) PyObject *name(PyObject *module, PyObject *const *args, Py_ssize_t nargs)

KERNEL(hashmem_hop);
KERNEL(hashmem_open_find);
KERNEL(hashmem_open_insert);
KERNEL(hashmem_open_intern);
KERNEL(hashmem_open_delete);
KERNEL(hashmem_open_build);
KERNEL(hashmem_open_move);
KERNEL(hashmem_open_lookup);
KERNEL(hashmem_rows_find);
KERNEL(hashmem_rows_build);
KERNEL(hashmem_rows_lookup);
KERNEL(hashmem_chain_find);
KERNEL(hashmem_chain_insert);
KERNEL(hashmem_chain_intern);
KERNEL(hashmem_chain_delete);
KERNEL(hashmem_chain_build);
KERNEL(hashmem_chain_move);
KERNEL(hashmem_chain_lookup);
KERNEL(hashmem_hash_words);
KERNEL(hashmem_count_ngrams);
KERNEL(hashmem_digest_pieces);
KERNEL(hashmem_digest_items);
KERNEL(hashmem_gather);
KERNEL(hashmem_frozen_find);
KERNEL(hashmem_frozen_partition);
KERNEL(hashmem_frozen_build);
KERNEL(hashmem_skip);
KERNEL(hashmem_skip_build);
KERNEL(hashmem_skip_mark);
KERNEL(hashmem_frontier);
KERNEL(hashmem_shortest);
KERNEL(hashmem_reverse);
KERNEL(hashmem_multimap_append);
KERNEL(hashmem_multimap_gather);

#endif
