/* The module hashmem.kernels._native: the list of compiled kernels, nothing else. */
#include "kernels.h"

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))hashmem_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    ENTRY(hop),
    ENTRY(open_find),
    ENTRY(open_insert),
    ENTRY(open_intern),
    ENTRY(open_delete),
    ENTRY(open_build),
    ENTRY(open_move),
    ENTRY(open_lookup),
    ENTRY(rows_find),
    ENTRY(rows_build),
    ENTRY(rows_lookup),
    ENTRY(chain_find),
    ENTRY(chain_insert),
    ENTRY(chain_intern),
    ENTRY(chain_delete),
    ENTRY(chain_build),
    ENTRY(chain_move),
    ENTRY(chain_lookup),
    ENTRY(hash_words),
    ENTRY(count_ngrams),
    ENTRY(digest_pieces),
    ENTRY(digest_items),
    ENTRY(gather),
    ENTRY(frozen_find),
    ENTRY(frozen_partition),
    ENTRY(frozen_build),
    ENTRY(skip),
    ENTRY(skip_build),
    ENTRY(skip_mark),
    ENTRY(frontier),
    ENTRY(shortest),
    ENTRY(reverse),
    ENTRY(multimap_append),
    ENTRY(multimap_gather),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "The kernels in C; see hashmem.kernels.reference.", 0,
    methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
