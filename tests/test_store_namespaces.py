"""Namespaces: what one holds shows in no other, and a dropped one is out of reach at once."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore, digest
from hashmem.digests import WIDTHS
from hashmem.errors import RecordNotFound, StoreError
from hashmem.store.layout import Info
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.ram import RamBackend

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # the bench is no part of the package

from bench.reliability import namespaces as bench  # noqa: E402 needs the path
from bench.reliability.store_campaigns import fewer  # noqa: E402


@pytest.fixture(params=["ram", "lmdb"])
def backend(request, tmp_path):
    made = RamBackend() if request.param == "ram" else LmdbBackend(tmp_path / "store")
    yield made
    made.close()


# -- digests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", WIDTHS)
def test_the_same_content_has_another_digest_in_each(backend, algorithm):
    content = b"the same in all"
    stores = [
        MemoryStore(backend=backend, algorithm=algorithm, namespace=name)
        for name in ("", "one", "two")
    ]
    digests = [store.put(content) for store in stores]
    assert digests[0] == digest(content, algorithm)
    assert len(set(digests)) == 3
    assert {len(d) for d in digests} == {WIDTHS[algorithm]}
    for store, own in zip(stores, digests, strict=True):
        assert store.digest(content) == own
        assert store.contains(digests).tolist() == [d == own for d in digests]
        assert list(store.get_many(digests, verify=True)) == [
            content if d == own else None for d in digests
        ]
        store.commit()
        assert store.verify().ok


def test_two_stores_do_not_share_keys(tmp_path):
    first, second = (MemoryStore(tmp_path / name, namespace="a") for name in "ab")
    assert first.digest(b"x") != second.digest(b"x")
    first.close()
    second.close()


def test_a_namespace_keeps_its_key(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path, namespace="a") as store:
        of = store.put(b"content")
    code = (
        "import sys, hashmem; store = hashmem.MemoryStore(sys.argv[1], namespace='a')\n"
        "print(store.digest(b'content').hex())"
    )
    for change in (MemoryStore.compact, MemoryStore.erase, MemoryStore.commit):
        shown = subprocess.run(
            [sys.executable, "-P", "-c", code, path], check=True, capture_output=True, text=True
        )
        assert shown.stdout == of.hex() + "\n"
        with MemoryStore(path, namespace="a", readonly=True) as store:
            assert store[of] == b"content"
            assert store.verify().ok
        with MemoryStore(path) as store:
            store.put(b"another")
            change(store)


def test_a_namespace_made_by_two_at_once_has_one_key(tmp_path):
    code = (
        "import sys, hashmem; store = hashmem.MemoryStore(sys.argv[1], namespace='a')\n"
        "print(store.put(b'content').hex()); store.close()"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", code, tmp_path / "store"], stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({maker.communicate()[0] for maker in makers}) == 1
    with MemoryStore(tmp_path / "store", namespace="a") as store:
        assert len(store) == 1


def test_plain_digests_are_there_for_who_asks(backend):
    with_plain = MemoryStore(backend=backend, namespace="plain", plain_digests=True)
    assert with_plain.put(b"content") == digest(b"content")
    with_plain.commit()
    again = MemoryStore(backend=backend, namespace="plain")
    assert again[digest(b"content")] == b"content"
    unnamed = MemoryStore(backend=backend, plain_digests=True)
    assert unnamed.digest(b"a") == digest(b"a")
    own = MemoryStore(backend=backend, namespace="own")
    assert own.digest(b"a") != digest(b"a")
    with pytest.raises(ValueError, match="'own' has keyed digests, not plain ones"):
        MemoryStore(backend=backend, namespace="own", plain_digests=True)
    with pytest.raises(ValueError, match="'own' has a key of its own: leave the key out"):
        MemoryStore(backend=backend, namespace="own", key=b"mine")
    with pytest.raises(ValueError, match="'plain' has no key: leave the key out"):
        MemoryStore(backend=backend, namespace="plain", key=b"mine")
    with pytest.raises(ValueError, match="not both"):
        MemoryStore(backend=backend, namespace="new", key=b"mine", plain_digests=True)
    assert again.namespaces() == ["", "own", "plain"]


def test_a_record_from_before_own_keys_has_plain_digests(backend):
    made = MemoryStore(backend=backend, namespace="old")
    assert made.digest(b"content") != digest(b"content")
    with backend.snapshot() as reader:
        (key,) = reader.keys(b"n")
        record = msgpack.unpackb(reader.get(key)[9:])  # behind mark and checksum
    assert len(record.pop("own_key")) == 32
    with backend.write() as transaction:
        transaction.put(key, msgpack.packb(record))
        assert Info.read(transaction, 1).own_key == b""
    store = MemoryStore(backend=backend, namespace="old")
    assert store.put(b"content") == digest(b"content")
    store.commit()
    store.compact()
    again = MemoryStore(backend=backend, namespace="old")
    assert again[digest(b"content")] == b"content"


def test_a_key_that_was_given_is_in_no_file(tmp_path):
    key = os.urandom(32)
    with MemoryStore(tmp_path / "store", namespace="a", key=key) as store:
        assert store.put(b"content") == digest(b"content", key=key)
        store.commit()
        store.compact()
        assert key not in b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir())
    with MemoryStore(tmp_path / "store", namespace="a", key=key) as store:
        assert len(store) == 1


def test_a_forked_child_has_the_key(tmp_path):
    store = MemoryStore(tmp_path / "store", namespace="a")
    of = store.put(b"content")
    store.commit()
    child = os.fork()
    if child == 0:
        try:
            good = store[of] == b"content" and store.digest(b"content") == of
            os._exit(0 if good else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.close()


# -- what one holds shows in no other -------------------------------------------------------------

POOL = [b"", b"a", b"b" * 40, b"c" * 3000, *[b"%d" % i for i in range(8)]]
some = st.lists(st.sampled_from(POOL), max_size=8)
ELSEWHERE = {"path", "storage_bytes"}  # of the whole store: docs say so


def seen(store: MemoryStore, puts: list[bytes], links: list[bytes], asked: list[bytes]) -> list:
    """All that a user of one namespace gets to see while working on it."""
    shown = [len(store), store.put_many(puts).tolist(), len(store)]
    store.commit()
    linked = [store.digest(content) for content in links]
    for a, b in pairwise(linked):
        store.link(a, b)
        store.add_link(b, a, "back")
    digests = [store.digest(content) for content in asked]
    with store.get_many(digests, verify=True) as records:
        shown += [list(records), records.lengths.tolist()]
    stored = [d for d in digests if d in store]
    store.write_column("size", stored, np.ones((len(stored), 1)))
    store.set_metadata(stored, [{"i": i} for i in range(len(stored))])
    shown += [store.contains(digests).tolist(), store.metadata_many(digests), store.columns]
    shown += [[d.tolist() for d in store.hop(digests, 2)], store.neighbours(digests, 9).tolist()]
    shown += [store.parents(digests, 9).tolist(), store.digests().tolist()]
    shown.append({k: v for k, v in store.statistics().items() if k not in ELSEWHERE})
    store.commit()
    store.compact()
    shown += [store.verify().to_dict(), store.sweep(stored[:2]).tolist()]
    shown.append(store.delete_many(digests).tolist())
    shown.append({k: v for k, v in store.statistics().items() if k not in ELSEWHERE})
    return shown


def told(elsewhere: list[bytes], kind: dict, *work: list[bytes]) -> list:
    """What `seen` shows in a namespace when another one holds `elsewhere`."""
    backend = RamBackend()
    other = MemoryStore(backend=backend, namespace="other", **kind)
    digests = other.put_many(elsewhere)
    other.link_many(digests[:-1], digests[1:])
    other.add_links(digests[:-1], digests[1:], "other's")
    other.write_column("other's", digests, np.ones((len(digests), 2)))
    other.commit()
    store = MemoryStore(backend=backend, namespace="mine", key=b"the same each time")
    return seen(store, *work)


@settings(deadline=None, max_examples=fewer(60))
@given(
    elsewhere=some, puts=some, links=some, asked=some,
    kind=st.sampled_from([{}, {"plain_digests": True}, {"key": b"other"}]),
)  # fmt: skip
def test_what_another_holds_changes_nothing(elsewhere, puts, links, asked, kind):
    empty = told([], kind, puts, links, asked)
    assert told(elsewhere, kind, puts, links, asked) == empty
    assert told(puts, kind, puts, links, asked) == empty


def test_anothers_digests_lead_nowhere(backend):
    other = MemoryStore(backend=backend, namespace="other")
    a, b = map(bytes, other.put_many([b"a", b"b"], [{"x": 1}, None]))
    other.link(a, b)
    other.commit()
    store = MemoryStore(backend=backend, namespace="mine")
    store.put(b"a")
    assert store.get(a) is None
    assert a not in store
    assert store.metadata(a) is None
    assert not store.hop(a, 1)[1].any()
    assert not store.delete(a)
    for found in (store.trace(a), store.neighbours(a), store.parents(b), store.shortest(a, b)):
        assert len(found) == 0
    with pytest.raises(RecordNotFound):
        store.sweep([a])
    with pytest.raises(RecordNotFound):
        store.set_metadata([a], [{}])
    assert len(store.sweep([])) == 1
    other.refresh()
    assert list(other.get_many([a, b])) == [b"a", b"b"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2), st.lists(st.integers(0, 9), min_size=2))
def test_samples_are_compared_by_every_pair(first, second):
    found = bench.compared(np.array(first), np.array(second))
    pairs = [(a > b) + (a == b) / 2 for a in first for b in second]
    assert found["auc"] == pytest.approx(sum(pairs) / len(pairs))
    assert found["low"] <= found["auc"] <= found["high"]
    turned = bench.compared(np.array(second), np.array(first))
    assert turned["p"] == pytest.approx(found["p"])
    assert turned["auc"] == pytest.approx(1 - found["auc"])


def test_a_comparison_tells_a_shift_and_nothing_else():
    random = np.random.default_rng(1)
    same = [bench.compared(*random.normal(size=(2, 500)))["p"] for _ in range(200)]
    assert 0.01 <= np.mean(np.array(same) < 0.05) <= 0.1
    assert bench.compared(random.normal(size=500), random.normal(0.5, 1, 500))["p"] < 1e-6
    known = bench.compared(np.arange(5), np.array([2.5, 3.5, 6, 7, 8]))  # as SciPy has it
    assert known["p"] == pytest.approx(0.0472, abs=1e-4)
    assert known["auc"] == pytest.approx(0.12)


def test_what_is_put_tells_nothing_but_within_a_namespace(tmp_path):
    """The deterministic part of what `bench.reliability.namespaces` measures."""
    apart = bench.one_round(tmp_path / "apart", 1, 300, same=False)
    held, free = apart["changes of counts"]
    assert held
    assert set(held) == set(free)
    assert apart["digests in common"] == 0
    within = bench.one_round(tmp_path / "within", 1, 300, same=True)
    held, free = within["changes of counts"]
    assert not set(held) & set(free)
    assert within["digests in common"] == 300


# -- dropping -------------------------------------------------------------------------------------

CALLS = {
    "get": lambda store, d: store.get(d),
    "get of what is not there": lambda store, d: store.get(bytes(len(d))),
    "getitem": lambda store, d: store[d],
    "get_many": lambda store, d: store.get_many([d]),
    "contains": lambda store, d: store.contains([d]),
    "in": lambda store, d: d in store,
    "len": lambda store, d: len(store),
    "digests": lambda store, d: store.digests(),
    "iter": lambda store, d: list(store),
    "metadata": lambda store, d: store.metadata(d),
    "read_column": lambda store, d: store.read_column("v"),
    "columns": lambda store, d: store.columns,
    "hop": lambda store, d: store.hop(d, 1),
    "trace": lambda store, d: store.trace(d),
    "neighbours": lambda store, d: store.neighbours(d),
    "parents": lambda store, d: store.parents(d),
    "shortest": lambda store, d: store.shortest(d, d),
    "statistics": lambda store, d: store.statistics(),
    "verify": lambda store, d: store.verify(),
    "refresh": lambda store, d: store.refresh(),
    "sweep": lambda store, d: store.sweep([d]),
    "sweep, dry": lambda store, d: store.sweep([d], dry_run=True),
    "put": lambda store, d: (store.put(b"new"), store.commit()),
    "put again": lambda store, d: (store.put(b"content"), store.commit()),
    "set_metadata": lambda store, d: (store.set_metadata([d], [{"b": 2}]), store.commit()),
    "delete": lambda store, d: (store.delete(d), store.commit()),
    "link": lambda store, d: (store.link(d, d), store.commit()),
    "unlink": lambda store, d: (store.unlink([d]), store.commit()),
}
calls = pytest.mark.parametrize("call", CALLS)


def dropped(backend) -> tuple[MemoryStore, bytes, MemoryStore]:
    """A handle on a namespace that another handle has dropped, a digest, and that other."""
    store = MemoryStore(backend=backend, namespace="gone")
    of = store.put(b"content", {"a": 1})
    store.link(of, store.put(b"next"))
    store.write_column("v", [of], np.ones((1, 2)))
    store.commit()
    assert store[of] == b"content"
    keeper = MemoryStore(backend=backend, namespace="kept")
    keeper.put(b"kept")
    keeper.commit()
    keeper.drop_namespace("gone")
    return store, of, keeper


@calls
def test_a_dropped_namespace_is_out_of_reach_at_once(backend, call):
    store, of, keeper = dropped(backend)
    for _ in range(2):
        with pytest.raises(StoreError, match="namespace 'gone' has been dropped"):
            CALLS[call](store, of)
        store.rollback()
    assert len(keeper) == 1


@calls
def test_a_namespace_made_anew_under_the_name_is_another(backend, call):
    store, of, _ = dropped(backend)
    again = MemoryStore(backend=backend, namespace="gone")
    assert len(again) == 0
    assert again.digest(b"content") != of
    again.put(b"content")
    again.commit()
    with pytest.raises(StoreError, match="namespace 'gone' has been dropped"):
        CALLS[call](store, of)


WATCH = """
import sys
from hashmem import MemoryStore
from hashmem.errors import StoreError
store = MemoryStore(sys.argv[1], namespace="gone", readonly=sys.argv[2] == "readonly")
of = bytes(store.digests()[0])
assert store[of] == b"content"
print("has it", flush=True)
sys.stdin.readline()
reads = lambda: store[of], lambda: store.metadata(of), store.verify, store.refresh
looks = lambda: of in store, lambda: len(store), store.digests, lambda: store.trace(of)
for call in reads if sys.argv[3] == "reads" else looks:
    try:
        print("found", call())
    except StoreError as error:
        assert "dropped" in str(error)
