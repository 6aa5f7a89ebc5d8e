"""Bad input to every kind of table: what is wrong is named, and nothing has changed.

Arrays that are merely laid out another way are no bad input: they give the same answers.
"""

import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import (
    ChainingTable,
    CorruptStoreError,
    DigestMultimap,
    FrozenTable,
    OpenAddressingTable,
    StoreFormatError,
    TableFullError,
)
from hashmem.tables import freeze

WIDTH = 16
N = 200  # entries of the tables that bad input comes to
GOOD = np.random.default_rng(3).integers(0, 256, (2 * N, WIDTH), dtype=np.uint8)
VALUES = np.arange(N) - 5  # -1 is among them


def opened() -> OpenAddressingTable:
    table = OpenAddressingTable(WIDTH)
    table.insert(GOOD[:N], VALUES)
    return table


def chained() -> ChainingTable:
    table = ChainingTable(WIDTH)
    table.insert(GOOD[:N], VALUES)
    return table


def multiple() -> DigestMultimap:
    table = DigestMultimap(WIDTH)
    table.add(GOOD[:N], VALUES)
    table.add(GOOD[:N:3], VALUES[::3] + 1000)
    return table


def frozen() -> FrozenTable:
    return FrozenTable(freeze(opened()))


KINDS = {"open": opened, "chaining": chained, "multimap": multiple, "frozen": frozen}
SEARCHES = {
    "open": ("find", "contains", "delete"),
    "chaining": ("find", "contains", "delete"),
    "multimap": ("find", "count", "contains", "delete"),
    "frozen": ("find", "contains"),
}
CHANGES = {"open": ("insert",), "chaining": ("insert",), "multimap": ("add", "remove")}
GROWING = ("open", "chaining")


def contents(table: Any) -> Any:
    if isinstance(table, DigestMultimap):
        return [(digest, values.tolist()) for digest, values in table.items()]
    return list(table.items())


@contextmanager
def unchanged(table: Any) -> Iterator[None]:
    before = contents(table)
    yield
    table.check()
    assert contents(table) == before


def each(methods: dict[str, tuple[str, ...]]) -> Any:
    return pytest.mark.parametrize(
        ("kind", "method"), [(kind, method) for kind in methods for method in methods[kind]]
    )


def calls(table: Any, method: str, digests: Any, values: Any = None) -> Callable[[], Any]:
    function = getattr(table, method)
    return lambda: function(digests) if values is None else function(digests, values)


# ---------------------------------------------------------------------------- what is refused

