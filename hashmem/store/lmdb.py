"""The backend on LMDB: one folder, crash-safe, shared between processes.

    notes.hashmem/
        CURRENT               two lines of text: "hashmem 1", the format's version, and the name
                              of the generation in use
        LOCK                  empty; its exclusive flock is held by whoever writes
        000001.mdb            a generation: an LMDB file, with its lock table beside it
        000001.mdb-lock
        000001-1-20.rows      a checkpoint of one of its namespaces (hashmem.store.checkpoint)
        ERASE                 only while generations that are not in use are to be overwritten
        quarantine/           after a repair that found damage: what was damaged, as it was

A commit is one LMDB write transaction, synced to disk before it returns. LMDB never shrinks its
file, so `rewrite` fills the next generation, syncs it, and renames a new CURRENT into place:
the one step that decides. Writers look at CURRENT under LOCK, so no two ever write to different
generations. A generation that CURRENT does not name is what an interrupted rewrite left or what
readers elsewhere may still be mapping; the next writer unlinks it, which such readers survive, and
where there is a file ERASE overwrites it first (`hashmem.store.lmdb_erase`).

LMDB maps its file and believes its pages, so one that was cut off or damaged would kill the
process: they are looked through before it is opened (`hashmem.store.lmdb_pages`). The slots of
readers that were killed are freed when an environment is opened and before each commit, as they
would keep LMDB from reusing space.
"""

import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from hashmem.errors import CorruptStoreError, StoreClosedError, StoreError, StoreFormatError
from hashmem.store.backend import Backend, Snapshot, Transaction, Version
from hashmem.store.lmdb_environment import (
    DURABILITY,
    MAX_READERS,
    Environment,
    LmdbSnapshot,
    LmdbTransaction,
    Rewriting,
    open_file,
)
from hashmem.store.lmdb_erase import overwrite, overwrite_database
from hashmem.store.lmdb_pages import Tree, holds_commits

__all__ = ["FORMAT", "QUARANTINE", "LmdbBackend", "filling", "locked", "named_in"]

FORMAT = 2  # version of everything inside the folder; docs/format.md
QUARANTINE = "quarantine"  # a folder there, of what repairs found damaged


PATIENCE = 100  # times 10 ms to wait for a writer, when a file is to be looked through
T = TypeVar("T")
LEFT = b"m"  # a key that says that another generation has taken this one's place


