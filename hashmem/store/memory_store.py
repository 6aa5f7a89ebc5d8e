"""MemoryStore: what users hold. Records by digest, links between them, in a folder or in RAM."""

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from hashmem import hops
from hashmem.digests import (
    WIDTHS,
    BytesLike,
    Digests,
    as_digests,
    digest,
    digest_many,
    hasher,
)
from hashmem.errors import CorruptStoreError, RecordNotFound, StoreClosedError, StoreError
from hashmem.store.backend import Backend, Reader, Snapshot
from hashmem.store.compaction import compact
from hashmem.store.layout import Catalogue, Info, namespace_keys
from hashmem.store.records import Records
from hashmem.store.state import State
from hashmem.store.verification import Verification, verify

__all__ = ["MemoryStore"]

Flags = NDArray[np.bool_]
AnyDigests = Digests | Sequence[bytes] | bytes
Metadata = Mapping[str, Any]
Default = TypeVar("Default")

KEY_CHECK = b"hashmem: the key of this namespace"


class MemoryStore:
    """Records addressed by the digest of their content, with metadata and links.

    With a `path` the store is a folder, crash-safe and shared between processes; without one it
    lives in RAM and is gone when closed. What is written can be read at once through this handle,
    is seen by others and survives a crash from `commit` on, and is gone after `rollback`. As a
    context manager the store commits and closes at the end, or rolls back if the block raises.

    :param path: the folder, made if it is not there; None for RAM.
    :param algorithm: "sha256", "xxh3_128" or "xxh3_64"; by default what the store has, or sha256.
    :param namespace: which of the store's separate sets of records to work on.
    :param key: the secret of a keyed namespace (1 to 64 bytes); its digests mean nothing to who
        does not have it.
    :param readonly: refuse writes, and refuse to make a store.

    Raises `StoreFormatError` where `path` holds something else or a newer version, `StoreError`
    where it cannot be read or written, `ValueError` on an algorithm or key that is not the one
    the namespace was made with.

    One handle may be used by many threads; its methods take turns. Each process opens its own; a
    handle inherited by a forked child reopens itself, without what was not committed.

    >>> with MemoryStore() as store:
    ...     d = store.put(b"payload", {"source": "a.txt"})
    ...     store[d], store.metadata(d)
    (b'payload', {'source': 'a.txt'})
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        algorithm: str | None = None,
        namespace: str = "",
        key: bytes | None = None,
        readonly: bool = False,
        backend: Backend | None = None,
    ) -> None:
        self._closed = True  # until all below has succeeded
        if algorithm is not None or key is not None:
            hasher(algorithm or "sha256", key=key)  # raises on a bad argument, before any file
        self._lock = threading.RLock()
        self._backend = backend if backend is not None else _open_backend(path, readonly)
        self._namespace, self._key = namespace, key
        try:
            self._open(algorithm)
        except BaseException:
            if backend is None:
                self._backend.close()
            raise
        self._closed = False

    def _open(self, algorithm: str | None) -> None:
        self._pid = os.getpid()
        with self._backend.snapshot() as reader:
            number = Catalogue.read(reader).namespaces.get(self._namespace)
        if number is None:
            self._create_namespace(algorithm or "sha256")
        with self._backend.snapshot() as reader:
            number = Catalogue.read(reader).namespaces[self._namespace]
            info = Info.read(reader, number)
            if info is None:
                raise CorruptStoreError(f"namespace {self._namespace!r} has lost its record")
            if algorithm is not None and algorithm != info.algorithm:
                raise ValueError(
                    f"this store's digests are {info.algorithm}, not {algorithm}: "
                    "leave the algorithm out, or choose another namespace"
                )
            if self._key_check(info.algorithm) != info.key_check:
                raise ValueError(
                    f"namespace {self._namespace!r} "
                    + ("needs another key" if info.key_check and self._key else "needs a key")
                    if info.key_check
                    else f"namespace {self._namespace!r} has no key: leave it out"
                )
            self._state = State(number, info)
            self._state.load(reader)
            self._version = reader.version
        self._digest_one = hasher(info.algorithm, key=self._key)

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
            Info(algorithm, self._key_check(algorithm)).write(transaction, number)

    def _key_check(self, algorithm: str) -> bytes:
        return b"" if self._key is None else digest(KEY_CHECK, algorithm, key=self._key)

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
        payloads are held in memory: commit now and then.
        """
        items = payloads if isinstance(payloads, list | np.ndarray) else list(payloads)
        with self._writing() as state:
            digests = digest_many(items, self.algorithm, key=self._key)
            packed = _packed(metadata, len(digests))
            rows, new = state.intern(digests)
            if new.all():
                missing = np.arange(len(rows))
            else:
                missing = np.flatnonzero(~state.payloads.holds(rows))
            chosen = items if len(missing) == len(items) else [items[i] for i in missing.tolist()]
            contents = [
                item
                if type(item) is bytes
                else (item.tobytes() if isinstance(item, np.ndarray) else bytes(item))
                for item in chosen
            ]
            state.payloads.pending.set(rows[missing], contents)
            if packed is not None:
                given = [i for i, item in enumerate(packed) if item is not None]
                state.metadata.pending.set(rows[given], [packed[i] for i in given])
        return digests

    def get(self, digest: bytes, default: Default | None = None) -> bytes | Default | None:
        """Return a copy of the record's content, or `default` where it is not stored."""
        found = self._get_one(digest)
        return default if found is None else found

    def __getitem__(self, digest: bytes) -> bytes:
        """Return a copy of the record's content. Raises `RecordNotFound` (a `KeyError`)."""
        found = self._get_one(digest)
        if found is None:
            raise RecordNotFound(f"no record has the digest {bytes(digest).hex()}")
        return found

    def _get_one(self, digest: bytes) -> bytes | None:
        with self.get_many(as_digests(digest, self.width, "digest")) as records:
            return records[0]

    def get_many(self, digests: AnyDigests, *, verify: bool = False) -> Records:
        """Return the contents of many digests: a `Records` sequence, None where one is missing.

        O(n) to make; each item is read when it is accessed. With `verify` every content is
        digested again first, and `CorruptStoreError` names the first that is not what was stored;
        without it content is not checked, and damage on the disk shows only in `verify()`.
        """
        queries = as_digests(digests, self.width)
        with self._reading() as state:
            rows = state.table.find(queries)
            snapshot, places = self._places(state, rows)
            pending = dict(state.payloads.pending.among(rows))
            records = Records(snapshot, state.payloads, places, pending)
        if verify:
            self._verify_records(records, queries)
        return records

    def _places(self, state: State, rows: NDArray[np.int64]) -> tuple[Snapshot, Any]:
        """A snapshot and the places of `rows` in it, having caught up if packs have moved."""
        for _ in range(100):
            snapshot = self._backend.snapshot()
            places = state.payloads.places(rows)
            if snapshot.version == self._version:
                return snapshot, places
            used = np.unique(places[0]).tolist()
            if snapshot.version[0] == self._version[0] and all(
                pack < 0 or state.payloads.has_body(snapshot, pack) for pack in used
            ):
                return snapshot, places
            snapshot.close()
            self._catch_up()
            state = self._state
        raise StoreError("the store is rewritten faster than it can be read: try again")

    def _verify_records(self, records: Records, queries: Digests) -> None:
        present = np.flatnonzero(records.found)
        for start in range(0, len(present), 4096):
            positions = present[start : start + 4096]
            contents = [records[i] for i in positions.tolist()]
            again = digest_many(
                [content for content in contents if content is not None],
                self.algorithm,
                key=self._key,
            )
            bad = (again != queries[positions]).any(axis=1)
            if bad.any():
                at = int(positions[int(np.argmax(bad))])
                records.close()
                raise CorruptStoreError(
                    f"position {at}: the content stored for {bytes(queries[at]).hex()} is damaged; "
                    "run verify() to list all damage"
                )

    def contains(self, digests: AnyDigests) -> Flags:
        """Tell for each digest whether its record is stored: bool (n,)."""
        queries = as_digests(digests, self.width)
        with self._reading() as state:
            rows = state.table.find(queries)
            return state.payloads.holds(rows)

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != self.width:
            return False
        return bool(self.contains(digest)[0])

    def __len__(self) -> int:
        with self._reading() as state:
            return state.payloads.count()

    def digests(self) -> Digests:
        """Return the digests of all records, uint8 (n, width), the longest known first."""
        with self._reading() as state:
            digests: Digests = state.table.digests[state.payloads.held(state.rows)]
            return digests

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
            gone = rows[removed]
            nothing = [None] * len(gone)
            state.payloads.pending.set(gone, nothing)
            state.metadata.pending.set(gone, nothing)
            state.set_successors(gone, np.full(len(gone), -1, np.int64))
            state.add_edges(gone, None, gone)
            return removed

    # -- metadata and columns -------------------------------------------------------------------

    def metadata(self, digest: bytes) -> dict[str, Any] | None:
        """Return the metadata of a record, None where it has none or is not stored."""
        return self.metadata_many(as_digests(digest, self.width, "digest"))[0]

    def metadata_many(self, digests: AnyDigests) -> list[dict[str, Any] | None]:
        """Return the metadata of many records, None where there is none."""
        queries = as_digests(digests, self.width)
        with self._reading() as state, self._backend.snapshot() as reader:
            if reader.version != self._version:
                self._catch_up(reader)
                state = self._state
            rows = state.table.find(queries)
            packs, offsets, lengths = state.metadata.places(rows)
            items: list[bytes | memoryview | None] = [None] * len(rows)
            bodies: dict[int, memoryview] = {}
            for i in np.flatnonzero(packs >= 0).tolist():
                place = int(packs[i]), int(offsets[i]), int(lengths[i])
                items[i] = state.metadata.view(reader, *place, bodies)
            for i, item in state.metadata.pending.among(rows):
                items[i] = item
            return [
                None if item is None else _unpacked(item, queries[i])
                for i, item in enumerate(items)
            ]

    def set_metadata(self, digests: AnyDigests, metadata: Sequence[Metadata | None]) -> None:
        """Replace the metadata of stored records; None removes it.

        Raises `RecordNotFound` naming the position of a digest that is not stored; nothing is
        changed then.
        """
        queries = as_digests(digests, self.width)
        packed = _packed(metadata, len(queries))
        with self._writing() as state:
            rows = self._stored_rows(state, queries)
            state.metadata.pending.set(rows, packed or [])

    def write_column(self, name: str, digests: AnyDigests, values: NDArray[Any]) -> None:
        """Set one row of a named fixed-width column, such as a summary, for stored records.

        `values` is (n, k) of one numeric type, the same k and type at every call for one `name`.
        Kept in the same transaction as the records. Raises `RecordNotFound` naming the position
        of a digest that is not stored, `ValueError` on a shape or type that does not fit.
        """
        queries = as_digests(digests, self.width)
        array = np.ascontiguousarray(values)
        if array.ndim != 2 or len(array) != len(queries) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"column {name!r}: expected numbers of shape ({len(queries)}, k), "
                f"got {array.dtype} {array.shape}"
            )
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        with self._writing() as state:
            rows = self._stored_rows(state, queries)
            column = state.column(name, array.dtype.str, array.shape[1])
            column.pending.set(rows, list(map(bytes, array)))

    def read_column(self, name: str) -> tuple[Digests, NDArray[Any]]:
        """Return a named column whole: digests (n, width) and values (n, k).

        Of all records that have it, in the order their digests came to be known. O(n). Raises
        `KeyError` where no column has that name.
        """
        with self._reading() as state, self._backend.snapshot() as reader:
            if reader.version != self._version:
                self._catch_up(reader)
                state = self._state
            if name not in state.named:
                raise KeyError(f"no column is called {name!r}; there are {sorted(state.named)}")
            _, dtype, items = state.described[name]
            rows, values = state.named[name].read_all(reader)
            live = state.payloads.held(state.rows)[rows]
            array = values[live].view(np.dtype(str(dtype))).reshape(-1, int(str(items)))
            digests: Digests = state.table.digests[rows[live]]
            return digests, array

    @property
    def columns(self) -> list[str]:
        """The names of the columns there are."""
        with self._reading() as state:
            return sorted(state.named)

    def _stored_rows(self, state: State, queries: Digests) -> NDArray[np.int64]:
        rows = state.table.find(queries)
        held = state.payloads.holds(rows)
        if not held.all():
            at = int(np.argmin(held))
            raise RecordNotFound(
                f"digests[{at}]: no record has the digest {bytes(queries[at]).hex()}; put it first"
            )
        return rows

    # -- links ----------------------------------------------------------------------------------

    def link(self, source: bytes, target: bytes) -> None:
        """Make `target` the successor of `source`, in place of the one it had.

        Neither needs to be stored: a digest that is not gets a placeholder, which becomes the
        record when its content is put.
        """
        self.link_many(
            as_digests(source, self.width, "source"), as_digests(target, self.width, "target")
        )

    def link_many(self, sources: AnyDigests, targets: AnyDigests) -> None:
        """Make ``targets[i]`` the successor of ``sources[i]``; of equal sources the last wins."""
        source_digests, target_digests = self._pairs(sources, targets)
        with self._writing() as state:
            source_rows, _ = state.intern(source_digests)
            target_rows, _ = state.intern(target_digests)
            state.set_successors(source_rows, target_rows)

    def unlink(self, sources: AnyDigests) -> None:
        """Take the successors of `sources` away."""
        queries = as_digests(sources, self.width, "sources")
        with self._writing() as state:
            rows = state.table.find(queries)
            known = rows[rows >= 0]
            state.set_successors(known, np.full(len(known), -1, np.int64))

    def add_link(self, source: bytes, target: bytes, relation: str = "link") -> None:
        """Add an edge of a relation from `source` to `target`; the same edge twice is one."""
        self.add_links(
            as_digests(source, self.width, "source"),
            as_digests(target, self.width, "target"),
            relation,
        )

    def add_links(self, sources: AnyDigests, targets: AnyDigests, relation: str = "link") -> None:
        """Add an edge from ``sources[i]`` to ``targets[i]`` for each i, all of one relation."""
        source_digests, target_digests = self._pairs(sources, targets)
        with self._writing() as state:
            source_rows, _ = state.intern(source_digests)
            target_rows, _ = state.intern(target_digests)
            state.add_edges(source_rows, relation, target_rows)

    def clear_links(self, sources: AnyDigests) -> None:
        """Remove all edges that lead from `sources`, of every relation."""
        queries = as_digests(sources, self.width, "sources")
        with self._writing() as state:
            rows = state.table.find(queries)
            known = rows[rows >= 0]
            state.add_edges(known, None, known)

    def _pairs(self, sources: AnyDigests, targets: AnyDigests) -> tuple[Digests, Digests]:
        pair = (
            as_digests(sources, self.width, "sources"),
            as_digests(targets, self.width, "targets"),
        )
        if len(pair[0]) != len(pair[1]):
            raise ValueError(f"{len(pair[0])} sources cannot be linked to {len(pair[1])} targets")
        return pair

    def hop(self, starts: AnyDigests, n: int) -> tuple[Digests, Flags]:
        """Follow n successors from each start: digests (m, width) and whether there are so many.

        Where a start is unknown or its chain ends earlier, the mask is False and the digest all
        zeros. 0 hops lead to the start itself. The digest at the end of a link may be one that is
        not stored. Cost: see `hashmem.hops.hop`.
        """
        queries = as_digests(starts, self.width, "starts")
        with self._reading() as state:
            rows = state.table.find(queries)
            ends = hops.hop(self._all_successors(state), rows, n)
            found = ends >= 0
            digests = np.zeros_like(queries)
            digests[found] = state.table.digests[ends[found]]
            return digests, found

    def trace(self, start: bytes, limit: int | None = None) -> Digests:
        """Return the digests from `start` along successors, start included: uint8 (k, width).

        Ends after `limit` hops, at the end of the chain, or before a digest would come again.
        Empty where `start` is unknown. O(k).
        """
        query = as_digests(start, self.width, "start")
        with self._reading() as state:
            row = int(state.table.find(query)[0])
            rows = hops.trace(self._all_successors(state), row, limit)
            digests: Digests = state.table.digests[rows]
            return digests

    def neighbours(
        self, starts: AnyDigests, depth: int = 1, relation: str | None = None
    ) -> Digests:
        """Return the digests that 1 to `depth` links lead to from any of `starts`, nearest first.

        Follows the edges of one `relation`, or without it all edges and successors. Each digest
        comes once, the starts themselves not at all: uint8 (m, width). O(links), and afterwards
        O(links visited) until links change.
        """
        queries = as_digests(starts, self.width, "starts")
        with self._reading() as state:
            if relation is not None and relation not in state.relations:
                number = len(state.relations)  # a relation that no edge has
            else:
                number = -1 if relation is None else state.relations.index(relation)
            offsets, targets = state.links.csr(state.rows, None if number < 0 else number)
            rows = hops.neighbours(offsets, targets, state.table.find(queries), depth)
            digests: Digests = state.table.digests[rows]
            return digests

    def _all_successors(self, state: State) -> NDArray[np.int64]:
        state.links.successors = hops.grown(state.links.successors, state.rows, -1)
        return state.links.successors

    # -- transactions ---------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything written since the last commit durable and visible to others, at once.

        One LMDB transaction, on disk when this returns. Where another process has committed in
        between, what it stored is taken in first, and what both stored is kept once. Raises
        `StoreError` where it cannot be written (no room, say): nothing is lost then, what is
        committed stays whole and what is not can be committed again.
        """
        with self._writing() as state:
            if not state.is_pending:
                return
            with self._backend.write() as transaction:
                if transaction.version != self._version:
                    self._catch_up(transaction)
                    state = self._state
                plan = state.write(transaction)
            state.apply(plan)
            generation, commit = transaction.version
            self._version = (generation, commit + 1)

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
            with self._backend.snapshot() as snapshot:
                self._catch_up(snapshot)
                return
        pending = self._state.take_pending() if self._state.is_pending else None
        if reader.version[0] != self._version[0]:
            info = Info.read(reader, self._state.namespace)
            if info is None:
                raise StoreError(f"namespace {self._namespace!r} has been dropped")
            self._state = State(self._state.namespace, info)
        self._state.load(reader)
        self._version = reader.version
        if pending is not None:
            self._state.put_back(pending)

    # -- care -----------------------------------------------------------------------------------

    def verify(self, progress: Callable[[int], object] | None = None) -> Verification:
        """Read everything committed and check it: records against digests, packs against checksums.

        `progress` is called with the number of records just checked. The result's `corrupt` lists
        the digests of what is damaged. O(bytes stored); nothing is changed.
        """
        self.refresh()
        with self._reading(), self._backend.snapshot() as reader:
            if reader.version != self._version:
                self._catch_up(reader)
            return verify(
                self._state,
                reader,
                lambda items: digest_many(items, self.algorithm, key=self._key),
                progress or (lambda _: None),
            )

    def compact(self) -> None:
        """Commit, then rewrite the store without what was deleted or replaced.

        All namespaces; needs no key. Readers go on undisturbed, writers wait. The file shrinks to
        what is live, plus what is being written meanwhile: for a time both exist. Interrupted at
        any moment, the store is as before. O(bytes stored).
        """
        with self._writing():
            self.commit()
            with self._backend.rewrite() as (reader, transaction):
                compact(reader, transaction)
            self._catch_up()

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
                "payload_bytes": payloads.total_bytes(),
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

        Results of `get_many` stay readable until they are closed themselves.
        """
        if self._closed:
            return
        with self._lock:
            try:
                if self._pid == os.getpid() and not self._backend.readonly:
                    self.commit()
            finally:
                self._closed = True
                self._backend.close()

    def __enter__(self) -> "MemoryStore":
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
        state = "closed" if self._closed else f"{len(self)} records"
        return f"<MemoryStore {self.path or 'in RAM'}, {self._state.info.algorithm}, {state}>"

    # -- turns ----------------------------------------------------------------------------------

    def _reading(self) -> "_Turn":
        return _Turn(self)

    def _writing(self) -> "_Turn":
        if self._backend.readonly:
            raise StoreError(f"{self.path} was opened read-only")
        return _Turn(self)


