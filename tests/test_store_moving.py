"""Copies, archives and pickled handles: whole or told, whatever is cut off, changed or killed."""

import copy
import io
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.reliability.store_campaigns import fewer
from hashmem import CorruptStoreError, MemoryStore, StoreClosedError, StoreError, StoreFormatError
from hashmem.store import ArchiveReader, archive, exporting, importing, lmdb_environment
from hashmem.testing.strategies import record_batches

GOLDEN = Path(__file__).parent / "golden" / "archive-v1.bin"
ABSENT = [b"never stored %d" % i for i in range(3)]
RELATIONS = ("link", "ü", "")
HEAD = 24  # bytes of the beginning, and of the head of a frame


def seen(store, payloads):
    """All that a store tells of these contents, in plain values."""
    universe = [store.digest(payload) for payload in [*payloads, *ABSENT]]
    ends, found = store.hop(universe, 1)
    columns = {name: store.read_column(name) for name in store.columns}
    return {
        "order": [bytes(digest) for digest in store.digests()],
        "records": list(store.get_many(universe, verify=True)),
        "metadata": [msgpack.packb(found) for found in store.metadata_many(universe)],
        "successors": (ends.tolist(), found.tolist()),
        "edges": [
            {bytes(end) for end in store.neighbours(one, 1, relation)}
            for relation in RELATIONS
            for one in universe
        ],
        "columns": {
            name: (digests.tolist(), values.dtype.str, values.tolist())
            for name, (digests, values) in columns.items()
            if len(digests)
        },
    }


def archive_of(store):
    file = io.BytesIO()
    store.export_to(file)
    return file.getvalue()


def taken_in(data, **options):
    store = MemoryStore(**options)
    store.import_from(io.BytesIO(data))
    return store


@st.composite
def histories(draw, largest=1 << 10):
    """What is done to a store: batches of records, then links, columns and deletions of them."""
    batches = draw(st.lists(record_batches(max_size=6, largest=largest), min_size=1, max_size=3))
    ends = st.tuples(st.integers(0, 20), st.integers(0, 20))
    return {
        "batches": batches,
        "successors": draw(st.lists(ends, max_size=6)),
        "edges": draw(st.lists(st.tuples(ends, st.sampled_from(RELATIONS)), max_size=8)),
        "columns": draw(
            st.dictionaries(
                st.sampled_from(["a", "ü"]),
                st.tuples(
                    st.sampled_from(["f4", "f8", "u1", "i8", "b1", "f2"]),
                    st.integers(1, 3),
                    st.lists(st.integers(0, 20), min_size=1, max_size=4),
                ),
                max_size=2,
            )
        ),
        "deleted": draw(st.lists(st.integers(0, 20), max_size=3)),
    }


def relive(store, history):
    """Do to `store` what is in `history`; return all contents that were ever put."""
    payloads = [payload for batch in history["batches"] for payload, _ in batch]
    for batch in history["batches"]:
        store.put_many([payload for payload, _ in batch], [about for _, about in batch])
        store.commit()
    names = [store.digest(payload) for payload in [*payloads, *ABSENT]]

    def digest(number):
        return names[number % len(names)]

    for source, target in history["successors"]:
        store.link(digest(source), digest(target))
    for (source, target), relation in history["edges"]:
        store.add_link(digest(source), digest(target), relation)
    for name, (dtype, k, numbers) in history["columns"].items() if payloads else ():
        which = [store.digest(payloads[number % len(payloads)]) for number in numbers]
        values = np.arange(len(which) * k).reshape(-1, k).astype(dtype)
        store.write_column(name, which, values)
    store.commit()
    for number in history["deleted"]:
        store.delete(digest(number))
    store.commit()
    return payloads


@pytest.fixture
def filled():
    """A store in RAM with a bit of everything, and its contents."""
    store = MemoryStore(algorithm="xxh3_64")
    payloads = [b"", b"one", b"two" * 9, bytes(range(50))]
    digests = store.put_many(payloads, [{"n": 1}, None, {"ü": [b"\xff", None]}, {}])
    store.link_many(digests[:-1], digests[1:])
    store.add_link(bytes(digests[0]), store.digest(ABSENT[0]), "ü")
    store.write_column("a", digests[1:], np.arange(6, dtype=np.float32).reshape(3, 2))
    store.commit()
    with store:
        yield store, payloads


# -- archives: round trips ------------------------------------------------------------------------


@settings(max_examples=fewer(100), deadline=None)
@given(histories(), st.sampled_from(["sha256", "xxh3_128", "xxh3_64"]), st.booleans())
def test_what_is_exported_is_imported(history, algorithm, keyed):
    options = {"algorithm": algorithm, "key": b"a key" if keyed else None}
    with MemoryStore(**options) as store:
        payloads = relive(store, history)
        data, expected = archive_of(store), seen(store, payloads)
        with taken_in(data, **options) as other:
            assert seen(other, payloads) == expected
            assert other.verify().ok
            before = other._backend.version
            assert other.import_from(io.BytesIO(data)) == 0
            assert other._backend.version == before  # nothing was written


