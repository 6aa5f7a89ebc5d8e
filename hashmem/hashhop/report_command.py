"""The command `hashmem hashhop report`: JSON files of scores → one HTML page."""

import argparse
import json
import os
from pathlib import Path

from hashmem.hashhop.report import report
from hashmem.hashhop.results import read_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE",
        help="JSON of a score, or a list of them, as `hashmem hashhop score` writes it",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="FILE", help="where the HTML page goes")
    parser.add_argument("--title", default="HashHop", help="the page's title (default: HashHop)")


def main(options: argparse.Namespace) -> int:
    """Write the page and return 0. Raises `ValueError` and `OSError` as `report` does."""
    out = Path(options.out)
    if out.exists() and any(os.path.samefile(out, file) for file in options.files):
        raise ValueError(f"{out} is one of the files to report on: write the page elsewhere")
    results = read_results(options.files)
    report(results, out, title=options.title)
    answer = {"file": str(out), "results": len(results), "bytes": out.stat().st_size}
    if getattr(options, "json", False):
        print(json.dumps(answer))
    else:
        print(f"results: {answer['results']}, page: {out}, {answer['bytes']} bytes")
    return 0
