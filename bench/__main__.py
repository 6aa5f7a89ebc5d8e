"""Run all benches, each in its own process, then render the page.

`python -m bench` makes the committed results and docs/benchmarks.md; `--quick` runs everything in
seconds at sizes that say nothing about speed, and writes nothing. Names choose some of them:
`python -m bench tables store`. One that fails is named at the end and does not stop the others.
"""

import subprocess
import sys
from pathlib import Path

from bench import harness

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if "def run(" in path.read_text(encoding="utf-8") and path.stem != "__main__"
)


def main() -> int:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)} (default: all)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}: there are {', '.join(NAMES)}")

    passed_on = ["--quick"] if options.quick else []
    if options.results:
        passed_on += ["--results", str(options.results)]
    failed = []
    for name in options.names or NAMES:
        print(f"— {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *passed_on])
        if done.returncode != 0:
            failed.append(name)
    if not options.quick and not options.results:
        subprocess.run([sys.executable, "-m", "bench.render"], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
