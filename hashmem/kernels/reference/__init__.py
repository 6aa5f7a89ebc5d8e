"""The kernels in NumPy: the definition of every answer, and what runs where nothing compiled."""

from hashmem.kernels.reference.chaining import (
    chain_build,
    chain_delete,
    chain_find,
    chain_insert,
    chain_intern,
    chain_move,
)
from hashmem.kernels.reference.gather import gather
from hashmem.kernels.reference.hops import hop
from hashmem.kernels.reference.ngrams import count_ngrams, hash_words
from hashmem.kernels.reference.open_addressing import (
    open_build,
    open_delete,
    open_find,
    open_insert,
    open_intern,
    open_move,
)
from hashmem.kernels.reference.sha256 import sha256

__all__ = [
    "chain_build",
    "chain_delete",
    "chain_find",
    "chain_insert",
    "chain_intern",
    "chain_move",
    "count_ngrams",
    "gather",
    "hash_words",
    "hop",
    "open_build",
    "open_delete",
    "open_find",
    "open_insert",
    "open_intern",
    "open_move",
    "sha256",
]
