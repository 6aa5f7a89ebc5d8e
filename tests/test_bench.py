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
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench import (  # noqa: E402 needs the path
    archive,
    digests,
    frozen,
    graphs,
    harness,
    hops,
    limits,
    memory_limit,
    render,
    skips,
    store,
    table_finds,
    table_headlines,
    table_inserts,
    table_race,
    table_rivals,
    table_upkeep,
    tables,
    tables_large,
)
from hashmem import kernels  # noqa: E402 as above

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
    ran = {row.contestant for row in tables_result.rows}
    assert_whole(tables_result, ran | set(tables_result.left_out))
    assert set(table_race.MAKERS) <= ran | set(tables_result.left_out)
    inserts = {table_inserts.AT_ONCE, table_inserts.INSERT, table_inserts.DELETE}
    operations = {*inserts, *table_finds.COLUMNS}
    assert operations < {row.column for row in tables_result.rows}
    for row in tables_result.rows:
        assert row.column not in operations or len(row.samples) == table_race.QUICK_ROUNDS
    assert tables_result.headlines


@pytest.mark.skipif("native" not in kernels.available, reason="they are about compiled kernels")
def test_tables_give_a_figure_for_each_target(tables_result):
    said = [headline.what for headline in tables_result.headlines]
    ran = {row.contestant for row in tables_result.rows}
    peers = set(table_race.SWIFT) - {*table_race.OURS, table_rivals.DictLoop.name}
    for name in table_headlines.SHORT.values():
        for what in (
            "find, hits: {} to memory alone",
            "find, misses, small pages: {} to memory alone",
            "find, Zipf hits: {} faster than the fastest peer",
            "find, misses: {} faster than a dict loop",
            "insert from empty, one call: {} faster than the fastest peer",
            "{}: longest pause to a copy of the arrays",
            "{}: overhead, mean over the fill",
            "two threads to one on hits: {}",
            "table[digest], fresh: {} to dict",
            "after ten rounds of churn to fresh, find, hits: {}",
        ):
            if "memory alone" in what and "memory alone" in str(tables_result.left_out):
                continue  # no C compiler
            if "fastest peer" in what and ran.isdisjoint(peers):
                continue  # none is installed
            assert any(line.startswith(what.format(name)) for line in said), what.format(name)


def test_large_tables():
    result = tables_large.run(quick=True)
    assert_whole(result, {row.contestant for row in result.rows} | set(result.left_out))
    assert result.headlines or result.left_out


def arrays(*sizes):
    try:
        return limits.Arrays(*sizes)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("stride", [16, 40])
