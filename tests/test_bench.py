"""The benches run at tiny sizes, give results of one shape, and compare like with like.

No timing decides anything here. Rivals that are not installed must be named as left out.
"""

import importlib.util
import itertools
import json
import os
import platform
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench import harness, hops, memory_limit, render, store, table_rivals, tables  # noqa: E402 needs the path

figures = st.floats(0.001, 1e6)


@given(st.lists(figures, min_size=1, max_size=30))
def test_summary_agrees_with_numpy(samples):
    found = harness.summary(samples)
    expected = np.percentile(samples, [50, 10, 90, 0])
    assert list(found) == ["median", "p10", "p90", "min"]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-9)


@given(st.lists(st.tuples(figures, figures), min_size=1, max_size=10))
def test_ratios_are_taken_within_rounds(pairs):
    slow, fast = zip(*pairs, strict=True)
    assert harness.per_round(slow, fast) == [a / b for a, b in pairs]
    assert len(harness.per_round([*slow, 1.0], fast)) == 1


def test_race_goes_round_by_round():
    calls = []

    def contestant(name):
        def prepare(number):
            calls.append(("prepare", name, number))
            return lambda: calls.append(("run", name, number))

        return prepare

    samples = harness.race({"a": contestant("a"), "b": contestant("b")}, rounds=3)
    steps = itertools.product(range(3), "ab", ("prepare", "run"))
    assert calls == [(step, name, number) for number, name, step in steps]
    assert {name: len(found) for name, found in samples.items()} == {"a": 3, "b": 3}


def test_measure_warms_up_once():
    calls = []
    assert len(harness.measure(lambda: calls.append(1), repeat=4)) == 4
    assert len(calls) == 5


def test_the_machine_is_described_without_names_or_paths(tmp_path):
    described = json.dumps(harness.machine(tmp_path))
    for private in (platform.node(), str(Path.home()), str(tmp_path), str(ROOT)):
        assert not private or private == "/" or private not in described
    assert "numpy " + np.__version__ in described


def test_a_child_has_its_own_process_and_memory():
    ballast = bytearray(os.urandom(1 << 20)) * 200  # 200 MiB that the child must not report
    assert harness.in_child(os.getpid) != os.getpid()
    assert harness.in_child(harness.resident_bytes, True) < len(ballast)
    assert harness.resident_bytes(peak=True) >= len(ballast)


# ------------------------------------------------------------------------------- whole benches


def assert_whole(result, expected):
    """Check a result's shape: who is there, that figures are figures, that JSON holds it."""
    ran = {row.contestant for row in result.rows}
    assert ran | set(result.left_out) == set(expected)
    assert ran.isdisjoint(result.left_out)
    for row in result.rows:
        assert row.kind in {"ours", "rival", "floor"}
        assert row.samples
        assert all(0 < sample < float("inf") for sample in row.samples), row
    cells = [(row.table, row.column, row.contestant) for row in result.rows]
    assert len(cells) == len(set(cells))
    plain = result.as_dict()
    assert json.loads(json.dumps(plain)) == plain


@pytest.fixture(scope="module")
def tables_result():
    return tables.run(quick=True)


@pytest.fixture(scope="module")
def store_result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    result = store.run(quick=True, folder=folder)
    assert not list(folder.iterdir())  # it cleans up after itself
    return result


def test_tables(tables_result):
    assert_whole(tables_result, tables.MAKERS)
    finds = {tables.HITS, tables.ZIPF, tables.MISSES}
    operations = {tables.AT_ONCE, tables.INSERT, tables.DELETE} | finds
    assert {row.column for row in tables_result.rows} == operations
    for row in tables_result.rows:
        assert len(row.samples) == tables.QUICK_ROUNDS
    assert tables_result.headlines


def test_store(store_result):
    assert_whole(store_result, [contestant.name for contestant in store.CONTESTANTS])
    ours = {row.column for row in store_result.rows if row.kind == "ours"}
    assert ours >= {row.column for row in store_result.rows}
    assert store_result.headlines


def test_hops(tmp_path):
    result = hops.run(quick=True, folder=tmp_path)
    assert_whole(result, {row.contestant for row in result.rows})
    assert {row.kind for row in result.rows} == {"ours", "rival"}
    assert not list(tmp_path.iterdir())


def test_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limit, "READS", 1000)
    monkeypatch.setattr(memory_limit, "COMMIT", 10_000)
    result = memory_limit.run(quick=True, folder=tmp_path)
    assert {row.kind for row in result.rows} == {"floor"}
    assert_whole(result, {row.contestant for row in result.rows} | set(result.left_out))


def test_left_out_are_those_not_installed(tables_result, store_result):
    for result, libraries in (
        (tables_result, {"hirola", "cykhash", "pandas"}),
        (store_result, {"diskcache", "rocksdict"}),
    ):
        missing = {name for name in libraries if importlib.util.find_spec(name) is None}
        named = {name.split(",")[0] for name in result.left_out if not name.startswith("hashmem")}
        assert named == missing


# -------------------------------------------------------------- the contestants do the same work


