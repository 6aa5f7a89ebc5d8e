"""The contract of a `hashmem.tables.DigestTable`, to be run on any implementation.

    class TestMyTable(TableContract):
        def make(self, width, **options):
            return MyTable(width, **options)

Every test gives the table digests that a poor hash would not spread, and compares it with a dict.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from hashmem.tables import DigestTable

__all__ = ["TableContract", "TableMachine", "digest_pools"]

Digests = NDArray[np.uint8]  # (n, width)

WIDTHS = st.sampled_from([8, 9, 12, 15, 16, 20, 31, 32, 33, 48, 63, 64])
KINDS = ["random", "first bytes equal", "last bytes equal", "one byte differs", "counters"]
BATCHES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


@st.composite
def digest_pools(draw: st.DrawFn, width: int, size: int = 300) -> Digests:
    """Draw `size` digests (size, width), not all distinct, of a kind that weak hashes stumble over.

    The first is all zeros, the second all ones.
    """
    kind = draw(st.sampled_from(KINDS))
    pool = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(
        0, 256, (size, width), dtype=np.uint8
    )
    if kind == "first bytes equal":
        pool[:, : width - 3] = pool[0, : width - 3]
    elif kind == "last bytes equal":
        pool[:, 3:] = pool[0, 3:]
    elif kind == "one byte differs":
        differing = pool[:, 0].copy(), pool[:, 1] % width
        pool[:] = pool[0]
        pool[np.arange(size), differing[1]] = differing[0]
    elif kind == "counters":
        pool[:] = 0
        pool[:, :2] = np.arange(size, dtype="<u2").view(np.uint8).reshape(-1, 2)
    pool[0], pool[1] = 0, 255
    return pool


def _keys(digests: Digests) -> list[bytes]:
    return [row.tobytes() for row in digests]


class TableMachine(RuleBasedStateMachine):
    """Random batches on a table and on a dict; `make(width)` gives the table."""

    make: Callable[[int], DigestTable]

    @initialize(data=st.data(), width=WIDTHS)
    def start(self, data: st.DataObject, width: int) -> None:
        self.pool = data.draw(digest_pools(width))
        self.table = type(self).make(width)
        self.model: dict[bytes, int] = {}
        self.steps = 0

    batches = st.lists(st.integers(0, 299), max_size=120)

    @rule(rows=batches, first=st.integers(-(2**63), 2**63 - 121))
    def insert(self, rows: list[int], first: int) -> None:
        digests, values = self.pool[rows], np.arange(first, first + len(rows), dtype=np.int64)
        expected = []
        for key, value in zip(_keys(digests), values.tolist(), strict=True):
            expected.append(key not in self.model)
            self.model[key] = value
        assert self.table.insert(digests, values).tolist() == expected

    @rule(rows=batches, first=st.integers(-1000, 1000))
    def intern(self, rows: list[int], first: int) -> None:
        digests, following, expected = self.pool[rows], first, []
        for key in _keys(digests):
            expected.append(key not in self.model)
            if expected[-1]:
                self.model[key], following = following, following + 1
        values, new = self.table.intern(digests, first)
        assert new.tolist() == expected
        assert values.tolist() == [self.model[key] for key in _keys(digests)]

    @rule(rows=batches)
    def delete(self, rows: list[int]) -> None:
        digests = self.pool[rows]
        expected = [self.model.pop(key, None) is not None for key in _keys(digests)]
        assert self.table.delete(digests).tolist() == expected

    @rule(below=st.integers(0, 300))
    def delete_many(self, below: int) -> None:
        self.delete(list(range(below)))

    @rule(row=st.integers(0, 299), value=st.integers(-(2**63), 2**63 - 1))
    def set_one(self, row: int, value: int) -> None:
        key = self.pool[row].tobytes()
        self.table[key] = self.model[key] = value

    @rule(rooms=st.integers(0, 2000))
    def reserve(self, rooms: int) -> None:
        self.table.reserve(rooms)

    @rule()
    def compact(self) -> None:
        self.table.compact()

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        self.table.check()
        assert len(self.table) == len(self.model)
        keys = _keys(self.pool)
        assert self.table.find(self.pool).tolist() == [self.model.get(key, -1) for key in keys]
        assert self.table.contains(self.pool).tolist() == [key in self.model for key in keys]
        entries = zip(_keys(self.table.digests), self.table.values_array.tolist(), strict=True)
        assert dict(entries) == self.model


class TableContract:
    """What every table keeps. Override `make`."""

    machine = TableMachine
    examples = 25  # runs of the random operations

    def make(self, width: int, **options: Any) -> DigestTable:
        raise NotImplementedError("override `make` with the table under test")

    def test_random_operations_agree_with_a_dict(self) -> None:
        class Machine(self.machine):  # type: ignore[name-defined,misc] # a class made from a value
            make = staticmethod(self.make)

        run_state_machine_as_test(
            Machine,
            settings=settings(max_examples=self.examples, stateful_step_count=15, deadline=None),
        )

    @BATCHES
    @given(data=st.data(), width=WIDTHS)
    def test_growing_batch_by_batch_equals_one_batch(self, data: st.DataObject, width: int) -> None:
        pool = data.draw(digest_pools(width, size=2000))
        values = np.arange(len(pool))
        at_once, in_parts = self.make(width), self.make(width)
        new = at_once.insert(pool, values)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(pool)), max_size=8)))
        parts = [
            in_parts.insert(pool[start:stop], values[start:stop])
            for start, stop in zip([0, *cuts], [*cuts, len(pool)], strict=True)
        ]
        assert np.array_equal(np.concatenate(parts), new)
        assert np.array_equal(at_once.digests, in_parts.digests)
        assert np.array_equal(at_once.values_array, in_parts.values_array)
        at_once.check()
        in_parts.check()

    @BATCHES
    @given(data=st.data(), width=WIDTHS)
    def test_entries_keep_the_order_of_insertion(self, data: st.DataObject, width: int) -> None:
        pool = data.draw(digest_pools(width))
        table = self.make(width)
        table.intern(pool, first=0)
        assert list(table) == list(dict.fromkeys(_keys(pool)))
        assert list(table.items()) == [(key, i) for i, key in enumerate(table)]
        assert table.values_array.tolist() == list(range(len(table)))

    def test_is_a_mutable_mapping(self) -> None:
        table = self.make(8)
        one, two = b"12345678", b"abcdefgh"
        table[one] = 1
        table.update({two: -1})
        assert (table[one], table[two], table.get(bytes(8)), len(table)) == (1, -1, None, 2)
        assert one in table
        assert two in table
        assert bytes(8) not in table
        assert b"too long for this table" not in table
        number: object = 17
        assert number not in table
        assert table == {one: 1, two: -1}
        assert table.pop(one) == 1
        assert table.setdefault(one, 5) == 5
        del table[two]
        assert sorted(table.items()) == [(one, 5)]
        for missing in (table.__getitem__, table.__delitem__):
            with pytest.raises(KeyError):
                missing(two)
        with pytest.raises(ValueError, match="8 bytes"):
            table[b"short"]
        with pytest.raises(TypeError, match="bytes"):
            table["12345678"]  # type: ignore[index] # what is refused is the type
        keys = iter(table)
        next(keys)
        table[two] = 3
        with pytest.raises(RuntimeError, match="during iteration"):
            next(keys)

    def test_a_stored_minus_one_is_no_miss(self) -> None:
        table = self.make(8)
        digests = np.arange(24, dtype=np.uint8).reshape(3, 8)
        table.insert(digests[:2], [-1, 0])
        assert table.find(digests).tolist() == [-1, 0, -1]
        assert table.contains(digests).tolist() == [True, True, False]

    def test_takes_empty_and_strided_batches(self) -> None:
        table = self.make(8)
        nothing = np.zeros((0, 8), np.uint8)
        assert table.insert(nothing, []).shape == (0,)
        assert table.find(nothing).shape == (0,)
        assert table.delete(nothing).shape == (0,)
        assert table.intern(nothing, 0)[0].shape == (0,)
        wide = np.random.default_rng(3).integers(0, 256, (100, 20), dtype=np.uint8)
        strided = wide[::2, 3:11]
        table.insert(strided, np.arange(100, dtype=np.int32)[::2])
        assert table.find(strided).tolist() == list(range(0, 100, 2))
        assert table.find(np.asfortranarray(strided)).tolist() == list(range(0, 100, 2))

    @pytest.mark.parametrize(
        ("digests", "error", "says"),
        [
            (np.zeros((2, 9), np.uint8), ValueError, r"\(n, 8\).*\(2, 9\)"),
            (np.zeros(8, np.uint8), ValueError, r"\(n, 8\).*\(8,\)"),
            (np.zeros((1, 1, 8), np.uint8), ValueError, r"\(n, 8\)"),
            (np.zeros((2, 8), np.int8), TypeError, "uint8.*int8"),
            (np.zeros((2, 8)), TypeError, "float64"),
            ([b"12345678"], TypeError, "uint8"),
            (None, TypeError, "uint8"),
        ],
    )
    def test_refuses_other_digests(self, digests: Any, error: type[Exception], says: str) -> None:
        table = self.make(8)
        table[b"12345678"] = 5
        for call in (
            table.find,
            table.contains,
            table.delete,
            lambda d: table.insert(d, [1, 2]),
            lambda d: table.intern(d, 0),
        ):
            with pytest.raises(error, match=says):
                call(digests)
        assert dict(table) == {b"12345678": 5}

    @pytest.mark.parametrize(
        ("values", "error", "says"),
        [
            ([1], ValueError, r"\(2,\).*\(1,\)"),
            ([[1, 2]], ValueError, r"\(2,\)"),
            ([1.0, 2.0], TypeError, "position 0.*float"),
            (np.array([1.0, 2.0]), TypeError, "float64"),
            (["1", "2"], TypeError, "integers"),
            ([True, False], TypeError, "bool"),
            ([1, None], TypeError, "position 1"),
            ([0, 2**63], ValueError, "position 1"),
            ([0, 2**64], ValueError, "position 1"),
            ([-(2**63) - 1, 0], ValueError, "position 0"),
            (np.array([0, 2**63], np.uint64), ValueError, "position 1"),
        ],
    )
    def test_refuses_other_values(self, values: Any, error: type[Exception], says: str) -> None:
        table = self.make(8)
        table[b"12345678"] = 5
        digests = np.arange(16, dtype=np.uint8).reshape(2, 8)
        with pytest.raises(error, match=says):
            table.insert(digests, values)
        assert dict(table) == {b"12345678": 5}

    def test_keeps_values_at_the_ends_of_int64(self) -> None:
        table = self.make(8)
        digests = np.arange(24, dtype=np.uint8).reshape(3, 8)
        table.insert(digests, np.array([2**63 - 1, 0, 1], np.uint64))
        assert table.find(digests).tolist() == [2**63 - 1, 0, 1]
        table.insert(digests[:1], [-(2**63)])
        assert table[digests[0].tobytes()] == -(2**63)
        assert table.intern(digests[1:], 2**63 - 3)[0].tolist() == [0, 1]
        with pytest.raises(ValueError, match="first must be"):
            table.intern(digests, 2**63 - 3)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"width": 7}, ValueError),
            ({"width": 65}, ValueError),
            ({"width": 8.0}, TypeError),
            ({"seed": -1}, ValueError),
            ({"seed": 2**128}, ValueError),
            ({"seed": "1"}, TypeError),
            ({"max_load": 0}, ValueError),
            ({"max_load": float("nan")}, ValueError),
            ({"max_load": 100}, ValueError),
            ({"capacity": -1}, ValueError),
            ({"capacity": 2**63}, ValueError),
        ],
    )
    def test_refuses_other_options(self, options: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(options))):
            self.make(**{"width": 8, **options})

    def test_what_it_shows_is_read_only(self) -> None:
        table = self.make(8)
        table[b"12345678"] = 5
        for array in (table.digests, table.values_array):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    def test_a_view_outlives_what_happens_to_the_table(self) -> None:
        table = self.make(32, seed=1)
        rng = np.random.default_rng(5)
        digests = rng.integers(0, 256, (60_000, 32), dtype=np.uint8)
        table.insert(digests[:40_000], np.arange(40_000))
        view, values = table.digests, table.values_array
        table.insert(digests[40_000:], np.arange(20_000))
        assert np.array_equal(view, digests[:40_000])
        assert np.array_equal(values, np.arange(40_000))
        table.clear()
        assert view.shape == (40_000, 32)
        assert int(view.sum()) == int(digests[:40_000].sum())

    def test_memory_comes_back_after_churn(self) -> None:
        rng = np.random.default_rng(1)
        digests = rng.integers(0, 256, (20_000, 16), dtype=np.uint8)
        fresh = self.make(16, seed=1)
        fresh.insert(digests, np.arange(len(digests)))
        table = self.make(16, seed=1)
        table.insert(digests, np.arange(len(digests)))
        for _ in range(10):
            half = rng.permutation(len(digests))[: len(digests) // 2]
            assert table.delete(digests[half]).all()
            assert table.insert(digests[half], half).all()
        table.check()
        assert np.array_equal(table.find(digests), np.arange(len(digests)))
        assert table.nbytes <= 1.25 * fresh.nbytes
        assert table.statistics().miss_mean <= 1.1 * fresh.statistics().miss_mean
        assert table.delete(digests[100:]).all()
        table.check()
        assert table.nbytes <= fresh.nbytes / 20
        assert np.array_equal(table.find(digests[:100]), np.arange(100))

    def test_probes_are_as_long_as_theory_says(self) -> None:
        """Also for digests that agree in all but two bytes."""
        digests = np.zeros((30_000, 32), np.uint8)
        digests[:, 30:] = np.arange(30_000, dtype="<u2").view(np.uint8).reshape(-1, 2)
        table = self.make(32, seed=7)
        table.insert(digests, np.arange(len(digests)))
        found = table.statistics()
        assert found.entries == len(table) == int(found.hit_probes.sum())
        assert found.reseeds == 0
        assert found.hit_mean == pytest.approx(found.hit_mean_expected, rel=0.03)
        assert found.miss_mean == pytest.approx(found.miss_mean_expected, rel=0.08)

    def test_the_same_seed_gives_the_same_table(self) -> None:
        tables = [self.make(8, seed=3), self.make(8, seed=3)]
        digests = np.random.default_rng(0).integers(0, 256, (1000, 8), dtype=np.uint8)
        for table in tables:
            table.insert(digests, np.arange(1000))
            assert table.seed == 3
        first, second = (table.statistics() for table in tables)
        assert first.longest == second.longest
        assert np.array_equal(first.hit_probes, second.hit_probes)
        assert self.make(8).seed != self.make(8).seed

    def test_reserving_leaves_nothing_to_grow(self) -> None:
        digests = np.random.default_rng(0).integers(0, 256, (5000, 8), dtype=np.uint8)
        for table in (self.make(8, capacity=5000), self.make(8)):
            table.reserve(5000)
            before = table.nbytes
            table.insert(digests, np.arange(5000))
            assert table.nbytes == before
            table.check()