store.close()
"""


@pytest.mark.parametrize("mode", ["readonly", "writable"])
@pytest.mark.parametrize("calls", ["reads", "looks"])
def test_a_dropped_namespace_is_out_of_reach_of_other_processes(tmp_path, mode, calls):
    path = tmp_path / "store"
    with MemoryStore(path, namespace="gone") as store:
        store.put(b"content")
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", WATCH, path, mode, calls],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "has it\n"
    with MemoryStore(path) as keeper:
        keeper.drop_namespace("gone")
    assert other.communicate("\n")[0] == ""
    assert other.returncode == 0


def test_a_forked_child_does_not_make_a_dropped_namespace_anew(tmp_path):
    backend = LmdbBackend(tmp_path / "store")
    store, of, keeper = dropped(backend)
    for names in (["kept"], ["gone", "kept"]):
        child = os.fork()
        if child == 0:
            try:
                store.get(of)
                os._exit(2)
            except StoreError as error:
                os._exit(0 if "dropped" in str(error) else 3)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert keeper.namespaces() == names
        MemoryStore(backend=LmdbBackend(tmp_path / "store"), namespace="gone").close()
    backend.close()


def test_results_taken_before_stay_until_they_are_closed(backend):
    store = MemoryStore(backend=backend, namespace="gone")
    of = store.put(b"content")
    store.commit()
    with store.get_many([of]) as records:
        MemoryStore(backend=backend).drop_namespace("gone")
        assert records[0] == b"content"


@pytest.mark.parametrize("key", [None, b"given"])
def test_no_file_holds_what_a_dropped_namespace_held(tmp_path, key):
    path = tmp_path / "store"
    contents = [os.urandom(size) for size in (30, 3000, 5 << 20)]
    said = os.urandom(20).hex()
    with MemoryStore(path, namespace="gone", key=key) as store:
        digests = list(map(bytes, store.put_many(contents, [{"said": said}] * 3)))
        store.commit()
        with store._backend.snapshot() as reader:
            own = Info.read(reader, 1).own_key
    secrets = [*contents, *digests, said.encode(), own or said.encode()]
    with MemoryStore(path, namespace="kept") as keeper:
        kept = keeper.put(b"kept " * 1000)
        keeper.drop_namespace("gone")
        before = b"".join(file.read_bytes() for file in path.iterdir())
        assert all(secret[:40] in before for secret in secrets)
        keeper.erase()
        after = b"".join(file.read_bytes() for file in path.iterdir())
        assert not any(secret[:40] in after for secret in secrets)
        assert b"gone" not in after
        assert keeper[kept] == b"kept " * 1000
        assert keeper.namespaces() == ["kept"]
