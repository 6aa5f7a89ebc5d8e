"""Skipping against stepping: paths, trees, cycles, links that change, and damaged indexes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem import SkipIndex, hops, kernels

MOST = 2**63 - 1
hostile = st.sampled_from([-(2**63), -2, -1, 40, 10**6, 2**62, MOST])
counts = st.integers(0, 70) | st.integers(0, 10**9) | st.sampled_from([2**31, 2**61, 2**62, MOST])


@st.composite
def graphs(draw, most=40):
    """Successors: anything at all, or trees whose rows lead to earlier ones, bent into cycles."""
    rows = draw(st.integers(0, most))
    if draw(st.booleans()):
        near = draw(st.integers(1, 5))  # 1 makes paths, more make trees
        up = [max(-1, row - draw(st.integers(1, near))) for row in range(rows)]
        names = np.array(draw(st.permutations(range(rows))), np.int64)
        successors = np.full(rows, -1, np.int64)
        for row, above in enumerate(up):
            successors[names[row]] = names[above] if above >= 0 else -1
    else:
        anything = st.integers(-1, rows - 1) | hostile
        successors = np.array(draw(st.lists(anything, min_size=rows, max_size=rows)), np.int64)
    for row in draw(st.lists(st.integers(0, rows - 1), max_size=3)) if rows else []:
        successors[row] = draw(st.integers(0, rows - 1))
    return successors


def walk(successors, starts, n):
    """Where stepping leads, each start and its number of hops alone."""
    pairs = zip(starts, np.broadcast_to(n, np.shape(starts)), strict=True)
    return [hops.hop(successors, np.array([start]), int(k)).item() for start, k in pairs]


@pytest.fixture(params=kernels.available)
def kernel(request):
    before = kernels.active
    kernels.select(request.param)
    yield request.param
    kernels.select(before)


def all_starts(successors, data, amount=12):
    rows = st.integers(-1, len(successors)) | hostile
    starts = data.draw(st.lists(rows, min_size=1, max_size=amount))
    n = data.draw(st.lists(counts, min_size=len(starts), max_size=len(starts)))
    return np.array(starts, np.int64), np.array(n, np.int64)


@given(successors=graphs(), data=st.data())
def test_skip_is_n_hops(successors, data):
    starts, n = all_starts(successors, data)
    before = kernels.active
    for name in kernels.available:
        kernels.select(name)
        try:
            index = SkipIndex(successors)
            assert index.skip(starts, n).tolist() == walk(successors, starts, n), name
            one = int(n[0])
            assert index.skip(starts, one).tolist() == walk(successors, starts, one), name
        finally:
            kernels.select(before)


@given(successors=graphs(), n=st.integers(0, 50), data=st.data())
def test_every_row_and_every_kernel_of_every_width(successors, n, data):
    """Indexes are exchangeable: each kernel reads what any other has built."""
    rows = len(successors)
    starts = np.arange(-1, rows + 1)
    expected = hops.hop(successors, starts, n).tolist()
    modules = [getattr(kernels, "_native" if k == "native" else k) for k in kernels.available]
    for width in (4, 8):
        for builder in modules:
            built = build(builder, width, successors)
            check(width, *built, successors)
            for reader in modules:
                out = np.full(len(starts), 77, np.int64)
                none = np.empty(0, np.uint64)
                hop = np.array([n])
                reader.skip(width, *built, none, successors, starts, hop, 0, out)
                assert out.tolist() == expected


def build(module, width, successors):
    rows, dtype = len(successors), f"i{width}"
    nodes, order = np.empty((rows, 2), dtype), np.empty(rows, dtype)
    paths, scratch = np.empty((rows, 3), dtype), np.empty((rows, 8), dtype)
    count = module.skip_build(width, successors, nodes, order, paths, scratch)
    return nodes, order, paths[:count].copy()


def check(width, nodes, order, paths, successors):
    """Every invariant of an index that `skips.c` states."""
    rows = len(successors)
    assert sorted(order.tolist()) == list(range(rows))
    linked = (successors >= 0) & (successors < rows)
    lowest, cyclic = -(2 ** (8 * width - 1)), 2 ** (8 * width - 2)
    way_up = [0] * len(paths)
    for number, (base, head, up) in enumerate(paths.tolist()):
        if head == lowest:
            ring = [int(order[base - offset]) for offset in range(up)]
            assert successors[ring].tolist() == ring[1:] + ring[:1]
            assert nodes[ring].tolist() == [[-cyclic - offset, number] for offset in range(up)]
            continue
        top = int(order[(base + head) % 2 ** (8 * width)])
        assert nodes[top].tolist() == [head, number]
        if not linked[top]:
            assert (head, up) == (0, -1)
        else:
            above = int(successors[top])
            assert nodes[above, 1] == up
            assert nodes[above, 0] == head - 1
        while up != -1 and paths[up, 1] != lowest:
            way_up[number] += 1
            up = int(paths[up, 2])
    assert all(2**changes <= max(rows, 1) for changes in way_up)


updates = st.lists(
    st.tuples(st.integers(0, 45), st.integers(-1, 45) | hostile), min_size=1, max_size=4
)


@given(successors=graphs(), data=st.data())
def test_links_that_change(successors, data):
    """Searches and changes in turn, against an array that is stepped over."""
    stale = data.draw(st.sampled_from([0.0, 0.1, 1e9]))
    model = successors.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hashmem.skips.STALE", stale)
        index = SkipIndex(successors)
        for _ in range(data.draw(st.integers(1, 4))):
            starts, n = all_starts(model, data)
            assert index.skip(starts, n).tolist() == walk(model, starts, n)
            changes = np.array(data.draw(updates), np.int64)
            size = int(changes[:, 0].max()) + 1
            model = np.append(model, np.full(max(0, size - len(model)), -1, np.int64))
            model[changes[:, 0]] = changes[:, 1]
            index.set(changes[:, 0], changes[:, 1])
            assert index.successors.tolist() == model.tolist()
        everywhere = np.arange(-1, len(model) + 1)
        for n in (0, 1, 2, 7, 10**9):
            assert index.skip(everywhere, n).tolist() == hops.hop(model, everywhere, n).tolist()


def test_changes_are_walked_over_not_only_built_anew(kernel):
    """Few changes among many rows: found by marks of many levels, until hops go round and round."""
    rows = 300_000 if kernel == "native" else 5000
    random = np.random.default_rng(7)
    names = random.permutation(rows)
    model = np.empty(rows, np.int64)
    model[names] = np.roll(names, -1)  # one cycle of all
    index = SkipIndex(model)
    index.skip(names[:1], 1)
    built = index._index
    for n in (1, 5, 1000, rows // 3, rows - 1, rows, MOST):
        assert (index._index is built) == (kernel == "native" or n == 1)
        source, target = random.integers(0, rows, (2, 3))
        model[source] = target
        index.set(source, target)
        starts = random.integers(0, rows, 50)
        assert index.skip(starts, n).tolist() == hops.hop(model, starts, n).tolist()
    assert index._index is not built


def test_huge_skips_over_long_shapes(kernel):
    rows = 50_000
    everywhere = np.arange(rows)
    path = SkipIndex(np.append(everywhere[1:], -1))
    assert path.skip([0, 1, rows - 1], rows - 1).tolist() == [rows - 1, -1, -1]
    cycle = SkipIndex(np.roll(everywhere, -1))
    assert (cycle.skip(everywhere, MOST) == (everywhere + MOST % rows) % rows).all()
    tree = (everywhere - 1) // 2
    tree[0] = -1
    for successors in (tree, np.full(rows, 7), everywhere.copy(), np.full(rows, -1)):
        n = np.random.default_rng(3).integers(0, 20, rows)
        found = SkipIndex(successors).skip(everywhere, n)
        for k in range(20):
            assert (found[n == k] == hops.hop(successors, everywhere[n == k], k)).all()


def test_memory_is_linear_in_the_links():
    rows = 40_000
    everywhere = np.arange(rows)
    for successors in (
        np.roll(everywhere, -1),
        (everywhere - 1) // 2,
        np.where(everywhere < rows // 2, everywhere - 1, everywhere - rows // 2),
        np.random.default_rng(1).integers(0, rows, rows),
    ):
        index = SkipIndex(successors)
        assert 12 * rows <= index.nbytes <= 18 * rows
        index.set(everywhere[:9], everywhere[9:18])
        assert index.nbytes <= 18.2 * rows
    assert SkipIndex(everywhere).nbytes == 24 * rows  # each row a cycle of its own


def test_a_link_beyond_the_rows_leads_on_once_they_are_there(kernel):
    index = SkipIndex([3, 0, 9])
    assert index.skip([0, 1, 2], 1).tolist() == [-1, 0, -1]
    index.set([4], [2])
    assert len(index) == 5
    assert index.skip([1, 0, 4, 2], 2).tolist() == [3, -1, -1, -1]
    index.set([9], [1])
    assert index.skip([2, 2, 4], [1, 4, 4]).tolist() == [9, 3, 0]


def test_what_is_refused():
    index = SkipIndex([1, -1])
    for n in (-1, 2**63, [1, -1], np.array([0, 2**63], np.uint64)):
        with pytest.raises(ValueError, match="number of hops is 0 to"):
            index.skip([0, 1], n)
    for n in (1.0, "1", None, [0.5, 1]):
        with pytest.raises(TypeError):
            index.skip([0, 1], n)
    with pytest.raises(TypeError, match="starts: rows are integers, not float64"):
        index.skip([0.5], 1)
    with pytest.raises(ValueError, match="do not fit"):
        index.skip([0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="2 sources cannot be linked to 1 targets"):
        index.set([0, 1], [1])
    with pytest.raises(ValueError, match="-3 is no row"):
        index.set([0, -3], [1, 1])
    with pytest.raises(ValueError, match="read-only"):
        index.successors[0] = 0
    assert index.skip([0, 1], 1).tolist() == [1, -1]


@given(successors=graphs(), data=st.data())
def test_links_hop_alike_with_and_without_an_index(successors, data):
    """Rows that nothing leads from come to be, and links change, once the index is there."""
    links, rows = hops.Links(), len(successors)
    links.set_successors(np.arange(rows), successors)
    for _ in range(3):
        starts, n = all_starts(successors, data)
        assert links.hop(starts, int(n[0])).tolist() == walk(links.successors, starts, n[0])
        links.successors = hops.grown(links.successors, data.draw(st.integers(0, 200)), -1)
        changes = np.array(data.draw(updates), np.int64)
        links.set_successors(changes[:, 0], changes[:, 1])


@pytest.mark.parametrize("kernel", kernels.available)
def test_a_row_newer_than_the_index_is_its_own_start(kernel):
    before = kernels.active
    kernels.select(kernel)
    try:
        index = SkipIndex(np.full(100, -1))
        assert index.skip([0], 1).tolist() == [-1]  # builds
        index.grow(101)
        assert index.skip([100, 101, 99], 0).tolist() == [100, -1, 99]
        assert index.skip([100, 100], [0, 1]).tolist() == [100, -1]
    finally:
        kernels.select(before)


# ------------------------------------------------------------------------------- hostile inputs


@given(
    width=st.sampled_from([4, 8]),
    built=st.integers(0, 80),
    count=st.integers(0, 9),
    marked=st.booleans(),
    seed=st.integers(0, 2**32),
    narrow=st.booleans(),
)
def test_nothing_outside_a_damaged_index_is_read(width, built, count, marked, seed, narrow):
    random = np.random.default_rng(seed)
    dtype = np.dtype(f"i{width}")

    def rubbish(*shape):
        raw = random.integers(0, 256, (*shape, width), np.uint8).view(dtype)[..., 0]
        return raw % (max(built, count) + 3) - 1 if narrow else raw

    nodes, order, paths = rubbish(built, 2), rubbish(built), rubbish(count, 3)
    paths[random.random(count) < 0.3, 1] = np.iinfo(dtype).min
    words = 2 if built > 64 else 1
    words += built > 64
    marks = random.integers(0, 2**64, words if marked else 0, np.uint64)
    successors = random.integers(-2, built + 3, int(random.integers(0, built + 9)))
    starts = random.integers(-2, built + 3, 40)
    n = np.abs(random.integers(-(2**62), 2**62, 40) >> random.integers(0, 62, 40))
    for name in kernels.available:
        module = getattr(kernels, "_native" if name == "native" else name)
        with np.errstate(over="ignore"):
            out = np.empty(40, np.int64)
            followed = module.skip(
                width, nodes, order, paths, marks, successors, starts, n, 500, out
            )
            assert followed >= 0
            if marked:
                module.skip_mark(width, nodes.copy(), order, paths, marks.copy(), starts)


@pytest.mark.skipif("native" not in kernels.available, reason="nothing compiled")
def test_the_compiled_kernels_check_every_size():
    skip, mark, make = (getattr(kernels._native, f"skip{x}") for x in ("", "_mark", "_build"))
    successors = np.array([1, 2, -1])
    nodes, order, paths = build(kernels._native, 4, successors)
    none, one, out = np.empty(0, np.uint64), np.array([1]), np.empty(3, np.int64)
    good = [4, nodes, order, paths, none, successors, np.arange(3), one, 0, out]
    skip(*good)
    assert out.tolist() == [1, 2, -1]
    wrong = {
        0: [0, 3, 16],
        1: [nodes[:2]],
        2: [order[:2]],
        3: [np.empty(5, np.uint8)],
        4: [np.empty(2, np.uint64), np.empty(3, np.uint8)],
        5: [np.empty(9, np.uint8)],
        7: [np.arange(2), none],
        9: [np.empty(2, np.int64), good[6]],
    }
    for place, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError):
                skip(*good[:place], value, *good[place + 1 :])
    with pytest.raises(TypeError):
        skip(*good[:-1])
    for marks in (none, np.empty(2, np.uint64)):
        with pytest.raises(ValueError):
            mark(4, nodes, order, paths, marks, successors)
    scratch = np.empty((3, 8), np.int32)
    good = [4, successors, nodes, order, np.empty((3, 3), np.int32), scratch]
    for place, value in (
        (0, 5),
        (2, order),
        (3, nodes),
        (4, order),
        (5, nodes),
        (3, scratch[:, 0]),
    ):
        with pytest.raises(ValueError):
            make(*good[:place], value, *good[place + 1 :])
    overlapping = [*good[:3], scratch.reshape(-1)[:3], *good[4:]]
    with pytest.raises(ValueError, match="overlap"):
        make(*overlapping)
