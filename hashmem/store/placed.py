"""A column whose items are read one by one, and where they lie: in which pack, and where in it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hashmem.errors import CorruptStoreError, StoreError
from hashmem.hops import grown
from hashmem.store.backend import Reader, Snapshot, Version
from hashmem.store.checkpoint import ABSENT, Codes, Places
from hashmem.store.columns import Column, Written
from hashmem.store.layout import body_key
from hashmem.store.packs import PACK_LIMIT

__all__ = ["Frame", "PlacedColumn", "lengths_of", "offsets_of", "ordinals_of"]

Rows = NDArray[np.int64]

BITS = 22  # of an offset and of a length
LONG = (1 << BITS) - 1  # as a length: an item has at least so many bytes
MOST_PACKS = (1 << 64 - 2 * BITS) - 1  # the last ordinal is that of `ABSENT`


class PlacedColumn(Column):
    """A column whose items are read one by one: it knows for each row where its item lies.

    8 bytes a row, its *code*: from the highest bit, 20 bits that name the pack, by its place in
    `numbers`, 22 of the offset in its body and 22 of the length, both in bytes; all ones where the
    row holds nothing. Where the length is all ones, `large` has it: of an item cut into parts,
    which has the first part's pack, the whole.

    The codes of rows in a checkpoint are its own, which are copied page by page where they change.
    """

    def __init__(self, namespace: int, number: int) -> None:
        super().__init__(namespace, number)
        self._base: Codes = np.empty(0, np.uint64)
        self._tail: Codes = np.empty(0, np.uint64)  # of the rows that follow, may be longer
        self._numbers: list[int] = []  # packs
        self._ordinals: dict[int, int] = {}  # pack → its place there
        self._large: dict[int, int] = {}  # row → bytes
        self._frame = Frame()
        self.live = 0  # rows that hold something, by what is committed
        self._live_bytes: int | None = None  # of short items, once asked for

    def rest_on(self, places: Places, next_pack: int) -> None:
        """Take the codes of all rows from a checkpoint, which covers packs below a number."""
        self._base, self._tail = places.codes, np.empty(0, np.uint64)
        self._number_anew(list(places.numbers))
        self._large, self.live = dict(places.large), places.live
        self._live_bytes = None
        self.covered = next_pack
        self.sizes = {n: size for n, size in self.sizes.items() if n >= next_pack}

    def known(self, rows: int) -> tuple[Places, list[Codes]]:
        """What a checkpoint is to know, and the codes of the first `rows` rows in two pieces."""
        places = Places(self._base, self._numbers, self._large, self.live)
        tail = grown(self._tail, rows - len(self._base), ABSENT)[: rows - len(self._base)]
        return places, [self._base, tail]

    def _number_anew(self, numbers: list[int]) -> None:
        self._numbers = numbers
        self._ordinals = {number: ordinal for ordinal, number in enumerate(numbers)}
        self._frame = Frame()  # what was read before goes on with its own

    def live_bytes(self) -> int:
        """Return the bytes of all items that count. O(rows) at first, O(1) from then on."""
        if self._live_bytes is None:
            self._live_bytes = 0
            for codes in (self._base, self._tail):
                self._count_live(codes, 1)
        return self._live_bytes + sum(self._large.values())

    def _count_live(self, codes: Codes, sign: int) -> None:
        lengths = lengths_of(codes)
        lengths[lengths == LONG] = 0  # `large` has them
        self._live_bytes = (self._live_bytes or 0) + sign * int(lengths.sum())

    def apply(self, fresh: Iterable[Written], gone: Iterable[int] = ()) -> None:
        fresh = list(fresh)
        super().apply(fresh, gone)
        for written in fresh:
            pack = written.pack
            if not len(pack.rows):
                continue
            if pack.part:  # what it lacks of a full part, the item lacks
                row = int(pack.rows[0])
                if row in self._large and self._pack_of(row) == written.number - pack.part:
                    self._large[row] -= PACK_LIMIT - pack.body_bytes
                continue
            removed = pack.lengths < 0
            before = self.codes(pack.rows) != ABSENT
            self.live += int((~removed).sum()) - int(before.sum())
            self._set(pack.rows, self._encoded(written, removed))

    def _encoded(self, written: Written, removed: NDArray[np.bool_]) -> Codes:
        pack = written.pack
        lengths = np.maximum(pack.lengths, 0) if pack.parts == 1 else (
            np.array([pack.parts * PACK_LIMIT])
        )  # fmt: skip
        long = (lengths >= LONG) | (pack.parts > 1)
        within = pack.offsets << BITS | np.where(long, LONG, lengths)
        within[lengths == 0] = 0  # at the very end of a pack an offset would not fit
        codes = within.view(np.uint64) | np.uint64(self._ordinal(written.number) << 2 * BITS)
        codes[removed] = ABSENT
        if self._large:
            for row in self._large.keys() & set(pack.rows.tolist()):
                del self._large[row]
        for i in np.flatnonzero(long & ~removed).tolist():
            self._large[int(pack.rows[i])] = int(lengths[i])
        return codes

    def _ordinal(self, number: int) -> int:
        known = self._ordinals.get(number)
        if known is not None:
            return known
        if len(self._numbers) == MOST_PACKS:  # forget those that nothing refers to any more
            self._renumber()
        self._numbers.append(number)
        return self._ordinals.setdefault(number, len(self._numbers) - 1)

    def _renumber(self) -> None:
        pieces = [self._base, self._tail]
        used: NDArray[np.int64] = np.unique(
            np.concatenate([np.unique(ordinals_of(codes[codes != ABSENT])) for codes in pieces])
        )
        if len(used) == MOST_PACKS:
            raise StoreError(f"a column has at most {MOST_PACKS} packs: compact the store")
        to = np.zeros(MOST_PACKS, np.uint64)
        to[used] = np.arange(len(used), dtype=np.uint64)
        for codes in pieces:
            at = np.flatnonzero(codes != ABSENT)
            rest = codes[at] & np.uint64((1 << 2 * BITS) - 1)
            codes[at] = to[ordinals_of(codes[at])] << np.uint64(2 * BITS) | rest
        self._number_anew([self._numbers[i] for i in used.tolist()])

    def _set(self, rows: Rows, codes: Codes) -> None:
        rows_below = len(self._base)
        if not len(rows):
            return
        if self._live_bytes is not None:
            self._count_live(self.codes(rows), -1)
            self._count_live(codes, 1)
        below = rows < rows_below
        if below.any():
            self._base[rows[below]] = codes[below]
            rows, codes = rows[~below], codes[~below]
        if len(rows):
            rows = rows - rows_below
            self._tail = grown(self._tail, int(rows.max()) + 1, ABSENT)
            self._tail[rows] = codes

    def drop(self, rows: Rows) -> None:
        """Let `rows`, each once, hold nothing from now on."""
        self.live -= int((self.codes(rows) != ABSENT).sum())
        self._set(rows, np.full(len(rows), ABSENT, np.uint64))

    def codes(self, rows: Rows) -> Codes:
        """Return the code of each of `rows`, uint64 (m,); `ABSENT` too for what is no row."""
        below = len(self._base)
        if below and len(rows) and rows.min() >= 0 and rows.max() < below:
            return np.take(self._base, rows)
        if len(rows) and rows.min() >= below and rows.max() < below + len(self._tail):
            return np.take(self._tail, rows - below if below else rows)
        inside = (rows >= 0) & (rows < below)
        codes = np.full(len(rows), ABSENT, np.uint64)
        codes[inside] = self._base[rows[inside]]
        after = (rows >= below) & (rows < below + len(self._tail))
        codes[after] = self._tail[rows[after] - below]
        return codes

    def code(self, row: int) -> int:
        """Return the code of one row."""
        below = len(self._base)
        if row < below:
            return self._base.item(row)
        return self._tail.item(row - below) if row - below < len(self._tail) else ABSENT

    def place(self, row: int, version: Version) -> tuple[int, int] | None:
        """Return where in a commit's map the item of a row begins and ends, if it is known.

        None for what is long, absent, or in a pack that nobody has read from yet.
        """
        below, frame = len(self._base), self._frame
        code = self._base.item(row) if row < below else self.code(row)
        ordinal, length = code >> 2 * BITS, code & LONG
        known = frame.extents.get(ordinal)
        if (
            known is None
            or length == LONG
            or (frame.version != version and ordinal in frame.moving)
        ):
            return None
        start, size = known
        offset = code >> BITS & LONG
        return (start + offset, start + offset + length) if offset + length <= size else None

    def _pack_of(self, row: int) -> int:
        code = self.code(row)
        ordinal = code >> 2 * BITS  # beyond the packs: absent, or damaged
        return self._numbers[ordinal] if ordinal < len(self._numbers) else -1

    def lengths(self, rows: Rows, codes: Codes) -> Rows:
        """Return the bytes of each item, 0 where there is none."""
        lengths = lengths_of(codes)
        for i in np.flatnonzero(lengths == LONG).tolist():
            lengths[i] = self._large.get(int(rows[i]), 0)  # nothing, where the code says so
        return lengths

    def places(self, rows: Rows) -> tuple[Rows, Rows, Rows]:
        """Return pack, offset and length of each of `rows`; pack -1 where nothing is committed."""
        codes = self.codes(rows)
        numbers = np.array([*self._numbers, -1], np.int64)
        packs = numbers[np.minimum(ordinals_of(codes), len(self._numbers))]
        return packs, offsets_of(codes), self.lengths(rows, codes)

    def twin(self) -> "PlacedColumn":
        """Return an empty column that numbers packs as this one does, so that codes compare."""
        twin = PlacedColumn(self.namespace, self.number)
        twin._tail = np.full(len(self._base) + len(self._tail), ABSENT, np.uint64)
        twin._number_anew(list(self._numbers))
        return twin

    def agrees(self, twin: "PlacedColumn") -> bool:
        """Whether all lies where it does by what a `twin` has taken in. O(rows), without a copy."""
        below = len(self._base)
        after = twin._tail[below : below + len(self._tail)]
        return (
            np.array_equal(self._base, twin._tail[:below])
            and np.array_equal(self._tail, after)
            and bool((twin._tail[below + len(self._tail) :] == ABSENT).all())
            and self._large == twin._large
        )

    def differs(self, twin: "PlacedColumn", rows: Rows) -> NDArray[np.bool_]:
        """Tell which of `rows` lie elsewhere by what a `twin` has taken in. O(m)."""
        here, there = self.codes(rows), twin.codes(rows)
        differ = np.asarray(here != there)
        for i in np.flatnonzero((lengths_of(here) == LONG) & ~differ).tolist():
            row = int(rows[i])
            differ[i] = here[i] != ABSENT and self._large.get(row) != twin._large.get(row)
        return differ

    def holds(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell which of `rows` hold something, pending writes included; -1 never. O(m)."""
        committed: NDArray[np.bool_] = self.codes(rows) != ABSENT
        if not self.pending:
            return committed
        pending, lengths = self.pending.lengths(rows)
        return np.where(pending, lengths >= 0, committed)

    def held(self, rows: int) -> NDArray[np.bool_]:
        """Tell which of the first `rows` rows hold something, pending writes included."""
        return self.holds(np.arange(rows))

    def count(self) -> int:
        """Return how many rows hold something, pending writes included. O(pending)."""
        if not self.pending:
            return self.live
        rows, lengths, _ = self.pending.final()
        return self.live + int((lengths >= 0).sum()) - int((self.codes(rows) != ABSENT).sum())

    def total_bytes(self, rows: int) -> int:
        """Return the bytes of all items, pending writes included. O(rows)."""
        every = np.arange(rows)
        sizes = self.lengths(every, self.codes(every))
        pending, lengths, _ = self.pending.final()
        sizes[pending[pending < len(sizes)]] = 0
        return int(sizes.sum()) + int(np.maximum(lengths, 0).sum())

    def rows_in(self, pack: int) -> Rows:
        """Return the rows whose items lie in one pack. O(rows)."""
        ordinal = self._ordinals.get(pack)
        found: list[Rows] = []
        for first, codes in ((0, self._base), (len(self._base), self._tail)):
            found.append(np.flatnonzero(ordinals_of(codes) == ordinal) + first)
        return np.concatenate(found)

    def count_in(self, pack: int, rows: Rows) -> int:
        """Return how many of `rows` have their items in a pack. O(m)."""
        ordinal = self._ordinals.get(pack, -1)
        return int(np.count_nonzero(ordinals_of(self.codes(rows)) == ordinal))

    def frame(self, reader: Snapshot, codes: Codes) -> "Frame | None":
        """Return where the packs that `codes` speak of lie, None where `reader` lacks one.

        What was looked up before is believed: it holds while the packs are there.
        """
        frame = self._frame = self._frame.at(reader.version)
        frame.reserve(len(self._numbers))
        used = ordinals_of(codes)
        if len(used) and int(used.max()) >= len(self._numbers):
            used = used[used < len(self._numbers)]  # what is absent; or damage, which reading tells
        unknown = used[frame.starts[used] < 0]
        for ordinal in np.unique(unknown).tolist() if len(unknown) else ():
            if not frame.look_up(reader, ordinal, self._key_of(ordinal)):
                return None
        return frame

    def has_packs(self, reader: Snapshot, codes: Codes) -> bool:
        """Whether `reader` has every pack that `codes` speak of."""
        used = np.unique(ordinals_of(codes)).tolist()
        return all(
            reader.extent(self._key_of(ordinal)) is not None
            for ordinal in used
            if ordinal < len(self._numbers)
        )

    def _key_of(self, ordinal: int) -> bytes:
        return body_key(self.namespace, self.number, self._numbers[ordinal])

    def large_at(self, rows: Rows, codes: Codes) -> dict[int, tuple[int, int]]:
        """Return the first pack and the bytes of each long item, by its position in `rows`."""
        long = np.flatnonzero((lengths_of(codes) == LONG) & (codes != ABSENT)).tolist()
        return {i: (self._pack_of(int(rows[i])), self._large.get(int(rows[i]), 0)) for i in long}

    def view(
        self,
        reader: Reader,
        pack: int,
        offset: int,
        length: int,
        bodies: dict[int, memoryview],
    ) -> bytes | memoryview:
        """Return the item at a place, uncopied where it is not cut into parts.

        `bodies` keeps the packs looked up so far. Valid as long as `reader`'s values. Raises
        `CorruptStoreError` where the body is gone or cut off.
        """
        if length > PACK_LIMIT:
            parts = -(-length // PACK_LIMIT)
            found: bytes | memoryview = b"".join(
                self.body(reader, pack + part) for part in range(parts)
            )
        else:
            body = bodies.get(pack)
            if body is None:
                body = bodies[pack] = self.body(reader, pack)
            found = body[offset : offset + length]
        if len(found) != length:
            raise CorruptStoreError(f"pack {pack}, column {self.number}: its body is cut off")
        return found


class Frame:
    """Where the bodies of a column's packs lie, by their ordinals, as far as they were looked up.

    In one map of a file, or each by itself. Reads go on with a frame while its column changes.
    """

    def __init__(self) -> None:
        self.starts: Rows = np.empty(0, np.int64)  # in `map`, -1: not looked up; 0 without a map
        self.sizes: Rows = np.empty(0, np.int64)
        self.extents: dict[int, tuple[int, int]] = {}  # the same, in a map
        self.bodies: dict[int, memoryview] = {}  # without a map
        self.version: Version | None = None
        self.moving: set[int] = set()  # what lies elsewhere in any other version

    def at(self, version: Version) -> "Frame":
        """Return this frame, or where something may have moved another, without it."""
        if self.moving and self.version != version:
            frame = Frame()
            frame.starts, frame.sizes, frame.bodies = self.starts.copy(), self.sizes, self.bodies
            frame.starts[list(self.moving)] = -1
            frame.extents = {o: e for o, e in self.extents.items() if o not in self.moving}
        else:
            frame = self
        frame.version = version
        return frame

    def reserve(self, packs: int) -> None:
        self.starts, self.sizes = grown(self.starts, packs, -1), grown(self.sizes, packs, 0)

    def look_up(self, reader: Snapshot, ordinal: int, key: bytes) -> bool:
        if reader.map is None:
            body = reader.get(key)
            if body is None:
                return False
            self.bodies[ordinal] = body
            start, size, stays = 0, len(body), True
        else:
            extent = reader.extent(key)
            if extent is None:
                return False
            start, size, stays = extent
            self.extents[ordinal] = start, size
        if not stays:
            self.moving.add(ordinal)
        self.starts[ordinal], self.sizes[ordinal] = start, size
        return True


def ordinals_of(codes: Codes) -> Rows:
    return (codes >> np.uint64(2 * BITS)).view(np.int64)


def offsets_of(codes: Codes) -> Rows:
    return (codes >> np.uint64(BITS) & np.uint64(LONG)).view(np.int64)


def lengths_of(codes: Codes) -> Rows:
    """The length that each code tells, 0 where it is `ABSENT`, `LONG` where `large` has it."""
    lengths = (codes & np.uint64(LONG)).view(np.int64)
    lengths[codes == ABSENT] = 0
    return lengths
