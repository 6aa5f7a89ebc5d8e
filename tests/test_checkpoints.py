"""Checkpoints: what is written is found, damage is told, and a store does without where it must."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore
from hashmem.errors import CorruptStoreError, HashMemError, StoreError, StoreFormatError
from hashmem.store import checkpoint, placed
from hashmem.store.checkpoint import ABSENT, BLOCK, Checkpoint, Places


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(checkpoint, "FEWEST", 4)


def rows_files(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.endswith(".rows"))


def written(path: Path, rows: int, width: int = 32, pieces: int = 3) -> tuple[np.ndarray, list]:
    """Write a checkpoint of random rows; return their digests and the codes of two columns."""
    random = np.random.default_rng(rows)
    digests = random.integers(0, 256, (rows, width), np.uint8)
    codes = [random.integers(0, 1 << 63, rows, dtype=np.uint64) for _ in range(2)]
    columns = {
        number: (
            Places(column, [5, 9, 1 << 40], {0: 1 << 33} if rows else {}, rows),
            np.array_split(column, pieces),
        )
        for number, column in zip((2, 3), codes, strict=True)
    }
    checkpoint.write(str(path), np.array_split(digests, pieces), rows, width, 77, columns)
    return digests, codes


@given(st.integers(0, 3000), st.sampled_from([8, 16, 32]), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, rows, width, pieces):
    path = tmp_path_factory.mktemp("checkpoint") / "a.rows"
    digests, codes = written(path, rows, width, pieces)
    found = Checkpoint(str(path))
    assert (found.rows, found.width, found.next_pack) == (rows, width, 77)
    assert np.array_equal(found.digests, digests)
    assert np.array_equal(digests[found.find(digests)], digests)
    absent = digests ^ np.uint8(255)
    known = {bytes(digest) for digest in digests}
    assert (found.find(absent) < 0).tolist() == [bytes(d) not in known for d in absent]
    for number, column in zip((2, 3), codes, strict=True):
        assert np.array_equal(found.places[number].codes, column)
        assert found.places[number].numbers == [5, 9, 1 << 40]
        assert found.places[number].live == rows
        assert found.places[number].large == ({0: 1 << 33} if rows else {})
    if rows:
        row = rows // 2
        assert np.array_equal(digests[found.look(bytes(digests[row]))], digests[row])
    assert list(found.damage()) == []


def test_damage_anywhere_is_told(tmp_path):
    path = tmp_path / "a.rows"
    digests, _ = written(path, 5000)
    whole = path.read_bytes()
    found = Checkpoint(str(path))
    begins = whole.index(bytes(digests[0]))
    for at in [*range(0, begins, 97), *range(begins, len(whole), 50_021)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            damaged = list(Checkpoint(str(path)).damage())
        except (CorruptStoreError, StoreFormatError):
            continue
        padding = whole[at] == 0 and not damaged  # between sections, which nothing reads
        assert damaged or padding, at
        assert all("digests" in what for what in damaged) == (at < begins + 32 * 5000)
    for size in (0, 1, 31, 32, 100, begins - 1, begins, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptStoreError):
            Checkpoint(str(path))
    path.write_bytes(whole[:8] + b"\2" + whole[9:])
    with pytest.raises(StoreFormatError, match="upgrade"):
        Checkpoint(str(path))
    assert found.find(digests[:1])[0] == 0 or True  # what is mapped is the inode of before


def test_blocks_are_counted_over_pieces():
    """A block may begin in one piece and end in another."""
    import io

    import xxhash

    data = np.frombuffer(os.urandom(3 * BLOCK + 100), np.uint8)
    expected = [
        xxhash.xxh3_64_intdigest(data[i : i + BLOCK].tobytes()) for i in range(0, len(data), BLOCK)
    ]
    for cuts in ([], [10], [BLOCK], [BLOCK - 1, BLOCK + 1], [5, 6, 7], [BLOCK // 2, 2 * BLOCK + 9]):
        sums = checkpoint._write(io.BytesIO(), np.split(data, cuts))
        assert np.frombuffer(sums, "<u8").tolist() == expected


# -- in a store -----------------------------------------------------------------------------------


def test_a_store_rests_on_its_last_checkpoint(tmp_path):
    path = tmp_path / "store"
    payloads = [b"%d" % i for i in range(40)]
    with MemoryStore(path) as store:
        for i in range(40):
            store.put(payloads[i], {"i": i})
            store.commit()
            assert len(rows_files(path)) <= 1
            assert (
                list(store.get_many([store.digest(p) for p in payloads[: i + 1]]))
                == (payloads[: i + 1])
            )
    with MemoryStore(path) as store:
        assert store._state.table.base is not None
        digests = [store.digest(p) for p in payloads]
        assert [bytes(d) for d in store.digests()] == digests
        assert [about["i"] for about in store.metadata_many(digests)] == list(range(40))
        assert [store[d] for d in digests] == payloads
        store.delete(digests[3])
        store.put(payloads[5], {"i": "new"})
        store.commit()
    with MemoryStore(path) as store:  # what changed below a checkpoint
        assert digests[3] not in store
        assert store.metadata(digests[5]) == {"i": "new"}
        assert store.put(payloads[3]) == digests[3]
        assert store[digests[3]] == payloads[3]
        assert store.verify().ok


def test_a_handle_follows_checkpoints_of_others(tmp_path):
    with MemoryStore(tmp_path / "store") as reader, MemoryStore(tmp_path / "store") as writer:
        digests = []
        for i in range(30):
            digests.append(writer.put(b"%d" % i))
            writer.commit()
            if i % 7 == 0:
                assert reader.refresh()
                assert [reader[d] for d in digests] == [b"%d" % j for j in range(i + 1)]
        mine = reader.put(b"mine")
        reader.commit()
        assert len(reader) == 31
        assert reader[mine] == b"mine"
        assert reader.verify().ok


def test_a_checkpoint_replaced_while_opening_is_no_error(tmp_path):
    path = tmp_path / "store"
    store = MemoryStore(path)
    store.put_many([b"%d" % i for i in range(10)])
    store.commit()
    before = Checkpoint.__init__

    def late(self, name):  # somebody commits another between the record and the file
        patch.undo()
        store.put_many([b"more %d" % i for i in range(20)])
        store.commit()
        before(self, name)

    patch = pytest.MonkeyPatch()
    patch.setattr(Checkpoint, "__init__", late)
    with MemoryStore(path, readonly=True) as other:
        assert len(other) == 30
    store.close()


def test_a_lost_checkpoint_is_told(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        store.put_many([b"%d" % i for i in range(10)])
    os.unlink(path / rows_files(path)[0])
    with pytest.raises(CorruptStoreError, match=r"is gone.*repair"):
        MemoryStore(path)


def test_without_room_for_one_the_store_goes_on(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise StoreError(28, "cannot write it: No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    with caplog.at_level(logging.WARNING, "hashmem.store"), MemoryStore(tmp_path / "s") as store:
        digests = store.put_many([b"%d" % i for i in range(10)])
        store.commit()
        assert "no checkpoint was written" in caplog.text
    with MemoryStore(tmp_path / "s") as store:
        assert list(store.get_many(digests)) == [b"%d" % i for i in range(10)]
        assert rows_files(tmp_path / "s") == []


def test_what_a_killed_writer_left_is_taken_away(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        store.put_many([b"%d" % i for i in range(10)])
    left = [path / "000001-1-99.rows", path / "000001-1-7.rows.0123abcd.new"]
    for file in left:
        file.write_bytes(b"left")
    with MemoryStore(path) as store:
        store.put_many([b"more %d" % i for i in range(20)])
    assert not any(file.exists() for file in left)


def test_packs_beyond_what_a_code_can_name(tmp_path, monkeypatch):
    monkeypatch.setattr(placed, "MOST_PACKS", 40)
    monkeypatch.setattr(checkpoint, "FEWEST", 10**6)
    with MemoryStore(tmp_path / "store") as store:
        digests = []
        for i in range(150):
            digests.append(store.put(b"%d" % i))
            store.commit()
        assert [store[d] for d in digests] == [b"%d" % i for i in range(150)]
    assert ABSENT >> 44 == (1 << 20) - 1


def test_a_fork_and_a_reader_share_one(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digests = store.put_many([b"%d" % i for i in range(1000)])
    store = MemoryStore(path)
    store.delete(bytes(digests[0]))  # copied where it is written to
    with MemoryStore(path, readonly=True) as other:
        child = os.fork()
        if child == 0:
            good = list(other.get_many(digests)) == [b"%d" % i for i in range(1000)]
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert bytes(digests[0]) in other
    store.commit()
    store.close()


def test_a_store_that_is_written_over_and_over_stays_small(tmp_path):
    path = tmp_path / "store"
    random = np.random.default_rng(3)
    live: list[bytes] = []
    with MemoryStore(path) as store:
        for _ in range(60):
            fresh = [random.bytes(1000) for _ in range(500)]
            live += [bytes(d) for d in store.put_many(fresh)]
            store.delete_many(live[:-3000]) if len(live) > 3000 else None
            live = live[-3000:]
            store.commit()
            size = sum(os.path.getsize(path / name) for name in os.listdir(path))
            if len(live) == 3000:
                assert size < 1.3 * 3000 * 1000 + (3 << 20)
        assert len(store) == 3000
        assert store.verify().ok


def test_a_damaged_place_is_an_error_where_it_is_read(tmp_path):
    path = tmp_path / "store"
    large = b"large" * 1_000_000
    with MemoryStore(path) as store:
        digests = store.put_many([large, *(b"%d" % i for i in range(9))])
    file = path / rows_files(path)[0]
    whole = file.read_bytes()
    at = whole.index(bytes(digests[0]))
    codes = at + -(-len(digests) * 32 // 4096) * 4096
    for byte in range(8):
        file.write_bytes(
            whole[: codes + byte] + bytes([whole[codes + byte] ^ 0x55]) + whole[codes + byte + 1 :]
        )
        with MemoryStore(path, readonly=True) as store:
            assert not store.verify().ok
        with MemoryStore(path, readonly=True) as store, suppress(HashMemError):
            assert store.get_many(digests, verify=True)[0] in (large, None)


def test_compacting_tells_how_far_it_is(tmp_path, caplog):
    told = []
    with caplog.at_level(logging.INFO, "hashmem.store"), MemoryStore(tmp_path / "store") as store:
        store.put_many([b"%d" % i for i in range(100)])
        store.delete(store.digest(b"7"))
        store.compact(told.append)
    assert sum(told) == 99
    assert "compacted" in caplog.text
    assert "wrote a checkpoint of 100 rows" in caplog.text


def test_a_commit_stands_where_compacting_after_it_fails(tmp_path, monkeypatch, caplog):
    from hashmem.store import handle

    def refuse(*_):
        raise CorruptStoreError("a pack is damaged")

    monkeypatch.setattr(handle, "compact", refuse)
    with caplog.at_level(logging.WARNING, "hashmem.store"), MemoryStore(tmp_path / "s") as store:
        digests = store.put_many([b"%d" % i * 1000 for i in range(3000)])
        store.commit()
        store.delete_many(digests[:2500])
        store.commit()
        assert "was not compacted: a pack is damaged" in caplog.text
        assert len(store) == 500
    monkeypatch.undo()
    with MemoryStore(tmp_path / "s") as store:
        assert len(store) == 500
