"""Inputs for decoders: known ones changed a little, and msgpack that nobody wrote."""

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

__all__ = ["any_msgpack", "changed", "map_with_one_wrong"]

NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097, 32767, 65535, 65536),
    *(2**22, 2**22 + 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**47, 2**48, 2**63 - 1, 2**63),
    *(2**64 - 1, 2**64 - 2, 2**64 - 4096),
]


def changed(random: Random, seeds: Sequence[bytes], hot: Sequence[Sequence[int]]) -> bytearray:
    """One of `seeds` with a few changes, half of them at one of its `hot` places."""
    draw = random.getrandbits
    which = random.randrange(len(seeds))
    data, places = bytearray(seeds[which]), hot[which]
    for _ in range(1 + (draw(3) and draw(2)) + (0 if draw(3) else draw(4))):
        if not data:
            return bytearray(random.randbytes(draw(5)))
        size = len(data)
        if places and draw(1):
            at = places[int(random.random() * len(places))]
            if at >= size:
                continue
        else:
            at = int(random.random() * size)
        kind = draw(4)
        if kind < 4:
            data[at] ^= 1 << draw(3)
        elif kind < 7:
            data[at] = draw(8)
        elif kind < 12:
            width = 1 << draw(2)
            at -= at % width if draw(1) else 0
            number = NUMBERS[int(random.random() * len(NUMBERS))]
            if draw(2) == 0:
                number = size + draw(3) - 4
            data[at : at + width] = (number & (1 << 8 * width) - 1).to_bytes(width, "little")
        elif kind == 12:
            del data[at : at + 1 + draw(draw(3) + 1)]
        elif kind == 13:
            data[at:at] = data[at : at + 1 + draw(draw(3) + 1)]
        elif kind == 14:
            other = seeds[random.randrange(len(seeds))]
            data[at:] = other[at:]
        else:
            del data[at:]
    return data


_LEAVES: list[Callable[[Random], bytes]] = [
    lambda random: bytes([random.getrandbits(8)]),  # small numbers, nil, true, and what lies
    lambda random: b"\xcf" + random.randbytes(8),
    lambda random: b"\xd3" + random.randbytes(8),
    lambda random: b"\xcb" + random.randbytes(8),
    lambda random: b"\xa3" + random.randbytes(3),  # text that may be no UTF-8
    lambda random: b"\xa2ab",
    lambda random: b"\xc4\x03" + random.randbytes(3),
    lambda random: b"\xd6\xff" + random.randbytes(4),  # a time
    lambda random: b"\xd7\xff" + random.randbytes(8),
    lambda random: b"\xc7\x0c\xff" + random.randbytes(12),
    lambda random: b"\xd4" + random.randbytes(2),  # an extension
    lambda random: b"\xc1",  # nothing msgpack has
]
_HEADS = (b"\xc6", b"\xdb", b"\xdd", b"\xdf")  # bytes, text, array, map of so many


def any_msgpack(random: Random, depth: int = 4) -> bytes:
    """Something that reads as msgpack for a while: nested, mistyped, too long or too deep."""
    draw = random.getrandbits
    kind = draw(4)
    if depth == 4 and kind == 15:
        return _bomb(random)
    if kind < 7 or depth == 0:
        return _LEAVES[int(random.random() * len(_LEAVES))](random)
    count = draw(2)
    if kind < 10:
        return bytes([0x90 | count]) + b"".join(
            any_msgpack(random, depth - 1) for _ in range(count)
        )
    if kind < 14:
        pairs = [
            b"\xa1" + bytes([97 + i]) if draw(3) else any_msgpack(random, 0) for i in range(count)
        ]
        return bytes([0x80 | count]) + b"".join(
            key + any_msgpack(random, depth - 1) for key in pairs
        )
    length = NUMBERS[int(random.random() * 26)]
    return _HEADS[draw(2)] + struct.pack(">I", length & 0xFFFFFFFF) + random.randbytes(draw(3))


def _bomb(random: Random) -> bytes:
    """Deeper than a stack, or arrays that each claim all there is."""
    depth = 1 << random.randrange(1, 12)
    head = random.choice([b"\x91", b"\x81\xa1a", b"\xdd" + struct.pack(">I", 6 * depth)])
    return head * depth + b"\xc0" * random.choice([0, 1, depth])


def map_with_one_wrong(random: Random, known: Sequence[dict[str, Any]]) -> bytes:
    """One of `known` maps with an entry more, less or replaced by something else."""
    entries = dict(random.choice(known))
    name = random.choice([*entries, "another"])
    packed = {key: msgpack.packb(value) for key, value in entries.items()}
    if random.getrandbits(3):
        packed[name] = any_msgpack(random, 3)
    else:
        packed.pop(name, None)
    pairs = (msgpack.packb(key) + value for key, value in packed.items())
    return bytes([0x80 | len(packed)]) + b"".join(pairs)
