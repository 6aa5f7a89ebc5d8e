"""Searches along any number of edges, against a breadth-first search in plain Python."""

from collections import Counter, deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import DigestMultimap, kernels
from hashmem.hops import Links, frontier, neighbours, reverse, shortest
from hashmem.store import MemoryStore
from hashmem.testing import link_graphs

ROWS = 12
NO_ROWS = [-(2**63), -2, -1, ROWS, 2**63 - 1]
row = st.integers(0, ROWS - 1)
starts = st.lists(row | st.sampled_from(NO_ROWS), max_size=5)
depths = st.integers(0, 6) | st.sampled_from([10**6, 2**62, 2**70])
limits = st.none() | st.integers(0, ROWS + 1) | st.sampled_from([10**6, 2**62, 2**70])


@pytest.fixture(params=kernels.available, autouse=True)
def on_kernels(request):
    before = kernels.active
    kernels.select(request.param)
    yield
    kernels.select(before)


@st.composite
def graphs(draw):
    """Edges in no order, some twice, some to what is no row: (offsets, targets), lists of each."""
    successors, (sources, _, targets) = draw(link_graphs(ROWS, max_edges=40))
    linked = np.flatnonzero(successors != -1)
    lists = [[] for _ in successors]
    for source, target in zip(
        [*sources, *linked], [*targets.tolist(), *successors[linked].tolist()], strict=True
    ):
        lists[source].append(target)
    return as_csr(lists), lists


def as_csr(lists):
    offsets = np.cumsum([0, *map(len, lists)])
    return offsets, np.array([target for its in lists for target in its], np.int64)


def breadth_first(lists, starts):
    """The distance of each row that is found, in the order found."""
    distances = {row: 0 for row in starts if 0 <= row < len(lists)}
    queue = deque(distances)
    while queue:
        row = queue.popleft()
        for target in lists[row]:
            if 0 <= target < len(lists) and target not in distances:
                distances[target] = distances[row] + 1
                queue.append(target)
    return distances


def turned(lists):
    parents = [[] for _ in lists]
    for source, its in enumerate(lists):
        for target in its:
            if 0 <= target < len(lists):
                parents[target].append(source)
    return parents


@given(graphs(), starts, st.none() | depths, limits)
def test_a_frontier_is_the_queue_of_a_breadth_first_search(graph, starts, depth, limit):
    csr, lists = graph
    found, distances = frontier(*csr, np.array(starts, np.int64), depth=depth, limit=limit)
    expected = breadth_first(lists, starts).items()
    expected = [(row, d) for row, d in expected if depth is None or d <= depth][:limit]
    assert list(zip(found.tolist(), distances.tolist(), strict=True)) == expected
    assert found.dtype == distances.dtype == np.int64


@given(graphs(), starts, depths, limits)
def test_neighbours_and_parents_are_the_frontier_without_its_starts(graph, starts, depth, limit):
    csr, lists = graph
    for its_csr, its_lists in ((csr, lists), (reverse(*csr), turned(lists))):
        found = neighbours(*its_csr, np.array(starts, np.int64), depth, limit)
        distances = breadth_first(its_lists, starts)
        expected = [row for row, d in distances.items() if 0 < d <= depth][:limit]
        assert found.tolist() == sorted(expected, key=lambda row: (distances[row], row))


@given(graphs())
def test_a_reverse_has_each_edge_the_other_way(graph):
    csr, lists = graph
    offsets, sources = reverse(*csr)
    parents = [part.tolist() for part in np.split(sources, offsets[1:-1])][: len(lists)]
    assert parents == turned(lists)
    again = reverse(*reverse(offsets, sources))
    assert np.array_equal(again[0], offsets)
    assert np.array_equal(again[1], sources)


@given(graphs(), limits)
def test_a_shortest_chain_is_one_and_there_is_no_shorter(graph, limit):
    csr, lists = graph
    back = reverse(*csr)
    for start in range(len(lists)):
        distances = breadth_first(lists, [start])
        for end in range(len(lists)):
            chain = shortest(*csr, start, end, reverse=back, limit=limit).tolist()
            distance = distances.get(end)
            if distance is None or (limit is not None and distance > limit):
                assert chain == []
                continue
            assert len(chain) == distance + 1
            assert (chain[0], chain[-1]) == (start, end)
            assert all(target in lists[source] for source, target in pairwise(chain))
            assert shortest(*csr, start, end, limit=limit).tolist() == chain
    for start, end in ((-1, 0), (0, len(lists)), (2**62, -1)):
        assert shortest(*csr, start, end, limit=limit).tolist() == []


