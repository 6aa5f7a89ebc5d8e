"""Moving data: a store to another path, records to an archive and back, handles to a process."""

import os
from collections.abc import Callable
from typing import Any

from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.backend import Reader
from hashmem.store.exporting import Exporting, Progress, must_be_committed
from hashmem.store.importing import Importing
from hashmem.store.layout import PAYLOADS
from hashmem.store.packs import parse

__all__ = ["Moving", "copy_content"]

COMMIT_BYTES = 64 << 20  # what a copy writes in one commit, about


class Moving(Exporting, Importing):
    """The part of `MemoryStore` that moves what it holds elsewhere."""

    def copy_to(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copy the whole store, all its namespaces, to another path: a folder of its own.

        The copy is what was committed when it began, while others go on writing; it needs no key,
        and a store in RAM can be kept this way. Durable when this returns, and at `path` whole or
        not at all: it is filled in a hidden folder beside, ``.NAME.hashmem-copy``, which a copy
        that was killed leaves behind, no store, and the next one to the same path clears away.
        What is damaged is copied as it is: `verify` tells it there as here.

        `progress` is called with the number of records just copied. O(bytes stored), and
        some 64 MiB of memory. As long as it runs, the store's file cannot reuse what is replaced.
        Raises `StoreFormatError` where something is at `path`, `StoreError` where it cannot be
        written or this handle has uncommitted writes.
        """
        from hashmem.store.lmdb_new import new_folder

        snapshot, _ = self._committed("copied")
        with snapshot, new_folder(path) as (_, write):
            copy_content(snapshot, write, progress or (lambda _: None))

    # -- handles to another process ---------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a handle be pickled as where its store is: the other process opens it there itself.

        Path, namespace, algorithm and `readonly` go along; nothing stored, and no key.
        """
        with self._reading() as state:
            if self._backend.path is None:
                raise TypeError(
                    "a store in RAM cannot be pickled, as no other process can reach it: "
                    "copy_to() a path, and open that"
                )
            if not self._is_reopened_by_path():
                raise TypeError(
                    f"a store on a {type(self._backend).__name__} cannot be pickled: only one "
                    "opened by its path can be opened again by it"
                )
            if self._key is not None:
                raise TypeError(
                    "a store with a key cannot be pickled, as the key would lie open in the "
                    "pickle: send path and key your own way, and open it there"
                )
            must_be_committed(state, "another process would not see them")
            options = {
                "namespace": self._namespace,
                "algorithm": self.algorithm,
                "readonly": self._backend.readonly,
            }
            return _reopened, (type(self), self._backend.path, options)

    def _is_reopened_by_path(self) -> bool:
        from hashmem.store.lmdb import LmdbBackend

        return type(self._backend) is LmdbBackend


def _reopened(kind: type[Moving], path: str, options: dict[str, Any]) -> Moving:
    if not os.path.exists(os.path.join(path, "CURRENT")):  # opening would make a new store there
        raise StoreFormatError(f"there is no store at {path}, where the pickled handle had it")
    return kind(path, **options)


# -- copying --------------------------------------------------------------------------------------


def copy_content(reader: Reader, write: Callable[[], Any], progress: Progress) -> None:
    """Copy every key that `reader` shows, through transactions that `write` begins. O(bytes).

    That is all of a store but CURRENT and what lies in files beside LMDB's. Such files belong to a
    generation: who copies them too gives them the name of the new one (`lmdb_new.new_folder`).
    """
    keys = reader.keys(b"")
    more = True
    while more:
        with write() as transaction:
            used, more = 0, False
            for key in keys:
                value = reader.get(key)
                if value is None:
                    raise CorruptStoreError(f"the value of key {key.hex()} is gone")
                transaction.put(key, bytes(value))
                if key[:1] == b"b":
                    progress(_records_in(reader, key))
                used += len(value) + len(key)
                if used >= COMMIT_BYTES:
                    more = True
                    break


def _records_in(reader: Reader, key: bytes) -> int:
    """How many records' contents begin in the pack whose body has `key`."""
    index = reader.get(b"i" + key[1:])
    if len(key) != 15 or int.from_bytes(key[5:7], "big") != PAYLOADS or index is None:
        return 0
    try:
        pack = parse(index, PAYLOADS)
    except CorruptStoreError:
        return 0  # copied all the same
    return int((pack.lengths >= 0).sum()) if pack.part == 0 else 0
