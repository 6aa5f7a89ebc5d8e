"""Exporting: the records of one namespace as an archive."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import digest_many
from hashmem.errors import CorruptStoreError, StoreError
from hashmem.store.archive import FRAME_BYTES, METADATA, RECORDS, ArchiveWriter
from hashmem.store.backend import Snapshot
from hashmem.store.handle import Handle
from hashmem.store.layout import Info
from hashmem.store.packs import PACK_LIMIT, cut
from hashmem.store.placed import PlacedColumn
from hashmem.store.records import Records
from hashmem.store.state import State

__all__ = ["Exporting", "Progress", "must_be_committed"]

Progress = Callable[[int], object]  # called with the number of records just done


class Exporting(Handle):
    """The part of `MemoryStore` that writes archives."""

    def export_to(
        self, target: str | os.PathLike[str] | BinaryIO, progress: Progress | None = None
    ) -> int:
        """Write the records of this namespace as one archive; return how many there are.

        Contents, metadata, named columns, successors and edges, as they were committed when it
        began, while others go on writing. `target` is a path, which is replaced once the archive is
        whole and durable, or a binary file to write to, such as a pipe: nothing is read or sought
        there. Each content is digested again on the way. docs/format.md describes every byte.

        Not in it are the namespace's name and key, and columns and relations without any row.
        `progress` is called with the number of records just written. O(bytes of the namespace);
        memory holds places and links, and a named column at a time. Raises `CorruptStoreError`
        where anything is damaged, `StoreError` where `target` is a path that cannot be written or
        this handle has uncommitted writes.
        """
        snapshot, namespace = self._committed("exported")
        with snapshot:
            info = Info.read(snapshot, namespace)
            if info is None:
                raise StoreError(f"namespace {self._namespace!r} was dropped by another handle")
            state = State(namespace, info)
            state.load(snapshot, self._backend.folder)
            with _writing_to(target) as write:
                archive = ArchiveWriter(write, info.algorithm, self._key_check)
                _Export(state, snapshot, archive, self._key).run(progress or (lambda _: None))
            return archive.counts["records"]

    def _committed(self, what: str) -> tuple[Snapshot, int]:
        """A snapshot of the newest commit, and this namespace's number in it."""
        with self._reading() as state:
            must_be_committed(state, f"they would not be {what}")
            _ = self._backend.version  # follow a rewrite to its generation
            return self._backend.snapshot(), state.namespace


def must_be_committed(state: State, why: str) -> None:
    """Raise `StoreError` where something is pending."""
    if state.is_pending:
        raise StoreError(
            f"this handle has writes that are not committed, and {why}: call commit() or "
            "rollback() first"
        )


class _Export:
    """The writing of one namespace, in the order in which its digests came to be known."""

    def __init__(
        self, state: State, snapshot: Snapshot, archive: ArchiveWriter, key: bytes | None
    ) -> None:
        self.state, self.snapshot, self.archive, self.key = state, snapshot, archive, key
        self.sound: set[int] = set()  # packs of metadata that match their checksums

    def run(self, progress: Progress) -> None:
        state = self.state
        for column in state.columns:
            if column.damaged:
                raise CorruptStoreError(
                    f"packs {sorted(column.damaged)} of column {column.number} are damaged, so the "
                    "archive would lack what they held: verify() lists all damage"
                )
        held = state.payloads.held(state.rows)
        self.records(np.flatnonzero(held), progress)
        for name in sorted(state.named):
            rows, values = state.named[name].read_all(self.snapshot)
            live = held[rows]
            _, dtype, items = state.described[name]
            digests = state.table.digests(rows[live])
            self.archive.column(name, str(dtype), int(str(items)), digests, values[live])
        successors = state.links.successors[: state.rows]
        sources = np.flatnonzero(successors >= 0)
        self.links(None, sources, successors[sources])
        edges = state.links.edges()
        for number, relation in enumerate(state.relations):
            chosen = edges[1] == number
            self.links(relation, edges[0, chosen], edges[2, chosen])
        self.archive.finish()

    def records(self, rows: NDArray[np.int64], progress: Progress) -> None:
        """Write contents, and after those of each frame the metadata of the same records."""
        state, width = self.state, self.state.width
        places = state.payloads.places(rows)
        contents = Records.of(self.snapshot, state.payloads, rows)
        about = state.metadata.places(rows)
        having = np.flatnonzero(about[0] >= 0)
        packs, _, sizes = (place[having] for place in about)
        maps = Records.of(self.snapshot, state.metadata, rows[having])
        for start, stop in cut(places[2] + width + 4):
            self.items(RECORDS, contents, rows[start:stop], start)
            first, last = np.searchsorted(having, (start, stop)).tolist()
            for a, b in cut(sizes[first:last] + width + 4):
                a, b = first + a, first + b
                self.check(state.metadata, packs[a:b], sizes[a:b])
                self.items(METADATA, maps, rows[having[a:b]], a)
            progress(stop - start)

    def items(self, kind: int, items: Records, rows: NDArray[np.int64], start: int) -> None:
        data, offsets = items.gather(start, start + len(rows))
        digests = self.state.table.digests(rows)
        if kind == RECORDS:
            algorithm = self.state.info.algorithm
            again = digest_many(data, algorithm, offsets=offsets, key=self.key)
            bad = (again != digests).any(axis=1)
            if bad.any():
                raise CorruptStoreError(
                    f"the content stored for {bytes(digests[int(np.argmax(bad))]).hex()} is "
                    "damaged: verify() lists all damage"
                )
        self.archive.items(kind, digests, data, np.diff(offsets))

    def check(
        self, column: PlacedColumn, packs: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        """Raise `CorruptStoreError` where a pack of `packs` does not match its checksum."""
        parts = max(1, -(-int(sizes[0]) // PACK_LIMIT))  # a large item is alone in a frame
        for pack in np.unique(packs).tolist():
            for number in range(pack, pack + parts):
                if number not in self.sound:
                    column.sound_body(self.snapshot, number)
                    self.sound.add(number)

    def links(
        self, relation: str | None, sources: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> None:
        digests = self.state.table.digests
        step = FRAME_BYTES // (2 * self.state.width)
        for at in range(0, len(sources), step):
            ends = sources[at : at + step], targets[at : at + step]
            self.archive.pairs(relation, digests(ends[0]), digests(ends[1]))


@contextmanager
def _writing_to(target: Any) -> Iterator[Callable[[Any], None]]:
    """What writes to a file, or to a new one that takes the place of `target` at the end."""
    if hasattr(target, "write"):
        yield _whole_writes(target)
        if hasattr(target, "flush"):
            target.flush()
        return
    path = os.path.abspath(os.fsdecode(target))
    with _telling(f"cannot write the archive {path}"):
        with suppress(FileNotFoundError):
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):  # a pipe, a device: as a file
                with open(path, "wb") as file:
                    yield _whole_writes(file)
                return
        beside = f"{path}.{secrets.token_hex(4)}.new"
        try:
            with open(beside, "xb") as file:
                yield _whole_writes(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too survives a loss of power
        finally:
            os.close(folder)


def _whole_writes(file: Any) -> Callable[[Any], None]:
    def write(piece: Any) -> None:
        done = file.write(piece)
        while isinstance(done, int) and done < len(piece):  # a raw file may take a part
            piece = piece[done:]
            done = file.write(piece)

    return write


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(error.errno, f"{what}: {error.strerror or error}") from error