SHAPE = rf"shape \(n, {WIDTH}\)"
BAD_DIGESTS: dict[str, tuple[Any, type[Exception], str]] = {
    "too wide": (np.zeros((3, WIDTH + 1), np.uint8), ValueError, SHAPE),
    "too narrow": (np.zeros((3, WIDTH - 1), np.uint8), ValueError, SHAPE),
    "no width": (np.zeros((3, 0), np.uint8), ValueError, SHAPE),
    "empty, too wide": (np.zeros((0, WIDTH + 1), np.uint8), ValueError, SHAPE),
    "one dimension": (np.zeros(WIDTH, np.uint8), ValueError, SHAPE),
    "three dimensions": (np.zeros((2, 3, WIDTH), np.uint8), ValueError, SHAPE),
    "no dimension": (np.uint8(3), ValueError, SHAPE),
    "int8": (np.zeros((3, WIDTH), np.int8), TypeError, "uint8"),
    "int64": (np.zeros((3, WIDTH), np.int64), TypeError, "uint8"),
    "big-endian words": (np.zeros((3, WIDTH // 2), ">u2"), TypeError, "uint8"),
    "floats": (np.zeros((3, WIDTH)), TypeError, "uint8"),
    "booleans": (np.zeros((3, WIDTH), bool), TypeError, "uint8"),
    "strings": (np.array([b"x" * WIDTH]), TypeError, "uint8"),
    "voids": (np.zeros(3, f"V{WIDTH}"), TypeError, "uint8"),
    "objects": (np.array([[1] * WIDTH], object), TypeError, "uint8"),
    "a list of bytes": ([b"x" * WIDTH], TypeError, "uint8"),
    "bytes": (b"x" * WIDTH, TypeError, "uint8"),
    "text": ("x" * WIDTH, TypeError, "uint8"),
    "none": (None, TypeError, "uint8"),
    "an empty list": ([], TypeError, "uint8"),
}


@pytest.mark.parametrize("what", BAD_DIGESTS)
@each(SEARCHES)
def test_digests_that_are_none_are_refused(kind: str, method: str, what: str) -> None:
    table = KINDS[kind]()
    digests, error, named = BAD_DIGESTS[what]
    with unchanged(table), pytest.raises(error, match=named):
        calls(table, method, digests)()


@pytest.mark.parametrize("what", BAD_DIGESTS)
@each(CHANGES)
def test_changes_refuse_digests_that_are_none(kind: str, method: str, what: str) -> None:
    table = KINDS[kind]()
    digests, error, named = BAD_DIGESTS[what]
    with unchanged(table), pytest.raises(error, match=named):
        calls(table, method, digests, [1, 2, 3])()


BAD_VALUES: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": ([1, 2], ValueError, r"shape \(3,\)"),
    "too many": (np.arange(4), ValueError, r"shape \(3,\)"),
    "none at all": ([], ValueError, r"shape \(3,\)"),
    "two dimensions": (np.zeros((3, 1), np.int64), ValueError, r"shape \(3,\)"),
    "one number": (7, ValueError, r"shape \(3,\)"),
    "floats": (np.array([1.0, 2.0, 3.0]), TypeError, "integers"),
    "a float among ints": ([1, 2.5, 3], TypeError, "int"),
    "complex numbers": (np.zeros(3, complex), TypeError, "integers"),
    "strings": (["1", "2", "3"], TypeError, "int"),
    "nones": ([None, None, None], TypeError, "int"),
    "dates": (np.zeros(3, "datetime64[s]"), TypeError, "integers"),
    "above int64": ([1, 2**63, 3], ValueError, f"position 1 .*{2**63}"),
    "above int64, unsigned": (np.array([1, 2, 2**63], np.uint64), ValueError, "position 2"),
    "above int64, big-endian": (np.array([1, 2**63, 3], ">u8"), ValueError, "position 1"),
    "below int64": ([1, 2, -(2**63) - 1], ValueError, "position 2"),
    "far above": ([2**70, 2, 3], ValueError, "position 0"),
}


@pytest.mark.parametrize("what", BAD_VALUES)
@each(CHANGES)
def test_values_that_are_none_are_refused(kind: str, method: str, what: str) -> None:
    table = KINDS[kind]()
    values, error, named = BAD_VALUES[what]
    for digests in (GOOD[N : N + 3], GOOD[:3]):
        with unchanged(table), pytest.raises(error, match=named):
            calls(table, method, digests, values)()


@pytest.mark.parametrize("kind", GROWING)
@pytest.mark.parametrize(
    ("first", "error"),
    [(2**63, ValueError), (2**63 - 2, ValueError), (-(2**63), ValueError), (1.5, TypeError)],
)
def test_numbers_to_intern_from_are_refused(kind: str, first: Any, error: type[Exception]) -> None:
    table = KINDS[kind]()
    with unchanged(table), pytest.raises(error, match="first"):
        table.intern(GOOD[N : N + 3], first)


BAD_DIGEST = {
    "short": (b"x", ValueError),
    "long": (b"x" * (WIDTH + 1), ValueError),
    "empty": (b"", ValueError),
    "text": ("x" * WIDTH, TypeError),
    "an int": (7, TypeError),
    "none": (None, TypeError),
    "an array": (np.zeros(WIDTH, np.int64), TypeError),
    "not contiguous": (memoryview(bytes(2 * WIDTH))[::2], (TypeError, ValueError)),
}


@pytest.mark.parametrize("what", BAD_DIGEST)
@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_that_is_none_is_refused(kind: str, what: str) -> None:
    table = KINDS[kind]()
    digest, error = BAD_DIGEST[what]
    if kind in GROWING:
        with unchanged(table), pytest.raises(error):
            table[digest] = 1
        with unchanged(table), pytest.raises(error):
            del table[digest]
    with unchanged(table), pytest.raises(error):
        table[digest]
    assert digest not in table


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"width": width}, ValueError) for width in (7, 65, 0, -8, 2**70)),
    *(({"width": width}, TypeError) for width in ("16", 16.0, None)),
    *(({"seed": seed}, ValueError) for seed in (-1, 2**128)),
    *(({"seed": seed}, TypeError) for seed in ("1", 1.5)),
    *(({"capacity": capacity}, ValueError) for capacity in (-1, 2**50, 2**70)),
    *(({"capacity": capacity}, TypeError) for capacity in ("1", 1.5, None)),
]


