"""Chunk → vector: one file a method, one contract."""

from hashmem.summaries.base import SummaryMethod, pack, row_scales, unit_rows
from hashmem.summaries.hashed_ngrams import HashedNgrams

__all__ = ["HashedNgrams", "SummaryMethod", "pack", "row_scales", "unit_rows"]
