"""Fuzzing of every decoder of stored bytes.

Each decoder (`bench/reliability/decoders.py`) reads inputs that follow from their number: known
ones with a few changes, half of them at fields that matter, and for msgpack some that nobody wrote:
mistyped, too long, too deep. Seven in eight have their checksums made right again, so that what
lies behind the checksum is reached. A decoder may answer or raise one of hashmem's own errors.
Anything else is a failure: another exception, a crash, an input that does not end, more than 1 GiB
taken, or, looked at in one input of 64, more memory than 64 times the input and a fixed amount.

`--replay DECODER BLOCK PLACE` makes one input again and decodes it.
"""

import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from bench.reliability import store_campaigns as campaigns
from bench.reliability.decoders import DECODERS, FOLDER, Decoder
from bench.reliability.fuzz_mutations import changed
from hashmem.errors import HashMemError

NAME = "fuzz_store"
INPUTS = 10_000_000  # a decoder
BLOCK = 2000  # inputs, of a decoder that gets its full share
BLOCKS = 50  # a child
SAMPLED = 64  # one input in so many has its memory looked at
TIMES = 64  # bytes that decoding may take for one of the input, beyond the decoder's cap
LARGEST = 1 << 16  # bytes; what changing makes longer is cut


class Inputs:
    """The inputs of one decoder, a block at a time."""

    def __init__(self, name: str, decoder: Decoder) -> None:
        self.name, self.decoder = name, decoder
        self.seeds = decoder.seeds()
        self.hot = [decoder.hot(seed) if decoder.hot else () for seed in self.seeds]
        self.size = max(10, int(BLOCK * decoder.share))  # of a block

    def block(self, seed: int, number: int) -> Callable[[], bytes]:
        """What makes the inputs of a block, one after the other."""
        random = Random(f"{seed} {self.name} {number}")
        made, mend, draw = self.decoder.made, self.decoder.mend, random.getrandbits

        def one() -> bytes:
            if made is not None and draw(2):
                return made(random)
            data = changed(random, self.seeds, self.hot)
            del data[LARGEST:]
            if mend is not None and draw(3):
                mend(data)
            return bytes(data)

        return one


def check(inputs: Inputs, seed: int, number: int, place: campaigns.Place) -> dict[str, Any]:
    """Decode a block: how many were answered and refused, and what failed."""
    one, decode = inputs.block(seed, number), inputs.decoder.decode
    answered, failures = 0, []
    for at in range(inputs.size):
        place.set(at)
        data = one()
        sampled = (at + number) % SAMPLED == 0
        if sampled:
            tracemalloc.start()
        try:
            decode(data)
            answered += 1
        except HashMemError:
            pass
        except Exception as error:  # that is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {where.name}"
            failures.append({"kind": kind, "place": at, "what": f"{error}"[:200]})
        if sampled:
            took = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if took > inputs.decoder.cap + TIMES * len(data):
                what = f"{len(data)} bytes take {took}"
                failures.append({"kind": "memory", "place": at, "what": what})
    return {"answered": answered, "failures": failures}


def campaign(
    found: dict[str, Any], inputs: Inputs, seed: int, blocks: int, deadline: float
) -> None:
    """Run the next blocks of one decoder in children and count what they tell."""
    counts = found.setdefault("decoders", {}).setdefault(
        inputs.name,
        {"blocks": 0, "inputs": 0, "answered": 0, "refused": 0, "failed": 0, "seconds": 0},
    )
    place = campaigns.Place()
    last = counts["blocks"] + blocks
    while counts["blocks"] < last and time.monotonic() < deadline:
        start, first = time.monotonic(), counts["blocks"]
        numbers = range(first, min(first + BLOCKS, last))
        ended = campaigns.in_fork(partial(_blocks, inputs, seed, numbers, place, deadline))
        for number, block in enumerate(ended.told, first):
            _count(found, counts, number, block, inputs.size)
        if ended.what:
            at, number = place.get(), first + len(ended.told)
            failure = {"kind": ended.what, "place": at, "what": "the child ended"}
            _count(found, counts, number, {"answered": 0, "failures": [failure]}, at + 1)
        counts["seconds"] = round(counts["seconds"] + time.monotonic() - start, 2)


def _blocks(
    inputs: Inputs,
    seed: int,
    numbers: range,
    place: campaigns.Place,
    deadline: float,
    tell: Callable[[Any], None],
) -> None:
    for number in numbers:
        tell(check(inputs, seed, number, place))
        if time.monotonic() > deadline:
            return


def _count(
    found: dict[str, Any], counts: dict[str, Any], number: int, block: dict[str, Any], size: int
) -> None:
    name = next(name for name, known in found["decoders"].items() if known is counts)
    failures = block["failures"]
    for failure in failures:
        kind = f"{name}: {failure['kind']}"
        campaigns.fail(found, kind, block=number, place=failure["place"], what=failure["what"])
    raised = sum(failure["kind"] != "memory" for failure in failures)
    counts["blocks"] += 1
    counts["inputs"] += size
    counts["answered"] += block["answered"]
    counts["refused"] += size - block["answered"] - raised
    counts["failed"] += len(failures)


def section(found: dict[str, Any]) -> str:
    """The part of docs/reliability.md."""
    lines = {
        name: {
            **{outcome: counts[outcome] for outcome in ("inputs", "answered", "refused", "failed")},
            "inputs a second": round(counts["inputs"] / max(counts["seconds"], 0.01)),
        }
        for name, counts in found["decoders"].items()
    }
    total = sum(counts["inputs"] for counts in found["decoders"].values())
    return "\n\n".join(
        [
            "## Fuzzing of the decoders",
            campaigns.method(found),
            f"**{campaigns.number(total)} inputs, {campaigns.number(found.get('failed', 0))} "
            "failures.**",
            campaigns.table(lines, "decoder", ("inputs", "answered", "refused", "failed")),
            campaigns.failures(found),
        ]
    )


def main() -> int:
    parser = campaigns.options_for(__doc__ or "", INPUTS, "inputs")
    parser.add_argument("--only", nargs="+", choices=list(DECODERS), default=list(DECODERS))
    parser.add_argument("--replay", nargs=3, metavar=("DECODER", "BLOCK", "PLACE"))
    options = parser.parse_args()
    with campaigns.scratch() as folder:
        FOLDER[:] = [folder]
        if options.replay:
            name, block, place = options.replay
            one = Inputs(name, DECODERS[name]).block(options.seed, int(block))
            data = [one() for _ in range(int(place) + 1)][-1]
            print(len(data), data[:4096].hex(), flush=True)
            DECODERS[name].decode(data)
            return 0
        found = campaigns.kept(NAME, options)
        start = time.monotonic()
        for left, name in zip(range(len(options.only), 0, -1), options.only, strict=True):
            inputs = Inputs(name, DECODERS[name])
            wanted = int(options.cases * inputs.decoder.share)
            done = found.get("decoders", {}).get(name, {"inputs": 0})["inputs"]
            blocks = max(0, -(-(wanted - done) // inputs.size))
            now = time.monotonic()
            until = now + (start + options.seconds - now) / left  # all get a share of the time
            campaign(found, inputs, options.seed, blocks, until)
        found["cases"] = sum(counts["inputs"] for counts in found["decoders"].values())
        status = campaigns.keep(found, __doc__, options, start)
    print(section(found).partition("\n\n**")[2])
    for failure in found["failures"]:
        print(failure)
    return status


if __name__ == "__main__":
    sys.exit(main())