@settings(max_examples=fewer(12), deadline=None)
@given(histories(largest=1 << 14))
def test_a_folder_and_ram_export_and_copy_alike(tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("stores")
    with MemoryStore() as ram, MemoryStore(folder / "store") as stored:
        payloads = relive(ram, history)
        relive(stored, history)
        assert archive_of(ram) == archive_of(stored)
        stored.compact()
        expected = seen(ram, payloads)
        with taken_in(archive_of(stored)) as other:
            assert seen(other, payloads) == expected
        for number, store in enumerate((ram, stored)):
            store.copy_to(folder / f"copy-{number}")
            with MemoryStore(folder / f"copy-{number}") as other:
                assert seen(other, payloads) == expected
                assert other.verify().ok
                other.put(b"and more")
    with MemoryStore(folder / "imported") as other:
        other.import_from(io.BytesIO(archive_of(taken_in(archive_of_history(history)))))
        assert seen(other, payloads) == expected


def archive_of_history(history):
    with MemoryStore() as store:
        relive(store, history)
        return archive_of(store)


def test_what_the_archive_has_replaces_and_adds(filled):
    store, payloads = filled
    with MemoryStore(algorithm="xxh3_64") as other:
        kept = other.put(b"kept", {"mine": 1})
        one, empty = (other.put(payload, {"old": payload}) for payload in (b"one", b""))
        other.link(empty, kept)
        other.link(kept, empty)
        other.add_link(empty, kept, "ü")
        other.write_column("a", [one, kept], np.full((2, 2), 7, np.float32))
        other.write_column("b", [kept], np.full((1, 1), 7))
        other.commit()
        assert other.import_from(io.BytesIO(archive_of(store))) == len(payloads) - 2
        assert other.metadata(one) == {"old": b"one"}  # the archive has none for it
        assert other.metadata(empty) == {"n": 1}
        assert other.metadata(kept) == {"mine": 1}
        assert bytes(other.hop([empty], 1)[0][0]) == one
        assert bytes(other.hop([kept], 1)[0][0]) == empty
        ends = {bytes(end) for end in other.neighbours(empty, 1, "ü")}
        assert ends == {kept, other.digest(ABSENT[0])}
        names, rows = other.read_column("a")
        values = dict(zip(map(bytes, names), rows.tolist(), strict=True))
        assert values[one] == [0, 1]
        assert values[kept] == [7, 7]
        assert other.columns == ["a", "b"]


def test_large_contents_and_metadata_go_out_in_parts(tmp_path):
    payloads = [os.urandom(size) for size in (9 << 20, 1 << 22, (1 << 22) + 1, 0)]
    about = [{"large": b"m" * (5 << 20)}, None, {"large": b"n" * (1 << 22)}, {}]
    with MemoryStore(tmp_path / "store") as store:
        store.put_many(payloads, about)
        store.commit()
        data = archive_of(store)
        assert len(data) < sum(map(len, payloads)) + (9 << 20) + 2000
        with taken_in(data) as other:
            assert seen(other, payloads) == seen(store, payloads)


def test_many_frames_of_each_kind(monkeypatch, filled):
    for module in (archive, exporting):
        monkeypatch.setattr(module, "FRAME_BYTES", 32)
    store, payloads = filled
    digests = store.put_many([b"%d" % i for i in range(40)])
    payloads = [*payloads, *(b"%d" % i for i in range(40))]
    store.add_links(digests[:-1], digests[1:], "link")
    store.write_column("a", digests, np.ones((40, 2), np.float32))
    store.commit()
    data = archive_of(store)
    reader = ArchiveReader(io.BytesIO(data))
    kinds = [type(frame).__name__ for frame in reader]
    assert kinds.count("Pairs") > 20
    assert kinds.count("Values") > 10
    with taken_in(data, algorithm="xxh3_64") as other:
        assert seen(other, payloads) == seen(store, payloads)
        before = other._backend.version
        assert other.import_from(io.BytesIO(data)) == 0
        assert other._backend.version == before


def test_progress_adds_up(tmp_path):
    payloads = [os.urandom(3000) for _ in range(5000)]
    with MemoryStore(tmp_path / "store") as store:
        store.put_many(payloads)
        store.commit()
        steps = {"export": [], "import": [], "copy": []}
        assert store.export_to(tmp_path / "a", steps["export"].append) == 5000
        store.copy_to(tmp_path / "copy", steps["copy"].append)
        with MemoryStore() as other:
            assert other.import_from(tmp_path / "a", steps["import"].append) == 5000
    assert {name: sum(found) for name, found in steps.items()} == dict.fromkeys(steps, 5000)
    assert all(len(found) > 3 for found in steps.values())


# -- archives: streams and files ------------------------------------------------------------------


class Trickle(io.RawIOBase):
    """A file that gives and takes a few bytes at a time, and cannot be sought."""

    def __init__(self, data=b""):
        self.data, self.at = bytearray(data), 0

    def read(self, size=-1):
        piece = bytes(self.data[self.at : self.at + min(size, 7)])
        self.at += len(piece)
        return piece

    def write(self, piece):
        self.data += bytes(piece[:5])
        return min(5, len(piece))

    def writable(self):
        return True


def test_files_may_give_and_take_a_few_bytes_at_a_time(filled):
    store, payloads = filled
    file = Trickle()
    store.export_to(file)
    assert bytes(file.data) == archive_of(store)
    with MemoryStore(algorithm="xxh3_64") as other:
        other.import_from(Trickle(file.data))
        assert seen(other, payloads) == seen(store, payloads)


def test_through_a_pipe(tmp_path):
    payloads = [os.urandom(5000) for _ in range(2000)]  # more than a pipe holds
    with MemoryStore(tmp_path / "store") as store, MemoryStore() as other:
        store.put_many(payloads)
        store.commit()
        out, into = os.pipe()

        def export():
            with open(into, "wb") as file:
                store.export_to(file)
                file.write(b"what follows")

        writer = threading.Thread(target=export)
        writer.start()
        with open(out, "rb", buffering=0) as file:
            assert other.import_from(file) == 2000
            assert file.read(100) == b"what follows"  # the file is left behind the archive
        writer.join()
        assert seen(other, payloads) == seen(store, payloads)


def test_a_named_pipe_stays_one(tmp_path, filled):
    store, _ = filled
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=store.export_to, args=(tmp_path / "pipe",))
    writer.start()
    with MemoryStore(algorithm="xxh3_64") as other:
        assert other.import_from(tmp_path / "pipe") == 4
    writer.join()
    assert (tmp_path / "pipe").is_fifo()


