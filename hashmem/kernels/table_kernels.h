/* The kernels of a table, from their Python arguments down to its loops.
 *
 * Each kind of table includes this at its end, having defined `TABLE(operation)`, which names its
 * kernels, the struct `Table` with `borrowed`, `width`, `count` and `capacity`, and
 *
 *     int borrow_table(args, write, t)            the first six arguments: index, keys, digests,
 *                                                 values or nodes, width, count
 *     void find_all(t, queries, n, out, missing, width)
 *     Py_ssize_t insert_all(t, queries, n, values, new, how, width)       how many it came to
 *     Py_ssize_t delete_all(t, queries, n, out, holes, width)             how many it removed
 *     void move_all(t, from, to, n, width)
 *
 * hashmem.kernels.reference says what each answers. Building differs and stays with the kind.
 */

/* Borrow a batch of digests and `out`, one item of `item` bytes for each. */
static int borrow_batch(const Table *t, PyObject *queries, PyObject *out, Py_buffer *b,
                        Py_ssize_t item) {
    if (borrow(queries, &b[0], READ, (Py_ssize_t)t->width, "queries") < 0 ||
        borrow(out, &b[1], WRITE, item, "out") < 0)
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
    Py_buffer b[2] = {{0}};
    PyObject *answer = NULL;
    const int64_t missing = PyLong_AsLongLong(args[8]);
    if (missing == -1 && PyErr_Occurred()) return NULL;
    if (borrow_table(args, READ, &t) == 0 && borrow_batch(&t, args[6], args[7], b, 8) == 0) {
        Py_BEGIN_ALLOW_THREADS
        FOR_WIDTH(t.width, find_all(&t, b[0].buf, b[1].len / 8, b[1].buf, missing, W))
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    give_back(t.borrowed, 4);
    give_back(b, 2);
    return answer;
}

static PyObject *insert(PyObject *const *args, Insertion *how) {
    Table t;
    Py_buffer b[3] = {{0}};
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &t) < 0 || take_size(args[6], &how->room, "room") < 0 ||
        take_size(args[7], &how->limit, "limit") < 0 ||
        borrow_batch(&t, args[8], args[10], b, 1) < 0 ||
        borrow(args[9], &b[2], how->interning ? WRITE : READ, 8, "values of the batch") < 0 ||
        expect_bytes(&b[2], (uint64_t)b[1].len, 8, "values of the batch") < 0)
        goto done;
    if (how->room > t.capacity) how->room = t.capacity;
    Py_ssize_t processed = 0;
    Py_BEGIN_ALLOW_THREADS
    FOR_WIDTH(t.width,
              processed = insert_all(&t, b[0].buf, b[1].len, b[2].buf, b[1].buf, how, W))
    Py_END_ALLOW_THREADS
    answer = Py_BuildValue("nKK", processed, (unsigned long long)t.count,
                           (unsigned long long)how->longest);
done:
    give_back(t.borrowed, 4);
    give_back(b, 3);
    return answer;
}

/* insert(table…, room, limit, queries: uint8[n][width], values: int64[n], new: bool[n])
 *     -> (processed, count, longest) */
KERNEL(TABLE(insert)) {
    (void)module;
    if (expect_arguments("insert", nargs, 11) < 0) return NULL;
    Insertion how = {0};
    return insert(args, &how);
}

/* intern(…as insert, but values is written; offset) -> (processed, count, longest) */
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
    Py_buffer b[3] = {{0}};
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &t) == 0 && borrow_batch(&t, args[6], args[7], b, 1) == 0 &&
        borrow(args[8], &b[2], WRITE, 8, "holes") == 0 &&
        expect_bytes(&b[2], (uint64_t)b[1].len, 8, "holes") == 0) {
        Py_ssize_t removed = 0;
        Py_BEGIN_ALLOW_THREADS
        FOR_WIDTH(t.width,
                  removed = delete_all(&t, b[0].buf, b[1].len, b[1].buf, b[2].buf, W))
        Py_END_ALLOW_THREADS
        answer = PyLong_FromSsize_t(removed);
    }
    give_back(t.borrowed, 4);
    give_back(b, 3);
    return answer;
}

/* move(table…, sources: int64[n], targets: int64[n]) */
KERNEL(TABLE(move)) {
    (void)module;
    if (expect_arguments("move", nargs, 8) < 0) return NULL;
    Table t;
    Py_buffer b[2] = {{0}};
    PyObject *answer = NULL;
    if (borrow_table(args, WRITE, &t) == 0 && borrow(args[6], &b[0], READ, 8, "sources") == 0 &&
        borrow(args[7], &b[1], READ, 8, "targets") == 0 &&
        expect_bytes(&b[1], (uint64_t)b[0].len / 8, 8, "targets") == 0) {
        Py_BEGIN_ALLOW_THREADS
        FOR_WIDTH(t.width, move_all(&t, b[0].buf, b[1].buf, b[0].len / 8, W))
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    give_back(t.borrowed, 4);
    give_back(b, 2);
    return answer;
}
