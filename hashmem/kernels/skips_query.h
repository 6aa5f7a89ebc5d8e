/* Skipping along the paths, for one width of numbers: part of skips_width.h.
 *
 * A batch goes through in blocks, a stage at a time, and every stage asks for what the next one
 * reads of all starts in the block, so that their cache misses overlap.
 */

typedef struct {
    const int64_t *successors; /* [rows], as they are now */
    Node *nodes;               /* [built] */
    const INT *order;          /* [built] */
    const Path *paths;         /* [count] */
    Marks marks;
    uint64_t rows, built, count;
} NAME(Index);
#define Index NAME(Index)

/* a - b; what a damaged index holds may overflow. */
ALWAYS_INLINE int64_t NAME(less)(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

/* How far behind the first row of its cycle a depth is; it may be one more than the last. */
ALWAYS_INLINE uint64_t NAME(offset)(int64_t depth) { return (uint64_t)NAME(less)(-CYCLIC, depth); }

ALWAYS_INLINE UINT NAME(length)(const Path *cycle) { return cycle->up > 0 ? (UINT)cycle->up : 1; }

/* Where the row `offset` behind the first one of a cycle is, any number of times around. */
ALWAYS_INLINE uint64_t NAME(around)(const Path *cycle, uint64_t offset) {
    const UINT length = NAME(length)(cycle);
    /* A division of half the width takes half the time. */
    const UINT rest = offset <= (UINT)-1 ? (UINT)offset % length : (UINT)(offset % length);
    return (UINT)((UINT)cycle->base - rest);
}

ALWAYS_INLINE void NAME(prefetch_path)(const Index *x, INT path) {
    if ((UINT)path < x->count) PREFETCH(&x->paths[path]);
}

/* Answer a block while every link is as it was when the index was built. */
ALWAYS_INLINE void NAME(skip_block)(const Index *x, const int64_t *starts, const int64_t *hops,
                                    int stride, int size, int64_t *out) {
    int64_t target[BLOCK]; /* the depth to reach */
    INT path[BLOCK];
    uint64_t at[BLOCK]; /* the position reached; before that, hops from the first row of a cycle */
    uint16_t climbing[BLOCK], landed[BLOCK];
    int left = 0, done = 0;
    for (int i = 0; i < size; i++)
        if ((uint64_t)starts[i] < x->built) PREFETCH(&x->nodes[starts[i]]);
    for (int i = 0; i < size; i++) {
        const int64_t start = starts[i], n = hops[i * stride];
        out[i] = n == 0 && (uint64_t)start < x->rows ? start : -1;
        if ((uint64_t)start >= x->built || n <= 0) continue;
        const Node node = x->nodes[start];
        target[i] = NAME(less)(node.depth, n < FAR ? n : FAR);
        path[i] = node.path;
        if (node.depth >= 0 && target[i] < 0) continue; /* beyond the root */
        at[i] = NAME(offset)(node.depth) + (uint64_t)n;
        NAME(prefetch_path)(x, node.path);
        climbing[left++] = (uint16_t)i;
    }
    for (int step = 0; left && step < MOST_PATHS; step++) {
        int kept = 0;
        for (int k = 0; k < left; k++) {
            const int i = climbing[k];
            if ((UINT)path[i] >= x->count) continue;
            const Path *p = &x->paths[path[i]];
            if (target[i] < p->head && p->head != LOWEST) {
                path[i] = p->up;
                NAME(prefetch_path)(x, p->up);
                climbing[kept++] = (uint16_t)i;
                continue;
            }
            if (UNLIKELY(p->head == LOWEST))
                at[i] = NAME(around)(p, at[i]);
            else
                at[i] = (UINT)((UINT)p->base + (UINT)target[i]);
            if (at[i] >= x->built) continue;
            PREFETCH(&x->order[at[i]]);
            landed[done++] = (uint16_t)i;
        }
        left = kept;
    }
    for (int k = 0; k < done; k++) out[landed[k]] = x->order[at[landed[k]]];
}

/* A start on its way past links that have changed. */
typedef struct {
    int64_t row;
    uint64_t hops; /* left to do, from `row` or from `depth` on `path` */
    int64_t depth;
    INT path;
} NAME(Flight);
#define Flight NAME(Flight)

/* Go along one path to the first row on it whose link has changed, or to where the hops end, and
 * return its position; or NOWHERE, with the flight at the next path. */
ALWAYS_INLINE uint64_t NAME(climb)(const Index *x, Flight *f) {
    const Path *p = &x->paths[f->path];
    if (p->head == LOWEST) {
        const uint64_t length = NAME(length)(p), from = NAME(offset)(f->depth) % length;
        uint64_t at = (UINT)((UINT)p->base - (UINT)from), hops = f->hops;
        const uint64_t rest = length - 1 - from; /* hops to the end of what lies in one piece */
        uint64_t mark = last_mark(&x->marks, at, hops < rest ? hops : rest);
        if (mark == NOWHERE && hops > rest) { /* and then from the first row on */
            hops -= rest + 1;
            at = (UINT)p->base;
            mark = last_mark(&x->marks, at, hops < length - 1 ? hops : length - 1);
        }
        f->hops = mark == NOWHERE ? 0 : hops - (at - mark);
        return mark == NOWHERE ? NAME(around)(p, (at == (UINT)p->base ? 0 : from) + hops) : mark;
    }
    if (f->depth >= p->head) {
        const uint64_t at = (UINT)((UINT)p->base + (UINT)f->depth);
        const uint64_t rest = (uint64_t)NAME(less)(f->depth, p->head);
        const uint64_t mark = last_mark(&x->marks, at, f->hops < rest ? f->hops : rest);
        if (mark != NOWHERE || f->hops <= rest) {
            const uint64_t end = mark != NOWHERE ? mark : at - f->hops;
            f->hops -= at - end;
            return end;
        }
        f->hops -= rest + 1;
        f->depth = NAME(less)(p->head, 1);
    }
    f->path = p->up;
    NAME(prefetch_path)(x, p->up);
    return NOWHERE;
}

/* Answer a block where links have changed: along the paths to the first row whose link is not what
 * the paths say, over that link, and on from there. Returns how many such links were followed. */
static int64_t NAME(skip_changed)(const Index *x, const int64_t *starts, const int64_t *hops,
                                  int stride, int size, int64_t *out, int64_t budget) {
    Flight flights[BLOCK];
    uint64_t at[BLOCK];
    uint16_t walking[BLOCK], climbing[BLOCK], landed[BLOCK], turning[BLOCK];
    int on_way = 0;
    int64_t followed = 0;
    const int any = any_mark(&x->marks);
    for (int i = 0; i < size; i++) {
        out[i] = -1;
        if ((uint64_t)starts[i] >= x->rows || hops[i * stride] < 0) continue;
        flights[i].row = starts[i];
        flights[i].hops = (uint64_t)hops[i * stride];
        if ((uint64_t)starts[i] < x->built) PREFETCH(&x->nodes[starts[i]]);
        walking[on_way++] = (uint16_t)i;
    }
    while (on_way && followed <= budget) {
        int left = 0, done = 0, turns = 0;
        for (int k = 0; k < on_way; k++) {
            Flight *f = &flights[walking[k]];
            if (f->hops == 0) {
                out[walking[k]] = f->row;
            } else if ((uint64_t)f->row >= x->built || x->nodes[f->row].path == CHANGED) {
                PREFETCH(&x->successors[f->row]);
                turning[turns++] = walking[k];
            } else if (!any && x->nodes[f->row].depth >= 0 &&
                       f->hops > (uint64_t)x->nodes[f->row].depth) {
                continue; /* beyond the root, on a way where nothing can have changed */
            } else {
                f->depth = NAME(less)(x->nodes[f->row].depth, 1);
                f->path = x->nodes[f->row].path;
                f->hops--;
                NAME(prefetch_path)(x, f->path);
                climbing[left++] = walking[k];
            }
        }
        for (int step = 0; left && step < MOST_PATHS; step++) {
            int kept = 0;
            for (int k = 0; k < left; k++) {
                const int i = climbing[k];
                if ((UINT)flights[i].path >= x->count) continue;
                at[i] = NAME(climb)(x, &flights[i]);
                if (at[i] == NOWHERE) {
                    climbing[kept++] = (uint16_t)i;
                } else if (at[i] < x->built) {
                    PREFETCH(&x->order[at[i]]);
                    landed[done++] = (uint16_t)i;
                }
            }
            left = kept;
        }
        for (int k = 0; k < done; k++) {
            Flight *f = &flights[landed[k]];
            f->row = x->order[at[landed[k]]];
            if (f->hops == 0) {
                out[landed[k]] = f->row;
            } else if ((uint64_t)f->row < x->rows) {
                PREFETCH(&x->successors[f->row]);
                turning[turns++] = landed[k];
            }
        }
        on_way = 0;
        for (int k = 0; k < turns; k++) {
            Flight *f = &flights[turning[k]];
            f->row = x->successors[f->row];
            f->hops--;
            if ((uint64_t)f->row >= x->rows) continue;
            if ((uint64_t)f->row < x->built) PREFETCH(&x->nodes[f->row]);
            walking[on_way++] = turning[k];
        }
        followed += turns;
    }
    return followed;
}

static int64_t NAME(skip)(const Index *x, const int64_t *starts, const int64_t *hops, int stride,
                          Py_ssize_t m, int64_t *out, int64_t budget) {
    int64_t followed = 0;
    for (Py_ssize_t base = 0; base < m && followed <= budget; base += BLOCK) {
        const int size = m - base < BLOCK ? (int)(m - base) : BLOCK;
        const int64_t *n = hops + base * stride;
        if (x->marks.levels)
            followed += NAME(skip_changed)(x, starts + base, n, stride, size, out + base,
                                           budget - followed);
        else if (stride)
            NAME(skip_block)(x, starts + base, n, 1, size, out + base);
        else
            NAME(skip_block)(x, starts + base, n, 0, size, out + base);
    }
    return followed;
}

/* Take note that the links of `sources` may have changed. */
static void NAME(mark)(const Index *x, const int64_t *sources, Py_ssize_t m) {
    for (Py_ssize_t i = 0; i < m; i++) {
        if (i + LOOK < m && (uint64_t)sources[i + LOOK] < x->built)
            PREFETCH_WRITE(&x->nodes[sources[i + LOOK]]);
        if ((uint64_t)sources[i] >= x->built) continue; /* newer than the index: never on a path */
        Node *node = &x->nodes[sources[i]];
        if ((UINT)node->path < x->count) {
            const Path *p = &x->paths[node->path];
            const uint64_t at =
                p->head == LOWEST ? (UINT)((UINT)p->base - (UINT)NAME(offset)(node->depth))
                                  : (UINT)((UINT)p->base + (UINT)node->depth);
            /* A row that nothing led to is not on the path, and is never come by. */
            if (at < x->built && x->order[at] == sources[i]) set_mark(&x->marks, at);
        }
        node->path = CHANGED;
    }
}

#undef Index
#undef Flight
