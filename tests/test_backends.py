"""The backends that come with hashmem keep the contract; and what is LMDB's own."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import lmdb
import pytest

from hashmem.errors import CorruptStoreError, StoreClosedError, StoreError, StoreFormatError
from hashmem.store import lmdb_environment
from hashmem.store.backend import Backend
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.lmdb_environment import MAX_READERS, SPARE_READERS, Environment
from hashmem.store.ram import RamBackend
from hashmem.testing.backends import BackendContract, contents, fill


class TestRamBackend(BackendContract):
    @pytest.fixture
    def backend(self):
        backend = RamBackend()
        yield backend
        backend.close()


class TestLmdbBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path):
        backend = LmdbBackend(tmp_path / "store")
        yield backend
        backend.close()

    def reopened(self, backend: Backend, *, readonly: bool) -> Backend:
        return LmdbBackend(backend.path, readonly=readonly)


# -- LMDB's folder and file -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A store's folder with two commits in it."""
    with closing(LmdbBackend(tmp_path / "store")) as backend:
        fill(backend, {b"a": b"1", b"large": bytes(300_000)})
        fill(backend, {b"b": b"2"})
    return tmp_path / "store"


EXPECTED = {b"a": b"1", b"b": b"2", b"large": bytes(300_000)}


def refuses(folder, match, **options):
    with pytest.raises(StoreFormatError, match=match):
        LmdbBackend(folder, **options)


@pytest.mark.parametrize("readonly", [False, True])
def test_other_places_are_refused_and_left_alone(tmp_path, readonly):
    file = tmp_path / "file"
    file.write_bytes(b"text")
    refuses(file, "is a file: a store is a folder", readonly=readonly)
    assert file.read_bytes() == b"text"
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "letter.txt").write_bytes(b"text")
    refuses(strange, "no store", readonly=readonly)
    assert [path.name for path in strange.iterdir()] == ["letter.txt"]
    with pytest.raises(StoreError):
        LmdbBackend(file / "below", readonly=readonly)


