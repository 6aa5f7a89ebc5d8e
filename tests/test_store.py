"""A store given bad input, damaged bytes, and other handles; and how it grows."""

import itertools
import subprocess
import sys
from contextlib import closing, suppress

import msgpack
import numpy as np
import pytest

from hashmem import MemoryStore, digest_many
from hashmem.errors import (
    CorruptStoreError,
    RecordNotFound,
    StoreClosedError,
    StoreError,
    StoreFormatError,
)
from hashmem.store import packs
from hashmem.store.columns import Column
from hashmem.store.layout import (
    DIGESTS,
    EDGES,
    METADATA,
    PAYLOADS,
    SUCCESSORS,
    Catalogue,
    body_key,
    index_key,
    pack_prefix,
)  # fmt: skip
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.lmdb_environment import Environment
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.ram import RamBackend

PAYLOADS_PUT = [b"payload %d " % i * (i + 1) for i in range(20)]


@pytest.fixture(params=["ram", "lmdb"])
def backend(request, tmp_path):
    made = RamBackend() if request.param == "ram" else LmdbBackend(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def store(backend):
    return MemoryStore(backend=backend)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["text", 7, None, object(), 1.5])
@pytest.mark.parametrize("algorithm", ["sha256", "xxh3_128", "xxh3_64"])
@pytest.mark.parametrize("key", [None, b"key"])
def test_a_payload_of_another_type_is_named_and_nothing_stored(bad, algorithm, key):
    store = MemoryStore(algorithm=algorithm, key=key)
    with pytest.raises(TypeError, match=r"\[2\]"):
        store.put_many([b"a", b"b", bad])
    with pytest.raises(TypeError):
        store.put(bad)
    assert len(store) == 0
    assert store.statistics()["placeholders"] == 0


@pytest.mark.parametrize(
    "payload",
    [np.uint8(5), np.int64(3), np.float32(1), np.arange(6).reshape(2, 3), np.empty((0, 3)),
     bytearray(b"abc"), memoryview(b"abcdef")[::1], memoryview(np.arange(3, dtype=np.int32))],
)  # fmt: skip
def test_any_buffer_is_stored_as_its_bytes(store, payload):
    digest = store.put(payload)
    assert store[digest] == memoryview(payload).tobytes()
    assert digest == store.digest(store[digest])


def test_arrays_are_stored_row_by_row(store):
    for array in [np.arange(5, dtype=np.uint8), np.arange(12, dtype=np.int16).reshape(4, 3),
                  np.asfortranarray(np.arange(6.0).reshape(2, 3))]:  # fmt: skip
        digests = store.put_many(array)
        assert list(store.get_many(digests, verify=True)) == [row.tobytes() for row in array]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ([1], TypeError), (["x"], TypeError), ([{"a": object()}], TypeError),
        ([{"a": 2**70}], ValueError), ([{"a": "\ud800"}], ValueError), ([{(1, 2): 3}], TypeError),
        ([{"a": {(1, 2): 3}}], TypeError), ([{"a": np.int64(1)}], TypeError),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_read_back_is_refused(store, metadata, error):
    with pytest.raises(error, match=r"metadata\[1\]"):
        store.put_many([b"a", b"b"], [None, *metadata])
    assert len(store) == 0
    digest = store.put(b"a")
    with pytest.raises(error, match=r"metadata\[0\]"):
        store.set_metadata(digest, metadata)
    with pytest.raises(ValueError, match="maps of metadata"):
        store.put_many([b"a"], [None, None])
    store.commit()
    assert store.metadata(digest) is None


def test_a_row_of_a_batch_is_a_digest(store):
    digests = store.put_many([b"a", b"b"])
    assert store[digests[1]] == store.get(digests[1]) == b"b"
    assert digests[1] in store
    assert np.zeros(32, np.uint8) not in store
    assert store.delete(digests[1])
    assert len(store) == 1


