"""DigestMultimap against a dict of lists, on both kernels; its kernels, its memory, bad input."""

import copy
import pickle
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import hashmem
from hashmem import DigestMultimap, kernels
from hashmem.kernels import reference
from hashmem.kernels.reference.multimap import TAIL
from hashmem.tables import multi, values
from hashmem.testing import digest_pools

POOL = 30  # few digests, so that chains grow long
LEAST, MOST = -(2**63), 2**63 - 1


@pytest.fixture(params=kernels.available)
def on_kernels(request: pytest.FixtureRequest) -> Any:
    before = kernels.active
    kernels.select(request.param)
    yield
    kernels.select(before)


def random_digests(n: int, width: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)


def flat(multimap: DigestMultimap, digests: np.ndarray) -> list[list[int]]:
    """The values of each digest, from the CSR that `find` gives."""
    offsets, found = multimap.find(digests)
    assert offsets.dtype == found.dtype == np.int64
    assert len(offsets) == len(digests) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(found)
    return [part.tolist() for part in np.split(found, offsets[1:-1])][: len(digests)]


class MultimapMachine(RuleBasedStateMachine):
    """Random batches on a multimap and on a dict of lists, in the order digests came."""

    @initialize(data=st.data(), width=st.sampled_from([8, 13, 32, 64]))
    def start(self, data: st.DataObject, width: int) -> None:
        self.pool = data.draw(digest_pools(width, POOL))
        self.keys = [row.tobytes() for row in self.pool]
        self.multimap = DigestMultimap(width, capacity=data.draw(st.sampled_from([0, 0, 100])))
        self.model: dict[bytes, list[int]] = {}

    rows = st.lists(st.integers(0, POOL - 1), max_size=60)
    small = st.integers(-3, 3)

    @rule(rows=rows, data=st.data())
    def add(self, rows: list[int], data: st.DataObject) -> None:
        n = len(rows)
        numbers = self.small | st.sampled_from([LEAST, MOST])
        given = data.draw(st.lists(numbers, min_size=n, max_size=n))
        expected = []
        for row, value in zip(rows, given, strict=True):
            expected.append(self.keys[row] not in self.model)
            self.model.setdefault(self.keys[row], []).append(value)
        assert self.multimap.add(self.pool[rows], given).tolist() == expected

    @rule(rows=rows)
    def delete(self, rows: list[int]) -> None:
        expected = [self.model.pop(self.keys[row], None) is not None for row in rows]
        assert self.multimap.delete(self.pool[rows]).tolist() == expected

    @rule(pairs=st.lists(st.tuples(st.integers(0, POOL - 1), small), max_size=60))
    def remove(self, pairs: list[tuple[int, int]]) -> None:
        expected = []
        for row, value in pairs:
            held = self.model.get(self.keys[row], [])
            expected.append(value in held)
            left = [other for other in held if other != value]
            if left:
                self.model[self.keys[row]] = left
            else:
                self.model.pop(self.keys[row], None)
        rows, given = [row for row, _ in pairs], [value for _, value in pairs]
        assert self.multimap.remove(self.pool[rows], given).tolist() == expected

    @rule()
    def compact(self) -> None:
        self.multimap.compact()

    @rule()
    def clear(self) -> None:
        self.multimap.clear()
        self.model.clear()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "multimap"):
            return
        multimap, model = self.multimap, self.model
        multimap.check()
        assert len(multimap) == sum(map(len, model.values()))
        assert flat(multimap, self.pool) == [model.get(key, []) for key in self.keys]
        assert multimap.count(self.pool).tolist() == [len(model.get(key, [])) for key in self.keys]
        assert multimap.contains(self.pool).tolist() == [key in model for key in self.keys]
        assert {key: found.tolist() for key, found in multimap.items()} == model
        assert {row.tobytes() for row in multimap.digests} == set(model)


@pytest.mark.usefixtures("on_kernels")
def test_random_operations_agree_with_a_dict_of_lists() -> None:
    run_state_machine_as_test(
        MultimapMachine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None)
    )


