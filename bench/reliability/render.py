"""Render what sanitizers, fuzzer and crash campaigns found into docs/reliability.md."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.harness import RESULTS, ROOT
from bench.reliability import bits, crashes, faults, fuzz_store, namespaces, stateful

PAGE = ROOT / "docs" / "reliability.md"
KERNELS = ("sanitize", "fuzz_kernels", "kernel_coverage")
DAMAGE = {campaign.NAME: campaign.section for campaign in (bits, faults, fuzz_store, stateful)}
STORE = ("kill", "power", *DAMAGE, "soak", namespaces.NAME)
NAMES = KERNELS + STORE

INTRODUCTION = """\
# Reliability

Of the compiled kernels first, then of the store.

The kernels are the only part of hashmem that can leave its buffers. What they are held to: whatever
the arguments are, a kernel answers or raises `TypeError`, `ValueError`, `BufferError` or
`OverflowError`; it writes to no byte outside of its outputs; and where the arguments are valid, the
answer is that of the reference kernels.

What the store is held to: whenever a process dies or the power goes, every commit that had returned
is there, the one under way whole or not at all, and nothing is damaged.

This page is made by `python -m bench.reliability.render` from the results in `bench/results/`. To
repeat them, from a checkout with a C compiler and its sanitizers:

```
python -m bench.reliability.sanitize
python -m bench.reliability.fuzz_kernels
python -m bench.reliability.fuzz_kernels --sanitized --inputs 1000000
python -m bench.reliability.coverage
python -m bench.reliability.kill
python -m bench.reliability.power
python -m bench.reliability.soak
python -m bench.reliability.namespaces
python -m bench.reliability.render
```

