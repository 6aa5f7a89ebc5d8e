"""Scores as a report and a comparison take them: `Score` objects, or their JSON from anywhere.

A result is what `Score.to_dict` returns. Files may be damaged, edited, or something else entirely,
so all that is read later is checked here: kinds, ranges, and whether the counts add up.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashmem.hashhop.score import Score


@dataclass(frozen=True)
class Result:
    """A checked result."""

    name: str  # where it is from: a file, or its place in a list
    system: str  # what gave the answers, "" where nothing says so
    data: Mapping[str, Any]  # as `Score.to_dict` has it

    @property
    def sample(self) -> Mapping[str, Any]:
        """The metadata of the sample that was scored."""
        sample: Mapping[str, Any] = self.data["sample"]
        return sample

    @property
    def correct(self) -> dict[str, bool]:
        """Whether the answer to each query that was replied to is right."""
        return {answer["query"]: answer["error"] is None for answer in self.data["answers"]}

    @property
    def label(self) -> str:
        """What to call it where there are several."""
        return f"{self.system} ({self.name})" if self.system else self.name


Source = Score | Result | Mapping[str, Any]


def as_result(source: Score | Mapping[str, Any], name: str = "result", system: str = "") -> Result:
    """Check a score or its dictionary. `system` stands in for a dictionary's own "model".

    Raises `ValueError`, with `name`, on what is no result.
    """
    data: Any = source.to_dict() if isinstance(source, Score) else source
    check = _Check(name)
    check.is_a(data, Mapping, "the result")
    # The copy is what was checked: the caller's may change later.
    data = json.loads(_json(data, name))
    _check_result(data, check)
    model = data.get("model")
    return Result(name, system or (model if isinstance(model, str) else ""), data)


def as_results(sources: Sequence[Source] | Mapping[str, Source | Sequence[Source]]) -> list[Result]:
    """Check several: a list, or what gave the answers → one result or a list of them.

    Raises `ValueError` on what is no result, and on none.
    """
    if isinstance(sources, Score) or (isinstance(sources, Mapping) and "answers" in sources):
        raise ValueError("a single result was given: put it into a list")
    named: list[tuple[str, Source]] = []
    if isinstance(sources, Mapping):
        for system, own in sources.items():
            several = [own] if isinstance(own, Score | Result | Mapping) else own
            named += [(str(system), source) for source in several]
    else:
        named = [("", source) for source in sources]
    if not named:
        raise ValueError("there is no result: give at least one")
    results = []
    for number, (system, source) in enumerate(named, 1):
        if not isinstance(source, Result):
            source = as_result(source, f"result {number}", system)
        results.append(source)
    return results


def read_results(paths: Sequence[str | os.PathLike[str]]) -> list[Result]:
    """Read JSON files that hold a result each, or a list of results.

    Raises `OSError` on a file that cannot be read and `ValueError`, with its name, on one that
    holds something else.
    """
    results = []
    for path in map(Path, paths):
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON file: {error}") from error
        if not isinstance(found, list):
            results.append(as_result(found, str(path)))
            continue
        if not found:
            raise ValueError(f"{path} holds an empty list: it should hold a result")
        results += [as_result(one, f"{path}, {i}") for i, one in enumerate(found, 1)]
    return results


class _Check:
    """Says what is wrong, in which result and where in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def that(self, good: bool, problem: str) -> None:
        if not good:
            raise ValueError(
                f"{self._name} is not the JSON of a HashHop score (Score.to_dict): {problem}"
            )

    def is_a(self, value: object, kind: type | tuple[type, ...], what: str) -> None:
        good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        self.that(good, f"{what} is {_KINDS[kind]}, not {str(value)[:40]!r}")

    def count(self, value: object, most: int, what: str) -> None:
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        self.that(good, f"{what} is a number from 0 to {most}, not {str(value)[:40]!r}")


_KINDS: dict[Any, str] = {Mapping: "an object", list: "a list", str: "a text", int: "a number"}
_MOST = 10**15  # of anything that is counted: a larger number is damage


def _check_result(data: Mapping[str, Any], check: _Check) -> None:
    needed = (
        "sample", "queries", "failed", "correct", "asked", "by_hop", "first_broken", "errors",
        "shown_steps", "answers",
    )  # fmt: skip
    for key in needed:
        check.that(key in data, f"it has no {key!r}")
    sample = data["sample"]
    check.is_a(sample, Mapping, "'sample'")
    for key in ("format", "mode", "characters"):
        check.that(key in sample, f"'sample' has no {key!r}")
    for key in ("format", "mode"):
        check.is_a(sample[key], str, f"{key!r} of 'sample'")
    check.count(sample["characters"], _MOST, "'characters' of 'sample'")

    answers = data["answers"]
    check.is_a(answers, list, "'answers'")
    for key in ("errors", "asked", "by_hop", "first_broken"):
        check.is_a(data[key], Mapping, f"{key!r}")
    check.count(data["failed"], _MOST, "'failed'")
    check.count(data["queries"], _MOST, "'queries'")
    check.that(data["queries"] == len(answers), f"'queries' is not the {len(answers)} answers")
    for i, answer in enumerate(answers, 1):
        _check_answer(answer, data.get("text_lines"), check, f"answer {i}")
    queries = {answer["query"] for answer in answers}
    check.that(len(queries) == len(answers), "a query was answered twice")

    kinds = [answer["error"] for answer in answers]
    check.that(data["correct"] == kinds.count(None), "'correct' is not the number of such answers")
    for kind, count in data["errors"].items():
        check.that(count == kinds.count(kind), f"{kind!r} is not the number of such errors")
    check.that(set(kinds) <= {None, *data["errors"]}, "an answer has an error that 'errors' lacks")
    check.count(data["shown_steps"], len(answers), "'shown_steps'")
    check.that(
        list(data["asked"]) == list(data["by_hop"]) == list(data["first_broken"]),
        "'asked', 'by_hop' and 'first_broken' are about different hops",
    )
    for hop, share in data["by_hop"].items():
        check.that(hop.isascii() and hop.isdigit() and len(hop) < 10, f"{hop[:40]!r} is no hop")
        good = isinstance(share, int | float) and 0 <= share <= 1
        asked = data["asked"][hop]
        check.count(asked, len(answers), f"asked at hop {hop}")
        check.that(good if asked else share is None, f"the share at hop {hop} is not 0 to 1")
        check.count(data["first_broken"][hop], asked, f"first broken at hop {hop}")


def _check_answer(answer: Any, total: Any, check: _Check, what: str) -> None:
    check.is_a(answer, Mapping, what)
    for key in ("query", "answer", "error"):
        check.that(key in answer, f"{what} has no {key!r}")
    check.is_a(answer["query"], str, f"the query of {what}")
    check.is_a(answer["answer"], list, f"the answer of {what}")
    if answer["error"] is not None:
        check.is_a(answer["error"], str, f"the error of {what}")
    if "lines" in answer or "edges" in answer:
        lines, edges = answer.get("lines"), answer.get("edges")
        check.is_a(lines, list, f"'lines' of {what}")
        check.is_a(edges, list, f"'edges' of {what}")
        check.that(len(lines) == len(edges), f"'lines' and 'edges' of {what} differ in length")
        check.count(total, _MOST, "'text_lines'")
        for line, right in zip(lines, edges, strict=True):
            check.is_a(line, int, f"a line of {what}")
            check.that(-1 <= line < total, f"line {line} of {what} is not one of {total}")
            check.that(isinstance(right, bool), f"an edge of {what} is neither true nor false")


def _json(data: Any, name: str) -> str:
    try:
        return json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} holds what JSON does not: {error}") from error
