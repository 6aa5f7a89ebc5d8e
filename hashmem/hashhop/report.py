"""Scores → one HTML page that needs nothing else: no network, no scripts, charts as inline SVG.

Whatever came from a file or a model is escaped, and the page forbids scripts and requests on top
(its Content-Security-Policy). The same results give the same bytes: no date, no random names.
Every chart has its figures as a table beside it.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hashmem.hashhop.heatmaps import Heatmap, heatmaps
from hashmem.hashhop.orders import OrderComparison, compare_orders, shuffles_of_one
from hashmem.hashhop.page import details, figure, page, section, table
from hashmem.hashhop.results import Result, Source, as_results
from hashmem.hashhop.score import wilson_interval
from hashmem.hashhop.svg import (
    Point,
    bar_chart,
    escape,
    heat_chart,
    interval_chart,
    line_chart,
    percent,
)

WRONG_SHOWN = 20  # wrong answers that the page lists, of each result
OPENED = 3  # groups of heatmaps that are shown at once, without a click


def report(
    results: Sequence[Source] | Mapping[str, Source | Sequence[Source]],
    path: str | os.PathLike[str],
    *,
    title: str = "HashHop",
) -> None:
    """Write a page about `results` to `path`: see `render`.

    Raises `ValueError` on what is no result, before anything is written, and `OSError`.
    """
    # What UTF-8 cannot hold was replaced where it was escaped.
    Path(path).write_bytes(render(results, title=title).encode())


def render(
    results: Sequence[Source] | Mapping[str, Source | Sequence[Source]], *, title: str = "HashHop"
) -> str:
    """Return the page: scores, lengths, hops, errors, places, orders, samples, wrong answers.

    results: `Score` objects, or their JSON with or without places (`place_answers`), in a list or
             under the name of what gave the answers.

    Results of one sample under several orders, by the same system, are compared; results of
    several lengths are drawn over them. Raises `ValueError` on what is no result and on none.
    """
    checked = as_results(results)
    parts = [
        _scores(checked), _lengths(checked), _hops(checked), _errors(checked), _places(checked),
        _orders(checked), _samples(checked), _wrong(checked),
    ]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    lead = (
        "Chains of random hashes to follow through a shuffled list of pairs. A dictionary answers "
        "all of it, so 100 % says of a store that its parts work together, and only of a model "
        "that it can recall and chain."
    )
    return page(title, f"<p>{lead}</p>\n{body}")


# -- the sections -------------------------------------------------------------------------------


def _scores(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        sample, point = result.sample, _point(result)
        rows.append((
            result.label, sample["format"], sample["mode"], _plain(sample.get("hops")),
            sample["characters"], f"{result.data['correct']} of {result.data['queries']}",
            percent(point and point.share), _interval(point), result.data["shown_steps"],
            result.data["failed"],
        ))  # fmt: skip
    head = (
        "result", "format", "mode", "hops", "characters", "right", "accuracy", "95 % interval",
        "steps shown", "no reply",
    )  # fmt: skip
    chart = interval_chart("Accuracy of each result", [(r.label, _point(r)) for r in results])
    note = (
        "Right are exact matches, among the replies that arrived; those that never arrived are "
        "neither right nor wrong and stand apart. Lines are 95 % Wilson intervals. Steps shown: "
        "direct answers that wrote other hashes first."
    )
    if any(result.sample["format"] == "public" for result in results):
        note += " The public format holds shortcuts that the other format does not."
    return section("Scores", figure(chart, note, table(head, rows), opened=True))


def _lengths(results: Sequence[Result]) -> str:
    if len({result.sample["characters"] for result in results}) < 2:
        return ""
    series: dict[str, list[Point]] = {}
    rows = []
    for result in sorted(results, key=lambda result: result.sample["characters"]):
        name = _series(result)
        point = _point(result)
        rows.append((name, result.sample["characters"], percent(point and point.share),
                     _interval(point), result.name))  # fmt: skip
        if point is not None:
            series.setdefault(name, []).append(point)
    chart = line_chart(
        "Accuracy by context length", "characters of text", list(series.items()), log=True
    )
    note = (
        "Bars are 95 % Wilson intervals. The line goes through the mean of the results of one "
        "length."
    )
    head = ("series", "characters", "accuracy", "95 % interval", "result")
    return section("By length of the text", figure(chart, note, table(head, rows)))


def _hops(results: Sequence[Result]) -> str:
    series, rows = [], []
    for result in results:
        points = []
        for hop, share in result.data["by_hop"].items():
            count = result.data["asked"][hop]
            if share is not None:
                right = round(share * count)
                points.append(Point(float(hop), right / count, *wilson_interval(right, count)))
            rows.append((result.label, int(hop), percent(share),
                         _interval(points[-1] if share is not None else None),
                         result.data["first_broken"][hop]))  # fmt: skip
        if points:
            series.append((result.label, points))
    if not series:
        return ""
    chart = line_chart("Share of right hashes by hop", "hop", series)
    note = (
        "The share of answers that are right at each hop, of those asked for it, whatever came "
        "before it, and where answers go wrong first."
    )
    head = ("result", "hop", "right", "95 % interval", "first wrong here")
    return section("By hop", figure(chart, note, table(head, rows)))


def _errors(results: Sequence[Result]) -> str:
    kinds = list(dict.fromkeys(kind for result in results for kind in result.data["errors"]))
    rows, bars = [], []
    for result in results:
        counts = [result.data["correct"], *(result.data["errors"].get(kind, 0) for kind in kinds)]
        failed = result.data["failed"]
        rows.append((result.label, *counts, failed))
        bars.append((result.label, counts, f"{failed} without reply" if failed else ""))
    names = ["right", *(kind.replace("_", " ") for kind in kinds)]
    note = (
        "Shares of the replies that arrived, by the first wrong or missing hash: another one of "
        "the same chain (intermediate), one from elsewhere in the text (wrong chain), one that "
        "the text does not hold (invented), words of refusal, nothing. Replies that never "
        "arrived stand apart, to the right."
    )
    chart = bar_chart("Kinds of error", names, bars)
    figures = table(("result", *names, "no reply"), rows)
    return section("Errors", figure(chart, note, figures))


def _places(results: Sequence[Result]) -> str:
    groups: dict[tuple[str, int], list[Result]] = {}  # of chains of one length, counted together
    for result in results:
        hops = max((len(answer.get("lines", ())) for answer in result.data["answers"]), default=0)
        if hops:
            kind = f"{_series(result)}, {result.sample['characters']} characters"
            groups.setdefault((kind, hops), []).append(result)
    parts = []
    for (kind, _), group in groups.items():
        maps = heatmaps(*(result.data for result in group))
        if maps is None:
            continue
        label = kind if len(group) == 1 else f"{kind}, {len(group)} results together"
        body = []
        for of, axes, heatmap in (
            ("depth", ("hop", "depth of the edge, % of the text"), maps.depth),
            ("distance", ("hop", "lines from the edge before it, % of the text"), maps.distance),
            ("depth and distance",
             ("depth", "lines from the edge before it, % of the text"), maps.depth_distance),
        ):  # fmt: skip
            if heatmap.counts.any():
                body.append(_heatmap(f"{label}, accuracy by {of}", of, axes, heatmap))
        parts.append(details(label, "\n".join(body), opened=len(groups) <= OPENED))
    if not parts:
        return ""
    note = (
        '<p class="note">How many edges in a hundred are right, by where their line stands: at '
        "0 % of the text the first, at 100 % the last. A negative distance leads up in the text. "
        "Where an answer names every hash, each edge has its own mark; where it names the end "
        "only, every edge of the chain has that of the whole answer. Outlined cells hold no edge; "
        "cells of few edges say little, and the tables tell how many.</p>"
    )
    return section("By place in the text", note + "\n" + "\n".join(parts))


def _heatmap(label: str, of: str, axes: tuple[str, str], heatmap: Heatmap) -> str:
    borders = [f"{100 * share:.0f}" for share in heatmap.columns]
    if len(heatmap.rows) == len(heatmap.counts):
        rows = [f"{hop:.0f}" for hop in heatmap.rows]
    else:
        rows = _between([f"{100 * share:.0f}" for share in heatmap.rows])
    pairs = zip(heatmap.hits.tolist(), heatmap.counts.tolist(), strict=True)
    cells = [list(zip(*pair, strict=True)) for pair in pairs]
    chart = heat_chart(label, axes, (rows, borders), cells)
    lines = [
        (name, *(f"{hits} of {count}" if count else "–" for hits, count in row))
        for name, row in zip(rows, cells, strict=True)
    ]
    figures = table((axes[0], *_between(borders)), lines)
    return figure(chart, f"Accuracy by {of}.", figures)


def _orders(results: Sequence[Result]) -> str:
    groups: dict[str, list[Result]] = {}
    for result in results:
        if isinstance(result.sample.get("order"), int):
            groups.setdefault(shuffles_of_one(result), []).append(result)
    parts = []
    for group in groups.values():
        if len(group) < 2:
            continue
        counts = Counter(result.sample["order"] for result in group)
        twice = [order for order, count in counts.items() if count > 1]
        name = f"{_series(group[0])}, {group[0].sample['characters']} characters"
        parts.append(f"<h3>{escape(name)}</h3>")
        if twice:
            parts.append(
                f"<p>Not compared: order {twice[0]} was given more than once, and nothing tells "
                "the results apart. Name what gave the answers (“model” in each file).</p>"
            )
        else:
            parts.append(_comparison(compare_orders(group), name))
    return section("By order of the lines", "\n".join(parts)) if parts else ""


def _comparison(found: OrderComparison, name: str) -> str:
    points = {
        order: Point(order, *shares) if found.queries else None
        for order, shares in found.accuracy.items()
    }
    chart = interval_chart(
        f"Accuracy by order, {name}", [(f"order {order}", p) for order, p in points.items()]
    )
    rows = [
        (order, int(found.correct[:, i].sum()), percent(point and point.share), _interval(point))
        for i, (order, point) in enumerate(points.items())
    ]
    way = (
        f"{found.draws} random tables with as many right answers to each query"
        if found.draws
        else "exact"
    )
    verdict = (
        "The order of the lines made a difference."
        if found.p < 0.05
        else "No more than chance would make; with few queries that is no proof that order does "
        "not matter."
    )
    text = (
        f"<p>The same {len(found.queries)} queries under {len(found.orders)} orders: Cochran’s "
        f"Q = {found.statistic:.2f}, p = {_p(found.p)} ({way}). {verdict}"
        + (f" Left out, without a reply under some order: {found.left_out}." * bool(found.left_out))
        + "</p>\n"
    )
    head = ("order", "right", "accuracy", "95 % interval")
    pairs = table(
        ("orders", "right under the first alone", "under the second alone", "p", "p after Holm"),
        [(f"{pair.first} and {pair.second}", pair.only_first, pair.only_second,
          _p(pair.p), _p(pair.adjusted_p)) for pair in found.pairs],
        "Two at a time, McNemar’s exact test",
    )  # fmt: skip
    return text + figure(chart, "95 % Wilson intervals.", table(head, rows)) + pairs


def _samples(results: Sequence[Result]) -> str:
    parts = []
    for result in results:
        extra = {
            key: value for key, value in result.data.items()
            if key not in _KNOWN and isinstance(value, str | int | float)
        }  # fmt: skip
        rows = [(key, _plain(value)) for key, value in {**extra, **result.sample}.items()]
        parts.append(details(result.label, table(("property", "value"), rows)))
    return section("Samples", "\n".join(parts))


def _wrong(results: Sequence[Result]) -> str:
    parts = []
    for result in results:
        wrong = [answer for answer in result.data["answers"] if answer["error"] is not None]
        rows = [
            (answer["query"], " = ".join(map(str, answer["answer"])) or "–",
             answer["error"].replace("_", " "))
            for answer in wrong[:WRONG_SHOWN]
        ]  # fmt: skip
        if rows:
            name = f"{result.label}: {len(rows)} of {len(wrong)}"
            parts.append(details(name, table(("query", "answer", "error"), rows)))
    return section("Wrong answers", "\n".join(parts)) if parts else ""


# -- figures as text ----------------------------------------------------------------------------

_KNOWN = {
    "sample", "queries", "failed", "correct", "accuracy", "interval", "by_hop", "first_broken",
    "errors", "shown_steps", "answers", "text_lines",
}  # fmt: skip


def _series(result: Result) -> str:
    """What results share that differ in size, seed and order alone."""
    sample = result.sample
    words = [f"{sample['format']} format", str(sample["mode"])]
    words += [f"{_plain(sample['hops'])} hops"] * ("hops" in sample)
    words += [f"hashes of {_plain(sample['hash_length'])}"] * ("hash_length" in sample)
    return (f"{result.system}: " if result.system else "") + ", ".join(words)


def _point(result: Result) -> Point | None:
    correct, count = result.data["correct"], result.data["queries"]
    if not count:
        return None
    bounds = wilson_interval(correct, count)
    return Point(result.sample["characters"], correct / count, *bounds)


def _interval(point: Point | None) -> str:
    return "–" if point is None else f"{percent(point.low)} to {percent(point.high)}"


def _between(borders: Sequence[str]) -> list[str]:
    return [f"{a} to {b}" for a, b in pairwise(borders)]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