def test_a_path_is_replaced_once_the_archive_is_whole(tmp_path, filled):
    store, _ = filled
    path = tmp_path / "archive"
    path.write_bytes(b"what was there")

    def fail(_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.export_to(path, fail)
    assert path.read_bytes() == b"what was there"
    store.export_to(path)
    assert path.read_bytes() == archive_of(store)
    assert os.listdir(tmp_path) == ["archive"]
    with pytest.raises(StoreError, match="cannot write the archive .*directory"):
        store.export_to(tmp_path)
    with pytest.raises(StoreError, match="cannot write the archive .*No such"):
        store.export_to(tmp_path / "nowhere" / "archive")
    with pytest.raises(FileNotFoundError):
        store.import_from(tmp_path / "nowhere")
    path.write_bytes(path.read_bytes() + b"x")
    with (
        MemoryStore(algorithm="xxh3_64") as other,
        pytest.raises(CorruptStoreError, match="more bytes follow"),
    ):
        other.import_from(path)


def test_text_files_are_refused(tmp_path, filled):
    store, _ = filled
    with pytest.raises(TypeError, match="bytes"):
        store.export_to(io.StringIO())
    with pytest.raises(TypeError, match="binary mode"):
        store.import_from(io.StringIO("text"))


# -- archives: what does not fit ------------------------------------------------------------------


def test_algorithm_and_key_must_be_those_of_the_archive():
    data = {}
    for key in (None, b"one", b"two"):
        with MemoryStore(key=key) as store:
            store.put(b"content")
            store.commit()
            data[key] = archive_of(store)
    assert len(set(data.values())) == 3
    for key in data:
        for held in data:
            with MemoryStore(key=held) as store:
                if key == held:
                    assert store.import_from(io.BytesIO(data[key])) == 1
                else:
                    with pytest.raises(ValueError, match="into a namespace (made with|without)"):
                        store.import_from(io.BytesIO(data[key]))
                    assert len(store) == 0
    with (
        MemoryStore(algorithm="xxh3_64") as store,
        pytest.raises(ValueError, match="algorithm='sha256'"),
    ):
        store.import_from(io.BytesIO(data[None]))
    reader = ArchiveReader(io.BytesIO(data[None]))
    with MemoryStore(algorithm=reader.algorithm) as store:  # as is known before a store is made
        assert store.import_from(reader) == 1


def test_a_column_of_another_type_is_told(filled):
    store, _ = filled
    with MemoryStore(algorithm="xxh3_64") as other:
        other.write_column("a", [other.put(b"x")], np.ones((1, 3)))
        other.commit()
        with pytest.raises(ValueError, match="column 'a' has 3 items"):
            other.import_from(io.BytesIO(archive_of(store)))
        assert not other.statistics()["pending"]


def test_uncommitted_writes_are_not_left_behind_silently(tmp_path, filled):
    store, _ = filled
    store.put(b"pending")
    for call in (
        lambda: store.copy_to(tmp_path / "copy"),
        lambda: store.export_to(tmp_path / "archive"),
        lambda: store.import_from(GOLDEN),
    ):
        with pytest.raises(StoreError, match="not committed"):
            call()
    assert os.listdir(tmp_path) == []


def test_a_store_that_is_read_only_is_copied_and_exported_not_imported_into(tmp_path, filled):
    store, payloads = filled
    store.copy_to(tmp_path / "store")
    with MemoryStore(tmp_path / "store", readonly=True) as read:
        assert archive_of(read) == archive_of(store)
        read.copy_to(tmp_path / "copy")
        with pytest.raises(StoreError, match="read-only"):
            read.import_from(io.BytesIO(archive_of(store)))
    with MemoryStore(tmp_path / "copy") as other:
        assert seen(other, payloads) == seen(store, payloads)


def test_damage_is_not_exported(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        store.put(b"a payload to be damaged", {"about": "metadata to be damaged"})
    path = tmp_path / "store" / "000001.mdb"
    whole = path.read_bytes()
    for what in (b"payload to be", b"metadata to be"):
        path.write_bytes(whole.replace(what, what.upper()))
        with MemoryStore(tmp_path / "store") as store:
            with pytest.raises(CorruptStoreError, match=r"damaged|checksum"):
                store.export_to(tmp_path / "archive")
            store.copy_to(tmp_path / what.decode())
        with MemoryStore(tmp_path / what.decode()) as other:
            assert not other.verify().ok
    assert not (tmp_path / "archive").exists()


# -- archives: cut off, changed, made up ----------------------------------------------------------


def test_cut_at_any_byte_it_is_told_and_what_came_before_is_kept(filled):
    store, payloads = filled
    data, whole = archive_of(store), seen(store, payloads)
    records = set()
    for end in range(len(data)):
        with MemoryStore(algorithm="xxh3_64") as other:
            with pytest.raises(CorruptStoreError, match="cut off"):
                other.import_from(io.BytesIO(data[:end]))
            assert other.rollback() is None  # nothing is left pending
            part = seen(other, payloads)
            assert part["order"] in ([], whole["order"])
            records.add(len(part["order"]))
            for name, found in part["columns"].items():
                assert found == whole["columns"][name]
            other.import_from(io.BytesIO(data))
            assert seen(other, payloads) == whole
    assert records == {0, len(payloads)}


def test_any_byte_changed_is_told(filled):
    store, _ = filled
    data = archive_of(store)
    random = np.random.default_rng(5)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << random.integers(8)
        kind = StoreFormatError if at < 8 else CorruptStoreError
        with MemoryStore(algorithm="xxh3_64") as other, pytest.raises(kind) as told:
            other.import_from(io.BytesIO(changed))
        assert at < 8 or "damaged in " in str(told.value)


def test_the_frame_and_byte_are_named(filled):
    store, _ = filled
    data = bytearray(archive_of(store))
    data[2 * HEAD + 16 + 30] ^= 1  # in the frame after the header
    with (
        MemoryStore(algorithm="xxh3_64") as other,
        pytest.raises(CorruptStoreError, match="in frame 1, at byte 64: .*checksum.*0 new records"),
    ):
        other.import_from(io.BytesIO(data))


def frames(data):
    """The frames of an archive: (kind, body) each."""
    at, found = HEAD, []
    while at < len(data):
        kind, _, length = struct.unpack_from("<HHI", data, at)
        found.append((kind, data[at + HEAD : at + HEAD + length]))
        at += HEAD + length
    return found


def sealed(parts, start=None):
    """An archive of frames that may hold anything, with checksums and trailer that are right."""
    start = start or struct.pack("<8sII", b"HMARCHIV", 1, 0)
    out = start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start))
    for number, (kind, body) in enumerate(parts):
        if kind == archive.TRAILER and len(body) == 64:
            body = body[:40] + struct.pack("<Q", len(out)) + xxhash.xxh3_128_digest(out)
        head = struct.pack("<HHIQ", kind, 0, len(body), number)
        out += head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + body)) + body
    return out


