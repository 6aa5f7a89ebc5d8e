"""What hashmem.testing ships finds planted bugs, and nothing where there is none."""

import re
import sys
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import planted_bugs
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from hashmem import hops, kernels
from hashmem.hops import Links
from hashmem.store import MemoryStore
from hashmem.store.ram import RamBackend
from hashmem.summaries import HashedNgrams
from hashmem.testing import (
    KINDS,
    BackendContract,
    Endless,
    HopContract,
    StoreMachine,
    SummaryContract,
    TableContract,
    TableMachine,
    digest_batches,
    digest_chains,
    digest_pools,
    digests,
    hop_chains,
    link_graphs,
    metadata,
    number_digests,
    payloads,
    record_batches,
    records,
    smallest_failure,
    step_limit,
    walk,
)

PAGE = Path(__file__).parent.parent / "docs/testing.md"
SAME = settings(derandomize=True, database=None, max_examples=1000)  # the same search in every run


ENDLESS_LINES = [
    planted_bugs.FullTable, planted_bugs.EndlessTrace, planted_bugs.endless_in_a_cycle,
]  # fmt: skip
ENDLESS = [*ENDLESS_LINES, planted_bugs.endless_in_compiled_code]
counted = pytest.mark.skipif(
    sys.gettrace() is not None, reason="another tracer: lines are not counted"
)


def each(bugs):
    """A parameter for each; what a count of lines stops is left out where there is none."""
    return [
        pytest.param(bug, id=bug.__name__, marks=[counted] * (bug in ENDLESS_LINES)) for bug in bugs
    ]


def is_found(told, bug):
    """A failure, as text, is an answer found wrong or a loop found endless: an error of any other
    kind is one of the fixture, not the bug."""
    assert told, "nothing failed"
    kind = told.splitlines()[-1].partition(":")[0]
    return kind == ("Endless" if bug in ENDLESS else "AssertionError")


# -- planted bugs ---------------------------------------------------------------------------------


def table_machine(make):
    return type("Machine", (TableMachine,), {"make": make, "size": 60, "max_steps": 20_000})


def store_machine(kind):
    class Machine(StoreMachine):
        def make(self):
            return kind()

        def reopened(self, store):
            return kind(store.disk)

    return Machine


def hop_contract(function):
    class Contract(HopContract):
        seconds = 1.0

        def hop(self, successors, starts, n):
            return function(successors, starts, n)

    return Contract


def test_there_are_enough_bugs():
    planted = [*planted_bugs.TABLES, *planted_bugs.STORES, *planted_bugs.HOPS]
    assert len(planted) >= 40
    assert len({bug.__doc__ for bug in planted}) == len(planted)


def test_a_right_table_passes():
    assert smallest_failure(table_machine(planted_bugs.Table), max_examples=40) is None


def test_a_right_store_passes():
    assert smallest_failure(store_machine(planted_bugs.Store), max_examples=50) is None


def test_a_right_hop_passes():
    assert failing(hop_contract(planted_bugs.hop)) == {}


@pytest.mark.parametrize("kind", each(planted_bugs.TABLES))
def test_bugs_of_tables_are_found(kind):
    told = smallest_failure(table_machine(kind), max_examples=1000, shrink=False)
    assert is_found(told, kind), told


@pytest.mark.parametrize("kind", each(planted_bugs.STORES))
def test_bugs_of_stores_are_found(kind):
    often = {"max_examples": 1000, "stateful_step_count": 30}
    told = smallest_failure(store_machine(kind), shrink=False, **often)
    assert is_found(told, kind), told


CHANGE = r"(put|put_many|link|link_each_to_the_next)\(.*\)"


