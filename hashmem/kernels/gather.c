/* Copying pieces scattered over several buffers together, ahead of the cache misses they cause. */
#include "kernels.h"

#define PIECES_AHEAD 16 /* pieces whose lines are asked for before they are copied */
#define LINES_AHEAD 16 /* of each, at most: the hardware goes on from there */

typedef struct {
    const Py_buffer *bodies;
    Py_ssize_t n_bodies, n, room;
    const int64_t *which, *from, *length, *to;
    uint8_t *out;
} Pieces;

typedef struct {
    const uint8_t *from; /* NULL: it lies outside its body or the output */
    uint8_t *to;
    int64_t length;
} Copy;

ALWAYS_INLINE Copy copy_of(const Pieces *p, Py_ssize_t i) {
    const int64_t which = p->which[i], from = p->from[i], length = p->length[i], to = p->to[i];
    const Copy outside = {NULL, NULL, 0};
    if (which < 0 || which >= p->n_bodies) return outside;
    const int64_t body = p->bodies[which].len;
    if (length < 0 || from < 0 || to < 0 || length > body || from > body - length ||
        length > p->room || to > p->room - length)
        return outside;
    return (Copy){(const uint8_t *)p->bodies[which].buf + from, p->out + to, length};
}

/* The first piece that lies outside, or -1 when all are copied. Every piece is checked before any
 * is copied, and again when it is: another thread may write to the numbers meanwhile. */
static Py_ssize_t copy_pieces(const Pieces *p) {
    for (Py_ssize_t i = 0; i < p->n; i++)
        if (!copy_of(p, i).from) return i;
    for (Py_ssize_t step = 0; step < p->n + PIECES_AHEAD; step++) {
        if (step < p->n) {
            const Copy next = copy_of(p, step);
            for (int64_t at = 0; at < next.length && at < 64 * LINES_AHEAD; at += 64)
                PREFETCH(next.from + at);
        }
        if (step < PIECES_AHEAD) continue;
        const Copy copy = copy_of(p, step - PIECES_AHEAD);
        if (!copy.from) return step - PIECES_AHEAD;
        if (copy.length) memmove(copy.to, copy.from, (size_t)copy.length);
    }
    return -1;
}

/* gather(bodies: tuple of bytes-like, which: int64[n], offsets: int64[n], lengths: int64[n],
 *        out: uint8[], out_offsets: int64[n]) */
KERNEL(hashmem_gather) {
    (void)module;
    if (expect_arguments("gather", nargs, 6) < 0) return NULL;
    if (!PyTuple_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "bodies must be a tuple of bytes-like objects");
        return NULL;
    }
    const Py_ssize_t n_bodies = PyTuple_Size(args[0]);
    Py_buffer b[5] = {{0}};
    Py_buffer *bodies = PyMem_Calloc((size_t)n_bodies + 1, sizeof *bodies);
    PyObject *answer = NULL;
    if (!bodies) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n_bodies; i++)
        if (borrow(PyTuple_GetItem(args[0], i), &bodies[i], READ, 1, "a body") < 0) goto done;
    if (borrow_numbers(args[1], &b[0], READ, 8, "which") < 0 ||
        borrow_numbers(args[2], &b[1], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[3], &b[2], READ, 8, "lengths") < 0 ||
        borrow(args[4], &b[3], WRITE, 1, "out") < 0 ||
        borrow_numbers(args[5], &b[4], READ, 8, "out_offsets") < 0)
        goto done;
    if (b[1].len != b[0].len || b[2].len != b[0].len || b[4].len != b[0].len) {
        PyErr_SetString(PyExc_ValueError, "which, offsets, lengths, out_offsets differ in length");
        goto done;
    }
    const Pieces pieces = {bodies,   n_bodies, b[0].len / 8, b[3].len, b[0].buf,
                           b[1].buf, b[2].buf, b[4].buf,     b[3].buf};
    Py_ssize_t outside;
    Py_BEGIN_ALLOW_THREADS
    outside = copy_pieces(&pieces);
    Py_END_ALLOW_THREADS
    if (outside >= 0)
        PyErr_Format(PyExc_ValueError, "piece %zd lies outside its body or the output", outside);
    else
        answer = Py_NewRef(Py_None);
done:
    for (Py_ssize_t i = 0; i < n_bodies; i++)
        if (bodies[i].obj) PyBuffer_Release(&bodies[i]);
    PyMem_Free(bodies);
    give_back(b, 5);
    return answer;
}
