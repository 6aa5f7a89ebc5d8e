"""MemoryStore: what users hold. Records by digest, links between them, in a folder or in RAM."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from os import getpid
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import BytesLike, Digests, as_digests, digest_many
from hashmem.errors import CorruptStoreError, RecordNotFound, StoreError
from hashmem.store.annotations import Annotations, Metadata, packed
from hashmem.store.backend import Snapshot
from hashmem.store.checking import Checking
from hashmem.store.checkpoint import Codes
from hashmem.store.linking import Linking
from hashmem.store.moving import Moving
from hashmem.store.records import Records
from hashmem.store.space import Space

__all__ = ["MemoryStore"]

Flags = NDArray[np.bool_]
AnyDigests = Digests | Sequence[bytes] | bytes
Default = TypeVar("Default")

CATCH_UPS = 100  # times a read follows a store that is being rewritten


class MemoryStore(Checking, Moving, Annotations, Linking, Space):
    """Records addressed by the digest of their content, with metadata and links.

    With a `path` the store is a folder, crash-safe and shared between processes; without one it
    lives in RAM and is gone when closed. What is written can be read at once through this handle,
    is seen by others and survives a crash from `commit` on, and is gone after `rollback`. As a
    context manager the store commits and closes at the end, or rolls back if the block raises.

    :param path: the folder, made if it is not there; None for RAM.
    :param algorithm: "sha256", "xxh3_128" or "xxh3_64"; by default what the store has, or sha256.
    :param namespace: which of the store's separate sets of records to work on. One that is made
        with a name gets a random key of its own, kept in the store, so that the same content has
        another digest in each; the one without a name has the digests of `hashmem.digest`.
    :param key: the secret of a keyed namespace (1 to 64 bytes), which is not kept in the store;
        its digests mean nothing to who does not have it.
    :param plain_digests: let a namespace with a name have the digests of `hashmem.digest` when it
        is made, and take no other.
    :param readonly: refuse writes, and refuse to make a store.
    :param durability: what `commit` waits for. "full": it is on the disk. "ordered": its data is,
        and a loss of power may undo the last commits, each whole. "none": nothing; a loss of power
        may damage the store beyond repair, though a killed process never does. `sync` makes up for
        it. ``docs/format.md`` has a table.
    :param backend: a `hashmem.store.backend.Backend` of your own, instead of a path.

    Raises `StoreFormatError` where `path` holds something else or a newer version, `StoreError`
    where it cannot be read or written, `ValueError` on an algorithm, key or kind of digests that is
    not what the namespace was made with.

    One handle may be used by many threads; its methods take turns. Each process opens its own; a
    handle inherited by a forked child reopens itself, without what was not committed. A pickled one
    is where its store is, and the process that loads it opens that: path, namespace, algorithm and
    `readonly`, nothing stored. Pickling raises `TypeError` in RAM, on a backend of your own and
    with a key, which would lie open in the pickle, and `StoreError` with uncommitted writes.

    >>> with MemoryStore() as store:
    ...     d = store.put(b"payload", {"source": "a.txt"})
    ...     store[d], store.metadata(d)
    (b'payload', {'source': 'a.txt'})
    """

    # -- records --------------------------------------------------------------------------------

    def put(self, payload: BytesLike, metadata: Metadata | None = None) -> bytes:
        """Store `payload` unless it is stored; return its digest.

        `metadata`, where given, replaces what the record had. O(bytes). Raises `TypeError` where
        the payload is not bytes-like or the metadata not made of msgpack's types.
        """
        return bytes(self.put_many([payload], None if metadata is None else [metadata])[0])

    def put_many(
        self,
        payloads: Iterable[BytesLike],
        metadata: Sequence[Metadata | None] | None = None,
    ) -> Digests:
        """Store each payload that is not stored yet; return their digests, uint8 (n, width).

        `metadata` has one map (or None) for each payload. All or nothing: where one item is bad,
        `TypeError` or `ValueError` names its position and nothing is stored. O(bytes). Uncommitted
        payloads are held in memory, also those that are stored already: commit now and then. A
        record that was put and that another handle deletes meanwhile is stored again by `commit`.
        """
        items = payloads if isinstance(payloads, list | np.ndarray) else list(payloads)
        with self._writing() as state:
            digests = digest_many(items, self.algorithm, key=self._key)
            maps = packed(metadata, len(digests))
            rows, new = state.intern(digests)
            if new.all():
                missing = np.arange(len(rows))
            else:
                held = state.payloads.holds(rows)
                missing = np.flatnonzero(~held)
                again = np.flatnonzero(held & ~state.payloads.pending.lengths(rows)[0])
                state.repeat(rows[again], _fixed([items[i] for i in again.tolist()]))
            chosen: Any = items
            if len(missing) < len(items):
                chosen = [items[i] for i in missing.tolist()]
            state.payloads.pending.set(rows[missing], _fixed(chosen))
            if maps is not None:
                given = [i for i, item in enumerate(maps) if item is not None]
                state.metadata.pending.set(rows[given], [maps[i] for i in given])
        return digests

    def get(self, digest: bytes, default: Default | None = None) -> bytes | Default | None:
        """Return a copy of the record's content, or `default` where it is not stored.

        Raises `CorruptStoreError` where `verify` or `scrub` has found it damaged.
        """
        found = self._get_one(digest)
        return default if found is None else found

    def __getitem__(self, digest: bytes) -> bytes:
        """Return a copy of the record's content. Raises `RecordNotFound` (a `KeyError`)."""
        found = self._get_one(digest)
        if found is None:
            raise RecordNotFound(f"no record has the digest {bytes(digest).hex()}")
        return found

    def _get_one(self, digest: bytes) -> bytes | None:
        # A call costs as much as the read: what `_reading` does stands here once more.
        if type(digest) is bytes and self._pid == getpid():
            with self._lock:
                state = self._state
                payloads = state.payloads
                if len(digest) == state.width and not (self._closed or payloads.pending.items):
                    row = state.table.look(digest)
                    place = (0, 0) if row is None else payloads.place(row, self._version)
                    # Known of a plain record, in a pack that was read from before.
                    if place is not None and row not in state.suspect:
                        found = self._backend.read(self._version, place)
                        if found is not None:  # nobody has committed since
                            return found if row is not None else None
        with self.get_many(as_digests(digest, self.width, "digest")) as records:
            return records[0]

    def get_many(self, digests: AnyDigests, *, verify: bool = False) -> Records:
        """Return the contents of many digests: a `Records` sequence, None where one is missing.

        O(n) to make; each item is read when it is accessed. With `verify` every content is
        digested again first, and `CorruptStoreError` names the first that is not what was stored;
        without it content is not checked, and damage on the disk shows only in `verify()`. Raises
        `CorruptStoreError` too where that or `scrub()` has found one of the records damaged.
        """
        queries = as_digests(digests, self.width)
        with self._reading():
            for _ in range(CATCH_UPS):
                state = self._state  # catching up may number rows anew
                rows = state.table.find(queries)
                codes = state.payloads.codes(rows)
                snapshot = self._backend.snapshot()
                frame = None
                if self._shows(snapshot, codes):
                    frame = state.payloads.frame(snapshot, codes)
                if frame is not None:
                    break
                snapshot.close()
                self._catch_up()
            else:
                raise StoreError(
                    "packs that should be there are gone, or the store is rewritten faster than it "
                    "can be read: try again, and run verify()"
                )
            if state.suspect and len(spoilt := state.spoilt(rows)):
                snapshot.close()
                raise self._spoilt(state, rows, spoilt)
            pending = dict(state.payloads.pending.among(rows))
            large = state.payloads.large_at(rows, codes)
            records = Records(snapshot, state.payloads, frame, codes, large, pending)
        if verify:
            self._verify_records(records, queries)
        return records

    def _shows(self, snapshot: Snapshot, codes: Codes) -> bool:
        """Whether a snapshot still has all packs that `codes` speak of."""
        if snapshot.version == self._version:
            return True
        if snapshot.version[0] != self._version[0]:
            return False
        self._expect_namespace(snapshot)
        return self._state.payloads.has_packs(snapshot, codes)

    def _verify_records(self, records: Records, queries: Digests) -> None:
        try:
            at = records.first_damaged(queries, self.algorithm, self._key)
            if at is not None:
                raise CorruptStoreError(
                    f"position {at}: the content stored for {bytes(queries[at]).hex()} is damaged; "
                    "run verify() to list all damage"
                )
        except CorruptStoreError:
            records.close()
            raise

    def contains(self, digests: AnyDigests) -> Flags:
        """Tell for each digest whether its record is stored: bool (n,)."""
        queries = as_digests(digests, self.width)
        with self._reading() as state:
            rows = state.table.find(queries)
            return state.payloads.holds(rows)

    def __contains__(self, digest: object) -> bool:
        try:
            queries = as_digests(digest, self.width, "digest")
        except (TypeError, ValueError):
            return False  # as a mapping answers for what cannot be its key
        return len(queries) == 1 and bool(self.contains(queries)[0])

    def __len__(self) -> int:
        with self._reading() as state:
            return state.payloads.count()

    def digests(self) -> Digests:
        """Return the digests of all records, uint8 (n, width), the longest known first."""
        with self._reading() as state:
            return state.table.digests(np.flatnonzero(state.payloads.held(state.rows)))

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self.digests())

    def delete(self, digest: bytes) -> bool:
        """Remove a record, its metadata and the links from it; return whether it was stored.

        Links to it stay and lead to its digest, as to any digest that is not stored. Its space is
        given back by `compact`.
        """
        return bool(self.delete_many(as_digests(digest, self.width, "digest"))[0])

    def delete_many(self, digests: AnyDigests) -> Flags:
        """Remove records as `delete` does; tell for each whether it was stored, bool (n,)."""
        queries = as_digests(digests, self.width)
        with self._writing() as state:
            rows = state.table.find(queries)
            held = state.payloads.holds(rows)
            _, first = np.unique(rows, return_index=True)
            removed = np.zeros(len(rows), bool)
            removed[first] = held[first]
            state.remove(rows[removed])
            return removed

    # -- care -----------------------------------------------------------------------------------

    def compact(self, progress: Callable[[int], object] | None = None) -> None:
        """Commit, then rewrite the store without what was deleted or replaced.

        All namespaces; needs no key. Readers go on undisturbed, writers wait. The file shrinks to
        what is live, plus what is being written meanwhile: for a time both exist. Interrupted at
        any moment, the store is as before. `progress` is called with the number of records just
        copied. O(bytes stored).
        """
        with self._writing():
            self._commit_pending()
            self._rewrite(progress)

    def statistics(self) -> dict[str, Any]:
        """Return counts and sizes as plain types; all sizes in bytes. O(rows)."""
        with self._reading() as state:
            payloads = state.payloads
            return {
                "path": self.path,
                "algorithm": self.algorithm,
                "namespace": self._namespace,
                "records": payloads.count(),
                "placeholders": state.rows - payloads.count(),
                "payload_bytes": payloads.total_bytes(state.rows),
                "storage_bytes": self._backend.nbytes,
                "successors": int((state.links.successors >= 0).sum()),
                "edges": int(state.links.edges().shape[1]),
                "relations": list(state.relations),
                "columns": sorted(state.named),
                "packs": sum(len(column.sizes) for column in state.columns),
                "damaged_packs": sum(len(column.damaged) for column in state.columns),
                "pending": sum(len(column.pending) for column in state.columns),
                "snapshots_held": self._backend.snapshots,
                "table_bytes": state.table.nbytes,
            }


def _fixed(items: Any) -> list[bytes]:
    """The contents as they are now: what could change is copied."""
    return items if set(map(type, items)) == {bytes} else list(map(_as_bytes, items))


def _as_bytes(item: Any) -> bytes:
    """The bytes that were digested: `bytes` would make n zeros of a NumPy integer n."""
    if isinstance(item, np.ndarray | np.generic):
        return item.tobytes()
    return bytes(memoryview(item))