@pytest.mark.parametrize(
    ("machine", "steps"),
    [
        (
            table_machine(planted_bugs.FirstWins),
            [r"insert\(first=0, layout='C', numbers=\[0, 0\]\)"],
        ),
        pytest.param(
            table_machine(planted_bugs.FullTable),
            [r"insert_run\(count=8, start=0\)"],
            marks=counted,
        ),
        (
            table_machine(planted_bugs.BatchOverwritten),
            [r"insert\(first=0, layout='C', numbers=\[0\]\)|insert_run\(count=1, start=0\)"],
        ),
        (
            table_machine(planted_bugs.BatchKept),
            [r"insert\(first=0, layout='C', numbers=\[0\]\)|insert_run\(count=1, start=0\)"],
        ),
        (store_machine(planted_bugs.LastCommitLost), [CHANGE, r"reopen\(\)"]),
        (
            store_machine(planted_bugs.RollbackForgetsAll),
            [CHANGE, r"commit\(\)|reopen\(\)", r"rollback\(\)"],
        ),
    ],
    ids=[
        "first wins",
        "full table",
        "batch overwritten",
        "batch kept",
        "last commit lost",
        "rollback forgets all",
    ],
)
def test_operations_shrink_to_those_it_takes(machine, steps):
    """To as few as can be; which of several that do, the search for examples decides."""
    told = smallest_failure(machine, max_examples=1000).splitlines()
    found = [line.removeprefix("state.") for line in told[2:-1]]
    assert len(found) == len(steps), found
    assert all(map(re.fullmatch, steps, found)), found


@pytest.mark.parametrize("function", each(planted_bugs.HOPS))
def test_bugs_of_hops_are_found(function):
    told = failing(hop_contract(function))
    assert told
    assert all(is_found(failure, function) for failure in told.values()), told


def failing(contract):
    """What fails of a contract whose tests take no arguments: name → the smallest failure."""
    tests = [name for name in dir(contract) if name.startswith("test_")]
    told = {name: smallest_failure(getattr(contract(), name), shrink=False) for name in tests}
    return {name: failure for name, failure in told.items() if failure}


def test_an_empty_suite_is_no_proof():
    """A machine that does not say what it is for fails, and not silently."""
    assert "make" in smallest_failure(type("Machine", (StoreMachine,), {}))
    assert "hop" in smallest_failure(HopContract().test_cycles_come_back)


@counted
def test_endless_code_is_told_from_code_that_ends():
    with pytest.raises(Endless, match="1000 lines"), step_limit(1000):
        planted_bugs.endless_in_a_cycle(np.array([0]), np.array([0]), 1)
    with step_limit(1000):
        assert planted_bugs.hop(np.array([0]), np.array([0]), 1).tolist() == [0]


# -- the contracts for whole tables, backends and summaries ---------------------------------------


def test_a_bug_in_a_whole_table_is_found():
    class Contract(TableContract):
        examples = 2000  # a value of -1 is rare; and which are drawn depends on the modules loaded

        def make(self, width, **options):
            return planted_bugs.MissesMinusOne(width, **options)

    told = smallest_failure(Contract().test_random_operations_agree_with_a_dict, shrink=False)
    assert is_found(told, planted_bugs.MissesMinusOne), told
    with pytest.raises(AssertionError):
        Contract().test_a_stored_minus_one_is_no_miss()


def test_a_bug_in_a_backend_is_found():
    with closing(planted_bugs.KeepsDamage()) as bad, pytest.raises(AssertionError):
        BackendContract().test_an_exception_drops_the_changes(bad)
    with closing(RamBackend()) as good:
        BackendContract().test_an_exception_drops_the_changes(good)


def test_a_bug_in_a_summary_is_found():
    test = SummaryContract().test_rows_have_unit_length_or_say_nothing
    with pytest.raises(AssertionError):
        test(planted_bugs.Longer())
    test(HashedNgrams())


# -- hashmem's own ---------------------------------------------------------------------------------


class InRam(StoreMachine):
    def make(self):
        return MemoryStore()


class TestInRam(InRam.TestCase):
    settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("algorithm", ["sha256", "xxh3_64"])
