"""The handle on one namespace of a store: opening, taking turns, committing, catching up.

`MemoryStore` is made of this and of what works on records, annotations and links, a file each.
"""

import logging
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, Self

from hashmem.digests import WIDTHS, BytesLike, digest, hasher
from hashmem.errors import CorruptStoreError, StoreClosedError, StoreError
from hashmem.store.backend import Backend, Reader, Snapshot, Version
from hashmem.store.checkpoint import CheckpointGone
from hashmem.store.compaction import compact
from hashmem.store.group_commit import Group
from hashmem.store.layout import Catalogue, Info, namespace_keys
from hashmem.store.state import State

__all__ = ["Handle", "check_name"]

logger = logging.getLogger("hashmem.store")

KEY_CHECK = b"hashmem: the key of this namespace"
OWN_KEY = 32  # bytes
NEVER: Version = (0, 0)  # no commit has it
TRIES = 20  # a checkpoint may be replaced between the snapshot that names it and opening it


class Handle:
    """One namespace, opened: see `MemoryStore` for the parameters."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        algorithm: str | None = None,
        namespace: str = "",
        key: bytes | None = None,
        plain_digests: bool = False,
        readonly: bool = False,
        durability: str = "full",
        backend: Backend | None = None,
    ) -> None:
        self._closed = True  # until all below has succeeded
        if algorithm is not None or key is not None:
            hasher(algorithm or "sha256", key=key)  # raises on a bad argument, before any file
        if plain_digests and key is not None:
            raise ValueError("a namespace has plain digests or a key, not both")
        check_name("namespace", namespace)
        self._lock = threading.RLock()
        self._upgraded = 0  # generation, whose header names the version that is written
        self._turns = 0  # that the thread which has the lock is in
        self._group = Group()
        self._backend = backend or _open_backend(path, readonly, durability)
        self._namespace, self._plain, self._durability = namespace, plain_digests, durability
        self._given_key = self._key = key
        try:
            self._open(algorithm)
        except BaseException:
            if backend is None:
                self._backend.close()
            raise
        self._closed = False

    def _open(self, algorithm: str | None) -> None:
        self._pid = os.getpid()
        known: State | None = getattr(self, "_state", None)  # in a forked child
        with self._backend.snapshot() as reader:
            number = Catalogue.read(reader).namespaces.get(self._namespace)
        if known is not None and number != known.namespace:
            raise self._dropped()
        if number is None:
            self._create_namespace(algorithm or "sha256")
        for last in reversed(range(TRIES)):
            try:
                with self._backend.snapshot() as reader:
                    self._read(reader, algorithm)
                return
            except CheckpointGone:  # a newer commit may have another
                if last == 0:
                    raise

    def _read(self, reader: Reader, algorithm: str | None) -> None:
        number = Catalogue.read(reader).namespaces[self._namespace]
        info = Info.read(reader, number)
        if info is None:
            raise CorruptStoreError(f"namespace {self._namespace!r} has lost its record")
        if algorithm is not None and algorithm != info.algorithm:
            raise ValueError(
                f"this store's digests are {info.algorithm}, not {algorithm}: "
                "leave the algorithm out, or choose another namespace"
            )
        self._key = self._key_of(info)
        self._state = State(number, info)
        self._state.load(reader, self._backend.folder)
        self._version = self._seen = reader.version

    def _create_namespace(self, algorithm: str) -> None:
        if self._backend.readonly:
            raise StoreError(f"there is no namespace {self._namespace!r} to read")
        with self._backend.write() as transaction:
            catalogue = Catalogue.read(transaction)
            if self._namespace in catalogue.namespaces:
                return  # somebody was quicker
            number = catalogue.next_namespace
            catalogue.namespaces[self._namespace] = number
            catalogue.next_namespace += 1
            catalogue.write(transaction)
            info = Info(algorithm)
            if self._given_key is not None:
                info.key_check = digest(KEY_CHECK, algorithm, key=self._given_key)
            elif self._namespace and not self._plain:
                info.own_key = os.urandom(OWN_KEY)
            info.write(transaction, number)

    def _key_of(self, info: Info) -> bytes | None:
        """The key of this namespace's digests. Raises `ValueError` where that given is not it."""
        name, given = f"namespace {self._namespace!r}", self._given_key
        if not info.key_check and given is not None:
            what = "a key of its own" if info.own_key else "no key"
            raise ValueError(f"{name} has {what}: leave the key out")
        if self._plain and (info.key_check or info.own_key):
            raise ValueError(f"{name} has keyed digests, not plain ones: leave plain_digests out")
        if info.key_check and given is None:
            raise ValueError(f"{name} needs a key")
        if info.key_check and digest(KEY_CHECK, info.algorithm, key=given) != info.key_check:
            raise ValueError(f"{name} needs another key")
        return info.own_key or given

    def _dropped(self) -> StoreError:
        return StoreError(
            f"namespace {self._namespace!r} has been dropped by another handle: close this one"
        )

    @property
    def _key_check(self) -> bytes:
        """What tells the key of the digests without giving it away; empty where there is none."""
        return b"" if self._key is None else digest(KEY_CHECK, self.algorithm, key=self._key)

    # -- what this store is ---------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """The folder, None in RAM."""
        return self._backend.path

    @property
    def algorithm(self) -> str:
        """The name of the digests' algorithm."""
        return self._state.info.algorithm

    @property
    def width(self) -> int:
        """The bytes of a digest."""
        return WIDTHS[self.algorithm]

    def digest(self, payload: BytesLike) -> bytes:
        """Return the digest that `payload` has in this namespace, stored or not."""
        return digest(payload, self.algorithm, key=self._key)

    # -- transactions ---------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything written since the last commit durable and visible to others, at once.

        One LMDB transaction, on disk when this returns. Where another process has committed in
        between, what it stored is taken in first, and what both stored is kept once. Threads that
        commit at the same time share a transaction. Raises `StoreError` where it cannot be written
        (no room, say): nothing is lost then, what is committed stays whole and what is not can be
        committed again.
        """
        with self._writing():
            nested = self._turns > 1
            if nested:  # within another call, which others wait for
                self._commit_pending()
        if not nested:
            self._group.commit(self._commit_pending)

    def _commit_pending(self) -> None:
        with self._writing() as state:
            if state.has_repeated and self._backend.version == self._version:
                state.forget_repeated()
            if state.is_pending or state.has_repeated:
                self._commit()

    def _commit(self, change: Callable[[State], object] | None = None) -> None:
        """Commit what is pending, with what `change` makes pending on top of the newest commit.

        `change` is called inside of the transaction, so that no other commit comes between. What
        it made pending stays so where this raises.
        """
        with self._backend.write() as transaction:
            if transaction.version != self._version:
                self._catch_up(transaction)
            state = self._state
            if change is not None:
                change(state)
            if not state.is_pending:
                state.forget_repeated()
                return
            if self._upgraded != transaction.version[0]:
                Catalogue.upgrade(transaction)
            plan = state.write(transaction)
        generation, commit = transaction.version
        self._upgraded = generation
        self._version = NEVER  # if what follows is interrupted, all is read anew
        state.apply(plan)
        self._version = self._seen = (generation, commit + 1)
        self._checkpoint_if_due()
        self._rewrite_if_wasteful()

    def _checkpoint_if_due(self, closing: bool = False) -> None:
        """Write a checkpoint where that pays. Without one, everything is there all the same."""
        state, folder = self._state, self._backend.folder
        if folder is None or not state.checkpoint_due(closing):
            return
        try:
            with self._backend.write() as transaction:
                if transaction.version != self._version:
                    return  # somebody else has committed; the next commit takes that in
                plan = state.write_checkpoint(transaction, folder)
        except (StoreError, CorruptStoreError) as error:
            logger.warning("no checkpoint was written, so that opening takes longer: %s", error)
            return
        generation, commit = self._version
        self._version = NEVER
        state.apply_checkpoint(plan, folder)
        logger.info("wrote a checkpoint of %d rows, %s", plan.committed, plan.info.checkpoint)
        self._version = self._seen = (generation, commit + 1)

    def _rewrite_if_wasteful(self) -> None:
        """Compact, where deletions and rewriting have left far more behind than is needed."""
        if not (self._state.has_removed_many and self._state.is_wasteful(self._backend.nbytes)):
            return
        with self._backend.snapshot() as reader:
            if len(Catalogue.read(reader).namespaces) > 1:
                return  # how much the others need is not known here
        try:
            self._rewrite()
        except (StoreError, CorruptStoreError) as error:  # what was committed is committed
            logger.warning("%s was not compacted: %s", self.path, error)

    def _rewrite(self, progress: Callable[[int], object] | None = None, **options: Any) -> None:
        """Rewrite the store without what nothing needs, and take that in."""
        before = self._backend.nbytes
        try:
            with self._backend.rewrite(**options) as (reader, transaction):
                compact(reader, transaction, self._backend.folder, progress)
        finally:
            self._catch_up()
        logger.info("compacted %s from %d bytes to %d", self.path, before, self._backend.nbytes)

    def sync(self) -> None:
        """Wait until all commits so far are on the disk, as after each where durability is full."""
        with self._writing():
            self._backend.sync()

    def rollback(self) -> None:
        """Forget everything written since the last commit."""
        with self._writing() as state:
            state.undo()

    def refresh(self) -> bool:
        """Take in what others have committed; return whether there was anything.

        What this handle wrote and did not commit stays pending on top of it.
        """
        with self._reading():
            if self._backend.version == self._version:
                return False
            self._catch_up()
            return True

    def _catch_up(self, reader: Reader | None = None) -> None:
        """Bring the state to the commit that `reader` shows, keeping what is pending."""
        if reader is None:
            _ = self._backend.version  # follow a rewrite to its generation
            self._current().close()
            return
        info = self._expect_namespace(reader)
        state = self._state
        state.check_fits(info)  # before what is pending is taken apart
        if reader.version[0] != self._version[0]:
            state = State(state.namespace, info)
        known = self._state
        pending = known.take_pending() if known.is_pending or known.has_repeated else None
        try:
            state.load(reader, self._backend.folder)
        except BaseException:
            if pending is not None:
                known.put_back(pending)
            raise
        self._state = state
        self._version = self._seen = reader.version
        if pending is not None:
            state.put_back(pending)

    def _current(self) -> Snapshot:
        """Return a snapshot of the newest commit, having caught up with it."""
        for last in reversed(range(TRIES)):
            snapshot = self._backend.snapshot()
            try:
                if snapshot.version != self._version:
                    self._catch_up(snapshot)
                return snapshot
            except BaseException as error:
                snapshot.close()
                if last == 0 or not isinstance(error, CheckpointGone):
                    raise  # a newer commit may have another checkpoint
        raise AssertionError  # the loop returns or raises

    def _look_around(self) -> None:
        """After a commit by somebody else: is this namespace still there?"""
        with self._backend.snapshot() as snapshot:
            self._expect_namespace(snapshot)
            self._seen = snapshot.version

    def _expect_namespace(self, reader: Reader) -> Info:
        info = Info.read(reader, self._state.namespace)
        if info is None:
            raise self._dropped()
        return info

    # -- namespaces and the end ------------------------------------------------------------------

    def namespaces(self) -> list[str]:
        """Return the names of all namespaces of this store."""
        with self._reading(), self._backend.snapshot() as reader:
            return sorted(Catalogue.read(reader).namespaces)

    def drop_namespace(self, name: str) -> None:
        """Remove another namespace with all its records, in one commit of its own.

        Raises `ValueError` on this handle's own namespace and `KeyError` on one that is not there.
        """
        if name == self._namespace:
            raise ValueError(f"{name!r} is the namespace in use: drop it from another")
        with self._writing(), self._backend.write() as transaction:
            catalogue = Catalogue.read(transaction)
            if name not in catalogue.namespaces:
                raise KeyError(f"no namespace is called {name!r}")
            for key in namespace_keys(transaction, catalogue.namespaces.pop(name)):
                transaction.delete(key)
            catalogue.write(transaction)

    def close(self) -> None:
        """Commit what is pending and let go of the store. Idempotent.

        Results of `get_many` stay readable until they are closed themselves. Raises `StoreError`
        where it cannot be written: the store stays open then and nothing is lost; make room and
        close again, or `rollback` first.
        """
        if self._closed:
            return
        with self._lock:
            if self._pid == os.getpid() and not self._backend.readonly:
                self._commit_pending()
                self._checkpoint_if_due(closing=True)
            self._closed = True
            self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and not self._closed:
            self._state.undo()
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._pid == os.getpid():
            if self._state.is_pending:
                warnings.warn(
                    f"a MemoryStore on {self.path} was dropped with uncommitted writes, "
                    "which are lost: use it as a context manager, or call commit()",
                    ResourceWarning,
                    stacklevel=1,
                )
            self._closed = True
            self._backend.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._state.payloads.count()} records"
        name = type(self).__name__
        return f"<{name} {self.path or 'in RAM'}, {self._state.info.algorithm}, {state}>"

    # -- turns ----------------------------------------------------------------------------------

    def _reading(self) -> "_Turn":
        return _Turn(self, looking=True)

    def _writing(self) -> "_Turn":
        if self._backend.readonly:
            raise StoreError(f"{self.path} was opened read-only")
        return _Turn(self, looking=False)  # a commit looks


class _Turn:
    """One thread's turn with a store: checks that it is open, whose process this is, and where it
    is `looking`, that what others have committed leaves this namespace its place."""

    __slots__ = ("_looking", "_store")

    def __init__(self, store: Handle, looking: bool) -> None:
        self._store, self._looking = store, looking

    def __enter__(self) -> State:
        store = self._store
        if store._pid != os.getpid():  # forked: another thread of the parent may hold the lock
            store._lock, store._group = threading.RLock(), Group()
            store._turns = 0
        store._lock.acquire()
        try:
            if store._closed:
                raise StoreClosedError("this store is closed")
            if store._pid != os.getpid():
                store._open(None)
            elif self._looking and store._turns == 0 and store._backend.peek() != store._seen:
                store._look_around()
        except BaseException:
            store._lock.release()
            raise
        store._turns += 1
        return store._state

    def __exit__(self, *exception: object) -> None:
        self._store._turns -= 1
        self._store._lock.release()


def check_name(of: str, name: object) -> None:
    """Raise where the name of a namespace, column or relation cannot be stored and read back."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a {of} is text, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!a} cannot be the name of a {of}: {error.reason}") from error


def _open_backend(path: str | os.PathLike[str] | None, readonly: bool, durability: str) -> Backend:
    if path is None:
        from hashmem.store.ram import RamBackend

        if readonly:
            raise ValueError("a store in RAM starts empty: there is nothing to read in it")
        return RamBackend()
    from hashmem.store.lmdb import LmdbBackend

    return LmdbBackend(path, readonly=readonly, durability=durability)
