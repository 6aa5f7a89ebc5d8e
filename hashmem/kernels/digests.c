/* Digests of many pieces: where the pieces come from. Pieces of one buffer, or Python objects.
 *
 * A block of pieces is taken together under the GIL and digested without it. Each object is held
 * meanwhile, bytes by a reference and others by their buffer, since another thread may drop it or
 * change its size. What such a thread writes to a buffer ends up in its digest or does not.
 */
#include "digests.h"

#define PLACES 256         /* pieces of a buffer a block: their places stay in the first cache */
#define OBJECTS (1 << 11)  /* a block: they stay in the second cache until they are let go */
#define AHEAD 32           /* objects whose lines are asked for before they are looked at */

typedef struct {
    DigestPieces *digest; /* NULL where the CPU lacks the instructions */
    Py_ssize_t width;     /* bytes a digest; 0 with an exception set */
} Algorithm;

static Algorithm algorithm_of(PyObject *name) {
    if (PyUnicode_Check(name)) {
        if (!PyUnicode_CompareWithASCIIString(name, "sha256"))
            return (Algorithm){sha256_pieces(), 32};
        if (!PyUnicode_CompareWithASCIIString(name, "xxh3_128"))
            return (Algorithm){xxh3_128_pieces(), 16};
        if (!PyUnicode_CompareWithASCIIString(name, "xxh3_64"))
            return (Algorithm){xxh3_64_pieces(), 8};
    }
    PyErr_Format(PyExc_ValueError, "no kernel digests by %R", name);
    return (Algorithm){NULL, 0};
}

/* Pieces of one buffer: rows of `row` bytes where there are no offsets. The first piece that lies
 * outside, or -1 when all are digested. Places are checked before anything is written, and again
 * when they are used: another thread may write to them meanwhile. */
typedef struct {
    const uint8_t *data;
    uint64_t bytes;
    const int64_t *offsets;
    Py_ssize_t step; /* from the offset of one piece to that of the next: 1, or 2 if they lie apart */
    uint64_t row;
} Cut;

ALWAYS_INLINE int lies(const Cut *cut, int64_t from, int64_t to) {
    return from < 0 || to < from || (uint64_t)to > cut->bytes;
}

static Py_ssize_t digest_cut(const Cut *cut, Py_ssize_t n, const Algorithm *by, uint8_t *out) {
    Piece pieces[PLACES];
    const int64_t *offsets = cut->offsets;
    for (Py_ssize_t i = 0; offsets && i < n; i++)
        if (lies(cut, offsets[cut->step * i], offsets[cut->step * i + 1])) return i;
    for (Py_ssize_t start = 0; start < n; start += PLACES) {
        const Py_ssize_t count = n - start < PLACES ? n - start : PLACES;
        for (Py_ssize_t i = 0; i < count; i++) {
            if (!offsets) {
                pieces[i] = (Piece){cut->data + (uint64_t)(start + i) * cut->row, cut->row};
                continue;
            }
            const int64_t *ends = offsets + cut->step * (start + i);
            const int64_t from = ends[0], to = ends[1];
            if (lies(cut, from, to)) return start + i;
            pieces[i] = (Piece){cut->data + from, (uint64_t)(to - from)};
        }
        by->digest(pieces, count, out + start * by->width);
    }
    return -1;
}

/* digest_pieces(algorithm: str, data: bytes, offsets: int64[n + 1], or int64[n][2] of pieces apart,
 *               or int, bytes a row, out: uint8[n][width]) -> whether it could */
KERNEL(hashmem_digest_pieces) {
    (void)module;
    if (expect_arguments("digest_pieces", nargs, 4) < 0) return NULL;
    const Algorithm by = algorithm_of(args[0]);
    if (!by.width) return NULL;
    if (!by.digest) Py_RETURN_FALSE;
    Py_buffer b[3] = {{0}};
    PyObject *answer = NULL;
    Cut cut = {0};
    if (PyLong_CheckExact(args[2])) {
        cut.row = PyLong_AsUnsignedLongLong(args[2]);
        if (PyErr_Occurred()) return NULL;
    } else if (borrow_numbers(args[2], &b[1], READ, 8, "offsets") < 0) {
        goto done;
    }
    if (borrow(args[1], &b[0], READ, 1, "data") < 0 ||
        borrow(args[3], &b[2], WRITE, by.width, "out") < 0)
        goto done;
    if (expect_apart(b, 3, 1 << 2) < 0) goto done;
    const Py_ssize_t n = b[2].len / by.width;
    cut.data = b[0].buf;
    cut.bytes = (uint64_t)b[0].len;
    if (b[1].obj) {
        cut.offsets = b[1].buf;
        cut.step = b[1].len / 8 == n + 1 ? 1 : 2;
        if (cut.step == 2 && b[1].len / 8 != 2 * n) {
            PyErr_Format(PyExc_ValueError, "%zd offsets do not cut %zd pieces", b[1].len / 8, n);
            goto done;
        }
    } else if (n && cut.row > cut.bytes / (uint64_t)n) {
        PyErr_Format(PyExc_ValueError, "%zd rows of %llu bytes lie beyond the data", n,
                     (unsigned long long)cut.row);
        goto done;
    }
    Py_ssize_t outside;
    Py_BEGIN_ALLOW_THREADS
    outside = digest_cut(&cut, n, &by, b[2].buf);
    Py_END_ALLOW_THREADS
    if (outside >= 0)
        PyErr_Format(PyExc_ValueError, "offset %zd or %zd is out of order or beyond the data",
                     cut.step * outside, cut.step * outside + 1);
    else
        answer = Py_NewRef(Py_True);
done:
    give_back(b, 3);
    return answer;
}

