"""Render every bench/results/*.json into docs/benchmarks.md: no figure is written by hand.

Each cell is the median over the rounds, in brackets the 10th and 90th percentile where they
differ from it, and how many times hashmem's first row it is. "Where hashmem loses" lists every
rival that is faster or smaller than any row of ours in the same column.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.harness import RESULTS, ROOT, per_round, summary

PAGE = ROOT / "docs" / "benchmarks.md"
ORDER = (
    "tables",
    "tables_large",
    "digests",
    "frozen",
    "store",
    "store_large",
    "store_beyond_memory",
    "hops",
    "hashhop",
    "skips",
    "graphs",
    "imports",
    "demo",
    "memory_limit",
)  # first on the page; others follow

INTRODUCTION = """\
# Benchmarks

This page is made by `python -m bench.render` from the results in `bench/results/`; every figure
comes from there, with its samples. To repeat them, from a checkout on a quiet machine:

```
pip install -e .[bench]
python -m bench
```

Rivals run in rounds, one after another, so that drift of the machine hits all alike. Each cell
gives the median over the rounds, [its 10th and 90th percentile], and (how many times the first row
it is), taken within each round. Lower is better in every table, and the lowest of a column is in
bold, floors left aside. *Floors* are limits of the machine or yardsticks.
"""


def number(value: float) -> str:
    """Write a figure with three significant digits, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def _table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(header)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _cell(row: dict[str, Any], baseline: dict[str, Any] | None, best: float) -> str:
    shown = summary(row["samples"])
    middle, low, high = (number(shown[key]) for key in ("median", "p10", "p90"))
    text = f"**{middle}**" if row["kind"] != "floor" and shown["median"] == best else middle
    if low != middle or high != middle:
        text += f" [{low}, {high}]"
    if baseline is not None and baseline is not row:
        text += f" ({_times(row, baseline)}×)"
    return text


def _times(row: dict[str, Any], baseline: dict[str, Any]) -> str:
    return number(summary(per_round(row["samples"], baseline["samples"]))["median"])


