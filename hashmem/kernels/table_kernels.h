/* The kernels of a table, from their Python arguments down to its loops.
 *
 * Each kind of table includes this at its end, having defined `TABLE(operation)`, which names its
 * kernels, its `LAYOUT`, and
 *
 *     void find_all(t, queries, n, out, missing, width)
 *     int find_one(t, digest, value, width)                               whether it is there
 *     Py_ssize_t insert_all(t, queries, n, values, new, how, width)       how many it came to
 *     Py_ssize_t delete_all(t, queries, n, out, holes, width)             how many it removed
 *     uint64_t build_all(t, limit, width)                                 how many it placed
 *     void move_all(t, from, to, n, width)
 *     int fits(t)                                                         whether all can be placed
 *
 * Where HEADER is 0, entries are digests that nobody writes: there is no insert, delete or move.
 *
 * hashmem.kernels.reference says what each answers.
 */

#define TABLE_BUFFERS 3

/* Borrow a batch of digests and `out`, one item of `item` bytes for each. */
static int borrow_batch(const Table *t, PyObject *queries, PyObject *out, Py_buffer *b,
                        Py_ssize_t item) {
    if (borrow(queries, &b[0], READ, (Py_ssize_t)t->width, "queries") < 0 ||
        borrow_numbers(out, &b[1], WRITE, item, "out") < 0)
        return -1;
    if (b[0].len / (Py_ssize_t)t->width == b[1].len / item) return 0;
    PyErr_Format(PyExc_ValueError, "out holds %zd items for %zd digests", b[1].len / item,
                 b[0].len / (Py_ssize_t)t->width);
    return -1;
}

/* find(table…, queries: uint8[n][width], out: int64[n], missing) */
KERNEL(TABLE(find)) {
    (void)module;
    if (expect_arguments("find", nargs, 9) < 0) return NULL;
    Table t;
    Py_buffer b[TABLE_BUFFERS + 2] = {{0}}, *batch = b + TABLE_BUFFERS;
    PyObject *answer = NULL;
    const int64_t missing = PyLong_AsLongLong(args[8]);
    if (missing == -1 && PyErr_Occurred()) return NULL;
    if (borrow_table(args, READ, &LAYOUT, &t) == 0 &&
        borrow_batch(&t, args[6], args[7], batch, 8) == 0) {
        memcpy(b, t.borrowed, sizeof t.borrowed); /* only to compare with */
        if (expect_apart(b, TABLE_BUFFERS + 2, 1u << 4) == 0) {
            Py_BEGIN_ALLOW_THREADS
            FOR_WIDTH(t.width, find_all(&t, batch[0].buf, batch[1].len / 8, batch[1].buf, missing, W))
            Py_END_ALLOW_THREADS
            answer = Py_NewRef(Py_None);
        }
    }
    give_back(t.borrowed, TABLE_BUFFERS);
    give_back(batch, 2);
    return answer;
}

/* build(table…, limit) -> placed */
KERNEL(TABLE(build)) {
    (void)module;
    if (expect_arguments("build", nargs, 7) < 0) return NULL;
    Table t;
    uint64_t limit;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &LAYOUT, &t) == 0 && take_size(args[6], &limit, "limit") == 0) {
        uint64_t placed = 0;
        if (!fits(&t)) {
            PyErr_Format(PyExc_ValueError, "%s do not hold that many entries", LAYOUT.index);
        } else {
            Py_BEGIN_ALLOW_THREADS
            FOR_WIDTH(t.width, placed = build_all(&t, limit, W))
            Py_END_ALLOW_THREADS
            answer = PyLong_FromUnsignedLongLong(placed);
        }
    }
    give_back(t.borrowed, TABLE_BUFFERS);
    return answer;
}

#if HEADER

