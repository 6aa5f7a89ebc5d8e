/* Cutting a graph of successors into paths, for one width of numbers: part of skips_width.h.
 *
 * A row keeps in its path the child with the largest subtree (Sleator and Tarjan, "A data structure
 * for dynamic trees", 1983; "heavy path" in Harel and Tarjan, "Fast algorithms for finding nearest
 * common ancestors", 1984), so that a way to the root changes paths log2(rows) times at most. Two
 * sweeps do it: up, each row after all that lead to it, adding sizes; and down again, giving places.
 */

/* What building knows of a row. Some fields serve one purpose on the way up and another on the way
 * down, so that a row stays within half a cache line. */
typedef struct {
    INT up;
    union { INT waiting, next; }; /* children not merged yet; position for the next light child */
    union { INT size, position; };
    INT heavy, heavy_size; /* the child with the largest subtree */
    INT depth, path;
    INT ahead; /* the row AHEAD hops on, or NONE: only ever prefetched */
} NAME(Row);

#define Row NAME(Row)

/* Merge `row`, of which the whole subtree is known, into the row it leads to. Whether that one is
 * whole now. */
ALWAYS_INLINE int NAME(merge)(Row *all, INT row) {
    Row *above = &all[all[row].up];
    above->size += all[row].size;
    if (all[row].size > above->heavy_size) {
        above->heavy = row;
        above->heavy_size = all[row].size;
    }
    if (--above->waiting) return 0;
    above->waiting = DONE;
    return 1;
}

/* Give each row still waiting the row AHEAD hops on, so that a walk along it can prefetch. Walks
 * start at one row in 64 and go on until each has passed another's start. */
static void NAME(look_ahead)(Row *all, INT rows) {
    struct {
        INT row, ring[AHEAD];
        int steps, stop;
    } walks[GROUP];
    INT next = 0;
    int walking = 0;
    for (int w = 0;; w = w + 1 < walking ? w + 1 : 0) {
        while (walking < GROUP && next < rows) {
            const INT row = next++;
            if (all[row].waiting <= 0 || !IS_SPLITTER(row)) continue;
            walks[walking].row = row;
            walks[walking].steps = 0;
            walks[walking++].stop = LONGEST_LOOK;
        }
        if (!walking) return;
        const INT row = walks[w].row;
        const int step = walks[w].steps++;
        INT *behind = &walks[w].ring[step % AHEAD];
        if (step >= AHEAD) all[*behind].ahead = row;
        *behind = row;
        if (step && step < walks[w].stop - AHEAD && IS_SPLITTER(row)) walks[w].stop = step + AHEAD;
        walks[w].row = all[row].up;
        if (walks[w].row == NONE || step >= walks[w].stop)
            walks[w] = walks[--walking];
        else
            PREFETCH(&all[walks[w].row]);
    }
}

/* Write to `queue` all rows that lead to no cycle or only into one, each before the one it leads
 * to; then the rows of cycles, each cycle in order. Returns how many are of the first kind. */
static INT NAME(sort)(Row *all, INT *queue, INT rows) {
    INT walks[GROUP], next = 0, done = 0;
    int walking = 0;
    for (int w = 0;; w = w + 1 < walking ? w + 1 : 0) {
        while (walking < GROUP && next < rows) {
            const INT row = next++;
            if (all[row].waiting) continue;
            all[row].waiting = DONE;
            queue[done++] = row;
            if (all[row].up == NONE) continue;
            PREFETCH_WRITE(&all[all[row].up]);
            walks[walking++] = row;
        }
        if (walking <= NARROW && next == rows) break;
        if (w >= walking) continue;
        const INT row = walks[w], up = all[row].up;
        if (NAME(merge)(all, row)) {
            queue[done++] = up;
            if (all[up].up != NONE) {
                walks[w] = up;
                PREFETCH_WRITE(&all[all[up].up]);
                continue;
            }
        }
        walks[w] = walks[--walking];
    }
    /* What is left are NARROW chains at most and cycles: a walk along them knows its next row only
     * when the last has come from memory, so where it is long it is looked at beforehand. */
    if (done < rows - rows / 16) NAME(look_ahead)(all, rows);
    for (int w = 0; w < walking; w++)
        for (INT row = walks[w]; all[row].up != NONE && NAME(merge)(all, row);) {
            row = all[row].up;
            if (all[row].ahead != NONE) PREFETCH_WRITE(&all[all[row].ahead]);
            queue[done++] = row;
        }
    INT placed = done;
    if (placed < rows)
        for (INT start = 0; start < rows; start++)
            for (INT row = start; all[row].waiting != DONE; row = all[row].up) {
                if (all[row].ahead != NONE) PREFETCH_WRITE(&all[all[row].ahead]);
                all[row].waiting = DONE;
                all[row].path = start; /* which cycle, until it has a number */
                queue[placed++] = row;
            }
    return done;
}

