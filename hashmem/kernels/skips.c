/* Any number of hops at once: the level-ancestor problem on the graph of successors.
 *
 * Rows are laid out so that a path of the graph lies in one piece (skips_build.h): `order` holds the
 * rows, a row's node says which path it is on and how deep, a path says where it lies and which path
 * it leads to. n hops from a row of depth d lead to depth d - n: change paths until one comes so near
 * to the root, then read its position (skips_query.h). On a cycle positions count modulo its length.
 *
 *     nodes  INT[rows][2]   depth, path
 *     order  INT[rows]      row at each position; along a path, depth and position rise together
 *     paths  INT[count][3]  base, head, up; for cycles base, LOWEST, length
 *
 * INT is 4 or 8 bytes. A cycle's rows have depths -CYCLIC, -CYCLIC - 1, … in the order of hops, their
 * places falling from `base` on; what hangs off a row counts up from its depth. So negative depths
 * tell those that will never come to an end.
 *
 * Links that change afterwards are marked: a node's path becomes CHANGED, and its position gets a bit
 * in `marks`, whose upper levels have a bit for each word below that is not zero, the last level
 * being one word. No marks at all say that nothing has changed.
 *
 * Threads: any number may skip while nobody marks.
 */
#include "kernels.h"

#define NONE (-1)
#define CHANGED (-2)
#define DONE (-1)
#define NOWHERE UINT64_MAX
#define LOOK 16                 /* how far sweeps look ahead */
#define NARROW 8                /* walks that overlap too little to go on like that */
#define AHEAD 16                /* hops that a walk alone looks ahead, */
#define LONGEST_LOOK 4096       /* where it was seen by one that took that many at most */
#define BLOCK 256               /* starts that are answered together */
#define MOST_PATHS 64           /* a damaged index may lead around forever */
#define MOST_LEVELS 10          /* 64^10 positions are more than fit into memory */
#define FAR ((int64_t)1 << 61)  /* more hops than any path has; sums with depths stay in range */
#define IS_SPLITTER(row) (((uint64_t)(row) * UINT64_C(0x9e3779b97f4a7c15)) >> 58 == 0)

typedef struct {
    uint64_t *words[MOST_LEVELS], sizes[MOST_LEVELS];
    int levels; /* 0 without any marks */
} Marks;

/* Lay out the levels of marks for `positions` over `words`; how many words that takes. */
static uint64_t lay_out(Marks *marks, uint64_t *words, uint64_t positions) {
    uint64_t taken = 0, size = positions;
    marks->levels = 0;
    do {
        size = size / 64 + (size % 64 != 0);
        if (!size) size = 1;
        marks->words[marks->levels] = words + taken;
        marks->sizes[marks->levels++] = size;
        taken += size;
    } while (size > 1);
    return taken;
}

static void set_mark(const Marks *marks, uint64_t at) {
    for (int level = 0; level < marks->levels; level++, at /= 64)
        marks->words[level][at / 64] |= UINT64_C(1) << at % 64;
}

ALWAYS_INLINE uint64_t highest_bit(uint64_t word) {
#if defined(__GNUC__) || defined(__clang__)
    return 63 - (uint64_t)__builtin_clzll(word);
#else
    uint64_t bit = 0;
    while (word >>= 1) bit++;
    return bit;
#endif
}

/* Whether any row of the index leads elsewhere by now, and not only rows that are newer. */
static int any_mark(const Marks *marks) { return marks->words[marks->levels - 1][0] != 0; }

/* The highest mark among `at` and the `reach` positions below it, or NOWHERE. */
static uint64_t last_mark(const Marks *marks, uint64_t at, uint64_t reach) {
    const uint64_t lowest = reach < at ? at - reach : 0;
    if (!any_mark(marks)) return NOWHERE;
    uint64_t upto = at; /* of the level's bits, this one and those below are of interest */
    for (int level = 0; level < marks->levels && upto / 64 < marks->sizes[level]; level++) {
        uint64_t word = marks->words[level][upto / 64] & UINT64_MAX >> (63 - upto % 64);
        if (word) {
            uint64_t found = upto / 64 * 64 + highest_bit(word);
            while (level-- > 0) {
                if (found >= marks->sizes[level]) return NOWHERE; /* damaged, and so below */
                word = marks->words[level][found];
                if (!word) return NOWHERE;
                found = found * 64 + highest_bit(word);
            }
            return found >= lowest ? found : NOWHERE;
        }
        upto /= 64;
        if (upto-- == 0 || lowest >> (6 * (level + 1)) > upto) break;
    }
    return NOWHERE;
}

