"""Attention over memory: exact in parts, with a bound on the error of what was left out."""

from hashmem.attention.boxes import Boxes, chunk_boxes
from hashmem.attention.parts import Part, attend, merge
from hashmem.attention.retrieve import ChunkAttention, attend_chunks

__all__ = ["Boxes", "ChunkAttention", "Part", "attend", "attend_chunks", "chunk_boxes", "merge"]
