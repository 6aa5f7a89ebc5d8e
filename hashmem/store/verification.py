"""Reading everything back: does each record still have its digest, each pack its checksum?

The work is cut into units: a pack of a column, some blocks of the checkpoint, some rows looked up
in its index. `verify` checks all of them, and what can only be told of all together; `scrub` checks
as many as it is given time for and goes on with the rest the next time.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.store.backend import Snapshot
from hashmem.store.columns import Column, Written
from hashmem.store.layout import DIGESTS, PAYLOADS, Catalogue, Info, pack_keys, pack_of
from hashmem.store.packs import Pack
from hashmem.store.placed import PlacedColumn
from hashmem.store.records import Records
from hashmem.store.state import State

__all__ = ["Round", "Verification", "scrub", "verify"]

Rows = NDArray[np.int64]
DigestPieces = Callable[[Any, Rows], Digests]  # joined contents, offsets → their digests
Progress = Callable[[int], object]

ROWS = 1 << 16  # looked up in the index together
BLOCKS = 1 << 8  # of a checkpoint, compared together: 16 MiB
STEP = 1 << 12  # records or rows looked at together: what is made of them stays in the cache
COMPARED = 1 << 18  # rows whose places are compared together
EVERYTHING = 1 << 62


@dataclass
class Verification:
    """What `MemoryStore.verify` or `MemoryStore.scrub` found."""

    checked: int = 0  # records whose content was digested again
    corrupt: list[bytes] = field(default_factory=list)  # digests of records with damage
    damage: list[str] = field(default_factory=list)  # one line for each thing that is wrong
    packs: list[tuple[int, int]] = field(default_factory=list)  # damaged: column, number

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage

    def to_dict(self) -> dict[str, object]:
        """Return the findings as plain types, digests in hexadecimal."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "corrupt": [digest.hex() for digest in self.corrupt],
            "damage": self.damage,
            "packs": [list(pack) for pack in self.packs],
        }


class Unit(NamedTuple):
    """What is checked at once."""

    kind: str  # "pack", "blocks" of the checkpoint, or "rows" found through the index
    column: int
    number: int  # of the pack, the first block or the first row


def verify(
    state: State, reader: Snapshot, digest_pieces: DigestPieces, progress: Progress
) -> Verification:
    """Check everything that is committed of `state` as `reader` shows it.

    `progress` is called with the number of records just checked. O(bytes stored).
    """
    check = _Check(state, reader, digest_pieces, progress)
    check.records()
    check.keep_places()
    for unit in check.units():
        check.unit(unit, 0, EVERYTHING)
    check.places()
    return check.finish()