@pytest.mark.parametrize(("index_reads", "entry_reads"), [(1, 1), (1.25, 1), (1.5, 0), (1, 1.75)])
def test_memory_alone_reads_what_it_is_told_to(stride, index_reads, entry_reads):
    entries, lines = 5000, 700
    picks = np.random.default_rng(0).integers(0, entries, 20_000)
    memory = arrays(lines * limits.LINE, entries, stride)
    touch = memory.touch(picks, index_reads, entry_reads)
    touch()
    plan = touch.args[0].astype(np.int64)
    in_index = plan < lines * limits.LINE // 8
    places = np.where(in_index, plan // 8, plan - lines * limits.LINE // 8)
    assert (places[in_index] < lines).all()
    entry = places[~in_index]
    assert (entry % (stride // 8) == 0).all()
    assert (entry < entries * stride // 8).all()
    if entry_reads == 1:
        np.testing.assert_array_equal(places[:, -1], picks * (stride // 8))
    # A read that is left out repeats the one before it; five standard errors are 0.018.
    reads = 1 + (plan[:, 1:] != plan[:, :-1]).sum(axis=1).mean()
    assert reads == pytest.approx(index_reads + entry_reads, abs=0.02)


@given(st.integers(0, 6), st.integers(1, 300))
@settings(deadline=None)  # it compiles
def test_chains_are_followed_in_groups(hops, starts):
    random = np.random.default_rng(starts)
    successors, at = random.permutation(500), random.integers(0, 500, starts)
    try:
        found = limits.chains(successors, at, hops)()
    except ImportError as error:
        pytest.skip(str(error))
    for _ in range(hops):
        at = successors[at]
    np.testing.assert_array_equal(found, at)


@given(st.integers(2, 9).map(lambda words: 8 * words))
def test_entries_cover_the_lines_that_their_bytes_do(stride):
    lines = [len({byte // 64 for byte in range(i * stride, (i + 1) * stride)}) for i in range(64)]
    expected = np.bincount(lines) / 64
    np.testing.assert_array_equal(table_upkeep.entry_lines(stride), expected)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=200))
def test_percentiles_of_lines_agree_with_numpy(lines):
    shares = np.bincount(lines) / len(lines)
    for percent in (50, 99):
        expected = np.percentile(lines, percent, method="inverted_cdf")
        assert table_upkeep.percentile(shares, percent / 100) == expected


def test_store(store_result):
    assert_whole(store_result, [contestant.name for contestant in store.CONTESTANTS])
    ours = {row.column for row in store_result.rows if row.kind == "ours"}
    assert ours >= {row.column for row in store_result.rows}
    assert store_result.headlines


def test_frozen(tmp_path):
    result = frozen.run(quick=True, folder=tmp_path)
    assert_whole(result, frozen.CONTESTANTS)
    assert result.headlines
    assert not list(tmp_path.iterdir())


def test_every_frozen_table_gives_the_same_answers(tmp_path):
    digests, absent = frozen.digests_of(0, 300, 16), frozen.digests_of(300, 50, 16)
    running = list(frozen.contestants(harness.Result("same", "Same."), tmp_path, rivals=True))
    for contestant in running:
        contestant.make(digests)()
        contestant.reader = contestant.open()
        found = list(contestant.find(digests[::-1])())
        if contestant.sees_misses:
            missed = list(contestant.find(absent)())
            assert missed in ([-1] * 50, [None] * 50), contestant.name
            numbers = [frozen.value_of(value) for value in found]
            assert numbers == list(range(299, -1, -1)), contestant.name
        else:
            assert sorted(found) == list(range(300)), contestant.name
    for contestant in running:
        contestant.close()


def test_hops(tmp_path):
    result = hops.run(quick=True, folder=tmp_path)
    assert_whole(result, {row.contestant for row in result.rows} | set(result.left_out))
    assert {row.kind for row in result.rows} >= {"ours", "rival"}
    assert result.headlines
    assert not list(tmp_path.iterdir())


@pytest.fixture
def digests_everyone():
    rivals = {name for name, _ in digests.RIVALS.values()}
    return {digests.OURS} | rivals | {name for of in digests.FLOORS.values() for name in of}


def test_digests(digests_everyone):
    result = digests.run(quick=True)
    assert_whole(result, digests_everyone)
    assert result.headlines


def test_all_ways_to_digest_give_the_same(tmp_path):
    library = digests.build(tmp_path)
    for size in digests.SIZES:
        rows = np.random.default_rng(size).integers(0, 256, (6, size), np.uint8)
        for algorithm in digests.WIDTHS:
            result = harness.Result("same", "Same.")
            calls = digests.contestants(result, library, algorithm, rows)
            expected = b"".join(digests.RIVALS[algorithm][1](row.tobytes()) for row in rows)
            for name, call in calls.items():
                assert b"".join(map(bytes, call())) == expected, (name, algorithm, size)


def test_skips():
    result = skips.run(quick=True)
    assert_whole(result, {row.contestant for row in result.rows})
    assert {row.kind for row in result.rows} == {"ours", "rival", "floor"}
    assert result.headlines


def test_the_shapes_of_skips_are_whole_graphs():
    names = []
    for name, successors in skips.shapes(1000, np.random.default_rng(0)):
        names.append(name)
        assert successors.shape == (1000,)
        ends = int((successors == -1).sum())
        assert ends == (0 if name in ("cycle", "random map") else 1), name
    assert set(skips.PATHS) < set(names)


def test_graphs():
    result = graphs.run(quick=True)
    assert_whole(result, [*{row.contestant for row in result.rows}, *result.left_out])
    assert {row.kind for row in result.rows} == {"ours", "rival", "floor"}
    assert result.headlines


@pytest.mark.parametrize("zipf", [False, True])
def test_every_search_finds_the_same_rows(zipf):
    before = graphs.kernels.active
    result, random = harness.Result("same", "Same rows."), np.random.default_rng(1)
    links = graphs.graph_of(300, zipf, random)
    lists, scipy = graphs.as_lists(*links), graphs.scipy_of(result, *links)
    whole, nearest = graphs.searches(links, lists, scipy, [5, 9, 250], 40)
    expected = graphs.lists_nearest(lists, 5, 300)
    for name, search in whole.items():
        in_order = list if name != graphs.SCIPY else sorted  # it sorts links first
        assert in_order(search()) == in_order(expected), name
    expected = nearest[graphs.LISTS]()
    for name, search in nearest.items():
        assert [list(found) for found in search()] == expected, name
    pairs = random.integers(0, 300, (100, 2)).tolist()
    found = {name: search() for name, search in graphs.chains(links, lists, scipy, pairs).items()}
    for ways in found.values():
        assert list(map(len, ways)) == list(map(len, found[graphs.LISTS]))
        for (start, end), way in zip(pairs, ways, strict=True):
            if len(way):
                assert (way[0], way[-1]) == (start, end)
                assert all(b in lists[a] for a, b in itertools.pairwise(map(int, way)))
    graphs.kernels.select(before)


def test_every_multimap_gives_the_same_values():
    digests = graphs.digests_of(0, 50, 8)
    owners = np.random.default_rng(1).integers(0, 50, 400)
    expected = [np.flatnonzero(owners == i).tolist() for i in range(50)]
    for name, multimap in graphs.multimaps(harness.Result("same", "Same values.")).items():
        multimap.add(digests[owners], np.arange(400))()
        found = multimap.find(digests)()
        if isinstance(found, tuple):
            found = np.split(found[1], found[0][1:-1])
        assert [list(values) for values in found] == expected, name


def test_archive(tmp_path):
    result = archive.run(quick=True, folder=tmp_path)
    assert_whole(result, {row.contestant for row in result.rows})
    assert {row.kind for row in result.rows} == {"ours", "rival", "floor"}
    assert result.headlines
    assert not list(tmp_path.iterdir())


def test_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limit, "READS", 1000)
    monkeypatch.setattr(memory_limit, "SEARCHED", 1000)
    monkeypatch.setattr(memory_limit, "COMMIT", 10_000)
    result = memory_limit.run(quick=True, folder=tmp_path)
    assert {row.kind for row in result.rows} == {"floor"}
    assert_whole(result, {row.contestant for row in result.rows} | set(result.left_out))


def test_left_out_are_those_not_installed(tables_result, store_result):
    for result, libraries in (
        (
            tables_result,
            {"hirola", "cykhash", "pandas", "borghash", "numba", "polars", "pyarrow"},
        ),
        (store_result, {"diskcache", "rocksdict"}),
    ):
        missing = {name for name in libraries if importlib.util.find_spec(name) is None}
        named = {
            name.split(",")[0].split(" ")[0]
            for name in result.left_out
            if not name.startswith(("hashmem", "C++", "memory alone"))
        }
        assert named == missing


# -------------------------------------------------------------- the contestants do the same work


def test_every_table_gives_the_same_answers():
    before = kernels.active
    result = harness.Result("same", "Same answers.")
    present = table_rivals.random_digests(0, 500, 32)
    absent = table_rivals.random_digests(1, 300, 32)
    for contestant in table_race.contestants(result, table_race.MAKERS):
        contestant.insert(present)()
        asked = np.concatenate([present[::-1], absent])
        expected = [*range(499, -1, -1), *[-1] * 300]
        assert contestant.numbers(contestant.find(asked)()) == expected, contestant.name
        if contestant.can_delete:
            contestant.delete(present[:200])()
            expected = [-1] * 200 + list(range(200, 500))
            assert contestant.numbers(contestant.find(present)()) == expected, contestant.name
    kernels.select(before)


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
    ranks = table_race.zipf_ranks(1000, 20_000, np.random.default_rng(0))
    assert ranks.min() >= 0
    assert ranks.max() < 1000
    weights = np.arange(1, 1001) ** -table_race.ZIPF_EXPONENT
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
    for name in (*table_race.MAKERS, *tables_result.left_out):
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