def test_kernels_agree_on_a_graph_of_many_levels():
    """What is prefetched and where rows are doubled shows only beyond a few dozen rows."""
    random = np.random.default_rng(1)
    rows = 5000
    targets = np.concatenate(
        [random.integers(0, rows, rows), np.arange(1, rows + 1), random.integers(0, 50, rows)]
    )
    sources = np.concatenate([np.arange(rows), np.arange(rows), random.integers(0, rows, rows)])
    order = np.argsort(sources, kind="stable")
    csr = np.append(0, np.cumsum(np.bincount(sources, minlength=rows))), targets[order]
    lists = [part.tolist() for part in np.split(csr[1], csr[0][1:-1])]
    distances = breadth_first(lists, [7, 3])
    found, its = frontier(*csr, np.array([7, 3]))
    assert dict(zip(found.tolist(), its.tolist(), strict=True)) == distances
    assert found.tolist() == list(distances)
    path = np.arange(rows + 1).clip(max=rows - 1), np.arange(1, rows)  # as many levels as rows
    assert frontier(*path, np.array([0]))[1].tolist() == list(range(rows))
    assert shortest(*path, 0, rows - 1).tolist() == list(range(rows))
    distances = breadth_first(lists, [0])
    for end in random.integers(0, rows, 50).tolist():
        chain = shortest(*csr, 0, end).tolist()
        assert len(chain) == distances.get(end, -1) + 1
        assert all(target in lists[source] for source, target in pairwise(chain))


# -------------------------------------------------------------------- multimaps, links and stores


@given(graphs(), starts, depths, limits)
def test_a_multimap_is_a_graph(graph, starts, depth, limit):
    """Several links for one digest: what `find` gives for all digests is the graph."""
    (offsets, targets), lists = graph
    names = np.zeros((len(lists), 8), np.uint8)
    names[:, 3] = np.arange(len(lists))
    links = DigestMultimap(8)
    mixed = np.argsort(targets, kind="stable")  # so that digests come in turns
    owners = np.repeat(np.arange(len(lists)), np.diff(offsets))
    links.add(names[owners[mixed]], targets[mixed])
    graph = links.find(names)
    found = neighbours(*graph, np.array(starts, np.int64), depth)
    assert (
        found.tolist() == neighbours(offsets, targets, np.array(starts, np.int64), depth).tolist()
    )
    few = frontier(*graph, np.array(starts, np.int64), depth=depth, limit=limit)[0].tolist()
    within = [sorted(its) for its in lists]
    expected = [row for row, d in breadth_first(within, starts).items() if d <= depth][:limit]
    assert few == expected


@given(link_graphs(ROWS, dangling=False), st.sampled_from([None, "a", "b", "c"]), depths, limits)
def test_a_store_answers_what_its_links_do(graph, relation, depth, limit):
    successors, edges = graph
    names = np.zeros((len(successors), 32), np.uint8)
    names[:, 0] = np.arange(len(successors))
    with MemoryStore() as store:
        store.link_many(names, names)  # so that rows are numbered as the graph's are
        store.unlink(names)
        linked = np.flatnonzero(successors >= 0)
        store.link_many(names[linked], names[successors[linked]])
        for number, name in enumerate("ab"):
            chosen = edges[1] == number
            store.add_links(names[edges[0, chosen]], names[edges[2, chosen]], name)
        pairs = {
            (source, target)
            for source, number, target in edges.T.tolist()
            if relation in (None, "ab"[number])
        }
        if relation is None:
            pairs |= {(source, int(successors[source])) for source in linked.tolist()}
        lists = [[] for _ in successors]
        for source, target in sorted(pairs):
            lists[source].append(target)
        csr, back = as_csr(lists), as_csr(turned(lists))
        for start in range(len(lists)):
            one, rows = names[start : start + 1], np.array([start])
            digests = store.neighbours(one, depth, relation)
            assert np.array_equal(digests, names[neighbours(*csr, rows, depth)])
            digests = store.parents(one, depth, relation, limit=limit)
            assert np.array_equal(digests, names[neighbours(*back, rows, depth, limit)])
            assert len(store.neighbours(one, depth, relation, limit=limit)) == len(
                neighbours(*csr, rows, depth, limit)
            )
            distances = breadth_first(lists, [start])
            for end in range(len(lists)):
                way = store.shortest(bytes(names[start]), bytes(names[end]), relation)
                assert len(way) == distances.get(end, -1) + 1
                assert all((a[0], b[0]) in pairs for a, b in pairwise(way.tolist()))
        unknown = b"?" * 32
        assert store.neighbours(unknown, depth, relation).shape == (0, 32)
        assert store.parents(unknown, depth, relation).shape == (0, 32)
        assert store.shortest(unknown, unknown, relation).shape == (0, 32)


