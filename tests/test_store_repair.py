"""Damage of every kind: verify and scrub find it, repair makes a whole store of what is whole."""

import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing

import lmdb
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore
from hashmem.cli import main
from hashmem.errors import CorruptStoreError, HashMemError, StoreError, StoreFormatError
from hashmem.store import checkpoint, repair
from hashmem.store.checkpoint import PAGE
from hashmem.store.layout import (
    DIGESTS,
    EDGES,
    METADATA,
    PAYLOADS,
    SUCCESSORS,
    body_key,
    index_key,
    pack_number,
    pack_prefix,
)
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.lmdb_pages import metas
from hashmem.store.packs import PACK_LIMIT
from hashmem.store.salvage import Salvage

COUNT = 40
CONTENTS = [b"content %d " % i * (1 + 7 * i) for i in range(COUNT)]
COLUMN = 16  # the number of the named column
KEY = b"a secret"
SECTIONS = ["digests", "payloads", "metadata", "index"]  # of a checkpoint


@pytest.fixture(autouse=True)
def small_checkpoints(monkeypatch):
    monkeypatch.setattr(checkpoint, "FEWEST", 4)


def fill(path, **options):
    """Records in a checkpoint and after it, with all that records can have; their digests."""
    with MemoryStore(path, **options) as store:
        digests = store.put_many(CONTENTS[:-2], [{"n": i} for i in range(COUNT - 2)])
        store.link_many(digests[:-1], digests[1:])
        store.add_links(digests[:9], digests[10:19], "cites")
        store.write_column("size", digests, np.arange(COUNT - 2)[:, None])
    with MemoryStore(path, namespace=store._namespace, key=store._key) as store:
        store.put_many(CONTENTS[-2:], [{"n": i} for i in (COUNT - 2, COUNT - 1)])
        return np.array([np.frombuffer(store.digest(c), np.uint8) for c in CONTENTS])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FEWEST", 4)
        digests = fill(path)
    assert len(list(path.glob("*.rows"))) == 1
    return path, digests


@pytest.fixture
def damaged(template, tmp_path):
    """A copy to be damaged, and the digests of its records."""
    path, digests = template
    shutil.copytree(path, tmp_path / "store")
    return tmp_path / "store", digests


def is_whole(path, digests, lost=(), metadata_lost=(), links=True, column=True, **options):
    """Assert that a store has everything but what is lost, and nothing wrong in place of it."""
    kept = [i for i in range(COUNT) if i not in set(lost)]
    with MemoryStore(path, **options) as store:
        found = store.verify()
        assert found.ok, found.damage
        assert len(store) == found.checked == len(kept)
        assert list(store.get_many(digests[kept], verify=True)) == [CONTENTS[i] for i in kept]
        assert not store.contains(digests[list(lost)]).any() if len(lost) else True
        for i in kept:
            assert store.metadata(digests[i].tobytes()) == (
                None if i in set(metadata_lost) else {"n": i}
            )
        ends, there = store.hop(digests, 1)
        for i in range(COUNT - 3):
            assert not there[i] or bytes(ends[i]) == bytes(digests[i + 1])
        if links:
            assert there[: COUNT - 3].all()
            for i in range(9):
                around = store.neighbours(digests[i : i + 1], relation="cites")
                assert [bytes(d) for d in around] == [bytes(digests[i + 10])]
        if column:
            of, values = store.read_column("size")
            sizes = dict(zip(map(bytes, of), values[:, 0].tolist(), strict=True))
            assert sizes == {bytes(digests[i]): i for i in kept if i < COUNT - 2}


def flip(path, at, mask=0x40):
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


