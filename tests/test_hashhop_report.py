"""The report: one page that holds what the results say, whatever the results hold."""

import argparse
import json
import math
import random
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem.hashhop import HashHop, MultiHopEval, report_command, score, svg
from hashmem.hashhop.heatmaps import place_answers
from hashmem.hashhop.report import render, report
from hashmem.hashhop.results import as_result, as_results, read_results
from hashmem.hashhop.score import wilson_interval

VOID = {"meta", "br"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\0\ud800"


class Page(HTMLParser):
    """Reads a page strictly: every tag closed, nothing that runs or fetches."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tables, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        for label, found in re.findall(r'<svg [^>]*aria-label="([^"]*)"(.*?</svg>)', text, re.S):
            ElementTree.fromstring(f"<svg{found}")
            assert label

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "img", "iframe", "object", "link", "a", "image", "use"}
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in {"src", "href", "xlink:href", "srcset", "action"}
            assert "url(" not in (value or "")
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data

    def table(self, *head):
        """The rows of the table with these first columns."""
        return next(t[1:] for t in self.tables if tuple(t[0][: len(head)]) == head)


def sample_of(**changed):
    wanted = {"characters": 20_000, "hops": 3, "queries": 12, "seed": 1}
    return HashHop(**wanted | changed)


def answered(sample, seed=0):
    """Replies of every kind; to the first query there is none."""
    rng = random.Random(seed)
    kinds = [None, "I cannot", "", "aBcDeFgHiJkLmNoP", *sample.chains[1]]
    right = {chain[0]: sample.targets[chain[0]] for chain in sample.chains[1:]}
    return {q: rng.choice([a, a, rng.choice(kinds)]) for q, a in right.items()}


def scored(seed=0, **changed):
    sample = sample_of(**changed)
    return score(sample, answered(sample, seed))


def placed(seed=0, **changed):
    return place_answers(scored(seed, **changed), sample_of(**changed))


def public():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the format's own generator
    sample = MultiHopEval.make_one(9_000, 10, 2, 16, True)
    return place_answers(score(sample, answered(sample)), sample)


def everything():
    return {
        "one model": [placed(), placed(order=1, seed=3), placed(order=2), placed(characters=9_000)],
        "another": [placed(mode="direct"), public(), scored()],
        "silent": score(sample_of(), {}),
    }


PAGE = render(everything())


# ------------------------------------------------------------------------------------ the page


def test_a_page_holds_every_figure_of_every_result():
    page = Page(PAGE)
    results = as_results(everything())
    assert page.tags.count("h2") == 8
    rows = page.table("result", "format")
    assert len(rows) == len(results) == 8
    for row, result in zip(rows, results, strict=True):
        data = result.data
        assert row[:3] == [result.label, result.sample["format"], result.sample["mode"]]
        assert row[5] == f"{data['correct']} of {data['queries']}"
        assert row[6] == (f"{100 * data['accuracy']:.1f} %" if data["queries"] else "–")
        if data["queries"]:
            low, high = data["interval"]
            assert row[7] == f"{100 * low:.1f} % to {100 * high:.1f} %"
        assert row[9] == str(data["failed"])
    assert [row[0] for row in page.table("result", "hop")] == [
        result.label for result in results for _ in result.data["by_hop"]
    ]
    errors = page.table("result", "right")
    for row, result in zip(errors, results, strict=True):
        data = result.data
        assert row[1:] == [str(n) for n in (data["correct"], *data["errors"].values(),
                                            data["failed"])]  # fmt: skip
        assert sum(map(int, row[1:-1])) == data["queries"]
    lengths = page.table("series", "characters")
    assert [int(row[1]) for row in lengths] == sorted(r.sample["characters"] for r in results)


def test_a_page_holds_the_comparison_of_orders():
    page = Page(PAGE)
    text = "".join(page.text)
    assert "under 3 orders: Cochran’s Q" in text
    assert "(exact)" in text
    assert [row[0] for row in page.table("order", "right")] == ["0", "1", "2"]
    assert [row[0] for row in page.table("orders")] == ["0 and 1", "0 and 2", "1 and 2"]
    assert "without a reply under some order" in text


def test_a_page_holds_the_places():
    page = Page(PAGE)
    depth = [t for t in page.tables if t[0][:2] == ["hop", "0 to 10"]]
    assert len(depth) == 4  # three orders of one text together, another length, mode, and format
    cells = [cell for row in depth[0][1:] for cell in row[1:] if cell != "–"]
    results = [as_result(placed(order=k, seed=3 * (k == 1))) for k in range(3)]
    assert sum(int(c.split(" of ")[1]) for c in cells) == sum(
        3 * result.data["queries"] for result in results
    )
    assert sum(int(c.split(" of ")[0]) for c in cells) == sum(
        sum(answer["edges"]) for result in results for answer in result.data["answers"]
    )
    assert "By place" not in render([scored()])


def test_the_same_results_make_the_same_bytes(tmp_path):
    assert render(everything()) == PAGE
    report(everything(), tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == PAGE
    through_json = {
        system: json.loads(json.dumps([r.data for r in as_results({system: own})]))
        for system, own in everything().items()
    }
    assert render(through_json) == PAGE


def test_a_page_forbids_scripts_and_requests():
    assert "default-src 'none'" in PAGE
    assert "http" not in PAGE.replace("http-equiv", "")


@pytest.mark.parametrize("where", ["title", "system", "name", "query", "answer", "error", "sample"])
def test_what_a_model_writes_is_text(where, tmp_path):
    result = json.loads(json.dumps(placed()))
    wrong = next(answer for answer in result["answers"] if answer["error"])
    title, system, name = "HashHop", "", "a.json"
    if where == "title":
        title = HOSTILE
    elif where == "system":
        system = HOSTILE
    elif where == "name":
        name = HOSTILE
    elif where == "query":
        wrong["query"] = HOSTILE
    elif where == "answer":
        wrong["answer"] = [HOSTILE]
    elif where == "error":
        result["errors"] = {HOSTILE: result["queries"] - result["correct"]}
        for answer in result["answers"]:
            answer["error"] = HOSTILE if answer["error"] else None
    else:
        result["sample"] |= {"mode": HOSTILE, "format": HOSTILE, HOSTILE: HOSTILE, "hops": HOSTILE}
    report([as_result(result, name, system)], tmp_path / "page.html", title=title)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\0" not in text
    assert "<script>alert(1)</script>" in "".join(page.text)


def test_a_long_text_is_cut():
    result = placed()
    result["answers"][0]["query"] = "x" * 1_000_000
    result["sample"]["note"] = "y" * 1_000_000
    assert len(render([result])) < 200_000


def test_results_that_nothing_tells_apart_are_not_compared():
    text = "".join(Page(render([placed(), placed(), placed(order=1)])).text)
    assert "Not compared: order 0 was given more than once" in text
    apart = render([placed() | {"model": "a"}, placed() | {"model": "b"}, placed(order=1)])
    assert "By order" not in apart


def test_a_page_of_replies_that_never_arrived():
    page = Page(render([score(sample_of(order=k), {}) for k in range(3)]))
    assert "p = 1.000" in "".join(page.text)
    assert page.table("result", "format")[0][5:8] == ["0 of 0", "–", "–"]


# ------------------------------------------------------------------------------------ the charts


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 10**15), st.floats(0, 1)), max_size=5), max_size=9),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_curves_stay_within_the_chart(series, log):
    points = [(f"s{i}", [svg.Point(x, y, y, y) for x, y in one]) for i, one in enumerate(series)]
    chart = ElementTree.fromstring(svg.line_chart("c", "x", points, log=log))
    _, _, width, height = map(float, chart.get("viewBox").split())
    dots = chart.findall("circle")
    assert len(dots) == sum(map(len, series))
    for dot in dots:
        assert 0 <= float(dot.get("cx")) <= width
        assert 0 <= float(dot.get("cy")) <= height


@given(st.lists(st.lists(st.integers(0, 99), min_size=9, max_size=9), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_bars_are_as_wide_as_their_counts(rows):
    chart = ElementTree.fromstring(
        svg.bar_chart("c", list("abcdefghi"), [("r", counts, "") for counts in rows])
    )
    bars = [float(r.get("width")) for r in chart.findall("rect") if r.find("title") is not None]
    for i, counts in enumerate(rows):
        own = bars[9 * i : 9 * i + 9]
        total = sum(own)
        for wide, count in zip(own, counts, strict=True):
            assert wide == pytest.approx(total * count / max(sum(counts), 1), abs=0.5)


def test_numbers_on_an_axis_are_short():
    shown = {0: "0", 7: "7", 999: "999", 999.9: "1 K", 1_000: "1 K", 99_972: "100 K",
             999_972: "1 M", 300_000_000: "300 M", 2_500_000_000: "2.5 G"}  # fmt: skip
    assert {x: svg._short(x) for x in shown} == shown


# ------------------------------------------------------------------------------ reading results


def test_files_are_read_as_they_were_scored(tmp_path):
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    one.write_text(json.dumps(scored().to_dict() | {"model": "m"}))
    several.write_text(json.dumps([placed(), public()]))
    results = read_results([one, str(several)])
    assert [result.label for result in results] == [
        f"m ({one})", f"{several}, 1", f"{several}, 2",
    ]  # fmt: skip
    assert results[0].data == json.loads(one.read_text())
    assert results[0].correct == {m.query: m.correct for m in scored().marks}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no JSON file"),
        (b"{", "is no JSON file"),
        (b"\xff\xfe\x00", "is no JSON file"),
        (b"[" * 100_000, "is no JSON file"),
        (b"1" * 10_000, "is no JSON file"),
        (b"[]", "holds an empty list"),
        (b"null", "the result is an object, not 'None'"),
        (b"[[]]", "the result is an object, not '\\[\\]'"),
        (b"{}", "it has no 'sample'"),
        (b'{"name": "some", "scripts": {}}', "it has no 'sample'"),
    ],
)
def test_a_foreign_file_is_refused_by_name(content, problem, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_results([path])
    assert str(path) in str(caught.value)


def broken(change):
    result = json.loads(json.dumps(placed()))
    change(result)
    return result


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.pop("answers"), "it has no 'answers'"),
        (lambda r: r["sample"].pop("mode"), "'sample' has no 'mode'"),
        (lambda r: r["sample"].update(characters=-1), "'characters' of 'sample' is a number from"),
        (lambda r: r["sample"].update(characters=True), "'characters' of 'sample' is a number"),
        (lambda r: r["sample"].update(format=7), "'format' of 'sample' is a text, not '7'"),
        (lambda r: r.update(queries=3), "'queries' is not the"),
        (lambda r: r.update(correct=99), "'correct' is not the number of such answers"),
        (lambda r: r.update(failed="two"), "'failed' is a number"),
        (lambda r: r["errors"].update(empty=50), "'empty' is not the number of such errors"),
        (lambda r: r["errors"].clear(), "an error that 'errors' lacks"),
        (lambda r: r["by_hop"].update({"1": 1.5}), "the share at hop 1 is not 0 to 1"),
        (lambda r: r["by_hop"].update({"1": math.nan}), "the share at hop 1 is not 0 to 1"),
        (lambda r: r["by_hop"].update({"one": 1}), "about different hops"),
        (lambda r: r["answers"].append(r["answers"][0]), "'queries' is not the"),
        (lambda r: r["answers"][1].update(r["answers"][0]), "a query was answered twice"),
        (lambda r: r["answers"][1].pop("error"), "answer 2 has no 'error'"),
        (lambda r: r["answers"][1].pop("edges"), "'edges' of answer 2 is a list, not 'None'"),
        (lambda r: r["answers"][1]["edges"].pop(), "differ in length"),
        (lambda r: r["answers"][1].update(lines=[1, 2, 10**6]), "line 1000000 of answer 2"),
        (lambda r: r["answers"][1].update(edges=[1, 0, 1]), "neither true nor false"),
        (lambda r: r.pop("text_lines"), "'text_lines' is a number"),
    ],
)
def test_a_damaged_result_is_refused(change, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        render([placed(), broken(change)])
    assert str(caught.value).startswith("result 2 is not the JSON of a HashHop score")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_is_refused_or_shown(data):
    """One value anywhere in a result is replaced by anything."""
    result = json.loads(json.dumps(SMALL))
    inside = result
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = data.draw(anything)
    try:
        page = render([result])
    except ValueError as error:
        if "result 1" not in str(error):
            raise
    else:
        Page(page)


SMALL = placed(queries=4, characters=1_000, hops=2)


def test_a_result_is_a_score_or_its_dictionary():
    with pytest.raises(ValueError, match="there is no result"):
        render([])
    with pytest.raises(ValueError, match="there is no result"):
        render({"a model": []})
    for alone in (scored(), placed()):
        with pytest.raises(ValueError, match="put it into a list"):
            render(alone)
    with pytest.raises(ValueError, match="result 1 is not the JSON of a HashHop score"):
        render(["a.json"])
    with pytest.raises(ValueError, match="result 1 holds what JSON does not"):
        render([placed() | {"note": {1, 2}}])


# --------------------------------------------------------------------------------- the command


def run(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    report_command.add_arguments(parser)
    return report_command.main(parser.parse_args(list(map(str, arguments))))


def test_the_command_writes_the_page(tmp_path, capsys):
    files = [tmp_path / f"{k}.json" for k in range(2)]
    for k, file in enumerate(files):
        file.write_text(json.dumps(placed(order=k)))
    page = tmp_path / "page.html"
    assert run(*files, "--out", page, "--title", "Two orders") == 0
    assert f"results: 2, page: {page}" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == render(read_results(files), title="Two orders")
    assert run(*files, "--out", page, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"file": str(page), "results": 2, "bytes": page.stat().st_size}


def test_the_command_writes_nothing_where_a_file_is_wrong(tmp_path):
    good, page = tmp_path / "good.json", tmp_path / "page.html"
    good.write_text(json.dumps(placed()))
    with pytest.raises(ValueError, match="one of the files to report on"):
        run(good, "--out", good)
    with pytest.raises(OSError, match=re.escape("missing.json")):
        run(good, tmp_path / "missing.json", "--out", page)
    assert not page.exists()
    assert json.loads(good.read_text()) == placed()


def test_shares_by_hop_are_of_the_queries_asked_for_them():
    """Where queries have their own numbers of hops, or none has an answer."""
    sample = HashHop(characters=30_000, hops=(1, 3), queries=12, unanswerable=2, seed=3)
    result = place_answers(score(sample, sample.completion), sample)
    asked = result["asked"]
    assert 10 == asked["1"] > asked["2"] > asked["3"] > 0
    page = render([result])
    for hop, count in asked.items():
        low, high = wilson_interval(count, count)
        assert f"{100 * low:.1f} % to {100 * high:.1f} %" in page, hop
    nothing = HashHop(characters=9_000, hops=2, queries=3, unanswerable=3)
    result = place_answers(score(nothing, nothing.completion), nothing)
    assert (result["correct"], result["by_hop"]) == (3, {"1": None, "2": None})
    render([result])