def test_sealing_makes_the_same_archive(filled):
    store, _ = filled
    data = archive_of(store)
    assert sealed(frames(data)) == data


@settings(max_examples=fewer(300), deadline=None)
@given(st.data())
def test_whatever_is_made_up_is_refused_or_imported(drawn):
    with MemoryStore(algorithm="xxh3_64") as store:
        digests = store.put_many([b"a", b"bb"], [{"n": [1, {"x": b"y"}]}, None])
        store.add_links(digests, digests[::-1])
        store.link_many(digests, digests[::-1])
        store.write_column("a", digests, np.ones((2, 1)))
        store.commit()
        parts = frames(archive_of(store))
    for _ in range(drawn.draw(st.integers(1, 3))):
        at = drawn.draw(st.integers(0, len(parts) - 1))
        kind, body = parts[at]
        what = drawn.draw(st.sampled_from(["bytes", "kind", "cut", "grow", "drop", "again", "new"]))
        if what == "bytes" and body:
            changed = bytearray(body)
            for _ in range(drawn.draw(st.integers(1, 3))):
                where = drawn.draw(st.integers(0, len(body) - 1))
                changed[where] = drawn.draw(st.sampled_from([0, 1, 127, 128, 255, 0xDD, 0xDF]))
            parts[at] = kind, bytes(changed)
        elif what == "kind":
            parts[at] = drawn.draw(st.integers(0, 9)), body
        elif what == "cut":
            parts[at] = kind, body[: drawn.draw(st.integers(0, len(body)))]
        elif what == "grow":
            parts[at] = kind, body + drawn.draw(st.binary(max_size=20))
        elif what == "drop" and len(parts) > 1:
            del parts[at]
        elif what == "again":
            parts.insert(at, parts[at])
        elif what == "new":
            parts.insert(at, (drawn.draw(st.integers(1, 7)), drawn.draw(st.binary(max_size=60))))
    with MemoryStore(algorithm="xxh3_64") as other:
        told = ""
        try:
            other.import_from(io.BytesIO(sealed(parts)))
        except ValueError as error:  # CorruptStoreError is one
            told = str(error)
        assert not told or any(
            word in told for word in ("damaged in ", "key", "algorithm=", "column '")
        )
        assert not other.statistics()["pending"]
        assert other.verify().ok
        other.metadata_many(other.digests())


