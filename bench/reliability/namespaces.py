"""Does putting into one namespace tell what another one holds?

One namespace holds 10 000 contents of 512 bytes. Into another one the same 10 000 are put, and
10 000 that nobody holds, one at a time and in random order; the contents are made anew in that
order, so that none is in the processor's cache sooner. Each call is timed, and the two samples are
compared by rank (Mann and Whitney; normal approximation with ties): the p value says how often
times that do not differ come out at least so far apart, and the AUC how often a put of what is held
takes longer than a put of what is not (0.5: told by nothing). What is returned is compared as well:
digests, by rank of their first 8 bytes, and how the counts change with each put. As a control the
same is done where both go to *one* namespace, which stores a content once and may show it.
"""

import argparse
import gc
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import harness
from bench.machine import machine
from hashmem import MemoryStore

NAME = "namespaces"
PUTS = 10_000  # of each sample
SIZE = 512  # bytes a content
ROUNDS = 10
COMMIT_EVERY = 500  # puts; untimed
COUNTED = ("records", "payload_bytes", "placeholders", "pending", "packs", "snapshots_held")


def compared(first: NDArray[Any], second: NDArray[Any]) -> dict[str, float]:
    """Compare two samples by rank: the p value, the AUC of `first` above `second`, its interval.

    The interval holds 95 of 100 (DeLong and others, 1988). O(n log n).
    """
    n, m = len(first), len(second)
    both = np.concatenate([first, second])
    _, which, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # from 1, ties share the mean
    auc = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    ties = float((counts.astype(float) ** 3 - counts).sum()) / ((n + m) * (n + m - 1))
    spread = math.sqrt((n + m + 1 - ties) / (12 * n * m))
    p = math.erfc(abs(auc - 0.5) / spread / math.sqrt(2)) if spread else 1.0
    own = [_ranks(sample) for sample in (first, second)]
    above, below = (ranks[:n] - own[0]) / m, 1 - (ranks[n:] - own[1]) / n
    error = math.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)
    return {"p": p, "auc": auc, "low": auc - 1.96 * error, "high": auc + 1.96 * error}


def _ranks(sample: NDArray[Any]) -> NDArray[np.float64]:
    _, which, counts = np.unique(sample, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def one_round(folder: Path, seed: int, puts: int, same: bool) -> dict[str, Any]:
    """Put what another namespace (or with `same`, this one) holds, and what nobody holds."""
    random = np.random.default_rng(seed)
    held, free = (random.integers(0, 256, (puts, SIZE), np.uint8) for _ in range(2))
    with MemoryStore(folder, namespace="holder") as holder:
        known = {bytes(d) for d in holder.put_many(held)}
        holder.commit()
        mine = holder if same else MemoryStore(folder, namespace="mine")
        order = random.permutation(2 * puts)  # below `puts`: held
        seconds = np.empty(2 * puts)
        digests: list[bytes] = []
        changes: tuple[list[tuple[int, ...]], ...] = [], []  # of what is held, of what is not
        counts: tuple[int, ...] = ()
        gc.disable()
        try:
            for i, which in enumerate(order.tolist()):
                content = (held if which < puts else free)[which % puts].tobytes()
                start = time.perf_counter_ns()
                digest = mine.put(content)
                seconds[i] = (time.perf_counter_ns() - start) * 1e-9
                digests.append(digest)
                if i % COMMIT_EVERY == 0:
                    mine.commit()
                if i % 100 == 0:  # counting takes O(rows)
                    counts = _counts(mine)
                elif i % 100 == 1:
                    change = np.subtract(_counts(mine), counts)
                    changes[which >= puts].append(tuple(change.tolist()))
        finally:
            gc.enable()
        if mine is not holder:
            mine.close()
    is_held = order < puts
    numbers = np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)
    return {
        "times": compared(seconds[is_held], seconds[~is_held]),
        "digests": compared(numbers[is_held], numbers[~is_held]),
        "median held": float(np.median(seconds[is_held])),
        "median free": float(np.median(seconds[~is_held])),
        "digests in common": len(known.intersection(digests)),
        "changes of counts": [_tally(kind) for kind in changes],
    }


def _counts(store: MemoryStore) -> tuple[int, ...]:
    statistics = store.statistics()
    return (len(store), *(statistics[name] for name in COUNTED))


def _tally(changes: list[tuple[int, ...]]) -> dict[str, int]:
    """How often each change of the counts was seen."""
    return {str(list(change)): count for change, count in sorted(Counter(changes).items())}


def measure(rounds: int, puts: int) -> dict[str, list[dict[str, Any]]]:
    """Run all rounds, both kinds in turn."""
    found: dict[str, list[dict[str, Any]]] = {"another namespace": [], "the same namespace": []}
    for number in range(rounds):
        for kind, runs in found.items():
            folder = Path(tempfile.mkdtemp())
            try:
                same = kind == "the same namespace"
                runs.append(one_round(folder / "store", harness.SEED + number, puts, same))
            finally:
                shutil.rmtree(folder)
    return found


def section(found: dict[str, Any]) -> str:
    """Return what docs/reliability.md shows of a result as read from JSON."""
    lines, seen, rounds = [], [], 0
    for kind, runs in found["runs"].items():
        for part in ("times", "digests"):
            first, ps = runs[0][part], [run[part]["p"] for run in runs]
            interval = f"{first['auc']:.3f} ({first['low']:.3f} to {first['high']:.3f})"
            of_all = ", ".join(map(_shown, (min(ps), float(np.median(ps)), max(ps))))
            lines.append(f"| {kind} | {part} | {_shown(first['p'])} | {interval} | {of_all} |")
        held, free = ({c for run in runs for c in run["changes of counts"][i]} for i in (0, 1))
        common = sum(run["digests in common"] for run in runs)
        alike = "alike" if held == free else "not alike"
        seen.append(f"{kind}: {common} digests in common, counts changed {alike}")
        rounds = len(runs)
    puts = f"{found['puts']:,}".replace(",", " ")
    return "\n\n".join(
        [
            "## What a namespace tells of another",
            str(found["description"]).partition("\n")[2].strip(),
            "\n".join(
                [
                    "| held by | compared | p, first round | AUC, first round "
                    "| p of all rounds: min, median, max |",
                    "| --- | --- | --- | --- | --- |",
                    *lines,
                ]
            ),
            f"{rounds} rounds of {puts} puts in each sample. Of what was returned, held by "
            f"{'; by '.join(seen)}.",
            "What a namespace hides and what it does not is in [space.md](space.md).",
        ]
    )


def _shown(p: float) -> str:
    return f"{p:.2g}" if p > 1e-300 else "below 1e-300"


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="two small rounds; nothing is written")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    rounds, puts = (2, 500) if options.quick else (ROUNDS, PUTS)
    found = measure(rounds, puts)
    for kind, runs in found.items():
        for run in runs:
            print(f"{kind}: p {run['times']['p']:.3g}, AUC {run['times']['auc']:.4f}")
    if options.quick:
        return
    result = {
        "name": NAME,
        "description": __doc__,
        "machine": machine(),
        "puts": puts,
        "runs": found,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (options.results / f"{NAME}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
