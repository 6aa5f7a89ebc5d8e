"""The only hot loops: one set in C, one in NumPy, same names, same answers.

`current` is the module in use and `active` its name, "native" or "reference". The environment
variable ``HASHMEM_KERNELS`` chooses at import; without it the compiled kernels serve where they
were built. The reference kernels define the answer: the tests compare the two.

Kernels take contiguous buffers and sizes, no other Python objects, and check every size they are
told against the buffer it speaks of. The compiled ones release the GIL. They keep no state.
"""

import os
from types import ModuleType

from hashmem.kernels import reference

__all__ = ["active", "available", "current", "select"]

_native: ModuleType | None
try:
    from hashmem.kernels import _native
except ImportError:  # nothing was compiled for this interpreter
    _native = None

available: tuple[str, ...] = ("reference",) if _native is None else ("native", "reference")
active: str
current: ModuleType


def select(name: str) -> None:
    """Use the kernels called `name`, "native" or "reference", from now on in this process.

    Raises `ValueError` on another name and `ImportError` where the compiled kernels are missing.
    """
    global active, current
    if name == "reference":
        chosen: ModuleType | None = reference
    elif name == "native":
        chosen = _native
    else:
        raise ValueError(f"no kernels are called {name!r}: take 'native' or 'reference'")
    if chosen is None:
        raise ImportError(
            "the compiled kernels are not there: install hashmem where a C compiler is, "
            "or set HASHMEM_KERNELS=reference"
        )
    active, current = name, chosen


select(os.environ.get("HASHMEM_KERNELS") or available[0])