class _Turn:
    """One thread's turn with a store: checks that it is open, and whose process this is."""

    __slots__ = ("_store",)

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __enter__(self) -> State:
        store = self._store
        if store._pid != os.getpid():  # forked: another thread of the parent may hold the lock
            store._lock = threading.RLock()
        store._lock.acquire()
        try:
            if store._closed:
                raise StoreClosedError("this store is closed")
            if store._pid != os.getpid():
                store._open(None)
        except BaseException:
            store._lock.release()
            raise
        return store._state

    def __exit__(self, *exception: object) -> None:
        self._store._lock.release()


def _open_backend(path: str | os.PathLike[str] | None, readonly: bool) -> Backend:
    if path is None:
        from hashmem.store.ram import RamBackend

        if readonly:
            raise ValueError("a store in RAM starts empty: there is nothing to read in it")
        return RamBackend()
    from hashmem.store.lmdb import LmdbBackend

    return LmdbBackend(path, readonly=readonly)


def _packed(metadata: Sequence[Metadata | None] | None, n: int) -> list[bytes | None] | None:
    """Each map as msgpack. Raises `TypeError` or `ValueError` naming the position."""
    if metadata is None:
        return None
    if len(metadata) != n:
        raise ValueError(f"{n} records cannot have {len(metadata)} maps of metadata")
    packed: list[bytes | None] = []
    for i, item in enumerate(metadata):
        if item is not None and not isinstance(item, Mapping):
            raise TypeError(f"metadata[{i}]: expected a map, got {type(item).__name__}")
        try:
            packed.append(None if item is None else msgpack.packb(dict(item)))
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"metadata[{i}]: {error}") from error
    return packed


def _unpacked(item: bytes | memoryview, of: Digests) -> dict[str, Any]:
    try:
        found = msgpack.unpackb(item, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptStoreError(f"the metadata of {bytes(of).hex()} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise CorruptStoreError(f"the metadata of {bytes(of).hex()} is damaged: it is no map")
    return found
