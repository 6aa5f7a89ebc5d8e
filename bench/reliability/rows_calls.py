"""Calls of the kernels for tables of digests alone: build, find and lookup, which answer rows.

The reference kernel builds a table once, and it serves many calls, each on a copy of its own: a
sound one, where answers are compared; one whose buckets are damaged, where any answer will do but
the kernels must stay within their buffers; or one with an argument that has to be refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.reliability.calls import INT64, UINT64, Call, Form
from bench.reliability.draw import Draw, as_array
from bench.reliability.generators import Scene, generates
from bench.reliability.table_calls import (
    CAPACITIES,
    CROWDED,
    KEYS,
    LIMIT,
    LIMITS,
    LINE,
    NO_DIGESTS,
    SLOTS,
    WIDTHS,
    asked_and_closed,
    damage_bucket,
)
from hashmem.kernels import reference

KEPT = 40  # calls that a table serves
LYING = 0.1  # of the calls that would be valid
BUCKETS, KEYS_AT, DIGESTS, WIDTH, HASHED, COUNT = range(6)  # the arguments every kernel starts with


class Scenes(Scene):
    """What these generators are given besides."""

    sound: bool  # whether the call is to stay as it is made


@dataclass
class _Table:
    """A table's bytes, outside of the buffers of any one call."""

    width: int
    hashed: int
    count: int
    keys: bytes
    rows: bytes  # of `count` digests in use, and some behind them
    index: bytes
    digests: list[bytes]  # of all rows
    alike: bool  # whether some agree in their first 8 bytes
    calls: int = 0

    @property
    def stride(self) -> int:
        return -(-self.width // 8) * 8

    @property
    def forms(self) -> tuple[Form | None, ...]:
        return (np.uint8, (LINE,)), UINT64, (np.uint8, (self.stride,)), None, None, None


def _digests(draw: Draw, n: int, width: int, share: float) -> list[bytes]:
    """Up to `n` distinct digests, of which a `share` agrees in the first 8 bytes with others."""
    starts = [draw.noise(8) for _ in range(draw.of((1, 1, 3)))]
    drawn = [draw.of(starts) if draw.chance(share) else draw.noise(8) for _ in range(n)]
    return list(dict.fromkeys(start + draw.noise(width - 8) for start in drawn))


def _buckets(draw: Draw, rows: int) -> int:
    """How many buckets: as tables have them, or as few as can be, or many."""
    return draw.of((rows // 9 + 1, rows // 9 + 1, rows // SLOTS + 1, 40, 300))


def _built(draw: Draw) -> _Table:
    width = draw.of(WIDTHS)
    share = draw.of((0.0, 0.0, 0.3, 1.0)) if width > 8 else 0.0
    digests = _digests(draw, draw.of((0, *CAPACITIES)), width, share)
    hashed, count = draw.of((8, width)), len(digests)
    if draw.chance(0.3):  # others lie behind those in use
        count = draw.below(count + 1)
    keys = draw.of(KEYS)
    stride = -(-width // 8) * 8
    rows = b"".join([digest + draw.noise(stride - width) for digest in digests])
    index = np.zeros((_buckets(draw, len(digests)), LINE), np.uint8)
    held, sums = as_array(rows, np.uint8, (stride,)), as_array(keys, *UINT64)
    # Rows for which there was no place, and all behind them, are not in the index.
    count = reference.rows_build(index, sums, held, width, hashed, count, LIMIT)
    return _Table(width, hashed, count, keys, rows, index.tobytes(), digests, share > 0)


def _table(scene: Scenes) -> _Table:
    table: _Table | None = scene.kept.get("rows")
    if table is None or table.calls > KEPT:
        table = scene.kept["rows"] = _built(scene.draw)
    table.calls += 1
    return table


def _arguments(scene: Scenes, table: _Table, index: bytes) -> list[Any]:
    """The table in buffers of this call, its buckets damaged unless the call is to stay valid."""
    draw, memory, skews = scene.draw, scene.draw.memory, (0, 0, 8)
    buckets = memory.put(index, skew=draw.of(skews))
    digests = memory.put(table.rows, skew=draw.of(skews))
    count, capacity = table.count, len(table.digests)

    def entry() -> int:
        return draw.of((draw.below(count + 1), count - 1, count, capacity)) & 0xFFFFFFFF

    if not scene.sound:
        if draw.chance(0.1):
            buckets[:] = draw.noise(len(buckets))
        for _ in range(draw.below(5)):
            damage_bucket(draw, buckets, entry)
    return [buckets, draw.buffer(table.keys), digests, table.width, table.hashed, count]


def _query(draw: Draw, table: _Table) -> bytes:
    """A digest that is there, or behind those in use, or begins as one does, or is any."""
    if not table.digests or draw.chance(0.2):
        return draw.noise(table.width)
    known = draw.of(table.digests)
    return known if draw.chance(0.8) else known[:8] + draw.noise(table.width - 8)


# Arguments that cannot be.


def _lies(draw: Draw, table: _Table, given: list[Any]) -> list[tuple[int, Any]]:
    """Places of arguments, and what every kernel refuses there."""
    buckets, keys, digests = given[:WIDTH]
    held, width = len(table.digests), table.width
    lies: list[tuple[int, Any]] = [
        (COUNT, held + 1),
        (COUNT, draw.of((-1, 2**33 + 1, 2**62, 2**64))),
        (WIDTH, draw.of((7, 65, 0, -8))),
        (HASHED, draw.of((7, 9 if width != 9 else 10, width + 1, 0))),
        (BUCKETS, buckets[:0]),
        (BUCKETS, draw.memory.put(bytes(buckets), skew=1 + draw.below(7))),
        (KEYS_AT, keys[:-8]),
        (KEYS_AT, draw.memory.put(bytes(keys), skew=1 + draw.below(7))),
    ]
    if held:
        lies.append((DIGESTS, draw.memory.put(bytes(digests), skew=1 + draw.below(7))))
    if table.count:
        lies.append((DIGESTS, digests[: table.count * table.stride - 8]))
    return lies


def _called(
    scene: Scenes, table: _Table, operation: str, given: list[Any], forms: Any, **more: Any
) -> Call:
    """The call, now and then with one argument that has it refused."""
    draw = scene.draw
    lies = [*_lies(draw, table, given), *more.pop("lies", [])]
    comparable = scene.sound
    if scene.sound and draw.chance(LYING):
        place, lie = draw.of(lies)
        given[place] = lie
        comparable = False

        def refuse(_: Any) -> None:
            raise AssertionError(f"answers what it must refuse: argument {place}")

        more["then"] = refuse
    forms = (*table.forms, *forms)
    return Call(f"rows_{operation}", given, forms, comparable=comparable, **more)


# The kernels.


@generates("rows_find")
def rows_find(scene: Scenes) -> Call:
    draw, table = scene.draw, _table(scene)
    n = draw.size()
    given = _arguments(scene, table, table.index)
    queries = draw.buffer(b"".join([_query(draw, table) for _ in range(n)]))
    given += [queries, draw.out(8 * n), draw.below(5) - 2]
    # `out` in memory that is read; and of another size than there are queries.
    lies = [(7, part[: 8 * n]) for part in (*given[:WIDTH], queries) if n and len(part) >= 8 * n]
    lies += [(7, draw.out(8 * n + 8)), (6, draw.out(table.width * n + 1))]
    asked: Form = (np.uint8, (table.width,))
    return _called(scene, table, "find", given, (asked, INT64, None), outputs=(7,), lies=lies)


@generates("rows_lookup")
def rows_lookup(scene: Scenes) -> Call:
    draw, table = scene.draw, _table(scene)
    digests: list[Any] = [_query(draw, table) for _ in range(5)]
    digests.append(draw.of(NO_DIGESTS))
    used = asked_and_closed(scene, "rows", table.width, digests)
    return _called(scene, table, "lookup", _arguments(scene, table, table.index), (), **used)


@generates("rows_build")
def rows_build(scene: Scenes) -> Call:
    """The index anew, of another size and with other keys; over garbage where it may be damaged."""
    draw, table = scene.draw, _table(scene)
    index = bytes(LINE * _buckets(draw, len(table.digests)))
    given = _arguments(scene, table, index)
    given[KEYS_AT][:] = draw.of(KEYS)
    given[HASHED] = hashed = draw.of((8, table.width))
    limit = draw.of(LIMITS)
    buckets, keys, digests = given[:WIDTH]
    lies: list[tuple[int, Any]] = [(BUCKETS, bytes(buckets)), (6, -1), (6, None)]
    if table.count > SLOTS:
        lies.append((BUCKETS, buckets[:LINE]))
    if len(digests) >= len(buckets):
        lies.append((BUCKETS, digests[: len(buckets)]))  # overlaps
    if len(buckets) >= len(keys):
        lies.append((KEYS_AT, buckets[: len(keys)]))
    slots = SLOTS * (len(index) // LINE)
    crowded = table.count > CROWDED * slots or limit < LIMIT
    lacking = crowded or (table.alike and hashed == 8)

    def audit(placed: int, expected: int, copies: list[Any]) -> None:
        """Either index leads to each row that was placed."""
        ours = as_array(given[BUCKETS], np.uint8, (LINE,))
        for built, count in ((ours, placed), (copies[BUCKETS], expected)):
            out = np.zeros(count, np.int64)
            asked = b"".join(table.digests[:count])
            sums, rows = copies[KEYS_AT], copies[DIGESTS]
            reference.rows_find(built, sums, rows, table.width, hashed, count, asked, out, -1)
            assert out.tolist() == list(range(count)), "a row is not found"

    return _called(
        scene,
        table,
        "build",
        [*given, limit],
        (None,),
        outputs=(BUCKETS,),
        # Where places may be lacking, one kernel may find more of them than the other.
        shown=lambda placed, outs: placed,
        alike=lambda ours, theirs: ours == theirs or lacking,
        audit=audit,
        lies=lies,
    )
