"""Tables: digest → int64, in batches or one at a time. Know digests and kernels, nothing else."""

from hashmem.tables.base import DigestTable
from hashmem.tables.chaining import ChainingTable
from hashmem.tables.open_addressing import OpenAddressingTable
from hashmem.tables.statistics import TableStatistics

__all__ = ["ChainingTable", "DigestTable", "OpenAddressingTable", "TableStatistics"]
