"""How every figure is measured, described and kept.

Rules, the same for every bench:

- Rivals run in rounds (A B C, A B C, …), so drift of the machine hits all alike. A ratio is taken
  within each round; the median of those is what is quoted.
- Every sample is kept. What is shown is the median with the 10th and 90th percentile.
- Lower is better for every row, whatever its unit.
- A row is "ours", a "rival", or a "floor": a limit of the machine or a yardstick that nobody beats.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import machine

SEED = 20_240_829
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
Timed = Callable[[], object]


def seconds(function: Timed) -> float:
    """Return the seconds one call took; freeing its result is not counted.

    The garbage collector stays on, as it is for users: a call that makes many objects pays for it.
    """
    start = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def measure(function: Timed, repeat: int = 5) -> list[float]:
    """Time `function` `repeat` times → seconds, one sample a call, after one call to warm up."""
    function()
    return [seconds(function) for _ in range(repeat)]


def race(
    contestants: Mapping[str, Callable[[int], Timed]], rounds: int, warm: int = 0
) -> dict[str, list[float]]:
    """Time every contestant once a round, in turn → seconds by name, one sample a round.

    A contestant is given the round's number, prepares what it needs untimed, and returns the call
    to time. Just before that, `warm` bytes are taken, touched and given back: memory that a virtual
    machine has not used for a while is dear to touch, and the first of a round would pay for all.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, prepare in contestants.items():
            call = prepare(number)
            b"\1" * warm  # written, and freed
            samples[name].append(seconds(call))
    return samples


def per_round(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Return the ratio within each round; of medians where the two ran different rounds."""
    if len(numerator) == len(denominator):
        return [a / b for a, b in zip(numerator, denominator, strict=True)]
    return [statistics.median(numerator) / statistics.median(denominator)]


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return median, p10, p90 and min; percentiles by linear interpolation between samples."""
    ordered = sorted(samples)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    return {
        "median": percentile(0.5),
        "p10": percentile(0.1),
        "p90": percentile(0.9),
        "min": ordered[0],
    }


# ------------------------------------------------------------------------------------- processes


def resident_bytes(peak: bool = False) -> int:
    """Return this process's resident memory, now or at its peak, in bytes.

    Linux keeps `ru_maxrss` across exec, so a child would report its parent's peak; `VmHWM` belongs
    to the new image alone. Elsewhere only the peak can be told.
    """
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) * 1024  # the kernel counts in KiB
    except OSError:
        pass
    unit = 1 if platform.system() == "Darwin" else 1024  # macOS counts in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` gives in a fresh interpreter, clean of this process's memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


# --------------------------------------------------------------------------------------- results


@dataclass
class Row:
    """One contestant's samples in one cell: lower is better."""

    table: str  # the heading it stands under: sizes and settings that all in it share
    column: str  # what was done, with its unit, "find, hits (ns)"
    contestant: str
    kind: str  # "ours", "rival" or "floor"
    samples: list[float]  # one a round


@dataclass
class Headline:
    """One figure, mostly a ratio, with the target it is held against, if there is one."""

    what: str
    samples: list[float]  # one a round
    target: float | None = None
    at_least: bool = False  # the target is what it must reach, not a ceiling

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        value = statistics.median(self.samples)
        return value >= self.target if self.at_least else value <= self.target


@dataclass
class Result:
    """All that one bench found; `write` keeps it as JSON, `bench.render` makes the page."""

    name: str
    description: str  # the bench's own docstring: a title line, then how it measures
    rows: list[Row] = field(default_factory=list)
    headlines: list[Headline] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # contestant → the reason
    machine: dict[str, str] = field(default_factory=machine)

    def add(
        self, table: str, column: str, contestant: str, kind: str, samples: Sequence[float]
    ) -> None:
        """Keep one contestant's samples for one cell."""
        self.rows.append(Row(table, column, contestant, kind, list(samples)))

    def samples(self, table: str, column: str, contestant: str) -> list[float] | None:
        """Return the samples of one cell, None where that contestant did not run."""
        for row in self.rows:
            if (row.table, row.column, row.contestant) == (table, column, contestant):
                return row.samples
        return None

    def ratio(
        self,
        what: str,
        numerator: Sequence[float] | None,
        denominator: Sequence[float] | None,
        target: float | None = None,
        at_least: bool = False,
    ) -> None:
        """Keep a headline ratio; nothing where either side did not run."""
        if numerator and denominator:
            self.headline(what, per_round(numerator, denominator), target, at_least)

    def headline(
        self,
        what: str,
        samples: Sequence[float] | None,
        target: float | None = None,
        at_least: bool = False,
    ) -> None:
        """Keep a headline figure, with the target it is held against; nothing without samples."""
        if samples:
            self.headlines.append(Headline(what, list(samples), target, at_least))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the summaries beside the samples."""
        plain = asdict(self)
        for row in plain["rows"]:
            row.update(summary(row["samples"]))
        for kept, shown in zip(self.headlines, plain["headlines"], strict=True):
            shown.update(summary(kept.samples), met=kept.met)
        return plain

    def write(self, folder: Path) -> Path:
        """Write `folder`/NAME.json and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        return path

    def print(self) -> None:
        """Print medians, one line a row, and the headlines."""
        for row in self.rows:
            shown = summary(row.samples)
            print(f"{row.table} | {row.column} | {row.contestant} | {shown['median']:.4g}")
        for headline in self.headlines:
            sense = "≥" if headline.at_least else "≤"
            target = "" if headline.target is None else f", target {sense} {headline.target:.3g}"
            print(f"{headline.what}: {statistics.median(headline.samples):.3f}{target}")
        for contestant, reason in self.left_out.items():
            print(f"left out: {contestant} ({reason})")


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the parser of the arguments that every bench takes."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, seconds, no figures")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the JSON (default: bench/results; with --quick nothing is written)",
    )
    return parser


def finish(result: Result, options: argparse.Namespace) -> None:
    """Print the result and write it where the arguments say."""
    result.print()
    folder = options.results or (None if options.quick else RESULTS)
    if folder is not None:
        result.write(folder)
