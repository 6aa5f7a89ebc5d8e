"""One namespace in memory: the table, the links, the columns, and what is not committed yet.

A digest's row is its place in the table: rows are numbered from 0 in the order digests came to
be known, as records or as mere ends of links (placeholders). The rows below `committed` are the
same in every process; those above are this handle's own until it commits. If somebody else has
committed meanwhile, what is pending is expressed in digests (`take_pending`), the state goes back
to what was committed, reads the news, and numbers the pending digests again (`put_back`).
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import WIDTHS, Digests
from hashmem.errors import CorruptStoreError
from hashmem.hops import Links, grown
from hashmem.store import checkpoint
from hashmem.store.backend import Reader, Transaction
from hashmem.store.checkpoint import Checkpoint, Places
from hashmem.store.columns import Column, Written
from hashmem.store.layout import DIGESTS, EDGES, FIRST_NAMED, METADATA, PAYLOADS, SUCCESSORS, Info
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.placed import PlacedColumn
from hashmem.store.row_table import RowTable

__all__ = ["Pending", "Plan", "State", "as_stored"]

Rows = NDArray[np.int64]

OVERHEAD = 48  # bytes a record, beside its content
WASTEFUL = 1.17  # times what is needed
LEAST = 1 << 20  # bytes more than that


@dataclass
class Pending:
    """Uncommitted changes in terms of digests, which mean the same everywhere."""

    items: dict[str, tuple[Digests, list[bytes | None]]] = field(default_factory=dict)  # by column
    named: dict[str, list[object]] = field(default_factory=dict)  # new columns: name → description
    repeated: list[tuple[Digests, list[bytes]]] = field(default_factory=list)  # see `State.repeat`
    successors: list[tuple[Digests, Digests, NDArray[np.bool_]]] = field(default_factory=list)
    edges: list[tuple[Digests, str | None, Digests]] = field(default_factory=list)
    stripped: list[Digests] = field(default_factory=list)  # of all but contents, before all else


@dataclass
class Plan:
    """What a transaction wrote, to take note of once it is committed."""

    info: Info
    changes: list[tuple[Column, list[Written], list[int]]] = field(default_factory=list)
    committed: int = 0


class State:
    """Everything known of one namespace. Not safe for concurrent use."""

    def __init__(self, namespace: int, info: Info) -> None:
        self.namespace = namespace
        self.info = info
        self.width = WIDTHS[info.algorithm]
        self.table = RowTable(self.width)
        self.committed = 0  # rows that are stored
        self.links = Links()
        self.payloads = PlacedColumn(namespace, PAYLOADS)
        self.metadata = PlacedColumn(namespace, METADATA)
        self.digests_column = Column(namespace, DIGESTS, self.width)
        self.successors_column = Column(namespace, SUCCESSORS, 8)
        self.edges_column = Column(namespace, EDGES, 16, keep_all=True)
        self.named: dict[str, Column] = {}
        self.described: dict[str, list[object]] = {}  # name → [column, dtype, items a row]
        self.relations: list[str] = []  # those of `info`, then the new ones
        self._repeated: list[tuple[Rows, list[bytes]]] = []
        self._stripped: list[Rows] = []  # not committed
        self.removed = 0  # records, since it was last asked how much they leave behind
        self._set_successors: list[tuple[Rows, Rows, Rows]] = []  # sources, targets, old
        self._added_edges: list[tuple[Rows, int, Rows]] = []
        self._edge_blocks = 0  # in `links`, that are committed
        self.suspect: dict[int, int] = {}  # row → the pack in which its content is damaged
        self._adopt(info)

    @property
    def columns(self) -> list[Column]:
        """Every column, those that define rows first."""
        return [
            self.digests_column,
            self.payloads,
            self.metadata,
            self.successors_column,
            self.edges_column,
            *self.named.values(),
        ]

    @property
    def rows(self) -> int:
        return len(self.table)

    @property
    def is_pending(self) -> bool:
        """Whether there is anything to commit."""
        return (
            self.rows > self.committed
            or bool(self._set_successors or self._added_edges)
            or any(column.pending for column in self.columns)
        )

    # -- reading what is committed ------------------------------------------------------------

    def load(self, reader: Reader, folder: str | None) -> None:
        """Read what was committed since this state last did. Nothing may be pending.

        O(new rows and links); bodies of payloads and metadata are not touched, and of what a
        checkpoint in `folder` has, nothing.
        """
        info = Info.read(reader, self.namespace)
        if info is not None:
            if (info.checkpoint and info.checkpoint != self.info.checkpoint) or (
                info.checkpoint and self.table.base is None
            ):
                self._rest_on(_opened(folder, info.checkpoint, self.width))
            self._adopt(info)
        news = [(column, *column.news(reader)) for column in self.columns]
        for column, fresh, gone in news:
            whole = []
            for written in fresh:
                try:
                    self._take_in(column, reader, written)
                    whole.append(written)
                except CorruptStoreError as error:
                    column.damaged[written.number] = str(error)
            column.apply(whole, gone)
            if column.damaged and column is self.digests_column:
                for written in (written for _, fresh, _ in news for written in fresh):
                    with suppress(CorruptStoreError):  # then that pack is found damaged itself
                        self._stand_in(int(written.pack.rows.max(initial=-1)) + 1)
        self.committed = self.rows
        self._edge_blocks = self.links.edge_blocks

    def _take_in(self, column: Column, reader: Reader, written: Written) -> None:
        """Read what is kept in memory of a pack. Raises `CorruptStoreError`."""
        rows = written.pack.rows
        if column is self.digests_column:
            self._load_digests(reader, written)
        elif rows.max(initial=-1) >= self.rows:
            raise CorruptStoreError("it speaks of rows that have no digest")
        elif column is self.successors_column:
            ends = self._integers(column, reader, written)
            self._check_ends(ends, -1)
            self.links.set_successors(rows, ends)
        elif column is self.edges_column:
            edges = self._integers(column, reader, written).reshape(-1, 2)
            self._check_ends(edges[:, 1], 0)
            self.links.add_edges(rows, edges[:, 0], edges[:, 1])

    def _integers(self, column: Column, reader: Reader, written: Written) -> Rows:
        body = column.body(reader, written.number)
        if not written.pack.is_sound(body):
            raise CorruptStoreError("its body does not match its checksum")
        if len(body) != len(written.pack.rows) * (column.item_size or 0):
            raise CorruptStoreError("its items are not of the size that links have")
        return np.frombuffer(body, "<i8").astype(np.int64)

    def _check_ends(self, ends: Rows, least: int) -> None:
        """Raise `CorruptStoreError` unless `ends` are rows, or `least`. Lost ones are stood in for,
        as an undamaged pack speaks of them."""
        last = int(ends.max(initial=-1))
        if last >= self.rows and self.digests_column.damaged:
            self._stand_in(last + 1)
        if last >= self.rows or int(ends.min(initial=0)) < least:
            raise CorruptStoreError("it has links to rows that have no digest")

    def _load_digests(self, reader: Reader, written: Written) -> None:
        rows = written.pack.rows
        if len(rows) == 0 or rows[-1] < self.rows:
            return  # merged from packs that were loaded before
        if rows[0] > self.rows and self.digests_column.damaged:
            self._stand_in(int(rows[0]))
        start = self.rows
        body = self.digests_column.body(reader, written.number)
        if len(body) != written.pack.body_bytes or rows[0] > start:
            raise CorruptStoreError("its body is cut off, or rows before it have no digest")
        digests = np.frombuffer(body, np.uint8).reshape(-1, self.width)[rows >= start]
        sound = written.pack.is_sound(body)
        if not sound and len(np.unique(digests, axis=0)) < len(digests):
            raise CorruptStoreError("its body does not match its checksum and repeats a digest")
        if not sound and (self.table.find(digests) >= 0).any():
            raise CorruptStoreError("its body does not match its checksum and repeats a digest")
        _, new = self.table.intern(digests)
        if not new.all():
            raise CorruptStoreError(f"pack {written.number} of digests repeats a digest")
        if not sound:  # most digests are right: their records stay within reach
            raise CorruptStoreError("its body does not match its checksum")

    def _stand_in(self, rows: int) -> None:
        """Give random digests to the rows below `rows` whose own are lost, so that others keep
        their numbers. Such a state is read, never written."""
        missing = rows - self.rows
        most = len(self.digests_column.damaged) * PACK_LIMIT // self.width
        if missing > most:
            raise CorruptStoreError(f"it speaks of row {rows}, which damaged packs cannot have had")
        if missing > 0:
            random = np.frombuffer(os.urandom(missing * self.width), np.uint8)
            self.table.intern(random.reshape(missing, self.width))

    def _adopt(self, info: Info) -> None:
        self.info = info
        self.relations = list(info.relations)
        for name, (number, dtype, items) in info.columns.items():
            if name not in self.named:
                self._add_column(name, [number, dtype, items])

    def _add_column(self, name: str, description: list[object]) -> Column:
        number, dtype, items = description
        size = np.dtype(str(dtype)).itemsize * int(str(items))
        self.described[name] = description
        self.named[name] = Column(self.namespace, int(str(number)), size)
        return self.named[name]

    def spoilt(self, rows: Rows) -> Rows:
        """Return those of `rows` whose content was found damaged and was not put again since."""
        known = np.array([row for row in rows.tolist() if row in self.suspect], np.int64)
        packs = np.array([self.suspect[row] for row in known.tolist()], np.int64)
        pending, _ = self.payloads.pending.lengths(known)
        return np.asarray(known[(self.payloads.places(known)[0] == packs) & ~pending])

    # -- changing -----------------------------------------------------------------------------

    def intern(self, digests: Digests) -> tuple[Rows, NDArray[np.bool_]]:
        """Return the rows of `digests`, numbering those not known yet, and which were new."""
        return self.table.intern(digests)

    def repeat(self, rows: Rows, items: list[bytes]) -> None:
        """Take note of contents that were put and are stored.

        They are kept until the next commit, and stored again if somebody else has removed them by
        then: who puts a content and commits finds it stored.
        """
        if len(rows):
            self._repeated.append((rows, items))

    @property
    def has_repeated(self) -> bool:
        return bool(self._repeated)

    def set_successors(self, sources: Rows, targets: Rows) -> None:
        if len(sources):
            old = self.links.set_successors(sources, targets)
            self._set_successors.append((sources, targets, old))

    def add_edges(self, sources: Rows, relation: str | None, targets: Rows) -> None:
        """Add edges; without a relation, end all edges of `sources` instead."""
        if relation is None:
            number = Links.CLEAR
        elif relation in self.relations:
            number = self.relations.index(relation)
        else:
            number = len(self.relations)
            self.relations.append(relation)
        if len(sources):
            self.links.add_edges(sources, np.full(len(sources), number), targets)
            self._added_edges.append((sources, number, targets))

    def remove(self, rows: Rows) -> None:
        """Take what `rows` hold, and the links from them. What they do not hold is not written."""
        self.removed += len(rows)
        self.payloads.pending.set(rows, [None] * len(rows))
        self._strip(rows)

    def _strip(self, rows: Rows) -> None:
        """Take what rows hold beside their contents."""
        self._stripped.append(rows)
        described = rows[self.metadata.holds(rows)]
        self.metadata.pending.set(described, [None] * len(described))
        for column in self.named.values():
            column.pending.set(rows, [None] * len(rows))
        successors = grown(self.links.successors, self.rows, -1)
        linked = rows[successors[rows] >= 0]
        self.set_successors(linked, np.full(len(linked), -1, np.int64))
        if self.links.edge_blocks:
            self.add_edges(rows, None, rows)

    def column(self, name: str, dtype: str, items: int) -> Column:
        """Return the named column of that type, making it if there is none of that name.

        Raises `ValueError` where it has another type or width.
        """
        known = self.described.get(name)
        if known is None:
            numbers = [int(str(d[0])) for d in self.described.values()]
            return self._add_column(name, [max([FIRST_NAMED - 1, *numbers]) + 1, dtype, items])
        if known[1:] != [dtype, items]:
            raise ValueError(
                f"column {name!r} has {known[2]} items of {known[1]} a row, not {items} of {dtype}"
            )
        return self.named[name]

    def check_fits(self, info: Info) -> None:
        """Raise `ValueError` where a column new here was made by somebody else as another kind."""
        for name, (_, dtype, items) in info.columns.items():
            known = self.described.get(name)
            if known is not None and known[1:] != [dtype, items]:
                raise ValueError(
                    f"column {name!r} was made by another handle with {items} items of {dtype} a "
                    f"row, here with {known[2]} of {known[1]}: roll back, and write it as that"
                )

    # -- committing ---------------------------------------------------------------------------

    def write(self, transaction: Transaction) -> Plan:
        """Write everything pending, merging small packs first. `apply` the plan once committed."""
        if self.digests_column.damaged:
            raise CorruptStoreError(
                "digests in this store are damaged, so that nothing can be added: close it "
                "and run hashmem.store.repair, which makes a store of what is whole"
            )
        info = self.info.copy()
        info.relations = list(self.relations)
        info.columns = {**self.info.columns, **self.described}
        plan = Plan(info, committed=self.rows)
        if not info.packs:  # as version 1 left it
            for column in self.columns:
                info.count(column.number, column.packs(transaction), ())
        for column in self.columns:
            merged, gone = column.merge(transaction, info.next_pack)
            info.next_pack += len(merged)
            fresh = self._write_column(column, transaction, info.next_pack)
            info.next_pack += len(fresh)
            plan.changes.append((column, merged + fresh, gone))
            info.count(column.number, (w.number for w in merged + fresh), gone)
        info.write(transaction, self.namespace)
        return plan

    def _write_column(self, column: Column, to: Transaction, number: int) -> list[Written]:
        if column is self.digests_column:
            rows = np.arange(self.committed, self.rows)
            return column.write_array(to, number, rows, self.table.pieces(self.committed)[1])
        if column is self.successors_column:
            sources, targets = _last_of_each(self._set_successors)
            return column.write_array(to, number, sources, as_stored(targets[:, None]))
        if column is self.edges_column:
            if not self._added_edges:
                return []
            pairs = [
                np.stack([np.full(len(targets), relation), targets], axis=1)
                for _, relation, targets in self._added_edges
            ]
            sources = np.concatenate([sources for sources, _, _ in self._added_edges])
            return column.write_array(to, number, sources, as_stored(np.concatenate(pairs)))
        return column.write_pending(to, number)

    def apply(self, plan: Plan) -> None:
        """Take note that `plan` is committed: nothing is pending any more."""
        self.info = plan.info
        for column, fresh, gone in plan.changes:
            column.apply(fresh, gone)
            column.pending.clear()
        self.forget_repeated()
        self._set_successors.clear()
        self._added_edges.clear()
        self._stripped.clear()
        self.committed = plan.committed
        self._edge_blocks = self.links.edge_blocks

    def forget_repeated(self) -> None:
        self._repeated.clear()

    @property
    def has_removed_many(self) -> bool:
        """Whether a sixteenth of the records were removed since `is_wasteful` was asked."""
        return self.removed >= max(self.payloads.live // 16, 1000)

    def is_wasteful(self, nbytes: int) -> bool:
        """Whether the `nbytes` of a store of one namespace are so many more than it needs that
        rewriting pays. O(packs), and O(rows) for the first time."""
        self.removed = 0
        columns = self.payloads, self.metadata
        needed = sum(column.live_bytes() for column in columns)
        needed += OVERHEAD * self.payloads.live
        needed += sum(sum(c.sizes.values()) for c in self.columns[3:])  # links, named columns
        return nbytes > WASTEFUL * needed + LEAST

    # -- checkpoints --------------------------------------------------------------------------

    def checkpoint_due(self, closing: bool) -> bool:
        """Whether so many rows lie above the checkpoint that a new one pays.

        Written whenever rows have tripled, each row is written twice in all; on closing, so that
        the next who opens has little to read.
        """
        covered = self.table.base.rows if self.table.base is not None else 0
        share = covered // 16 if closing else 2 * covered
        many = self.rows - covered >= max(checkpoint.FEWEST, share)
        return many and not self.digests_column.damaged

    def write_checkpoint(self, transaction: Transaction, folder: str) -> Plan:
        """Write a checkpoint of all rows, none of which may be pending, and commit to it.

        Their digests leave the packs. `apply_checkpoint` once that is committed. O(rows). Raises
        `StoreError` where the file cannot be written.
        """
        info = self.info.copy()
        name = f"{transaction.version[0]:06}-{self.namespace}-{info.next_pack}.rows"
        columns = [self.payloads, *([self.metadata] if self.metadata.live else [])]
        placed = {column.number: column.known(self.rows) for column in columns}
        checkpoint.write(
            os.path.join(folder, name), self.table.pieces(), self.rows, self.width,
            info.next_pack, placed,
        )  # fmt: skip
        info.checkpoint = name
        info.count(DIGESTS, (), self.digests_column.sizes)
        info.write(transaction, self.namespace)
        for number in self.digests_column.sizes:
            self.digests_column.delete_pack(transaction, number)
        return Plan(info, committed=self.rows)

    def apply_checkpoint(self, plan: Plan, folder: str) -> None:
        """Take note of a checkpoint that is committed, and unlink the ones before it."""
        self.info = plan.info
        self._rest_on(_opened(folder, plan.info.checkpoint, self.width))
        generation, namespace, _ = plan.info.checkpoint.split("-")
        for path in Path(folder).glob(f"{generation}-{namespace}-*.rows*"):
            if path.name != plan.info.checkpoint:
                path.unlink(missing_ok=True)

    def _rest_on(self, base: Checkpoint) -> None:
        self.table.rest_on(base)
        self.digests_column.sizes.clear()
        self.digests_column.covered = base.next_pack
        for column in (self.payloads, self.metadata):
            column.rest_on(base.places.get(column.number, Places.nothing()), base.next_pack)

    # -- undoing ------------------------------------------------------------------------------

    def undo(self) -> None:
        """Drop everything pending. O(pending)."""
        for sources, _, old in reversed(self._set_successors):
            # of equal sources the first one's old value is the oldest
            self.links.set_successors(sources[::-1], old[::-1])
        self.links.drop_edges_after(self._edge_blocks)
        self._repeated.clear()
        self._set_successors.clear()
        self._added_edges.clear()
        self._stripped.clear()
        self.relations = list(self.info.relations)
        for name in [name for name in self.named if name not in self.info.columns]:
            del self.named[name], self.described[name]
        for column in self.columns:
            column.pending.clear()
        self.table.cut(self.committed)

    def take_pending(self) -> Pending:
        """Return what is pending in terms of digests, and `undo` it."""
        digests = self.table.digests
        taken = Pending()
        named: dict[str, Column] = {"." + name: column for name, column in self.named.items()}
        for name, column in {"payloads": self.payloads, "metadata": self.metadata, **named}.items():
            rows, lengths, items = column.pending.final()
            removed = (lengths < 0).tolist()
            taken.items[name] = (
                digests(rows),
                [None if gone else item for gone, item in zip(removed, items, strict=True)],
            )
        taken.repeated = [(digests(rows), items) for rows, items in self._repeated]
        taken.named = dict(self.described)
        taken.stripped = [digests(rows) for rows in self._stripped]
        for sources, targets, _ in self._set_successors:
            taken.successors.append(
                (digests(sources), digests(np.maximum(targets, 0)), targets >= 0)
            )
        for sources, relation, targets in self._added_edges:
            name_or_clear = None if relation == Links.CLEAR else self.relations[relation]
            taken.edges.append((digests(sources), name_or_clear, digests(targets)))
        self.undo()
        return taken

    def put_back(self, pending: Pending) -> None:
        """Make `pending` pending again, on top of what is committed now."""
        for name, description in pending.named.items():
            self.column(name, str(description[1]), int(str(description[2])))
        for digests in pending.stripped:  # of what others have added meanwhile, too
            self._strip(self.intern(digests)[0])
        for name, (digests, items) in pending.items.items():
            rows, _ = self.intern(digests)
            if name == "payloads":
                stored = (self.payloads.places(rows)[0] >= 0).tolist()
                needed = [i for i, item in enumerate(items) if item is None or not stored[i]]
                self.payloads.pending.set(rows[needed], [items[i] for i in needed])
                # What somebody else stored meanwhile is stored, unless it is removed in turn.
                again = [i for i, item in enumerate(items) if item is not None and stored[i]]
                self.repeat(rows[again], [bytes(items[i] or b"") for i in again])
                self._put_back_repeated(pending)
            elif name == "metadata":  # of what somebody else removed meanwhile, it goes too
                held = self.payloads.holds(rows).tolist()
                kept = [i for i, item in enumerate(items) if item is None or held[i]]
                self.metadata.pending.set(rows[kept], [items[i] for i in kept])
            else:
                self.named[name[1:]].pending.set(rows, items)
        for sources, targets, linked in pending.successors:
            to = np.full(len(targets), -1, np.int64)
            from_rows, _ = self.intern(sources)
            to[linked], _ = self.intern(targets[linked])
            self.set_successors(from_rows, to)
        for sources, relation, targets in pending.edges:
            from_rows, _ = self.intern(sources)
            to_rows = self.intern(targets)[0] if relation is not None else from_rows
            self.add_edges(from_rows, relation, to_rows)

    def _put_back_repeated(self, pending: Pending) -> None:
        for digests, contents in pending.repeated:
            rows, _ = self.intern(digests)
            removed_here, _ = self.payloads.pending.lengths(rows)
            gone = np.flatnonzero(~removed_here & ~self.payloads.holds(rows))
            self.payloads.pending.set(rows[gone], [contents[i] for i in gone.tolist()])
            self.repeat(rows, contents)


def _opened(folder: str | None, name: str, width: int) -> Checkpoint:
    if folder is None or os.path.basename(name) != name:
        raise CorruptStoreError(f"a namespace's record names the checkpoint {name!r}")
    base = Checkpoint(os.path.join(folder, name))
    if base.width != width or PAYLOADS not in base.places:
        raise CorruptStoreError(f"the checkpoint {base.path} is of another namespace")
    return base


def _last_of_each(changes: list[tuple[Rows, Rows, Rows]]) -> tuple[Rows, Rows]:
    """The sources, each once, and the last target given for each."""
    if not changes:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    sources = np.concatenate([change[0] for change in changes])[::-1]
    targets = np.concatenate([change[1] for change in changes])[::-1]
    unique, first = np.unique(sources, return_index=True)
    return unique, targets[first]


def as_stored(integers: Rows) -> NDArray[np.uint8]:
    """int64 (n, k) as the little-endian bytes (n, 8 k) that are stored."""
    n, k = integers.shape
    return np.ascontiguousarray(integers, "<i8").view(np.uint8).reshape(n, 8 * k)
