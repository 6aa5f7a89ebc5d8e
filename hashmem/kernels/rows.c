/* Open addressing over digests alone, which lie one after the other and are never written: find, build
 * and lookup, which answer rows. For what is mapped from a file; open_addressing.c has the layout. */
#define HEADER 0
#define TABLE(operation) hashmem_rows_##operation
#include "open_addressing.c"
