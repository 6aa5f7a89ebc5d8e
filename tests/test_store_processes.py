"""A store shared by processes: writers at once, readers, forks, and writers that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hashmem import MemoryStore
from hashmem.errors import StoreClosedError

PUT_BATCHES = """
import subprocess
import sys
from hashmem import MemoryStore
path, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
with MemoryStore(path) as store:
    for i in range(batches):
        same = [b"same %d %d" % (i, j) for j in range(20)]
        own = [b"%s %d %d" % (name.encode(), i, j) for j in range(20)]
        digests = store.put_many(same + own, [{"by": name}] * 40)
        store.link_many(digests[:-1], digests[1:])
        store.commit()
"""

# Each commit is told of through the pipe only after it returned.
WRITE_FOR_EVER = """
import subprocess
import sys
from hashmem import MemoryStore
store = MemoryStore(sys.argv[1])
i = len(store)
while True:
    store.put_many([b"record %d of a writer" % (i + j) * 50 for j in range(7)])
    i += 7
    store.commit()
    print(i, flush=True)
    if sys.argv[2] == "compact" and i % 21 == 0:
        store.compact()
"""


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, arguments)], **options)


def in_child(check) -> bool:
    """Whether `check` is true in a forked child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def raises(kind, call, *args) -> bool:
    try:
        call(*args)
    except kind:
        return True
    return False


def test_two_writers_at_once_lose_nothing_and_store_once(tmp_path):
    path, batches = tmp_path / "store", 15
    writers = [python(PUT_BATCHES, path, name, batches) for name in ("one", "two")]
    with MemoryStore(path) as reader:
        seen = 0
        while any(writer.poll() is None for writer in writers):
            reader.refresh()
            assert len(reader) >= seen  # and whole batches, as commits are
            assert (len(reader) % 20) == 0
            seen = len(reader)
            time.sleep(0.01)
        assert [writer.returncode for writer in writers] == [0, 0]
        reader.refresh()
        assert len(reader) == 3 * 20 * batches
        verification = reader.verify()
        assert verification.ok, verification.damage
        for i in range(batches):
            same = [b"same %d %d" % (i, j) for j in range(20)]
            for name in (b"one", b"two"):
                own = [b"%s %d %d" % (name, i, j) for j in range(20)]
                digests = [reader.digest(payload) for payload in same + own]
                assert list(reader.get_many(digests)) == same + own
                ends, found = reader.hop(digests[20], 19)
                assert found[0]
                assert bytes(ends[0]) == digests[39]


def test_a_fork_leaves_what_is_uncommitted_to_the_parent(tmp_path):
    store = MemoryStore(tmp_path / "store")
    committed = store.put(b"committed" * 1000)
    store.commit()
    records = store.get_many(committed)
    assert records[0] == b"committed" * 1000
    pending = store.put(b"pending")

    def child() -> bool:
        assert raises(StoreClosedError, lambda: records[0])
        assert raises(StoreClosedError, lambda: list(records))
        assert store[committed] == b"committed" * 1000
        assert pending not in store
        store.put(b"of the child")
        store.commit()
        store.close()
        return True

    assert in_child(child)
    assert records[0] == b"committed" * 1000
    store.commit()
    assert len(store) == 3
    assert store.verify().ok
    records.close()
    store.close()


def test_records_survive_compaction_commits_and_close(tmp_path):
    store = MemoryStore(tmp_path / "store")
    payloads = [b"payload %d " % i * 100 for i in range(50)]
    digests = store.put_many(payloads)
    store.commit()
    records = store.get_many(digests)
    done = python(
        "import sys; from hashmem import MemoryStore\n"
        "store = MemoryStore(sys.argv[1])\n"
        "store.delete_many(store.digests()[::2]); store.compact(); store.close()",
        tmp_path / "store",
    )
    assert done.wait() == 0
    assert list(records) == payloads
    store.put(b"more")
    store.commit()
    store.compact()
    assert list(records) == payloads
    assert len(store) == 26
    assert list(store.get_many(digests)) == [
        None if i % 2 == 0 else p for i, p in enumerate(payloads)
    ]
    store.close()
    assert list(records) == payloads
    records.close()


