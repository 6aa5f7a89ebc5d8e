"""What is asked of the system before a batch is read: all that the batch touches, and no more."""

import itertools
import mmap

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hashmem.store import read_ahead
from hashmem.store.read_ahead import GAP, LARGE, BatchReads, ask_for, runs

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
        batches, starts, lengths = BatchReads(), np.array([0, 1 << 19]), np.array([9, 9])
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
        BatchReads().batch(mapped, np.array([9_000, 5]), np.array([1 << 30, 0])),
    ):
        ask_for(mapped, 9_000, 1 << 30)