@pytest.mark.parametrize(
    "wrong", [b"short", bytes(33), "00" * 32, 5, None, np.zeros((1, 31), np.uint8),
              np.zeros(31, np.uint8), np.zeros((1, 32), np.int8), [bytes(32), bytes(31)]]
)  # fmt: skip
def test_a_wrong_digest_is_an_error_everywhere(store, wrong):
    digest = store.put(b"a")
    for call in [
        store.get, store.get_many, store.contains, store.delete, store.metadata, store.unlink,
        lambda d: store[d], lambda d: store.hop(d, 1), store.trace, store.neighbours,
        store.parents, lambda d: store.shortest(d, digest), lambda d: store.shortest(digest, d),
        lambda d: store.link(d, digest), lambda d: store.link(digest, d),
        lambda d: store.add_link(digest, d), lambda d: store.set_metadata(d, [None]),
        lambda d: store.write_column("x", d, np.zeros((1, 1))),
    ]:  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call(wrong)
    assert wrong is None or isinstance(wrong, np.ndarray) or wrong not in store
    assert len(store) == 1


@pytest.mark.parametrize("name", [5, None, b"bytes", "\ud800"])
def test_names_that_cannot_be_stored_are_refused(store, backend, name):
    """One bad name would make the header unreadable for everybody."""
    digest = store.put(b"a")
    for call in [
        lambda: MemoryStore(backend=backend, namespace=name),
        lambda: store.add_link(digest, digest, name),
        lambda: store.write_column(name, digest, np.zeros((1, 1))),
    ]:
        with pytest.raises((TypeError, ValueError), match="name"):
            call()
    store.commit()
    assert MemoryStore(backend=backend).verify().ok


def test_columns_of_another_shape_or_type_are_refused(store, backend):
    digests = store.put_many([b"a", b"b"])
    store.write_column("x", digests, np.zeros((2, 3), np.float16))
    for values in [
        np.zeros((2, 3)), np.zeros((2, 4), np.float16), np.zeros((1, 3), np.float16), np.zeros(2),
        np.array([["a"], ["b"]]), np.zeros((2, 0)), np.zeros((2, 3), complex),
        np.zeros((2, PACK_LIMIT + 1), np.uint8), np.zeros((2, 3), np.longdouble),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="column 'x'"):
            store.write_column("x", digests, values)
    with pytest.raises(RecordNotFound, match=r"digests\[1\]"):
        store.write_column("x", [bytes(digests[0]), bytes(32)], np.zeros((2, 3), np.float16))
    with pytest.raises(KeyError, match="no column"):
        store.read_column("y")
    store.commit()
    assert store.read_column("x")[1].tolist() == [[0] * 3] * 2
    other = MemoryStore(backend=backend)
    other.write_column("made twice", digests, np.zeros((2, 1), np.int8))
    store.write_column("made twice", digests, np.zeros((2, 2), np.int8))
    store.put(b"kept")
    other.commit()
    for _ in range(2):  # nothing that waits is lost by trying
        with pytest.raises(ValueError, match="made by another handle"):
            store.commit()
        assert store.digest(b"kept") in store
    store.rollback()
    assert store.refresh()


def test_limits(store):
    digest = store.put(b"a")
    for call in [lambda: store.hop(digest, -1), lambda: store.trace(digest, -1),
                 lambda: store.neighbours(digest, -1), lambda: store.parents(digest, -1),
                 lambda: store.neighbours(digest, limit=-1),
                 lambda: store.parents(digest, limit=-1),
                 lambda: store.shortest(digest, digest, limit=-1)]:  # fmt: skip
        with pytest.raises(ValueError, match="0 or more"):
            call()
    ends, found = store.hop(np.empty((0, 32), np.uint8), 10**30)
    assert ends.shape == (0, 32)
    assert found.shape == (0,)
    with pytest.raises(ValueError, match="cannot be linked"):
        store.link_many([digest], [digest, digest])