#define INT int32_t
#define UINT uint32_t
#define CYCLIC ((INT)1 << 30)
#define NAME(x) x##_4
#include "skips_width.h"

#define INT int64_t
#define UINT uint64_t
#define CYCLIC ((INT)1 << 62)
#define NAME(x) x##_8
#include "skips_width.h"

static int expect_count(const Py_buffer *b, Py_ssize_t bytes, const char *name) {
    if (b->len != bytes) {
        PyErr_Format(PyExc_ValueError, "%s must have %zd bytes, not %zd", name, bytes, b->len);
        return -1;
    }
    if (!b->len || (uintptr_t)b->buf % 8 == 0) return 0; /* for INT of 4 bytes too */
    PyErr_Format(PyExc_ValueError, "%s must begin at a multiple of 8 bytes in memory", name);
    return -1;
}

/* The width, 4 or 8, that `rows` rows may have; -1 with an exception set. */
static int take_width(PyObject *object, Py_ssize_t rows) {
    const long width = PyLong_AsLong(object);
    if (width == -1 && PyErr_Occurred()) return -1;
    if (width == 8 || (width == 4 && rows < (Py_ssize_t)1 << 30)) return (int)width;
    PyErr_Format(PyExc_ValueError, "width must be 8, or 4 below 2^30 rows, got %ld for %zd rows",
                 width, rows);
    return -1;
}

/* skip_build(width, successors: int64[rows], nodes: INT[rows][2], order: INT[rows],
 *            paths: INT[rows][3], scratch: INT[rows][8]) → how many paths there are */
KERNEL(hashmem_skip_build) {
    (void)module;
    if (expect_arguments("skip_build", nargs, 6) < 0) return NULL;
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    int64_t count;
    if (borrow_numbers(args[1], &b[0], READ, 8, "successors") < 0 ||
        borrow(args[2], &b[1], WRITE, 1, "nodes") < 0 ||
        borrow(args[3], &b[2], WRITE, 1, "order") < 0 ||
        borrow(args[4], &b[3], WRITE, 1, "paths") < 0 ||
        borrow(args[5], &b[4], WRITE, 1, "scratch") < 0)
        goto end;
    const Py_ssize_t rows = b[0].len / 8;
    const int width = take_width(args[0], rows);
    if (width < 0 || expect_count(&b[1], rows * width * 2, "nodes") < 0 ||
        expect_count(&b[2], rows * width, "order") < 0 ||
        expect_count(&b[3], rows * width * 3, "paths") < 0 ||
        expect_count(&b[4], rows * width * 8, "scratch") < 0)
        goto end;
    for (int i = 0; i < 5; i++)
        for (int j = 1; j < i; j++)
            if (overlap(&b[i], &b[j])) {
                PyErr_SetString(PyExc_ValueError, "the buffers to write must not overlap");
                goto end;
            }

    Py_BEGIN_ALLOW_THREADS
    if (width == 4)
        count = build_4(b[0].buf, (int32_t)rows, b[1].buf, b[2].buf, b[3].buf, b[4].buf);
    else
        count = build_8(b[0].buf, rows, b[1].buf, b[2].buf, b[3].buf, b[4].buf);
    Py_END_ALLOW_THREADS

    answer = PyLong_FromLongLong(count);
end:
    give_back(b, 5);
    return answer;
}

/* What skip and skip_mark have in common: nodes, order, paths and marks, all of one width. */
typedef struct {
    int width;
    uint64_t built, count;
    Marks marks;
} Sizes;

