"""The benches run at tiny sizes, give results of one shape, and compare like with like.

No timing decides anything here. Rivals that are not installed must be named as left out.
"""

import importlib.util
import itertools
import json
import os
import platform
import shutil
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
    hashhop,
    hops,
    limits,
    memory_limit,
    render,
    skips,
    store,
    store_beyond_memory,
    store_commits,
    store_contract,
    store_data,
    store_fragments,
    store_large,
    store_race,
    store_reads,
    store_rivals,
    store_space,
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
from hashmem.store import Records  # noqa: E402 as above

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


def store_rows(result):
    """All rows of a store's bench by (table, column)."""
    cells = {}
    for row in result.rows:
        cells.setdefault((row.table, row.column), {})[row.contestant] = row
    return cells


def test_store_races_all_contestants(store_result):
    case = store_race.QUICK_CASES[0]
    cells = store_rows(store_result)
    ran = set(cells[case.title, store_race.WRITE])
    missing = {name for name in store_result.left_out if name != "bytes written"}
    assert ran | missing == {make.name for make in store_rivals.CONTESTANTS}
    assert ran.isdisjoint(missing)
    for (table, column), rows in cells.items():
        if table == case.title:
            assert {row.kind for row in rows.values()} >= {"ours"}, column
            assert all(len(row.samples) == case.rounds for row in rows.values())
    assert_whole(
        store_result, {row.contestant for row in store_result.rows} | set(store_result.left_out)
    )


def test_store_gives_a_figure_for_each_target(store_result):
    said = [headline.what for headline in store_result.headlines if headline.target is not None]
    first, second = (case.title for case in store_race.QUICK_CASES)
    for what in (
        f"{first}, put, hash, commit: lmdb, put and get / ours",
        f"{second}, put, hash, commit: lmdb, put and get / ours",
        f"{first}, put, hash, commit: plain file, no digests / ours",
        f"{first}, put, hash, commit: plain file, digests by digest_many / ours",
        f"{first}: file after compact / (1.05 × payload + 48 B a record + 1 MiB)",
        "all as Python objects: ",
        "get one: store[digest] / lmdb, get in an open transaction",
        "get_many verified, 512 bytes: bare digests / ours",
        "put one, durable: ours / lmdb, one commit of one entry",
        "put one, durable: 8 threads' commits a second to one thread's",
        "10 000 commits of one record to one commit: get_many",
        "10 000 commits of one record to one commit: get one",
        "steady state, commits of 1 to 20: file / payload, highest",
        "steady state, commits of 1 to 20 000: file / payload, highest",
    ):
        assert any(line.startswith(what) for line in said), what
    written = any("bytes written / payload, 1 a commit" in line for line in said)
    assert written == ("bytes written" not in store_result.left_out)


def test_ratios_of_a_store_are_as_their_names_say(store_result):
    cells, held = store_rows(store_result), {h.what: h for h in store_result.headlines}
    one = {
        threads: cells[store_commits.TABLE, column]["hashmem MemoryStore"].samples
        for threads, column in store_commits.COLUMNS.items()
    }
    faster = held["put one, durable: 8 threads' commits a second to one thread's"]
    assert faster.samples == harness.per_round(one[1], one[store_commits.THREADS])
    assert faster.at_least
    rows = cells["One record at a time, warm", "get one (µs)"]
    slower = held[f"get one: store[digest] / {store_reads.OPEN_ONE}"]
    ours, lmdb_one = (rows[name].samples for name in (store_reads.STORE_ONE, store_reads.OPEN_ONE))
    np.testing.assert_allclose(slower.samples, harness.per_round(ours, lmdb_one))
    assert not slower.at_least
    case = store_race.QUICK_CASES[0]
    (share,) = cells[case.title, store_race.COMPACTED]["hashmem MemoryStore"].samples
    compact = held[f"{case.title}: file after compact / "
                   "(1.05 × payload + 48 B a record + 1 MiB)"]  # fmt: skip
    singles = case.n // 40  # written later
    allowed = 1.05 + 48 / case.size + (1 << 20) / (case.n * case.size)
    assert singles < case.n
    assert compact.samples == pytest.approx([share / allowed])


