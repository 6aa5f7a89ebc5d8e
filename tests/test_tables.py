"""Both tables against the contract, on both kernels; and what only these tables promise."""

import copy
import doctest
import mmap
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import numpy as np
import pytest

import hashmem
from hashmem import kernels
from hashmem.kernels.reference.chaining import links_of
from hashmem.kernels.reference.hashing import SUM_KEYS, bucket_of, expand_keys, hash_digests
from hashmem.kernels.reference.open_addressing import tag_of
from hashmem.tables import (
    ChainingTable,
    DigestTable,
    OpenAddressingTable,
    base,
    chaining,
    index,
    memory,
)
from hashmem.tables.arguments import as_values
from hashmem.tables.statistics import two_choice_theory
from hashmem.testing import TableContract, TableMachine

TABLES = [OpenAddressingTable, ChainingTable]


@pytest.fixture(params=["native", "reference"])
def on_kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in kernels.available:
        pytest.skip("the compiled kernels are not there")
    before = kernels.active
    kernels.select(request.param)
    yield request.param
    kernels.select(before)


class AlternatingMachine(TableMachine):
    """Changes the kernels between operations: both must work on the same bytes."""

    def agrees(self) -> None:
        if hasattr(self, "table"):
            self.steps += 1
            kernels.select(kernels.available[self.steps % len(kernels.available)])
        super().agrees()

    def teardown(self) -> None:
        kernels.select(kernels.available[0])


@pytest.mark.usefixtures("on_kernels")
class TestOpenAddressing(TableContract):
    def make(self, width: int, **options: Any) -> DigestTable:
        return OpenAddressingTable(width, **options)


@pytest.mark.usefixtures("on_kernels")
class TestChaining(TableContract):
    def make(self, width: int, **options: Any) -> DigestTable:
        return ChainingTable(width, **options)


@pytest.mark.parametrize("kind", TABLES)
def test_kernels_may_alternate_on_one_table(kind: type[DigestTable]) -> None:
    if len(kernels.available) < 2:
        pytest.skip("the compiled kernels are not there")
    before = kernels.active

    class Alternating(TableContract):
        machine = AlternatingMachine
        examples = 40

        def make(self, width: int, **options: Any) -> DigestTable:
            return kind(width, **options)

    Alternating().test_random_operations_agree_with_a_dict()
    kernels.select(before)


def random_digests(n: int, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)


def ground_digests(keys: np.ndarray, buckets: int, wanted: int) -> np.ndarray:
    """Digests (wanted, 8) whose hash under `keys` leads to the first of `buckets` buckets."""
    candidates = np.arange(3 * wanted * buckets, dtype="<u8").view(np.uint8).reshape(-1, 8)
    chosen = candidates[bucket_of(hash_digests(candidates, keys), buckets) == 0]
    return chosen[:wanted]


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
def test_kernels_stop_at_the_first_new_digest_where_room_is_below_the_count(
    kind: type[DigestTable],
) -> None:
    digests = random_digests(20, 8)
    table = kind(8)
    table.insert(digests[:10], np.arange(10))
    batch, values, new = digests[[3, 4, 12, 5, 13]], np.arange(5), np.zeros(5, np.bool_)
    assert table._kernel("insert", 7, 64, batch, values, new, False)[:2] == (2, 10)
    assert table._kernel("intern", 7, 64, batch, values, new, 0)[:2] == (2, 10)
    table.check()


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
def test_batches_may_lie_anywhere_in_memory(kind: type[DigestTable]) -> None:
    digests, values = random_digests(1000, 8), np.arange(1000)
    askew = np.frombuffer(b"." + values.tobytes(), np.int64, offset=1)
    assert not askew.flags.aligned
    assert as_values(askew, 1000).flags.aligned
    table = kind(8)
    table.insert(np.frombuffer(b"." + digests.tobytes(), np.uint8, offset=1).reshape(-1, 8), askew)
    assert np.array_equal(table.find(digests), values)


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("present", [0, 5])
def test_the_bounds_of_first_hold_whatever_is_there(kind: type[DigestTable], present: int) -> None:
    digests = random_digests(7, 8)
    lowest, highest = -(2**63) + 2**33, 2**63 - 3
    for first in (lowest, highest):
        table = kind(8)
        table.insert(digests[:present], np.arange(present))
        for beyond in (-(2**63), lowest - 2**33, highest + 1):
            with pytest.raises(ValueError, match="first must be"):
                table.intern(digests[5:], beyond)
        assert table.intern(digests[5:], first)[0].tolist() == [first, first + 1]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("at", ["start", "later"])
