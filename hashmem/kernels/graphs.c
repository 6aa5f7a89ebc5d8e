/* Searches over rows with any number of edges each, in compressed sparse row (CSR) form.
 *
 * A search keeps the rows it found in one array, in the order found: what lies between two places
 * of it is a level, so the array is its own queue. A bit a row tells which were found. Offsets and
 * targets are looked at only where a search comes to them: an offset that lies is an error, a
 * target that is no row is passed over.
 */
#include "kernels.h"

#include <stdlib.h>

#define AHEAD 8 /* rows of the queue whose edges are asked for before they are followed */

typedef struct {
    const int64_t *offsets, *targets;
    uint64_t rows, edges;
} Graph;

typedef struct {
    Graph graph;
    uint64_t *marks; /* a bit a row */
    int64_t *found;
    int64_t *origins; /* for each place in `found`, the place it was found from; or NULL */
    int64_t count, room, level; /* found from `level` on: the frontier */
} Search;

enum { DONE, FULL, MET, LIES, NO_MEMORY };

ALWAYS_INLINE int marked(const uint64_t *marks, uint64_t row) {
    return marks[row >> 6] >> (row & 63) & 1;
}

ALWAYS_INLINE void mark(uint64_t *marks, uint64_t row) {
    marks[row >> 6] |= (uint64_t)1 << (row & 63);
}

static uint64_t *new_marks(uint64_t rows) { return calloc((size_t)(rows / 64 + 1), 8); }

/* Whether the edges of a row lie within the targets. */
ALWAYS_INLINE int edges_of(const Graph *g, uint64_t row, int64_t *from, int64_t *to) {
    *from = g->offsets[row], *to = g->offsets[row + 1];
    return *from >= 0 && *from <= *to && (uint64_t)*to <= g->edges;
}

ALWAYS_INLINE void ask_for_edges(const Search *s, int64_t place, int64_t end) {
    const Graph *g = &s->graph;
    if (place + 2 * AHEAD >= end) return;
    const uint64_t later = (uint64_t)s->found[place + 2 * AHEAD];
    const uint64_t soon = (uint64_t)s->found[place + AHEAD];
    if (later < g->rows) PREFETCH(&g->offsets[later]);
    if (soon >= g->rows) return;
    const uint64_t from = (uint64_t)g->offsets[soon];
    if (from < g->edges) PREFETCH(&g->targets[from]);
}

static int make_room(Search *s) {
    const size_t room = (size_t)s->room * 2 + 64;
    int64_t *found = realloc(s->found, room * 8);
    if (found) s->found = found;
    int64_t *origins = realloc(s->origins, room * 8);
    if (origins) s->origins = origins;
    if (!found || !origins) return 0;
    s->room = (int64_t)room;
    return 1;
}

/* Take the search one level on. FULL as soon as no room is left; MET as soon as a row is found that
 * is among `others`; LIES at a row whose offsets do, which `*liar` is then. */
ALWAYS_INLINE int expand(Search *s, const uint64_t *others, int64_t *liar) {
    const Graph *g = &s->graph;
    const int64_t end = s->count;
    for (int64_t place = s->level; place < end; place++) {
        ask_for_edges(s, place, end);
        const uint64_t row = (uint64_t)s->found[place];
        int64_t from, to;
        if (UNLIKELY(row >= g->rows || !edges_of(g, row, &from, &to))) {
            *liar = (int64_t)row;
            return LIES;
        }
        for (int64_t edge = from; edge < to; edge++) {
            const uint64_t target = (uint64_t)g->targets[edge];
            if (target >= g->rows || marked(s->marks, target)) continue;
            mark(s->marks, target);
            if (others && s->count == s->room && !make_room(s)) return NO_MEMORY;
            s->found[s->count] = (int64_t)target;
            if (others) s->origins[s->count] = place;
            s->count++;
            if (others && marked(others, target)) return MET;
            if (!others && s->count == s->room) return FULL;
        }
    }
    s->level = end;
    return DONE;
}

static int refuse(int outcome, int64_t liar) {
    if (outcome == NO_MEMORY) PyErr_NoMemory();
    if (outcome == LIES)
        PyErr_Format(PyExc_ValueError, "the offsets of row %lld do not lie within the targets",
                     (long long)liar);
    return outcome == NO_MEMORY || outcome == LIES ? -1 : 0;
}

static int borrow_graph(PyObject *const *args, Py_buffer *b, Graph *graph) {
    if (borrow_numbers(args[0], &b[0], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[1], &b[1], READ, 8, "targets") < 0)
        return -1;
    if (b[0].len < 8) {
        PyErr_SetString(PyExc_ValueError, "offsets must hold one number more than there are rows");
        return -1;
    }
    *graph = (Graph){b[0].buf, b[1].buf, (uint64_t)(b[0].len / 8) - 1, (uint64_t)(b[1].len / 8)};
    return 0;
}

