"""The contract of a `hashmem.tables.DigestTable`, to be run on any implementation.

    class TestMyTable(TableContract):
        def make(self, width, **options):
            return MyTable(width, **options)

Every test gives the table digests that a poor hash would not spread, and compares it with a dict.
"""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from hashmem.errors import DigestExistsError
from hashmem.tables import DigestTable
from hashmem.testing.strategies import Digests, digest_pools
from hashmem.testing.table_machine import TableMachine

__all__ = ["TableContract"]

BATCHES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)
WIDTHS = st.sampled_from(TableMachine.widths)


def _keys(digests: Digests) -> list[bytes]:
    return [row.tobytes() for row in digests]


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

    @BATCHES
    @given(data=st.data(), width=WIDTHS, mode=st.sampled_from(["last", "first", "error"]))
    def test_modes_say_which_value_stays(
        self, data: st.DataObject, width: int, mode: Literal["last", "first", "error"]
    ) -> None:
        pool = data.draw(digest_pools(width, size=30))
        table, model = self.make(width), dict[bytes, int]()
        rows = st.lists(st.integers(0, len(pool) - 1), max_size=12)
        for number, places in enumerate(data.draw(st.lists(rows, max_size=5))):
            batch, values = pool[places], 100 * number + np.arange(len(places))
            keys = _keys(batch)
            news = [key not in model and key not in keys[:i] for i, key in enumerate(keys)]
            if mode == "error" and not all(news):
                with pytest.raises(DigestExistsError, match=f"position {news.index(False)}"):
                    table.insert(batch, values, mode=mode)
            else:
                assert table.insert(batch, values, mode=mode).tolist() == news
                for key, value in zip(keys, values.tolist(), strict=True):
                    model[key] = model.get(key, value) if mode == "first" else value
            assert dict(table.items()) == model
        with pytest.raises(ValueError, match="mode"):
            table.insert(pool[:1], [1], mode="none")  # type: ignore[arg-type] # is refused

    def test_what_is_popped_is_gone(self) -> None:
        table = self.make(8)
        digests = np.arange(32, dtype=np.uint8).reshape(4, 8)
        table.insert(digests[:3], [5, -1, 7])
        values, removed = table.pop_many(digests[[0, 3, 1, 0]])
        assert values.tolist() == [5, -1, -1, -1]
        assert removed.tolist() == [True, False, True, False]
        assert dict(table) == {digests[2].tobytes(): 7}
        table.check()

    def test_an_update_is_made_whole_or_not_at_all(self) -> None:
        table, other = self.make(8), self.make(8)
        other.update([(b"12345678", 1), (b"abcdefgh", 2), (b"12345678", 3)])
        assert other == {b"12345678": 3, b"abcdefgh": 2}
        table.update(other)
        table.update({})
        table.update()
        for refused in ({b"87654321": 1, b"short": 2}, {b"87654321": 1, b"hgfedcba": 2**63}):
            with pytest.raises(ValueError, match=r"8 bytes|position 1"):
                table.update(refused)
        assert table == other
        assert list(table.values()) == [3, 2]
        assert list(table.items()) == list(zip(table, table.values(), strict=True))

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
