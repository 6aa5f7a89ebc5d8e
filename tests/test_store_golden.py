"""Stores of every released version of the format are read, checked and written on."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from hashmem import MemoryStore

GOLDEN = Path(__file__).parent / "golden"
PAYLOADS = [b"", b"one", b"two", b"three" * 1000, bytes(range(256))]


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_store_is_read_and_written_on(tmp_path, version):
    with tarfile.open(GOLDEN / f"store-v{version}.tar.gz") as archive:
        for name in archive.getnames():
            target = tmp_path / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(archive.extractfile(name).read())
    path = tmp_path / "store"
    for readonly in (True, False):
        with MemoryStore(path, readonly=readonly) as store:
            assert store.algorithm == "sha256"
            assert store.namespaces() == ["", "keyed"]
            digests = [store.digest(payload) for payload in PAYLOADS]
            expected = [None if i == 2 else payload for i, payload in enumerate(PAYLOADS)]
            with store.get_many(digests, verify=True) as records:
                assert list(records) == expected
            maps = [None if i == 2 else {"place": i, "ü": [None, 1.5, True]} for i in range(5)]
            assert store.metadata_many(digests) == maps
            ends, found = store.hop(digests, 1)
            assert found.tolist() == [True, True, False, True, True]
            assert bytes(ends[4]) == store.digest(b"never stored")
            assert [bytes(d) for d in store.neighbours(digests[0], 1, "imports")] == [digests[2]]
            rows, values = store.read_column("vector")
            assert [bytes(row) for row in rows] == [digests[i] for i in (0, 1, 3, 4)]
            assert values.dtype == np.float32
            assert values.tolist() == [[0, 1], [2, 3], [6, 7], [8, 9]]
            assert store.verify().ok
        with MemoryStore(path, namespace="keyed", key=b"the key", readonly=readonly) as store:
            assert store.algorithm == "xxh3_64"
            assert list(store.get_many([store.digest(payload) for payload in PAYLOADS])) == PAYLOADS
    with MemoryStore(path) as store:
        store.put(b"two")
        store.compact()
        assert len(store) == 5
        assert store.verify().ok
