"""The kernels in NumPy: the definition of every answer, and what runs where nothing was compiled."""

from hashmem.kernels.reference.hops import hop

__all__ = ["hop"]
