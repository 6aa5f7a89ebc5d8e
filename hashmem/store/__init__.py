"""The store: digest → record, kept in packs in LMDB or in RAM."""

from hashmem.store.archive import ArchiveReader
from hashmem.store.memory_store import MemoryStore
from hashmem.store.records import Records
from hashmem.store.repair import Repair, repair
from hashmem.store.verification import Verification

__all__ = ["ArchiveReader", "MemoryStore", "Records", "Repair", "Verification", "repair"]