def damage(path, column, kind, at, which=0, namespace=1):
    """Flip a byte of a pack of a column in the file, in each copy that LMDB left of it."""
    file = next(path.glob("*.mdb"))
    with Salvage(file, 1) as salvage:
        key = list(salvage.keys(pack_prefix(namespace, column)))[which]
        key = (index_key if kind == "index" else body_key)(namespace, column, pack_number(key))
        salvage.best(key, lambda value: False)  # looks for all copies
        places = {extent.start + at % extent.size for extent in salvage._found[key]}
    for place in places:
        with open(file, "r+b") as opened:  # in place: handles have it open
            opened.seek(place)
            byte = opened.read(1)[0]
            opened.seek(place)
            opened.write(bytes([byte ^ 0x40]))


def again(path, digests, **what):
    """A second repair finds nothing, and everything stays."""
    second = repair(path)
    assert second.ok, second.damage
    is_whole(path, digests, **what)


# -- repair ----------------------------------------------------------------------------------------


def test_a_whole_store_stays_whole(damaged):
    path, digests = damaged
    report = repair(path)
    assert report.ok
    assert report.kept == COUNT
    assert not (path / "quarantine").exists()
    is_whole(path, digests)


@pytest.mark.parametrize(("kind", "at"), [("index", 20), ("index", 50), ("body", 20), ("body", -1)])
@pytest.mark.parametrize("column", [DIGESTS, PAYLOADS, METADATA, SUCCESSORS, EDGES, COLUMN])
def test_damage_of_a_pack_loses_what_it_must_and_no_more(damaged, column, kind, at):
    path, digests = damaged
    damage(path, column, kind, at)
    report = repair(path)
    name = next(name for name in report.quarantined if name.endswith(f".{kind}"))
    assert (path / "quarantine" / name).stat().st_size > 0
    assert [pack[1] for pack in report.packs] == [column]
    what = {"lost": (), "metadata_lost": ()}
    if column == PAYLOADS:  # by the content where it is told, else all of the pack
        ends = np.cumsum([len(c) for c in CONTENTS])
        byte = at if at > 0 else ends[COUNT - 3] - 1
        hit = int(np.searchsorted(ends, byte, "right"))
        what["lost"] = (hit,) if kind == "body" else range(COUNT - 2)
        if kind == "body":  # of a lost index nobody knows what it spoke of
            assert report.lost == [bytes(digests[hit])]
    if column == METADATA:
        what["metadata_lost"] = range(COUNT - 2)
        assert len(report.metadata) == (COUNT - 2 if kind == "body" else 0)
    if column == DIGESTS:
        assert report.recomputed == 2
    assert bool(report.links) is (column in (SUCCESSORS, EDGES) and kind == "body")
    assert bool(report.column_rows) is (
        (column == COLUMN and kind == "body") or (column == PAYLOADS)
    )
    what["links"] = column not in (SUCCESSORS, EDGES)
    what["column"] = column != COLUMN
    if column in (SUCCESSORS, EDGES):
        with MemoryStore(path) as store:
            assert len(store.neighbours(digests[:1], relation="cites")) == (column == SUCCESSORS)
    is_whole(path, digests, **what)
    again(path, digests, **what)


