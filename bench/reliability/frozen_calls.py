"""Calls of the frozen tables' kernels: partition, build, and find over a body that may be damaged.

A body is built once and serves many finds, each on a copy of its own.
"""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.reliability.calls import INT64, UINT8, UINT64, Call
from bench.reliability.draw import Draw
from bench.reliability.generators import Scene, generates
from hashmem.kernels.reference.hashing import expand_keys

BLOCK = 1 << 16  # bytes of a body that are verified together
WIDTHS = (8, 8, 9, 16, 20, 32, 32, 37, 64)
SPARE = 128  # entries to one more slot
KEYS = [b"".join(expand_keys(4 * seed + turn).tobytes() for turn in range(4)) for seed in range(4)]
KEPT = 30  # calls that a body serves


def _entry_bytes(width: int) -> int:
    return 8 + (width + 7) // 8 * 8


@dataclass
class _Parts:
    """What partitioning gives and building needs."""

    width: int
    keys: memoryview
    records: memoryview
    starts: memoryview
    hashes: memoryview
    rows: memoryview
    offsets: memoryview
    buckets: int

    @property
    def slots(self) -> int:
        return int(self.offsets.cast("Q")[-1])

    @property
    def parts(self) -> int:
        return len(self.starts) // 8 - 1


def _records(draw: Draw, n: int, width: int) -> bytes:
    """Entries of a value, a digest, and zeros up to a multiple of 8 bytes."""
    content, rest = draw.noise(n * (8 + width)), bytes(-width % 8)
    if not rest:
        return content
    size = 8 + width
    return b"".join([content[at : at + size] + rest for at in range(0, n * size, size)])


def _partition(scene: Scene, partitioned: bool = True) -> _Parts:
    draw = scene.draw
    n, width, parts = draw.size(), draw.of(WIDTHS), draw.of((1, 1, 2, 3, 7))
    keys, records = draw.buffer(draw.of(KEYS)), draw.buffer(_records(draw, n, width))
    starts, hashes, rows = draw.out(8 * parts + 8), draw.out(8 * n), draw.out(8 * n)
    offsets = array("Q", bytes(8 * parts + 8))
    if partitioned:
        scene.native.frozen_partition(records, keys, width, starts, hashes, rows)
        begins = starts.cast("Q")
        for part in range(parts):
            amount = begins[part + 1] - begins[part]
            offsets[part + 1] = offsets[part] + amount + -(-amount // SPARE)
    buckets = max(1, -(-n // (3 * parts)))
    laid = draw.buffer(offsets.tobytes())
    return _Parts(width, keys, records, starts, hashes, rows, laid, buckets)


@generates("frozen_partition")
def frozen_partition(scene: Scene) -> Call:
    p = _partition(scene, partitioned=False)
    return Call(
        "frozen_partition",
        [p.records, p.keys, p.width, p.starts, p.hashes, p.rows],
        (UINT8, UINT64, None, UINT64, UINT64, UINT64),
        outputs=(3, 4, 5),
    )


@generates("frozen_build")
def frozen_build(scene: Scene) -> Call:
    p, draw = _partition(scene), scene.draw
    made = [draw.out(p.parts), draw.out(p.parts * p.buckets)]
    entries = draw.out(p.slots * _entry_bytes(p.width))
    batch = [p.records, p.width, p.keys, p.hashes, p.rows, p.starts, p.offsets, p.buckets]
    return Call(
        "frozen_build",
        [*batch, *made, entries],
        (UINT8, None, UINT64, UINT64, UINT64, UINT64, UINT64, None, UINT8, UINT8, UINT8),
        outputs=(3, 8, 9, 10),
        work=(7,),
        # Where a part finds no pilots under any keys, what was written until then is open.
        shown=lambda built, outs: [out.tolist() for out in outs] if built else "not built",
    )


@dataclass
class _Body:
    """A frozen table's bytes, outside of the buffers of any one call."""

    content: bytes
    offsets: bytes
    turns: bytes
    keys: bytes
    width: int
    buckets: int
    entries_at: int
    digests: list[bytes]
    calls: int = 0


def _frozen(scene: Scene) -> _Body:
    draw = scene.draw
    while True:
        p = _partition(scene)
        turns, pilots = draw.out(p.parts), draw.out(p.parts * p.buckets)
        size = _entry_bytes(p.width)
        entries = draw.out(p.slots * size)
        batch = (p.records, p.width, p.keys, p.hashes, p.rows, p.starts, p.offsets, p.buckets)
        if scene.native.frozen_build(*batch, turns, pilots, entries):
            break
    gap = BLOCK - 100 if draw.chance(0.1) else 64  # so that entries lie across blocks, at times
    head = bytes(pilots).ljust(len(pilots) + gap)
    records = bytes(p.records)
    starts = range(8, len(records), size)
    return _Body(
        content=head + bytes(entries),
        offsets=bytes(p.offsets),
        turns=bytes(turns),
        keys=bytes(p.keys),
        width=p.width,
        buckets=p.buckets,
        entries_at=len(head),
        digests=[records[at : at + p.width] for at in starts],
    )


@generates("frozen_find")
def frozen_find(scene: Scene) -> Call:
    draw = scene.draw
    body: _Body | None = scene.kept.get("frozen")
    if body is None or body.calls > KEPT:
        body = scene.kept["frozen"] = _frozen(scene)
        draw.memory.clear()
    body.calls += 1
    n = draw.size()
    queries = [
        draw.of(body.digests) if body.digests and draw.chance(0.7) else draw.noise(body.width)
        for _ in range(n)
    ]
    blocks = -(-len(body.content) // BLOCK)
    verified = bytes(int(draw.chance(0.9)) for _ in range(blocks))
    asking = draw.chance(0.5)
    parts = (body.content, body.offsets, body.turns, body.keys, verified)

    def shown(left_out: int, outs: list[Any]) -> Any:
        """Where some had to be left out, what was found of the others is open."""
        if left_out:
            return (left_out, outs[1].tolist()) if asking else "left out"
        return outs[0].tolist()

    return Call(
        "frozen_find",
        [
            *(draw.buffer(part) for part in parts),
            *(body.width, body.buckets, body.entries_at),
            draw.buffer(b"".join(queries)),
            draw.out(8 * n),
            draw.below(4) - 2,
            draw.below(2),
            draw.buffer(bytes(blocks if asking else 0)),
        ],
        (
            *(UINT8, UINT64, UINT8, UINT64, UINT8),
            *(None, None, None),
            *((np.uint8, (body.width,)), INT64, None, None, UINT8),
        ),
        outputs=(9, 12),
        shown=shown,
    )