@pytest.mark.usefixtures("on_kernels")
def test_many_pairs_in_many_batches() -> None:
    random = np.random.default_rng(2)
    pool = random_digests(3000)
    owners = np.concatenate([random.integers(0, 3000, 40_000), np.zeros(5000, np.int64)])
    random.shuffle(owners)
    multimap = DigestMultimap(8)
    new: list[bool] = []
    for part in np.array_split(np.arange(45_000), 50):
        new.extend(multimap.add(pool[owners[part]], part).tolist())
    multimap.check()
    assert sum(new) == len(np.unique(owners))
    order = np.argsort(owners, kind="stable")
    offsets, found = multimap.find(pool)
    assert np.array_equal(found, order)
    assert np.array_equal(np.diff(offsets), np.bincount(owners, minlength=3000))
    assert multimap.statistics().longest == np.bincount(owners).max()


@pytest.mark.usefixtures("on_kernels")
def test_memory_comes_back_after_churn() -> None:
    random = np.random.default_rng(3)
    owners, pool = np.repeat(np.arange(4000), 5), random_digests(4000, 16)
    multimap = DigestMultimap(16, seed=1)
    multimap.add(pool[owners], np.arange(len(owners)))
    fresh = multimap.nbytes
    largest = 0
    for _ in range(12):
        half = np.flatnonzero(np.isin(owners, random.permutation(4000)[:2000]))
        assert multimap.delete(pool[np.unique(owners[half])]).all()
        multimap.add(pool[owners[half]], half)
        pairs = random.permutation(len(owners))[: len(owners) // 2]
        assert multimap.remove(pool[owners[pairs]], pairs).all()
        multimap.add(pool[owners[pairs]], pairs)
        largest = max(largest, multimap.nbytes)
    multimap.check()
    assert sorted(multimap.find(pool)[1].tolist()) == list(range(len(owners)))
    assert largest <= 1.6 * fresh
    assert multimap.delete(pool[20:]).all()
    multimap.check()
    assert multimap.nbytes < fresh / 20
    assert len(multimap) == 100
    multimap.clear()
    assert not multimap
    multimap.check()


def test_views_of_what_was_found_stay() -> None:
    digests = random_digests(100)
    multimap = DigestMultimap(8)
    multimap.add(digests, np.arange(100))
    offsets, found = multimap.find(digests)
    items = multimap.items()
    multimap.clear()
    assert found.tolist() == list(range(100))
    assert offsets.tolist() == list(range(101))
    assert list(items) == []


def test_one_digest_at_a_time() -> None:
    one, two = b"12345678", b"abcdefgh"
    multimap = DigestMultimap(8)
    multimap.add(np.frombuffer(one + two + one, np.uint8).reshape(3, 8), [1, -1, 1])
    assert multimap[one].tolist() == [1, 1]
    assert multimap[two].tolist() == [-1]
    assert one in multimap
    assert bytes(8) not in multimap
    assert b"short" not in multimap
    with pytest.raises(KeyError):
        multimap[bytes(8)]
    with pytest.raises(ValueError, match="8 bytes"):
        multimap[b"short"]
    with pytest.raises(TypeError, match="bytes"):
        multimap[0]  # type: ignore[index] # what is refused is the type
    with pytest.raises(TypeError, match="bytes"):
        list(multimap)  # type: ignore[call-overload] # pairs or digests? `items` and `digests` say
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="add them to a new one"):
            copying(multimap)


@pytest.mark.parametrize(
    ("digests", "given", "error", "says"),
    [
        (np.zeros((2, 9), np.uint8), [1, 2], ValueError, r"\(n, 8\)"),
        (np.zeros(8, np.uint8), [1], ValueError, r"\(n, 8\)"),
        (np.zeros((1, 8), np.int8), [1], TypeError, "uint8"),
        (None, [1], TypeError, "uint8"),
        (np.zeros((2, 8), np.uint8), [1], ValueError, r"\(2,\)"),
        (np.zeros((2, 8), np.uint8), [1, 2.5], TypeError, "position 0|position 1"),
        (np.zeros((2, 8), np.uint8), [1, 2**63], ValueError, "position 1"),
        (np.zeros((2, 8), np.uint8), ["1", "2"], TypeError, "integers"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    digests: Any, given: Any, error: type[Exception], says: str
) -> None:
    multimap = DigestMultimap(8)
    multimap.add(np.zeros((1, 8), np.uint8), [7])
    for call in (multimap.add, multimap.remove):
        with pytest.raises(error, match=says):
            call(digests, given)
    if "n, 8" in says or "uint8" in says:
        for search in (multimap.find, multimap.count, multimap.contains, multimap.delete):
            with pytest.raises(error, match=says):
                search(digests)
    multimap.check()
    assert flat(multimap, np.zeros((1, 8), np.uint8)) == [[7]]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"width": 7}, ValueError),
        ({"width": 8.0}, TypeError),
        ({"seed": -1}, ValueError),
        ({"capacity": -1}, ValueError),
        ({"capacity": 1.5}, TypeError),
        ({"capacity": 2**63}, ValueError),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        DigestMultimap(**options)