def test_nothing_to_read_is_an_error(tmp_path):
    refuses(tmp_path / "new", "holds no store to read", readonly=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("current", "match"),
    [
        (b"hashmem 3\n000001.mdb\n", "format version 3, newer than 2.*upgrade"),
        (b"hashmem 7\nanother\nlayout\nof lines\n", "format version 7, newer"),
        (b"hashmem 1\n../../etc/passwd\n", "reads"),
        (b"hashmem 1\n000001.mdb", "reads"),
        (b"hashmem 1\n000001.mdb-lock\n", "reads"),
        (b"hashmem \xff\n000001.mdb\n", "reads"),
        (b"hashmem 99999999999999999999\n000001.mdb\n", "reads"),
        (b"", "reads"),
        (b"hashmem 1\n000007.mdb\n", "000007.mdb, which is not there"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_current_that_does_not_fit_is_refused(folder, current, match, readonly):
    good = (folder / "CURRENT").read_bytes()
    (folder / "CURRENT").write_bytes(current)
    refuses(folder, match, readonly=readonly)
    if b"000007" not in current:  # else the generation really is not in use
        (folder / "CURRENT").write_bytes(good)
        with closing(LmdbBackend(folder)) as backend:
            assert contents(backend) == EXPECTED


def test_a_lost_current_does_not_cost_the_data(folder):
    good = (folder / "CURRENT").read_bytes()
    (folder / "CURRENT").unlink()
    refuses(folder, "no file CURRENT")
    (folder / "CURRENT").write_bytes(good)
    with closing(LmdbBackend(folder)) as backend:
        assert contents(backend) == EXPECTED


def test_an_interrupted_creation_is_begun_anew(tmp_path):
    with closing(LmdbBackend(tmp_path / "store")):
        pass
    (tmp_path / "store" / "CURRENT").unlink()
    with closing(LmdbBackend(tmp_path / "store")) as backend:
        fill(backend, {b"a": b"1"})
        assert contents(backend) == {b"a": b"1"}


def test_leftovers_of_an_interrupted_rewrite_are_swept(folder):
    for name in ["000002.mdb", "000002.mdb-lock", "000009.mdb"]:
        (folder / name).write_bytes(b"half")
    with closing(LmdbBackend(folder)) as backend:
        assert contents(backend) == EXPECTED
        left = sorted(path.name for path in folder.iterdir())
        assert left == ["000001.mdb", "000001.mdb-lock", "CURRENT", "LOCK"]


def test_a_file_that_is_not_lmdbs_is_refused(folder):
    (folder / "000001.mdb").write_bytes(b"garbage " * 4096)
    refuses(folder, "LMDB finds no database")
    refuses(folder, "LMDB finds no database", readonly=True)


def test_a_file_cut_off_is_refused_at_any_length(folder):
    """LMDB would map pages beyond the end, and the process would die of SIGBUS."""
    file = folder / "000001.mdb"
    whole = file.read_bytes()
    for size in [0, 1, 15, 100, 151, 152, 4096, 5000, 8191, *range(8192, len(whole), 4096)]:
        file.write_bytes(whole[:size])
        refuses(folder, "is cut off: it has .* bytes and at least .* are missing")
    file.write_bytes(whole)
    with closing(LmdbBackend(folder)) as backend:
        assert contents(backend) == EXPECTED


def test_a_file_that_ends_in_unused_pages_is_whole(tmp_path):
    """LMDB never writes pages it took and gave back within one transaction."""
    short = 0
    for turn in range(20):
        path = tmp_path / str(turn)
        with closing(LmdbBackend(path)) as backend:
            for i in range(1 + turn % 4):
                with backend.write() as transaction:
                    transaction.put(b"kept", b"1" * 5000)
                    for size in (5000 * (i + 1), 90_000):
                        transaction.put(b"large", bytes(size))
                    transaction.delete(b"large")
        with closing(LmdbBackend(path, readonly=True)) as backend:
            assert contents(backend) == {b"kept": b"1" * 5000}
        with lmdb.open(str(path / "000001.mdb"), subdir=False, readonly=True) as raw:
            short += (raw.info()["last_pgno"] + 1) * raw.stat()["psize"] > backend_size(path)
    assert short  # the case was met


@pytest.mark.parametrize("read_before", [False, True])
def test_what_a_child_inherits_is_an_error_there_and_whole_here(folder, read_before):
    """Reading a value through a map that is gone would kill the child."""
    with closing(LmdbBackend(folder)) as backend:
        snapshot = backend.snapshot()
        if read_before:
            snapshot.get(b"large")
        assert in_child(lambda: snapshot.closed and raises(snapshot.get, b"a"))
        assert in_child(lambda: contents(backend) == EXPECTED)
        assert in_child(lambda: fill(backend, {b"child": b"1"}) or backend.snapshots == 0)
        assert bytes(snapshot.get(b"large")) == EXPECTED[b"large"]
        for i in range(3):  # the snapshot still keeps its pages from being used again
            fill(backend, {b"large": b"%d" % i * 300_000})
        assert bytes(snapshot.get(b"large")) == EXPECTED[b"large"]
        snapshot.close()
        assert contents(backend)[b"child"] == b"1"


def raises(call, *args):
    try:
        call(*args)
    except StoreClosedError:
        return True
    return False


def in_child(check):
    """Whether `check` is true in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def backend_size(path):
    return (path / "000001.mdb").stat().st_size


def test_two_handles_share_one_environment(folder):
    """LMDB forbids opening one file twice in a process."""
    with closing(LmdbBackend(folder)) as first, closing(LmdbBackend(folder)) as second:
        assert first._follow() is second._follow()
        first.close()
        assert contents(second) == EXPECTED
    reader = LmdbBackend(folder, readonly=True)
    with closing(reader), pytest.raises(StoreError, match="close that store first"):
        LmdbBackend(folder)
    assert not Environment._open


def test_too_many_snapshots_are_refused_and_forgotten(folder):
    with closing(LmdbBackend(folder)) as backend:
        held = [backend.snapshot() for _ in range(MAX_READERS)]
        with pytest.raises(StoreError, match="snapshots are open"):
            held += [backend.snapshot() for _ in range(SPARE_READERS + 1)]
        assert backend.snapshots == len(held) == MAX_READERS
        held.clear()
        assert backend.snapshots == 0
        assert contents(backend) == EXPECTED
    assert not Environment._open


def test_slots_of_killed_readers_are_freed(folder):
    code = (
        "import os, signal, sys; from hashmem.store.lmdb import LmdbBackend\n"
        "held = LmdbBackend(sys.argv[1]).snapshot(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with closing(LmdbBackend(folder)) as backend:
        for _ in range(3):
            subprocess.run([sys.executable, "-P", "-c", code, folder], check=False)
        with closing(LmdbBackend(folder)) as other:
            assert "\n" in other._follow().lmdb.readers()
        fill(backend, {b"c": b"3"})
        assert backend._follow().lmdb.info()["num_readers"] >= 1
        assert backend._follow().lmdb.reader_check() == 0
        assert "no active readers" in backend._follow().lmdb.readers()


def test_a_fork_in_the_middle_of_a_write_keeps_nobody_waiting(folder):
    """The child has the LOCK file open too; and the parent's thread is not there to let go."""
    with closing(LmdbBackend(folder)) as backend:
        reading, writing = os.pipe()
        with backend.write() as transaction:
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)  # until the parent has written twice
                try:
                    fill(backend, {b"child": b"1"})
                finally:
                    os._exit(0)
            transaction.put(b"parent", b"1")
        os.close(reading)
        with timeout(10):
            fill(backend, {b"parent": b"2"})
            os.close(writing)
            os.waitpid(child, 0)
        assert contents(backend) == {**EXPECTED, b"parent": b"2", b"child": b"1"}


@contextmanager
def timeout(seconds):
    def ring(*_):
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_commit_made_while_a_file_is_looked_through_is_no_damage(folder, monkeypatch):
    """The length may be older than the meta pages, which then speak of pages beyond it."""
    real, calls = Environment.data, []

    def stale(self):
        data = real(self)
        calls.append(len(data))
        if len(calls) == 1:
            self._size = 8192
            return data[:8192]
        return data

    monkeypatch.setattr(Environment, "data", stale)
    with closing(LmdbBackend(folder)) as backend:
        assert contents(backend) == EXPECTED
    assert len(calls) > 1


def test_a_file_that_was_removed_takes_no_commits(folder):
    """They would be gone with it once it is closed."""
    with closing(LmdbBackend(folder)) as backend:
        os.rename(folder / "000001.mdb", folder / "kept")
        with (
            pytest.raises(StoreFormatError, match="removed or replaced.*copy_to"),
            backend.write() as transaction,
        ):
            transaction.put(b"new", b"1")
        assert contents(backend) == EXPECTED
        os.rename(folder / "kept", folder / "000001.mdb")
        fill(backend, {b"new": b"1"})
        assert backend.nbytes > 0


def test_commits_that_always_come_in_between_are_no_damage(folder, monkeypatch):
    """Opening beside a busy writer: it is kept out at last."""
    real, calls = lmdb_environment.check, []

    def disturbed(data, **options):
        calls.append(None)
        with open(folder / "LOCK", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # whoever looks keeps writers out
                return real(data, **options)
        raise CorruptStoreError("half of it is of another commit")

    monkeypatch.setattr(lmdb_environment, "check", disturbed)
    with closing(LmdbBackend(folder)) as backend:
        assert contents(backend) == EXPECTED
    assert len(calls) >= 2