static int borrow_index(PyObject *const *args, int write, Py_buffer *b, Sizes *sizes) {
    if (borrow(args[0], &b[0], write, 1, "nodes") < 0 ||
        borrow(args[1], &b[1], READ, 1, "order") < 0 ||
        borrow(args[2], &b[2], READ, 1, "paths") < 0 ||
        borrow_numbers(args[3], &b[3], write, 8, "marks") < 0)
        return -1;
    const Py_ssize_t width = sizes->width, built = b[1].len / width;
    sizes->built = (uint64_t)built;
    sizes->count = (uint64_t)(b[2].len / (3 * width));
    sizes->marks.levels = 0;
    if (expect_count(&b[0], 2 * built * width, "nodes") < 0 ||
        expect_count(&b[1], built * width, "order") < 0 ||
        expect_count(&b[2], (Py_ssize_t)sizes->count * 3 * width, "paths") < 0)
        return -1;
    if (!b[3].len && !write) return 0;
    const uint64_t words = lay_out(&sizes->marks, b[3].buf, sizes->built);
    return expect_count(&b[3], (Py_ssize_t)words * 8, "marks");
}

/* skip(width, nodes: INT[built][2], order: INT[built], paths: INT[count][3], marks: uint64[] or
 *      empty, successors: int64[rows], starts: int64[m], hops: int64[m] or [1], budget,
 *      out: int64[m]) → how many changed links were followed; above `budget` it gave up */
KERNEL(hashmem_skip) {
    (void)module;
    if (expect_arguments("skip", nargs, 10) < 0) return NULL;
    Py_buffer b[8] = {{0}};
    PyObject *answer = NULL;
    Sizes s;
    int64_t followed = 0;
    const long long budget = PyLong_AsLongLong(args[8]);
    if (budget == -1 && PyErr_Occurred()) return NULL;
    if (borrow_numbers(args[5], &b[4], READ, 8, "successors") < 0 ||
        borrow_numbers(args[6], &b[5], READ, 8, "starts") < 0 ||
        borrow_numbers(args[7], &b[6], READ, 8, "hops") < 0 || borrow_numbers(args[9], &b[7], WRITE, 8, "out") < 0)
        goto end;
    s.width = take_width(args[0], 0);
    if (s.width < 0 || borrow_index(&args[1], READ, b, &s) < 0 ||
        expect_count(&b[7], b[5].len, "out") < 0 ||
        (b[6].len != 8 && expect_count(&b[6], b[5].len, "hops") < 0))
        goto end;
    for (int i = 0; i < 7; i++)
        if (overlap(&b[i], &b[7])) {
            PyErr_SetString(PyExc_ValueError, "out must not overlap what is read");
            goto end;
        }
    const int stride = b[6].len != 8;
    const Py_ssize_t m = b[5].len / 8;
    const uint64_t rows = (uint64_t)b[4].len / 8;

    Py_BEGIN_ALLOW_THREADS
    if (s.width == 4) {
        const Index_4 x = {b[4].buf, b[0].buf, b[1].buf, b[2].buf, s.marks, rows, s.built, s.count};
        followed = skip_4(&x, b[5].buf, b[6].buf, stride, m, b[7].buf, budget);
    } else {
        const Index_8 x = {b[4].buf, b[0].buf, b[1].buf, b[2].buf, s.marks, rows, s.built, s.count};
        followed = skip_8(&x, b[5].buf, b[6].buf, stride, m, b[7].buf, budget);
    }
    Py_END_ALLOW_THREADS

    answer = PyLong_FromLongLong(followed);
end:
    give_back(b, 8);
    return answer;
}

/* skip_mark(width, nodes: INT[built][2], order: INT[built], paths: INT[count][3], marks: uint64[],
 *           sources: int64[m]) */
KERNEL(hashmem_skip_mark) {
    (void)module;
    if (expect_arguments("skip_mark", nargs, 6) < 0) return NULL;
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    Sizes s;
    if (borrow_numbers(args[5], &b[4], READ, 8, "sources") < 0) goto end;
    s.width = take_width(args[0], 0);
    if (s.width < 0 || borrow_index(&args[1], WRITE, b, &s) < 0) goto end;

    Py_BEGIN_ALLOW_THREADS
    if (s.width == 4) {
        const Index_4 x = {NULL, b[0].buf, b[1].buf, b[2].buf, s.marks, 0, s.built, s.count};
        mark_4(&x, b[4].buf, b[4].len / 8);
    } else {
        const Index_8 x = {NULL, b[0].buf, b[1].buf, b[2].buf, s.marks, 0, s.built, s.count};
        mark_8(&x, b[4].buf, b[4].len / 8);
    }
    Py_END_ALLOW_THREADS

    answer = Py_NewRef(Py_None);
end:
    give_back(b, 5);
    return answer;
}
