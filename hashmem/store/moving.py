"""Moving data: a store to another path, records to an archive and back, handles to a process."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.backend import Reader, Transaction
from hashmem.store.checkpoint import CheckpointGone
from hashmem.store.exporting import Exporting, Progress, must_be_committed
from hashmem.store.importing import Importing
from hashmem.store.layout import PAYLOADS, Catalogue, Info
from hashmem.store.packs import parse

__all__ = ["Moving", "copy_content"]

TRIES = 20  # a checkpoint may be replaced between the snapshot that names it and opening it


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

        for _ in range(TRIES):
            snapshot, _ = self._committed("copied")
            try:
                checkpoints = _checkpoints(snapshot, self._backend.folder)
                break
            except CheckpointGone:  # a newer commit has another
                snapshot.close()
        else:
            raise CheckpointGone("the checkpoint that the store names is gone: run repair")
        with snapshot, ExitStack() as files, new_folder(path) as (folder, transaction):
            for file in checkpoints.values():
                files.enter_context(file)
            copy_content(snapshot, transaction, progress or (lambda _: None))
            for namespace, file in checkpoints.items():
                _copy_checkpoint(namespace, file, folder, transaction)

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
            if self._given_key is not None:
                raise TypeError(
                    "a store with a key cannot be pickled, as the key would lie open in the "
                    "pickle: send path and key your own way, and open it there"
                )
            must_be_committed(state, "another process would not see them")
            options = {
                "namespace": self._namespace,
                "algorithm": self.algorithm,
                "readonly": self._backend.readonly,
                "durability": self._durability,
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


def copy_content(reader: Reader, transaction: Transaction, progress: Progress) -> None:
    """Copy every key that `reader` shows. O(bytes).

    That is all of a store but CURRENT and what lies in files beside LMDB's.
    """
    for key in reader.keys(b""):
        value = reader.get(key)
        if value is None:
            raise CorruptStoreError(f"the value of key {key.hex()} is gone")
        transaction.put(key, bytes(value))
        if key[:1] == b"b":
            progress(_records_in(reader, key))


def _checkpoints(reader: Reader, folder: str | None) -> dict[int, BinaryIO]:
    """The checkpoints that a commit names, opened: they may be unlinked meanwhile."""
    files: dict[int, BinaryIO] = {}
    for namespace in Catalogue.read(reader).namespaces.values():
        info = Info.read(reader, namespace)
        if info is None or not info.checkpoint:
            continue
        try:
            files[namespace] = open(os.path.join(str(folder), info.checkpoint), "rb")  # noqa: SIM115
        except FileNotFoundError as error:
            for file in files.values():
                file.close()
            raise CheckpointGone(f"{info.checkpoint} is gone") from error
    return files


def _copy_checkpoint(
    namespace: int, file: BinaryIO, folder: Path, transaction: Transaction
) -> None:
    """Copy a checkpoint to the folder of a new store, and have that name it."""
    info = Info.read(transaction, namespace)
    if info is None:
        raise CorruptStoreError(f"namespace {namespace} has lost its record")
    info.checkpoint = f"{transaction.version[0]:06}-" + info.checkpoint.partition("-")[2]
    with open(folder / info.checkpoint, "xb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    info.write(transaction, namespace)


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