def test_bytes_written_are_those_of_a_file_that_is_synced(tmp_path):
    name = store_contract.NamelessFile.name
    found = harness.in_child(store_space.bytes_written, name, tmp_path, True)
    if found is None:
        pytest.skip("this system does not count bytes written there")
    pages = [-(-512 * records // 4096) * 4096 / (512 * records) for records in (1, 10)]
    for share, least in zip(found, pages, strict=True):  # a page that is appended to goes out again
        assert least * 0.8 <= share <= 2 * least + 1


def test_payloads_are_distinct_and_told_by_their_number():
    text = store_data.source_text()[:3000]
    payloads = store_data.payloads_of(300, 100, text)
    assert len(set(payloads)) == 300
    assert {len(payload) for payload in payloads} == {100}
    assert store_data.payloads_of(10, 100, text, first=250) == payloads[250:260]
    assert store_beyond_memory.payload_part(3, 5, text[:9000] * 3) == [
        store_data.payloads_of(1, store_beyond_memory.SIZES[i % 2], text[:9000] * 3, i)[0]
        for i in range(3, 8)
    ]


def test_a_wrong_answer_ends_a_race(tmp_path):
    class Forgetful(store_contract.HashMem):
        def all_bytes(self, digests):
            return lambda: [b"\0" + payload[1:] for payload in self.store.get_many(digests)]

    case = store_race.Case(60, 512, makers=(Forgetful,), rounds=1)
    with pytest.raises(store_race.WrongAnswer, match="get as bytes"):
        store_race.race(harness.Result("wrong", "Wrong."), case, tmp_path)


def test_both_ends_of_records_are_checked_and_measured(tmp_path, monkeypatch):
    def ends(records):
        return np.array([[record[0], record[-1]] for record in records], np.uint8)

    result = harness.Result("ends", "Ends.")
    monkeypatch.setattr(Records, "ends", ends, raising=False)
    store_reads.measure(result, tmp_path, True)
    assert [row.column for row in result.rows if row.contestant == store_reads.ENDS] == [
        "batches of 100 (ns a record)",
        "batches of 1 000 (ns a record)",
    ]
    held = {headline.what: headline.target for headline in result.headlines}
    assert held["get_many, batches of 1 000: Records and both ends (ns)"] == 150
    monkeypatch.setattr(Records, "ends", lambda records: ends(records)[::-1], raising=False)
    with pytest.raises(store_race.WrongAnswer, match="ends"):
        store_reads.measure(result, tmp_path, True)


def test_store_large(tmp_path):
    result = store_large.run(quick=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert_whole(result, {row.contestant for row in result.rows})
    said = " ".join(headline.what for headline in result.headlines)
    for what in ("open (ms)", "touched nothing (MB)", "get one", "file after compact"):
        assert what in said


def test_store_beyond_memory(tmp_path):
    result = store_beyond_memory.run(quick=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert_whole(result, {row.contestant for row in result.rows})
    assert {row.column for row in result.rows if row.kind == "ours"} >= {
        store_beyond_memory.WRITE,
        store_beyond_memory.MANY,
        store_beyond_memory.ONE,
        store_beyond_memory.IN_ORDER,
        store_beyond_memory.PEAK,
    }
    with pytest.raises(SystemExit, match="GB free"):
        store_beyond_memory.run(folder=tmp_path, gigabytes=1e9)
    assert not list(tmp_path.iterdir())


def test_fragments_hold_the_same_records(store_result):
    rows = [row for row in store_result.rows if row.table == store_fragments.TABLE]
    assert {row.contestant for row in rows} == {store_fragments.APART, store_fragments.TOGETHER}


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


def test_hashhop(tmp_path):
    result = hashhop.run(quick=True, folder=tmp_path)
    named = {name for name, _ in hashhop.METHODS.values()}
    assert_whole(
        result, named | {hashhop.TEXT, hashhop.ARRAYS, hashhop.CACHED, hashhop.DROPPED}
        | set(result.left_out),
    )  # fmt: skip
    tables = {row.table for row in result.rows}
    assert {size.title for size in hashhop.QUICK_SIZES} < tables
    targets = {headline.target for headline in result.headlines}
    assert targets == {6, 200, 2, 8, 1500, 25, None}
    assert not list(tmp_path.iterdir())


def test_hashhop_measures_in_a_process_of_its_own(tmp_path):
    (size,) = hashhop.QUICK_SIZES
    path = tmp_path / "sample.txt"
    (taken,) = harness.in_child(hashhop.write_text, size, path, 1)
    assert taken[0] > 0
    assert path.read_bytes() == hashhop.sample_of(size, 1).text().encode()
    found = harness.in_child(hashhop.answer, size, "table", path, 2)
    assert [solution.correct for solution in found] == [size.queries] * 2


def test_hashhop_refuses_a_wrong_answer(tmp_path):
    (size,) = hashhop.QUICK_SIZES
    path = tmp_path / "sample.txt"
    path.write_text(hashhop.HashHop(tokens=size.tokens, hops=hashhop.HOPS, seed=0).text())
    for method in hashhop.METHODS:
        if method in hashhop.GUESSES:
            hashhop.answer(size, method, path, 1)
        elif method != "grep" or shutil.which("grep"):
            with pytest.raises(hashhop.WrongAnswer, match=method):
                hashhop.answer(size, method, path, 1)
    with pytest.raises(hashhop.WrongAnswer, match="table"):
        hashhop.from_disk(size, path, dropped=False)


def test_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limit, "READS", 1000)
    monkeypatch.setattr(memory_limit, "SEARCHED", 1000)
    monkeypatch.setattr(memory_limit, "COMMIT", 10_000)
    result = memory_limit.run(quick=True, folder=tmp_path)
    assert {row.kind for row in result.rows} == {"floor"}
    assert_whole(result, {row.contestant for row in result.rows} | set(result.left_out))


MODULES = {"libmdbx": "mdbx", "lsm-db": "lsm"}  # by the name of the rival


def test_left_out_are_those_not_installed(tables_result, store_result):
    for result, libraries in (
        (
            tables_result,
            {"hirola", "cykhash", "pandas", "borghash", "numba", "polars", "pyarrow"},
        ),
        (
            store_result,
            {"diskcache", "rocksdict", "apsw", "plyvel", "mdbx", "lsm", "unqlite"},
        ),
    ):
        missing = {name for name in libraries if importlib.util.find_spec(name) is None}
        named = {
            name.split(",")[0].split(" ")[0]
            for name in result.left_out
            if not name.startswith(("hashmem", "C++", "memory alone", "bytes written"))
        }
        assert {MODULES.get(name, name) for name in named} == missing


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


@pytest.mark.parametrize("make", store_rivals.CONTESTANTS, ids=lambda make: make.__name__)
def test_every_store_gives_the_same_records(make, tmp_path):
    payloads = store_data.payloads_of(60, 100, store_data.source_text()[:3000])
    digests = store_data.digests_of(payloads)
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
        assert contestant.one_by_one(digests[asked])() == expected
    if contestant.can_delete:
        contestant.delete(digests[:10])()
        kept = digests[10:]
        if contestant.can_compact:
            contestant.compact()
        assert contestant.all_bytes(kept)() == payloads[10:]
        try:
            gone = contestant.all_bytes(digests[:10])()
        except (TypeError, KeyError):  # it answered None, which has no columns, or not at all
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
