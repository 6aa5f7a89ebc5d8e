"""A generator of valid calls for each kernel that keeps nothing from one call to the next.

`GENERATORS` holds them by the kernel's name, `bench.reliability.table_calls` adds those of tables.
A kernel without one is an error: whoever adds a kernel adds its generator.
"""

from array import array
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from bench.reliability.calls import INT32, INT64, UINT8, UINT64, Call
from bench.reliability.draw import Draw

CHAIN = (np.int64, (3,))
NODE = (np.int64, (2,))
WORDS = b"HTTPServer parseArgs class status URLs words is 2ndPlace \xc3\xa9t\xc3\xa9s buses_x; "


class Scene(Protocol):
    """What generators are given: draws, and the compiled kernels to prepare with."""

    draw: Draw
    native: ModuleType
    kept: dict[str, Any]  # by generators, for later calls


Generator = Callable[[Any], Call]
GENERATORS: dict[str, Generator] = {}


def generates(kernel: str) -> Callable[[Generator], Generator]:
    """Register the generator of a kernel's calls."""

    def register(generator: Generator) -> Generator:
        GENERATORS[kernel] = generator
        return generator

    return register


def unmatched(native: ModuleType) -> list[str]:
    """The kernels that nothing generates calls for, and the generators without a kernel."""
    kernels = [name for name in dir(native) if not name.startswith("_")]
    return sorted(set(kernels) ^ set(GENERATORS))


# Rows and graphs.


@generates("hop")
def hop(scene: Scene) -> Call:
    draw = scene.draw
    rows, m = draw.size(), draw.size()
    steps = draw.below(40) - 2
    endless = draw.chance(0.02)
    return Call(
        "hop",
        [
            draw.buffer(b"\xff" * 8 * rows if endless else draw.rows(rows, rows)),
            draw.buffer(draw.rows(m, rows)),
            2**63 - 1 if endless else steps,
            draw.out(8 * m),
        ],
        (INT64, INT64, None, INT64),
        outputs=(3,),
        work=(2,),
        fixed=endless,
        total=True,
    )


def _graph(draw: Draw, rows: int, edges: int) -> list[Any]:
    return [
        draw.buffer(draw.rising(rows + 1, edges).tobytes()),
        draw.buffer(draw.rows(edges, rows)),
    ]


@generates("frontier")
def frontier(scene: Scene) -> Call:
    draw = scene.draw
    rows, edges = draw.size(), draw.size()
    room, levels = draw.of((0, rows, rows + 1, draw.size())), 1 + draw.below(12)
    return Call(
        "frontier",
        [
            *_graph(draw, rows, edges),
            draw.buffer(draw.rows(draw.of((0, 1, 1, 2, 5, 40)), rows)),
            draw.of((-1, 0, 1, 2, 3, 5, 100, 2**62)),
            draw.out(8 * room),
            draw.out(8 * levels),
        ],
        (INT64, INT64, INT64, None, INT64, INT64),
        outputs=(4, 5),
        total=True,
    )


@generates("reverse")
def reverse(scene: Scene) -> Call:
    draw = scene.draw
    rows, edges = draw.size(), draw.size()
    return Call(
        "reverse",
        [*_graph(draw, rows, edges), draw.out(8 * rows + 8), draw.out(8 * edges)],
        (INT64, INT64, INT64, INT64),
        outputs=(2, 3),
        shown=lambda written, outs: (written, outs[0].tolist(), outs[1][:written].tolist()),
        total=True,
    )


@generates("shortest")
def shortest(scene: Scene) -> Call:
    draw = scene.draw
    rows, edges = max(2, draw.size()), draw.size()
    graph = _graph(draw, rows, edges)
    back = [draw.out(8 * rows + 8), draw.out(8 * edges)]
    scene.native.reverse(*graph, *back)
    start = draw.below(rows)
    end = (start + 1 + draw.below(rows - 1)) % rows
    room = draw.of((2, 3, rows, rows, rows))
    return Call(
        "shortest",
        [*graph, *back, start, end, draw.of((0, 1, 2, 4, 100, 2**62)), draw.out(8 * room)],
        (INT64, INT64, INT64, INT64, None, None, None, INT64),
        outputs=(7,),
        shown=lambda length, outs: (length, outs[0][:length].tolist()),
    )


