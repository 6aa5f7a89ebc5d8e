/* The index of skips.c for one width of numbers. Included once for each, with INT and UINT as the
 * integers of that width, CYCLIC as a quarter of their range, and NAME(x) as the name x made unique.
 */

typedef struct {
    INT depth; /* hops to the root; -CYCLIC and less or a little more within reach of a cycle */
    INT path;  /* of a row that nothing led to: the path of the row it leads to; NONE if alone */
} NAME(Node);

typedef struct {
    INT base; /* the row at depth d is at position base + d; of a cycle, where its first row is */
    INT head; /* depth of the row nearest to the root; LOWEST for a cycle */
    INT up;   /* the path that the head leads to, or NONE; of a cycle, how many rows it has */
} NAME(Path);

#define Node NAME(Node)
#define Path NAME(Path)
#define LOWEST ((INT)((UINT)1 << (8 * sizeof(INT) - 1)))

#include "skips_build.h"
#include "skips_query.h"

#undef Node
#undef Path
#undef LOWEST
#undef INT
#undef UINT
#undef CYCLIC
#undef NAME
