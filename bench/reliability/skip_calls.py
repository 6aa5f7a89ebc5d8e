"""Calls of the kernels that take any number of hops at once, over indexes built on the spot."""

from array import array
from typing import Any

import numpy as np

from bench.reliability.calls import INT64, UINT64, Call, Form
from bench.reliability.draw import Draw
from bench.reliability.generators import Scene, generates

Parts = list[memoryview]  # nodes, order, paths, marks


def _numbers(width: int, *row: int) -> Form:
    return (np.int32 if width == 4 else np.int64, row)


def _mark_words(positions: int) -> int:
    words = max(1, -(-positions // 64))
    return words if words == 1 else words + _mark_words(words)


def _successors(draw: Draw, rows: int) -> bytes:
    """Links that make cycles and trees, or long chains."""
    if rows and draw.chance(0.5):
        return draw.rows(rows, rows)
    links = array("q", range(1, rows + 1))
    for _ in range(draw.below(4) if rows else 0):
        links[draw.below(rows)] = draw.below(rows + 1) - 1
    return links.tobytes()


def _built(scene: Scene, rows: int, width: int) -> tuple[memoryview, Parts]:
    """Links and the index of them, with marks that say nothing has changed."""
    draw = scene.draw
    links = draw.buffer(_successors(draw, rows))
    size = rows * width
    nodes, order, paths = draw.out(2 * size), draw.out(size), draw.out(3 * size)
    count = scene.native.skip_build(width, links, nodes, order, paths, draw.out(8 * size))
    marks = draw.buffer(bytes(8 * _mark_words(rows)))
    return links, [nodes, order, paths[: 3 * width * count], marks]


def _walk(links: list[int], row: int, hops: int) -> int:
    """The row `hops` links on, by the definition."""
    if hops < 0 or not 0 <= row < len(links):
        return -1
    seen: dict[int, int] = {}
    while hops:
        if row in seen:
            hops %= seen[row] - hops
            seen = {}
            if not hops:
                break
        seen[row] = hops
        row, hops = links[row], hops - 1
        if not 0 <= row < len(links):
            return -1
    return row


def _skip(*arguments: Any) -> int:
    successors, starts, hops, _, out = arguments[5:]
    links = successors.tolist()
    for i, start in enumerate(starts.tolist()):
        out[i] = _walk(links, start, int(hops[i if len(hops) > 1 else 0]))
    return 0


@generates("skip_build")
def skip_build(scene: Scene) -> Call:
    draw = scene.draw
    rows, width = draw.size(), draw.of((4, 8))
    links = draw.buffer(_successors(draw, rows))
    size = rows * width

    def audit(count: int, theirs: int, copies: list[Any]) -> None:
        """How an index lies is each kernel's own; what it answers is not."""
        buffers = call.arguments
        starts = draw.buffer(array("q", range(rows)).tobytes())
        for hops in (0, 1, 7, rows, 2**62 - 1):
            out, n = draw.out(8 * rows), draw.buffer(np.int64(hops).tobytes())
            paths = buffers[4][: 3 * width * count]
            index = (width, buffers[2], buffers[3], paths, b"", buffers[1])
            scene.native.skip(*index, starts, n, 0, out)
            expected = [_walk(copies[1].tolist(), row, hops) for row in range(rows)]
            assert out.cast("q").tolist() == expected, f"{hops} hops lead elsewhere"

    call = Call(
        "skip_build",
        [width, links, draw.out(2 * size), draw.out(size), draw.out(3 * size), draw.out(8 * size)],
        (
            *(None, INT64, _numbers(width, 2), _numbers(width)),
            *(_numbers(width, 3), _numbers(width, 8)),
        ),
        outputs=(2, 3, 4, 5),
        shown=lambda count, outs: None,
        audit=audit,
    )
    return call


@generates("skip")
def skip(scene: Scene) -> Call:
    draw = scene.draw
    rows, m, width = draw.size(), draw.size(), draw.of((4, 8))
    links, parts = _built(scene, rows, width)
    if draw.chance(0.5):
        parts[3] = draw.buffer(b"")
    elif rows:  # links that have changed since, and rows that came later
        changed = array("q", [draw.below(rows) for _ in range(draw.below(6))])
        numbers = links.cast("q")
        for row in changed:
            numbers[row] = draw.below(rows + 1) - 1
        if draw.chance(0.3):
            changed.extend(row for row in range(rows) if numbers[row] >= rows)
            links = draw.buffer(bytes(links) + draw.rows(draw.below(20), rows))
        scene.native.skip_mark(width, *parts, changed)
    single = draw.chance(0.3) or m == 1
    hops = [
        draw.of((0, 1, 2, 3, 10, 40, 1000, 2**40, 2**62, -1)) for _ in range(1 if single else m)
    ]
    return _skip_call(draw, width, parts, links, rows, m, hops)


def _skip_call(
    draw: Draw, width: int, parts: Parts, links: memoryview, rows: int, m: int, hops: list[int]
) -> Call:
    budget = draw.of((0, 3, 100, 1000))
    return Call(
        "skip",
        [
            width,
            *parts,
            links,
            draw.buffer(draw.rows(m, max(rows, 1))),
            draw.buffer(array("q", hops).tobytes()),
            budget,
            draw.out(8 * m),
        ],
        (
            *(None, _numbers(width, 2), _numbers(width), _numbers(width, 3), UINT64),
            *(INT64, INT64, INT64, None, INT64),
        ),
        outputs=(9,),
        work=(8,),
        definition=_skip,
        shown=lambda met, outs: outs[0].tolist() if met <= budget else "could not",
    )


@generates("skip_mark")
def skip_mark(scene: Scene) -> Call:
    draw = scene.draw
    rows, width = draw.size(), draw.of((4, 8))
    _, parts = _built(scene, rows, width)
    sources = draw.rows(draw.of((0, 1, 2, 5, 40)), max(rows, 1))
    return Call(
        "skip_mark",
        [width, *parts, draw.buffer(sources)],
        (
            *(None, _numbers(width, 2), _numbers(width), _numbers(width, 3)),
            *(UINT64, INT64),
        ),
        outputs=(1, 4),
    )