def sections(path):
    """Where the head and each section of a checkpoint begin, and its middle."""
    base = checkpoint.Checkpoint(str(path))
    at = path.stat().st_size - sum(-(-len(s) // PAGE) * PAGE for s in base._sections)
    found = {"magic": 0, "head": 40}
    for name, section in zip(SECTIONS, base._sections, strict=True):
        found[name] = at + len(section) // 2
        at += -(-len(section) // PAGE) * PAGE
    return found


@pytest.mark.parametrize("part", ["magic", "head", *SECTIONS])
def test_a_damaged_checkpoint_is_made_anew(damaged, part):
    path, digests = damaged
    file = next(path.glob("*.rows"))
    flip(file, sections(file)[part])
    if part not in ("magic", "head"):
        with MemoryStore(path, readonly=True) as store:
            assert not store.verify().ok
    report = repair(path)
    assert report.checkpoints == [file.name]
    assert (path / "quarantine" / file.name).exists()
    assert report.recomputed == (COUNT - 2 if part in ("magic", "head", "digests") else 0)
    is_whole(path, digests)
    again(path, digests)


@pytest.mark.parametrize("how", ["gone", "cut off", "empty"])
def test_a_lost_checkpoint_is_made_anew_from_the_packs(damaged, how):
    path, digests = damaged
    file = next(path.glob("*.rows"))
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 5000 if how == "cut off" else 0])
    with pytest.raises(HashMemError):
        MemoryStore(path)
    report = repair(path)
    assert report.checkpoints == [file.name]
    assert report.recomputed == COUNT - 2
    is_whole(path, digests)
    again(path, digests)


def test_a_digest_that_nothing_tells_any_more_takes_its_links_along(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digests = store.put_many(CONTENTS)
        absent = store.digest(b"is not stored")
        store.link(digests[0].tobytes(), absent)
        store.link(digests[1].tobytes(), digests[2].tobytes())
        store.add_link(absent, digests[3].tobytes())
    next(path.glob("*.rows")).unlink()
    report = repair(path)
    assert (report.kept, report.unknown, report.links) == (COUNT, 1, 2)
    with MemoryStore(path) as store:
        assert store.verify().ok
        assert list(store.hop(digests[:2], 1)[1]) == [False, True]
        assert list(store.get_many(digests, verify=True)) == CONTENTS


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x81\xa1a\x01", b"\x80"])
@pytest.mark.parametrize("key", [b"h", b"n\0\0\0\x01"])
def test_a_lost_record_of_the_namespace_or_header_is_guessed(damaged, key, value):
    path, digests = damaged
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        transaction.put(key, value)
    report = repair(path)
    assert not report.ok
    assert report.kept == COUNT
    with MemoryStore(path) as store:
        assert store.verify().ok
        assert list(store.get_many(digests, verify=True)) == CONTENTS
        assert store.metadata(digests[5].tobytes()) == {"n": 5}
        assert bytes(store.hop(digests[:1], 5)[0][0]) == bytes(digests[5])


def leaf_pages(path):
    data = memoryview(next(path.glob("*.mdb")).read_bytes())
    size = metas(data)[0].page_size
    return [
        (at, size)
        for at in range(2 * size, len(data), size)
        if struct.unpack_from("=QHH", data, at)[0] == at // size
        and struct.unpack_from("=QHH", data, at)[2] & 2
    ]


def newest_leaf(path):
    data = memoryview(next(path.glob("*.mdb")).read_bytes())
    meta = max(metas(data), key=lambda meta: meta.transaction)
    return meta.main.root * meta.page_size  # a small store's tree is one leaf


@pytest.mark.parametrize("at", [0, 4, 10, 12, 14, 16, 20, 4000, "all"])
def test_a_damaged_page_of_the_tree(damaged, at):
    path, digests = damaged
    file = next(path.glob("*.mdb"))
    page = newest_leaf(path)
    assert page in [start for start, _ in leaf_pages(path)]
    if at == "all":
        data = bytearray(file.read_bytes())
        data[page : page + PAGE] = bytes(PAGE)
        file.write_bytes(data)
    else:
        flip(file, page + at, 0xFF)
    report = repair(path)
    with MemoryStore(path) as store:
        found = store.verify()
        assert found.ok, found.damage
        assert len(store) == report.kept >= COUNT - 2
        held = store.contains(digests)
        assert held[: COUNT - 2].all()  # the page before has what was committed before
        read = store.get_many(digests[held], verify=True)
        assert list(read) == [c for c, there in zip(CONTENTS, held, strict=True) if there]
    pages = any(line.startswith(file.name) for line in report.damage)
    assert (path / "quarantine" / file.name).exists() is pages
    assert pages or at in (14, 4000)  # free space, and a value of which there is another copy
    assert repair(path).ok


@pytest.mark.parametrize("page", [0, 1, "both"])
@pytest.mark.parametrize("at", [16, 24, 40, 128, 136, 144])
def test_a_damaged_meta_page(damaged, page, at):
    path, digests = damaged
    file = next(path.glob("*.mdb"))
    for number in (0, 1) if page == "both" else (page,):
        flip(file, number * PAGE + at, 0x5A)
    report = repair(path)
    with MemoryStore(path) as store:
        found = store.verify()
        assert found.ok, found.damage
        assert len(store) == report.kept >= COUNT - 2
        held = store.contains(digests)
        assert list(store.get_many(digests[held], verify=True)) == [
            c for c, there in zip(CONTENTS, held, strict=True) if there
        ]
    assert repair(path).ok


@pytest.mark.parametrize("text", [None, b"", b"hashmem 2\n000007.mdb\n", b"?"])
def test_a_lost_or_damaged_current(damaged, text):
    path, digests = damaged
    (path / "CURRENT").unlink()
    if text is not None:
        (path / "CURRENT").write_bytes(text)
    with pytest.raises(StoreError):
        MemoryStore(path, readonly=True)
    assert not repair(path).ok
    is_whole(path, digests)
    again(path, digests)


def test_where_current_is_lost_the_other_generations_are_kept(damaged):
    path, digests = damaged
    half = lmdb.open(str(path / "000002.mdb"), subdir=False)
    with closing(half), half.begin(write=True) as transaction:
        transaction.put(b"h", b"\x80")
    (path / "CURRENT").unlink()
    report = repair(path)
    assert "000002.mdb" in report.quarantined
    assert (path / "quarantine" / "000002.mdb").exists()
    is_whole(path, digests)


@pytest.mark.parametrize("column", [PAYLOADS, METADATA])
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("kind", ["index", "body"])
def test_a_damaged_part_of_a_large_item(tmp_path, column, part, kind):
    path = tmp_path / "store"
    large = np.random.default_rng(0).bytes(2 * PACK_LIMIT + 1000)
    with MemoryStore(path) as store:
        small = store.put(b"small", {"a": 1})
        store.commit()
        digest = store.put(*((large, None) if column == PAYLOADS else (b"l", {"large": large})))
    damage(path, column, kind, 30, which=1 + part)
    report = repair(path)
    with MemoryStore(path) as store:
        assert store.verify().ok
        assert store[small] == b"small"
        assert store.metadata(small) == {"a": 1}
        if column == PAYLOADS:
            assert store.get(digest) in (None, large)  # a body alone may do
            assert (kind, part) == ("index", 1) or digest not in store
            assert report.kept == len(store)
        else:
            assert store[digest] == b"l"
            assert store.metadata(digest) is None
    assert repair(path).ok


def test_what_lmdb_left_of_a_pack_heals_it(damaged):
    path, digests = damaged
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        for column in (PAYLOADS, METADATA, SUCCESSORS):
            key = next(iter(transaction.keys(pack_prefix(1, column))))
            transaction.put(body_key(1, column, pack_number(key)), b"nothing")
    report = repair(path)
    assert sum("an older copy of it is whole" in line for line in report.damage) == 3
    assert (report.kept, report.packs) == (COUNT, [])
    is_whole(path, digests)


@pytest.mark.parametrize("with_key", [True, False])
def test_a_keyed_namespace(tmp_path, with_key):
    path = tmp_path / "store"
    options = {"namespace": "mine", "key": KEY, "algorithm": "xxh3_128"}
    digests = fill(path, **options)
    with MemoryStore(path) as store:
        other = store.put(b"of another namespace")
    damage(path, PAYLOADS, "body", 5, namespace=1)
    report = repair(path, keys={"mine": KEY} if with_key else None)
    lost = [0] if with_key else range(COUNT - 2)  # the pack, where nothing tells the record
    assert report.lost == [bytes(digests[i]) for i in lost]
    is_whole(path, digests, lost, column=with_key, namespace="mine", key=KEY)
    with MemoryStore(path) as store:
        assert store[other] == b"of another namespace"


def test_a_wrong_key_is_refused_and_nothing_changed(tmp_path):
    path = tmp_path / "store"
    fill(path, key=KEY)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ValueError, match="needs another key"):
        repair(path, keys={"": b"another"})
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_keyed_namespace_without_checkpoint_needs_its_key(tmp_path):
    path = tmp_path / "store"
    digests = fill(path, key=KEY)
    next(path.glob("*.rows")).unlink()
    shutil.copytree(path, tmp_path / "copy")
    assert repair(path, keys={"": KEY}).kept == COUNT
    is_whole(path, digests, key=KEY)
    report = repair(tmp_path / "copy")
    assert (report.kept, report.unknown) == (2, COUNT - 2)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreFormatError, match="no folder"):
        repair(tmp_path / "nothing")
    with pytest.raises(StoreFormatError, match="no store"):
        repair(tmp_path)
    path = tmp_path / "store"
    fill(path)
    next(path.glob("*.mdb")).write_bytes(bytes(1 << 16))
    with pytest.raises(CorruptStoreError, match="nothing in it can be read"):
        repair(path)


