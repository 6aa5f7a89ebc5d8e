"""Collisions: the laboratory at full size, its figures, and the page made of them.

`python -m bench.collisions` runs what `hashmem bench collisions --size full` does, and writes
bench/results/collisions.json, plots and CSV to docs/figures, and docs/collisions.md. With
`--results FOLDER` the JSON goes to FOLDER and the rest to FOLDER/figures and FOLDER/collisions.md;
`--page` only makes the page again from the JSON.
"""

import json
from pathlib import Path
from typing import Any

from bench import harness
from bench.machine import machine
from hashmem.laboratory import collisions
from hashmem.laboratory.experiment import Experiment, Sizes, figure

NAME = "collisions"
PAGE = harness.ROOT / "docs" / "collisions.md"
FIGURES = harness.ROOT / "docs" / "figures"

INTRODUCTION = """\
# Collisions: the laboratory

How hash tables collide, measured beside what theory expects. This page is made by
`python -m bench.collisions` from `bench/results/collisions.json`; every figure and every sentence
under *Reading* comes from there, and each plot's data lies beside it as CSV. The same at a size of
your choice, from an installed package (plots need the extra `plots`):

```sh
hashmem bench collisions --out figures --size quick
```

On tables of your own, from Python:

```python
import numpy as np
from hashmem import ChainingTable, digest_many
from hashmem.tables.statistics import expected_occupancy, goodness_of_fit, occupancy

table = ChainingTable(width=32, seed=1, max_load=1.0, capacity=5000)
table.insert(digest_many(np.arange(5000)), np.arange(5000))
buckets = occupancy(table)  # [k]: buckets with k entries
fit = goodness_of_fit(buckets, expected_occupancy(5000, buckets.sum()), fitted=1)
print(fit.statistic, fit.degrees, fit.p_value, fit.fits)
```

`probe_histogram` and `expected_probe_histogram` do that for either kind of table, and for any whose
statistics name one of their theories. `chaining_histogram`, `two_choice_histogram` and
`expected_occupancy` take sizes alone, and `hashmem.laboratory.theory` has linear probing and Robin
Hood. The experiments themselves, at sizes of your own:

```python
from hashmem.laboratory.collisions import run
from hashmem.laboratory.experiment import Sizes

for experiment in run(Sizes(occupied=1 << 12), ["occupancy"]):
    print(experiment.reading, experiment.summary[0])
```

**The threshold.** Counts *fit* where Pearson's chi-square, cells that expect fewer than 5 pooled,
gives p ≥ 0.001: one in a thousand sets of right counts is called wrong. Entries that share a table
crowd each other, so probe lengths are tested on a random sample small enough that they hardly do.
`tests/test_collisions.py` and `tests/test_statistics.py` run the same at small sizes and fixed
seeds.
"""


def run(quick: bool = False, figures: Path | None = None) -> dict[str, Any]:
    """Run all experiments, write plots and CSV into `figures`, and return plain values for JSON."""
    found = []
    for experiment in collisions.run(Sizes.quick() if quick else Sizes.full()):
        print(f"{experiment.title}. {experiment.reading}\n", flush=True)
        if figures is not None:
            collisions.write(experiment, figures)
        found.append(experiment.as_dict())
    return {"name": NAME, "experiments": found, "machine": machine()}


def render(result: dict[str, Any], figures: str = "figures") -> str:
    """Return the page for a result as read from JSON; `figures` is where plots lie from there."""
    parts = [INTRODUCTION]
    for found in result["experiments"]:
        experiment = Experiment(**found)
        data = [f"[{experiment.name}.csv]({figures}/{experiment.name}.csv)"]
        if experiment.summary:
            summary = f"{experiment.name}-summary.csv"
            data.append(f"[{summary}]({figures}/{summary}), the table below")
        parts += [
            f"## {experiment.title}\n",
            experiment.method + "\n",
            f"![{experiment.title}]({figures}/{experiment.name}.png)\n",
            f"*Reading.* {experiment.reading}\n",
            f"Data: {', '.join(data)}.\n",
            _table(experiment.summary or experiment.rows),
        ]
    parts += ["## The machine\n", _table([{"": k, " ": v} for k, v in result["machine"].items()])]
    return "\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*map(_cell, r.values())] for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return figure(value) if isinstance(value, int | float) else str(value or "")


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--page", action="store_true", help="only make the page from the JSON")
    options = parser.parse_args()
    folder = options.results or (None if options.quick else harness.RESULTS)
    ours = folder == harness.RESULTS
    if folder is None:
        run(quick=True)
        return
    path = folder / f"{NAME}.json"
    if not options.page:
        result = run(options.quick, FIGURES if ours else folder / "figures")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    page = PAGE if ours else folder / "collisions.md"
    page.write_text(render(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
