"""The contract of `hashmem.store.backend.Backend`, to be run on any implementation.

    class TestMine(BackendContract):
        @pytest.fixture
        def backend(self, tmp_path):
            with closing(MyBackend(tmp_path / "store")) as backend:
                yield backend

A backend that can be opened read-only also overrides `reopened`.
"""

from contextlib import closing, suppress
from threading import Thread

import pytest

from hashmem.errors import StoreClosedError, StoreError
from hashmem.store.backend import Backend, Reader

__all__ = ["BackendContract"]

LARGE = bytes(range(256)) * (5 << 12)  # 5 MiB
BINARY_KEYS = [b"\x00", b"\x00\x00", b"\x00\xff", b"a\x00b", b"\xff", b"\xff" * 21]


class Interruption(Exception):
    """Raised by the tests in the middle of a transaction."""


class BackendContract:
    """What every backend keeps. `backend` gives a new and empty one, and closes it afterwards."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("override `backend` with a new and empty backend under test")

    def reopened(self, backend: Backend, *, readonly: bool) -> Backend:
        """Open what `backend` stores once more, for backends that others can open."""
        pytest.skip("this backend cannot be opened a second time")

    # -- writing ------------------------------------------------------------------------------

    def test_starts_empty(self, backend: Backend) -> None:
        assert contents(backend) == {}
        assert backend.snapshots == 0

    def test_a_commit_is_seen_whole(self, backend: Backend) -> None:
        with backend.write() as transaction:
            transaction.put(b"a", b"1")
            transaction.put(b"b", b"2")
            assert contents(backend) == {}
        assert contents(backend) == {b"a": b"1", b"b": b"2"}

    def test_put_replaces_and_delete_removes(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1", b"b": b"2", b"c": b"3"})
        with backend.write() as transaction:
            transaction.put(b"a", b"longer than before")
            transaction.delete(b"b")
            transaction.delete(b"never there")
        assert contents(backend) == {b"a": b"longer than before", b"c": b"3"}

    def test_a_transaction_sees_its_own_changes(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1", b"b": b"2"})
        with backend.write() as transaction:
            transaction.put(b"c", b"3")
            transaction.delete(b"a")
            assert read(transaction) == {b"b": b"2", b"c": b"3"}
            assert transaction.get(b"a") is None

    def test_an_exception_drops_the_changes(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        before = backend.version

        def interrupted() -> None:
            with backend.write() as transaction:
                transaction.put(b"a", b"2")
                transaction.put(b"b", LARGE)
                raise Interruption

        with pytest.raises(Interruption):
            interrupted()
        assert contents(backend) == {b"a": b"1"}
        assert backend.version == before
        fill(backend, {b"b": b"2"})  # and the next writer is not kept waiting
        assert contents(backend) == {b"a": b"1", b"b": b"2"}

    def test_versions_differ_between_commits_alone(self, backend: Backend) -> None:
        versions = [backend.version]
        for i in range(3):
            fill(backend, {b"a": bytes([i])})
            versions.append(backend.version)
            assert backend.version == versions[-1]
            with backend.snapshot() as snapshot:
                assert snapshot.version == versions[-1]
        with backend.rewrite() as (_, transaction):
            transaction.put(b"a", b"rewritten")
        versions.append(backend.version)
        assert len(set(versions)) == len(versions)

    def test_a_transaction_tells_the_version_it_started_from(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        before = backend.version
        with backend.write() as transaction:
            assert transaction.version == before
            transaction.put(b"a", b"2")
        assert backend.version != before

    def test_writers_take_turns(self, backend: Backend) -> None:
        def count(times: int) -> None:
            for _ in range(times):
                with backend.write() as transaction:
                    value = transaction.get(b"count")
                    reached = 0 if value is None else int.from_bytes(value, "big")
                    transaction.put(b"count", (reached + 1).to_bytes(4, "big"))

        threads = [Thread(target=count, args=(20,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert contents(backend) == {b"count": (80).to_bytes(4, "big")}

    # -- reading ------------------------------------------------------------------------------

    def test_a_snapshot_shows_one_commit(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1", b"b": LARGE})
        with backend.snapshot() as snapshot:
            value = snapshot.get(b"b")
            for i in range(4):
                with backend.write() as transaction:
                    transaction.delete(b"b")
                    transaction.put(b"a", b"2")
                    transaction.put(b"c%d" % i, LARGE[::-1])
            assert read(snapshot) == {b"a": b"1", b"b": LARGE}
            assert bytes(value or b"") == LARGE
        assert sorted(contents(backend)) == [b"a", b"c0", b"c1", b"c2", b"c3"]

    @pytest.mark.parametrize("size", [0, 1, 511, 4096, len(LARGE)])
    def test_values_of_any_size(self, backend: Backend, size: int) -> None:
        fill(backend, {b"key": LARGE[:size]})
        assert contents(backend) == {b"key": LARGE[:size]}

    def test_keys_are_any_bytes(self, backend: Backend) -> None:
        expected = {key: key * 2 for key in BINARY_KEYS}
        fill(backend, expected)
        assert contents(backend) == expected

    def test_keys_come_in_order_of_a_prefix(self, backend: Backend) -> None:
        keys = sorted([b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"ba", b"c", *BINARY_KEYS])
        fill(backend, dict.fromkeys(reversed(keys), b""))
        with backend.snapshot() as snapshot:
            for prefix in [b"", b"b", b"b\xff", b"\xff", b"\x00", b"missing"]:
                chosen = [key for key in keys if key.startswith(prefix)]
                assert list(snapshot.keys(prefix)) == chosen

    def test_missing_keys_give_none(self, backend: Backend) -> None:
        fill(backend, {b"ab": b"1"})
        with backend.snapshot() as snapshot:
            assert snapshot.get(b"a") is None
            assert snapshot.get(b"abc") is None

    def test_snapshots_are_counted(self, backend: Backend) -> None:
        first, second = backend.snapshot(), backend.snapshot()
        assert backend.snapshots == 2
        first.close()
        first.close()
        assert backend.snapshots == 1
        second.close()
        assert backend.snapshots == 0

    def test_a_closed_snapshot_is_an_error(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        snapshot = backend.snapshot()
        snapshot.close()
        with pytest.raises(StoreClosedError):
            snapshot.get(b"a")
        with pytest.raises(StoreClosedError):
            list(snapshot.keys(b""))

    # -- rewriting ----------------------------------------------------------------------------

    def test_rewrite_replaces_everything(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1", b"b": b"2"})
        with backend.rewrite() as (old, new):
            assert read(new) == {}
            assert read(old) == {b"a": b"1", b"b": b"2"}
            value = old.get(b"a")
            assert value is not None
            new.put(b"c", bytes(value))
        assert contents(backend) == {b"c": b"1"}
        assert backend.snapshots == 0
        fill(backend, {b"d": b"4"})
        assert contents(backend) == {b"c": b"1", b"d": b"4"}

    def test_rewrite_gives_space_back(self, backend: Backend) -> None:
        fill(backend, {b"a": LARGE, b"b": LARGE})
        full = backend.nbytes
        with backend.rewrite() as (_, new):
            new.put(b"a", b"1")
        assert full > 2 * len(LARGE)
        assert backend.nbytes < len(LARGE)

    def test_an_exception_leaves_everything(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        before = backend.version

        def interrupted() -> None:
            with backend.rewrite() as (_, new):
                new.put(b"b", LARGE)
                raise Interruption

        with pytest.raises(Interruption):
            interrupted()
        assert contents(backend) == {b"a": b"1"}
        assert backend.version == before
        assert backend.snapshots == 0
        with backend.rewrite() as (_, new):
            new.put(b"c", b"3")
        assert contents(backend) == {b"c": b"3"}

    def test_readers_go_on_while_it_is_rewritten(self, backend: Backend) -> None:
        fill(backend, {b"a": LARGE})
        with backend.snapshot() as snapshot:
            value = snapshot.get(b"a")
            for i in range(3):
                with backend.rewrite() as (_, new):
                    assert read(snapshot) == {b"a": LARGE}
                    new.put(b"b", bytes([i]))
                assert read(snapshot) == {b"a": LARGE}
            assert bytes(value or b"") == LARGE
        assert contents(backend) == {b"b": b"\x02"}

    def test_an_erasing_rewrite_replaces_everything(self, backend: Backend) -> None:
        fill(backend, {b"a": LARGE, b"b": b"2"})
        before = backend.version
        for value in (b"1", b"2"):
            with backend.rewrite(erase=True, timeout=10) as (old, new):
                assert read(new) == {}
                assert b"a" in read(old)
                new.put(b"a", value)
            assert contents(backend) == {b"a": value}
            assert backend.version != before
            assert backend.snapshots == 0
        fill(backend, {b"c": b"3"})
        assert contents(backend) == {b"a": b"2", b"c": b"3"}

    def test_what_is_read_is_not_erased_yet(self, backend: Backend) -> None:
        """Whether that is an error is the backend's affair: it may have nothing to overwrite."""
        fill(backend, {b"a": LARGE})
        with backend.snapshot() as snapshot:
            value = snapshot.get(b"a")
            for i in range(3):
                with suppress(StoreError), backend.rewrite(erase=True) as (_, new):
                    new.put(b"b", bytes([i]))
                assert read(snapshot) == {b"a": LARGE}
                assert bytes(value or b"") == LARGE
                assert contents(backend) == {b"b": bytes([i])}
        with backend.rewrite(erase=True, timeout=10) as (_, new):
            new.put(b"c", b"3")
        assert contents(backend) == {b"c": b"3"}

    def test_an_exception_erases_nothing(self, backend: Backend) -> None:
        fill(backend, {b"a": LARGE})
        before = backend.version

        def interrupted() -> None:
            with backend.rewrite(erase=True) as (_, new):
                new.put(b"b", LARGE)
                raise Interruption

        with pytest.raises(Interruption):
            interrupted()
        assert contents(backend) == {b"a": LARGE}
        assert backend.version == before

    # -- closing ------------------------------------------------------------------------------

    def test_close_is_idempotent_and_final(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        backend.close()
        backend.close()
        with pytest.raises(StoreClosedError):
            backend.snapshot()
        with pytest.raises(StoreClosedError), backend.write():
            pass
        with pytest.raises(StoreClosedError), backend.rewrite():
            pass

    def test_open_snapshots_survive_close(self, backend: Backend) -> None:
        fill(backend, {b"a": LARGE})
        snapshot = backend.snapshot()
        value = snapshot.get(b"a")
        backend.close()
        assert bytes(value or b"") == LARGE
        assert read(snapshot) == {b"a": LARGE}
        snapshot.close()

    def test_commits_survive_reopening(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        version = backend.version
        with closing(self.reopened(backend, readonly=False)) as second:
            assert second.version == version
            fill(second, {b"b": b"2"})
            assert contents(backend) == contents(second) == {b"a": b"1", b"b": b"2"}
            assert backend.version == second.version != version
            with second.rewrite() as (_, new):
                new.put(b"c", b"3")
            fill(backend, {b"d": b"4"})
            assert backend.version == second.version
            assert contents(backend) == contents(second) == {b"c": b"3", b"d": b"4"}
            with second.rewrite(erase=True, timeout=10) as (_, new):
                new.put(b"e", b"5")
            assert contents(backend) == contents(second) == {b"e": b"5"}
            fill(backend, {b"f": b"6"})
            assert contents(backend) == contents(second) == {b"e": b"5", b"f": b"6"}

    def test_readonly_refuses_writes(self, backend: Backend) -> None:
        fill(backend, {b"a": b"1"})
        with closing(self.reopened(backend, readonly=True)) as second:
            assert second.readonly
            with pytest.raises(StoreError), second.write():
                pass
            with pytest.raises(StoreError), second.rewrite():
                pass
            assert contents(second) == {b"a": b"1"}


def fill(backend: Backend, values: dict[bytes, bytes]) -> None:
    """Commit `values`."""
    with backend.write() as transaction:
        for key, value in values.items():
            transaction.put(key, value)


def read(reader: Reader) -> dict[bytes, bytes]:
    """Return everything that `reader` shows."""
    found = {}
    for key in list(reader.keys(b"")):
        value = reader.get(key)
        assert value is not None, f"{key!r} is listed and cannot be read"
        found[key] = bytes(value)
    return found


def contents(backend: Backend) -> dict[bytes, bytes]:
    """Return everything that `backend` holds by its newest commit."""
    with backend.snapshot() as snapshot:
        return read(snapshot)