static PyObject *insert(PyObject *const *args, Insertion *how) {
    Table t;
    Py_buffer b[TABLE_BUFFERS + 3] = {{0}}, *batch = b + TABLE_BUFFERS;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &LAYOUT, &t) < 0 || take_size(args[6], &how->room, "room") < 0 ||
        take_size(args[7], &how->limit, "limit") < 0 ||
        borrow_batch(&t, args[8], args[10], batch, 1) < 0 ||
        borrow_numbers(args[9], &batch[2], how->interning ? WRITE : READ, 8,
                       "values of the batch") < 0 ||
        expect_bytes(&batch[2], (uint64_t)batch[1].len, 8, "values of the batch") < 0)
        goto done;
    memcpy(b, t.borrowed, sizeof t.borrowed); /* only to compare with */
    if (expect_apart(b, TABLE_BUFFERS + 3, 1 | 4 | 16 | (how->interning ? 32 : 0)) < 0) goto done;
    if (how->room > t.capacity) how->room = t.capacity;
    Py_ssize_t processed = 0;
    Py_BEGIN_ALLOW_THREADS
    FOR_WIDTH(t.width, processed = insert_all(&t, batch[0].buf, batch[1].len, batch[2].buf,
                                              batch[1].buf, how, W))
    Py_END_ALLOW_THREADS
    answer = Py_BuildValue("nKK", processed, (unsigned long long)t.count,
                           (unsigned long long)how->mismatches);
done:
    give_back(t.borrowed, TABLE_BUFFERS);
    give_back(batch, 3);
    return answer;
}

/* insert(table…, room, limit, queries: uint8[n][width], values: int64[n], new: bool[n], keep)
 *     -> (processed, count, mismatches) */
KERNEL(TABLE(insert)) {
    (void)module;
    if (expect_arguments("insert", nargs, 12) < 0) return NULL;
    Insertion how = {.keep = PyObject_IsTrue(args[11])};
    if (how.keep < 0) return NULL;
    return insert(args, &how);
}

/* intern(…as insert, but values is written; offset instead of keep) */
KERNEL(TABLE(intern)) {
    (void)module;
    if (expect_arguments("intern", nargs, 12) < 0) return NULL;
    Insertion how = {.interning = 1, .offset = PyLong_AsLongLong(args[11])};
    if (how.offset == -1 && PyErr_Occurred()) return NULL;
    return insert(args, &how);
}

/* delete(table…, queries: uint8[n][width], out: bool[n], holes: int64[n]) -> removed */
KERNEL(TABLE(delete)) {
    (void)module;
    if (expect_arguments("delete", nargs, 9) < 0) return NULL;
    Table t;
    Py_buffer b[TABLE_BUFFERS + 3] = {{0}}, *batch = b + TABLE_BUFFERS;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &LAYOUT, &t) == 0 &&
        borrow_batch(&t, args[6], args[7], batch, 1) == 0 &&
        borrow_numbers(args[8], &batch[2], WRITE, 8, "holes") == 0 &&
        expect_bytes(&batch[2], (uint64_t)batch[1].len, 8, "holes") == 0) {
        memcpy(b, t.borrowed, sizeof t.borrowed); /* only to compare with */
        if (expect_apart(b, TABLE_BUFFERS + 3, 1 | 4 | 16 | 32) == 0) {
            Py_ssize_t removed = 0;
            Py_BEGIN_ALLOW_THREADS
            FOR_WIDTH(t.width, removed = delete_all(&t, batch[0].buf, batch[1].len, batch[1].buf,
                                                    batch[2].buf, W))
            Py_END_ALLOW_THREADS
            answer = PyLong_FromSsize_t(removed);
        }
    }
    give_back(t.borrowed, TABLE_BUFFERS);
    give_back(batch, 3);
    return answer;
}