/* Number the cycles and place them, from position 0 on; behind each the trees that lead to it. */
static INT NAME(place_cycles)(Row *all, const INT *queue, INT rows, INT *order, Path *paths,
                              INT *position) {
    INT count = 0;
    for (INT from = 0, to; from < rows; from = to) {
        const INT start = all[queue[from]].path;
        for (to = from; to < rows && all[queue[to]].path == start; to++)
            if (to + LOOK < rows) PREFETCH(&all[queue[to + LOOK]]);
        const INT length = to - from, last = *position + length - 1;
        INT trees = last + 1;
        for (INT i = 0; i < length; i++) {
            Row *row = &all[queue[from + i]];
            if (from + i + LOOK < rows) PREFETCH_WRITE(&all[queue[from + i + LOOK]]);
            row->next = trees;
            trees += row->size - 1;
            row->position = last - i;
            row->heavy = NONE;
            row->depth = -CYCLIC - i;
            row->path = count;
            order[last - i] = queue[from + i];
        }
        paths[count++] = (Path){last, LOWEST, length};
        *position = trees;
    }
    return count;
}

/* Place the rows of trees, each after the one it leads to: the largest child right behind it, the
 * others where the subtrees before them end. */
static INT NAME(place_trees)(Row *all, const INT *queue, INT done, INT *order, Path *paths,
                             INT count, INT position) {
    for (INT i = done; i-- > 0;) {
        if (i >= 2 * LOOK) PREFETCH_WRITE(&all[queue[i - 2 * LOOK]]);
        if (i >= LOOK && all[queue[i - LOOK]].up != NONE)
            PREFETCH_WRITE(&all[all[queue[i - LOOK]].up]);
        Row *row = &all[queue[i]];
        INT at, path = NONE, depth = 0;
        if (row->up == NONE) {
            at = position;
            position += row->size;
        } else {
            Row *above = &all[row->up];
            depth = above->depth + 1;
            path = above->path;
            if (above->heavy == queue[i]) {
                at = above->position + 1;
            } else {
                at = above->next;
                above->next += row->size;
            }
        }
        /* A row that nothing leads to needs no path of its own: from it on, hops are on another. */
        if ((row->up == NONE || all[row->up].heavy != queue[i]) && row->heavy != NONE) {
            paths[count] = (Path){(INT)((UINT)at - (UINT)depth), depth, path};
            path = count++;
        }
        row->position = at;
        row->next = at + 1 + row->heavy_size;
        row->depth = depth;
        row->path = path;
        order[at] = queue[i];
    }
    return count;
}

static int64_t NAME(build)(const int64_t *successors, INT rows, Node *nodes, INT *order,
                           Path *paths, Row *all) {
    for (INT row = 0; row < rows; row++) {
        const int64_t up = successors[row];
        all[row] = (Row){.up = (uint64_t)up < (uint64_t)rows ? (INT)up : NONE,
                         .size = 1, .heavy = NONE, .ahead = NONE};
    }
    for (INT row = 0; row < rows; row++) {
        if (row + LOOK < rows && all[row + LOOK].up != NONE)
            PREFETCH_WRITE(&all[all[row + LOOK].up]);
        if (all[row].up != NONE) all[all[row].up].waiting++;
    }
    INT *queue = (INT *)nodes, position = 0;
    const INT done = NAME(sort)(all, queue, rows);
    INT count = NAME(place_cycles)(all, queue + done, rows - done, order, paths, &position);
    count = NAME(place_trees)(all, queue, done, order, paths, count, position);
    for (INT row = 0; row < rows; row++) nodes[row] = (Node){all[row].depth, all[row].path};
    return count;
}

#undef Row
