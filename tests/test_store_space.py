"""Sweeping against a plain model, with other handles in between; erasing, seen in the raw files."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from test_store_model import (
    RELATIONS,
    Handle,
    LmdbMachine,
    StoreMachine,
    View,
    drop_values,
    handle,
    machine_case,
    some,
    spread,
)

from hashmem import MemoryStore
from hashmem.errors import CorruptStoreError, RecordNotFound, StoreError
from hashmem.store.layout import EDGES, body_key, pack_number, pack_prefix
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.ram import RamBackend


@pytest.fixture(params=["ram", "lmdb"])
def backend(request, tmp_path):
    made = RamBackend() if request.param == "ram" else LmdbBackend(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def store(backend):
    return MemoryStore(backend=backend)


def named(store, digests):
    """The contents that `digests` have, of those that the tests put."""
    names = {store.digest(bytes([letter])): chr(letter) for letter in range(97, 123)}
    return "".join(sorted(names[bytes(digest)] for digest in digests))


def put(store, letters):
    return {letter: store.put(letter.encode(), {"is": letter}) for letter in letters}


# -- sweeping -------------------------------------------------------------------------------------


def test_what_no_chain_leads_to_goes(store):
    d = put(store, "abcdefgh")
    store.link(d["a"], d["b"])
    store.add_link(d["b"], d["c"], "calls")
    store.add_link(d["c"], d["a"], "imports")  # a cycle
    store.link(d["e"], d["a"])  # leads to what stays, and is not led to
    store.link(d["g"], d["h"])
    store.add_link(d["h"], d["g"])  # a cycle that nothing leads to
    assert named(store, store.sweep([d["a"], d["f"]])) == "degh"
    assert named(store, store.digests()) == "abcf"
    assert store.metadata_many([d["a"], d["g"]]) == [{"is": "a"}, None]
    assert store.statistics()["successors"] == 1
    assert store.statistics()["edges"] == 2
    assert len(store.sweep([d["a"], d["f"]])) == 0
    assert store.verify().ok


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, "abcd"),
        ({"relations": ["calls"]}, "abc"),
        ({"relations": ["calls", "imports"]}, "abcd"),
        ({"relations": []}, "ab"),
        ({"successors": False}, "acd"),
        ({"relations": ["imports"], "successors": False}, "ad"),
        ({"relations": [], "successors": False}, "a"),
    ],
)
def test_only_the_chosen_links_keep(store, options, kept):
    d = put(store, "abcd")
    store.link(d["a"], d["b"])
    store.add_link(d["a"], d["c"], "calls")
    store.add_link(d["a"], d["d"], "imports")
    store.sweep([d["a"]], **options)
    assert named(store, store.digests()) == kept
    assert named(store, store.neighbours(d["a"])) == "bcd"  # links from what stays all stay


def test_chains_lead_on_through_what_is_not_stored(store):
    d = put(store, "ac")
    gap, lost = store.digest(b"b"), store.digest(b"z")
    store.link_many([d["a"], gap, lost], [gap, d["c"], d["c"]])
    assert len(store.sweep([d["a"]])) == 0
    assert store.statistics()["successors"] == 2  # what nothing leads to keeps no links
    store.compact()
    assert store.statistics()["placeholders"] == 1
    assert named(store, store.sweep([gap])) == "a"


def test_a_dry_run_changes_nothing(store):
    d = put(store, "abc")
    store.commit()
    store.link(d["a"], d["b"])
    pending = store.statistics()
    assert named(store, store.sweep([d["a"]], dry_run=True)) == "c"
    assert store.statistics() == pending
    store.rollback()
    assert named(store, store.sweep([d["a"]], dry_run=True)) == "bc"
    assert named(store, store.digests()) == "abc"


def test_a_sweep_commits_what_is_pending_and_itself(store, backend):
    d = put(store, "abc")
    store.link(d["a"], d["b"])
    store.sweep([d["a"]])
    store.rollback()
    assert named(store, store.digests()) == "ab"
    assert named(store, MemoryStore(backend=backend).digests()) == "ab"


def test_without_roots_everything_goes(store):
    put(store, "abc")
    assert named(store, store.sweep([])) == "abc"
    assert len(store) == 0
    assert len(store.sweep([])) == 0


def test_roots_and_relations_that_are_not_there_are_errors(store):
    d = put(store, "abc")
    with pytest.raises(RecordNotFound, match=r"roots\[1\].*is not stored"):
        store.sweep([d["a"], store.digest(b"x")])
    with pytest.raises(KeyError, match="no relation is called 'cals'"):
        store.sweep([d["a"]], relations=["cals"])
    with pytest.raises(ValueError, match="digest"):
        store.sweep([b"short"])
    assert len(store) == 3


def test_a_readonly_store_is_only_looked_at(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        d = put(store, "ab")
    with MemoryStore(tmp_path / "store", readonly=True) as store:
        assert named(store, store.sweep([d["a"]], dry_run=True)) == "b"
        for change in (lambda: store.sweep([d["a"]]), store.erase):
            with pytest.raises(StoreError, match="read-only"):
                change()
        assert len(store) == 2


def test_damaged_links_keep_everything(backend):
    store = MemoryStore(backend=backend)
    d = put(store, "abc")
    store.add_link(d["a"], d["b"])
    store.commit()
    with backend.write() as transaction:
        number = pack_number(next(transaction.keys(pack_prefix(1, EDGES))))
        transaction.put(body_key(1, EDGES, number), bytes(16))
    damaged = MemoryStore(backend=backend)
    with pytest.raises(CorruptStoreError, match="what their links keep would be deleted"):
        damaged.sweep([d["a"]])
    assert len(MemoryStore(backend=backend)) == 3


def test_what_others_committed_counts(backend):
    """The sweeper has not seen any of it when it begins."""
    store, other = MemoryStore(backend=backend), MemoryStore(backend=backend)
    d = put(store, "abc")
    store.commit()
    other.refresh()
    other.link(d["a"], d["b"])
    new = other.put(b"d")
    other.link(d["b"], new)
    other.commit()
    assert named(store, store.sweep([d["a"]])) == "c"
    other.refresh()
    assert named(other, other.digests()) == "abd"


def test_what_others_commit_later_is_there(backend):
    store, other = MemoryStore(backend=backend), MemoryStore(backend=backend)
    d = put(store, "ab")
    store.commit()
    new = other.put(b"d")
    other.link(new, d["b"])
    store.sweep([d["a"]])
    other.commit()
    assert named(other, other.digests()) == "ad"
    assert bytes(other.hop(new, 1)[0][0]) == d["b"]  # swept before it was linked to: not stored
    store.refresh()
    assert named(store, store.digests()) == "ad"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_put_again_and_committed_is_there(backend, kind):
    """A record was garbage when it was put again, and is swept before the commit."""
    store, other = MemoryStore(backend=backend), MemoryStore(backend=backend)
    d = put(store, "abc")
    store.commit()
    other.refresh()
    content = bytearray(b"b")
    assert bytes(other.put_many([kind(content)], [{"new": 1}])[0]) == d["b"]
    content[:] = b"x"
    other.link(d["a"], d["b"])
    other.put(b"c")
    other.delete(d["c"])  # the last word of this handle
    assert named(store, store.sweep([d["a"]])) == "bc"
    other.commit()
    store.refresh()
    for one in (store, other):
        assert named(one, one.digests()) == "ab"
        assert one[d["b"]] == b"b"
        assert one.metadata(d["b"]) == {"new": 1}
        assert named(one, one.neighbours(d["a"])) == "b"
    other.put(b"a")
    store.sweep([])
    other.rollback()
    other.commit()
    other.refresh()
    assert len(other) == 0


def test_a_put_alone_keeps_what_is_swept_before_its_commit(backend):
    store, other = MemoryStore(backend=backend), MemoryStore(backend=backend)
    put(store, "a")
    store.commit()
    other.refresh()
    for _ in range(2):
        other.put(b"a")
        other.commit()
        assert not other.refresh()  # nothing was written
    other.put(b"a")
    store.sweep([])
    other.commit()
    store.refresh()
    assert named(store, store.digests()) == "a"
    store.sweep([])  # after that commit it goes
    other.commit()
    other.refresh()
    assert len(other) == 0


def test_nobody_commits_between_marking_and_deleting(backend, monkeypatch):
    """A commit that is begun while the sweep marks is made after it."""
    store, other = MemoryStore(backend=backend), MemoryStore(backend=backend)
    d = put(store, "ab")
    store.commit()
    other.refresh()
    other.put(b"d")
    began: list[threading.Thread] = []
    from hashmem.store import space

    def marked(*arguments, before=space._marked):
        if not began:
            began.append(threading.Thread(target=other.commit))
            began[0].start()
            began[0].join(0.1)
            assert began[0].is_alive()  # it waits
        return before(*arguments)

    monkeypatch.setattr(space, "_marked", marked)
    assert named(store, store.sweep([d["a"]])) == "b"
    began[0].join()
    store.refresh()
    assert named(store, store.digests()) == "ad"


def test_a_sweep_that_fails_leaves_everything(store, monkeypatch):
    d = put(store, "abc")
    store.link(d["a"], d["b"])

    def refuse(*_):
        raise StoreError("no room")

    from hashmem.store.state import State

    real = State.write
    store.commit()
    monkeypatch.setattr(State, "write", refuse)
    with pytest.raises(StoreError, match="no room"):
        store.sweep([d["a"]])
    monkeypatch.setattr(State, "write", real)
    assert named(store, store.digests()) == "abc"
    assert not store.statistics()["pending"]
    assert store.metadata(d["c"]) == {"is": "c"}
    assert named(store, store.sweep([d["a"]])) == "c"


def sweep_view(view: View, roots: list[int], relations: list[str] | None, successors: bool) -> None:
    """Sweep the model, the naive way."""
    targets: dict[int, set[int]] = {}
    for source, relation, target in view.edges:
        if relations is None or relation in relations:
            targets.setdefault(source, set()).add(target)
    for source, target in view.successors.items() if successors else ():
        targets.setdefault(source, set()).add(target)
    reached = set(roots)
    for root in roots:
        reached |= set(spread(targets, root, 50))
    for i in view.records - reached:
        view.metadata.pop(i, None)
        drop_values(view, i)
    view.records &= reached
    view.successors = {s: t for s, t in view.successors.items() if s in reached}
    view.edges = {edge for edge in view.edges if edge[0] in reached}


class Sweeping:
    """Sweeps, erasures and dry runs among all else that two handles do."""

    @rule(
        which=handle,
        roots=some,
        relations=st.none() | st.lists(st.sampled_from(RELATIONS), unique=True),
        successors=st.booleans(),
        dry_run=st.booleans(),
    )
    def sweep(self, which, roots, relations, successors, dry_run):
        h: Handle = self.handles[which]
        if not dry_run:
            h.store.commit()
            self.committed_by(h)
        h.store.refresh()
        h.catch_up(self.committed)
        known = h.store.statistics()["relations"]
        if relations is not None:
            relations = [name for name in relations if name in known]
        view = deepcopy(h.view)
        roots = [i for i in roots if i in view.records]
        sweep_view(view, roots, relations, successors)
        gone = h.store.sweep(
            [self.digests[i] for i in roots],
            relations=relations, successors=successors, dry_run=dry_run,
        )  # fmt: skip
        assert sorted(self.places(gone)) == sorted(h.view.records - view.records)
        if not dry_run:
            self.committed = view
            h.catch_up(view)

    @rule(which=handle)
    def erase(self, which):
        h = self.handles[which]
        self.compact_by(h)

    def compact_by(self, h: Handle) -> None:
        h.store.erase(timeout=0)
        self.committed_by(h)
        for column in self.committed.columns.values():
            for i in set(column) - self.committed.records:
                del column[i]
        h.catch_up(self.committed)


class SweepingRam(Sweeping, StoreMachine):
    pass


class SweepingLmdb(Sweeping, LmdbMachine):
    pass


TestSweepingRam = machine_case(SweepingRam, 30)
TestSweepingLmdb = machine_case(SweepingLmdb, 15)


# -- erasing --------------------------------------------------------------------------------------


def raw(path: Path) -> bytes:
    """Every byte of every file of a store."""
    return b"\n".join(file.read_bytes() for file in sorted(path.iterdir()))


def holds(path: Path, *what: bytes) -> list[bool]:
    """Which of `what` a raw file of the store holds, by beginning, middle or end."""
    everything = raw(path)
    return [
        any(part in everything for part in (w[:48], w[len(w) // 2 :][:48], w[-48:])) for w in what
    ]


def unlike(size: int) -> bytes:
    """A content that nothing else looks like."""
    return os.urandom(max(size, 24))


SIZES = [24, 100, 2000, 5000, 100_000, (4 << 20) - 1, 9 << 20]


@pytest.mark.parametrize("how", ["one commit", "many commits", "compacted", "another process"])
def test_no_file_holds_what_was_erased(tmp_path, how):
    path = tmp_path / "store"
    kept, gone = [unlike(n) for n in SIZES], [unlike(n) for n in SIZES]
    said = [unlike(30).hex() for _ in SIZES]
    with MemoryStore(path) as store:
        lost = []
        for i, one in enumerate(gone):
            lost.append(store.put(one, {"said": said[i]}))
            if how == "many commits":
                store.put_many([b"%d %d" % (i, j) for j in range(40)])
                for _ in range(12):  # small packs that are merged
                    lost.append(store.put(unlike(50)))
                    store.commit()
        digests = store.put_many(kept)
        store.link_many(digests[:-1], digests[1:])
        store.link(digests[-1], lost[0])  # keeps that digest, not its content
        store.write_column("vector", lost[:7], np.full((7, 4), 1.2345e67))
        if how == "compacted":
            store.compact()
        store.commit()
        secrets = [*gone, *[s.encode() for s in said], np.full(2, 1.2345e67).tobytes(), *lost[1:]]
        assert all(holds(path, *kept, *secrets, lost[0]))
        store.delete_many(lost)
        store.commit()
        assert any(holds(path, *secrets))  # a deletion alone leaves it in the file
        if how == "another process":
            eraser = "import sys, hashmem; hashmem.MemoryStore(sys.argv[1]).erase()"
            subprocess.run([sys.executable, "-P", "-c", eraser, path], check=True)
        else:
            store.erase()
        assert not any(holds(path, *secrets))
        assert all(holds(path, *kept, lost[0]))
        assert list(store.get_many(digests, verify=True)) == kept
        assert list(store.get_many(lost)) == [None] * len(lost)
        assert store.verify().ok
        assert not any(holds(path, *secrets))
        assert len(list(path.glob("*.mdb"))) == 1
        assert not (path / "ERASE").exists()


def test_what_was_replaced_or_never_committed_is_in_no_file(tmp_path):
    path = tmp_path / "store"
    old, new, never, later = (unlike(30).hex() for _ in range(4))
    with MemoryStore(path) as store:
        digest = store.put(b"record", {"said": old})
        store.commit()
        store.set_metadata(digest, [{"said": new}])
        store.commit()
        rolled = [unlike(size) for size in (24, 3000, 1 << 20)]
        store.put_many(rolled, [{"said": never}] * 3)
        store.rollback()
        interrupted = [unlike(size) for size in (24, 3000, 1 << 20)]
        with suppress(KeyboardInterrupt), store._backend.write() as transaction:
            for i, content in enumerate(interrupted):
                transaction.put(b"x%d" % i, content)
            raise KeyboardInterrupt
        store.erase()
        store.put_many([b"%d" % i for i in range(2000)], [{"said": later}] * 2000)
        store.commit()  # nor does memory that was used before get into a page
        assert store.metadata(digest) == {"said": new}
        secrets = [old.encode(), never.encode(), *rolled, *interrupted]
        assert holds(path, new.encode(), *secrets) == [True] + [False] * len(secrets)


def test_a_swept_record_can_be_erased(tmp_path):
    path = tmp_path / "store"
    contents = [unlike(500) for _ in range(50)]
    with MemoryStore(path) as store:
        digests = store.put_many(contents)
        store.link_many(digests[:9], digests[1:10])
        assert len(store.sweep(digests[0])) == 40
        store.erase()
        assert all(holds(path, *contents[:10]))
        assert not any(holds(path, *contents[10:], *map(bytes, digests[10:])))


def test_the_old_file_itself_is_overwritten(tmp_path):
    """Not only unlinked: seen through a descriptor that was open before."""
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digest = store.put(unlike(3 << 20))
        store.commit()
        with open(path / "000001.mdb", "rb") as file:
            store.delete(digest)
            store.erase()
            left = file.read()
    assert len(left) > 3 << 20
    assert not left[2 * 4096 :].strip(b"\0")
    assert digest not in left


READER = """
import sys
from hashmem import MemoryStore
store = MemoryStore(sys.argv[1], readonly=sys.argv[2] == "readonly")
digests = store.digests()
held = store.get_many(digests)
print("holds", flush=True)
sys.stdin.readline()
assert held[0] == b"kept", held[0]
assert len(held[1]) == 100_000
held.close()
print("idle", flush=True)
sys.stdin.readline()
assert list(store.get_many(digests)) == [b"kept", None]
assert store.metadata_many(digests) == [{"a": 1}, None]
assert store.verify().ok
assert store.statistics()["storage_bytes"] < 100_000
print("done", flush=True)
"""


@pytest.mark.parametrize("mode", ["readonly", "writable"])
def test_who_reads_elsewhere_is_waited_for_and_finds_the_new_file(tmp_path, mode):
    path = tmp_path / "store"
    secret = unlike(100_000)
    with MemoryStore(path) as store:
        kept, gone = store.put_many([b"kept", secret], [{"a": 1}, None])
        store.commit()
        reader = subprocess.Popen(
            [sys.executable, "-P", "-c", READER, path, mode],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert reader.stdout.readline() == "holds\n"
        store.delete(bytes(gone))
        with pytest.raises(StoreError, match=f"read by process {reader.pid}: 1 snapshot: nothing"):
            store.erase(timeout=0.05)
        assert store[bytes(kept)] == b"kept"
        assert bytes(gone) not in store
        assert holds(path, secret) == [True]
        store.put(b"more")
        store.commit()  # goes on
        with MemoryStore(path, namespace="later") as later:  # its opening sweeps what it can
            later.put(b"a")
        assert holds(path, secret) == [True]
        print(file=reader.stdin, flush=True)
        assert reader.stdout.readline() == "idle\n"
        store.erase(timeout=5)
        assert holds(path, secret) == [False]
        print(file=reader.stdin, flush=True)
        assert reader.stdout.readline() == "done\n"
        assert reader.wait() == 0


def test_waiting_ends_as_soon_as_nobody_reads(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store, MemoryStore(path) as other:
        gone = store.put(unlike(5000))
        store.commit()
        records = other.get_many(other.digests())
        timer = threading.Timer(0.2, records.close)
        timer.start()
        store.delete(gone)
        start = time.monotonic()
        store.erase(timeout=60)
        assert 0.1 < time.monotonic() - start < 30
        timer.join()
        assert not holds(path, gone)[0]
        assert list(other.get_many(gone)) == [None]


def test_what_an_erasure_could_not_overwrite_is_at_the_next_opening(tmp_path):
    path = tmp_path / "store"
    secret = unlike(5000)
    with MemoryStore(path) as store:
        gone = store.put(secret)
        store.commit()
        with store.get_many(gone) as records:
            store.delete(gone)
            with pytest.raises(StoreError, match="this one"):
                store.erase(timeout=0)
            assert records[0] == secret
    assert holds(path, secret) == [True]
    with open(path / "000001.mdb", "rb") as file, MemoryStore(path, readonly=True) as store:
        assert len(store) == 0
        assert holds(path, secret) == [True]  # a reader changes nothing
        store.close()
        MemoryStore(path).close()
        assert not file.read()[2 * 4096 :].strip(b"\0")
    assert holds(path, secret) == [False]
    assert sorted(file.name for file in path.iterdir()) == [
        "000002.mdb", "000002.mdb-lock", "CURRENT", "LOCK",
    ]  # fmt: skip


def test_what_lies_beside_a_generation_goes_with_it(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        store.put(b"a")
        store.commit()
        beside = path / "000001-0-000000000012.rows"
        beside.write_bytes(b"digests " * 9000)
        store.erase()
        assert not beside.exists()


def test_a_new_file_that_is_given_up_is_overwritten_too(tmp_path, monkeypatch):
    """It holds copies of what may be deleted later."""
    from hashmem.store import handle

    path = tmp_path / "store"
    with MemoryStore(path) as store:
        opened = []

        def fail(reader, transaction, *_):
            transaction.put(b"x", unlike(100_000))
            opened.append(open(path / "000002.mdb", "rb"))  # noqa: SIM115 closed below
            raise StoreError("no room")

        store.put(b"kept")
        monkeypatch.setattr(handle, "compact", fail)
        for _ in range(2):
            with pytest.raises(StoreError, match="no room"):
                store.erase()
        (path / "000002.mdb").write_bytes(b"left by one that was killed")
        opened.append(open(path / "000002.mdb", "rb"))  # noqa: SIM115 closed below
        monkeypatch.undo()
        store.erase()
        for file in opened:
            with file:
                assert not file.read().strip(b"\0")
        assert len(store) == 1
        assert not (path / "ERASE").exists()


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_is_a_time(store, timeout):
    with pytest.raises(ValueError, match="timeout"):
        store.erase(timeout=timeout)


def test_other_handles_of_this_process_go_on_while_it_is_erased(tmp_path):
    """Other handles here are idle on the old file, and readers come all the time."""
    path = tmp_path / "store"
    contents = [unlike(3000) for _ in range(60)]
    with MemoryStore(path) as store:
        digests = store.put_many(contents)
    stop, failed = threading.Event(), []

    def read():
        try:
            with MemoryStore(path) as reader:
                while not stop.is_set():
                    found = list(reader.get_many(digests[::2], verify=True))
                    if found != contents[::2]:
                        failed.append(found)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with MemoryStore(path) as store:
            for i in range(1, 21, 2):
                store.delete(bytes(digests[i]))
                store.erase(timeout=60)
                assert holds(path, contents[i]) == [False]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


READ_ON = """
import sys
import numpy as np
from hashmem import MemoryStore
store = MemoryStore(sys.argv[1], readonly=True)
digests = store.digests()
kept = digests[::2]
contents = list(store.get_many(kept, verify=True))
print("reads", flush=True)
rounds = 0
while MemoryStore(sys.argv[1], readonly=True).metadata(bytes(kept[0])) is None:
    assert list(store.get_many(kept, verify=True)) == contents
    assert store.contains(kept).all()
    rounds += 1