/* frontier(offsets: int64[rows + 1], targets: int64[edges], starts: int64[m], depth: int,
 *          found: int64[room], ends: int64[levels]) -> levels used */
KERNEL(hashmem_frontier) {
    (void)module;
    if (expect_arguments("frontier", nargs, 6) < 0) return NULL;
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    Search s = {0};
    const long long depth = PyLong_AsLongLong(args[3]);
    if (depth == -1 && PyErr_Occurred()) return NULL;
    if (borrow_graph(args, b, &s.graph) < 0 || borrow_numbers(args[2], &b[2], READ, 8, "starts") < 0 ||
        borrow_numbers(args[4], &b[3], WRITE, 8, "found") < 0 ||
        borrow_numbers(args[5], &b[4], WRITE, 8, "ends") < 0)
        goto done;
    const int64_t *starts = b[2].buf, n_starts = b[2].len / 8, most = b[4].len / 8;
    int64_t *ends = b[4].buf, levels = 0, liar = 0;
    if (most < 1) {
        PyErr_SetString(PyExc_ValueError, "ends must hold at least one number");
        goto done;
    }
    s.found = b[3].buf, s.room = b[3].len / 8;
    int outcome = DONE;
    Py_BEGIN_ALLOW_THREADS
    if (!(s.marks = new_marks(s.graph.rows))) outcome = NO_MEMORY;
    if (!s.room) outcome = FULL;
    for (int64_t i = 0; i < n_starts && outcome == DONE; i++) {
        const uint64_t row = (uint64_t)starts[i];
        if (row >= s.graph.rows || marked(s.marks, row)) continue;
        mark(s.marks, row);
        s.found[s.count++] = (int64_t)row;
        if (s.count == s.room) outcome = FULL;
    }
    ends[levels++] = s.count;
    while (outcome == DONE && levels <= depth && levels < most && s.level < s.count) {
        outcome = expand(&s, NULL, &liar);
        if (s.count > ends[levels - 1]) ends[levels++] = s.count;
    }
    free(s.marks);
    Py_END_ALLOW_THREADS
    if (refuse(outcome, liar) == 0) answer = PyLong_FromLongLong(levels);
done:
    give_back(b, 5);
    return answer;
}

static int begin(Search *s, const Graph *graph, int64_t row) {
    s->graph = *graph;
    s->marks = new_marks(graph->rows);
    if (!s->marks || !make_room(s)) return NO_MEMORY;
    mark(s->marks, (uint64_t)row);
    s->found[0] = row, s->origins[0] = -1, s->count = 1;
    return DONE;
}

/* The place of `s` that holds `row`: in its last level, if one graph is the other's reverse. */
static int64_t place_of(const Search *s, int64_t row) {
    int64_t place = s->count - 1;
    while (place > 0 && s->found[place] != row) place--;
    return place;
}

/* Two searches, one from each end, the smaller frontier first; DONE where they cannot meet within
 * `limit` levels. */
static int meet(Search *forth, Search *back, long long limit, int64_t *liar) {
    int outcome = DONE;
    for (long long step = 0; step < limit && outcome == DONE; step++) {
        const int64_t ahead = forth->count - forth->level, behind = back->count - back->level;
        if (!ahead || !behind) return DONE;
        outcome = ahead <= behind ? expand(forth, back->marks, liar)
                                  : expand(back, forth->marks, liar);
    }
    return outcome;
}

/* Write the chain through the row where two searches met; its length, or -1 beyond the room. */
static int64_t write_chain(const Search *forth, const Search *back, int64_t *out, int64_t room) {
    const int64_t last = forth->found[forth->count - 1];
    const int forth_came = marked(back->marks, (uint64_t)last);
    const int64_t row = forth_came ? last : back->found[back->count - 1];
    const int64_t here = forth_came ? forth->count - 1 : place_of(forth, row);
    const int64_t there = forth_came ? place_of(back, row) : back->count - 1;
    int64_t length = 0;
    for (int64_t at = here; at >= 0; at = forth->origins[at]) length++;
    int64_t total = length;
    for (int64_t at = back->origins[there]; at >= 0; at = back->origins[at]) total++;
    if (total > room) return -1;
    int64_t to = length;
    for (int64_t at = here; at >= 0; at = forth->origins[at]) out[--to] = forth->found[at];
    for (int64_t at = back->origins[there]; at >= 0; at = back->origins[at])
        out[length++] = back->found[at];
    return total;
}

/* shortest(offsets: int64[rows + 1], targets: int64[edges], back_offsets: int64[rows + 1],
 *          back_targets: int64[...], start: int, end: int, limit: int, out: int64[room]) -> length */
