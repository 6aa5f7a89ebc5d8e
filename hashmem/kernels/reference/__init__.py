"""The kernels in NumPy: the definition of every answer, and what runs where nothing compiled."""

from hashmem.kernels.reference.chaining import (
    chain_build,
    chain_delete,
    chain_find,
    chain_insert,
    chain_intern,
    chain_lookup,
    chain_move,
)
from hashmem.kernels.reference.digests import digest_items, digest_pieces
from hashmem.kernels.reference.frozen import frozen_find
from hashmem.kernels.reference.frozen_build import frozen_build, frozen_partition
from hashmem.kernels.reference.gather import gather
from hashmem.kernels.reference.graphs import frontier, reverse, shortest
from hashmem.kernels.reference.hops import hop
from hashmem.kernels.reference.multimap import multimap_append, multimap_gather
from hashmem.kernels.reference.ngrams import count_ngrams, hash_words
from hashmem.kernels.reference.open_addressing import (
    open_build,
    open_delete,
    open_find,
    open_insert,
    open_intern,
    open_lookup,
    open_move,
)
from hashmem.kernels.reference.rows import rows_build, rows_find, rows_lookup
from hashmem.kernels.reference.skips import skip, skip_build, skip_mark

__all__ = [
    "chain_build",
    "chain_delete",
    "chain_find",
    "chain_insert",
    "chain_intern",
    "chain_lookup",
    "chain_move",
    "count_ngrams",
    "digest_items",
    "digest_pieces",
    "frontier",
    "frozen_build",
    "frozen_find",
    "frozen_partition",
    "gather",
    "hash_words",
    "hop",
    "multimap_append",
    "multimap_gather",
    "open_build",
    "open_delete",
    "open_find",
    "open_insert",
    "open_intern",
    "open_lookup",
    "open_move",
    "reverse",
    "rows_build",
    "rows_find",
    "rows_lookup",
    "shortest",
    "skip",
    "skip_build",
    "skip_mark",
]
