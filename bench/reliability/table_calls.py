"""Calls of the tables' kernels, on tables that live through many of them.

Some tables stay sound: what the kernels answer there is compared with the reference, with a copy
of the whole table beside it. Others are copies of those that take damage, more with every call,
until they are replaced.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.reliability.buffers import Guarded
from bench.reliability.calls import BOOL, INT64, REFUSALS, UINT64, Call, Form
from bench.reliability.draw import Draw, as_array
from bench.reliability.generators import GENERATORS, Scene
from hashmem.kernels import reference
from hashmem.kernels.reference.hashing import expand_keys

WIDTHS = (8, 8, 9, 16, 16, 20, 24, 32, 32, 37, 64)
CAPACITIES = (1, 5, 8, 12, 30, 60, 100, 250)
LINE, SLOTS, AWAY, INDEXES = 64, 12, 12, 16  # a bucket, its slots, and where in it things are
LINK = (1 << 40) - 1  # the bits of a link that are an index
LIMIT = 256  # buckets or entries looked at for one place: more than a sound table ever needs
LIMITS = (*[LIMIT] * 6, 0, 1, 2, 5, 2**62)
CROWDED = 0.8  # of the slots: below, a place is found within LIMIT
LIFE = 60  # calls that a damaged table is used for
HELD = 8  # lookups that stay open while their tables change
KEYS = [expand_keys(seed).tobytes() for seed in range(8)]
HEADERS = {"open": 8, "chain": 16}  # bytes of an entry before its digest, its value the last 8
PREFIXES = tuple(HEADERS)
NO_DIGESTS = (b"", b"12345678", "12345678", bytearray(16), memoryview(bytes(8)), None, 7, b"1" * 64)


def damage_bucket(draw: Draw, index: memoryview, entry: Callable[[], int]) -> None:
    """Damage one bucket of an index of open addressing; `entry` draws what a slot may lead to."""
    at, other = (LINE * draw.below(len(index) // LINE) for _ in range(2))
    slot, how = draw.below(SLOTS), draw.below(5)
    if how == 0:  # its tag
        index[at + slot] = draw.below(256)
    elif how == 1:
        index[at + AWAY] = draw.of((0, 1, 2, 254, 255))
    elif how == 2:  # who is away, and who beyond 32 bits
        index[at + AWAY + 1 : at + INDEXES] = draw.noise(3)
    elif how == 3:
        struct.pack_into("<I", index, at + INDEXES + 4 * slot, entry())
    else:
        index[at : at + LINE] = bytes(index[other : other + LINE])


class Table:
    """A table as kernels see it, in buffers of its own, and the digests that may come to it."""

    def __init__(self, prefix: str, draw: Draw, memory: Guarded) -> None:
        self.prefix, self.draw, self.memory, self.sound = prefix, draw, memory, True
        self.width, self.capacity = draw.of(WIDTHS), draw.of(CAPACITIES)
        self.hashed = draw.of((8, self.width))
        self.count = self.calls = 0
        self.header = HEADERS[prefix]
        self.stride = self.header + -(-self.width // 8) * 8
        self.index = self._take(bytes(self._index_size()))
        self.keys = memory.put(draw.of(KEYS))
        self.entries = self._take(draw.noise(self.capacity * self.stride))
        self.pool = self._digests(2 * self.capacity + 3)

    def _index_size(self) -> int:
        """Bytes: as tables take them, or too few, or many."""
        draw, capacity = self.draw, self.capacity
        if self.prefix == "open":
            usual = capacity // 9 + 1
            return LINE * draw.of((usual, usual, capacity // SLOTS + 1, 1, 2, 40, 300))
        usual = capacity // 2 + 1
        return 8 * draw.of((usual, usual, capacity, 1, 3))

    def _take(self, content: bytes) -> memoryview:
        """A buffer aligned to 8 bytes, and to no more now and then."""
        return self.memory.put(content, skew=self.draw.of((0, 0, 8)))

    def _digests(self, n: int) -> bytes:
        """Digests of which some may agree in their first 8 bytes."""
        draw, width = self.draw, self.width
        share = draw.of((0.0, 0.0, 0.3, 1.0)) if width > 8 else 0.0
        self.alike = share > 0
        if not share:
            return draw.noise(n * width)
        starts = [draw.noise(8) for _ in range(draw.of((1, 1, 3)))]
        drawn = [draw.of(starts) if draw.chance(share) else draw.noise(8) for _ in range(n)]
        return b"".join([start + draw.noise(width - 8) for start in drawn])

    def some(self, n: int) -> memoryview:
        """A buffer of `n` digests of the pool, side by side or with some twice."""
        draw, width, known = self.draw, self.width, len(self.pool) // self.width
        if n <= known and draw.chance(0.5):
            at = width * draw.below(known - n + 1)
            return draw.buffer(self.pool[at : at + n * width])
        starts = [width * draw.below(known) for _ in range(n)]
        return draw.buffer(b"".join([self.pool[at : at + width] for at in starts]))

    @property
    def arguments(self) -> list[Any]:
        return [self.index, self.keys, self.entries, self.width, self.hashed, self.count]

    @property
    def forms(self) -> tuple[Form | None, ...]:
        index: Form = (np.uint8, (LINE,)) if self.prefix == "open" else UINT64
        return (index, UINT64, (np.uint8, (self.stride,)), None, None, None)

    def may_lack_places(self, more: int, limit: int) -> bool:
        """Whether one of `more` digests may be without a place: the kernel says which."""
        slots = SLOTS * (len(self.index) // LINE)
        crowded = self.count + more > CROWDED * slots or limit < LIMIT
        shared = self.alike and self.hashed == 8
        return self.prefix == "open" and (crowded or shared)

    def damage(self) -> None:
        """Another call is to come over damage, now and then over one that looks like the truth."""
        self.calls += 1
        draw = self.draw
        if draw.chance(0.03):
            self.hashed = draw.of((8, self.width))
        if draw.chance(0.5):
            return
        if self.prefix == "open":
            damage_bucket(draw, self.index, self._entry)
        elif draw.chance(0.5):
            self._damage_link(self.index, 8 * draw.below(len(self.index) // 8))
        else:
            self._damage_link(self.entries, self.stride * draw.below(self.capacity))

    def _entry(self) -> int:
        draw, count = self.draw, self.count
        return draw.of((draw.below(count + 1), count - 1, count, self.capacity)) & 0xFFFFFFFF

    def _damage_link(self, buffer: memoryview, at: int) -> None:
        """Lead a link to another entry, into a circle perhaps."""
        (link,) = struct.unpack_from("Q", buffer, at)
        struct.pack_into("Q", buffer, at, link & ~LINK | (self._entry() + self.draw.below(2)))

    def copy(self, memory: Guarded) -> "Table":
        """The same table in other memory."""
        twin = object.__new__(Table)
        twin.__dict__.update(self.__dict__)
        memory.clear()
        twin.memory, twin.sound, twin.calls = memory, False, 0
        twin.index = memory.put(bytes(self.index))
        twin.keys = memory.put(bytes(self.keys))
        twin.entries = memory.put(bytes(self.entries))
        return twin


class Tables:
    """The tables of one kind that are in use: a few that are sound, a few that are not."""

    def __init__(self, prefix: str, draw: Draw, memory: Callable[[], Guarded]) -> None:
        self.prefix, self.draw = prefix, draw
        self.sound = [Table(prefix, draw, memory()) for _ in range(3)]
        self.spoilt = [table.copy(memory()) for table in self.sound]

    def take(self, sound: bool) -> Table:
        """A table for the next call."""
        draw = self.draw
        place = draw.below(3)
        if sound:
            table = self.sound[place]
            if draw.chance(0.005):
                table.memory.clear()
                table = self.sound[place] = Table(self.prefix, draw, table.memory)
            return table
        table = self.spoilt[place]
        if table.calls > LIFE:
            table = self.spoilt[place] = draw.of(self.sound).copy(table.memory)
        return table


class TableScene(Scene):
    """What the generators of tables are given besides."""

    sound: bool  # whether the call is to stay valid
    tables: dict[str, Tables]


def _call(
    table: Table, operation: str, rest: list[Any], forms: tuple[Any, ...], **more: Any
) -> Call:
    return Call(
        f"{table.prefix}_{operation}",
        [*table.arguments, *rest],
        (*table.forms, *forms),
        outputs=tuple(6 + place for place in more.pop("written", ())),
        damaged=table.damage,
        comparable=table.sound,
        lasting=table.memory,
        **more,
    )


def _find(scene: TableScene, prefix: str) -> Call:
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    n = draw.size()
    rest = [table.some(n), draw.out(8 * n), draw.below(5) - 2]
    return _call(table, "find", rest, ((np.uint8, (table.width,)), INT64, None), written=(1,))


# Searches of one digest each.


def _outcome(look: Callable[[Any], int | None], digest: Any) -> Any:
    try:
        return look(digest)
    except REFUSALS as error:
        return type(error).__name__


def asked_and_closed(
    scene: Scene, prefix: str, width: int, digests: list[Any]
) -> dict[str, Callable[..., Any]]:
    """What becomes of a lookup: it is asked and closed, or stays while its table changes."""
    draw, held = scene.draw, scene.kept.setdefault(f"{prefix} lookups", [])

    def shown(answer: Any, outs: list[Any]) -> Any:
        look, _ = answer
        return [_outcome(look, digest) for digest in digests]

    def used(answer: Any) -> None:
        look, close = answer
        for digest in digests:
            _outcome(look, digest)
        if draw.chance(0.2):
            held.append((look, width))
            if len(held) > HELD:
                del held[draw.below(HELD)]  # is let go without having been closed
        else:
            close()
            close()
            assert _outcome(look, digests[0]) == "BufferError", "answers when it is closed"
        if held:
            look, size = draw.of(held)
            for _ in range(3):
                _outcome(look, draw.noise(size))
            _outcome(look, digests[0])

    return {"shown": shown, "then": used}


def _lookup(scene: TableScene, prefix: str) -> Call:
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    asked = table.some(5)
    width = table.width
    digests: list[Any] = [bytes(asked[at : at + width]) for at in range(0, 5 * width, width)]
    digests.append(draw.of(NO_DIGESTS))
    return _call(table, "lookup", [], (), **asked_and_closed(scene, prefix, width, digests))


# Changes.


def _insertion(table: Table, n: int, limit: int, stay: bool) -> dict[str, Any]:
    """What inserting and interning have in common. `stay`: values that are there do."""

    def counted(answer: Any) -> None:
        table.count = min(answer[1], table.capacity)

    def shown(answer: Any, outs: list[Any]) -> Any:
        done = answer[0]
        return *answer[:2], *[out[:done].tolist() for out in outs]

    def alike(ours: Any, theirs: Any) -> bool:
        """Whether both are the same as far as both came: one may lack a place that another has."""
        if ours[0] == theirs[0] or not table.may_lack_places(n, limit):
            return bool(ours == theirs)
        done = min(ours[0], theirs[0])
        pairs = zip(ours[2:], theirs[2:], strict=True)
        return all(our[:done] == their[:done] for our, their in pairs)

    def audit(answer: Any, expected: Any, copies: list[Any]) -> None:
        values = stay or answer[0] == expected[0]
        _audit(table, answer[1], expected[1], copies, values)

    return {"then": counted, "shown": shown, "alike": alike, "audit": audit}


def _insert(scene: TableScene, prefix: str) -> Call:
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    n = draw.size()
    room = table.capacity if draw.chance(0.8) else draw.below(table.capacity + 5)
    limit, keep = draw.of(LIMITS), draw.chance(0.4)
    batch = [table.some(n), draw.buffer(draw.noise(8 * n)), draw.out(n)]
    return _call(
        table,
        "insert",
        [room, limit, *batch, keep],
        (None, None, (np.uint8, (table.width,)), INT64, BOOL, None),
        written=(4,),
        **_insertion(table, n, limit, keep),
    )


def _intern(scene: TableScene, prefix: str) -> Call:
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    n = draw.size()
    room = table.capacity if draw.chance(0.8) else draw.below(table.capacity + 5)
    limit = draw.of(LIMITS)
    batch = [table.some(n), draw.out(8 * n), draw.out(n)]
    return _call(
        table,
        "intern",
        [room, limit, *batch, draw.of((0, 1, -5, 2**40))],
        (None, None, (np.uint8, (table.width,)), INT64, BOOL, None),
        written=(3, 4),
        **_insertion(table, n, limit, True),
    )


def _delete(scene: TableScene, prefix: str) -> Call:
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    n = draw.of((0, 1, 2, 5, 20, 40))
    gone, holes = draw.out(n), draw.out(8 * n)

    def close_up(removed: int) -> Call | None:
        """The move that has to follow: what is behind the new end goes into the holes."""
        taken = sorted(holes.cast("q")[:removed])
        end = table.count - removed
        if not removed:
            return None
        if end < 0 or taken[0] < 0 or taken[-1] >= table.count:  # of a damaged table
            table.count = max(end, 0)
            return None
        inner = [hole for hole in taken if hole < end]
        staying = sorted(set(range(end, table.count)) - set(taken))[: len(inner)]
        numbers = [np.array(part, np.int64).tobytes() for part in (staying, inner[: len(staying)])]

        def ended(_: Any) -> None:
            table.count = end

        return _moving(table, [draw.buffer(part) for part in numbers], ended, end)

    return _call(
        table,
        "delete",
        [table.some(n), gone, holes],
        ((np.uint8, (table.width,)), BOOL, INT64),
        written=(1, 2),
        shown=lambda removed, outs: (removed, outs[0].tolist(), sorted(outs[1][:removed].tolist())),
        then=close_up,
    )


def _moving(table: Table, numbers: list[memoryview], then: Callable[[Any], Any], end: int) -> Call:
    """A move after which the first `end` entries are those in use."""

    def audit(answer: Any, expected: Any, copies: list[Any]) -> None:
        _audit(table, end, end, copies)

    return _call(table, "move", numbers, (INT64, INT64), then=then, audit=audit)


def _move(scene: TableScene, prefix: str) -> Call:
    """An entry to a place that was never used, and back; or anything, where it may be wrong."""
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    count = table.count
    if not scene.sound:
        n = draw.size()
        parts = [draw.buffer(draw.rows(n, max(count, 1))) for _ in range(2)]
        return _moving(table, parts, lambda _: None, count)
    if not 0 < count < table.capacity:
        return _moving(table, [draw.buffer(b""), draw.buffer(b"")], lambda _: None, count)
    there = draw.buffer(np.int64(count).tobytes())
    here = draw.buffer(np.int64(draw.below(count)).tobytes())
    table.count += 1

    def back(_: Any) -> Call:
        return _moving(table, [there, here], ended, count)

    def ended(_: Any) -> None:
        table.count -= 1

    call = _moving(table, [here, there], back, count)
    call.comparable = False  # between the two, one place is unused
    return call


def _build(scene: TableScene, prefix: str) -> Call:
    """The index anew, with other keys perhaps, and more of the digests hashed, or less."""
    table, draw = scene.tables[prefix].take(scene.sound), scene.draw
    if scene.sound or draw.chance(0.5):
        table.index[:] = bytes(len(table.index))
        table.keys[:] = draw.of(KEYS)
        table.hashed = draw.of((8, table.width))
    limit = draw.of(LIMITS)

    def built(placed: int) -> None:
        table.count = min(placed, table.capacity)

    def alike(ours: int, theirs: int) -> bool:
        return ours == theirs or table.may_lack_places(0, limit)

    return _call(
        table,
        "build",
        [limit],
        (None,),
        shown=lambda placed, outs: placed,
        then=built,
        alike=alike,
        audit=lambda placed, expected, copies: _audit(table, placed, expected, copies),
    )


def _audit(
    table: Table, count: int, their_count: int, copies: list[Any], values: bool = True
) -> None:
    """Compare a sound table after a call with what the reference made of its copy.

    Of entries, as many as both have, and their values where `values` says so."""
    index, entries = (as_array(table.arguments[i], *table.forms[i]) for i in (0, 2))
    end, header, both = table.header + table.width, table.header, min(count, their_count)
    ours, theirs = entries[:both], copies[2][:both]
    assert np.array_equal(ours[:, header:end], theirs[:, header:end]), "the digests differ"
    if values:
        parts = slice(header - 8, header)
        assert np.array_equal(ours[:, parts], theirs[:, parts]), "the values differ"
    if table.prefix == "chain":
        assert np.array_equal(index, copies[0]), "the heads differ"
        assert np.array_equal(ours[:, :8], theirs[:, :8]), "the links differ"
    find = getattr(reference, f"{table.prefix}_find")
    for searched, held, n in ((index, entries, count), (copies[0], copies[2], their_count)):
        out = np.zeros(n, np.int64)
        digests = np.ascontiguousarray(held[:n, header:end])
        find(searched, copies[1], held, table.width, copies[4], n, digests, out, 0)
        known = np.ascontiguousarray(held[:n, header - 8 : header]).view(np.int64)[:, 0]
        assert np.array_equal(out, known), "an entry is not found"


OPERATIONS: dict[str, Callable[[Any, str], Call]] = {
    "find": _find,
    "lookup": _lookup,
    "insert": _insert,
    "intern": _intern,
    "delete": _delete,
    "move": _move,
    "build": _build,
}


def _bound(make: Callable[[Any, str], Call], prefix: str) -> Callable[[Any], Call]:
    return lambda scene: make(scene, prefix)


for _prefix in PREFIXES:
    for _operation, _make in OPERATIONS.items():
        GENERATORS[f"{_prefix}_{_operation}"] = _bound(_make, _prefix)