/* A block of objects and what holds them. */
typedef struct {
    Piece *pieces;
    PyObject **kept;  /* bytes, by a reference */
    Py_buffer *views; /* others, by their buffer; made for the first of them */
    Py_ssize_t room, count, n_kept, n_views;
    Py_ssize_t header; /* where bytes begin in their object: one place for all of an interpreter */
} Block;

static void let_go(Block *block) {
    for (Py_ssize_t i = 0; i < block->n_kept; i++) Py_DECREF(block->kept[i]);
    for (Py_ssize_t i = 0; i < block->n_views; i++) PyBuffer_Release(&block->views[i]);
    block->count = block->n_kept = block->n_views = 0;
}

/* Hold an object that is not bytes: 1, 0 where it is not for this kernel, -1 with an exception set. */
static int hold_view(Block *block, PyObject *object) {
    if (!block->views) {
        block->views = PyMem_Malloc((size_t)block->room * sizeof *block->views);
        if (!block->views) return PyErr_NoMemory(), -1;
    }
    Py_buffer *view = &block->views[block->n_views];
    if (PyObject_GetBuffer(object, view, PyBUF_ND) < 0) { /* SIMPLE hides dimensions */
        if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
            !PyErr_ExceptionMatches(PyExc_BufferError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    if (view->ndim > 1) return PyBuffer_Release(view), 0;
    block->n_views++;
    block->pieces[block->count++] = (Piece){view->buf, (uint64_t)view->len};
    return 1;
}

/* Fill the block with items from *at on: 1, 0 where *at is not for this kernel, -1 with an exception
 * set. An item's own code may run and change the list, so sizes and items are asked for again. */
static int fill(Block *block, PyObject *items, Py_ssize_t *at) {
    const int listed = PyList_Check(items);
    Py_ssize_t ahead = AHEAD;
    while (block->count < block->room && *at < Py_SIZE(items)) {
        PyObject *next[AHEAD];
        if (ahead > block->room - block->count) ahead = block->room - block->count;
        if (ahead > Py_SIZE(items) - *at) ahead = Py_SIZE(items) - *at;
        for (Py_ssize_t i = 0; i < ahead; i++) {
            next[i] = listed ? PyList_GetItem(items, *at + i) : PyTuple_GetItem(items, *at + i);
            PREFETCH_WRITE(next[i]);
        }
        Py_ssize_t i = 0;
        for (; i < ahead && PyBytes_CheckExact(next[i]); i++) {
            block->kept[block->n_kept++] = Py_NewRef(next[i]);
            block->pieces[block->count++] =
                (Piece){(const uint8_t *)next[i] + block->header, (uint64_t)Py_SIZE(next[i])};
        }
        *at += i;
        if (i == ahead) {
            ahead = AHEAD;
            continue;
        }
        const int held = hold_view(block, next[i]);
        if (held <= 0) return held;
        ++*at;
        ahead = 1; /* the next is seldom bytes either */
    }
    return 1;
}

/* digest_items(algorithm: str, items: list or tuple, first: int, out: uint8[n][width])
 * -> the first item from there on that is no bytes-like object of one dimension, n when all are
 *    digested, -1 when it could not */
KERNEL(hashmem_digest_items) {
    (void)module;
    if (expect_arguments("digest_items", nargs, 4) < 0) return NULL;
    const Algorithm by = algorithm_of(args[0]);
    if (!by.width) return NULL;
    PyObject *items = args[1];
    if (!PyList_Check(items) && !PyTuple_Check(items)) {
        PyErr_SetString(PyExc_TypeError, "items must be a list or a tuple");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(args[2]);
    if (at == -1 && PyErr_Occurred()) return NULL;
    if (!by.digest) return PyLong_FromLong(-1);
    Py_buffer out;
    if (borrow(args[3], &out, WRITE, by.width, "out") < 0) {
        give_back(&out, 1);
        return NULL;
    }
    PyObject *answer = NULL;
    const Py_ssize_t n = Py_SIZE(items);
    Block block = {.room = n < OBJECTS ? n : OBJECTS};
    if (out.len / by.width != n || at < 0 || at > n) {
        PyErr_Format(PyExc_ValueError, "%zd items from %zd on and room for %zd digests", n, at,
                     out.len / by.width);
        goto done;
    }
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    if (!empty) goto done;
    block.header = (const char *)PyBytes_AsString(empty) - (const char *)empty;
    Py_DECREF(empty);
    block.pieces = PyMem_Malloc((size_t)block.room * sizeof *block.pieces + 1);
    block.kept = PyMem_Malloc((size_t)block.room * sizeof *block.kept + 1);
    if (!block.pieces || !block.kept) {
        PyErr_NoMemory();
        goto done;
    }
    int held = 1;
    while (held > 0 && at < n) {
        uint8_t *to = (uint8_t *)out.buf + at * by.width;
        held = fill(&block, items, &at);
        if (block.count) {
            Py_BEGIN_ALLOW_THREADS
            by.digest(block.pieces, block.count, to);
            Py_END_ALLOW_THREADS
        } else if (held > 0) { /* another thread took items out */
            PyErr_SetString(PyExc_RuntimeError, "items became fewer while they were digested");
            held = -1;
        }
        let_go(&block);
    }
    if (held >= 0) answer = PyLong_FromSsize_t(at);
done:
    PyMem_Free(block.pieces);
    PyMem_Free(block.kept);
    PyMem_Free(block.views);
    give_back(&out, 1);
    return answer;
}
