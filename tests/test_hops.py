"""Hops against naive walks: chains, cycles, trees, any number of hops, and rows that are none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import hops, kernels
from hashmem.hops import Links

HUGE = [2**31, 10**9, 2**62 + 12345, 10**30]
hostile = st.sampled_from([-(2**63), -2, -1, 10**6, 2**62, 2**63 - 1])


@st.composite
def graphs(draw):
    """Successors that make paths, cycles and trees, with here and there a row that is none."""
    rows = draw(st.integers(0, 30))
    successors = draw(st.lists(st.integers(-1, rows - 1) | hostile, min_size=rows, max_size=rows))
    starts = draw(st.lists(st.integers(-1, rows) | hostile, max_size=8))
    return np.array(successors, np.int64), np.array(starts, np.int64)


def walk(successors, start, n):
    """Where n steps lead, -1 beyond the end; the rest of a cycle is taken by counting."""
    seen = {}
    row = int(start)
    for step in range(n + 1):
        if not 0 <= row < len(successors):
            return -1
        if step == n:
            return row
        if row in seen:
            length = step - seen[row]
            return walk(successors, row, (n - step) % length)
        seen[row] = step
        row = int(successors[row])
    return -1


@pytest.fixture(params=kernels.available)
def kernel(request):
    before = kernels.active
    kernels.select(request.param)
    yield request.param
    kernels.select(before)


@pytest.mark.parametrize("name", kernels.available)
@given(graph=graphs(), n=st.integers(0, 70) | st.sampled_from(HUGE))
def test_hop_is_n_steps(name, graph, n):
    successors, starts = graph
    before = kernels.active
    kernels.select(name)
    try:
        found = hops.hop(successors, starts, n)
        assert found.tolist() == [walk(successors, start, n) for start in starts]
        if len(starts):  # few starts step, many double: both ways must agree
            many = hops.hop(successors, np.resize(starts, 200), n)
            assert many.tolist() == np.resize(found, 200).tolist()
    finally:
        kernels.select(before)


@given(graph=graphs(), n=st.integers(0, 70))
def test_the_kernels_agree(graph, n):
    successors, starts = graph
    answers = []
    for name in ("reference", "native"):
        if name in kernels.available:
            out = np.full(len(starts), 77, np.int64)
            module = kernels.reference if name == "reference" else kernels._native
            module.hop(successors, starts, n, out)
            answers.append(out.tolist())
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] == [walk(successors, start, n) for start in starts]


@given(graph=graphs(), a=st.integers(0, 2**40), b=st.integers(0, 2**40))
def test_hops_add_up(graph, a, b):
    successors, starts = graph
    once = hops.hop(successors, starts, a + b)
    assert once.tolist() == hops.hop(successors, hops.hop(successors, starts, a), b).tolist()


def test_huge_hops_over_long_shapes(kernel):
    n = 100_000
    path = np.append(np.arange(1, n), -1)
    assert hops.hop(path, np.array([0, 1, n - 1]), n - 1).tolist() == [n - 1, -1, -1]
    assert hops.hop(path, np.arange(n), 10**9).max() == -1
    cycle = np.roll(np.arange(n), -1)
    assert (hops.hop(cycle, np.arange(n), 10**9) == (np.arange(n) + 10**9) % n).all()
    tree = (np.arange(n) - 1) // 2  # to the parent; the root's is -1
    leaf_depth = (n).bit_length() - 1
    assert hops.hop(tree, np.array([n - 1]), leaf_depth).tolist() == [0]
    assert hops.hop(tree, np.arange(n), leaf_depth + 1).max() == -1


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, bool])
def test_any_integer_counts_hops(kind):
    assert hops.hop(np.array([1, -1]), np.array([0, 1]), kind(1)).tolist() == [1, -1]


@pytest.mark.parametrize("n", [1.0, "1", None])
def test_what_is_no_integer_is_refused(n):
    with pytest.raises(TypeError):
        hops.hop(np.array([1, -1]), np.array([0]), n)


def test_negative_counts_are_refused():
    row = np.array([0])
    for call in (
        lambda: hops.hop(row, row, -1),
        lambda: hops.trace(row, 0, -1),
        lambda: hops.neighbours(np.array([0, 0]), row, row, -1),
    ):
        with pytest.raises(ValueError, match="0 or more, not -1"):
            call()


@given(graph=graphs(), limit=st.none() | st.integers(0, 40))
def test_trace_stops_at_the_end_or_the_first_repeat(graph, limit):
    successors, starts = graph
    for start in starts.tolist():
        expected = []
        row = start
        while 0 <= row < len(successors) and row not in expected:
            expected.append(row)
            if len(expected) - 1 == limit:
                break
            row = int(successors[row])
        assert hops.trace(successors, start, limit).tolist() == expected


edge_lists = st.lists(
    st.tuples(st.integers(0, 9), st.integers(-1, 2), st.integers(0, 9)), max_size=25
)


@given(edge_lists, st.lists(st.integers(-1, 12), max_size=4), st.integers(0, 5), st.data())
def test_links_and_neighbours_against_sets(changes, starts, depth, data):
    """Relation -1 is CLEAR: it ends what its source had."""
    links = Links()
    model: set[tuple[int, int, int]] = set()
    history = [(links.edge_blocks, set(model))]
    for source, relation, target in changes:
        links.add_edges(np.array([source]), np.array([relation]), np.array([target]))
        if relation == Links.CLEAR:
            model = {edge for edge in model if edge[0] != source}
        else:
            model.add((source, relation, target))
        history.append((links.edge_blocks, set(model)))
    blocks, model = data.draw(st.sampled_from(history))
    links.csr(12)  # what was built before is not used afterwards
    links.drop_edges_after(blocks)
    assert set(map(tuple, links.edges().T.tolist())) == model
    successors = {}
    for source, target in data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 9)))):
        old = links.set_successors(np.array([source]), np.array([target]))
        assert old.tolist() == [successors.get(source, -1)]
        successors[source] = target
    for relation in [None, 0, 1, 2]:
        pairs = {(s, t) for s, of, t in model if relation in (None, of)}
        if relation is None:
            pairs |= {(s, t) for s, t in successors.items() if t >= 0}
        offsets, targets = links.csr(12, relation)
        assert {
            (s, int(t)) for s in range(12) for t in targets[offsets[s] : offsets[s + 1]]
        } == pairs
        distances = {start: 0 for start in starts if 0 <= start < 12}
        for distance in range(1, depth + 1):
            for source, target in pairs:
                if distances.get(source) == distance - 1:
                    distances.setdefault(target, distance)
        expected = sorted((d, row) for row, d in distances.items() if d)
        found = hops.neighbours(offsets, targets, np.array(starts, np.int64), depth)
        assert found.tolist() == [row for _, row in expected]


@given(st.lists(st.tuples(st.integers(0, 9), hostile), max_size=9))
def test_targets_that_are_no_rows_are_passed_over(edges):
    links = Links()
    for source, target in edges:
        links.add_edges(np.array([source]), np.array([0]), np.array([target]))
        links.set_successors(np.array([source]), np.array([target]))
    for relation in (None, 0):
        offsets, targets = links.csr(10, relation)
        assert not len(hops.neighbours(offsets, targets, np.arange(5), 3))


def test_the_last_of_equal_sources_wins():
    links = Links()
    old = links.set_successors(np.array([3, 3, 1]), np.array([5, 6, 7]))
    assert old.tolist() == [-1, -1, -1]
    assert links.successors[:4].tolist() == [-1, 7, -1, 6]


def test_rows_are_integers_and_need_no_alignment():
    with pytest.raises(TypeError, match="starts: rows are integers, not float64"):
        hops.hop(np.array([1, 2, -1]), np.array([0.5]), 1)
    raw = np.arange(17, dtype=np.uint8)[1:]  # int64 at an odd address
    misaligned = np.frombuffer(raw, np.int64)
    assert hops.hop(misaligned, np.array([0]), 1).tolist() == [-1]
    assert hops.hop(
        np.array([1, -1]), np.frombuffer(np.zeros(9, np.uint8)[1:], np.int64), 1
    ).tolist() == [1]


@pytest.mark.parametrize("limit", [1.5, 0.0, "1"])
def test_trace_counts_hops_in_whole_numbers(limit):
    with pytest.raises(TypeError):
        hops.trace(np.array([1, 0]), 0, limit)