def test_reserved_room_stays_until_it_is_given_back(
    kind: type[DigestTable], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = kind(8, capacity=200_000 if at == "start" else 0)
    table.reserve(200_000 if at == "later" else 10)
    rebuilt: list[int] = []
    rebuild = kind._rebuild
    monkeypatch.setattr(kind, "_rebuild", lambda *a: (rebuilt.append(1), rebuild(*a))[1])
    digests = random_digests(200_000, 8)
    for start in range(0, len(digests), 1000):
        table.insert(digests[start : start + 1000], np.arange(start, start + 1000))
    table.delete(digests[10:])
    table.insert(digests, np.arange(200_000))
    assert not rebuilt
    table.delete(digests[10:])
    reserved = table.nbytes
    table.compact()
    assert table.nbytes < reserved // 100
    table.reserve(200_000)
    table.clear()
    table.insert(digests[:10], np.arange(10))
    assert table.nbytes < reserved // 100


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
class TestHostileDigests:
    def test_a_known_seed_is_given_up_when_digests_are_ground_against_it(
        self, kind: type[DigestTable]
    ) -> None:
        digests = ground_digests(expand_keys(5), buckets=64, wanted=5000)
        table = kind(8, seed=5)
        assert table.insert(digests, np.arange(len(digests))).all()
        table.check()
        found = table.statistics()
        assert found.reseeds >= 1
        assert table.seed != 5
        assert found.hit_mean < 1.2 * found.hit_mean_expected
        assert np.array_equal(table.find(digests), np.arange(len(digests)))
        unground = kind(8, seed=6)
        unground.insert(digests, np.arange(len(digests)))
        assert unground.statistics().reseeds == 0

    def test_a_broken_hash_makes_a_table_slow_or_full_but_neither_wrong_nor_endless(
        self, kind: type[DigestTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Under keys of zero, digests with one word set all have the same hash.
        monkeypatch.setattr(index, "expand_keys", lambda seed: np.zeros(2 * SUM_KEYS, np.uint64))
        digests = np.zeros((1800, 8), np.uint8)
        digests[:, :2] = np.arange(1800, dtype="<u2").view(np.uint8).reshape(-1, 2)
        table = kind(8)
        if kind is OpenAddressingTable:  # two buckets hold no more
            assert table.insert(digests[:24], np.arange(24)).all()
            with pytest.raises(hashmem.TableFullError, match="under any seed"):
                table.insert(digests, np.arange(1800))
            digests = digests[:24]
        for start in range(0, len(digests), 300):
            part = digests[start : start + 300]
            table.insert(part, np.arange(start, start + len(part)))
        table.check()
        assert table.statistics().reseeds > index.TRIES
        assert np.array_equal(table.find(digests), np.arange(len(digests)))
        assert table.delete(digests[::2]).all()
        assert not table.delete(digests[::2]).any()
        table.check()
        assert np.array_equal(table.find(digests[1::2]), np.arange(1, len(digests), 2))
        assert (table.find(digests[::2]) == -1).all()

    def test_a_reseed_without_memory_leaves_every_entry_to_be_found(
        self, kind: type[DigestTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digests = random_digests(3000, 8)
        table = kind(8)
        table.insert(digests[:2000], np.arange(2000))

        def exhausted(size: int) -> np.ndarray:
            raise hashmem.TableFullError("no memory")

        call = table._kernel
        monkeypatch.setattr(sys.modules[kind.__module__], "zeros", exhausted)
        monkeypatch.setattr(
            table, "_kernel", lambda name, *a: (0, 2000, 0) if name == "insert" else call(name, *a)
        )
        with pytest.raises(hashmem.TableFullError, match="no memory"):
            table.insert(digests[2000:], np.arange(1000))
        monkeypatch.undo()
        table.check()
        assert np.array_equal(table.find(digests[:2000]), np.arange(2000))
        table.insert(digests, np.arange(3000))
        assert np.array_equal(table.find(digests), np.arange(3000))

    @pytest.mark.parametrize("batch", [1, 50, 10_000])
    @pytest.mark.parametrize("group", [3, 30, 10_000])
    def test_digests_that_agree_in_their_first_bytes_strengthen_the_hash(
        self, kind: type[DigestTable], group: int, batch: int
    ) -> None:
        if batch == 1 and kernels.active == "reference":
            pytest.skip("a thousand digests one by one take the reference kernels long")
        n = 10_000 if batch > 1 else 1000
        digests = random_digests(n, 32)
        digests[:, :8] = random_digests(n, 8, seed=1)[np.arange(n) // group]
        table = kind(32)
        for start in range(0, n, batch):
            stop = min(start + batch, n)
            assert table.insert(digests[start:stop], np.arange(start, stop)).all()
        table.check()
        found = table.statistics()
        assert (found.hashed, found.reseeds) == (32, 0)
        assert found.hit_mean == pytest.approx(found.hit_mean_expected, rel=0.05)
        assert found.longest < 20
        assert np.array_equal(table.find(digests), np.arange(n))

    def test_random_digests_are_hashed_by_their_first_bytes(self, kind: type[DigestTable]) -> None:
        table = kind(32)
        table.insert(random_digests(100_000), np.arange(100_000))
        for start in range(0, 2000, 2):
            table.insert(random_digests(2, seed=start + 1), [0, 1])
        assert table.statistics().hashed == 8

    def test_two_digests_with_one_hash_stay_two(
        self, kind: type[DigestTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(index, "expand_keys", lambda seed: np.zeros(2 * SUM_KEYS, np.uint64))
        digests = np.zeros((6, 8), np.uint8)
        digests[:, 0] = [3, 1, 2, 1, 3, 0]
        table = kind(8)
        values, new = table.intern(digests, first=10)
        assert values.tolist() == [10, 11, 12, 11, 10, 13]
        assert new.tolist() == [True, True, True, False, False, True]


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
class TestMemory:
    @pytest.fixture(autouse=True)
    def map_small_arrays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "MAPPED", 1 << 16)

    def test_growing_keeps_entries_and_views(self, kind: type[DigestTable]) -> None:
        digests = random_digests(300_000, 16)
        table, views = kind(16), []
        for start in range(0, len(digests), 20_000):
            table.insert(digests[start : start + 20_000], np.arange(start, start + 20_000))
            if start % 3 == 0:  # a view alive forces a copy; without one pages move
                views.append(table.digests)
        table.check()
        assert np.array_equal(table.digests, digests)
        assert np.array_equal(table.values_array, np.arange(len(digests)))
        for view in views:
            assert np.array_equal(view, digests[: len(view)])
        assert table.delete(digests[1000:]).all()
        table.check()
        assert np.array_equal(table.find(digests[:1000]), np.arange(1000))
        assert np.array_equal(views[-1][:1000], digests[:1000])

    def test_running_out_leaves_the_table_as_it_was(
        self, kind: type[DigestTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = kind(32)
        digests = random_digests(200_000)
        table.insert(digests[:30_000], np.arange(30_000))

        class Exhausted(mmap.mmap):
            def __new__(cls, *_: Any, **__: Any) -> "Exhausted":
                raise OSError(12, "Cannot allocate memory")

            def resize(self, newsize: int) -> None:
                raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(memory.mmap, "mmap", Exhausted)
        monkeypatch.setattr(memory.Column, "_move_pages", lambda *_: False)
        with pytest.raises(hashmem.TableFullError, match="no memory"):
            table.insert(digests, np.arange(len(digests)))
        with pytest.raises(MemoryError):
            table.reserve(10**7)
        table.check()
        assert np.array_equal(table.find(digests[:30_000]), np.arange(30_000))
        monkeypatch.undo()
        table.insert(digests, np.arange(len(digests)))
        assert np.array_equal(table.find(digests), np.arange(len(digests)))

    @pytest.mark.parametrize("step", ["insert", "delete"])
    def test_running_out_between_entries_and_index_leaves_them_alike(
        self, kind: type[DigestTable], step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = kind(8)
        digests = random_digests(60_000, 8)
        table.insert(digests[:50_000], np.arange(50_000))

        def exhausted(entries: int) -> None:
            raise hashmem.TableFullError("no memory")

        monkeypatch.setattr(table, "_make_index", exhausted)
        with suppress(hashmem.TableFullError):
            if step == "insert":
                table.insert(random_digests(200_000, 8, 1), np.zeros(200_000, np.int64))
            else:
                table.delete(digests[1000:])
        monkeypatch.undo()
        table.check()
        assert len(table) in (1000, 50_000)
        for start in range(0, 60_000, 1000):
            table.insert(digests[start : start + 1000], np.arange(start, start + 1000))
        table.check()
        assert np.array_equal(table.find(digests), np.arange(60_000))

    def test_a_child_process_has_its_own_copy(self, kind: type[DigestTable]) -> None:
        table = kind(32)
        digests = random_digests(50_000)
        table.insert(digests, np.arange(50_000))
        child = os.fork()
        if not child:
            table.insert(digests, np.zeros(50_000, np.int64))
            os._exit(int((table.find(digests) != 0).any()))
        assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(table.find(digests), np.arange(50_000))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_a_table_of_its_own(
    kind: type[DigestTable], copied: Callable[[DigestTable], DigestTable]
) -> None:
    digests = random_digests(2000, 16)
    table = kind(16, seed=4, max_load=0.5)
    table.insert(digests[:1500], np.arange(1500))
    table.delete(digests[:100])
    twin = copied(table)
    assert type(twin) is kind
    assert (twin.width, twin.seed, twin.max_load) == (16, 4, 0.5)
    assert list(twin.items()) == list(table.items())
    kept = dict(table)
    twin.insert(digests, np.zeros(2000, np.int64))
    twin.delete(digests[500:])
    assert dict(table) == kept
    table.clear()
    assert np.array_equal(twin.find(digests[:500]), np.zeros(500))
    twin.check()
    table.check()


@pytest.mark.parametrize("kind", TABLES)
def test_pickling_is_refused_with_the_remedy(kind: type[DigestTable]) -> None:
    with pytest.raises(TypeError, match="insert them into a new table"):
        pickle.dumps(kind(16))


OPERATIONS: dict[str, Callable[[DigestTable, np.ndarray], object]] = {
    "insert": lambda table, digests: table.insert(digests[20:], np.arange(len(digests) - 20)),
    "intern": lambda table, digests: table.intern(digests[20:], 7),
    "delete": lambda table, digests: table.delete(digests[5:30]),
    "delete most": lambda table, digests: table.delete(digests[5:190]),
    "reserve": lambda table, digests: table.reserve(500),
    "compact": lambda table, digests: table.compact(),
    "clear": lambda table, digests: table.clear(),
}


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
class TestInterrupts:
    digests = random_digests(400, 8)

    def filled(self, kind: type[DigestTable]) -> DigestTable:
        table = kind(8, seed=3)
        table.insert(self.digests[:200], np.arange(1000, 1200))
        return table

    @pytest.mark.parametrize("mapped", [False, True], ids=["copied", "mapped"])
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_an_interrupt_at_any_line_leaves_a_sound_table(
        self, kind: type[DigestTable], name: str, mapped: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if mapped:
            monkeypatch.setattr(memory, "MAPPED", 1)
        stride = (5 if mapped else 1) * (23 if kernels.active == "reference" else 1)  # for time
        table = self.filled(kind)
        before = content(table)
        OPERATIONS[name](table, self.digests)
        after = content(table)
        step = 0
        while True:
            table = self.filled(kind)
            if not interrupted(step, lambda t=table: OPERATIONS[name](t, self.digests)):
                break
            table.check()
            now = content(table)
            assert now.keys() in (before.keys(), after.keys())
            assert all(value in (before.get(key), after.get(key)) for key, value in now.items())
            if "delete" in name:
                assert now in (before, after)
            table.insert(self.digests, np.arange(400))
            assert np.array_equal(table.find(self.digests), np.arange(400))
            table.check()
            step += stride
        assert step > 10

    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("kernel", ["insert", "intern", "delete", "move"])
    def test_what_an_interrupted_repair_leaves_is_repaired_by_the_next_access(
        self, kind: type[DigestTable], name: str, kernel: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = self.filled(kind)
        before = content(table)

        def raising(after: Callable[..., object]) -> Callable[..., object]:
            def call(*args: Any, **options: Any) -> object:
                after(*args, **options)
                raise KeyboardInterrupt

            return call

        call = table._kernel
        interrupting = raising(call)

        def chosen(which: str, *rest: Any) -> object:
            return (interrupting if which in (kernel, "build") else call)(which, *rest)

        monkeypatch.setattr(table, "_kernel", chosen)
        with suppress(KeyboardInterrupt):
            OPERATIONS[name](table, self.digests)
        monkeypatch.undo()
        OPERATIONS[name](untouched := self.filled(kind), self.digests)
        assert set(table) in (before.keys(), set(untouched))
        assert -1 not in content(table).values()
        table.check()


def interrupted(step: int, operation: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at the line `step` of what a table runs. Whether there was one."""
    left = step

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        path = frame.f_code.co_filename
        if "hashmem" not in path and not path.endswith("contextlib.py"):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
    return False


def content(table: DigestTable) -> dict[bytes, int]:
    return dict(zip(map(bytes, table.digests), table.find(table.digests).tolist(), strict=True))


@pytest.mark.parametrize("kind", TABLES)
def test_the_overhead_stays_small_from_one_growth_to_the_next(kind: type[DigestTable]) -> None:
    digests = random_digests(100_000)
    table = kind(32)
    between: dict[int, list[float]] = {}  # buckets: bytes an entry while there were so many
    for start in range(0, len(digests), 1000):
        table.insert(digests[start : start + 1000], np.arange(start, start + 1000))
        statistics = table.statistics()
        between.setdefault(statistics.buckets, []).append(statistics.overhead)
    bound = 12 if kind is OpenAddressingTable else 16
    for overheads in list(between.values())[1:-1]:
        assert np.mean(overheads) <= bound


@pytest.mark.parametrize("kind", TABLES)
def test_threads_may_search_together(kind: type[DigestTable]) -> None:
    digests = random_digests(50_000)
    table = kind(32)
    table.insert(digests, np.arange(50_000))
    wrong = []

    def search(offset: int) -> None:
        order = np.random.default_rng(offset).permutation(50_000)
        for _ in range(5):
            if not np.array_equal(table.find(digests[order]), order):
                wrong.append(offset)

    threads = [threading.Thread(target=search, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
def test_readers_beside_a_writer_see_each_slice_between_two_changes(
    kind: type[DigestTable],
) -> None:
    """The writer grows, shrinks, moves and reseeds the table under the readers, who hold to what is
    true between any two of its changes: half the digests are always there; the others all are or
    none, with one value."""
    digests = random_digests(6000, 16)
    always, sometimes = digests[:3000], digests[3000:]
    table = kind(16)
    table.insert(always, np.arange(3000))
    wrong: list[str] = []
    done = threading.Event()
    searches = [0] * 4

    def read(number: int) -> None:
        random = np.random.default_rng(number)
        while not done.is_set():
            order = random.permutation(3000)
            if not np.array_equal(table.find(always[order]), order):
                wrong.append("a digest was not found")
            one = int(order[0])
            if table[always[one].tobytes()] != one or always[one].tobytes() not in table:
                wrong.append("one digest was not found")
            if len(np.unique(table.find(sometimes[order]))) != 1:
                wrong.append("a change was seen half")
            if not table.contains(always).all():
                wrong.append("a digest was not contained")
            searches[number] += 1

    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for reader in readers:
            reader.start()
        for round in range(400 if kernels.active == "native" else 100):
            table.insert(sometimes, np.full(3000, round))
            table.insert(sometimes[:1], [round])
            table.delete(sometimes)
            if round % 7 == 0:
                table.compact()
            if round % 50 == 0 and not all(searches):
                done.wait(0.2)
    finally:
        done.set()
        sys.setswitchinterval(before)
        for reader in readers:
            reader.join()
    assert not wrong, set(wrong)
    assert all(searches)
    table.check()


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
def test_writers_wait_for_each_other(kind: type[DigestTable]) -> None:
    digests = random_digests(8000, 16)
    table = kind(16)

    def write(number: int) -> None:
        mine = digests[number::4]
        for start in range(0, 2000, 100):
            part = mine[start : start + 100]
            assert table.insert(part, np.arange(start, start + 100)).all()
            values, removed = table.pop_many(part[::2])
            assert removed.all()
            assert np.array_equal(values, np.arange(start, start + 100, 2))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.check()
    assert len(table) == 4000
    for number in range(4):
        found = table.find(digests[number::4])
        assert np.array_equal(found[1::2], np.arange(1, 2000, 2))
        assert (found[::2] == -1).all()


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("kind", TABLES)
def test_a_batch_may_be_a_view_of_the_table(kind: type[DigestTable]) -> None:
    table = kind(8)
    digests = random_digests(8, 8)
    table.insert(digests, np.arange(8))
    one = table.digests[3:4]
    assert table.insert(one, [70]).tolist() == [False]
    assert table.find(one).tolist() == [70]
    assert table.delete(table.digests[7:8]).tolist() == [True]
    assert table.insert(table.digests, table.values_array).sum() == 0
    table.check()
    assert table.find(digests).tolist() == [0, 1, 2, 70, 4, 5, 6, -1]


class TestCheck:
    """Every kind of damage is seen."""

    @pytest.fixture
    def open_table(self) -> OpenAddressingTable:
        table = OpenAddressingTable(16, seed=1)
        table.insert(random_digests(1000, 16), np.arange(1000))
        table.check()
        return table

    @pytest.fixture
    def chain_table(self) -> ChainingTable:
        table = ChainingTable(16, seed=1)
        table.insert(random_digests(1000, 16), np.arange(1000))
        table.check()
        return table

    def damaged(self, table: DigestTable, says: str) -> None:
        with pytest.raises(hashmem.CorruptStoreError, match=says) as caught:
            table.check()
        assert "entries=1000" in str(caught.value)

    def test_a_lost_slot(self, open_table: OpenAddressingTable) -> None:
        bucket = int(np.argmax(open_table._index[:, 0] > 0))
        open_table._index[bucket, 0] = 0
        self.damaged(open_table, "exactly once")

    def test_a_wrong_tag(self, open_table: OpenAddressingTable) -> None:
        bucket = int(np.argmax(open_table._index[:, 0] > 1))
        open_table._index[bucket, 0] -= 1
        self.damaged(open_table, "tag")

    def test_a_wrong_count_of_those_away(self, open_table: OpenAddressingTable) -> None:
        open_table._index[3, 12] += 1
        self.damaged(open_table, "away")

    @pytest.mark.parametrize("byte", [14, 15], ids=["away", "high bit"])
    def test_bits_in_a_free_slot(self, open_table: OpenAddressingTable, byte: int) -> None:
        bucket = int(np.argmax(open_table._index[:, 11] == 0))
        open_table._index[bucket, byte] |= 0x08 if byte == 14 else 0x80
        self.damaged(open_table, "free slot")

    @pytest.mark.parametrize("kind", TABLES)
    def test_a_kernel_that_takes_nothing_ends_an_insert(
        self, kind: type[DigestTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = kind(16, capacity=100)
        before, call = table.seed, table._kernel
        monkeypatch.setattr(
            table, "_kernel", lambda name, *a: (0, 0, 0) if name == "insert" else call(name, *a)
        )
        with pytest.raises(hashmem.TableFullError, match="under any seed"):
            table.insert(random_digests(50, 16), np.zeros(50, np.int64))
        monkeypatch.undo()
        assert table.seed != before
        table.check()
        assert table.insert(random_digests(50, 16), np.zeros(50, np.int64)).all()

    def test_an_entry_in_neither_of_its_buckets(self, open_table: OpenAddressingTable) -> None:
        buckets = open_table._index
        source = int(np.argmax((buckets[:, 0] > 0) & (buckets[:, 12:16].max(axis=1) == 0)))
        target = next(b for b in range(len(buckets)) if not buckets[b, 11] and b != source)
        buckets[target, 11] = buckets[source, 0]
        buckets[target, 60:64] = buckets[source, 16:20]
        buckets[source, 0] = 0
        self.damaged(open_table, "neither")

    def test_a_digest_twice(self, open_table: OpenAddressingTable) -> None:
        open_table._all_digests[1] = open_table._all_digests[0]
        self.damaged(open_table, "same digest")

    @pytest.mark.parametrize("kind", TABLES)
    def test_a_digest_twice_among_many(self, kind: type[DigestTable]) -> None:
        table = kind(8)
        table.insert(random_digests(100_000, 8), np.arange(100_000))
        table.check()
        table._all_digests[99_999] = table._all_digests[1]
        with pytest.raises(hashmem.CorruptStoreError, match="same digest"):
            table.check()

    def test_a_lost_chain(self, chain_table: ChainingTable) -> None:
        chain_table._index[np.flatnonzero(chain_table._index)[0]] = 0
        self.damaged(chain_table, "exactly once")

    def test_a_circle(self, chain_table: ChainingTable) -> None:
        heads = chain_table._index
        head = heads[np.flatnonzero(heads)[0]]
        links_of(chain_table._entries.rows)[int(head & np.uint64(2**40 - 1)) - 1] = head
        self.damaged(chain_table, "circle")
        # Searches end all the same.
        assert chain_table.find(random_digests(1000, 16, seed=9)).max() == -1

    def test_many_chains_into_one_circle_are_seen_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = ChainingTable(8, seed=1)
        table.insert(random_digests(100_000, 8), np.arange(100_000))
        heads = table._index
        filled = np.flatnonzero(heads)
        links_of(table._entries.rows)[:] = heads[filled[0]]
        before, seen = chaining.entry_of, []

        def counting(links: np.ndarray) -> np.ndarray:
            seen.append(len(links))
            return before(links)

        monkeypatch.setattr(chaining, "entry_of", counting)
        with pytest.raises(hashmem.CorruptStoreError, match="circle"):
            table.check()
        assert sum(seen) <= len(table)

    def test_a_link_past_the_end(self, chain_table: ChainingTable) -> None:
        heads = chain_table._index
        heads[np.flatnonzero(heads)[0]] += np.uint64(5000)
        self.damaged(chain_table, "past the last")
        assert chain_table.find(random_digests(1000, 16, seed=9)).max() == -1

    def test_a_wrong_link_tag(self, chain_table: ChainingTable) -> None:
        heads = chain_table._index
        heads[np.flatnonzero(heads)[0]] ^= np.uint64(1 << 40)
        self.damaged(chain_table, "tag")

    def test_chains_exchanged(self, chain_table: ChainingTable) -> None:
        heads = chain_table._index
        first, second = np.flatnonzero(heads)[:2]
        heads[[first, second]] = heads[[second, first]]
        self.damaged(chain_table, "another bucket")


def test_the_examples_in_the_docstrings_run() -> None:
    outcome = doctest.testmod(base)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_theory_agrees_with_its_limits() -> None:
    """Nobody is away from an empty table; with one slot a bucket, the share away has a closed form:
    what goes home finds it full with the probability that equals the load."""
    assert two_choice_theory(0, 10, slots=12) == (1, 1)
    assert two_choice_theory(1, 10**6, slots=12) == pytest.approx((1, 1), abs=1e-6)
    hit, miss = two_choice_theory(500, 1000, slots=1)
    assert hit == pytest.approx(1 + 0.5 / 2, rel=1e-3)
    # A bucket filled at load y has one away with probability 1 - exp(y - 0.5).
    assert miss == pytest.approx(1 + 0.5 - (1 - np.exp(-0.5)), rel=1e-3)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9, 0.95])
def test_theory_agrees_with_a_table_at_its_load(load: float) -> None:
    table = OpenAddressingTable(16, seed=2, max_load=load, capacity=120_000)
    digests = random_digests(table._room, 16)
    for part in np.array_split(digests, 256):  # of a large batch the reference kernels place all
        table.insert(part, np.zeros(len(part), np.int64))  # they can at home before others
    table.check()
    found = table.statistics()
    assert found.load == pytest.approx(load, rel=1e-3)
    assert found.hit_mean - 1 == pytest.approx(found.hit_mean_expected - 1, rel=0.03, abs=1e-3)
    assert found.miss_mean - 1 == pytest.approx(found.miss_mean_expected - 1, rel=0.03, abs=2e-3)


# ---------------------------------------------------------------------------- one digest, as a dict


@pytest.mark.parametrize("kind", TABLES)
def test_single_digests_are_taken_out_as_from_a_dict(kind):
    table, model, random = kind(8), {}, np.random.default_rng(5)
    keys = [bytes([i] * 8) for i in range(40)]
    for _ in range(2000):
        key, value = keys[random.integers(40)], int(random.integers(-3, 3))
        match random.integers(5):
            case 0:
                assert table.setdefault(key, value) == model.setdefault(key, value)
            case 1:
                assert table.pop(key, None) == model.pop(key, None)
            case 2:
                table[key] = model[key] = value
            case 3 if model:
                key, value = table.popitem()
                assert model.pop(key) == value
            case _:
                for form in (bytes, bytearray, memoryview):
                    assert (form(key) in table) == (key in model)
        assert len(table) == len(model)
    assert dict(table.items()) == model
    table.check()
    table.clear()
    with pytest.raises(KeyError):
        table.pop(keys[0])
    with pytest.raises(KeyError, match="empty"):
        table.popitem()
    for no_digest in (b"short", 5, None, "12345678", memoryview(b"12345678" * 2)[::3]):
        assert no_digest not in table


@pytest.mark.parametrize("kind", TABLES)
def test_items_are_popped_from_the_end(kind):
    table = kind(8)
    table.update({bytes([i] * 8): i for i in range(100)})
    assert [table.popitem()[1] for _ in range(100)] == list(range(99, -1, -1))


def many_threads(*loops, seconds=0.5):
    """Run each of `loops` again and again in a thread of its own. What they raised."""
    stop, raised = threading.Event(), []

    def run(loop):
        try:
            while not stop.is_set():
                loop()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("kind", TABLES)
def test_a_digest_that_is_there_is_contained_whatever_its_value_becomes(kind):
    table, digest = kind(8), b"8 bytes."
    table[digest] = -1
    batch = np.frombuffer(digest, np.uint8).reshape(1, 8)

    def change():
        table[digest] = -1
        table[digest] = 5

    def look():
        assert table.contains(batch)[0]

    assert many_threads(change, look) == []


@pytest.mark.parametrize("kind", TABLES)
def test_threads_pop_what_is_there_or_get_the_default(kind):
    table, digest = kind(8), b"8 bytes."

    def change():
        table[digest] = 1
        assert table.pop(digest, None) in (1, 2, None)
        assert table.setdefault(digest, 2) in (1, 2)
        with suppress(KeyError):
            table.popitem()

    assert many_threads(change, change) == []
    table.check()


def test_a_table_under_a_known_seed_gets_another_where_digests_collide_whole(on_kernels):
    """Digests of 8 bytes, of which all are hashed from the start."""
    table = OpenAddressingTable(8, seed=0, capacity=200)
    digests = np.random.default_rng(3).integers(0, 256, (1 << 20, 8), np.uint8)
    hashes = hash_digests(digests, expand_keys(0))
    place = bucket_of(hashes, table.statistics().buckets) * 256 + tag_of(hashes)
    groups = np.argsort(place, kind="stable")
    begins = np.flatnonzero(np.diff(place[groups], prepend=-1))
    chosen = groups[(begins[:: len(begins) // 20, None] + np.arange(10)).ravel()[:200]]
    for batch in chosen.reshape(20, 10).T:  # one of each group
        assert table.insert(digests[batch], batch).all()
    assert table.statistics().reseeds == 1
    assert (table.find(digests[chosen]) == chosen).all()
    table.check()
