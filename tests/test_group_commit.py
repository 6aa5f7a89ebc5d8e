"""Threads that commit at the same time share commits, and none is told too early."""

import threading
import time

import pytest

from hashmem import MemoryStore
from hashmem.errors import StoreError
from hashmem.store.group_commit import Group
from hashmem.store.lmdb import LmdbBackend


def run_all(count, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_what_a_thread_wrote_before_is_in_a_commit_that_began_after():
    group, written, committed, commits = Group(), [], set(), []
    lock = threading.Lock()

    def commit():
        with lock:
            shown = list(written)
        time.sleep(0.002)
        committed.update(shown)
        commits.append(len(shown))

    def work(thread):
        for i in range(25):
            with lock:
                written.append((thread, i))
            group.commit(commit)
            assert (thread, i) in committed

    run_all(8, work)
    assert len(committed) == 200
    assert len(commits) < 120  # shared; one by one it would be 200


def test_a_commit_that_fails_fails_for_whoever_led_it_and_is_tried_by_the_others():
    group, outcomes, tries = Group(), [], []
    lock = threading.Lock()

    def commit():
        time.sleep(0.001)
        with lock:
            tries.append(None)
            failing = len(tries) % 3 == 0
        if failing:
            raise StoreError("no room")

    def work(_):
        for _ in range(20):
            try:
                group.commit(commit)
                outcomes.append(True)
            except StoreError:
                outcomes.append(False)

    run_all(6, work)
    assert len(outcomes) == 120
    assert outcomes.count(False) == len(tries) // 3


def test_threads_on_one_store(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        before = store._backend.version[1]

        def work(thread):
            for i in range(20):
                digest = store.put(b"%d %d" % (thread, i))
                store.commit()
                with MemoryStore(tmp_path / "store", readonly=True) as other:
                    assert digest in other

        run_all(6, work)
        assert len(store) == 120
        assert store._backend.version[1] - before < 120
        assert store.verify().ok


def test_a_commit_within_another_call_does_not_wait_for_a_leader(tmp_path):
    with MemoryStore(tmp_path / "store") as store:

        def work(thread):
            for i in range(10):
                store.put(b"%d %d" % (thread, i))
                store.compact() if i % 5 == 4 else store.commit()

        run_all(4, work)
        assert len(store) == 40


@pytest.mark.parametrize("durability", ["full", "ordered", "none"])
def test_durability(tmp_path, durability):
    with MemoryStore(tmp_path / "store", durability=durability) as store:
        digest = store.put(b"a")
        store.commit()
        store.sync()
    with MemoryStore(tmp_path / "store") as store:
        assert store[digest] == b"a"
        if durability != "full":
            with pytest.raises(StoreError, match="durability 'full'"):
                LmdbBackend(tmp_path / "store", durability=durability)
        LmdbBackend(tmp_path / "store", durability=durability, readonly=True).close()
    with pytest.raises(ValueError, match="full, ordered, none"):
        MemoryStore(tmp_path / "store", durability="fast")
