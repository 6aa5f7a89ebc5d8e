/* The module hashmem.kernels._native: the list of compiled kernels, nothing else. */
#include "kernels.h"

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))hashmem_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    ENTRY(hop),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "The kernels in C; see hashmem.kernels.reference.", 0,
    methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