/* move(table…, sources: int64[n], targets: int64[n]) */
KERNEL(TABLE(move)) {
    (void)module;
    if (expect_arguments("move", nargs, 8) < 0) return NULL;
    Table t;
    Py_buffer b[TABLE_BUFFERS + 2] = {{0}}, *batch = b + TABLE_BUFFERS;
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &LAYOUT, &t) == 0 &&
        borrow_numbers(args[6], &batch[0], READ, 8, "sources") == 0 &&
        borrow_numbers(args[7], &batch[1], READ, 8, "targets") == 0 &&
        expect_bytes(&batch[1], (uint64_t)batch[0].len / 8, 8, "targets") == 0) {
        memcpy(b, t.borrowed, sizeof t.borrowed); /* only to compare with */
        if (expect_apart(b, TABLE_BUFFERS + 2, 1 | 4) == 0) {
            Py_BEGIN_ALLOW_THREADS
            FOR_WIDTH(t.width, move_all(&t, batch[0].buf, batch[1].buf, batch[0].len / 8, W))
            Py_END_ALLOW_THREADS
            answer = Py_NewRef(Py_None);
        }
    }
    give_back(t.borrowed, TABLE_BUFFERS);
    give_back(batch, 2);
    return answer;
}

#endif

/* A table held for searches of one digest each, in a capsule: no buffers to borrow each time. */
static const char CAPSULE[] = "hashmem.kernels.table";

static void drop(PyObject *capsule) {
    Table *t = PyCapsule_GetPointer(capsule, CAPSULE);
    if (!t) return;
    give_back(t->borrowed, TABLE_BUFFERS);
    PyMem_Free(t);
}

static PyObject *look(PyObject *capsule, PyObject *digest) {
    const Table *t = PyCapsule_GetPointer(capsule, CAPSULE);
    if (!t) return NULL;
    if (UNLIKELY(!t->entries)) {
        PyErr_SetString(PyExc_BufferError, "the lookup has been closed");
        return NULL;
    }
    char *bytes;
    Py_ssize_t size;
    if (UNLIKELY(PyBytes_AsStringAndSize(digest, &bytes, &size) < 0)) return NULL;
    if (UNLIKELY((size_t)size != t->width)) {
        PyErr_Format(PyExc_ValueError, "a digest must be %zd bytes for this table, got %zd",
                     (Py_ssize_t)t->width, size);
        return NULL;
    }
    int64_t value = 0;
    int there = 0;
    FOR_WIDTH(t->width, there = find_one(t, (const uint8_t *)bytes, &value, W))
    return there ? PyLong_FromLongLong(value) : Py_NewRef(Py_None);
}

static PyObject *close_lookup(PyObject *capsule, PyObject *nothing) {
    (void)nothing;
    Table *t = PyCapsule_GetPointer(capsule, CAPSULE);
    if (!t) return NULL;
    give_back(t->borrowed, TABLE_BUFFERS);
    memset(t, 0, sizeof *t);
    return Py_NewRef(Py_None);
}

static PyMethodDef look_method = {"look", look, METH_O, NULL};
static PyMethodDef close_method = {"close", close_lookup, METH_NOARGS, NULL};

/* lookup(table…) -> (look, close): look(digest) -> its value or None, until close() is called */
KERNEL(TABLE(lookup)) {
    (void)module;
    if (expect_arguments("lookup", nargs, TABLE_ARGUMENTS) < 0) return NULL;
    Table *t = PyMem_Malloc(sizeof *t);
    if (!t) return PyErr_NoMemory();
    PyObject *capsule = NULL, *functions[2] = {NULL, NULL}, *answer = NULL;
    if (borrow_table(args, READ, &LAYOUT, t) == 0) capsule = PyCapsule_New(t, CAPSULE, drop);
    if (!capsule) {
        give_back(t->borrowed, TABLE_BUFFERS);
        PyMem_Free(t);
        return NULL;
    }
    functions[0] = PyCFunction_New(&look_method, capsule);
    functions[1] = PyCFunction_New(&close_method, capsule);
    if (functions[0] && functions[1]) answer = PyTuple_Pack(2, functions[0], functions[1]);
    Py_XDECREF(functions[0]);
    Py_XDECREF(functions[1]);
    Py_DECREF(capsule);
    return answer;
}
