"""Builds the optional C kernels; everything else is in setup.cfg."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "hashmem.kernels._native",
            sources=sorted(glob("hashmem/kernels/*.c")),
            depends=sorted(glob("hashmem/kernels/*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=c11", "-O3"],
            py_limited_api=True,
            optional=True,  # without a compiler the NumPy kernels serve
        )
    ]
)