def test_the_graph_of_a_store_follows_its_changes():
    a, b, c = (bytes([i]) * 32 for i in range(3))

    def seen(store):
        return [
            {bytes(d) for d in answer}
            for answer in (store.neighbours(a, 9), store.parents(c, 9), store.shortest(a, c))
        ]

    with MemoryStore() as store:
        store.link(a, b)
        store.commit()
        assert seen(store) == [{b}, set(), set()]
        store.add_link(b, c, "more")
        assert seen(store) == [{b, c}, {a, b}, {a, b, c}]
        store.add_link(a, c)
        assert seen(store) == [{b, c}, {a, b}, {a, c}]
        store.rollback()
        assert seen(store) == [{b}, set(), set()]
        store.link(b, c)
        store.clear_links(a)
        assert seen(store) == [{b, c}, {a, b}, {a, b, c}]
        store.unlink(a)
        assert seen(store) == [set(), {b}, set()]


def test_a_reverse_of_links_is_that_of_their_graph():
    links = Links()
    random = np.random.default_rng(2)
    links.add_edges(*random.integers(0, 40, (3, 300)))
    for relation in (None, 7):
        graph, back = links.csr(50, relation), links.csr(50, relation, back=True)
        assert Counter(pairs(*graph)) == Counter((b, a) for a, b in pairs(*back))
    assert len(links.csr(60, None, back=True)[0]) == 61


def pairs(offsets, targets):
    sources = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return list(zip(sources.tolist(), targets.tolist(), strict=True))


# -------------------------------------------------------------------------------------- bad input

GRAPH = np.array([0, 1, 1]), np.array([1])
NONE = np.empty(0, np.int64)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: frontier(*GRAPH, [0], depth=-1), ValueError, "depth: .* 0 or more, not -1"),
        (lambda: frontier(*GRAPH, [0], limit=-1), ValueError, "limit: .* 0 or more, not -1"),
        (lambda: frontier(*GRAPH, [0], depth=1.0), TypeError, "float"),
        (lambda: frontier(*GRAPH, [0], limit="1"), TypeError, "str"),
        (lambda: frontier(*GRAPH, [0.0]), TypeError, "starts: rows are integers"),
        (lambda: frontier(*GRAPH, [[0]]), ValueError, r"starts: .* got shape \(1, 1\)"),
        (lambda: frontier(NONE, NONE, [0]), ValueError, "offsets: one number more"),
        (lambda: frontier([0.0, 1.0], [0], [0]), TypeError, "offsets: rows are integers"),
        (lambda: frontier([0, 2, 2], [1], [0]), ValueError, "offsets of row 0"),
        (lambda: frontier([0, -1, 1], [1], [1]), ValueError, "offsets of row 1"),
        (lambda: neighbours(*GRAPH, [0], -1), ValueError, "depth: .* not -1"),
        (lambda: neighbours(*GRAPH, [0], 1, -1), ValueError, "limit: .* not -1"),
        (lambda: reverse([0, 2], [0]), ValueError, "offsets of row 0"),
        (lambda: reverse([1, 0], [0]), ValueError, "offsets of row 0"),
        (lambda: reverse(NONE, NONE), ValueError, "offsets: one number more"),
        (lambda: shortest(*GRAPH, 0, 1, limit=-1), ValueError, "limit: .* not -1"),
        (lambda: shortest(*GRAPH, 0.0, 1), TypeError, "float"),
        (lambda: shortest(*GRAPH, 0, 1, reverse=([0], NONE)), ValueError, "reverse"),
        (lambda: shortest([0, 9, 9], [1], 0, 1), ValueError, "offsets of row 0"),
    ],
)
def test_bad_input_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("kind", [np.int8, np.uint32, ">i8", np.uint64])
def test_rows_of_any_integers_in_any_layout(kind):
    offsets, targets = np.array([0, 2, 3, 3], kind), np.array([1, 2, 2], kind)
    wide = np.zeros((4, 2), kind)
    wide[:, 0] = offsets
    assert neighbours(wide[:, 0], targets[::-1][::-1], np.array([0], kind)).tolist() == [1, 2]
    assert shortest(wide[:, 0], targets, 0, 2).tolist() == [0, 2]


def test_no_rows_and_no_starts():
    assert frontier(np.array([0]), NONE, np.array([0, 1]))[0].tolist() == []
    assert frontier(*GRAPH, NONE)[0].tolist() == []
    assert neighbours(*GRAPH, NONE, 3, 0).tolist() == []
    assert [part.tolist() for part in reverse(np.array([0]), NONE)] == [[0], []]