# Chains of values.


def _chains(scene: Scene) -> tuple[memoryview, memoryview, int]:
    """Chains with some values in them, and how many nodes those take."""
    draw = scene.draw
    chains, used = draw.of((0, 1, 2, 5, 20)), draw.size()
    used = used if chains else 0
    records, nodes = draw.buffer(bytes(24 * chains)), draw.buffer(bytes(16 * (used + draw.size())))
    ids = _valid_rows(draw, used, chains)
    scene.native.multimap_append(records, nodes, ids, draw.noise(8 * used), 0)
    return records, nodes, used


def _valid_rows(draw: Draw, items: int, bound: int) -> bytes:
    return array("q", [draw.below(bound) for _ in range(items)]).tobytes()


@generates("multimap_append")
def multimap_append(scene: Scene) -> Call:
    draw = scene.draw
    records, nodes, used = _chains(scene)
    n = min(draw.size(), len(nodes) // 16 - used)
    return Call(
        "multimap_append",
        [
            records,
            nodes,
            draw.buffer(draw.rows(n, len(records) // 24)),
            draw.buffer(draw.noise(8 * n)),
            used,
        ],
        (CHAIN, NODE, INT64, INT64, None),
        outputs=(0, 1),
    )


@generates("multimap_gather")
def multimap_gather(scene: Scene) -> Call:
    draw = scene.draw
    records, nodes, _ = _chains(scene)
    chains = len(records) // 24
    ids = [draw.below(chains + 1) - 1 for _ in range(draw.size())]
    counts, offsets = records.cast("q"), [0]
    for chain in ids:
        held = counts[3 * chain + 2] if chain >= 0 else 0
        offsets.append(offsets[-1] + (draw.below(held + 1) if draw.chance(0.1) else held))
    if offsets[-1] > 2000:  # long chains asked for again and again
        ids, offsets = ids[:1], offsets[:2]
    return Call(
        "multimap_gather",
        [
            records,
            nodes,
            draw.buffer(array("q", ids).tobytes()),
            draw.buffer(array("q", offsets).tobytes()),
            draw.out(8 * offsets[-1]),
        ],
        (CHAIN, NODE, INT64, INT64, INT64),
        outputs=(4,),
        total=True,
    )


# Bytes and text.


WIDTHS = {"sha256": 32, "xxh3_128": 16, "xxh3_64": 8}  # bytes a digest
LENGTHS = (0, 1, 3, 8, 16, 17, 55, 56, 64, 119, 128, 129, 240, 241, 500, 1024, 1025, 2000)


def _shown(answer: Any, outputs: list[Any]) -> Any:
    # False and -1: this CPU lacks the instructions, and the caller takes hashlib
    return "could not" if answer is False or answer == -1 else (answer, outputs[0].tolist())


def _pieces(draw: Draw, most: int) -> int:
    """How many pieces or items: now and then more than the kernels take at once."""
    return draw.of((256, 257, 600)) if draw.chance(0.005) else draw.below(most)


@generates("digest_pieces")
def digest_pieces(scene: Scene) -> Call:
    draw = scene.draw
    algorithm = draw.of(tuple(WIDTHS))
    pieces, length = _pieces(draw, 12), draw.of(LENGTHS)
    if draw.chance(0.3):
        offsets, form = length // max(pieces, 1), None
    else:
        many = 2 * pieces if draw.chance(0.3) else pieces + 1  # apart, or one after the other
        offsets, form = draw.buffer(draw.rising(many, length).tobytes()), INT64
    return Call(
        "digest_pieces",
        [algorithm, draw.buffer(draw.noise(length)), offsets, draw.out(WIDTHS[algorithm] * pieces)],
        (None, UINT8, form, UINT8),
        outputs=(3,),
        shown=_shown,
    )


def _odd_items(draw: Draw) -> tuple[Any, ...]:
    """Items of other types: buffers of several, and what is none or not for the kernel."""
    view = memoryview(draw.noise(48))
    plain = bytearray(view), Named(view), array("q", view[:40]), view[:0], np.frombuffer(view, "i4")
    others = view[::2], view.cast("B", (6, 8)), "text", None, 7, [view], object()
    return (*plain, *plain, *others)


class Named(bytes):
    """Bytes, but not exactly."""


@generates("digest_items")
def digest_items(scene: Scene) -> Call:
    draw = scene.draw
    algorithm = draw.of(tuple(WIDTHS))
    n = 2049 if draw.chance(0.001) else _pieces(draw, 8)
    lengths = LENGTHS if n < 100 else LENGTHS[:6]
    items: list[Any] = [
        content if draw.chance(0.5) else draw.buffer(content)
        for content in (draw.noise(draw.of(lengths)) for _ in range(n))
    ]
    if items and draw.chance(0.2):
        items[draw.below(n)] = draw.of(_odd_items(draw))
    held = items if draw.chance(0.5) else tuple(items)
    return Call(
        "digest_items",
        [algorithm, held, draw.below(n + 1), draw.out(WIDTHS[algorithm] * n)],
        (None, UINT8, None, UINT8),
        outputs=(3,),
        shown=_shown,
    )


@generates("gather")
def gather(scene: Scene) -> Call:
    draw = scene.draw
    bodies = tuple(draw.buffer(draw.noise(draw.size())) for _ in range(draw.below(5)))
    n = draw.size() if bodies else 0
    room = draw.size() + 100
    which, offsets, lengths, places = [], [], [], []
    for _ in range(n):
        body = draw.below(len(bodies))
        start = draw.below(len(bodies[body]) + 1)
        length = draw.below(min(len(bodies[body]) - start, room) + 1)
        which.append(body)
        offsets.append(start)
        lengths.append(length)
        places.append(draw.below(room - length + 1))
    numbers = [draw.buffer(array("q", part).tobytes()) for part in (which, offsets, lengths)]
    return Call(
        "gather",
        [
            bodies,
            *numbers,
            draw.out(room),
            draw.buffer(array("q", places).tobytes()),
        ],
        (UINT8, INT64, INT64, INT64, UINT8, INT64),
        outputs=(4,),
        total=True,
    )


def _text(draw: Draw) -> bytes:
    if draw.chance(0.3):
        return draw.noise(draw.size() * 4)
    at = draw.below(len(WORDS))
    return (WORDS[at:] + WORDS * draw.below(4))[: draw.size() * 3]


@generates("hash_words")
def hash_words(scene: Scene) -> Call:
    draw = scene.draw
    text = _text(draw)
    chunks = draw.below(9)
    room = len(text) // 2 + chunks + 1 if draw.chance(0.9) else draw.below(len(text) // 2 + 1)
    return Call(
        "hash_words",
        [
            draw.buffer(text),
            draw.buffer(draw.rising(chunks + 1, len(text)).tobytes()),
            draw.out(8 * room),
            draw.out(8 * chunks + 8),
        ],
        (UINT8, INT64, UINT64, INT64),
        outputs=(2, 3),
        shown=lambda words, outs: (words, outs[0][:words].tolist(), outs[1].tolist()),
        total=True,
    )


@generates("count_ngrams")
def count_ngrams(scene: Scene) -> Call:
    draw = scene.draw
    words, chunks = draw.size(), draw.below(9)
    dims = draw.of((1, 2, 3, 8, 64))
    hashes = draw.buffer(draw.noise(8 * words))
    for _ in range(draw.below(4) if words else 0):
        at = 8 * draw.below(words)
        hashes[at : at + 8] = bytes(8)  # no word
    return Call(
        "count_ngrams",
        [
            hashes,
            draw.buffer(draw.rising(chunks + 1, words).tobytes()),
            draw.below(5),
            draw.below(5) - 1,
            dims,
            draw.out(4 * chunks * dims),
        ],
        (UINT64, INT64, None, None, None, INT32),
        outputs=(5,),
        total=True,
    )
