"""Frozen tables: what the growing table answers, from bytes in which no flipped bit goes unseen."""

import gzip
import mmap
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import ChainingTable, DigestMultimap, FrozenTable, OpenAddressingTable, kernels
from hashmem.errors import (
    CorruptStoreError,
    HashMemError,
    StoreClosedError,
    StoreError,
    StoreFormatError,
    TableFullError,
)
from hashmem.kernels import reference
from hashmem.kernels.reference.frozen import entry_bytes
from hashmem.kernels.reference.hashing import expand_keys
from hashmem.tables import freeze, frozen_build, frozen_layout
from hashmem.tables.frozen_layout import BLOCK, CHECKSUMS_AT, HEADER, ROOT_AT, root_of
from hashmem.testing import digest_batches, number_digests

GOLDEN = Path(__file__).parent / "golden"
FIELDS = "magic version width entries slots parts buckets seed body_at entries_at nbytes block"
MODULES = [getattr(kernels, "_native", None) or reference, reference]


@pytest.fixture(params=kernels.available)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set of kernels in turn."""
    before = kernels.active
    kernels.select(request.param)
    yield request.param
    kernels.select(before)


def table_of(digests: np.ndarray, values: Any = None) -> OpenAddressingTable:
    table = OpenAddressingTable(digests.shape[1])
    table.insert(digests, np.arange(len(digests)) if values is None else values)
    return table


def many(entries: int, width: int = 16) -> OpenAddressingTable:
    random = np.random.default_rng(entries + width)
    return table_of(random.integers(0, 256, (entries, width), dtype=np.uint8))


# ------------------------------------------------------------------------------ what is answered


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(8, 64), part=st.sampled_from([1 << 15, 7, 1]))
def test_frozen_answers_as_the_table_it_was_made_from(data, width, part):
    digests = data.draw(digest_batches(width, max_size=120))
    values = data.draw(
        st.lists(st.integers(-(2**63), 2**63 - 1) | st.just(-1), min_size=len(digests),
                 max_size=len(digests))
    )  # fmt: skip
    table = table_of(digests, values)
    model = dict(zip(map(bytes, digests), values, strict=True))
    asked = np.concatenate([digests, data.draw(digest_batches(width, max_size=40))])
    seed = data.draw(st.integers(0, 2**128 - 1))
    made, before = [], kernels.active
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frozen_build, "PART", part)
            for name in kernels.available:
                kernels.select(name)
                made.append(freeze(table, seed=seed))
        assert len(set(made)) == 1  # whoever builds, and whoever searches
        for name in kernels.available:
            kernels.select(name)
            frozen = FrozenTable(made[0])
            assert frozen.find(asked).tolist() == table.find(asked).tolist()
            assert frozen.contains(asked).tolist() == table.contains(asked).tolist()
            assert [frozen.get(bytes(d)) for d in asked] == [model.get(bytes(d)) for d in asked]
            assert dict(frozen.items()) == model
            assert len(frozen) == len(model)
            assert frozen.thaw() == model
            copied = dict(zip(map(bytes, frozen.arrays()[0]), frozen.arrays()[1], strict=True))
            assert copied == model
            frozen.check()
    finally:
        kernels.select(before)


@pytest.mark.parametrize("entries", [0, 1, 2, 3, 127, 128, 129, 40_000])
def test_sizes_and_parts(kernel, entries):
    table = many(entries)
    frozen = FrozenTable(freeze(table))
    frozen.check()
    assert np.array_equal(frozen.find(table.digests), table.values_array)
    assert (frozen.find(~table.digests) == -1).all()
    assert len(frozen.arrays()[0]) == len(list(frozen)) == len(frozen) == entries
    found = frozen.statistics()
    assert (found.entries, found.verified) == (entries, found.blocks)
    assert found.nbytes == frozen.nbytes


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_overhead_is_less_than_a_byte(width):
    if "native" not in kernels.available:
        pytest.skip("the reference takes too long")
    frozen = FrozenTable(freeze(many(200_000, width)))
    assert 0 < frozen.statistics().overhead < 1


def test_any_table_is_frozen_and_thawed():
    table = ChainingTable(9)
    table.update({b"9 bytes..": 1, b"123456789": -1})
    frozen = FrozenTable(freeze(table, seed=3))
    assert frozen == table
    assert frozen.seed == 3
    assert frozen.width == 9
    thawed = frozen.thaw()
    thawed[b"abcdefghi"] = 5
    assert thawed != frozen
    assert freeze(frozen.thaw(), seed=1) != freeze(frozen.thaw(), seed=2)


def test_what_is_no_digest_is_told():
    frozen = FrozenTable(freeze(many(3)))
    assert b"short" not in frozen
    assert 7 not in frozen
    with pytest.raises(ValueError, match="a digest must be 16 bytes"):
        frozen[b"short"]
    with pytest.raises(TypeError, match="a digest must be bytes"):
        frozen[7]
    with pytest.raises(KeyError):
        frozen[bytes(16)]
    with pytest.raises(ValueError, match=r"shape \(n, 16\)"):
        frozen.find(np.zeros((2, 8), np.uint8))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(frozen)
    with pytest.raises(ValueError, match="seed must be"):
        freeze(many(3), seed=-1)


def test_a_digest_held_twice_is_refused(kernel):
    liar = many(2)
    liar._all_digests[1] = liar._all_digests[0]
    with pytest.raises(CorruptStoreError, match="a digest twice"):
        freeze(liar)


def test_what_is_no_table_cannot_be_frozen():
    for other in (DigestMultimap(8), FrozenTable(freeze(many(3))), {}):
        with pytest.raises(TypeError, match="can be frozen, not"):
            freeze(other)


def test_freezing_waits_for_changes(kernel):
    """What is there all the time is frozen, whatever a writer takes away and puts back."""
    table = many(3000)
    kept, moving = table.digests[:2000].copy(), table.digests[2000:].copy()
    stop = threading.Event()

    def change():
        while not stop.is_set():
            table.delete(moving)
            table.insert(moving, np.arange(len(moving)))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(20):
            assert FrozenTable(freeze(table)).contains(kept).all()
            table.check()
            assert table.__copy__().contains(kept).all()
    finally:
        stop.set()
        writer.join()


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(frozen_build, "MOST_ENTRIES", 2)
    with pytest.raises(TableFullError, match="up to 2 entries"):
        freeze(many(3))


# -------------------------------------------------------------------------------------- in files


def test_a_file_is_mapped_and_closed(tmp_path, kernel):
    table, path = many(5000), tmp_path / "frozen"
    freeze(table, path, seed=1)
    assert os.listdir(tmp_path) == ["frozen"]
    assert path.read_bytes() == freeze(table, seed=1)
    with FrozenTable.open(path) as frozen, FrozenTable.open(str(path)) as other:
        assert np.array_equal(frozen.find(table.digests), table.values_array)
        iterator = iter(other)
        assert next(iterator) in table
    frozen.close()  # once more
    for use in (
        len, list, dict, FrozenTable.check, FrozenTable.statistics, FrozenTable.thaw,
        FrozenTable.arrays, FrozenTable.__enter__, lambda f: f.find(table.digests),
        lambda f: bytes(16) in f, lambda f: f[bytes(16)], lambda f: f.nbytes, lambda f: f.width,
    ):  # fmt: skip
        with pytest.raises(StoreClosedError):
            use(frozen)
    assert all(digest in table for digest in iterator)  # what is under way keeps the mapping


def test_only_what_is_touched_is_verified(tmp_path):
    table = many(30_000)
    freeze(table, tmp_path / "frozen")
    frozen = FrozenTable.open(tmp_path / "frozen")
    assert frozen.statistics().verified == 0
    assert frozen[bytes(table.digests[7])] == 7
    assert 1 <= frozen.statistics().verified <= 3 < frozen.statistics().blocks
    frozen.find(table.digests)
    verified = frozen.statistics()
    assert verified.verified == verified.blocks


def test_a_file_is_replaced_whole_or_not(tmp_path, monkeypatch):
    path = tmp_path / "frozen"
    freeze(many(10), path)
    mapped = FrozenTable.open(path)
    freeze(many(20), path)
    assert len(mapped.thaw()) == 10
    assert len(FrozenTable.open(path)) == 20

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="No space left"):
        freeze(many(30), path)
    assert os.listdir(tmp_path) == ["frozen"]
    assert len(FrozenTable.open(path)) == 20


def test_what_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(StoreError, match="cannot open"):
        FrozenTable.open(tmp_path / "nothing")
    with pytest.raises(StoreError, match="cannot write"):
        freeze(many(3), tmp_path / "nothing" / "frozen")
    (tmp_path / "empty").touch()
    with pytest.raises(CorruptStoreError, match="this has 0"):
        FrozenTable.open(tmp_path / "empty")
    with pytest.raises(TypeError):
        FrozenTable("text")


def test_big_endian_machines_are_refused(monkeypatch):
    data = freeze(many(3))
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(NotImplementedError, match="little-endian"):
        freeze(many(3))
    with pytest.raises(NotImplementedError, match="little-endian"):
        FrozenTable(data)


CUT_SHORT = """
import os, sys
from hashmem import FrozenTable
from hashmem.errors import CorruptStoreError
frozen = FrozenTable.open(sys.argv[1])
os.truncate(sys.argv[1], frozen.nbytes // 2)
try:
    frozen.check()
except CorruptStoreError as error:
    print(error)
"""


def populates() -> bool:
    """Whether this system can tell that a page is gone before it is touched."""
    try:
        mmap.mmap(-1, mmap.PAGESIZE).madvise(22)
    except (OSError, AttributeError):
        return False
    return sys.platform == "linux"


@pytest.mark.skipif(not populates(), reason="needs MADV_POPULATE_READ, Linux 5.14")
def test_a_file_cut_short_after_opening_is_told(tmp_path):
    freeze(many(20_000), tmp_path / "frozen")
    done = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, tmp_path / "frozen"], capture_output=True, text=True
    )
    assert "cut short after it was opened" in done.stdout, done.stderr


def test_readers_in_threads_and_in_a_forked_child(tmp_path):
    table, path = many(30_000), tmp_path / "frozen"
    freeze(table, path)
    frozen = FrozenTable.open(path)
    right = []

    def read() -> None:
        right.append(np.array_equal(frozen.find(table.digests), table.values_array))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(frozen.find(table.digests), table.values_array) else 1)
    assert os.waitpid(child, 0)[1] == 0


# -------------------------------------------------------------------------------- what is damaged


def damaged_copies(data: bytes) -> Iterator[tuple[int, bytearray]]:
    """Each byte in turn with one of its bits flipped."""
    bits = np.random.default_rng(0).integers(0, 8, len(data))
    for at in range(len(data)):
        copy = bytearray(data)
        copy[at] ^= 1 << bits[at]
        yield at, copy


def test_every_flipped_bit_is_told(kernel):
    table = many(60, width=11)
    data = freeze(table)
    body_at = FrozenTable(data).nbytes - 4096 - len(data) % 4096
    opened = 0
    for at, copy in damaged_copies(data):
        try:
            frozen = FrozenTable(copy)
        except (CorruptStoreError, StoreFormatError):
            continue
        opened += 1
        for _ in range(2):  # not only the first time
            with pytest.raises(CorruptStoreError, match=rf"block 0 .* bytes {body_at} to"):
                frozen.find(table.digests)
            with pytest.raises(CorruptStoreError, match="block 0"):
                frozen.check()
        assert at >= body_at
    assert opened == len(data) - body_at


def test_every_lost_byte_is_told(kernel):
    data = freeze(many(60, width=11))
    for length in range(len(data)):
        with pytest.raises(CorruptStoreError):
            FrozenTable(memoryview(data)[:length])
    with pytest.raises(CorruptStoreError, match="where its header says"):
        FrozenTable(data + b"\0")


def test_damage_spoils_its_own_block_only(kernel):
    table = many(20_000)
    data = bytearray(freeze(table))
    sound = FrozenTable(bytes(data))
    last = sound.statistics().blocks - 1
    begin = sound._state.layout.body_at + last * BLOCK
    data[begin + 100] ^= 16
    frozen = FrozenTable(data)
    failed = []
    for digest, value in zip(table.digests[:300], table.values_array, strict=False):
        try:
            assert frozen[bytes(digest)] == value
        except CorruptStoreError as error:
            failed.append(str(error))
    assert 0 < len(failed) < 300
    assert all(f"block {last} " in said for said in failed)
    assert all(f"bytes {begin} to {len(data)}" in said for said in failed)
    assert frozen.statistics().verified == last
    for whole in (frozen.check, frozen.arrays, frozen.thaw, lambda: list(frozen)):
        with pytest.raises(CorruptStoreError):
            whole()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FIELDS.split()[2:]),
    st.integers(0, 2**64 - 1) | st.integers(0, 300) | st.sampled_from([2**31, 2**32, 2**40]),
)
def test_a_header_that_lies_is_refused(field, number):
    data = bytearray(freeze(many(40), seed=1))
    names = FIELDS.split()
    fields = dict(zip(names, HEADER.unpack_from(data), strict=True))
    body_at = fields["body_at"]
    most = 2**32 - 1 if field in {"width", "block"} else 2**64 - 1
    lie = number.to_bytes(16, "little") if field == "seed" else min(number, most)
    if fields[field] == lie:
        return
    width = fields["width"]
    fields[field] = lie
    HEADER.pack_into(data, 0, *fields.values())
    with pytest.raises(CorruptStoreError):
        FrozenTable(data)
    if field == "width" and -(-lie // 8) == -(-width // 8):
        return  # entries of the same size: nothing but the checksum contradicts it
    view = np.frombuffer(data, np.uint8)  # with a checksum that agrees, too
    view[ROOT_AT:CHECKSUMS_AT] = np.frombuffer(root_of(view, body_at), np.uint8)
    if field not in {"seed", "entries", "buckets"}:
        with pytest.raises(CorruptStoreError):
            FrozenTable(data)
        return
    try:  # nothing at hand contradicts it
        frozen = FrozenTable(data)
    except CorruptStoreError:
        return
    frozen.find(many(40).digests)
    with pytest.raises(CorruptStoreError):
        frozen.check()
    with pytest.raises(CorruptStoreError):
        frozen.arrays()


def test_versions_and_parts_that_contradict_are_refused():
    data = freeze(many(40), seed=1)
    newer = bytearray(data)
    newer[8] = 2
    with pytest.raises(StoreFormatError, match="of version 2, and this release reads 1"):
        FrozenTable(newer)
    with pytest.raises(StoreFormatError, match="no frozen table"):
        FrozenTable(b"x" * 200)
    layout = FrozenTable(data)._state.layout
    for at, byte in ((layout.offsets_at, 1), (layout.turns_at - 8, 1), (layout.turns_at, 9)):
        copy = np.frombuffer(data, np.uint8).copy()
        copy[at] = byte
        copy[ROOT_AT:CHECKSUMS_AT] = np.frombuffer(root_of(copy, layout.body_at), np.uint8)
        with pytest.raises(CorruptStoreError, match="contradicts itself"):
            FrozenTable(copy)


@pytest.mark.campaign
def test_random_flips_in_a_large_table(tmp_path):
    table = many(1_000_000, 32)
    data = np.frombuffer(freeze(table), np.uint8).copy()
    body_at = FrozenTable(data)._state.layout.body_at
    random = np.random.default_rng()
    for _ in range(500):
        at, bit = int(random.integers(len(data))), int(random.integers(8))
        data[at] ^= 1 << bit
        if at < body_at:
            with pytest.raises(HashMemError):
                FrozenTable(data)
        else:
            frozen, block = FrozenTable(data), (at - body_at) // BLOCK
            with pytest.raises(CorruptStoreError, match=f"block {block} of"):
                frozen.find(table.digests)
        data[at] ^= 1 << bit
    FrozenTable(data).check()


# --------------------------------------------------------------------------------------- kernels


def built(
    module: ModuleType, digests: np.ndarray, keys: np.ndarray, parts: int, buckets: int
) -> tuple[bool, list[np.ndarray]]:
    n, width = digests.shape
    size = entry_bytes(width)
    records = np.full((n, size), 170, np.uint8)  # padding that is not zero
    records[:, :8] = np.arange(n, dtype="<i8").view(np.uint8).reshape(n, 8)
    records[:, 8 : 8 + width] = digests
    starts, hashes, rows = np.zeros(parts + 1, "u8"), np.zeros(n, "u8"), np.zeros(n, "u8")
    module.frozen_partition(records, keys, width, starts, hashes, rows)
    amounts = np.diff(starts.astype(np.int64))
    offsets = np.r_[0, np.cumsum(amounts + (amounts > 0))].astype("u8")
    turns, pilots = np.zeros(parts, np.uint8), np.zeros(parts * buckets, np.uint8)
    entries = np.zeros((int(offsets[-1]), size), np.uint8)
    done = module.frozen_build(
        records, width, keys, hashes, rows, starts, offsets, buckets, turns, pilots, entries
    )
    return done, [starts, hashes, rows, offsets, turns, pilots, entries]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(8, 64), parts=st.integers(1, 4), seed=st.integers(0, 99))
def test_kernels_build_the_same(data, width, parts, seed):
    """With one free slot a part, many buckets are evicted and many builds fail."""
    digests = data.draw(digest_batches(width, max_size=80))  # not all different
    keys = np.array([expand_keys(seed), expand_keys(seed + 1)])
    buckets = data.draw(st.integers(1, 30))
    ours, theirs = (built(module, digests, keys, parts, buckets) for module in MODULES)
    assert ours[0] == theirs[0]
    if ours[0]:
        for a, b in zip(ours[1], theirs[1], strict=True):
            assert np.array_equal(a, b)
        assert not ours[1][-1][:, 8 + width :].any()


@pytest.mark.parametrize("module", MODULES)
def test_a_part_takes_another_turn(module):
    digests = number_digests(range(100), 16, "counters")  # every other word is 0, so that
    bad, good = np.zeros_like(expand_keys(0)), expand_keys(5)  # these keys give all one hash
    assert not built(module, digests, np.array([bad, bad]), 3, 50)[0]
    done, (_, _, _, offsets, turns, pilots, entries) = built(
        module, digests, np.array([bad, good]), 3, 50
    )
    assert done
    assert turns.max() == 1
    body = np.concatenate([pilots, entries.ravel()])
    for searching in MODULES:
        out = np.zeros(100, np.int64)
        left_out = searching.frozen_find(
            body, offsets, turns, np.array([bad, good]), b"\1", 16, 50, len(pilots), digests, out,
            -1, False, bytearray(),
        )  # fmt: skip
        assert left_out == 0
        assert out.tolist() == list(range(100))


words = st.integers(0, 2**64 - 1) | st.integers(0, 40)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), width=st.integers(8, 40), parts=st.integers(1, 5))
def test_kernels_find_the_same_in_any_bytes(data, width, parts):
    """Whatever offsets, turns and bodies say: the same answers, and nothing outside is read."""
    buckets, seed = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 9))
    entries_at = parts * buckets + data.draw(st.integers(0, 20))
    drawn = data.draw(st.binary(min_size=entries_at, max_size=entries_at + 600))
    body = np.frombuffer(drawn, np.uint8).copy()
    if data.draw(st.booleans()):  # several blocks
        body = np.concatenate([body[:entries_at], np.zeros(BLOCK, np.uint8), body[entries_at:]])
    offsets = np.array(data.draw(st.lists(words, min_size=parts + 1, max_size=parts + 1)), "u8")
    if data.draw(st.booleans()):
        offsets = np.sort(offsets % np.uint64(len(body) // entry_bytes(width) + 2))
    turns = np.array(data.draw(st.lists(st.integers(0, 5), min_size=parts, max_size=parts)), "u1")
    keys = np.array([expand_keys(seed + turn) for turn in range(data.draw(st.integers(1, 3)))])
    blocks = -(-len(body) // BLOCK)
    verified = np.array(data.draw(st.lists(st.integers(0, 1), min_size=blocks, max_size=blocks)))
    verified = verified.astype(np.uint8)
    queries = number_digests(range(data.draw(st.integers(0, 70))), width)
    if len(queries) and data.draw(st.booleans()):  # enough to ask whether all is sound
        queries = np.resize(queries, (1100, width))
    for place in range(min(len(queries), (len(body) - entries_at) // entry_bytes(width))):
        at = entries_at + place * entry_bytes(width) + 8  # some may be found
        body[at : at + width] = queries[data.draw(st.integers(0, min(len(queries), 70) - 1))]
    slots, asking = data.draw(st.booleans()), data.draw(st.booleans())
    answers = []
    for module in MODULES:
        out, wanted = np.full(len(queries), 5), np.zeros(blocks if asking else 0, np.uint8)
        left_out = module.frozen_find(
            body, offsets, turns, keys, verified, width, buckets, entries_at, queries, out, -9,
            slots, wanted,
        )  # fmt: skip
        answers.append((left_out > 0 or (left_out, out.tolist()), wanted.tolist()))
        if asking:
            assert bool(left_out) == wanted.any()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("module", MODULES)
def test_sizes_that_lie_are_refused(module):
    keys, body = expand_keys(0), np.zeros(4096, np.uint8)
    offsets, one = np.zeros(3, "u8"), np.zeros(1, np.int64)
    good = [body, offsets, bytes(2), keys, b"\1", 8, 4, 64, bytes(8), one, -1, False, bytearray()]
    assert module.frozen_find(*good) == 0
    for place, bad in (
        (0, body[:60]), (1, offsets[:1]), (1, np.zeros(0, "u8")), (2, b"\0"), (3, keys[:-1]),
        (4, b""), (5, 7), (5, 65), (6, 0), (6, 33), (6, 2**62), (7, 4097), (7, 7), (8, bytes(9)),
        (8, bytes(16)), (9, np.zeros(2, np.int64)), (6, 2**31), (7, 2**62),
    ):  # fmt: skip
        arguments = list(good)
        arguments[place] = bad
        with pytest.raises(ValueError):  # each says another thing
            module.frozen_find(*arguments)

    records = np.zeros((3, 16), np.uint8)
    three, rows = np.zeros(3, "u8"), np.arange(3, dtype="u8")
    starts, edges = np.array([0, 3, 3], "u8"), np.array([0, 4, 4], "u8")
    good = [records, keys, 8, starts.copy(), three.copy(), rows.copy()]
    module.frozen_partition(*good)
    for place, bad in (
        (0, np.zeros(17, np.uint8)), (1, keys[:5]), (2, 7), (2, 65), (3, starts[:1]),
        (4, three[:2]), (5, rows[:2]),
    ):  # fmt: skip
        arguments = list(good)
        arguments[place] = bad
        with pytest.raises(ValueError):
            module.frozen_partition(*arguments)

    records[:, 8] = range(3)
    entries, pilots = np.zeros((4, 16), np.uint8), np.zeros(4, np.uint8)
    module.frozen_partition(records, keys, 8, np.zeros(2, "u8"), three, rows)
    good = [records, 8, keys, three, rows, starts, edges, 2, bytearray(2), pilots, entries]
    assert module.frozen_build(*good)
    for place, bad in (
        (0, records[:2]), (1, 7), (2, keys[:9]), (3, three[:2].copy()), (4, rows[:2].copy()),
        (5, starts[:1]), (5, np.array([0, 2, 3], "u8")), (5, np.array([1, 3, 3], "u8")),
        (5, np.array([0, 4, 3], "u8")), (6, edges[:2]), (6, np.array([0, 5, 4], "u8")),
        (6, np.array([0, 3, 3], "u8")), (7, 0), (7, 3), (7, 2**40), (8, bytearray(1)),
        (9, pilots[:3]), (10, entries[:3]),
    ):  # fmt: skip
        arguments = list(good)
        arguments[place] = bad
        with pytest.raises(ValueError):
            module.frozen_build(*arguments)
    arguments = list(good)
    arguments[4] = np.array([0, 1, 3], "u8")  # no such record
    assert not module.frozen_build(*arguments)


# ---------------------------------------------------------------------------------------- format


def test_a_table_frozen_by_an_earlier_release_is_read(kernel):
    data = gzip.decompress((GOLDEN / "frozen-v1.gz").read_bytes())
    numbers = np.arange(200)
    digests = (17 * numbers[:, None] + np.arange(11)).astype(np.uint8)
    digests[:, 0] = numbers
    frozen = FrozenTable(data)
    frozen.check()
    assert frozen.find(digests).tolist() == [i**3 - 100 for i in range(200)]
    assert frozen.seed == 2026
    assert frozen_layout.VERSION > 1 or data == freeze(
        table_of(digests, numbers**3 - 100), seed=2026
    )
