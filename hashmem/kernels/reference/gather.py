"""Copying pieces scattered over several buffers together. The definition of `gather.c`."""

from typing import Any

import numpy as np

__all__ = ["gather"]


def gather(
    bodies: tuple[Any, ...], which: Any, offsets: Any, lengths: Any, out: Any, out_offsets: Any
) -> None:
    """Copy ``bodies[which[i]][offsets[i]:offsets[i] + lengths[i]]`` to ``out[out_offsets[i]:]``.

    Raises `ValueError` where a piece lies outside either buffer; nothing is copied then.
    """
    if not len(which) == len(offsets) == len(lengths) == len(out_offsets):
        raise ValueError("which, offsets, lengths, out_offsets differ in length")
    sources = [memoryview(body).cast("B") for body in bodies]
    sizes = np.array([len(source) for source in sources] or [0])
    known = (which >= 0) & (which < len(sources))
    room = sizes[np.where(known, which, 0)]
    bad = ~known | (lengths < 0) | (offsets < 0) | (out_offsets < 0)
    bad |= (offsets > room - lengths) | (out_offsets > len(out) - lengths)
    if bad.any():
        raise ValueError(f"piece {int(np.argmax(bad))} lies outside its body or the output")
    target = memoryview(out).cast("B")
    pieces = zip(
        which.tolist(), offsets.tolist(), lengths.tolist(), out_offsets.tolist(), strict=True
    )
    for body, start, length, to in pieces:
        target[to : to + length] = sources[body][start : start + length]
