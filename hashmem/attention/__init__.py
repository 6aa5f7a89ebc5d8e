"""Attention over memory: exact in parts, with the error of what was left out."""

from hashmem.attention.parts import Part, attend, merge

__all__ = ["Part", "attend", "merge"]