print(rounds)
"""


def test_readers_in_other_processes_go_on_while_it_is_erased(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digests = store.put_many([unlike(3000) for _ in range(60)])
        store.commit()
        reader = subprocess.Popen(
            [sys.executable, "-P", "-c", READ_ON, path], stdout=subprocess.PIPE, text=True
        )
        try:
            assert reader.stdout.readline() == "reads\n"
            for i in range(1, 61, 2):
                store.delete(bytes(digests[i]))
                store.erase(timeout=60)
            store.set_metadata(digests[0], [{"end": True}])
            store.commit()
            assert int(reader.stdout.readline()) > 0
            assert reader.wait() == 0
        finally:
            reader.kill()


ERASE_FOR_EVER = """
import sys
from hashmem import MemoryStore
store = MemoryStore(sys.argv[1])
kept = store.put_many([b"kept %d " % i * 50 for i in range(100)])
turn = int(sys.argv[2])
while True:
    secret = b"secret %d " % turn * 5000
    digest = store.put(secret)
    store.commit()
    store.delete(digest)
    store.commit()
    print("deleted", turn, flush=True)
    store.erase()
    print("erased", turn, flush=True)
    turn += 1
"""


def kill_erasers(path: Path, cycles: int, seed: int) -> int:
    """Kill a process that erases, at random; return how often it left something to overwrite."""
    random = np.random.default_rng(seed)
    left = 0
    for cycle in range(cycles):
        eraser = subprocess.Popen(
            [sys.executable, "-P", "-c", ERASE_FOR_EVER, path, str(1000 * cycle)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        told = [eraser.stdout.readline()]
        time.sleep(random.uniform(0, 0.08))
        eraser.send_signal(signal.SIGKILL)
        told += eraser.stdout.read().splitlines(keepends=True)
        eraser.wait()
        erased = {line.split()[1] for line in told if line.startswith("erased")}
        left += (path / "ERASE").exists()
        with MemoryStore(path) as store:
            assert store.verify().ok
            contents = [b"kept %d " % i * 50 for i in range(100)]
            digests = [store.digest(content) for content in contents]
            assert list(store.get_many(digests)) == contents
            everything = raw(path)
            for turn in erased:
                assert b"secret %s " % turn.encode() not in everything
            store.sweep(digests)  # it may have been killed before it deleted what it had put
            store.erase()
        assert b"secret" not in raw(path)
        names = {file.name.removesuffix("-lock") for file in path.iterdir()} - {"CURRENT.new"}
        assert len(names) == 3  # one generation, CURRENT, LOCK
    return left


def test_a_killed_eraser_leaves_a_store_and_nothing_erased(tmp_path):
    kill_erasers(tmp_path / "store", 8, seed=1)


@pytest.mark.campaign
def test_many_killed_erasers(tmp_path):
    assert kill_erasers(tmp_path / "store", 200, seed=2) > 10


STEPS = ["half written", "written", "in use", "emptied", "half overwritten"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(tmp_path, step):
    """What each step of an erasure leaves behind, when nothing after it happens."""
    path = tmp_path / "store"
    secret, kept = unlike(300_000), unlike(300_000)

    child = os.fork()
    if child == 0:
        try:
            from hashmem.store import handle, lmdb, lmdb_erase

            store = MemoryStore(path)
            gone = store.put_many([secret, kept])[0]
            store.commit()
            store.delete(bytes(gone))
            store.commit()

            def exit_now(*_, **__):
                os._exit(0)

            def overwrite_half(file, start=0):
                opened = os.open(file, os.O_WRONLY)
                os.pwrite(opened, bytes(os.path.getsize(file) // 2 - start), start)
                os._exit(0)

            if step == "half written":
                handle.compact = lambda reader, transaction, *_: (
                    transaction.put(b"x", kept),
                    os._exit(0),
                )
            elif step == "written":
                lmdb._point_at = exit_now
            elif step == "in use":
                lmdb.LmdbBackend._erase = exit_now
            elif step == "emptied":
                lmdb_erase.overwrite = exit_now
            else:
                lmdb_erase.overwrite = overwrite_half
            store.erase()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert (path / "ERASE").exists()
    with MemoryStore(path) as store:
        assert store.verify().ok
        assert list(store.get_many([store.digest(kept), store.digest(secret)])) == [kept, None]
        left = sorted(file.name for file in path.iterdir())
        generation = "000001.mdb" if step in STEPS[:2] else "000002.mdb"
        assert left == [generation, f"{generation}-lock", "CURRENT", "LOCK"]
        assert holds(path, secret) == [step in STEPS[:2]]
        store.erase()
        assert holds(path, secret, kept) == [False, True]


def test_what_a_power_cut_left_of_a_new_file_is_not_opened(tmp_path):
    """Its meta page may name pages that never reached the disk, and LMDB would abort."""
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digests = store.put_many([unlike(10_000) for _ in range(30)])
    broken = bytearray((path / "000001.mdb").read_bytes())
    broken[8192:] = bytes(len(broken) - 8192)
    for name in ("000002.mdb", "000000.mdb"):
        (path / name).write_bytes(broken)
    (path / "ERASE").touch()
    child = os.fork()
    if child == 0:
        try:
            MemoryStore(path).close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not any((path / name).exists() for name in ("000000.mdb", "000002.mdb", "ERASE"))
    with MemoryStore(path) as store:
        assert store.contains(digests).all()
