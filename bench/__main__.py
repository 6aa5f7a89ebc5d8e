"""Run all benches, each in its own process, then render the page.

`python -m bench` makes the committed results and docs/benchmarks.md; `--quick` runs everything in
seconds at sizes that say nothing about speed, and writes nothing. Names choose some of them:
`python -m bench tables store`. One that fails is named at the end and does not stop the others.
"""

import subprocess
import sys

from bench import harness

NAMES = (
    "memory_limit", "imports", "digests", "tables", "tables_large", "frozen", "store",
    "store_large", "hops", "hashhop", "skips", "graphs", "archive", "demo", "retrieval",
    "collisions",
)  # fmt: skip
ASKED_FOR = (  # only where they are named
    "store_beyond_memory",  # takes 48 GB of disk
    "hashhop_training",  # needs PyTorch
)


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all of these), "
                        f"{', '.join(ASKED_FOR)}")  # fmt: skip
    options = parser.parse_args()
    known = {*NAMES, *ASKED_FOR}
    unknown = sorted(set(options.names) - known)
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}: there are {', '.join(known)}")

    folder = options.results or (None if options.quick else harness.RESULTS)
    failed = []
    for name in options.names or NAMES:
        command = [sys.executable, "-m", f"bench.{name}", *["--quick"] * options.quick]
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            command += (
                ["--json", str(folder / "retrieval.json")]
                if name == "retrieval"  # keeps shares, not timings, in a form of its own
                else ["--results", str(folder)]
            )
        print(f"— {name}", flush=True)
        if subprocess.run(command).returncode != 0:
            failed.append(name)
    if folder == harness.RESULTS:
        subprocess.run([sys.executable, "-m", "bench.render"], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