def test_keys_and_algorithms_must_fit(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path, algorithm="xxh3_64", key=b"right") as store:
        store.put(b"a")
    for options, match in [
        ({}, "needs a key"), ({"key": b"wrong"}, "needs another key"),
        ({"key": b"right", "algorithm": "sha256"}, "are xxh3_64, not sha256"),
        ({"namespace": "new", "algorithm": "md5"}, "md5"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            MemoryStore(path, **options)
    with MemoryStore(path, namespace="plain", plain_digests=True) as store:
        assert store.algorithm == "sha256"
    with pytest.raises(ValueError, match="has no key"):
        MemoryStore(path, namespace="plain", key=b"right")
    with MemoryStore(path, key=b"right") as store:
        assert len(store) == 1
        assert store.namespaces() == ["", "plain"]


def test_a_closed_store_refuses_everything(tmp_path):
    store = MemoryStore(tmp_path / "store")
    digest = store.put(b"a")
    records = store.get_many(digest)
    store.close()
    store.close()
    for call in [lambda: store.put(b"b"), lambda: store.get(digest), store.commit, store.verify,
                 store.refresh, store.compact, store.statistics, lambda: len(store),
                 lambda: store.hop(digest, 1), store.rollback, store.namespaces]:  # fmt: skip
        with pytest.raises(StoreClosedError, match="closed"):
            call()
    assert records[0] == b"a"
    records.close()
    with pytest.raises(StoreClosedError):
        records[0]
    assert "closed" in repr(store)


def test_readonly_reads_and_refuses_writes(tmp_path):
    path = tmp_path / "store"
    with pytest.raises(StoreFormatError):
        MemoryStore(path, readonly=True)
    with MemoryStore(path) as store:
        digest = store.put(b"a")
    with MemoryStore(path, readonly=True) as store:
        assert store[digest] == b"a"
        assert store.verify().ok
        for call in [lambda: store.put(b"b"), lambda: store.delete(digest), store.compact,
                     lambda: store.link(digest, digest), store.commit]:  # fmt: skip
            with pytest.raises(StoreError, match="read-only"):
                call()
    with pytest.raises(StoreError, match="no namespace"):
        MemoryStore(path, namespace="new", readonly=True)


def test_a_newer_header_is_refused(tmp_path):
    with MemoryStore(tmp_path / "store"):
        pass
    with closing(LmdbBackend(tmp_path / "store")) as backend, backend.write() as transaction:
        transaction.put(b"h", msgpack.packb({"format": 3, "anything": "else"}))
    with pytest.raises(StoreFormatError, match="upgrade"):
        MemoryStore(tmp_path / "store")


@pytest.mark.parametrize(
    "header", [b"", b"\xc1", b"\x93\1\2\3", msgpack.packb({"format": 1, "x": 2})]
)
def test_a_damaged_header_is_an_error(tmp_path, header):
    with MemoryStore(tmp_path / "store"):
        pass
    for key in (b"h", b"n\0\0\0\1"):
        with closing(LmdbBackend(tmp_path / "store")) as backend, backend.write() as transaction:
            transaction.put(key, header)
        with pytest.raises(CorruptStoreError, match="header|record"):
            MemoryStore(tmp_path / "store")


FULL_DISK = """
import resource, sys
from hashmem import MemoryStore, StoreError
store = MemoryStore(sys.argv[1])
first = store.put(b"first"); store.commit()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
import numpy as np
data = np.random.default_rng(1).bytes(3 << 20)
second = store.put(data)
for attempt in (store.commit, store.compact):
    try: attempt()
    except StoreError as error: assert "free some space and commit again" in str(error), error
    else: raise SystemExit("a full disk went unnoticed")
assert store[first] == b"first" and store[second] == data
assert MemoryStore(sys.argv[1]).digests().shape == (1, 32)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.commit()
assert store.verify().ok and store[second] == data and len(store) == 2
store.close()
"""


def test_a_full_disk_costs_nothing(tmp_path):
    code = [sys.executable, "-P", "-c", FULL_DISK, str(tmp_path / "store")]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with MemoryStore(tmp_path / "store") as store:
        assert len(store) == 2
        assert store.verify().ok


# -- damage ---------------------------------------------------------------------------------------


def filled(path):
    """A store with records, metadata, links and a column; returns the records' digests."""
    with MemoryStore(path) as store:
        digests = store.put_many(PAYLOADS_PUT, [{"n": i} for i in range(20)])
        store.link_many(digests[:-1], digests[1:])
        store.add_links(digests[:3], digests[3:6])
        store.write_column("size", digests, np.arange(20)[:, None])
    return digests


def damage(path, column, kind, at):
    """Flip a byte of the first pack of a column: of its index or its body."""
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        number = next(iter(transaction.keys(pack_prefix(1, column))))[-8:]
        key = (index_key if kind == "index" else body_key)(1, column, int.from_bytes(number, "big"))
        value = bytearray(transaction.get(key))
        value[at] ^= 0x40
        transaction.put(key, bytes(value))


def test_damaged_payloads_are_listed_exactly_and_others_stay(tmp_path):
    path = tmp_path / "store"
    digests = filled(path)
    ends = np.cumsum([len(p) for p in PAYLOADS_PUT])
    for record in (0, 7, 19):
        damage(path, PAYLOADS, "body", ends[record] - 1)
    with MemoryStore(path) as store:
        found = store.verify()
        assert not found.ok
        assert found.corrupt == [bytes(digests[i]) for i in (0, 7, 19)]
        assert len(found.damage) == 3
        assert found.checked == 20
        assert found.to_dict()["corrupt"] == [d.hex() for d in found.corrupt]
        with pytest.raises(CorruptStoreError, match="position 1: "):
            store.get_many(digests[[1, 7, 0]], verify=True)
        good = [i for i in range(20) if i not in (0, 7, 19)]
        read = store.get_many(digests[good], verify=True)
        assert list(read) == [PAYLOADS_PUT[i] for i in good]


@pytest.mark.parametrize("beside", [[], [b"missing"], [b""], [b"long" * (1 << 19)], [b"pending"]])
def test_a_verified_read_finds_what_is_damaged_among_anything(tmp_path, beside):
    path, payloads = tmp_path / "store", [b"%d" % i for i in range(40_000)]
    with MemoryStore(path) as store:
        digests = store.put_many([*payloads, b"", b"long" * (1 << 19)])
    damage(path, PAYLOADS, "body", 0)  # the first record
    with MemoryStore(path) as store:
        if beside == [b"pending"]:
            store.put_many(beside)
        asked = digests[: len(payloads)][::-1]
        if beside:
            asked = np.concatenate([digest_many(beside), asked])
        with pytest.raises(CorruptStoreError, match=f"position {len(asked) - 1}: "):
            store.get_many(asked, verify=True)
        store.get_many(asked[:-1], verify=True).close()
        store.rollback()


@pytest.mark.parametrize("column", [DIGESTS, PAYLOADS, METADATA, SUCCESSORS, EDGES, 16])
@pytest.mark.parametrize(("kind", "at"), [("index", 20), ("index", -1), ("body", 5), ("body", -1)])
def test_any_damage_is_reported_and_leaves_the_rest_readable(tmp_path, column, kind, at):
    path = tmp_path / "store"
    digests = filled(path)
    damage(path, column, kind, at)
    with MemoryStore(path, readonly=True) as store:
        records = store.get_many(digests)
        found = store.verify()
        assert not found.ok
        assert any(f"column {column}" in line for line in found.damage) or found.corrupt
        held = store.contains(digests)
        whole = [records[i] == PAYLOADS_PUT[i] for i in np.flatnonzero(held)]
        if column == PAYLOADS:
            assert whole.count(False) == (len(found.corrupt) if kind == "body" else 0)
        else:
            assert all(whole)
        records.close()
        if column == DIGESTS:
            # The last byte of this index is of the body's checksum: every digest is right.
            assert held.sum() == {("index", 20): 0, ("index", -1): 20}.get((kind, at), 19)
        for i in range(20):  # links may be lost, they never lead astray
            ends, there = store.hop(digests[i : i + 1], 1)
            if there[0] and column != DIGESTS:
                assert bytes(ends[0]) == bytes(digests[i + 1])
    before = (path / "CURRENT").read_bytes()
    with MemoryStore(path) as store:
        if column == DIGESTS:
            store.put(b"new")
            with pytest.raises(CorruptStoreError, match="nothing can be added"):
                store.commit()
            store.rollback()
        if (column, kind) != (PAYLOADS, "body"):  # those carry their damage along, by digest
            with pytest.raises(CorruptStoreError):
                store.compact()
            assert (path / "CURRENT").read_bytes() == before


def test_a_lost_payload_index_heals_by_putting_again(tmp_path):
    path = tmp_path / "store"
    digests = filled(path)
    damage(path, PAYLOADS, "index", 20)
    with MemoryStore(path) as store:
        assert not store.contains(digests).any()
        store.put_many(PAYLOADS_PUT)
        store.commit()
        assert list(store.get_many(digests, verify=True)) == PAYLOADS_PUT


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_lost_part_of_a_large_record_never_passes_for_the_whole(tmp_path, part):
    path = tmp_path / "store"
    large = np.random.default_rng(0).bytes(2 * PACK_LIMIT + 1000)
    with MemoryStore(path) as store:
        small = store.put(b"small")
        store.commit()
        digest = store.put(large)
        store.commit()
        assert store[digest] == large
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        numbers = [
            int.from_bytes(key[-8:], "big") for key in transaction.keys(pack_prefix(1, PAYLOADS))
        ]
        transaction.put(index_key(1, PAYLOADS, numbers[1 + part]), b"damaged")
    with MemoryStore(path) as store:
        assert store[small] == b"small"
        assert not store.verify().ok
        with suppress(CorruptStoreError):
            assert store.get(digest) in (large, None)


# -- handles and growth ---------------------------------------------------------------------------


def test_reads_after_another_handles_merges_give_the_right_records(backend):
    """Catching up numbers rows anew; a read that kept the old ones returned other records."""
    first = MemoryStore(backend=backend)
    old = first.put_many([b"old %d" % i for i in range(3)])
    first.commit()
    pending = first.put_many([b"pending %d" % i for i in range(3)])
    second = MemoryStore(backend=backend)
    for i in range(9):  # enough for a merge
        second.put(b"new %d" % i)
        second.commit()
    assert list(first.get_many(np.concatenate([old, pending]))) == [
        *[b"old %d" % i for i in range(3)], *[b"pending %d" % i for i in range(3)],
    ]  # fmt: skip
    second.delete_many(old[:1])
    second.compact()
    assert list(first.get_many(np.concatenate([old[1:], pending])))[2:] == [
        b"pending %d" % i for i in range(3)
    ]


def test_a_dropped_namespace_refuses_what_another_handle_still_writes(backend):
    keeper = MemoryStore(backend=backend)
    dropped = MemoryStore(backend=backend, namespace="dropped")
    dropped.put(b"a")
    dropped.commit()
    keeper.drop_namespace("dropped")
    dropped.put(b"b")
    for _ in range(2):
        with pytest.raises(StoreError, match="has been dropped"):
            dropped.commit()
    with pytest.raises(KeyError):
        keeper.drop_namespace("dropped")
    with pytest.raises(ValueError, match="in use"):
        keeper.drop_namespace("")
    with backend.snapshot() as reader:
        assert list(reader.keys(b"n")) == [b"n\0\0\0\1"]
        assert Catalogue.read(reader).namespaces == {"": 1}
    again = MemoryStore(backend=backend, namespace="dropped")
    assert len(again) == 0
    dropped.rollback()


class CountingBackend(RamBackend):
    """Counts the bytes put."""

    written = 0

    def write(self):
        made = super().write()
        enter = made.__enter__

        class Counted:
            def __enter__(counted):
                transaction = enter()
                put = transaction.put

                def count(key, value):
                    self.written += len(value)
                    put(key, value)

                transaction.put = count
                return transaction

            def __exit__(counted, *exception):
                return made.__exit__(*exception)

        return Counted()


@pytest.mark.parametrize("remove", [False, True])
def test_small_commits_are_merged_and_rewritten_a_few_times(remove):
    backend = CountingBackend()
    store = MemoryStore(backend=backend)
    commits, each = (400, 50) if remove else (1000, 1)
    digests = store.put_many([b"record %d of no great size" % i for i in range(commits * each)])
    if remove:
        store.commit()
    else:
        store.rollback()
    backend.written = 0
    for i in range(commits):
        if remove:
            assert store.delete_many(digests[i * each : (i + 1) * each]).all()
        else:
            store.put(b"record %d of no great size" % i)
        store.commit()
    assert len(store) == (0 if remove else commits)
    packs = [len(column.sizes) for column in store._state.columns]
    assert max(packs) <= 40
    with backend.snapshot() as reader:
        kept = sum(len(reader.get(key)) for kind in (b"i", b"b") for key in reader.keys(kind))
        overhead = len(reader.get(b"n\0\0\0\1")) + 5 * 64
    assert backend.written <= 6 * kept + commits * overhead
    assert store.verify().ok


def test_two_thousand_commits_stay_small_and_readable(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        payloads = [b"record %d " % i * 20 for i in range(2000)]
        digests = []
        for payload in payloads:
            digests.append(store.put(payload))
            store.commit()
        assert store.statistics()["packs"] <= 80
        assert store.statistics()["storage_bytes"] <= 12 * sum(map(len, payloads))
    with MemoryStore(tmp_path / "store") as store:
        assert list(store.get_many(digests, verify=True)) == payloads
        store.compact()
        assert list(store.get_many(digests)) == payloads
        assert store.statistics()["storage_bytes"] <= 1.5 * sum(map(len, payloads)) + 100_000


# -- interruptions --------------------------------------------------------------------------------


def test_a_close_that_cannot_commit_loses_nothing(tmp_path, monkeypatch):
    store = MemoryStore(tmp_path / "store")
    digest = store.put(b"kept")

    def full(backend):
        raise StoreError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(LmdbBackend, "write", full)
        with pytest.raises(StoreError, match="no room"):
            store.close()
    assert store[digest] == b"kept"
    store.close()
    with MemoryStore(tmp_path / "store") as again:
        assert again[digest] == b"kept"


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_an_interrupt_while_a_commit_is_noted(tmp_path, monkeypatch, after):
    """The commit is on disk; however much of it the handle has noted, it goes on rightly."""
    with MemoryStore(tmp_path / "store") as store:
        old = store.put_many([b"old %d" % i for i in range(5)])
        store.commit()
        new = store.put_many([b"new %d" % i for i in range(5)])
        store.link_many(old, new)
        noted = Column.apply
        calls = itertools.count()

        def interrupted(column, *arguments):
            if next(calls) == after:
                raise KeyboardInterrupt
            noted(column, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Column, "apply", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.commit()
        later = store.put(b"later")
        store.commit()
        for handle in (store, MemoryStore(tmp_path / "store", readonly=True)):
            assert len(handle) == 11
            assert list(handle.get_many(new)) == [b"new %d" % i for i in range(5)]
            ends, found = handle.hop(old, 1)
            assert found.all()
            assert (ends == new).all()
            assert handle[later] == b"later"
            assert handle.verify().ok


def test_deleting_takes_what_others_add_to_a_record_meanwhile(tmp_path):
    with MemoryStore(tmp_path / "store") as store, MemoryStore(tmp_path / "store") as other:
        one, two = store.put_many([b"one", b"two"])
        store.commit()
        other.refresh()
        other.delete(one)
        store.set_metadata(one, [{"added": "meanwhile"}])
        store.link(one, two)
        store.add_links(one, two, "near")
        store.write_column("size", one, np.array([[3]]))
        store.commit()
        other.commit()
        other.put(b"one")
        assert other.metadata(one) is None
        assert not other.hop(one, 1)[1].any()
        assert len(other.neighbours(one)) == 0
        assert len(other.read_column("size")[0]) == 0


def test_links_to_digests_that_were_lost_lead_to_others_or_nowhere():
    backend = RamBackend()
    store = MemoryStore(backend=backend)
    first = store.put(b"first")
    store.commit()
    later = store.digest(b"an end that nothing but links speak of")
    store.link(first, later)
    store.add_links(first, later, "near")
    store.commit()
    with backend.write() as transaction:
        *_, last = transaction.keys(pack_prefix(1, DIGESTS))
        transaction.put(last, b"damaged")
    reopened = MemoryStore(backend=backend)
    assert reopened.hop(first, 1)[1].all()
    assert len(reopened.neighbours(first)) == 1
    assert later not in reopened
    assert not reopened.verify().ok


def test_links_to_rows_that_never_were_are_damage():
    backend = RamBackend()
    store = MemoryStore(backend=backend)
    first = store.put(b"first")
    store.link(first, first)
    store.commit()
    index, body = packs.build(SUCCESSORS, np.arange(1), 8, [np.array([7]).tobytes()])
    with backend.write() as transaction:
        (key,) = transaction.keys(pack_prefix(1, SUCCESSORS))
        transaction.put(key, index)
        transaction.put(b"b" + key[1:], body)
    reopened = MemoryStore(backend=backend)
    assert not reopened.hop(first, 1)[1].any()
    assert "links to rows" in reopened.verify().damage[0]


def test_a_snapshot_that_fails_holds_nothing(tmp_path, monkeypatch):
    with MemoryStore(tmp_path / "store") as store:
        store.put(b"one")
        store.commit()
        environment = store._backend._environment

        def cut_off(self, number):
            raise StoreFormatError("planted")

        with monkeypatch.context() as patch:
            patch.setattr(Environment, "newest", cut_off)
            with pytest.raises(StoreFormatError, match="planted") as caught:
                store._backend.snapshot()
            readers = environment.lmdb.readers().splitlines()[1:]
        assert caught.value.__traceback__ is not None  # it refers to what was under way
        assert all(line.split()[2] == "-" for line in readers)