`--replay BLOCK PLACE` makes one input of the fuzzer again. A small part of it runs with the tests
(`tests/test_fuzz.py`), and what bad input to a table does is in `tests/test_bad_input.py`. The
campaigns of kills and power cuts go on where they were cut off; `--seconds` cuts them off, `--anew`
begins again. Parts of them run in `tests/test_store_kill.py`, `tests/test_store_power.py` and
`tests/test_store_soak.py`, which also plant faults that they must find.
"""

# What fuzzing has brought up; tests/test_fuzz.py holds each.
FOUND = (
    "`hash_words` and `count_ngrams` read anywhere in memory where an output lay over the offsets: "
    "they were checked, overwritten, and then followed. Outputs that overlap are refused.",
    "`multimap_append` wrote outside of its buffers where chains lay within the nodes: a tail was "
    "checked, overwritten and followed. Refused.",
    "`frozen_partition` and `frozen_build` wrote outside of their buffers where what they write "
    "lay over what they hash. Refused.",
    "Kernels took int64 at odd addresses for aligned ones, which a compiler may make a fault of. "
    "Refused; what calls them copies such arrays first.",
    "`reverse` counted in the array that it was reading where the two were one. Refused.",
    "The reference of `hash_words` took offsets for rising whose differences overflow. They are "
    "compared now, not subtracted.",
    "The count of a damaged chain overflowed in `multimap_append`. It wraps.",
    "`frozen_build` began a part's next turn with buckets that a failed one had left in line, lost "
    "slots to them and failed more often than the reference. The line is emptied.",
    "The kernels of the growing tables took numbers at odd addresses, and batches that lay over "
    "the table. Both are refused.",
    "The reference of `open_insert` searched for room without end where digests share both of "
    "their buckets and its limit was high. It looks at as many as the compiled kernel at most.",
    "`digest_items` took views of several dimensions, which its reference leaves to the caller. So "
    "does it now.",
    "A digest given as a view with gaps raised `BufferError`. It is a `TypeError` that says so.",
)

# What it has found and is not mended.
OPEN: tuple[str, ...] = ()


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(header)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _method(result: dict[str, Any]) -> str:
    """The docstring of what made the result, without its title."""
    return str(result["description"]).partition("\n")[2].strip()


def _sanitize(found: dict[str, Any]) -> str:
    files = found["files"]
    lines = [
        [
            file["file"],
            *(str(file[outcome]) for outcome in ("passed", "failed", "skipped")),
            str(len(file["reports"])),
        ]
        for file in files
    ]
    passed, failed = (sum(file[outcome] for file in files) for outcome in ("passed", "failed"))
    reports = sum(len(file["reports"]) for file in files)
    parts = [
        "## The tests under sanitizers",
        _method(found),
        f"{found['compiler']}, `{found['flags']}`: **{_number(passed)} tests passed, {failed} "
        f"failed, {reports} reports of the sanitizers**.",
        _table(["tests", "passed", "failed", "skipped", "reports"], lines),
    ]
    if found["left_out"]:
        names = (f"`{test}` ({why})" for test, why in found["left_out"].items())
        parts.append("Left out: " + "; ".join(names) + ".")
    return "\n\n".join(parts)


def _fuzz(found: dict[str, Any]) -> str:
    builds = [name for name in ("ordinary", "sanitized") if name in found]
    parts = ["## Fuzzing", _method(found)]
    lines = []
    for build in builds:
        run = found[build]
        rate = run["inputs"] / run["seconds"]
        failures = len(run["failures"])
        lines.append([build, _number(run["inputs"]), _number(rate), str(failures)])
    parts.append(_table(["build", "inputs", "inputs a second", "failures"], lines))
    for build in builds:
        kernels = found[build]["kernels"].items()
        lines = [[kernel, *(_number(count) for count in run.values())] for kernel, run in kernels]
        header = [build, "inputs", "answered", "refused", "compared with the reference"]
        parts.append(_table(header, lines))
        for failure in found[build]["failures"]:
            parts.append(f"- block {failure['block']}: {failure['what']}")
    parts += ["### What it has found", "Mended, and a test holds each:"]
    parts.append("\n".join(f"- {what}" for what in FOUND))
    if OPEN:
        parts.append("Not mended yet:")
        parts.append("\n".join(f"- {what}" for what in OPEN))
    return "\n\n".join(parts)


def _coverage(found: dict[str, Any]) -> str:
    lines = []
    for name, file in found["files"].items():
        missed = ", ".join(map(str, file["never ran"]))
        lines.append(
            [name, str(file["lines"]), str(file["lines"] - len(file["never ran"])), missed]
        )
    total = sum(file["lines"] for file in found["files"].values())
    missed = sum(len(file["never ran"]) for file in found["files"].values())
    return "\n\n".join(
        [
            "## Lines reached",
            _method(found),
            f"{_number(found['inputs'])} inputs reach **{_number(total - missed)} of "
            f"{_number(total)} lines**.",
            _table(["file", "lines", "reached", "never ran"], lines),
        ]
    )


def _machines(results: list[dict[str, Any]]) -> str:
    groups: dict[str, list[str]] = {}
    for result in results:
        groups.setdefault(json.dumps(result["machine"]), []).append(result["name"])
    parts = ["## The machine"]
    for described, names in groups.items():
        lines = [[key, value] for key, value in json.loads(described).items()]
        parts.append(f"{', '.join(names)}:\n\n" + _table(["", ""], lines))
    return "\n\n".join(parts)


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "sanitize": _sanitize,
    "fuzz_kernels": _fuzz,
    "kernel_coverage": _coverage,
    "kill": lambda found: crashes.kill(found, _method(found), _table, _number),
    "power": lambda found: crashes.power(found, _method(found), _table, _number),
    **DAMAGE,
    "soak": lambda found: crashes.soak(found, _method(found), _table, _number),
    namespaces.NAME: namespaces.section,
}


def render(results: list[dict[str, Any]]) -> str:
    """Return the page for results as read from JSON."""
    parts = [INTRODUCTION, *(SECTIONS[result["name"]](result) for result in results)]
    if any(result["name"] in STORE for result in results):
        parts.append(crashes.others(_table))
    text = "\n\n".join([*parts, _machines(results)])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the results in `folder` that this page shows."""
    paths = [folder / f"{name}.json" for name in NAMES]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    options.page.write_text(render(read(options.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
