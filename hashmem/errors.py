"""Every error hashmem raises on purpose, split by whose fault it is.

Each is a `HashMemError` and also the builtin that a user would catch anyway. Wrong arguments
(a digest of the wrong width, an unknown algorithm) raise plain `ValueError` or `TypeError`.
"""

__all__ = [
    "CorruptStoreError",
    "DigestExistsError",
    "HashMemError",
    "RecordNotFound",
    "StoreClosedError",
    "StoreError",
    "StoreFormatError",
    "TableFullError",
]


class HashMemError(Exception):
    """The root of hashmem's own errors."""


class RecordNotFound(HashMemError, KeyError):
    """The caller asked for one record that is not stored. Batch calls never raise this."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class DigestExistsError(HashMemError, ValueError):
    """A digest to be inserted is in the table already, or twice in the batch."""


class StoreError(HashMemError, OSError):
    """The file system or LMDB refused: no room, no rights, no such place."""


class StoreFormatError(StoreError):
    """The path holds something that is not a store of a version this release can read."""


class StoreClosedError(HashMemError, ValueError):
    """The store, or the snapshot a result was reading from, has been closed."""


class CorruptStoreError(HashMemError, ValueError):
    """Stored bytes do not match their checksum or digest."""


class TableFullError(HashMemError, MemoryError):
    """A table cannot hold more entries: its index width or the memory is exhausted."""
