"""A store's folder that is filled beside its place and put there whole.

    .notes.hashmem-copy/    beside the place of `notes`, until it is renamed to that
        LOCK                held by the copy that is under way: what it does not hold is a leftover
        content             the LMDB file, under a name that makes no store of the folder
        content-lock

Nothing here is a store before `content` gets the name of a generation and CURRENT names it, which
happens once everything is synced, just before the folder is renamed.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hashmem.errors import StoreError, StoreFormatError
from hashmem.store.backend import Transaction
from hashmem.store.lmdb import FORMAT, _explained, _name, _ours, _sync
from hashmem.store.lmdb_environment import Rewriting, open_file

__all__ = ["new_folder"]

_CONTENT = "content"


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Transaction]]:
    """Give a folder and a transaction that fills a store in it; put it at `path` at the end.

    Side files of the store's generation, the first, go into the folder before the end, synced by
    who writes them. If the context raises
    or the process dies, nothing is at `path`, and the folder beside it is no store: the next call
    for the same path clears that away. Raises `StoreFormatError` where something is at `path`
    already, other than an empty folder, and `StoreError` where it cannot be written.
    """
    if not os.fspath(path):
        raise ValueError("the path of a store is empty: give the name of a folder")
    target = Path(os.path.realpath(os.fsdecode(path)))
    with _explained(f"cannot copy to {target}"):
        _must_be_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(target.parent / f".{target.name}.hashmem-copy") as beside:
            environment = open_file(beside / _CONTENT, create=True, durability="none")
            try:
                transaction = Rewriting(environment, (1, 0))
                try:
                    yield beside, transaction
                    transaction.commit()
                except BaseException:
                    transaction.abort()
                    raise
            finally:
                environment.close()
            (beside / f"{_CONTENT}-lock").unlink(missing_ok=True)
            os.rename(beside / _CONTENT, beside / _name(1))
            with open(beside / "CURRENT", "wb") as file:
                file.write(f"hashmem {FORMAT}\n{_name(1)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            _sync(beside)
            _must_be_free(target)
            os.rename(beside, target)  # which a folder that is not empty refuses
            _sync(target.parent)


def _must_be_free(target: Path) -> None:
    if (target / "CURRENT").exists():
        raise StoreFormatError(f"there is a store at {target} already: give another path")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreFormatError(f"{target} is there already, and no empty folder: give another path")


@contextmanager
def _claimed(folder: Path) -> Iterator[Path]:
    """Make `folder` and hold its LOCK; clear leftovers in it, and all of it if the rest raises."""
    folder.mkdir(exist_ok=True)
    with open(folder / "LOCK", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "LOCK"))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise StoreError(f"another copy to the same place is under way, in {folder}")
        for path in sorted(folder.iterdir()):
            if path.name == "LOCK":
                continue
            if not path.is_file() or not (_ours(path.name) or path.name in _MADE):
                raise StoreFormatError(f"{path} is in the way of a copy: move it elsewhere")
        for path in folder.iterdir():
            if path.name != "LOCK":
                path.unlink()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


_MADE = ("CURRENT", _CONTENT, f"{_CONTENT}-lock")
