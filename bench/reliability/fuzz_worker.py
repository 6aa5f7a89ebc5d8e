"""Runs blocks of inputs in a process of its own, which a kernel may take down with it.

`python -m bench.reliability.fuzz_worker PLACE FIRST LAST STEP KERNELS…` prints a line of JSON for
each block: its number, its counts, and what failed. Before each input its block and place are
written to the file PLACE, which lives on when the process does not.
"""

import json
import mmap
import struct
import sys
from pathlib import Path

from bench.reliability.builds import is_sanitized
from bench.reliability.inputs import Block, Failure
from hashmem.kernels import _native

PLACE = struct.Struct("qq")  # block, place


def main() -> None:
    path, first, last, step = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    only = tuple(sys.argv[5:])
    with path.open("r+b") as file:
        now = mmap.mmap(file.fileno(), PLACE.size)
    for number in range(first, last, step):

        def told(place: int, block: int = number) -> None:
            PLACE.pack_into(now, 0, block, place)

        block = Block(number, _native, separate=is_sanitized(), told=told, only=only)
        line: dict[str, object] = {"block": number}
        try:
            block.run()
        except Failure as failure:
            line["failure"] = str(failure)
        print(json.dumps(line | {"counts": block.counts}), flush=True)


if __name__ == "__main__":
    main()
