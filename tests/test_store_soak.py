"""A few seconds of the soak, and that it would tell."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench.reliability import crashes, render, soak  # noqa: E402 needs the path


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(soak, "LIVE", 600)
    monkeypatch.setattr(soak, "COMPACT_EVERY", 8)


def test_mixed_load_reads_what_was_written(tmp_path):
    found = soak.run(3, tmp_path, windows=3)
    assert found["reads"] > 100
    assert found["written"] > 0
    assert len(found["processes"]) == 4
    verdict = soak.judged(found)
    assert verdict["bounded"]
    assert any(what.startswith("memory of writer 1") for what in verdict["rows"])
    page = crashes.soak({**found, **verdict}, "the method", render._table, render._number)
    assert "put_many and commit, p99 (ms)" in page


def test_a_record_that_is_missing_is_told(tmp_path, monkeypatch):
    def delete(self, low, stop):
        self.store.delete_many([self.store.digest(one) for one in soak.batch(self.number, 0, stop)])
        self.store.commit()

    monkeypatch.setattr(soak.Writer, "delete", delete)
    with pytest.raises(RuntimeError, match="missing|nowhere"):
        soak.run(20, tmp_path, windows=3)


def test_a_record_that_stays_is_told(tmp_path, monkeypatch):
    def delete(self, low, stop):
        self.shared[self.number, [soak.LOW, soak.GONE]] = stop

    monkeypatch.setattr(soak.Writer, "delete", delete)
    with pytest.raises(RuntimeError, match="after its deletion"):
        soak.run(20, tmp_path, windows=3)


def test_another_content_is_told(tmp_path, monkeypatch):
    get = soak.MemoryStore.get
    monkeypatch.setattr(soak.MemoryStore, "get", lambda self, digest: get(self, digest)[:-1] + b"?")
    with pytest.raises(RuntimeError, match="is another"):
        soak.run(20, tmp_path, windows=3)


def series(memory: float, p99: float, files: int = 50) -> dict:
    """What a run finds whose last third has so many times the memory and times of its first."""

    def window(i: int) -> dict:
        late = i >= 20
        times = {"get": {"n": 9, "p50": 1.0, "p99": 2.0 * (p99 if late else 1)}}
        space = {"files": files, "live": 40, "dead": 0, "bound": 100}
        return {"own": int(2**20 * (memory if late else 1)), "times": times, "space": space}

    processes = [[window(i) for i in range(30)] for _ in range(4)]
    return {"processes": processes, "at the end": processes[0][0]["space"]}


def test_what_grows_is_not_flat():
    assert soak.judged(series(1.0, 1.0))["flat"]
    assert soak.judged(series(1.09, 1.4))["flat"]
    verdict = soak.judged(series(1.2, 1.0))
    assert not verdict["flat"]
    assert not verdict["rows"]["memory of reader 4 (MiB)"]["flat"]
    verdict = soak.judged(series(1.0, 1.6))
    assert not verdict["rows"]["get, p99 (ms)"]["flat"]
    assert verdict["rows"]["get, p50 (ms)"]["flat"]
    assert soak.judged(series(1.0, 1.0))["bounded"]
    assert not soak.judged(series(1.0, 1.0, files=101))["bounded"]


def test_contents_are_told_apart():
    contents = [payload for writer in (0, 1) for payload in soak.batch(writer, 0, 2000)]
    assert len(set(contents)) == 4000
    sizes = np.array(list(map(len, contents)))
    assert sizes.min() >= 50
    assert sizes.max() > 5000