def test_every_table_gives_the_same_answers():
    before = tables.kernels.active
    result = harness.Result("same", "Same answers.")
    present, absent = tables.digests_of(0, 500, 32), tables.digests_of(500, 300, 32)
    for contestant in tables.contestants(result):
        contestant.insert(present)()
        asked = np.concatenate([present[::-1], absent])
        expected = [*range(499, -1, -1), *[-1] * 300]
        assert list(contestant.find(asked)()) == expected, contestant.name
        if contestant.can_delete:
            contestant.delete(present[:200])()
            expected = [-1] * 200 + list(range(200, 500))
            assert list(contestant.find(present)()) == expected, contestant.name
    tables.kernels.select(before)


@pytest.mark.parametrize("make", store.CONTESTANTS, ids=lambda make: make.__name__)
def test_every_store_gives_the_same_records(make, tmp_path):
    payloads = store.payloads_of(60, 100, store.source_text()[:3000])
    assert len(set(payloads)) == 60
    digests = store.digests_of(payloads)
    try:
        contestant = make(tmp_path)
    except ImportError as error:
        pytest.skip(str(error))
    contestant.commit_every = 25
    contestant.open()
    contestant.write(payloads)
    contestant.close()
    assert contestant.nbytes() > 0
    contestant.open()
    asked = np.random.default_rng(0).integers(0, 60, 200)
    if contestant.reads:
        expected = [payloads[i] for i in asked]
        assert contestant.first_bytes(digests[asked])() == sum(p[0] for p in expected)
        assert contestant.all_bytes(digests[asked])() == expected
    if contestant.can_delete:
        contestant.delete(digests[:10])()
        kept = digests[10:]
        if contestant.can_compact:
            contestant.compact()
        assert contestant.all_bytes(kept)() == payloads[10:]
        try:
            gone = contestant.all_bytes(digests[:10])()
        except TypeError:  # it answered None, of which there is no first column and no bytes
            gone = []
        assert not any(gone)
    contestant.close()


def test_every_walk_ends_at_the_same_records(tmp_path):
    before = hops.kernels.active
    held, digests = hops.chain(300)
    with held, lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as writing:
        held.link_many(digests[:-1], digests[1:])
        starts = digests[[0, 7, 199]]
        for n in (0, 1, 100):
            expected = [digests[at + n].tobytes() for at in (0, 7, 199)]
            for name, walk in hops.contestants(held, digests, writing).items():
                ends = walk(starts, n)()
                if name.startswith(hops.OURS):
                    ends = table_rivals.as_bytes(ends[0])
                assert ends == expected, name
    hops.kernels.select(before)


def test_zipf_ranks_favour_the_first():
    ranks = tables.zipf_ranks(1000, 20_000, np.random.default_rng(0))
    assert ranks.min() >= 0
    assert ranks.max() < 1000
    weights = np.arange(1, 1001) ** -tables.ZIPF_EXPONENT
    share = weights[0] / weights.sum()  # 0.129; three standard errors are 0.007
    assert abs((ranks == 0).mean() - share) < 0.02


# ---------------------------------------------------------------------------------------- page


rows = st.lists(
    st.builds(
        harness.Row,
        table=st.just("t"),
        column=st.sampled_from(["x (ns)", "y (ns)"]),
        contestant=st.sampled_from(["us", "we", "them", "others", "limit"]),
        kind=st.just(""),
        samples=st.lists(figures, min_size=3, max_size=3),
    ),
    unique_by=lambda row: (row.column, row.contestant),
)
KINDS = {"us": "ours", "we": "ours", "them": "rival", "others": "rival", "limit": "floor"}


@given(rows)
def test_no_loss_is_left_unsaid(found):
    result = harness.Result("b", "Title.\n\nMethod.", machine={})
    for row in found:
        result.add(row.table, row.column, row.contestant, KINDS[row.contestant], row.samples)
    plain = result.as_dict()
    said = {(line[1], line[2]): line[4] for line in render.losses(plain)}
    for ours, rival in itertools.product(plain["rows"], plain["rows"]):
        if (ours["kind"], rival["kind"]) == ("ours", "rival") and ours["column"] == rival["column"]:
            names = said.get((ours["column"], ours["contestant"]), "")
            lost = rival["median"] < ours["median"]
            assert (f"{rival['contestant']} " in names) == lost
    page = render.render([plain])
    assert all(row["contestant"] in page for row in plain["rows"])


def test_results_are_read_as_written(tables_result, tmp_path):
    tables_result.write(tmp_path)
    (plain,) = render.read(tmp_path)
    assert plain == tables_result.as_dict()
    page = render.render([plain])
    for name in (*tables.MAKERS, *tables_result.left_out):
        assert name in page
    for headline in tables_result.headlines:
        assert headline.what in page


def test_the_page_is_what_the_results_render_to():
    assert render.PAGE.read_text(encoding="utf-8") == render.render(render.read(harness.RESULTS))


def test_what_retrieval_found_is_on_the_page():
    row = {"chunks": "lines, 28", "task": "line", "text@1": 0.625, "ms": 2.75}
    found = {"queries": 321, "files": 654, "characters": 98765, "recall": [row]}
    page = render.render([{**found, "stored again": {"lines, 28": 0.125}}])
    for figure in ("321", "654", "98 765", "0.625", "2.75", "stored again", "0.125"):
        assert figure in page
