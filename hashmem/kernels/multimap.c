/* Chains of values: for each chain its first node, its last, and their number; in each node the
 * next and a value.
 *
 * How far a chain goes is told by its number alone, so a node may link to anything behind that.
 */
#include "kernels.h"

typedef struct {
    int64_t head, tail, count;
} Chain;

typedef struct {
    int64_t next, value;
} Node;

/* multimap_append(chains: int64[..., 3], nodes: int64[..., 2], ids: int64[n], values: int64[n],
 *                 first: int) */
KERNEL(hashmem_multimap_append) {
    (void)module;
    if (expect_arguments("multimap_append", nargs, 5) < 0) return NULL;
    Py_buffer b[4] = {{0}};
    PyObject *answer = NULL;
    const long long first = PyLong_AsLongLong(args[4]);
    if (first == -1 && PyErr_Occurred()) return NULL;
    if (borrow_numbers(args[0], &b[0], WRITE, sizeof(Chain), "chains") < 0 ||
        borrow_numbers(args[1], &b[1], WRITE, sizeof(Node), "nodes") < 0 ||
        borrow_numbers(args[2], &b[2], READ, 8, "ids") < 0 || borrow_numbers(args[3], &b[3], READ, 8, "values") < 0)
        goto done;
    Chain *chains = b[0].buf;
    Node *nodes = b[1].buf;
    const int64_t *ids = b[2].buf, *values = b[3].buf, n = b[2].len / 8;
    const uint64_t n_chains = (uint64_t)b[0].len / sizeof(Chain);
    const int64_t n_nodes = b[1].len / (Py_ssize_t)sizeof(Node);
    if (b[3].len != b[2].len || first < 0 || first > n_nodes || n > n_nodes - first) {
        PyErr_SetString(PyExc_ValueError, "ids and values differ in length, or nodes are too few");
        goto done;
    }
    if (expect_apart(b, 4, 1 << 0 | 1 << 1) < 0) goto done;
    int64_t wrong = -1;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t i = 0; i < n && wrong < 0; i++)
        if ((uint64_t)ids[i] >= n_chains) wrong = i;
    for (int64_t i = 0; i < n && wrong < 0; i++) {
        if (i + GROUP < n && (uint64_t)ids[i + GROUP] < n_chains)
            PREFETCH_WRITE(&chains[ids[i + GROUP]]);
        if (i + GROUP / 2 < n && (uint64_t)ids[i + GROUP / 2] < n_chains) {
            const Chain *soon = &chains[ids[i + GROUP / 2]];
            if (soon->count && (uint64_t)soon->tail < (uint64_t)n_nodes)
                PREFETCH_WRITE(&nodes[soon->tail]);
        }
        const uint64_t id = (uint64_t)ids[i];
        Chain *chain = id < n_chains ? &chains[id] : NULL;
        if (!chain || (chain->count && (uint64_t)chain->tail >= (uint64_t)n_nodes)) {
            wrong = i;
            break;
        }
        nodes[first + i] = (Node){-1, values[i]};
        if (chain->count)
            nodes[chain->tail].next = first + i;
        else
            chain->head = first + i;
        chain->tail = first + i;
        chain->count = (int64_t)((uint64_t)chain->count + 1); /* whatever it was, it wraps */
    }
    Py_END_ALLOW_THREADS
    if (wrong >= 0)
        PyErr_Format(PyExc_ValueError, "ids[%lld] is no chain, or its chain has no end",
                     (long long)wrong);
    else
        answer = Py_NewRef(Py_None);
done:
    give_back(b, 4);
    return answer;
}

typedef struct {
    int64_t node, at, end;
} Walk;

typedef struct {
    const Chain *chains;
    const Node *nodes;
    const int64_t *ids, *offsets;
    int64_t n, n_chains, n_nodes, room;
    int64_t *out;
} Gather;

/* Begin the next chain that has values, from `*i` on. 1 where there is one, 0 at the end, -1 where
 * what is told of it is wrong. */
static int begin(const Gather *g, int64_t *i, Walk *walk) {
    for (; *i < g->n; ++*i) {
        const int64_t id = g->ids[*i], at = g->offsets[*i], end = g->offsets[*i + 1];
        if (*i + GROUP < g->n && (uint64_t)g->ids[*i + GROUP] < (uint64_t)g->n_chains)
            PREFETCH(&g->chains[g->ids[*i + GROUP]]);
        if (at < 0 || at > end || end > g->room) return -1;
        if (at == end) continue;
        if ((uint64_t)id >= (uint64_t)g->n_chains) return -1;
        const int64_t head = g->chains[id].head;
        if ((uint64_t)head >= (uint64_t)g->n_nodes || end - at > g->chains[id].count) return -1;
        PREFETCH(&g->nodes[head]);
        *walk = (Walk){head, at, end};
        ++*i;
        return 1;
    }
    return 0;
}

/* Walk a group of chains side by side so that their cache misses overlap. The query that is wrong,
 * or -1. */
static int64_t walk_all(const Gather *g) {
    Walk walks[GROUP];
    int64_t i = 0;
    int alive = 0, more = 1;
    while (1) {
        while (alive < GROUP && more) {
            more = begin(g, &i, &walks[alive]);
            if (more < 0) return i;
            alive += more;
        }
        if (!alive) return -1;
        for (int k = 0; k < alive;) {
            Walk *walk = &walks[k];
            const Node node = g->nodes[walk->node];
            g->out[walk->at++] = node.value;
            if (walk->at == walk->end) {
                *walk = walks[--alive];
                continue;
            }
            if ((uint64_t)node.next >= (uint64_t)g->n_nodes) return i - 1;
            PREFETCH(&g->nodes[node.next]);
            walk->node = node.next;
            k++;
        }
    }
}

/* multimap_gather(chains: int64[..., 3], nodes: int64[..., 2], ids: int64[n],
 *                 offsets: int64[n + 1], out: int64[room]) */
KERNEL(hashmem_multimap_gather) {
    (void)module;
    if (expect_arguments("multimap_gather", nargs, 5) < 0) return NULL;
    Py_buffer b[5] = {{0}};
    PyObject *answer = NULL;
    if (borrow_numbers(args[0], &b[0], READ, sizeof(Chain), "chains") < 0 ||
        borrow_numbers(args[1], &b[1], READ, sizeof(Node), "nodes") < 0 ||
        borrow_numbers(args[2], &b[2], READ, 8, "ids") < 0 ||
        borrow_numbers(args[3], &b[3], READ, 8, "offsets") < 0 ||
        borrow_numbers(args[4], &b[4], WRITE, 8, "out") < 0)
        goto done;
    if (b[3].len != b[2].len + 8) {
        PyErr_SetString(PyExc_ValueError, "offsets must hold one number more than ids");
        goto done;
    }
    const Gather gather = {b[0].buf,
                           b[1].buf,
                           b[2].buf,
                           b[3].buf,
                           b[2].len / 8,
                           b[0].len / (Py_ssize_t)sizeof(Chain),
                           b[1].len / (Py_ssize_t)sizeof(Node),
                           b[4].len / 8,
                           b[4].buf};
    int64_t wrong;
    Py_BEGIN_ALLOW_THREADS
    wrong = walk_all(&gather);
    Py_END_ALLOW_THREADS
    if (wrong >= 0)
        PyErr_Format(PyExc_ValueError, "a chain of the queries up to %lld is not as they say",
                     (long long)wrong);
    else
        answer = Py_NewRef(Py_None);
done:
    give_back(b, 5);
    return answer;
}
