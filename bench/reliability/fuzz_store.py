"""Fuzzing of every decoder of stored bytes.

Each decoder (`bench/reliability/decoders.py`) reads inputs that follow from their number: known
ones with a few changes, half of them at fields that matter, and for msgpack some that nobody wrote:
mistyped, too long, too deep. Seven in eight have their checksums made right again, so that what
lies behind the checksum is reached. A decoder may answer or raise one of hashmem's own errors.
Anything else is a failure: another exception, a crash, an input that does not end, more than 1 GiB
taken, or, looked at in one input of 64, more memory than 64 times the input and a fixed amount.

`python -m bench.reliability.fuzz_store` goes on behind the last block that is kept in
`bench/results/`; `--replay DECODER BLOCK PLACE` makes one input again and decodes it.
"""

import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import takewhile
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
COUNTED = ("blocks", "inputs", "answered", "refused", "failed", "seconds")
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
    found: dict[str, Any],
    inputs: Inputs,
    seed: int,
    wanted: int,
    deadline: float,
    jobs: int = 1,
    keep: Callable[[], object] = lambda: None,
) -> None:
    """Run the next blocks of one decoder in children, `jobs` at a time, towards so many inputs
    `wanted` in all, and count what they tell."""
    decoders = found.setdefault("decoders", {})
    counts = decoders.setdefault(inputs.name, dict.fromkeys(COUNTED, 0))
    blocks = last = counts["blocks"]

    def part(first: int, slot: int) -> dict[str, Any]:
        if jobs > 1:  # in a child, then
            FOLDER[:] = [FOLDER[0] / f"{slot}"]
            FOLDER[0].mkdir(exist_ok=True)
        place, numbers = campaigns.Place(), range(first, min(first + BLOCKS, last))
        ended = campaigns.in_fork(partial(_blocks, inputs, seed, numbers, place, deadline))
        return {"told": ended.told, "what": ended.what, "place": place.get()}

    # A child may have ended early: then the next begins where it did, and others are not ahead.
    while counts["inputs"] < wanted and time.monotonic() < deadline:
        last = blocks + -(-(wanted - counts["inputs"]) // inputs.size)
        firsts = takewhile(lambda _: time.monotonic() < deadline, range(blocks, last, BLOCKS))
        start = time.monotonic()
        for ended in campaigns.side_by_side(part, firsts, jobs):
            first, end = blocks, min(blocks + BLOCKS, last)
            for number, block in enumerate(ended["told"], first):
                _count(found, inputs.name, number, block, inputs.size)
            blocks = first + len(ended["told"])
            if ended["what"]:
                failure = {"kind": ended["what"], "place": ended["place"]}
                block = {"answered": 0, "failures": [{**failure, "what": "the child ended"}]}
                _count(found, inputs.name, blocks, block, ended["place"] + 1)
                blocks += 1
            now = time.monotonic()
            counts["seconds"] = round(counts["seconds"] + now - start, 2)
            start = now
            found["cases"] = sum(counts["inputs"] for counts in decoders.values())
            keep()
            if blocks < end:
                break


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


def _count(found: dict[str, Any], name: str, number: int, block: dict[str, Any], size: int) -> None:
    counts, failures = found["decoders"][name], block["failures"]
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
        with campaigns.Running(found, __doc__, options) as running:
            for left, name in zip(range(len(options.only), 0, -1), options.only, strict=True):
                inputs, now = Inputs(name, DECODERS[name]), time.monotonic()
                # All that are left get the same share of the time.
                until = now + (running.start + options.seconds - now) / left
                wanted = int(options.cases * inputs.decoder.share)
                campaign(
                    *(found, inputs, options.seed, wanted, until, options.jobs), running.goes_on
                )
    return campaigns.show(found, section(found))


if __name__ == "__main__":
    sys.exit(main())