# ------------------------------------------------------------------------ changes cut short


class Interrupted(Exception):
    pass


STEPS = [
    (multi.ChainingTable, "intern"), (multi.ChainingTable, "insert"),
    (multi.ChainingTable, "delete"), (values.ValueChains, "append"),
    (values.ValueChains, "forget"), (values.ValueChains, "replace"),
    (values.ValueChains, "make_room"), (values.ValueChains, "together"),
    (values.ValueChains, "settle"),
]  # fmt: skip


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda step: str(step).split(".")[-1])
def test_a_change_cut_short_is_there_or_not(
    owner: type, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of each change raises once, before it began or after it was done."""
    pool, run = random_digests(60), getattr(owner, step)
    for change in ("add", "delete", "remove", "compact"):
        multimap = DigestMultimap(8)
        owners = np.repeat(np.arange(60), 3)[:160]
        multimap.add(pool[owners], np.arange(160))
        multimap.delete(pool[:15])
        multimap.remove(pool[owners], np.arange(0, 480, 3))
        before = {key: found.tolist() for key, found in multimap.items()}
        batch = pool[np.arange(100) % 60]
        arguments = {
            "add": (batch, np.arange(1000, 1100)), "delete": (pool[10:50],),
            "remove": (pool[owners], np.arange(160)), "compact": (),
        }[change]  # fmt: skip

        def once(*given: Any, **named: Any) -> Any:
            monkeypatch.setattr(owner, step, run)
            if after:
                run(*given, **named)
            raise Interrupted

        monkeypatch.setattr(owner, step, once)
        with suppress(Interrupted):
            getattr(multimap, change)(*arguments)
        monkeypatch.setattr(owner, step, run)
        found = {key: found.tolist() for key, found in multimap.items()}
        multimap.check()
        if found != before:
            twin = DigestMultimap(8)
            for key, held in before.items():
                one = np.frombuffer(key * len(held), np.uint8).reshape(-1, 8)
                twin.add(one, held)
            getattr(twin, change)(*arguments)
            assert found == {key: held.tolist() for key, held in twin.items()}
        multimap.add(pool, np.arange(60))  # and it goes on
        multimap.check()


@pytest.mark.usefixtures("on_kernels")
def test_without_memory_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = random_digests(5000)
    multimap = DigestMultimap(8)
    multimap.add(pool[:100], np.arange(100))
    resize = values.Column.resize

    def exhausted(column: Any, capacity: int) -> None:
        raise hashmem.TableFullError("no memory")

    for column in (multimap._chains._nodes, multimap._chains._chains):
        monkeypatch.setattr(
            values.Column,
            "resize",
            lambda self, size, column=column: (exhausted if self is column else resize)(self, size),
        )
        with pytest.raises(hashmem.TableFullError):
            multimap.add(pool, np.arange(5000))
        monkeypatch.setattr(values.Column, "resize", resize)
        multimap.check()
        assert flat(multimap, pool[:101]) == [*([i] for i in range(100)), []]
    with pytest.raises(MemoryError):
        DigestMultimap(8, capacity=1 << 40)
    multimap.add(pool, np.arange(5000))
    assert len(multimap) == 5100


# ------------------------------------------------------------------------------- the kernels


@pytest.fixture(scope="module")
def native() -> ModuleType:
    if "native" not in kernels.available:
        pytest.skip("the compiled kernels are not there")
    from hashmem.kernels import _native

    return _native


hostile = st.sampled_from([LEAST, -1, 0, 1, 5, 6, 7, 2**40, MOST])
numbers = st.integers(0, 8) | hostile


def outcome(module: ModuleType, name: str, arrays: list[np.ndarray], *rest: int) -> Any:
    copies = [array.copy() for array in arrays]
    try:
        getattr(module, name)(*copies, *rest)
    except ValueError:
        return "refused", None
    return "done", [array.tolist() for array in copies]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_kernels_agree_on_hostile_chains(native: ModuleType, data: st.DataObject) -> None:
    def drawn(rows: int, columns: int) -> np.ndarray:
        flat = st.lists(numbers, min_size=rows * columns, max_size=rows * columns)
        return np.array(data.draw(flat), np.int64).reshape(rows, columns)

    chains, nodes = drawn(data.draw(st.integers(0, 7)), 3), drawn(data.draw(st.integers(0, 9)), 2)
    n = data.draw(st.integers(0, 6))
    ids = drawn(n, 1).ravel()
    appended = [chains, nodes, ids, drawn(data.draw(st.sampled_from([n, n, n, n + 1])), 1).ravel()]
    first = data.draw(numbers)
    answers = [outcome(m, "multimap_append", appended, first) for m in (reference, native)]
    # Not where the order shows in which values are appended: of equal ids, a hostile count may wrap
    # in between; a hostile tail may be one of the nodes that are written.
    ordered = len(set(ids.tolist())) < n or (chains[:, TAIL] >= first).any()
    if "refused" not in (answers[0][0], answers[1][0]) and not ordered:
        assert answers[0] == answers[1]
    gathered = [chains, nodes, ids, np.sort(drawn(n + 1, 1).ravel()), np.zeros(9, np.int64)]
    answers = [outcome(m, "multimap_gather", gathered) for m in (reference, native)]
    assert answers[0] == answers[1]


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 6), max_size=80), max_size=5))
def test_the_kernels_build_the_same_chains(native: ModuleType, batches: list[list[int]]) -> None:
    states = [
        (np.zeros((7, 3), np.int64), np.zeros((400, 2), np.int64)) for _ in (reference, native)
    ]
    expected: dict[int, list[int]] = {}
    first = 0
    for batch in batches:
        ids, given = np.array(batch, np.int64), np.arange(first, first + len(batch)) * 7
        for module, (chains, nodes) in zip((reference, native), states, strict=True):
            module.multimap_append(chains, nodes, ids, given, first)
        for chain, value in zip(batch, given.tolist(), strict=True):
            expected.setdefault(chain, []).append(value)
        first += len(batch)
    assert np.array_equal(states[0][0], states[1][0])
    assert np.array_equal(states[0][1], states[1][1])
    offsets = np.append(0, np.cumsum(states[0][0][:, 2]))
    for module, (chains, nodes) in zip((reference, native), states, strict=True):
        out = np.empty(offsets[-1], np.int64)
        module.multimap_gather(chains, nodes, np.arange(7), offsets, out)
        parts = [part.tolist() for part in np.split(out, offsets[1:-1])]
        assert parts == [expected.get(chain, []) for chain in range(7)]


def test_sizes_that_lie_are_refused() -> None:
    chains, nodes = np.zeros((3, 3), np.int64), np.zeros((4, 2), np.int64)
    two, three = np.zeros(2, np.int64), np.zeros(3, np.int64)
    for name in kernels.available:
        module = reference if name == "reference" else kernels._native
        for call in (
            lambda m: m.multimap_append(chains, nodes, two, three, 0),
            lambda m: m.multimap_append(chains, nodes, two, two, 3),
            lambda m: m.multimap_append(chains, nodes, two, two, -1),
            lambda m: m.multimap_append(chains, nodes, two + 3, two, 0),
            lambda m: m.multimap_gather(chains, nodes, two, two, three),
            lambda m: m.multimap_gather(chains, nodes, two, np.array([0, 1, 2]), three),
            lambda m: m.multimap_gather(chains, nodes, two, np.array([0, -1, 0]), three),
        ):
            with pytest.raises(ValueError):
                call(module)
        assert not chains.any()


def test_damage_is_found() -> None:
    digests = random_digests(20)

    def damaged(column: str, at: tuple[int, int], value: int) -> DigestMultimap:
        multimap = DigestMultimap(8)
        multimap.add(digests[np.arange(60) % 20], np.arange(60))
        getattr(multimap._chains, column).rows[at] = value
        return multimap

    for column, at, value in [
        ("_chains", (3, 0), 0), ("_chains", (3, 0), -1), ("_chains", (3, 1), 2),
        ("_chains", (3, 2), 2), ("_chains", (3, 2), 0), ("_chains", (3, 2), 4),
        ("_nodes", (3, 0), 5), ("_nodes", (3, 0), 60), ("_nodes", (23, 0), -1),
    ]:  # fmt: skip
        with pytest.raises(hashmem.CorruptStoreError, match="ValueChains"):
            damaged(column, at, value).check()
    sound = damaged("_nodes", (59, 0), 7)  # behind a tail
    sound.check()
    sound._chains.used = 19
    with pytest.raises(hashmem.CorruptStoreError, match="leads to no chain"):
        sound.check()
