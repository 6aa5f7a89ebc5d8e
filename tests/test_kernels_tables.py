"""The compiled table kernels against the reference ones, and sizes that lie."""

import mmap
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashmem import kernels
from hashmem.kernels import reference
from hashmem.kernels.reference.hashing import expand_keys, hash_digests
from hashmem.testing import digest_pools

LIMIT = 64
PREFIXES = ["open", "chain"]


@pytest.fixture(scope="module")
def native() -> ModuleType:
    if "native" not in kernels.available:
        pytest.skip("the compiled kernels are not there")
    from hashmem.kernels import _native

    return _native


HEADERS = {"open": 8, "chain": 16, "rows": 0}  # bytes of an entry before its digest


class State:
    """A table as kernels see it."""

    def __init__(self, prefix: str, width: int, capacity: int, hashed: int = 8) -> None:
        self.prefix, self.width, self.hashed, self.count = prefix, width, hashed, 0
        self.header = HEADERS[prefix]
        self.entries = np.zeros((capacity, self.header + -(-width // 8) * 8), np.uint8)
        self.keys = expand_keys(1)
        if prefix != "chain":
            self.index = np.zeros((capacity // 9 + 1, 64), np.uint8)
        else:
            self.index = np.zeros(capacity // 2 + 1, np.uint64)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.index, self.keys, self.entries, self.width, self.hashed, self.count

    def call(self, module: ModuleType, name: str, *rest: Any) -> Any:
        return getattr(module, f"{self.prefix}_{name}")(*self.arguments, *rest)

    @property
    def digests(self) -> np.ndarray:
        return self.entries[:, self.header : self.header + self.width]

    @property
    def values(self) -> np.ndarray:
        return self.entries[:, self.header - 8 : self.header].view(np.int64)[:, 0]


def insert(
    state: State, module: ModuleType, digests: np.ndarray, values: np.ndarray, keep: bool = False
) -> Any:
    new = np.zeros(len(digests), bool)
    room = len(state.entries)
    answer = state.call(module, "insert", room, LIMIT, digests, values, new, keep)
    done, state.count, _ = answer
    return done, new[:done].tolist()


def short(answers: list[Any], n: int) -> bool:
    """Whether a kernel came to a digest without a place."""
    return any(isinstance(a, tuple) and isinstance(a[0], int) and a[0] < n for a in answers)


@pytest.mark.parametrize("prefix", PREFIXES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(8, 64), whole=st.booleans())
def test_native_answers_as_reference_does(
    native: ModuleType, prefix: str, data: st.DataObject, width: int, whole: bool
) -> None:
    pool = data.draw(digest_pools(width, size=200))
    hashed = width if whole else 8
    states = State(prefix, width, 400, hashed), State(prefix, width, 400, hashed)
    modules = native, reference
    rows = st.lists(st.integers(0, 199), max_size=150)
    for _ in range(data.draw(st.integers(1, 6))):
        batch = pool[data.draw(rows)]
        n = len(batch)
        operation = data.draw(
            st.sampled_from(["insert", "keep", "intern", "delete", "move", "build"])
        )
        answers = []
        for state, module in zip(states, modules, strict=True):
            new, out = np.zeros(n, bool), np.zeros(n, np.int64)
            if operation in ("insert", "keep"):
                answers.append(insert(state, module, batch, np.arange(n), operation == "keep"))
            elif operation == "intern":
                room = min(400, state.count + 20)
                done, state.count, _ = state.call(
                    module, "intern", room, LIMIT, batch, out, new, 1000
                )
                answers.append((done, new[:done].tolist(), out[:done].tolist()))
            elif operation == "delete":
                holes = np.zeros(n, np.int64)
                removed = state.call(module, "delete", batch, new, holes)
                gone = np.sort(holes[:removed])
                end = state.count - removed
                staying = np.setdiff1d(np.arange(end, state.count), gone)
                state.call(module, "move", staying, gone[gone < end])
                state.count = end
                answers.append((new.tolist(), gone.tolist()))
            elif operation == "build":
                state.index[:] = 0
                answers.append(state.call(module, "build", LIMIT))
            else:  # one entry to a place that was never used, and back
                if not state.count or state.count == 400:
                    continue
                there, back = np.array([state.count]), np.array([0])
                state.count += 1
                state.call(module, "move", back, there)
                state.call(module, "move", there, back)
                state.count -= 1
        if len(answers) == 2 and answers[0] != answers[1]:
            # Digests with one hash: what is where decides how many of them find a place.
            assert prefix == "open"
            assert short(answers, n)
            return
        first, second = states
        assert first.count == second.count
        assert np.array_equal(first.digests[: first.count], second.digests[: first.count])
        assert np.array_equal(first.values[: first.count], second.values[: first.count])
        if prefix == "chain":
            assert np.array_equal(first.index, second.index)
            assert np.array_equal(first.entries[: first.count], second.entries[: first.count])
        for state in states:  # either searches what the other has built
            found = []
            for module in modules:
                out = np.zeros(len(pool), np.int64)
                state.call(module, "find", pool, out, -7)
                found.append(out.tolist())
            assert found[0] == found[1]


@pytest.mark.parametrize("module_name", kernels.available)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_entry_indexes_beyond_32_bits(prefix: str, module_name: str) -> None:
    """An address space of 2^32 + 1000 entries, of which only the last pages are touched."""
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    start, capacity = 2**32 + 5, 2**32 + 1000

    def sparse(size: int) -> np.ndarray:
        no_reserve = 0x4000 if not hasattr(mmap, "MAP_NORESERVE") else mmap.MAP_NORESERVE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        try:
            return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
        except OSError as error:
            pytest.skip(f"no address space of {size >> 30} GiB here: {error}")

    state = State(prefix, 8, 2000)
    stride = state.header + 8
    state.entries = sparse(capacity * stride).reshape(capacity, stride)
    state.count = start
    digests = np.random.default_rng(2).integers(0, 256, (900, 8), dtype=np.uint8)
    done, new = insert(state, module, digests, np.arange(900))
    assert (done, state.count, all(new)) == (900, start + 900, True)
    out = np.zeros(900, np.int64)
    for searching in (reference, module):
        state.call(searching, "find", digests, out, -1)
        assert out.tolist() == list(range(900))
    gone, holes = np.zeros(100, bool), np.zeros(100, np.int64)
    assert state.call(module, "delete", digests[:100], gone, holes) == 100
    assert np.array_equal(np.sort(holes), np.arange(start, start + 100))
    state.call(module, "move", np.arange(start + 800, start + 900), np.sort(holes))
    state.count -= 100
    state.call(module, "find", digests, out, -1)
    assert out.tolist() == [-1] * 100 + list(range(100, 900))


@pytest.mark.parametrize("prefix", [*PREFIXES, "rows"])
def test_sizes_that_lie(native: ModuleType, prefix: str) -> None:
    width, n = 16, 10
    batch = np.arange(n * width, dtype=np.uint8).reshape(n, width)
    out, flags = np.zeros(n, np.int64), np.zeros(n, bool)
    calls: dict[str, list[Any]] = {
        "find": [batch, out, -1],
        "insert": [50, LIMIT, batch, out, flags, False],
        "intern": [50, LIMIT, batch, out, flags, 0],
        "delete": [batch, flags, out],
        "build": [LIMIT],
        "move": [out[:2], out[2:4]],
        "lookup": [],
    }
    if prefix == "rows":
        calls = {name: calls[name] for name in ("find", "build", "lookup")}

    def arguments(name: str) -> list[Any]:
        s = State(prefix, width, 50)
        return [*s.arguments, *calls[name]]

    for name in calls:
        kernel = getattr(native, f"{prefix}_{name}")
        kernel(*arguments(name))
        with pytest.raises(TypeError, match="arguments"):
            kernel(*arguments(name)[:-1])
        shorter: dict[int, Any] = {0: slice(0, 0), 1: slice(0, 33)}
        for place, part in shorter.items():
            lying = arguments(name)
            lying[place] = lying[place][part]
            with pytest.raises(ValueError):
                kernel(*lying)
        wrong = ((3, 7), (3, 65), (3, -1), (4, 7), (4, 12), (5, 51), (5, -1), (5, 2**62))
        for place, value in wrong:
            lying = arguments(name)
            lying[place] = value
            with pytest.raises(ValueError):
                kernel(*lying)
        for place in (3, 4, 5):
            lying = arguments(name)
            lying[place] = "10"
            with pytest.raises(TypeError):
                kernel(*lying)
        for place, argument in enumerate(calls[name], start=6):
            if not isinstance(argument, np.ndarray) or (name, place) == ("move", 6):
                continue
            lying = arguments(name)
            lying[place] = argument[:-1]
            with pytest.raises(ValueError):
                kernel(*lying)
        if name not in ("find", "lookup"):
            lying = arguments(name)
            lying[0] = lying[0].tobytes()
            with pytest.raises((BufferError, TypeError)):
                kernel(*lying)


def test_a_damaged_index_is_never_followed_out_of_bounds(native: ModuleType) -> None:
    """Random bytes as an index: answers may be wrong, but no kernel leaves its buffers."""
    rng = np.random.default_rng(11)
    batch = rng.integers(0, 256, (500, 16), dtype=np.uint8)
    for prefix in (*PREFIXES, "rows"):
        for _ in range(20):
            state = State(prefix, 16, 100)
            state.count = 60
            state.index[:] = (
                rng.integers(0, 2**8, state.index.nbytes, np.uint8)
                .view(state.index.dtype)
                .reshape(state.index.shape)
            )
            state.entries[:] = rng.integers(0, 256, state.entries.shape, np.uint8)
            state.digests[:] = batch[:100]
            out, flags = np.zeros(500, np.int64), np.zeros(500, bool)
            state.call(native, "find", batch, out, -1)
            look, _ = state.call(native, "lookup")
            assert all(isinstance(look(row.tobytes()), int | None) for row in batch)
            del look, _
            if prefix == "rows":
                state.call(native, "build", LIMIT)
                continue
            state.call(native, "insert", 90, LIMIT, batch, out, flags, False)
            state.call(native, "delete", batch, flags, out)
            state.call(native, "move", rng.integers(-5, 200, 50), rng.integers(-5, 200, 50))


def test_the_hash_is_the_formula_written_out() -> None:
    """Multilinear-HM and the finaliser, word by word in Python's integers."""
    mask = 2**64 - 1
    rng = np.random.default_rng(4)
    for width in (8, 9, 20, 37, 64):
        keys = [int(k) for k in expand_keys(width)]
        digests = rng.integers(0, 256, (5, width), dtype=np.uint8)
        for digest, hashed in zip(digests, hash_digests(digests, expand_keys(width)), strict=True):
            padded = digest.tobytes().ljust(-(-width // 8) * 8, b"\0")
            words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
            halves = []
            for k in (keys[:17], keys[17:]):
                total = k[0]
                for i in range(0, len(words), 2):
                    total += (k[i + 1] + words[i]) * (k[i + 2] + words[i + 1])
                halves.append((total & mask) >> 32)
            h = halves[0] << 32 | halves[1]
            for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
                h = (h ^ h >> 33) * factor & mask
            assert int(hashed) == h ^ h >> 33


def test_every_byte_of_a_digest_reaches_every_part_of_the_hash() -> None:
    keys = expand_keys(9)
    for width in (8, 11, 32, 64):
        base = np.random.default_rng(width).integers(0, 256, (2000, width), dtype=np.uint8)
        hashes = hash_digests(base, keys)
        for byte in range(width):
            changed = base.copy()
            changed[:, byte] ^= 1
            differing = hashes ^ hash_digests(changed, keys)
            bits = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
            assert (abs(bits - 0.5) < 0.07).all()  # over six standard deviations


@pytest.mark.parametrize("module_name", kernels.available)
def test_a_dangling_link_never_becomes_a_circle(module_name: str) -> None:
    """A head that names the entry to come: a search for the next must not walk it for ever."""
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    state = State("chain", 8, 4)
    state.index = np.array([1], np.uint64)
    batch = np.arange(16, dtype=np.uint8).reshape(2, 8)
    assert insert(state, module, batch, np.array([5, 6])) == (2, [True, True])
    out = np.zeros(2, np.int64)
    state.call(module, "find", batch, out, -1)
    assert out.tolist() == [5, 6]


@pytest.mark.parametrize("module_name", kernels.available)
@pytest.mark.parametrize("prefix", [*PREFIXES, "rows"])
def test_a_lookup_answers_until_it_is_closed(prefix: str, module_name: str) -> None:
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    state = State(prefix, 8, 40)
    batch = np.random.default_rng(1).integers(0, 256, (30, 8), dtype=np.uint8)
    if prefix == "rows":
        state.count, state.digests[:20], first = 20, batch[:20], 0
        assert state.call(module, "build", LIMIT) == 20
    else:
        insert(state, module, batch[:20], np.arange(20) - 1)
        first = -1
    look, close = state.call(module, "lookup")
    assert [look(row.tobytes()) for row in batch] == [*range(first, first + 20)] + [None] * 10
    with pytest.raises(ValueError, match="8 bytes"):
        look(b"short")
    for wrong in ("12345678", bytearray(8), None):
        with pytest.raises(TypeError):
            look(wrong)
    close()
    close()
    with pytest.raises(BufferError, match="closed"):
        look(batch[0].tobytes())


@pytest.mark.parametrize("module_name", kernels.available)
def test_entries_give_way_until_every_slot_is_taken(module_name: str) -> None:
    """Both kernels fill buckets nearly to the last slot, and take nothing half."""
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    for buckets in (1, 2, 3, 17, 300):
        n = 12 * buckets
        state = State("open", 8, n)
        state.index = np.zeros((buckets, 64), np.uint8)
        batch = np.random.default_rng(buckets).integers(0, 256, (n, 8), np.uint8)
        new, values = np.zeros(n, bool), np.arange(n)
        done, state.count, _ = state.call(module, "insert", n, 2048, batch, values, new, False)
        assert done == state.count >= 0.94 * n
        assert np.count_nonzero(state.index[:, :12]) == done
        out = np.zeros(n, np.int64)
        state.call(module, "find", batch, out, -1)
        assert out.tolist() == [*range(done)] + [-1] * (n - done)
        holes = np.zeros(done, np.int64)
        assert state.call(module, "delete", batch[:done], new[:done], holes) == done
        assert not state.index.any()


# Digests alone, which nothing writes.


def rows_of(digests: np.ndarray, hashed: int, behind: int = 0) -> State:
    """Distinct digests (n, width) of which the last `behind` are not in use, without an index."""
    n, width = digests.shape
    state = State("rows", width, n, hashed)
    state.digests[:] = digests
    state.count = n - behind
    state.entries.flags.writeable = False
    return state


def check_rows(state: State, modules: list[ModuleType], queries: np.ndarray) -> None:
    """Every kernel answers the rows that a dict answers, to all of `queries` and to each."""
    at = {digest.tobytes(): row for row, digest in enumerate(state.digests[: state.count])}
    expected = [at.get(query.tobytes()) for query in queries]
    for module in modules:
        out = np.zeros(len(queries), np.int64)
        assert state.call(module, "find", queries, out, -7) is None
        assert out.tolist() == [-7 if row is None else row for row in expected]
        look, close = state.call(module, "lookup")
        assert [look(query.tobytes()) for query in queries[:50]] == expected[:50]
        close()


@pytest.mark.parametrize("module_name", kernels.available)
def test_any_row_may_be_the_first_that_is_left_out(module_name: str) -> None:
    """Found by the property below: the first row of all, where so many are of its hash."""
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    digests = np.zeros((60, 10), np.uint8)
    digests[:, 9] = np.arange(60)
    digests[30:, 0] = 1  # two hashes, too many of each
    state = rows_of(digests, 8)
    placed = state.call(module, "build", LIMIT)
    assert placed < 60
    state.count = placed
    check_rows(state, [module], digests)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(8, 64), whole=st.booleans())
def test_native_finds_rows_as_reference_does(
    native: ModuleType, data: st.DataObject, width: int, whole: bool
) -> None:
    pool = np.unique(data.draw(digest_pools(width, size=200)), axis=0)
    hashed, behind = width if whole else 8, data.draw(st.integers(0, len(pool)))
    near = pool.copy()
    near[:, -1] ^= 1  # agree in the first 8 bytes, where there are more
    queries = np.ascontiguousarray(np.concatenate([pool, near])[::-1])
    for building in (native, reference):
        state = rows_of(pool, hashed, behind)
        placed = state.call(building, "build", LIMIT)
        if placed < state.count:  # more of one hash than two buckets hold
            starts = np.unique(pool[: state.count, :hashed], axis=0, return_counts=True)[1]
            assert starts.max() > 24
            found = np.zeros(state.count, np.int64)  # what had no place, and all rows behind it
            state.call(building, "find", pool[: state.count], found, -7)
            assert found.tolist() == [*range(placed)] + [-7] * (state.count - placed)
        state.count = placed
        check_rows(state, [native, reference], queries)


@pytest.mark.parametrize("module_name", kernels.available)
@pytest.mark.parametrize(("hashed", "n"), [(8, 24), (16, 500)])
def test_rows_whose_digests_begin_alike(module_name: str, hashed: int, n: int) -> None:
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    digests = np.zeros((2 * n, 16), np.uint8)
    digests[:, 14:] = np.arange(2 * n, dtype=">u2")[:, None].view(np.uint8)
    state = rows_of(digests[:n], hashed)
    assert state.call(module, "build", LIMIT) == n
    check_rows(state, [module], digests)
    assert rows_of(digests, 8).call(module, "build", LIMIT) == 24  # of one hash in two buckets


@pytest.mark.parametrize("module_name", kernels.available)
def test_rows_of_an_empty_table(module_name: str) -> None:
    module = getattr(kernels, "_native") if module_name == "native" else reference  # noqa: B009
    state = rows_of(np.zeros((0, 16), np.uint8), 8)
    assert state.call(module, "build", LIMIT) == 0
    check_rows(state, [module], np.arange(48, dtype=np.uint8).reshape(3, 16))


def test_rows_refuse_what_is_not_aligned_and_what_overlaps(native: ModuleType) -> None:
    rng = np.random.default_rng(3)
    state = rows_of(rng.integers(0, 256, (100, 16), np.uint8), 8)
    queries, out = rng.integers(0, 256, (20, 16), np.uint8), np.zeros(20, np.int64)
    calls: dict[str, list[Any]] = {"find": [queries, out, -1], "build": [LIMIT], "lookup": []}
    for name, rest in calls.items():
        for place in range(3):
            arguments = [*state.arguments, *rest]
            size = arguments[place].nbytes
            arguments[place] = np.frombuffer(bytearray(size + 1), np.uint8, offset=1)
            with pytest.raises(ValueError, match="must begin at a multiple of 8"):
                getattr(native, f"rows_{name}")(*arguments)
    for read in (state.index, state.keys, queries):
        arguments = [*state.arguments, *calls["find"]]
        arguments[7] = read.reshape(-1).view(np.int64)[:20]
        with pytest.raises(ValueError, match="overlap"):
            native.rows_find(*arguments)
    entries = np.zeros(100 * 16, np.uint8)
    arguments = [state.index, state.keys, entries, *state.arguments[3:], queries]
    with pytest.raises(ValueError, match="overlap"):
        native.rows_find(*arguments, entries.view(np.int64)[:20], -1)
    arguments[0] = entries[:768]
    with pytest.raises(ValueError, match="overlap"):
        native.rows_build(*arguments[:6], LIMIT)
    with pytest.raises(ValueError, match="do not hold that many"):
        native.rows_build(state.index[:8], *state.arguments[1:], LIMIT)
    assert not state.index.any()
    assert not entries.any()