def _distinct(rows: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _sections(result: dict[str, Any]) -> str:
    """Render each of the result's tables: contestants down, columns across."""
    parts = []
    for title in _distinct(result["rows"], "table"):
        rows = [row for row in result["rows"] if row["table"] == title]
        columns = _distinct(rows, "column")
        cells: dict[tuple[str, str], str] = {}
        for column in columns:
            beside = [row for row in rows if row["column"] == column]
            baseline = next((row for row in beside if row["kind"] == "ours"), None)
            best = min((row["median"] for row in beside if row["kind"] != "floor"), default=0.0)
            for row in beside:
                cells[row["contestant"], column] = _cell(row, baseline, best)
        kinds = {row["contestant"]: row["kind"] for row in rows}
        lines = [
            [
                f"*{name}*" if kind == "floor" else name,
                *(cells.get((name, column), "") for column in columns),
            ]
            for name, kind in kinds.items()
        ]
        parts.append(f"### {title}\n\n" + _table(["", *columns], lines))
    return "\n".join(parts)


def _headlines(results: list[dict[str, Any]]) -> str:
    lines = []
    for result in results:
        for headline in result["headlines"]:
            target = ""
            if headline["target"] is not None:
                sense = "≥" if headline["at_least"] else "≤"
                target = f"{sense} {number(headline['target'])}"
            met = {True: "yes", False: "**no**", None: ""}[headline["met"]]
            lines.append([headline["what"], number(headline["median"]), target, met])
    return _table(["what", "measured", "target", "met"], lines)


def losses(result: dict[str, Any]) -> list[list[str]]:
    """List where a rival is below ours: (table, column, our row, our median, the rivals)."""
    found = []
    for row in result["rows"]:
        if row["kind"] != "ours":
            continue
        better = [
            rival
            for rival in result["rows"]
            if rival["kind"] == "rival"
            and (rival["table"], rival["column"]) == (row["table"], row["column"])
            and rival["median"] < row["median"]
        ]
        if better:
            better.sort(key=lambda rival: rival["median"])
            names = ", ".join(
                f"{rival['contestant']} {number(rival['median'])} (ours {_times(row, rival)}×)"
                for rival in better
            )
            ours = number(row["median"])
            found.append([row["table"], row["column"], row["contestant"], ours, names])
    return found


def _machines(results: list[dict[str, Any]]) -> str:
    """Render each machine once, with the benches that ran on it."""
    groups: dict[str, list[str]] = {}
    for result in results:
        groups.setdefault(json.dumps(result["machine"]), []).append(result["name"])
    parts = []
    for described, names in groups.items():
        lines = [[key, value] for key, value in json.loads(described).items()]
        parts.append(f"{', '.join(names)}:\n\n" + _table(["", ""], lines))
    return "\n".join(parts)


def _description(result: dict[str, Any]) -> str:
    title, _, method = result["description"].partition("\n")
    parts = [f"## {title.rstrip('.')}", method.strip()]
    parts.append(f"Repeat with `python -m bench.{result['name']}`.")
    if result["left_out"]:
        names = [f"{name} ({reason})" for name, reason in result["left_out"].items()]
        parts.append("Left out: " + "; ".join(names) + ".")
    return "\n\n".join(part for part in parts if part) + "\n"


def _retrieval(found: dict[str, Any]) -> str:
    """Render what bench/retrieval.py found: shares of questions answered, higher is better."""
    header = list(found["recall"][0])
    lines = [[str(row[key]) for key in header] for row in found["recall"]]
    files, characters = number(found["files"]), number(found["characters"])
    parts = [
        "## Retrieval: how well search finds",
        f"{found['queries']} questions a task over {files} files, {characters} characters, of the "
        "Python standard library's source. *summary@k*, *text@k*: the share of questions whose "
        "answer is among the first k by summary, and after the second stage by text; higher is "
        "better. *ms*: both stages, one question. What the tasks are stands in "
        "`bench/retrieval.py`, which repeats this.",
        _table(header, lines),
    ]
    for what, figures in found.items():
        if isinstance(figures, dict):
            lines = [[name, number(figure)] for name, figure in figures.items()]
            parts.append(_table(["", what], lines))
    return "\n\n".join(parts)


def _training(found: dict[str, Any]) -> str:
    """Render what bench/hashhop_training.py found: shares of queries right, higher is better."""
    title, _, method = found["description"].partition("\n")
    kinds = _distinct(found["trained"], "asked")
    cells: dict[tuple[str, int], list[str]] = {}
    for row in found["trained"]:
        low, high = row["interval"]
        seeds = ", ".join(f"{share:.1%}" for share in row["by seed"])
        cells.setdefault((row["way"], row["steps"]), []).append(
            f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%}; {seeds})"
        )
    lines = [[way, number(steps), *shown] for (way, steps), shown in cells.items()]
    sizes = ", ".join(f"{name} {value}" for name, value in found["sizes"].items())
    return "\n\n".join(
        [
            f"## {title.rstrip('.')}",
            method.strip(),
            f"{number(found['parameters'])} parameters; {sizes}. Chance: {found['chance']:.1%}. "
            f"Accuracy (95 % interval; by training seed), higher is better. "
            f"Repeat with `python -m bench.{found['name']}`.",
            _table(["", "steps", *kinds], lines),
        ]
    )


def render(results: list[dict[str, Any]]) -> str:
    """Return the page for results as read from JSON."""
    retrieval = [result for result in results if "recall" in result]
    training = [result for result in results if "trained" in result]
    results = [result for result in results if isinstance(result.get("rows"), list)]
    lost = [line for result in results for line in losses(result)]
    parts = [
        INTRODUCTION,
        "## Targets\n\n" + _headlines(results),
        "## Where hashmem loses\n\n"
        "Every row of ours that a rival beats, from the tables below.\n\n"
        + _table(["table", "what", "ours", "", "better, and ours as a multiple"], lost),
    ]
    for result in results:
        parts += [_description(result), _sections(result)]
    parts += map(_retrieval, retrieval)
    parts += map(_training, training)
    parts.append("## The machine\n\n" + _machines([*results, *training]))
    return "\n".join(parts)


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all results in `folder`, in the page's order."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }
    names = [name for name in ORDER if name in found]
    return [found[name] for name in [*names, *(name for name in found if name not in ORDER)]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the results into docs/benchmarks.md.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    options.page.write_text(render(read(options.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
