"""Tables: digest → int64, one or several, in batches or one by one. Know digests and kernels."""

from hashmem.tables.base import DigestTable
from hashmem.tables.chaining import ChainingTable
from hashmem.tables.frozen import FrozenStatistics, FrozenTable, freeze
from hashmem.tables.multi import DigestMultimap, MultimapStatistics
from hashmem.tables.open_addressing import OpenAddressingTable
from hashmem.tables.statistics import TableStatistics

__all__ = [
    "ChainingTable",
    "DigestMultimap",
    "DigestTable",
    "FrozenStatistics",
    "FrozenTable",
    "MultimapStatistics",
    "OpenAddressingTable",
    "TableStatistics",
    "freeze",
]