class Round:
    """What scrubs have left to check until everything had its turn; then it begins anew."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._left: list[Unit] = []  # the next one last
        self._done: set[Unit] = set()
        self._generation = 0
        self._start = 0  # of the next unit, the records checked already

    def begin(self, units: list[Unit], generation: int) -> int:
        """Take note of what there is now; return how many units it is."""
        if generation != self._generation:  # everything is new
            self._left, self._done, self._generation, self._start = [], set(), generation, 0
        there = set(units)
        if not self._left or self._left[-1] not in there:
            self._start = 0
        left = [unit for unit in self._left if unit in there]
        fresh = [unit for unit in units if unit not in self._done and unit not in set(left)]
        if not left and not fresh:
            self._done, fresh = set(), list(units)
        self._random.shuffle(fresh)
        self._left = fresh + left
        return len(units)

    def next(self) -> tuple[Unit, int] | None:
        """The unit that is to be checked, and from which record on."""
        return (self._left[-1], self._start) if self._left else None

    def checked(self, stop: int | None) -> None:
        """Note how far that came, None: to the end."""
        self._start = stop or 0
        if stop is None:
            self._done.add(self._left.pop())


def scrub(
    state: State,
    reader: Snapshot,
    digest_pieces: DigestPieces,
    progress: Progress,
    turn: Round,
    seconds: float | None,
    sample: float | None,
) -> Verification:
    """Check some of what `turn` has left: for so many seconds, so many records or such a share."""
    end = float("inf") if seconds is None else time.perf_counter() + seconds
    check = _Check(state, reader, digest_pieces, progress)
    units = turn.begin(check.units(), reader.version[0])
    share = units if not isinstance(sample, float) else max(1, -int(-sample * units // 1))
    records = sample if isinstance(sample, int) else EVERYTHING
    done = 0
    while (following := turn.next()) is not None and time.perf_counter() < end:
        if done >= share or check.found.checked >= records:
            break
        stop = check.unit(*following, records - check.found.checked)
        turn.checked(stop)
        done += stop is None
    return check.finish()


class _Check:
    """The checking of one namespace; what it finds gathers in `found`."""

    def __init__(
        self, state: State, reader: Snapshot, digest_pieces: DigestPieces, progress: Progress
    ) -> None:
        self.state, self.reader = state, reader
        self.digest_pieces, self.progress = digest_pieces, progress
        self.columns = {column.number: column for column in state.columns}
        self.found = Verification()
        self._rows: set[int] = set()  # with damage
        self._unreadable: set[tuple[int, int]] = set()  # packs whose index does not tell
        self._told: dict[int, PlacedColumn] = {}  # column → what its packs tell, where that is kept

    def finish(self) -> Verification:
        known = np.array(sorted(row for row in self._rows if row < self.state.rows), np.int64)
        self.found.corrupt = [bytes(digest) for digest in self.state.table.digests(known)]
        return self.found

    def units(self) -> list[Unit]:
        """Everything there is to check, packs in order."""
        found = {pack_of(key)[1:] for key in pack_keys(self.reader, self.state.namespace)}
        units = [Unit("pack", column, number) for column, number in sorted(found)]
        if self.state.table.base is not None:
            blocks = range(0, self.state.table.base.blocks, BLOCKS)
            units += [Unit("blocks", 0, first) for first in blocks]
        return units + [Unit("rows", 0, first) for first in range(0, self.state.committed, ROWS)]

    def unit(self, unit: Unit, start: int, most: int) -> int | None:
        """Check a unit, of a pack of records from `start` on `most` of them.

        Returns where to go on, None where nothing is left of it.
        """
        if unit.kind == "blocks":
            self._blocks(unit.number)
        elif unit.kind == "rows":
            self._index(unit.number)
        else:
            return self._pack(unit.column, unit.number, start, most)
        return None

    def _note(self, what: str, rows: Rows | None = None) -> None:
        self.found.damage.append(what)
        if rows is not None:
            self._rows.update(rows.tolist())

    def _note_pack(self, column: int, number: int, what: str, rows: Rows | None = None) -> None:
        self._note(f"column {column}, pack {number}: {what}", rows)
        if (column, number) not in self.found.packs:
            self.found.packs.append((column, number))

    # -- the header, and what names the packs -----------------------------------------------------

    def records(self) -> None:
        """Check the header, the records of all namespaces, and that each key belongs to one."""
        try:
            numbers = set(Catalogue.read(self.reader).namespaces.values())
        except (CorruptStoreError, StoreFormatError) as error:
            self._note(str(error))
            return
        for number in sorted(numbers):
            try:
                info = Info.read(self.reader, number)
                wrong = "it is gone" if info is None else info.problem()
            except CorruptStoreError as error:
                wrong = str(error)
            if wrong:
                self._note(f"the record of namespace {number}: {wrong}")
            elif info is not None:
                self._census(number, info)
        for key in self.reader.keys(b""):
            sizes = {b"h": 1, b"n": 5, b"i": 15, b"b": 15}
            if len(key) != sizes.get(key[:1]) or (
                len(key) > 1 and int.from_bytes(key[1:5], "big") not in numbers
            ):
                self._note(f"the key {key.hex()} belongs to nothing that this store has")

    def _census(self, namespace: int, info: Info) -> None:
        """Are all packs there that were written? Their keys have no checksum."""
        found = Info(info.algorithm)
        for key in pack_keys(self.reader, namespace):
            if key[:1] == b"i":
                _, column, number = pack_of(key)
                found.count(column, [number], ())
        for name in sorted({*info.packs, *found.packs}) if info.packs else ():  # as of version 2
            there, counted = (i.packs.get(name, [0, 0]) for i in (found, info))
            if there != counted:
                self._note(
                    f"namespace {namespace}, column {name}: {there[0]} packs are there where "
                    f"{counted[0]} were written, or others than were"
                )

    # -- packs ------------------------------------------------------------------------------------

    def _pack(self, of: int, number: int, start: int, most: int) -> int | None:
        column = self.columns.get(of)
        if column is None:
            self._note_pack(of, number, "there is no such column")
            return None
        if number in column.damaged:
            self._note_pack(of, number, column.damaged[number], self._rows_of(column, number))
            self._unreadable.add((of, number))
            return None
        try:
            pack = column.index(self.reader, number)
        except CorruptStoreError as error:
            self._note_pack(of, number, str(error))
            self._unreadable.add((of, number))
            self._through_places(column, number)
            return None
        if of in self._told:
            self._told[of].apply([Written(number, pack)])
        try:
            body = column.body(self.reader, number)
        except CorruptStoreError as error:
            self._note_pack(of, number, str(error), self._live(column, number, pack.rows))
            return None
        if len(body) != pack.body_bytes:
            what = f"its body has {len(body)} bytes, not {pack.body_bytes}"
            self._note_pack(of, number, what, self._live(column, number, pack.rows))
        elif of == PAYLOADS:
            return self._contents(number, pack, body, start, most)
        elif not pack.is_sound(body):
            what = "its body does not match its checksum"
            self._note_pack(of, number, what, self._live(column, number, pack.rows))
        return None

    def _rows_of(self, column: Column, number: int) -> Rows | None:
        """The rows that a pack speaks of which was left out on opening, where its index tells.

        Where digests are damaged, the content of each record tells which.
        """
        try:
            return None if column.number == DIGESTS else column.index(self.reader, number).rows
        except CorruptStoreError:
            return None

    def _live(self, column: Column, number: int, rows: Rows) -> Rows:
        """Those of a pack's rows whose items lie in it still."""
        if not isinstance(column, PlacedColumn):
            return rows
        return np.asarray(rows[column.places(rows)[0] == number])

    def _contents(
        self, number: int, pack: Pack, body: memoryview, start: int, most: int
    ) -> int | None:
        """Digest what a pack holds, in place; rows that lie elsewhere now have the same digest."""
        payloads = self.state.payloads
        if pack.parts > 1:
            if pack.part == 0:
                self._through_places(payloads, number)
            elif not pack.is_sound(body):
                self._note_pack(PAYLOADS, number, "its body does not match its checksum")
            return None
        held = np.flatnonzero(pack.lengths >= 0)
        stop = min(start + most, len(held))
        chosen = held[start:stop]
        rows, ends = pack.rows[chosen], np.append(pack.offsets[chosen], 0)
        if len(rows):
            ends[-1] = ends[-2] + pack.lengths[chosen[-1]]
        for first in range(0, len(rows), STEP):
            again = self.digest_pieces(body, ends[first : first + STEP + 1])
            self._compare(number, rows[first : first + STEP], again)
        return None if stop == len(held) else stop

    def _through_places(self, column: Column, number: int) -> None:
        """Check the records of a pack where the state knows them to lie."""
        if not isinstance(column, PlacedColumn):
            return
        rows = column.rows_in(number)
        if column.number != PAYLOADS:  # without a checksum nothing tells which are whole
            self._rows.update(rows.tolist())
            return
        try:
            items = Records.of(self.reader, column, rows)
            for i in range(len(rows)):
                content, bounds = items.gather(i, i + 1)
                self._compare(number, rows[i : i + 1], self.digest_pieces(content, bounds))
        except CorruptStoreError as error:
            self._note_pack(column.number, number, str(error), rows)
            self._suspect(rows, number)

    def _compare(self, number: int, rows: Rows, again: Digests) -> None:
        """Note which of a pack's rows do not have the digests that their contents have."""
        last, table = self.state.committed - 1, self.state.table
        if rows[-1] <= last and bool((rows[1:] - rows[:-1] == 1).all()):
            known = table.between(int(rows[0]), int(rows[-1]) + 1)
        else:
            known = table.digests(np.minimum(rows, last))
        lying = self.state.payloads.count_in(number, rows)  # the others were deleted or put again
        self.found.checked += lying
        self.progress(lying)
        if np.array_equal(again, known):
            return
        bad = rows[(again != known).any(axis=1)]
        bad = bad[bad <= last]
        live = self._live(self.state.payloads, number, bad)
        for row in live.tolist():
            digest = self.state.table.digests(np.array([row])).tobytes().hex()
            self._note(
                f"column {PAYLOADS}, pack {number}: record {digest}: its content does not have its "
                "digest"
            )  # fmt: skip
        dead = len(bad) - len(live)
        if dead:
            self._note(
                f"column {PAYLOADS}, pack {number}: {dead} contents that were replaced since do "
                "not have their digests"
            )  # fmt: skip
        if len(bad):
            if (PAYLOADS, number) not in self.found.packs:
                self.found.packs.append((PAYLOADS, number))
            self._rows.update(live.tolist())
            self._suspect(live, number)

    def _suspect(self, rows: Rows, number: int) -> None:
        self.state.suspect.update(dict.fromkeys(rows.tolist(), number))

    # -- the checkpoint, and what it says ---------------------------------------------------------

    def _blocks(self, first: int) -> None:
        base = self.state.table.base
        if base is not None:
            for what in base.damage(first, first + BLOCKS):
                self._note(f"checkpoint {self.state.info.checkpoint}: {what}")

    def _index(self, first: int) -> None:
        """Whether each digest leads to its row."""
        table, end = self.state.table, min(first + ROWS, self.state.committed)
        lost = np.empty(0, np.int64)
        for start in range(first, end, STEP):
            rows = np.arange(start, min(start + STEP, end))
            found = table.find(table.between(start, start + len(rows)))
            if not np.array_equal(found, rows):
                lost = np.append(lost, rows[found != rows])
        if len(lost):
            self._note(
                f"the index does not lead to {len(lost)} digests, first to row {lost[0]}", lost
            )

    def keep_places(self) -> None:
        """Have the packs that are checked from now on tell where rows lie. 8 bytes a row."""
        for column in (self.state.payloads, self.state.metadata):
            self._told[column.number] = column.twin()

    def places(self) -> None:
        """Whether each row's item lies where the packs say. O(rows)."""
        for number, told in self._told.items():
            column = self.columns[number]
            assert isinstance(column, PlacedColumn)
            if column.agrees(told):
                continue
            unreadable = [pack for of, pack in self._unreadable if of == number]
            for first in range(0, self.state.committed, COMPARED):
                rows = np.arange(first, min(first + COMPARED, self.state.committed))
                wrong = rows[column.differs(told, rows)]
                wrong = wrong[~np.isin(column.places(wrong)[0], unreadable)]
                if len(wrong):
                    self._note(
                        f"column {number}: {len(wrong)} rows are not where its packs say, first "
                        f"row {wrong[0]}",
                        wrong,
                    )
