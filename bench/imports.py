"""Import time: a fresh interpreter that imports hashmem beside one that imports numpy.

Each sample is the whole life of one interpreter, its start included; the bare interpreter is shown
too. Bytecode and files are in memory after a first, untimed round. hashmem imports its parts when
they are first used, so what each of them costs is shown too, and all public names together.
"""

import subprocess
import sys
from functools import partial

from bench import harness
from bench.harness import Result

ROUNDS = 25
QUICK_ROUNDS = 2

NUMPY = "import numpy"
OURS = "import hashmem"
EVERYTHING = "from hashmem import *"
PROGRAMS = {  # program → kind
    OURS: "ours",
    "from hashmem import digest": "ours",
    "from hashmem import OpenAddressingTable": "ours",
    "from hashmem import MemoryStore": "ours",
    EVERYTHING: "ours",
    "pass": "floor",
    NUMPY: "floor",
    "import numpy, lmdb, xxhash, msgpack": "floor",
}
TABLE = "A fresh interpreter"
TIME = "run (ms)"


def interpret(program: str) -> None:
    """Run `program` in a fresh interpreter; -P: the checkout must not shadow what is installed."""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


def run(quick: bool = False) -> Result:
    """Race the programs, interpreter by interpreter."""
    result = Result("imports", __doc__)
    for program in PROGRAMS:
        interpret(program)
    runs = {program: partial(_prepare, program) for program in PROGRAMS}
    for program, samples in harness.race(runs, QUICK_ROUNDS if quick else ROUNDS).items():
        result.add(TABLE, TIME, program, PROGRAMS[program], [1e3 * s for s in samples])
    numpy = result.samples(TABLE, TIME, NUMPY)
    for program, target in ((OURS, 1.5), (EVERYTHING, None)):
        ours = result.samples(TABLE, TIME, program)
        result.ratio(f"{program} / {NUMPY}", ours, numpy, target)
    return result


def _prepare(program: str, _: int) -> partial[None]:
    return partial(interpret, program)


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