def test_a_store_on_disk_survives_reopening(algorithm, tmp_path_factory):
    class OnDisk(StoreMachine):
        def make(self):
            self.folder = tmp_path_factory.mktemp("store")
            return MemoryStore(self.folder, algorithm=algorithm)

        def reopened(self, store):
            store.close()
            return MemoryStore(self.folder)

    few = settings(max_examples=8, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(OnDisk, settings=few)


@pytest.mark.parametrize("name", kernels.available)
class TestHops(HopContract):
    max_hops = 10**12

    @pytest.fixture(autouse=True)
    def on_kernels(self, name):
        before = kernels.active
        kernels.select(name)
        yield
        kernels.select(before)

    def hop(self, successors, starts, n):
        return hops.hop(successors, starts, n)


@given(chain=digest_chains(16))
@settings(max_examples=50, deadline=None)
def test_chains_of_digests_lead_where_they_say(chain):
    with MemoryStore(algorithm="xxh3_128") as store:
        store.link_many(chain.sources, chain.targets)
        ends, found = store.hop([chain.start], chain.n)
        known = {bytes(d) for d in [*chain.sources, *chain.targets]}
        if chain.start in known:
            assert (ends[0].tobytes() if found[0] else None) == chain.end
        else:
            assert chain.end == (None if chain.n else chain.start)


@given(graph=link_graphs(dangling=False))
def test_graphs_are_what_links_take(graph):
    links = Links()
    links.set_successors(np.arange(len(graph.successors)), graph.successors)
    links.add_edges(*graph.edges)
    assert links.successors[: len(graph.successors)].tolist() == graph.successors.tolist()
    assert {*map(tuple, links.edges().T.tolist())} == {*map(tuple, graph.edges.T.tolist())}


# -- strategies ------------------------------------------------------------------------------------


@given(width=st.integers(8, 64), data=st.data())
def test_digests_are_of_their_width(width, data):
    kind = data.draw(st.none() | st.sampled_from(KINDS))
    one, batch = data.draw(digests(width, kind)), data.draw(digest_batches(width, kind))
    assert (type(one), len(one)) == (bytes, width)
    assert (batch.dtype, batch.shape) == (np.uint8, (len(batch), width))
    distinct = data.draw(digest_batches(width, kind, min_size=3, unique=True))
    assert len({row.tobytes() for row in distinct}) == len(distinct) >= 3


@pytest.mark.parametrize("width", [8, 13, 64])
@pytest.mark.parametrize("fill", [0, 200])
def test_kinds_are_what_they_are_called(width, fill):
    made = {kind: number_digests(np.arange(65536), width, kind, fill) for kind in KINDS}
    for kind, rows in made.items():
        distinct = {"one byte differs": 255 * width + 1, "zeros and ones": 16 * width + 2}
        assert len({row.tobytes() for row in rows}) == distinct.get(kind, 65536)
        assert np.array_equal(rows[:5], number_digests(range(5), width, kind, fill))
    assert (made["common prefix"][:, :-2] == fill).all()
    assert (made["common suffix"][:, 2:] == fill).all()
    assert (made["equal low bits"][:, [0, 1, 2, -1, -2, -3]] == fill).all()
    assert ((made["one byte differs"] != fill).sum(axis=1) <= 1).all()
    assert (made["counters"].view(np.uint8)[:, 2:] == 0).all()
    ones = np.unpackbits(made["zeros and ones"], axis=1).sum(axis=1)
    assert set(ones.tolist()) == {0, 1, 8 * width - 1, 8 * width}
    assert abs(np.unpackbits(made["uniform"]).mean() - 0.5) < 0.01


def test_what_is_no_kind_is_refused():
    for call in (digests, digest_batches, digest_pools):
        with pytest.raises(ValueError, match="no kind 'round'.*counters"):
            find(call(8, kind="round"), lambda value: True)
    with pytest.raises(ValueError, match="no kind 'round'.*counters"):
        number_digests([0], 8, "round")
    with pytest.raises(ValueError, match="8 bytes or more, got 7"):
        number_digests([0], 7)


@given(pool=st.sampled_from([8, 32]).flatmap(lambda width: digest_pools(width, 50)))
def test_pools_hold_the_ends_and_a_digest_twice(pool):
    rows = [row.tobytes() for row in pool]
    assert rows[0] == rows[-1]
    assert {bytes(pool.shape[1]), b"\xff" * pool.shape[1]} <= set(rows)


@given(batch=record_batches())
@settings(max_examples=30, deadline=None)
def test_records_are_what_a_store_gives_back(batch):
    expected = dict(batch[::-1])  # of equal contents, whatever comes: only contents are compared
    with MemoryStore() as store:
        found = store.put_many([content for content, _ in batch], [given for _, given in batch])
        assert list(store.get_many(found)) == [content for content, _ in batch]
        assert len(store) == len(expected)


@given(given_metadata=metadata())
@settings(max_examples=50, deadline=None)
def test_metadata_comes_back_as_it_was(given_metadata):
    with MemoryStore() as store:
        digest = store.put(b"", given_metadata)
        store.commit()
        assert store.metadata(digest) == given_metadata


def two_or_more(values):
    return len(values) != len(set(values))


@pytest.mark.parametrize(
    ("strategy", "condition", "smallest"),
    [
        (digests(8), lambda d: d[0] > 3, bytes([4, *[0] * 7])),
        (digest_batches(8).map(np.ndarray.tolist), lambda b: len(b) > 2, [[0] * 8] * 3),
        (payloads(), lambda p: len(p) > 1000, bytes(1001)),
        (payloads(), lambda p: True, b""),
        (records(), lambda r: r[1], (b"", {"": None})),
        (
            record_batches(),
            lambda batch: two_or_more([content for content, _ in batch]),
            [(b"", None)] * 2,
        ),
    ],
)
def test_strategies_shrink(strategy, condition, smallest):
    assert find(strategy, condition, settings=SAME) == smallest


def answers(function):
    """A condition: `function` is wrong about a chain."""

    def wrong(chain):
        ends = function(chain.successors.copy(), np.array([chain.start]), chain.n)
        return ends.tolist() != [walk(*chain)]

    return wrong


@pytest.mark.parametrize(
    ("function", "options", "successors", "n"),
    [
        (planted_bugs.off_by_one, {}, [-1], 0),
        (planted_bugs.no_zero_hops, {}, [-1], 0),
        (planted_bugs.stays_at_the_end, {}, [-1], 1),
        (planted_bugs.off_by_one_later, {}, [1, 0], 5),  # a cycle of two
        (planted_bugs.off_by_one_later, {"cycles": False}, [1, 2, 3, 4, -1], 5),
        (planted_bugs.rounds_from_the_start, {}, [0, 0], 2),  # a cycle of one, and a row before it
    ],
)
def test_chains_shrink_to_the_shortest_that_fails(function, options, successors, n):
    chain = find(hop_chains(**options), answers(function), settings=SAME)
    assert (chain.successors.tolist(), chain.n) == (successors, n)


@pytest.mark.parametrize("hops_wanted", [1, 2, 4, 7])
def test_a_path_of_n_hops_has_the_rows_it_needs_and_no_more(hops_wanted):
    paths = hop_chains(cycles=False)
    path = find(paths, lambda c: walk(*c) >= 0 and c.n == hops_wanted, settings=SAME)
    assert path.successors.tolist() == [*range(1, hops_wanted + 1), -1]
    assert path.start == 0
    cycle = find(hop_chains(), lambda c: walk(*c) >= 0 and c.n == hops_wanted, settings=SAME)
    assert cycle.successors.tolist() == [0]


# -- the page --------------------------------------------------------------------------------------


@counted
def test_the_page_shows_what_is_reported():
    """Each block of text is what the block of Python before it prints, as far as that is the same
    wherever it runs: which of equally short operations it is, and their numbers, may differ."""

    def lines(text):
        return [re.sub(r"\d+", "#", line) for line in text.splitlines() if line[:6] != "state."]

    namespace, printed, shown = {"__name__": "page"}, "", 0
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        if language == "python":
            with redirect_stdout(StringIO()) as output:
                exec(compile(block, "docs/testing.md", "exec"), namespace)
            printed = output.getvalue()
        elif language == "text":
            assert lines(block) == lines(printed)
            assert abs(printed.count("\n") - block.count("\n")) <= 1
            shown += block.count("\n")
        else:
            break  # what pytest prints: tests/test_docs.py runs it
    assert shown > 20
