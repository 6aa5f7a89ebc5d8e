"""The backend on LMDB: one folder, crash-safe, shared between processes.

    notes.hashmem/
        CURRENT               two lines of text: "hashmem 1", the format's version, and the name
                              of the generation in use
        LOCK                  empty; its exclusive flock is held by whoever writes
        000001.mdb            a generation: an LMDB file, with its lock table beside it
        000001.mdb-lock

A commit is one LMDB write transaction, synced to disk before it returns. LMDB never shrinks its
file, so `rewrite` fills the next generation, syncs it, and renames a new CURRENT into place:
the one step that decides. Writers look at CURRENT under LOCK, so no two ever write to different
generations. A generation that CURRENT does not name is what an interrupted rewrite left or what
readers elsewhere may still be mapping; the next writer unlinks it, which such readers survive.

LMDB maps its file, so a file that was cut off would kill the process: its length is checked before
it is opened (`hashmem.store.lmdb_pages`). The slots of readers that were killed are freed when an
environment is opened and before each commit, as they would keep LMDB from reusing space.

LMDB forbids opening one file twice in a process and using it across a fork, so environments are
kept in a table of this process: backends on one file share one, and a forked child drops what it
inherited and opens its own. Reading through a snapshot of the parent's is an error there.
"""

import errno
import fcntl
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from hashmem.errors import StoreClosedError, StoreError, StoreFormatError
from hashmem.store.backend import Backend, Snapshot, Transaction, Version
from hashmem.store.lmdb_pages import check_length, holds_commits

__all__ = ["FORMAT", "LmdbBackend"]

FORMAT = 1  # version of everything inside the folder; docs/format.md
MAP_SIZE = 1 << 40  # 1 TiB of addresses, no memory: growing a map under a live view kills
MAX_READERS = 512  # snapshots open at once, over all processes