@pytest.mark.parametrize("kind", [OpenAddressingTable, ChainingTable, DigestMultimap])
@pytest.mark.parametrize(("options", "error"), BAD_OPTIONS, ids=str)
def test_options_are_refused(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(next(iter(options)))):
        kind(**options)


@pytest.mark.parametrize("kind", GROWING)
@pytest.mark.parametrize("load", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_loads_are_refused(kind: str, load: float) -> None:
    with pytest.raises(ValueError, match="max_load"):
        type(KINDS[kind]())(WIDTH, max_load=load)


# ------------------------------------------------------------------------------------ memory


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """Let this process have so many bytes more, and no others."""
    statm = Path("/proc/self/statm")
    if not statm.exists() or "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the address space cannot be limited here")
    pages = int(statm.read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("kind", GROWING)
@pytest.mark.parametrize("entries", [10**7, 2**32])
def test_capacity_beyond_memory_leaves_a_table_in_use(kind: str, entries: int) -> None:
    table = KINDS[kind]()
    with unchanged(table), address_space(64 << 20):
        with pytest.raises(MemoryError):
            table.reserve(entries)
        with pytest.raises(MemoryError):
            type(table)(WIDTH, capacity=entries)
    with address_space(64 << 20):
        table.insert(GOOD[N:], np.arange(N))
        assert table.delete(GOOD[:N]).all()
    table.check()
    assert np.array_equal(table.find(GOOD[N:]), np.arange(N))


@pytest.mark.parametrize("kind", GROWING)
def test_a_batch_beyond_memory_is_not_inserted(kind: str) -> None:
    table = KINDS[kind]()
    digests = np.zeros((2_000_000, WIDTH), np.uint8)
    digests[:, :4] = np.arange(len(digests), dtype="<u4").view(np.uint8).reshape(-1, 4)
    values = np.arange(len(digests))
    with unchanged(table), address_space(40 << 20), pytest.raises(TableFullError):
        table.insert(digests, values)
    assert table.insert(digests, values).all()
    assert np.array_equal(table.find(digests[::1000]), values[::1000])


def test_values_beyond_memory_are_not_added() -> None:
    table = multiple()
    digests = np.repeat(GOOD[:1], 4_000_000, axis=0)
    values = np.arange(len(digests))
    with unchanged(table), address_space(40 << 20), pytest.raises(MemoryError):
        table.add(digests, values)
    table.add(digests[:1000], values[:1000])
    table.check()


# ------------------------------------------------------------------------ other layouts, no fault


def askew(array: np.ndarray) -> np.ndarray:
    """The same array, at an odd address."""
    raw = np.frombuffer(bytearray(b"." + array.tobytes()), np.uint8)[1:]
    return raw.view(array.dtype).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((len(array) * 2, *(2 * n for n in array.shape[1:])), array.dtype)
    view = wide[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "strided": strided,
    "backwards": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "askew": askew,
    "a list": lambda array: array.tolist() if array.ndim == 1 else array,
    "a subclass": lambda array: array.view(np.recarray),
    "broadcast": lambda array: np.broadcast_to(array, array.shape),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


@layouts
@each(SEARCHES)
def test_searches_answer_the_same_in_any_layout(kind: str, method: str, layout: str) -> None:
    plain, other = KINDS[kind](), KINDS[kind]()
    expected = calls(plain, method, GOOD[::3])()
    found = calls(other, method, LAYOUTS[layout](GOOD[::3]))()
    parts = zip(expected, found, strict=True) if type(found) is tuple else [(expected, found)]
    for part, other_part in parts:
        assert np.array_equal(part, other_part)
    if kind != "frozen":
        assert contents(other) == contents(plain)
    other.check()


@layouts
@each(CHANGES)
def test_changes_do_the_same_in_any_layout(kind: str, method: str, layout: str) -> None:
    plain, other = KINDS[kind](), KINDS[kind]()
    digests, values = GOOD[N // 2 : N + N // 2], np.arange(N) * 7 - 12
    expected = calls(plain, method, digests, values)()
    found = calls(other, method, LAYOUTS[layout](digests), LAYOUTS[layout](values))()
    assert np.array_equal(expected, found)
    assert contents(other) == contents(plain)
    other.check()


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"]
)
@each(CHANGES)
def test_values_of_any_integer_type(kind: str, method: str, dtype: str) -> None:
    plain, other = KINDS[kind](), KINDS[kind]()
    values = np.arange(100)
    expected = calls(plain, method, GOOD[:100], values)()
    assert np.array_equal(calls(other, method, GOOD[:100], values.astype(dtype))(), expected)
    assert contents(other) == contents(plain)


# --------------------------------------------------------------------------- empty and duplicate


@each(SEARCHES)
def test_empty_batches_find_nothing(kind: str, method: str) -> None:
    table = KINDS[kind]()
    with unchanged(table):
        found = calls(table, method, np.zeros((0, WIDTH), np.uint8))()
    assert len(found[1] if isinstance(found, tuple) else found) == 0


@each(CHANGES)
def test_empty_batches_change_nothing(kind: str, method: str) -> None:
    table = KINDS[kind]()
    for values in ([], np.zeros(0, np.int64), np.zeros(0)):
        with unchanged(table):
            assert len(calls(table, method, np.zeros((0, WIDTH), np.uint8), values)()) == 0


batches = st.lists(st.tuples(st.integers(0, 12), st.integers(-(2**63), 2**63 - 1)), max_size=60)


@pytest.mark.parametrize("kind", GROWING)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(batches, max_size=4))
def test_of_equal_digests_the_last_wins_and_the_first_is_new(kind: str, parts: Any) -> None:
    table, expected = type(KINDS[kind]())(WIDTH), {}
    for batch in parts:
        new = []
        for digest, value in batch:
            new.append(digest not in expected)
            expected[digest] = value
        rows, values = [digest for digest, _ in batch], [value for _, value in batch]
        assert table.insert(GOOD[rows], values).tolist() == new
    table.check()
    assert contents(table) == [(GOOD[row].tobytes(), value) for row, value in expected.items()]


# ------------------------------------------------------------------------------- frozen, damaged

FROZEN = freeze(opened(), seed=1)


@settings(max_examples=150, deadline=None)
@given(bit=st.integers(0, 8 * len(FROZEN) - 1))
def test_a_flipped_bit_is_told_at_the_first_touch(bit: int) -> None:
    damaged = bytearray(FROZEN)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises((CorruptStoreError, StoreFormatError)):
        FrozenTable(bytes(damaged)).find(GOOD)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, len(FROZEN) - 1))
def test_a_table_cut_short_is_told_when_it_is_opened(size: int) -> None:
    with pytest.raises((CorruptStoreError, StoreFormatError)):
        FrozenTable(FROZEN[:size])


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_no_frozen_table(content: bytes) -> None:
    for bytes_ in (content, FROZEN[:8] + content, FROZEN[:112] + content, FROZEN + content + b"x"):
        with pytest.raises((CorruptStoreError, StoreFormatError)):
            FrozenTable(bytes_)