@settings(max_examples=fewer(600), deadline=None)
@given(st.integers(0, 9), st.binary(max_size=200), st.sampled_from([8, 16, 32]))
def test_a_frame_is_parsed_or_refused(kind, body, width):
    try:
        found = archive.parse(kind, body, width)
        if isinstance(found, archive.Items) and kind == archive.METADATA:
            found.maps()
    except CorruptStoreError:
        pass


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(data, match):
    def call():
        with (
            MemoryStore(algorithm="xxh3_64") as store,
            pytest.raises(CorruptStoreError, match=match),
        ):
            store.import_from(io.BytesIO(data))

    return call


def test_lengths_that_lie_take_no_memory():
    header = (archive.HEADER, b"xxh3_64".ljust(16, b"\0"))
    start = sealed([header])
    one = np.zeros(8, np.uint8).tobytes()
    content = struct.pack("<I", 1) + one
    many = 0xFFFF_FFFF
    for body in (
        (archive.RECORDS, struct.pack("<I", many)),
        (archive.RECORDS, content + struct.pack("<I", many)),
        (archive.PART, struct.pack("<IQQ", 1, 1 << 60, 1 << 59) + one),
        (archive.COLUMN, struct.pack("<II4sI", many, 1, b"<f8", many) + b"a"),
        (archive.COLUMN, struct.pack("<II4sI", 1, many, b"<f8", many) + b"a"),
        (archive.EDGES, struct.pack("<II", many, 0)),
        (archive.SUCCESSORS, struct.pack("<I", many)),
    ):
        call = refused(sealed([header, body]), "claims|no part|a name has")
        assert peak_of(call) < 1 << 20
    long = start + struct.pack("<HHIQQ", archive.RECORDS, 0, many, 1, 0)
    assert peak_of(refused(long, "of 4294967295 bytes")) < 1 << 20
    part = (archive.PART, struct.pack("<IQQ", 1, 1 << 40, 0) + one + b"x")  # 1 TiB, a byte of it
    assert peak_of(refused(sealed([header, part]), "cut off")) < 1 << 20


def test_msgpack_bombs_are_refused():
    header = (archive.HEADER, b"xxh3_64".ljust(16, b"\0"))
    digest = np.frombuffer(xxhash.xxh3_64_digest(b"x"), np.uint8).tobytes()
    record = (archive.RECORDS, struct.pack("<I", 1) + digest + struct.pack("<I", 1) + b"x")
    for bomb in (
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa1a" + b"\xdd\x00\x10\x00\x00" * 500,  # a million items, in a million items, …
        b"\x91" * 5000 + b"\xc0",
        b"\x81" * 500 + b"\xc0",
        b"\x81\x90\x01",  # a list as a key
        b"\x81\xa1\xff\xc0",  # no UTF-8
        b"\x80\x80",
        b"\xc0",
        b"",
    ):
        about = struct.pack("<I", 1) + digest + struct.pack("<I", len(bomb)) + bomb
        call = refused(sealed([header, record, (archive.METADATA, about)]), "the metadata of")
        assert peak_of(call) < 4 << 20


def test_a_content_without_its_digest_is_not_stored():
    header = (archive.HEADER, b"xxh3_64".ljust(16, b"\0"))
    body = struct.pack("<I", 1) + bytes(8) + struct.pack("<I", 1) + b"x"
    refused(sealed([header, (archive.RECORDS, body)]), "does not have that digest.*0 new")()


def test_newer_archives_and_flags_are_refused(filled):
    store, _ = filled
    parts = frames(archive_of(store))
    for version, flags in ((2, 0), (1, 1)):
        data = sealed(parts, struct.pack("<8sII", b"HMARCHIV", version, flags))
        with pytest.raises(StoreFormatError, match="upgrade hashmem"):
            store.import_from(io.BytesIO(data))
    data = bytearray(archive_of(store))
    struct.pack_into("<H", data, HEAD + 2, 1)  # a flag of a frame
    body = data[2 * HEAD : 2 * HEAD + 16]
    struct.pack_into("<Q", data, HEAD + 16, xxhash.xxh3_64_intdigest(data[HEAD : HEAD + 16] + body))
    with pytest.raises(StoreFormatError, match="flags 1, which this release"):
        store.import_from(io.BytesIO(data))
    with pytest.raises(StoreFormatError, match="no archive of hashmem's"):
        store.import_from(io.BytesIO(b"something else altogether"))
    with pytest.raises(CorruptStoreError, match="its beginning, at byte 0: .*cut off"):
        store.import_from(io.BytesIO())


def test_names_that_are_too_long_are_told():
    with MemoryStore() as store:
        store.add_link(store.put(b"a"), store.put(b"b"), "x" * (archive.NAME_LIMIT + 1))
        store.commit()
        with pytest.raises(ValueError, match="a name of 1048577 bytes"):
            archive_of(store)


# -- archives: resumed ----------------------------------------------------------------------------


