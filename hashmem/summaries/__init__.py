"""Chunk → vector: one file a method, one contract."""

from hashmem.summaries.base import SummaryMethod, TermWeights, pack, row_scales, unit_rows
from hashmem.summaries.hashed_ngrams import HashedNgrams

__all__ = ["HashedNgrams", "SummaryMethod", "TermWeights", "pack", "row_scales", "unit_rows"]