class LmdbBackend(Backend):
    """The folder at `path`, created if it is not there (unless `readonly`).

    Raises `StoreFormatError` where the path is a file, another kind of folder or a newer version,
    `StoreError` where it cannot be read or written.
    """

    durable = True
    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        durability: str = "full",
    ) -> None:
        if durability not in DURABILITY:
            raise ValueError(f"durability is one of {', '.join(DURABILITY)}, not {durability!r}")
        if not os.fspath(path):
            raise ValueError("the path of a store is empty: give the name of a folder")
        self._folder = Path(os.path.abspath(os.fsdecode(path)))
        self.path = self.folder = str(self._folder)
        self.readonly = readonly
        self.durability = durability
        self._writer = threading.RLock()  # flock holds against processes, this among threads
        self._pid = os.getpid()
        self._environment: Environment | None = None
        self._closed = False
        with _explained(f"cannot open {self.path}", self.readonly):
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
        names = set(os.listdir(folder)) - {"CURRENT"}  # somebody may have been quicker
        strangers = [name for name in sorted(names) if not _ours(name)]
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
                        f'use: restore CURRENT, two lines, "hashmem {FORMAT}" and the name, '
                        "or run hashmem.store.repair"
                    )
            _remove(self._folder, name)  # from a creation that was interrupted
            fresh = open_file(folder / name, create=True)
            fresh.sync(True)
            fresh.close()
            _point_at(self._folder, name)
            _sync(folder.parent)

    def _sweep(self) -> None:
        """Unlink the generations not in use, unless somebody is writing just now.

        Where they are to be overwritten and are still read, they stay.
        """
        with suppress(BlockingIOError), self._lock(wait=False):
            if (self._folder / "ERASE").exists():
                with suppress(OSError, lmdb.Error):  # what is left over keeps nobody out
                    self._erase(deadline=0)
                return
            current = self._current()
            if not (self._folder / current).exists():
                return  # what is lost may be made good from the others
            for path in self._folder.iterdir():
                if _generation_of(path.name) not in (None, _generation_of(current)):
                    path.unlink(missing_ok=True)

    def _erase(self, deadline: float) -> None:
        """Overwrite and unlink all generations not in use. Under the lock, in the order of age.

        Raises `StoreError` where one is still read at `deadline`; it stays, with those after it.
        """
        current = self._current()
        stems = {name.partition(".")[0].partition("-")[0] for name in os.listdir(self._folder)}
        names = {f"{stem}.mdb" for stem in stems} - {current}
        for name in sorted(filter(_is_generation, names), key=lambda name: (len(name), name)):
            path = self._folder / name
            was_in_use = len(name) < len(current) or (len(name) == len(current) and name < current)
            if path.exists() and was_in_use and holds_commits(path):
                overwrite_database(path, deadline)
            elif path.exists():  # left by a rewrite that was interrupted: nobody reads it, and
                overwrite(path)  # LMDB must not, as its pages may not have reached the disk
            _remove(self._folder, name)
        (self._folder / "ERASE").unlink(missing_ok=True)
        _sync(self._folder)

    def _current(self) -> str:
        """The file name of the generation in use, from CURRENT."""
        try:
            with open(f"{self._folder}/CURRENT", "rb", buffering=0) as file:
                return named_in(file.readall(), self._folder)
        except FileNotFoundError:
            raise StoreFormatError(
                f"{self._folder} is no store any more: CURRENT is gone"
            ) from None

    def _follow(self) -> "Environment":
        """Open the generation that CURRENT names, if it is another than the one open."""
        with _explained(f"cannot open {self.path}", self.readonly):
            return self._newest()

    def _newest(self) -> "Environment":
        held = self._held()
        name = self._current()
        if held is not None and held.name == name:
            return held
        for _ in range(100):
            try:
                fresh = self._undisturbed(
                    partial(Environment.share, self._folder / name, self.readonly, self.durability)
                )
                break
            except FileNotFoundError:  # a rewrite took it away in between
                name = self._current()
        else:
            raise StoreFormatError(f"{self._folder}: CURRENT names {name}, which is not there")
        if held is not None:
            held.release()
        self._environment = fresh
        return fresh

    def _held(self) -> "Environment | None":
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
        with _explained(f"cannot read {self.path}", self.readonly):
            while True:
                snapshot = LmdbSnapshot(environment)
                if snapshot.version == environment.in_use or not self._left(snapshot):
                    environment.in_use = snapshot.version
                    return snapshot
                snapshot.close()
                environment = self._follow()

    def _left(self, snapshot: LmdbSnapshot) -> bool:
        """Whether a snapshot is of a generation that another has taken the place of."""
        marked = snapshot.is_empty or snapshot.extent(LEFT) is not None
        return marked and self._follow() is not snapshot.environment

    def peek(self) -> Version:
        environment = self._held() or self._follow()
        with _explained(f"cannot read {self.path}", self.readonly):
            transaction = environment.begin_read()
        number = transaction.id()
        transaction.abort()
        return environment.generation, number

    def read(self, version: Version, place: tuple[int, int]) -> bytes | None:
        environment = self._environment
        if environment is None or environment.generation != version[0]:
            return None
        try:
            transaction = environment.lmdb.begin(buffers=True)
        except lmdb.Error:
            return None  # as a snapshot will explain
        found = None
        if transaction.id() == version[1]:
            found = environment.reads.one(environment.map, *place)
        transaction.abort()
        return found if found is not None and len(found) == place[1] - place[0] else None

    @property
    def nbytes(self) -> int:
        return self._follow().nbytes

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
            environment.data()  # raises where the file was cut off, as LMDB would touch it
            environment.expect_in_place()
            raw = environment.lmdb.begin(write=True, buffers=True)
            try:
                number = raw.id() - 1
                meta = environment.newest(number)
                if meta is None:
                    raise CorruptStoreError(f"{self.path}: its meta pages are damaged")
                tree = Tree(environment.data(), meta)
                transaction = LmdbTransaction(raw, (environment.generation, number), tree)
                yield transaction
            except BaseException:
                raw.abort()
                raise
            try:
                if transaction.has_changes:
                    environment.commit(raw)
                else:
                    raw.abort()
            except lmdb.Error:
                environment.settle()
                raise
            except BaseException:
                environment.reopen()
                raise

    def sync(self) -> None:
        with _explained(f"cannot sync {self.path}"):
            self._follow().lmdb.sync(True)

    def check(self) -> None:
        with _explained(f"cannot check {self.path}"):
            self._undisturbed(partial(self._follow().check, whole=True))

    def _undisturbed(self, look: Callable[[], T]) -> T:
        """Look through a file; where damage is found, once more without anybody who writes.

        Commits that come in between again and again look like damage.
        """
        try:
            return look()
        except CorruptStoreError as error:
            for _ in range(PATIENCE):
                with ExitStack() as stack:
                    try:
                        stack.enter_context(self._lock(wait=False))
                    except BlockingIOError:
                        time.sleep(0.01)
                        continue
                    except OSError:  # no right to lock
                        raise error from None
                    return look()
            raise

    @contextmanager
    def rewrite(
        self, *, erase: bool = False, timeout: float = 0.0
    ) -> Iterator[tuple[Snapshot, Transaction]]:
        self._must_be_writable()
        with _explained(f"cannot rewrite {self.path}"), self._lock():
            old = self._follow()
            name = _name(old.generation + 1)
            if erase:  # from now on, so that a process that dies leaves the rest to the next
                self._create("ERASE")
            with (
                filling(self._folder, name, overwriting=erase) as transaction,
                LmdbSnapshot(old) as source,
            ):
                yield source, transaction
            raw = old.lmdb.begin(write=True)  # whoever has it open still learns of it
            raw.put(LEFT, b"")
            old.commit(raw)
            self._follow()
            if erase:
                self._erase(time.monotonic() + timeout)
            else:
                _remove(self._folder, old.name)

    def _must_be_writable(self) -> None:
        if self.readonly:
            raise StoreError(f"{self.path} was opened read-only")

    @contextmanager
    def _lock(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the folder's writer lock. Raises `BlockingIOError` if it is held and not `wait`."""
        if self._pid != os.getpid():  # forked: a thread of the parent may hold the lock for ever
            self._pid, self._writer = os.getpid(), threading.RLock()
        with self._writer, locked(self._folder, wait=wait):
            yield

    def _create(self, name: str) -> None:
        (self._folder / name).touch()
        _sync(self._folder)

    def close(self) -> None:
        held, self._environment = self._environment, None
        self._closed = True
        if held is not None and held.pid == os.getpid():
            held.release()


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's writer lock. Raises `BlockingIOError` if it is held and not `wait`."""
    file = os.open(f"{folder}/LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:  # closing alone would not let go if a child forked meanwhile has the file
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


@contextmanager
def filling(folder: Path, name: str, *, overwriting: bool = False) -> Iterator[Transaction]:
    """Give a transaction that fills the generation `name`, which is in use at the end.

    The writer lock must be held. If the context raises, nothing has changed; where `overwriting`,
    what was written is overwritten then.
    """
    _remove(folder, name, overwriting=overwriting)
    try:
        fresh = open_file(folder / name, create=True, durability="none")
        try:
            transaction = Rewriting(fresh, (int(name.partition(".")[0]), 0))
            try:
                yield transaction
                transaction.commit()
            except BaseException:
                transaction.abort()
                raise
        finally:
            fresh.close()
        _point_at(folder, name)
    except BaseException:
        with suppress(FileNotFoundError):
            if name.encode() in (folder / "CURRENT").read_bytes():
                raise  # it is in use already: what failed came after
        _remove(folder, name, overwriting=overwriting)
        raise


def _point_at(folder: Path, name: str) -> None:
    """Make `name` the generation in use: the step a rewrite hangs on, atomic by rename."""
    new = folder / "CURRENT.new"
    with open(new, "wb") as file:
        file.write(f"hashmem {FORMAT}\n{name}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)  # or the new name of CURRENT may outlive a power cut, and `name` not
    os.replace(new, folder / "CURRENT")
    _sync(folder)


def named_in(content: bytes, folder: Path) -> str:
    """The file name of the generation that the content of CURRENT names."""
    text = content.decode("ascii", "replace")
    lines = text.split("\n")
    kind, _, version = lines[0].partition(" ")
    known = kind == "hashmem" and version.isdecimal() and len(version) < 10
    if known and int(version) > FORMAT:
        raise StoreFormatError(
            f"{folder} has format version {version}, newer than {FORMAT}, the last one this "
            "release of hashmem reads: upgrade hashmem"
        )
    if not known or len(lines) != 3 or not _is_generation(lines[1]):
        raise StoreFormatError(f"{folder} is no store: its file CURRENT reads {text!r:.80}")
    return lines[1]


def _remove(folder: Path, name: str, *, overwriting: bool = False) -> None:
    """Unlink all files of a generation."""
    for path in folder.iterdir():
        if _generation_of(path.name) == _generation_of(name):
            if overwriting and path.suffix == ".mdb":  # others may have checkpoints mapped
                overwrite(path)
            path.unlink(missing_ok=True)


def _name(generation: int) -> str:
    return f"{generation:06}.mdb"


def _ours(name: str) -> bool:
    """Whether a store's folder may hold a file of this name beside CURRENT."""
    known = ("LOCK", "CURRENT.new", "ERASE", QUARANTINE)
    return name in known or _generation_of(name) is not None


_FILES = re.compile(r"([0-9]{6,})(\.mdb|\.mdb-lock|-[0-9]+-[0-9]+\.rows(\.[0-9a-f]{8}\.new)?)")


def _generation_of(name: str) -> int | None:
    """The generation that a file belongs to by its name, None where it is no file of a store's."""
    found = _FILES.fullmatch(name)
    return None if found is None else int(found[1])


def _is_generation(name: str) -> bool:
    return name.endswith(".mdb") and _generation_of(name) is not None


def _sync(folder: Path) -> None:
    """Make the names in a folder durable, where this process may."""
    with suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def _explained(what: str, readonly: bool = False) -> Iterator[None]:
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
        raise StoreError(f"{what}: {error}{_remedy(str(error), readonly)}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(error.errno, f"{what}: {reason}{_remedy(reason, readonly)}") from error


def _remedy(message: str, readonly: bool) -> str:
    # LMDB tells of a write that a full disk cut short as EIO.
    full = [os.strerror(c) for c in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)]
    if any(reason in message for reason in [*full, "MAP_FULL"]):
        return "; nothing of this commit was written: free some space and commit again"
    if os.strerror(errno.EROFS) in message or os.strerror(errno.EACCES) in message:
        if readonly:
            return "; readers sign in to the file *.mdb-lock, which must be writable for them"
        return "; open it read-only (readonly=True) to read what is there, or choose another path"
    return ""