def test_an_import_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "COMMIT_BYTES", 1 << 16)
    for module in (archive, exporting):
        monkeypatch.setattr(module, "FRAME_BYTES", 1 << 12)
    payloads = [b"record %d " % i * 30 for i in range(2000)]
    with MemoryStore() as store:
        digests = store.put_many(payloads, [{"i": i} for i in range(2000)])
        store.link_many(digests[:-1], digests[1:])
        store.add_links(digests, digests[::-1])
        store.write_column("a", digests, np.arange(2000.0)[:, None])
        store.commit()
        data, expected = archive_of(store), None
        expected = seen(store, payloads)
    random = np.random.default_rng(11)
    with MemoryStore(tmp_path / "store") as other:
        new, ends = 0, sorted(random.integers(0, len(data), 12).tolist())
        for end in ends:
            before = len(other)
            with pytest.raises(CorruptStoreError, match="cut off"):
                other.import_from(io.BytesIO(data[:end]))
            assert len(other) >= before
            other.rollback()
            assert other.verify().ok
            new = len(other)
        assert other.import_from(io.BytesIO(data)) == len(payloads) - new
        assert seen(other, payloads) == expected
        version = other._backend.version
        assert other.import_from(io.BytesIO(data)) == 0
        assert other._backend.version == version


IMPORT = """
import sys
from hashmem import MemoryStore
from hashmem.store import importing
importing.COMMIT_BYTES = 1 << 19
with MemoryStore(sys.argv[1]) as store:
    store.import_from(sys.argv[2], lambda n: print(n, flush=True))
"""
COPY = """
import sys
from hashmem import MemoryStore
from hashmem.store import lmdb_environment
lmdb_environment.REWRITTEN = 1 << 19
with MemoryStore(sys.argv[1], readonly=True) as store:
    store.copy_to(sys.argv[2], lambda n: n and print(n, flush=True))
"""
WRITE = """
import sys
from hashmem import MemoryStore
with MemoryStore(sys.argv[1]) as store:
    for i in range(10**6):
        digests = store.put_many([b"record %d %d" % (i, j) * 50 for j in range(7)])
        store.link_many(digests[:-1], digests[1:])
        if i % 10 == 9:
            store.delete_many(digests)
        store.commit()
        if i % 30 == 0:
            store.compact()
        print(i, flush=True)
"""


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)], stdout=subprocess.PIPE
    )


def test_killed_imports_are_resumed(tmp_path):
    payloads = [os.urandom(5000) for _ in range(6000)]
    with MemoryStore() as store:
        store.put_many(payloads)
        store.commit()
        store.export_to(tmp_path / "archive")
    had = 0
    for steps in (2, 4, 5):
        child = python(IMPORT, tmp_path / "store", tmp_path / "archive")
        for _ in range(steps):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        with MemoryStore(tmp_path / "store") as other:
            assert other.verify().ok
            assert len(other) >= had
            had = len(other)
    assert 0 < had < len(payloads)
    with MemoryStore(tmp_path / "store") as other:
        assert other.import_from(tmp_path / "archive") == len(payloads) - had
        assert list(other.get_many([other.digest(p) for p in payloads])) == payloads


# -- copies ---------------------------------------------------------------------------------------