def test_a_newer_header_is_refused(damaged):
    path, _ = damaged
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        transaction.put(b"h", msgpack.packb({"format": 3, "namespaces": {}}))
    with pytest.raises(StoreFormatError, match="upgrade"):
        repair(path)


def test_handles_follow_to_what_was_repaired(damaged):
    path, digests = damaged
    with MemoryStore(path) as store:
        assert store.get(digests[0].tobytes()) == CONTENTS[0]
        damage(path, PAYLOADS, "body", 5)
        found = store.verify()
        assert found.corrupt == [bytes(digests[0])]
        repair(path)
        assert store.refresh()
        assert store.get(digests[0].tobytes()) is None
        assert store.get(digests[1].tobytes()) == CONTENTS[1]
        store.put(CONTENTS[0])
        store.commit()
        assert store.verify().ok


def test_the_command(damaged, capsys):
    path, _ = damaged
    damage(path, PAYLOADS, "body", 5)
    assert main(["verify", "--store", str(path)]) == 1
    assert main(["repair", "--store", str(path)]) == 1
    assert f"records kept: {COUNT - 1}, lost: 1" in capsys.readouterr().out
    assert main(["verify", "--store", str(path)]) == 0
    assert main(["repair", "--store", str(path)]) == 0


REPAIR = """
import sys
from hashmem.store import checkpoint, repair
checkpoint.FEWEST = 4
print("begins", flush=True)
repair(sys.argv[1], progress=lambda count: print(count, flush=True))
print("done", flush=True)
"""


