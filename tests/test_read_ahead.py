"""What is asked of the system before a batch is read: all that the batch touches, and no more."""

import itertools
import mmap

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hashmem.store import read_ahead
from hashmem.store.read_ahead import GAP, LARGE, Reads, ask_for, runs

places = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 5000)), min_size=1)


@given(places)
def test_runs_cover_each_place_and_little_else(found):
    starts, lengths = np.array(found).T
    joined = runs(starts, starts + lengths)
    for start, length in found:
        assert any(a <= start and start + length <= b for a, b in joined)
    for (_, before), (after, _) in itertools.pairwise(joined):
        assert after > before + GAP
    assert sum(b - a for a, b in joined) <= lengths.sum() + GAP * len(found)


def test_a_batch_asks_until_one_was_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    asked = []
    monkeypatch.setattr(read_ahead, "_ask", lambda mapped, *place: asked.append(place))
    with (
        open(tmp_path / "file", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        batches, starts, lengths = Reads(), np.array([0, 1 << 19]), np.array([9, 9])
        with batches.batch(mapped, starts, lengths):
            pass
        assert asked == [(0, 9), (1 << 19, (1 << 19) + 9)]
        with batches.batch(mapped, starts, lengths):
            pass
        assert len(asked) == 2
        ask_for(mapped, 0, LARGE - 1)
        assert len(asked) == 2
        ask_for(mapped, 5, 5 + LARGE)
        assert asked[2:] == [(5, 5 + LARGE)]


def test_places_beyond_the_file_are_not_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(bytes(10_000))
    with (
        open(tmp_path / "file", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        Reads().batch(mapped, np.array([9_000, 5]), np.array([1 << 30, 0])),
    ):
        ask_for(mapped, 9_000, 1 << 30)


class Recording(mmap.mmap):
    """A map that remembers what was asked for."""

    asked: list[tuple[int, int]]

    def madvise(self, option, start, length):
        self.asked.append((start, length))
        super().madvise(option, start, length)


def recording(file):
    mapped = Recording(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.asked = []
    return mapped


def test_much_is_asked_for_in_steps_that_the_system_reads_whole(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with open(tmp_path / "file", "rb") as file:
        mapped = recording(file)
        ask_for(mapped, 5000, 1_000_000)
        mapped.close()
    starts, sizes = np.array(mapped.asked).T
    assert starts[0] == 4096
    assert (starts[1:] == starts[:-1] + sizes[:-1]).all()
    assert starts[-1] + sizes[-1] == 1_000_000
    assert sizes.max() <= 1 << 17


def test_a_single_read_asks_after_a_slow_one(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(100)) * 1000)
    with open(tmp_path / "file", "rb") as file:
        mapped = recording(file)
        reads = Reads()
        assert reads.one(mapped, 3, 7) == bytes([3, 4, 5, 6])
        asked = len(mapped.asked)
        reads._slow = True
        assert reads.one(mapped, 99_998, 200_000) == bytes([98, 99])
        assert len(mapped.asked) == asked + 1
        reads._slow = True
        assert reads.one(mapped, 200_000, 200_001) == b""  # as a damaged place may be
        mapped.close()
    assert Reads().one(b"in memory", 0, 2) == b"in"