class LmdbBackend(Backend):
    """The folder at `path`, created if it is not there (unless `readonly`).

    Raises `StoreFormatError` where the path is a file, another kind of folder or a newer version,
    `StoreError` where it cannot be read or written.
    """

    durable = True
    shared = True

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        self._folder = Path(os.path.abspath(path))
        self.path = str(self._folder)
        self.readonly = readonly
        self._writer = threading.RLock()  # flock holds against processes, this among threads
        self._pid = os.getpid()
        self._environment: _Environment | None = None
        self._closed = False
        with _explained(f"cannot open {self.path}"):
            self._check_place()
            self._follow()

    # -- opening ------------------------------------------------------------------------------

    def _check_place(self) -> None:
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise StoreFormatError(f"{folder} is a file: a store is a folder; give another path")
        if (folder / "CURRENT").exists():
            if not self.readonly:
                self._sweep()
            return
        if self.readonly:
            raise StoreFormatError(f"{folder} holds no store to read")
        folder.mkdir(parents=True, exist_ok=True)
        strangers = [name for name in sorted(os.listdir(folder)) if not _ours(name)]
        if strangers:
            raise StoreFormatError(
                f"{folder} is no store and not empty (it holds {strangers[0]}): give another path"
            )
        with self._lock():
            if (folder / "CURRENT").exists():  # somebody was quicker
                return
            name = _name(1)
            for path in folder.glob("*.mdb"):
                if path.name != name or holds_commits(path):
                    raise StoreFormatError(
                        f"{folder} holds {path.name} and no file CURRENT to say whether it is in "
                        f'use: restore CURRENT, two lines, "hashmem {FORMAT}" and the name'
                    )
            self._remove(name)  # from a creation that was interrupted
            fresh = _open(folder / name, create=True)
            fresh.sync(True)
            fresh.close()
            self._point_at(name)
            _sync(folder.parent)

    def _sweep(self) -> None:
        """Unlink the generations not in use, unless somebody is writing just now."""
        with suppress(BlockingIOError), self._lock(wait=False):
            current = self._current()
            for path in self._folder.glob("*.mdb*"):
                if _ours(path.name) and not path.name.startswith(current):
                    path.unlink(missing_ok=True)

    def _current(self) -> str:
        """The file name of the generation in use, from CURRENT."""
        try:
            text = (self._folder / "CURRENT").read_bytes().decode("ascii", "replace")
        except FileNotFoundError:
            raise StoreFormatError(
                f"{self._folder} is no store any more: CURRENT is gone"
            ) from None
        lines = text.split("\n")
        kind, _, version = lines[0].partition(" ")
        known = kind == "hashmem" and version.isdecimal() and len(version) < 10
        if known and int(version) > FORMAT:
            raise StoreFormatError(
                f"{self._folder} has format version {version}, newer than {FORMAT}, the last one "
                "this release of hashmem reads: upgrade hashmem"
            )
        if not known or len(lines) != 3 or not _is_generation(lines[1]):
            raise StoreFormatError(
                f"{self._folder} is no store: its file CURRENT reads {text!r:.80}"
            )
        return lines[1]

    def _follow(self) -> "_Environment":
        """Open the generation that CURRENT names, if it is another than the one open."""
        held = self._held()
        name = self._current()
        if held is not None and held.name == name:
            return held
        for _ in range(100):
            try:
                fresh = _Environment.share(self._folder / name, self.readonly)
                break
            except FileNotFoundError:  # a rewrite took it away in between
                name = self._current()
        else:
            raise StoreFormatError(f"{self._folder}: CURRENT names {name}, which is not there")
        if held is not None:
            held.release()
        self._environment = fresh
        return fresh

    def _held(self) -> "_Environment | None":
        """The environment open in this process; None before opening and after a fork."""
        if self._closed:
            raise StoreClosedError("this store is closed")
        held = self._environment
        return held if held is not None and held.pid == os.getpid() else None

    # -- reading ------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        environment = self._follow()
        return environment.generation, environment.lmdb.info()["last_txnid"]

    def snapshot(self) -> Snapshot:
        environment = self._held() or self._follow()
        with _explained(f"cannot read {self.path}"):
            return _LmdbSnapshot(environment)

    @property
    def nbytes(self) -> int:
        return os.stat(self._folder / (self._held() or self._follow()).name).st_size

    @property
    def snapshots(self) -> int:
        return len((self._held() or self._follow()).snapshots)

    # -- writing ------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._must_be_writable()
        with _explained(f"cannot commit to {self.path}"), self._lock():
            environment = self._follow()
            environment.lmdb.reader_check()
            with environment.lmdb.begin(write=True, buffers=True) as raw:
                yield _LmdbTransaction(raw, (environment.generation, raw.id() - 1))

    @contextmanager
    def rewrite(self) -> Iterator[tuple[Snapshot, Transaction]]:
        self._must_be_writable()
        with _explained(f"cannot rewrite {self.path}"), self._lock():
            old = self._follow()
            name = _name(old.generation + 1)
            self._remove(name)
            try:
                fresh = _open(self._folder / name, create=True)
                try:
                    with (
                        _LmdbSnapshot(old) as source,
                        fresh.begin(write=True, buffers=True) as raw,
                    ):
                        yield source, _LmdbTransaction(raw, (old.generation + 1, 0))
                finally:
                    fresh.close()
                self._point_at(name)
            except BaseException:
                self._remove(name)
                raise
            self._follow()
            self._remove(old.name)

    def _must_be_writable(self) -> None:
        if self.readonly:
            raise StoreError(f"{self.path} was opened read-only")

    @contextmanager
    def _lock(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the folder's writer lock. Raises `BlockingIOError` if it is held and not `wait`."""
        if self._pid != os.getpid():  # forked: a thread of the parent may hold the lock for ever
            self._pid, self._writer = os.getpid(), threading.RLock()
        with self._writer, open(self._folder / "LOCK", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            try:
                yield
            finally:  # closing alone would not let go if a child forked meanwhile has the file
                fcntl.flock(file, fcntl.LOCK_UN)

    def _point_at(self, name: str) -> None:
        """Make `name` the generation in use: the step a rewrite hangs on, atomic by rename."""
        new = self._folder / "CURRENT.new"
        with open(new, "wb") as file:
            file.write(f"hashmem {FORMAT}\n{name}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._folder / "CURRENT")
        _sync(self._folder)

    def _remove(self, name: str) -> None:
        for leftover in (name, f"{name}-lock"):
            (self._folder / leftover).unlink(missing_ok=True)

    def close(self) -> None:
        held, self._environment = self._environment, None
        self._closed = True
        if held is not None and held.pid == os.getpid():
            held.release()


class _Environment:
    """An open LMDB environment, shared by the backends and snapshots of this process."""

    _open: ClassVar[dict[tuple[int, int], "_Environment"]] = {}  # by device and inode
    _guard = threading.RLock()

    def __init__(self, path: Path, identity: tuple[int, int], readonly: bool) -> None:
        self.identity = identity
        self.name = path.name
        self.generation = int(path.name.partition(".")[0])
        self.pid = os.getpid()
        check_length(path)
        self.lmdb: Any = _open(path, readonly=readonly)
        self.lmdb.reader_check()
        self.readonly = readonly
        self.users = 0
        self.snapshots: weakref.WeakSet[_LmdbSnapshot] = weakref.WeakSet()

    @classmethod
    def share(cls, path: Path, readonly: bool) -> "_Environment":
        """Return the environment on `path`, opening it if this process has not.

        Raises `FileNotFoundError` where it is gone.
        """
        with cls._guard:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            found = cls._open.get(identity)
            if found is not None and found.readonly and not readonly:
                raise StoreError(
                    f"{path.parent} is open read-only in this process: close that store first"
                )
            if found is None:
                found = cls._open[identity] = cls(path, identity, readonly)
            found.users += 1
            return found

    def begin_read(self) -> Any:
        try:
            return self.lmdb.begin(buffers=True)
        except lmdb.ReadersFullError:
            self.lmdb.reader_check()  # frees the slots of processes that were killed
            return self.lmdb.begin(buffers=True)

    def release(self) -> None:
        """One user less; the last one closes."""
        with self._guard:
            self.users -= 1
            if self.users == 0 and self.pid == os.getpid():
                self._open.pop(self.identity, None)
                self.lmdb.close()

    @classmethod
    def forget_inherited(cls) -> None:
        """In a forked child: drop the parent's environments and all that reads from them.

        py-lmdb's `close` unmaps the file here and leaves the parent's slots and locks alone. It
        must be called: where a frame of a thread that is gone refers to an environment, dropping
        references does not close it, and py-lmdb refuses to open one that is still open.
        """
        cls._guard = threading.RLock()
        for environment in cls._open.values():
            for snapshot in list(environment.snapshots):
                snapshot._forget()
            environment.lmdb.close()
        cls._open = {}


os.register_at_fork(after_in_child=_Environment.forget_inherited)


class _LmdbSnapshot(Snapshot):
    def __init__(self, environment: _Environment) -> None:
        self._raw: Any = environment.begin_read()
        self.views = {}
        self._environment: _Environment | None = environment
        with environment._guard:
            environment.users += 1
            environment.snapshots.add(self)
        self.version = (environment.generation, self._raw.id())

    def _transaction(self) -> Any:
        if self._raw is None:
            raise StoreClosedError("the snapshot this was reading from is closed")
        return self._raw

    def get(self, key: bytes) -> memoryview | None:
        value: memoryview | None = self._transaction().get(key)
        return value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return _keys(self._transaction(), prefix)

    def close(self) -> None:
        self.views.clear()
        if self._raw is not None and self._environment is not None:
            self._raw.abort()
            self._environment.snapshots.discard(self)
            self._environment.release()
        self._raw = self._environment = None

    def _forget(self) -> None:
        self.views.clear()
        self._raw = self._environment = None

    def __del__(self) -> None:
        with suppress(AttributeError):  # a constructor that failed
            self.close()


class _LmdbTransaction(Transaction):
    def __init__(self, raw: Any, version: Version) -> None:
        self._raw = raw
        self.version = version

    def get(self, key: bytes) -> memoryview | None:
        value: memoryview | None = self._raw.get(key)
        return value

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return _keys(self._raw, prefix)

    def put(self, key: bytes, value: bytes) -> None:
        self._raw.put(key, value)

    def delete(self, key: bytes) -> None:
        self._raw.delete(key)


def _keys(raw: Any, prefix: bytes) -> Iterator[bytes]:
    with raw.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            yield key
            found = cursor.next()


def _name(generation: int) -> str:
    return f"{generation:06}.mdb"


def _ours(name: str) -> bool:
    """Whether a store's folder may hold a file of this name beside CURRENT."""
    return name in ("LOCK", "CURRENT.new") or _is_generation(name.removesuffix("-lock"))


def _is_generation(name: str) -> bool:
    stem, _, kind = name.partition(".")
    return len(stem) >= 6 and stem.isascii() and stem.isdecimal() and kind == "mdb"


def _sync(folder: Path) -> None:
    """Make the names in a folder durable, where this process may."""
    with suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _open(path: Path, *, readonly: bool = False, create: bool = False) -> Any:
    """Open an LMDB file with as much address space as the system gives, from 1 TiB down.

    Raises `FileNotFoundError` where it is not there and not to be created.
    """
    size = MAP_SIZE
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=size,
                subdir=False,
                readonly=readonly,
                create=create,
                max_readers=MAX_READERS,
                meminit=False,
                mode=0o644,
            )
        except lmdb.Error as error:
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            if "Cannot allocate memory" not in str(error) or size <= 1 << 30:
                raise
            size //= 4


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what LMDB and the file system raise into a `StoreError` that says what to do."""
    try:
        yield
    except (StoreError, StoreClosedError):
        raise
    except lmdb.ReadersFullError as error:
        raise StoreError(
            f"{what}: {MAX_READERS} snapshots are open; let go of results of get_many"
        ) from error
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise StoreFormatError(
            f"{what}: LMDB finds no database of its own there ({error})"
        ) from error
    except lmdb.Error as error:
        raise StoreError(f"{what}: {error}{_remedy(str(error))}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(error.errno, f"{what}: {reason}{_remedy(reason)}") from error


def _remedy(message: str) -> str:
    # LMDB tells of a write that a full disk cut short as EIO.
    full = [os.strerror(c) for c in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)]
    if any(reason in message for reason in [*full, "MAP_FULL"]):
        return "; nothing of this commit was written: free some space and commit again"
    if os.strerror(errno.EROFS) in message or os.strerror(errno.EACCES) in message:
        return "; open it with readonly=True to read it"
    return ""