def test_a_store_can_be_opened_while_it_is_compacted(tmp_path):
    path = tmp_path / "store"
    payloads = [os.urandom(2000) for _ in range(500)]
    with MemoryStore(path) as store:
        digests = store.put_many(payloads)
    code = (
        "import sys; from hashmem import MemoryStore\n"
        "with MemoryStore(sys.argv[1]) as store:\n"
        "    for i in range(10): store.compact()"
    )
    compacting = python(code, path)
    turns = 0
    while compacting.poll() is None:
        with MemoryStore(path, readonly=turns % 2 == 0) as store:
            assert list(store.get_many(digests)) == payloads
            if turns % 2:
                store.put(b"turn %d" % turns)
        turns += 1
    assert compacting.returncode == 0
    with MemoryStore(path) as store:
        assert len(store) == 500 + turns // 2
        assert store.verify().ok
    assert len(list(path.glob("*.mdb"))) == 1


def test_threads_share_a_handle(tmp_path):
    with MemoryStore(tmp_path / "store") as store:

        def work(name: int) -> None:
            for i in range(20):
                digests = store.put_many([b"%d %d %d" % (name % 2, i, j) for j in range(10)])
                if i % 5 == 0:
                    store.commit()
                if None in store.get_many(digests):
                    failed.append(name)

        failed: list[int] = []
        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(store) == 400
        assert store.verify().ok


def kill_writers(path, cycles: int, mode: str, seed: int) -> Iterator[None]:
    """Let a writer commit, kill it, and see that all it told of is there. Yields each time."""
    random = np.random.default_rng(seed)
    told = 0
    for _ in range(cycles):
        writer = python(WRITE_FOR_EVER, path, mode, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split(b"\n")[:-1]
        writer.wait()
        told = max([told, int(first or 0), *(int(line) for line in rest)])
        with MemoryStore(path) as store:
            verification = store.verify()
            assert verification.ok, verification.damage
            assert told <= len(store) <= told + 7
            assert len(store) % 7 == 0
            payloads = [b"record %d of a writer" % i * 50 for i in range(told)]
            digests = [store.digest(payload) for payload in payloads]
            assert list(store.get_many(digests)) == payloads
        names = {p.name.removesuffix("-lock") for p in path.iterdir()} - {"CURRENT.new"}
        assert len(names) == 3  # one generation, CURRENT, LOCK: leftovers were swept
        yield


@pytest.mark.parametrize("mode", ["commit", "compact"])
def test_a_killed_writer_loses_nothing_it_told_of(tmp_path, mode):
    for _ in kill_writers(tmp_path / "store", 10, mode, seed=1):
        pass


@pytest.mark.campaign
@pytest.mark.parametrize("mode", ["commit", "compact"])
def test_many_killed_writers(tmp_path, mode):
    for _ in kill_writers(tmp_path / "store", 300, mode, seed=2):
        pass


def test_what_another_stored_and_removed_meanwhile_is_stored_all_the_same(tmp_path):
    """Found by the random operations: its payload was taken for stored, and its metadata went."""
    with MemoryStore(tmp_path / "s") as one, MemoryStore(tmp_path / "s") as other:
        digest = one.put(b"content", {"of": 1})
        other.put(b"content")
        other.commit()
        one.refresh()
        other.delete(digest)
        other.commit()
        one.refresh()
        assert one.metadata(digest) == {"of": 1}
        one.commit()
        other.refresh()
        assert other[digest] == b"content"
        assert other.metadata(digest) == {"of": 1}


NUMBER_AT = 48  # of the newest commit, in LMDB's lock file


def test_a_lock_file_that_a_killed_process_left_half_made_is_set_right(tmp_path):
    """Found by kills: whoever opened meanwhile could read nothing as long as it lived."""
    path = tmp_path / "s"
    with MemoryStore(path) as store:
        digests = [store.put(b"%d" % i) for i in range(3) if store.commit() is None]
    (file,) = path.glob("*.mdb")
    script = (
        "import lmdb, sys, time\n"
        f"held = lmdb.open({str(file)!r}, subdir=False, create=False)\n"
        f"lock = open({str(file) + '-lock'!r}, 'r+b')\n"
        f"lock.seek({NUMBER_AT})\n"
        "lock.write(bytes(8))\n"
        "lock.flush()\n"
        "print(held.begin().id(), flush=True)\n"
        "time.sleep(0.1)\n"
        "import os\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"0\n"
        with MemoryStore(path) as store:
            assert [store[digest] for digest in digests] == [b"0", b"1", b"2"]
            store.put(b"more")
    with MemoryStore(path) as store:
        assert len(store) == 4
        assert store.verify().ok