def test_killed_in_the_middle_it_is_as_before_or_repaired(damaged):
    path, digests = damaged
    damage(path, METADATA, "body", 5)
    choose = random.Random(5)
    finished = 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", REPAIR, path], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "begins\n"
        time.sleep(choose.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        child.wait()
        finished += "done" in child.stdout.read()
        child.stdout.close()
        with MemoryStore(path, readonly=True) as store:
            found = store.verify()
            repaired = (path / "CURRENT").read_bytes().split(b"\n")[1] != b"000001.mdb"
            assert found.ok is repaired
            assert list(store.get_many(digests, verify=True)) == CONTENTS
    repair(path)
    is_whole(path, digests, metadata_lost=range(COUNT - 2))
    assert (path / "quarantine").is_dir()


FLIPS = st.tuples(st.integers(0, 1 << 30), st.integers(1, 255))


@given(flips=st.lists(FLIPS, min_size=1, max_size=12), data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_flipped_nothing_wrong_is_kept(template, tmp_path_factory, flips, data):
    path, digests = template
    copy = tmp_path_factory.mktemp("flips") / "store"
    shutil.copytree(path, copy)
    names = sorted(p.name for p in copy.iterdir() if p.suffix in (".mdb", ".rows"))
    for at, mask in flips:
        file = copy / data.draw(st.sampled_from(names))
        flip(file, at % file.stat().st_size, mask)
    try:
        report = repair(copy)
    except (CorruptStoreError, StoreFormatError):
        return  # both meta pages, or a header that claims to be newer
    with MemoryStore(copy, namespace=name_of(copy)) as store:
        found = store.verify()
        assert found.ok, found.damage
        assert len(store) == report.kept
        held = store.contains(digests)
        assert held.sum() == len(store)  # nothing that was never put
        read = store.get_many(digests[held], verify=True)
        assert list(read) == [c for c, there in zip(CONTENTS, held, strict=True) if there]
        for i in np.flatnonzero(held):
            assert store.metadata(digests[i].tobytes()) in ({"n": i}, None)
        ends, there = store.hop(digests, 1)
        for i in np.flatnonzero(there):
            assert bytes(ends[i]) == bytes(digests[i + 1])
    shutil.rmtree(copy)


def name_of(path):
    with closing(LmdbBackend(path)) as backend, backend.snapshot() as snapshot:
        from hashmem.store.layout import Catalogue

        return next(iter(Catalogue.read(snapshot).namespaces))


# -- verify and scrub ------------------------------------------------------------------------------


def test_verify_names_packs_and_records(damaged):
    path, digests = damaged
    damage(path, PAYLOADS, "body", 5)
    damage(path, METADATA, "body", 5, which=1)
    with MemoryStore(path) as store:
        found = store.verify()
        assert [column for column, _ in found.packs] == [PAYLOADS, METADATA]
        assert set(found.corrupt) == {bytes(digests[i]) for i in (0, COUNT - 2, COUNT - 1)}
        assert found.to_dict()["packs"] == [list(pack) for pack in found.packs]


def test_what_was_found_damaged_is_not_served(damaged):
    path, digests = damaged
    damage(path, PAYLOADS, "body", 5)
    bad, good = digests[0].tobytes(), digests[1].tobytes()
    with MemoryStore(path) as store:
        assert store[bad] != CONTENTS[0]  # a plain read does not check
        store.verify()
        for read in (lambda: store[bad], lambda: store.get(bad), lambda: store.get_many([bad])):
            with pytest.raises(CorruptStoreError, match=bad.hex()):
                read()
        assert bad in store
        assert store[good] == CONTENTS[1]
        store.delete(bad)
        assert store.get(bad) is None
        store.put(CONTENTS[0])
        assert store[bad] == CONTENTS[0]
        store.commit()
        assert store[bad] == CONTENTS[0]
        assert list(store.get_many(digests, verify=True)) == CONTENTS


@pytest.mark.parametrize("part", SECTIONS)
def test_verify_and_scrub_compare_the_checkpoint(damaged, part):
    path, _ = damaged
    file = next(path.glob("*.rows"))
    flip(file, sections(file)[part])
    with MemoryStore(path, readonly=True) as store:
        for found in (store.verify(), store.scrub()):
            assert any("checkpoint" in line for line in found.damage)
        assert any("rows are not where" in line for line in store.verify().damage) is (
            part in ("payloads", "metadata")
        )


def test_verify_looks_at_lmdb_pages_and_keys(damaged):
    path, _ = damaged
    with MemoryStore(path) as store:
        file = next(path.glob("*.mdb"))
        page = newest_leaf(path)
        flip(file, page + 4000, 0xFF)
        assert not store.verify().ok


def test_verify_tells_of_a_key_that_belongs_to_nothing(damaged):
    path, _ = damaged
    with closing(LmdbBackend(path)) as backend, backend.write() as transaction:
        transaction.put(body_key(7, PAYLOADS, 3), b"stray")
        transaction.put(body_key(1, PAYLOADS, 99), b"stray")
    with MemoryStore(path) as store:
        damage = store.verify().damage
    assert any("belongs to nothing" in line for line in damage)
    assert any("pack 99" in line for line in damage)


@pytest.mark.parametrize("sample", [1, 7, 0.0, 0.2, 1.0])
def test_scrubs_cover_everything_in_the_end(damaged, sample):
    path, digests = damaged
    for i, which in ((5, 0), (20, 1)):
        damage(path, PAYLOADS, "body", i, which=which)
    damage(path, EDGES, "body", 3)
    with MemoryStore(path) as store:
        whole = store.verify()
    with MemoryStore(path) as store:
        damage_found, checked, rounds = set(), 0, 0
        while checked <= COUNT:  # more: another round has begun, so one is complete
            found = store.scrub(sample=sample)
            assert found.checked <= sample or isinstance(sample, float)
            damage_found |= set(found.damage)
            checked += found.checked
            rounds += 1
            assert rounds < 1000
        assert damage_found == set(whole.damage)
        for digest in (digests[0], digests[COUNT - 2]):
            with pytest.raises(CorruptStoreError):
                store.get(digest.tobytes())


def test_each_record_has_its_turn_once_a_round(damaged):
    path, _ = damaged
    with MemoryStore(path) as store:
        found = [store.scrub(sample=7).checked for _ in range(40)]
        once, total = [], 0
        for n in found:
            total += n
            once.append(total)
        assert COUNT in once  # a round ends where everything was checked
        assert store.scrub().ok
        assert store.scrub().checked == COUNT


def test_a_scrub_keeps_to_its_time_and_goes_on(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        store.put_many([b"%d" % i * 2000 for i in range(3000)])
        store.commit()
        assert store.scrub(seconds=0).checked == 0
        checked, scrubs = 0, 0
        while checked < 3000:
            checked += store.scrub(seconds=0.0005).checked
            scrubs += 1
        assert checked == 3000
        store.put(b"new")
        store.commit()
        store.scrub()
        seen = []
        assert store.scrub(progress=seen.append).checked == sum(seen) == 3001


@pytest.mark.parametrize("arguments", [{"seconds": -1}, {"sample": -1}, {"sample": 1.5}])
def test_a_scrub_refuses_nonsense(tmp_path, arguments):
    with MemoryStore() as store, pytest.raises(ValueError, match="sample|scrub"):
        store.scrub(**arguments)


def test_verify_and_scrub_work_in_ram_and_beside_a_writer(tmp_path):
    with MemoryStore() as store:
        store.put_many(CONTENTS)
        store.commit()
        assert store.verify().checked == store.scrub().checked == COUNT
    fill(tmp_path / "store")
    with MemoryStore(tmp_path / "store") as store, MemoryStore(tmp_path / "store") as other:
        for i in range(20):
            other.put(b"more %d" % i)
            other.commit()
            found = store.verify()
            assert found.ok, found.damage
            assert store.scrub(sample=3).ok
        other.compact()
        assert store.scrub().ok
        assert store.verify().checked == COUNT + 20


def test_compact_refuses_and_names_repair(damaged):
    path, _ = damaged
    damage(path, SUCCESSORS, "body", 5)
    with MemoryStore(path) as store, pytest.raises(CorruptStoreError, match="repair"):
        store.compact()


def test_only_records_that_are_there_count_as_checked(tmp_path):
    with MemoryStore(tmp_path / "store") as store:
        digests = store.put_many(CONTENTS)
        store.commit()
        store.delete_many(digests[:3])
        store.commit()
        seen = []
        assert store.verify(seen.append).checked == sum(seen) == COUNT - 3
        store.put(CONTENTS[0])
        store.commit()
        assert store.verify().checked == store.scrub().checked == COUNT - 2


def test_values_of_columns_stay_where_others_were_removed(tmp_path):
    path = tmp_path / "store"
    with MemoryStore(path) as store:
        digests = store.put_many([b"one", b"two", b"three"])
        store.write_column("size", digests, np.array([[1], [2], [3]]))
        store.commit()
        store.delete(bytes(digests[0]))  # a removal and a value in one pack
        store.write_column("size", digests[1:2], np.array([[4]]))
        store.commit()
    found = repair(path)
    assert found.ok
    assert found.column_rows == 0
    with MemoryStore(path) as store:
        assert store.read_column("size")[1].ravel().tolist() == [4, 3]
