"""hashmem: an embedded external memory for language-model pipelines.

Records are addressed by the digest of their content, found through a hash table, followed over
any number of hops, kept crash-safe in LMDB, and handed to a model as chunk summaries in its
attention. The names below are the public ones; each is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hashmem._version import __version__

if TYPE_CHECKING:
    from hashmem.digests import digest, digest_many
    from hashmem.errors import (
        CorruptStoreError,
        HashMemError,
        RecordNotFound,
        StoreClosedError,
        StoreError,
        StoreFormatError,
        TableFullError,
    )
    from hashmem.memory import Memory
    from hashmem.skips import SkipIndex
    from hashmem.store import MemoryStore
    from hashmem.tables import ChainingTable, DigestMultimap, FrozenTable, OpenAddressingTable

__all__ = [
    "ChainingTable",
    "CorruptStoreError",
    "DigestMultimap",
    "FrozenTable",
    "HashMemError",
    "Memory",
    "MemoryStore",
    "OpenAddressingTable",
    "RecordNotFound",
    "SkipIndex",
    "StoreClosedError",
    "StoreError",
    "StoreFormatError",
    "TableFullError",
    "__version__",
    "digest",
    "digest_many",
]

_HOME = {
    "ChainingTable": "hashmem.tables",
    "DigestMultimap": "hashmem.tables",
    "FrozenTable": "hashmem.tables",
    "Memory": "hashmem.memory",
    "MemoryStore": "hashmem.store",
    "OpenAddressingTable": "hashmem.tables",
    "SkipIndex": "hashmem.skips",
    "digest": "hashmem.digests",
    "digest_many": "hashmem.digests",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hashmem' has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "hashmem.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