KERNEL(hashmem_shortest) {
    (void)module;
    if (expect_arguments("shortest", nargs, 8) < 0) return NULL;
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    Graph graph, reverse;
    const long long start = PyLong_AsLongLong(args[4]);
    if (start == -1 && PyErr_Occurred()) return NULL;
    const long long end = PyLong_AsLongLong(args[5]);
    if (end == -1 && PyErr_Occurred()) return NULL;
    const long long limit = PyLong_AsLongLong(args[6]);
    if (limit == -1 && PyErr_Occurred()) return NULL;
    if (borrow_graph(args, b, &graph) < 0 || borrow_graph(args + 2, b + 2, &reverse) < 0 ||
        borrow_numbers(args[7], &b[4], WRITE, 8, "out") < 0)
        goto done;
    if (graph.rows != reverse.rows) {
        PyErr_SetString(PyExc_ValueError, "the reverse has another number of rows");
        goto done;
    }
    if ((uint64_t)start >= graph.rows || (uint64_t)end >= graph.rows || start == end) {
        PyErr_SetString(PyExc_ValueError, "start and end must be two rows");
        goto done;
    }
    Search forth = {0}, back = {0};
    int64_t length = 0, liar = 0;
    int outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = begin(&forth, &graph, start) || begin(&back, &reverse, end) ? NO_MEMORY : DONE;
    if (outcome == DONE) outcome = meet(&forth, &back, limit, &liar);
    if (outcome == MET) length = write_chain(&forth, &back, b[4].buf, b[4].len / 8);
    free(forth.marks), free(forth.found), free(forth.origins);
    free(back.marks), free(back.found), free(back.origins);
    Py_END_ALLOW_THREADS
    if (refuse(outcome, liar) < 0) goto done;
    if (length < 0)
        PyErr_SetString(PyExc_ValueError, "out is shorter than the chain");
    else
        answer = PyLong_FromLongLong(length);
done:
    give_back(b, 5);
    return answer;
}

/* Count the edges that lead to each row, then deal them out: a counting sort by target. The row
 * whose offsets lie, or -1. */
static int64_t turn_round(const Graph *g, int64_t *offsets, int64_t *sources, int64_t room,
                          int64_t *written) {
    const int64_t n = (int64_t)g->rows;
    memset(offsets, 0, (size_t)(n + 1) * 8);
    for (int64_t row = 0; row < n; row++) {
        int64_t from, to;
        if (!edges_of(g, (uint64_t)row, &from, &to)) return row;
        for (int64_t edge = from; edge < to; edge++) {
            const uint64_t target = (uint64_t)g->targets[edge];
            if ((uint64_t)edge + GROUP < g->edges && (uint64_t)g->targets[edge + GROUP] < g->rows)
                PREFETCH_WRITE(&offsets[g->targets[edge + GROUP]]);
            if (target < g->rows) offsets[target]++;
        }
    }
    int64_t total = 0;
    for (int64_t row = 0; row <= n; row++) {
        const int64_t here = offsets[row];
        offsets[row] = total;
        total += here;
    }
    for (int64_t row = 0; row < n; row++) {
        int64_t from, to;
        if (!edges_of(g, (uint64_t)row, &from, &to)) return row;
        for (int64_t edge = from; edge < to; edge++) {
            const uint64_t target = (uint64_t)g->targets[edge];
            if ((uint64_t)edge + GROUP < g->edges && (uint64_t)g->targets[edge + GROUP] < g->rows)
                PREFETCH_WRITE(&offsets[g->targets[edge + GROUP]]);
            if (target >= g->rows) continue;
            const int64_t place = offsets[target]++;
            if (place >= 0 && place < room) sources[place] = row;
        }
    }
    memmove(offsets + 1, offsets, (size_t)n * 8); /* each has become the next one's */
    offsets[0] = 0;
    *written = total;
    return -1;
}

/* reverse(offsets: int64[rows + 1], targets: int64[edges], back_offsets: int64[rows + 1],
 *         sources: int64[edges]) -> edges written */
KERNEL(hashmem_reverse) {
    (void)module;
    if (expect_arguments("reverse", nargs, 4) < 0) return NULL;
    Py_buffer b[4] = {{0}};
    PyObject *answer = NULL;
    Graph graph;
    if (borrow_graph(args, b, &graph) < 0 ||
        borrow_numbers(args[2], &b[2], WRITE, 8, "back_offsets") < 0 ||
        borrow_numbers(args[3], &b[3], WRITE, 8, "sources") < 0)
        goto done;
    if (b[2].len != b[0].len || b[3].len != b[1].len) {
        PyErr_SetString(PyExc_ValueError, "the reverse must be as long as the graph");
        goto done;
    }
    if (expect_apart(b, 4, 1 << 2 | 1 << 3) < 0) goto done;
    int64_t written = 0, liar;
    Py_BEGIN_ALLOW_THREADS
    liar = turn_round(&graph, b[2].buf, b[3].buf, b[3].len / 8, &written);
    Py_END_ALLOW_THREADS
    if (refuse(liar < 0 ? DONE : LIES, liar) == 0) answer = PyLong_FromLongLong(written);
done:
    give_back(b, 4);
    return answer;
}
