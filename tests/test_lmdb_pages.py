"""Reading an LMDB file without LMDB gives what LMDB gives; damage is an error, never a crash."""

import random

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore
from hashmem.errors import CorruptStoreError
from hashmem.store.lmdb_pages import Tree, check, metas


def filled(path, seed, rounds):
    """An LMDB file after random commits, and what it holds."""
    rng, model = random.Random(seed), {}
    with lmdb.open(str(path), subdir=False, map_size=1 << 28, sync=False) as environment:
        for _ in range(rounds):
            with environment.begin(write=True) as transaction:
                for _ in range(rng.randrange(1, 150)):
                    key = rng.randbytes(rng.choice([1, 5, 15]))
                    value = rng.randbytes(rng.choice([0, 10, 100, 2000, 3000, 20_000]))
                    transaction.delete(key)  # or a shorter one keeps the pages of a longer one
                    transaction.put(key, value)
                    model[key] = value
                for key in rng.sample(sorted(model), rng.randrange(len(model))):
                    transaction.delete(key)
                    del model[key]
    return path.read_bytes(), model


def tree_of(data):
    return Tree(memoryview(data), max(metas(memoryview(data)), key=lambda m: m.transaction))


@given(st.integers(0, 2**32), st.integers(0, 25))
@settings(max_examples=25, deadline=None)
def test_it_reads_what_lmdb_wrote(tmp_path_factory, seed, rounds):
    data, model = filled(tmp_path_factory.mktemp("lmdb") / "a.mdb", seed, rounds)
    if not data:
        return
    check(memoryview(data), whole=True)
    tree = tree_of(data)
    found = {key: data[at.start : at.start + at.size] for key, at in tree.scan(b"")}
    assert found == model
    assert list(found) == sorted(model)
    for key in list(model)[:20]:
        at = tree.find(key)
        assert data[at.start : at.start + at.size] == model[key]
        assert at.stays == (len(model[key]) > 2030)
        prefix = key[:1]
        assert [k for k, _ in tree.scan(prefix)] == sorted(k for k in model if k[:1] == prefix)
        assert [k for k, _ in tree.scan(b"", key)] == sorted(k for k in model if k >= key)
    assert tree.find(b"not there, for sure") is None


def test_any_bit_flipped_in_pages_of_trees_is_found_or_harmless(tmp_path):
    data, model = filled(tmp_path / "a.mdb", 5, 12)
    check(memoryview(data))
    rng, missed = random.Random(1), 0
    pages = [i for i in range(len(data) // 4096) if data[4096 * i + 10] in (1, 2, 8)]
    for _ in range(2000):
        at = 4096 * rng.choice(pages) + rng.randrange(4096)
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        try:
            check(memoryview(damaged), whole=True)
            tree = tree_of(damaged)
            found = {key: damaged[e.start : e.start + e.size] for key, e in tree.scan(b"")}
        except CorruptStoreError:
            continue
        # What is left: keys and values themselves, which the records and packs have checksums for.
        if found != model:
            missed += 1
            assert len(found) == len(model)
    assert missed < 3000


@pytest.mark.parametrize("size", [0, 1, 100, 4095, 4096, 8191, 8192])
def test_too_few_bytes(size):
    with pytest.raises(CorruptStoreError):
        check(memoryview(bytes(size)))


def test_where_the_first_commit_failed_the_file_is_as_new(tmp_path):
    """LMDB then takes back the number of the second meta page, and leaves the rest in it."""
    path = tmp_path / "a.mdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 20):
        fresh = path.read_bytes()
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"a", b"b")
    first = path.read_bytes()
    last, number = 4096 + 16 + 120, 4096 + 16 + 128
    failed = first[:last] + fresh[last : number + 8] + first[number + 8 : 8192]
    check(memoryview(failed))
    assert list(tree_of(failed).scan(b"")) == []


NUMBER_AT = 16 + 24 + 2 * 48 + 8  # of its commit, in a meta page


def commits(path):
    """The bytes of a store's file before and after each of many commits, n much like n + 2."""
    with MemoryStore(path) as store:
        file = path / "000001.mdb"
        for i in range(40):
            before = file.read_bytes()
            if i % 2:
                store.drop_namespace("other")
            else:
                MemoryStore(path, namespace="other").close()
            yield before, file.read_bytes()


def test_a_commit_that_ended_before_its_meta_page_is_no_damage(tmp_path):
    for before, after in commits(tmp_path / "store"):
        check(memoryview(before[:8192] + after[8192:]), whole=True)
        keys = {meta.transaction: meta.main.entries for meta in metas(memoryview(before))}
        new = max(metas(memoryview(after)), key=lambda meta: meta.transaction)
        assert keys.get(new.transaction - 2) != new.main.entries


def test_a_meta_page_of_an_older_number_is_found(tmp_path):
    for _, after in list(commits(tmp_path / "store"))[2:]:
        place, number = max(
            (int.from_bytes(after[at : at + 8], "little"), at)
            for at in (NUMBER_AT, 4096 + NUMBER_AT)
        )[::-1]
        damaged = bytearray(after)
        damaged[place : place + 8] = (number - 2).to_bytes(8, "little")
        with pytest.raises(CorruptStoreError, match=f"commit {number} is in the file"):
            check(memoryview(damaged), whole=True)


def test_a_value_that_claims_what_lies_behind_it_is_found(tmp_path):
    path = tmp_path / "a.mdb"
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key in (b"a", b"b", b"c"):
            transaction.put(key, b"value of " + key)
    data = path.read_bytes()
    check(memoryview(data))
    at = data.rindex(b"avalue of a") - 8  # the node: its value's size comes first
    for size in (1, 9, 12, 30):
        with pytest.raises(CorruptStoreError, match="over each other"):
            check(memoryview(data[:at] + bytes([size]) + data[at + 1 :]))