def test_a_copy_has_every_namespace(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        digest = store.put(b"plain", {"n": 1})
    with MemoryStore(tmp_path / "store", namespace="keyed", key=b"secret") as store:
        keyed = store.put(b"keyed")
        store.commit()
        store.copy_to(str(tmp_path / "deep" / "copy"))
    assert sorted(os.listdir(tmp_path / "deep")) == ["copy"]
    with MemoryStore(tmp_path / "deep" / "copy") as store:
        assert store.namespaces() == ["", "keyed"]
        assert store[digest] == b"plain"
        store.put(b"more")
    with MemoryStore(tmp_path / "deep" / "copy", namespace="keyed", key=b"secret") as store:
        assert store[keyed] == b"keyed"
        assert store.verify().ok


def test_copies_taken_while_another_process_writes(tmp_path):
    writer = python(WRITE, tmp_path / "store")
    writer.stdout.readline()
    before = 0
    with MemoryStore(tmp_path / "store", readonly=True) as store:
        for i in range(12):
            writer.stdout.readline()
            store.refresh()
            if i % 2:
                store.copy_to(tmp_path / f"copy-{i}")
                other = MemoryStore(tmp_path / f"copy-{i}")
            else:
                other = taken_in(archive_of(store))
            with other:
                assert other.verify().ok
                assert len(other) % 7 == 0
                assert len(other) >= max(before, 7)
                before = len(other)
                starts = [d for d in other.digests() if other[bytes(d)].startswith(b"record 1 0")]
                assert not starts or len(other.trace(bytes(starts[0]))) == 7
    writer.kill()
    writer.wait()


def test_beside_a_thread_that_writes_through_another_handle(tmp_path):
    path, stop = tmp_path / "store", threading.Event()

    def write():
        with MemoryStore(path) as store:
            for i in range(10**6):
                if stop.is_set():
                    return
                digests = store.put_many([b"%d %d" % (i, j) for j in range(5)], [{"i": i}] * 5)
                store.link_many(digests[:-1], digests[1:])
                store.commit()

    with MemoryStore(path) as store:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for i in range(15):
                with taken_in(archive_of(store)) as other:
                    assert len(other) % 5 == 0
                    digests = other.digests()
                    assert None not in other.metadata_many(digests)
                    assert int(other.hop(digests, 4)[1].sum()) == len(other) // 5
                if i % 5 == 0:
                    store.copy_to(tmp_path / f"copy-{i}")
                    with MemoryStore(tmp_path / f"copy-{i}") as other:
                        assert len(other) % 5 == 0
                        assert other.verify().ok
        finally:
            stop.set()
            writer.join()
        store.refresh()
        assert len(store) > len(digests)


def test_what_is_there_is_not_touched(tmp_path, filled):
    store, payloads = filled
    store.copy_to(tmp_path / "store")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    before = sorted(os.listdir(tmp_path))
    for name, told in (
        ("store", "there is a store at"),
        ("file", "no empty folder"),
        ("folder", "no empty folder"),
    ):
        with pytest.raises(StoreFormatError, match=told):
            store.copy_to(tmp_path / name)
    with pytest.raises(ValueError, match="is empty"):
        store.copy_to("")
    assert sorted(os.listdir(tmp_path)) == before
    store.copy_to(tmp_path / "link")
    assert sorted(os.listdir(tmp_path)) == before
    with MemoryStore(tmp_path / "empty") as other:
        assert seen(other, payloads) == seen(store, payloads)


def test_a_copy_that_fails_leaves_nothing(tmp_path, filled):
    store, _ = filled

    def fail(_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.copy_to(tmp_path / "copy", fail)
    assert os.listdir(tmp_path) == []


@contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    with MemoryStore() as store:
        store.put_many([os.urandom(1 << 20) for _ in range(8)])
        store.commit()
        store.export_to(tmp_path / "archive")
        with files_of_at_most(4 << 20):
            with pytest.raises(StoreError, match=r"cannot copy to .*copy: .*"):
                store.copy_to(tmp_path / "copy")
            with pytest.raises(StoreError, match="cannot write the archive"):
                store.export_to(tmp_path / "other")
        assert os.listdir(tmp_path) == ["archive"]
        with MemoryStore(tmp_path / "imported") as other:
            with files_of_at_most(4 << 20), pytest.raises(StoreError):
                other.import_from(tmp_path / "archive")
            assert other.import_from(tmp_path / "archive") == 8
        store.copy_to(tmp_path / "copy")


def kill_copies(tmp_path, cycles, seed):
    """Kill copies, early and late; see that there is none or a whole one. Returns how many were."""
    payloads = [os.urandom(5000) for _ in range(6000)]
    with MemoryStore(tmp_path / "store") as store:
        store.put_many(payloads)
        store.commit()
        whole, random, done = archive_of(store), np.random.default_rng(seed), 0
    target, beside = tmp_path / "copy", tmp_path / ".copy.hashmem-copy"
    for _ in range(cycles):
        child = python(COPY, tmp_path / "store", target)
        for _ in range(random.integers(9)):
            child.stdout.readline()
        time.sleep(random.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        child.wait()
        if beside.exists() and not (beside / "CURRENT").exists():
            with pytest.raises(StoreFormatError):
                MemoryStore(beside, readonly=True)
        if target.exists():
            done += 1
            assert not beside.exists()
            with MemoryStore(target) as other:
                assert archive_of(other) == whole
            shutil.rmtree(target)
    return done


def test_a_killed_copy_is_no_store_and_the_next_one_clears_it_away(tmp_path):
    kill_copies(tmp_path, 6, seed=1)
    beside = tmp_path / ".copy.hashmem-copy"
    beside.mkdir(exist_ok=True)
    (beside / "content").write_bytes(b"left behind")
    with MemoryStore(tmp_path / "store") as store:
        store.copy_to(tmp_path / "copy")
        assert sorted(os.listdir(tmp_path)) == ["copy", "store"]
        with MemoryStore(tmp_path / "copy") as other:
            assert other.verify().ok
            assert archive_of(other) == archive_of(store)


@pytest.mark.campaign
def test_many_killed_copies(tmp_path):
    done = kill_copies(tmp_path, 150, seed=2)
    assert 0 < done < 150


def test_two_copies_to_one_path_do_not_meet(tmp_path, filled):
    store, payloads = filled
    met = []

    def again(_):
        if not met:
            met.append(True)
            with pytest.raises(StoreError, match="another copy to the same place"):
                store.copy_to(tmp_path / "copy")

    store.copy_to(tmp_path / "copy", again)
    assert met
    with MemoryStore(tmp_path / "copy") as other:
        assert seen(other, payloads) == seen(store, payloads)


def test_a_folder_of_somebody_else_in_the_way_is_kept(tmp_path, filled):
    store, _ = filled
    beside = tmp_path / ".copy.hashmem-copy"
    beside.mkdir()
    (beside / "letters").write_bytes(b"x")
    (beside / "content").write_bytes(b"x")
    with pytest.raises(StoreFormatError, match="letters is in the way"):
        store.copy_to(tmp_path / "copy")
    assert (beside / "letters").read_bytes() == (beside / "content").read_bytes() == b"x"


def test_a_store_made_at_the_target_meanwhile_is_kept(tmp_path, filled):
    store, _ = filled

    def meanwhile(_):
        with MemoryStore(tmp_path / "copy") as other:
            other.put(b"quicker")

    with pytest.raises(StoreFormatError, match="there is a store"):
        store.copy_to(tmp_path / "copy", meanwhile)
    with MemoryStore(tmp_path / "copy") as other:
        assert other.digest(b"quicker") in other
    assert os.listdir(tmp_path) == ["copy"]


def test_copies_come_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_environment, "REWRITTEN", 1 << 16)
    payloads = [os.urandom(1000) for _ in range(500)]
    with MemoryStore(tmp_path / "store") as store:
        for start in range(0, 500, 10):
            store.put_many(payloads[start : start + 10])
            store.commit()
        store.copy_to(tmp_path / "copy")
        with MemoryStore(tmp_path / "copy") as other:
            assert other._backend.version[1] > 5
            assert archive_of(other) == archive_of(store)


# -- handles that are pickled ---------------------------------------------------------------------


def read_in_child(store, digest, answers):
    try:
        assert isinstance(store, MemoryStore)
        found = store[digest]
        store.put(b"of the child")
        store.close()
        answers.put(found)
    except BaseException as error:
        answers.put(repr(error))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_handle_reopens_in_another_process(tmp_path, method):
    context = multiprocessing.get_context(method)
    with MemoryStore(tmp_path / "store", namespace="n", algorithm="xxh3_64") as store:
        digest = store.put(b"content")
        store.commit()
        answers = context.Queue()
        child = context.Process(target=read_in_child, args=(store, digest, answers))
        child.start()
        assert answers.get(timeout=60) == b"content"
        child.join()
        store.refresh()
        assert store.digest(b"of the child") in store
        assert store.verify().ok


def first_bytes(store_and_digests):
    store, digests = store_and_digests
    return [store[digest][:1] for digest in digests]


def test_handles_travel_to_workers_again_and_again(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        digests = [bytes(d) for d in store.put_many([b"a1", b"b2", b"c3"])]
    with (
        MemoryStore(tmp_path / "store", readonly=True) as store,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        for _ in range(3):
            assert pool.map(first_bytes, [(store, digests)] * 2) == [[b"a", b"b", b"c"]] * 2


def test_a_pickle_holds_where_the_store_is_and_nothing_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MemoryStore("store", namespace="named") as store:
        digest = store.put(b"content that is stored")
        store.commit()
        data = pickle.dumps(store)
        assert b"content" not in data
        assert len(data) < 500
        monkeypatch.chdir("/")  # the path in it is a whole one
        with pickle.loads(data) as other, copy.copy(store) as third:
            for handle in (other, third):
                assert handle is not store
                assert (handle.path, handle._namespace) == (store.path, "named")
                assert handle[digest] == b"content that is stored"
                handle.commit()
    with MemoryStore(tmp_path / "store", namespace="named", readonly=True) as store:
        other = pickle.loads(pickle.dumps(store))
    with other, pytest.raises(StoreError, match="read-only"):
        other.put(b"x")
    with pytest.raises(StoreClosedError):
        pickle.dumps(store)
    os.rename(tmp_path / "store", tmp_path / "moved")
    with pytest.raises(StoreFormatError, match="there is no store at"):
        pickle.loads(data)
    assert os.listdir(tmp_path) == ["moved"]


def test_what_cannot_be_pickled_says_why(tmp_path):
    with MemoryStore() as store:
        with pytest.raises(TypeError, match="a store in RAM cannot be pickled"):
            pickle.dumps(store)
        store.put(b"a")
        with pytest.raises(TypeError, match="records cannot be pickled"):
            pickle.dumps(store.get_many(store.digests()))
    with MemoryStore(tmp_path / "store") as store:
        digest = store.put(b"a")
        with pytest.raises(StoreError, match="not committed"):
            pickle.dumps(store)
        store.commit()
        with pytest.raises(TypeError, match="records cannot be pickled"):
            copy.deepcopy(store.get_many([digest]))
    with (
        MemoryStore(tmp_path / "store", namespace="keyed", key=b"the secret") as store,
        pytest.raises(TypeError, match="the key would lie open"),
    ):
        pickle.dumps(store)


def test_a_store_on_a_backend_of_its_own_is_not_pickled(tmp_path):
    from hashmem.store.ram import RamBackend

    class Elsewhere(RamBackend):
        path = str(tmp_path)

    with (
        MemoryStore(backend=Elsewhere()) as store,
        pytest.raises(TypeError, match="a store on a Elsewhere cannot be pickled"),
    ):
        pickle.dumps(store)


# -- the archive of every release -----------------------------------------------------------------


def test_the_golden_archive_is_read():
    sys.path.insert(0, str(GOLDEN.parent))
    try:
        import make_archive
    finally:
        sys.path.pop(0)
    payloads = make_archive.PAYLOADS
    with MemoryStore(algorithm="xxh3_128") as store:
        assert store.import_from(GOLDEN) == len(payloads)
        digests = [store.digest(payload) for payload in payloads]
        never = store.digest(make_archive.NEVER)
        assert [bytes(digest) for digest in store.digests()] == digests
        assert list(store.get_many(digests, verify=True)) == payloads
        assert store.metadata_many(digests) == make_archive.MAPS
        ends, found = store.hop(digests, 1)
        assert found.all()
        assert [bytes(end) for end in ends] == [*digests[1:], never]
        assert [bytes(d) for d in store.neighbours(digests[0], 1, "imports")] == [digests[2]]
        assert [bytes(d) for d in store.neighbours(never, 1, "ü")] == [digests[0]]
        rows, values = store.read_column("vector")
        assert [bytes(row) for row in rows] == digests
        assert values.dtype == np.float32
        assert values.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
        assert store.read_column("flag")[1].tolist() == [[True], [False]]
        assert store.verify().ok
    again = io.BytesIO()
    make_archive.write(again)
    assert again.getvalue() == GOLDEN.read_bytes()  # and still written like that
