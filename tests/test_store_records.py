"""Records: every way to read a batch says the same, and the kernel under it copies right."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import MemoryStore, StoreClosedError, kernels
from hashmem.kernels import reference
from hashmem.store import records as records_module
from hashmem.store.packs import PACK_LIMIT


@st.composite
def pieces(draw):
    bodies = tuple(draw(st.lists(st.binary(max_size=300), min_size=1, max_size=4)))
    chosen = draw(st.lists(st.tuples(st.integers(0, len(bodies) - 1), st.integers(0, 300),
                                     st.integers(0, 300)), max_size=30))  # fmt: skip
    cut = [(w, min(a, len(bodies[w])), b) for w, a, b in chosen]
    lengths = [min(b, len(bodies[w]) - a) for w, a, b in cut]
    columns = [[w for w, _, _ in cut], [a for _, a, _ in cut], lengths]
    return bodies, *(np.array(column, np.int64) for column in columns)


@pytest.mark.parametrize("name", kernels.available)
@given(pieces())
def test_gather_joins_the_pieces(name, drawn):
    bodies, which, offsets, lengths = drawn
    module = reference if name == "reference" else kernels._native
    to = np.cumsum(lengths) - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    module.gather(bodies, which, offsets, lengths, out, to)
    expected = b"".join(
        bodies[w][a : a + n] for w, a, n in zip(which, offsets, lengths, strict=True)
    )
    assert out.tobytes() == expected


@pytest.mark.parametrize("name", kernels.available)
@pytest.mark.parametrize(
    ("which", "offset", "length", "to"),
    [
        (1, 0, 1, 0), (-1, 0, 1, 0), (0, -1, 1, 0), (0, 3, 1, 0), (0, 2, 2, 0), (0, 0, -1, 0),
        (0, 0, 3, 1), (0, 0, 1, -1), (0, 0, 1 << 62, 0), (0, 1 << 62, 1 << 62, 0),
        (0, 0, 1, 1 << 62),
    ],
)  # fmt: skip
def test_gather_refuses_pieces_that_lie_outside(name, which, offset, length, to):
    module = reference if name == "reference" else kernels._native
    out = np.zeros(3, np.uint8)
    numbers = [np.array([number], np.int64) for number in (which, offset, length, to)]
    with pytest.raises(ValueError, match="piece 0"):
        module.gather((b"abc",), *numbers[:3], out, numbers[3])
    assert not out.any()


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=40, unique=True),
    st.integers(0, 40),
    st.lists(st.integers(-1, 39), max_size=60),
    st.sampled_from([1, 64, 1 << 20]),
)
def test_every_way_to_read_says_the_same(payloads, committed, asked, block):
    with MemoryStore() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "_BLOCK", block)
        store.put_many(payloads[:committed])
        store.commit()
        store.put_many(payloads[committed:])
        chosen = [payloads[i] if 0 <= i < len(payloads) else None for i in asked]
        digests = [store.digest(b"not stored" * 99 if c is None else c) for c in chosen]
        with store.get_many(digests) as records:
            assert list(records) == chosen
            assert [records[i] for i in range(len(records))] == chosen
            assert records.found.tolist() == [c is not None for c in chosen]
            assert records.lengths.tolist() == [-1 if c is None else len(c) for c in chosen]
            buffer, offsets = records.gather()
            pairs = itertools.pairwise(offsets.tolist())
            assert [buffer[a:b].tobytes() for a, b in pairs] == [c or b"" for c in chosen]
            some, bounds = records.gather(1, -1)
            assert some.tobytes() == b"".join(c or b"" for c in chosen[1:-1])
            assert len(bounds) == len(chosen[1:-1]) + 1


def test_large_records_among_small_ones(tmp_path):
    payloads = [b"small", b"L" * (PACK_LIMIT + 7), b"", b"M" * 100_000, b"end"]
    with MemoryStore(tmp_path / "s") as store:
        digests = store.put_many(payloads)
        store.commit()
        with store.get_many(digests) as records:
            assert list(records) == payloads
            buffer, offsets = records.gather()
            assert buffer.tobytes() == b"".join(payloads)
            assert np.diff(offsets).tolist() == [len(payload) for payload in payloads]
        with pytest.raises(StoreClosedError):
            records.gather()
        with pytest.raises(StoreClosedError):
            records[0]


@pytest.mark.skipif("native" not in kernels.available, reason="nothing was compiled")
def test_gather_stays_inside_while_it_writes_over_its_own_numbers():
    numbers = np.array([8, 1], np.int64)
    none = np.zeros(2, np.int64)
    body = np.array([1 << 20], np.int64).tobytes()
    with pytest.raises(ValueError, match="piece 1"):
        kernels._native.gather((body,), none, none, numbers, numbers, np.array([8, 0], np.int64))
    with pytest.raises(TypeError, match="tuple"):
        kernels._native.gather([body], none, none, numbers, numbers, none)
