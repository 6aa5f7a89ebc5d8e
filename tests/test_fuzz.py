"""A small part of the fuzzing of the compiled kernels; and what it has found stays mended."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hashmem import kernels
from hashmem.kernels.reference.hashing import expand_keys

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench.reliability import fuzz_kernels, generators, render, sanitize  # noqa: E402 needs the path
from bench.reliability.buffers import Guarded, Overwritten, Separate  # noqa: E402
from bench.reliability.inputs import Block, Failure  # noqa: E402


@pytest.fixture(scope="module")
def native() -> ModuleType:
    if "native" not in kernels.available:
        pytest.skip("the compiled kernels are not there")
    from hashmem.kernels import _native

    return _native


# A part of the campaign.


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("number", [1_000_000, 1_000_001, 1_000_002])
def test_kernels_bear_whatever_they_are_given(
    native: ModuleType, number: int, separate: bool
) -> None:
    counts = Block(number, native, separate=separate, compared=0.05).run()
    for kernel in generators.GENERATORS:
        assert counts[f"{kernel} answered"] + counts[f"{kernel} refused"] > 50
        assert counts[f"{kernel} answered"] > 20
        assert counts[f"{kernel} refused"] > 10


def test_a_block_can_be_made_again(native: ModuleType) -> None:
    seen: list[list[str]] = [[], []]
    for calls in seen:

        def shown(place: int, call: Any, lies: list[str], calls: list[str] = calls) -> None:
            contents = [
                bytes(part).hex() if isinstance(part, memoryview) else type(part).__name__
                for part in call.arguments
            ]
            calls.append(f"{place} {call.kernel} {lies} {contents}")

        Block(7, native, shown=shown).run(2000)
    assert len(seen[0]) == 2000
    assert seen[0] == seen[1]


def test_every_kernel_has_a_generator(native: ModuleType) -> None:
    assert generators.unmatched(native) == []
    more = SimpleNamespace(**dict.fromkeys((*generators.GENERATORS, "new_kernel")))
    assert generators.unmatched(more) == ["new_kernel"]
    with pytest.raises(LookupError, match="new_kernel"):
        Block(0, more)


class Planted:
    """The compiled kernels, one of which does something else."""

    def __init__(self, native: ModuleType, name: str, kernel: Any) -> None:
        for kept in generators.GENERATORS:
            setattr(self, kept, getattr(native, kept))
        setattr(self, name, kernel)


def plant(native: ModuleType, name: str, kernel: Any) -> Any:
    return Planted(native, name, kernel)


def test_some_kernels_can_be_chosen(native: ModuleType) -> None:
    counts = Block(0, native, only=("hop", "frozen")).run(500)
    ran = {name.split()[0] for name in counts}
    assert ran == {"hop", "frozen_find", "frozen_partition", "frozen_build"}


def test_a_wrong_answer_is_a_failure(native: ModuleType) -> None:
    def hop(successors: Any, starts: Any, n: int, out: Any) -> None:
        native.hop(successors, starts, n, out)
        if len(out) == 24:
            out[8] ^= 1

    with pytest.raises(Failure, match="hop"):
        Block(0, plant(native, "hop", hop), compared=1.0).run()


def test_another_exception_is_a_failure(native: ModuleType) -> None:
    def reverse(*arguments: Any) -> int:
        if arguments and arguments[0] is None:
            raise RuntimeError("planted")
        return int(native.reverse(*arguments))

    with pytest.raises(Failure, match="RuntimeError: planted"):
        Block(0, plant(native, "reverse", reverse)).run(100_000)


def test_a_byte_beside_a_buffer_is_a_failure(native: ModuleType) -> None:
    from numpy.lib.stride_tricks import as_strided

    def digest_pieces(*arguments: Any) -> Any:
        answer = native.digest_pieces(*arguments)
        out = arguments[-1]
        if isinstance(out, memoryview) and len(out) == 64 and not out.readonly:
            array = np.frombuffer(out, np.uint8)
            as_strided(array, (65,), (1,))[64] ^= 1
        return answer

    with pytest.raises(Failure, match="Overwritten"):
        Block(0, plant(native, "digest_pieces", digest_pieces)).run(100_000)


def test_a_table_that_takes_another_value_is_a_failure(native: ModuleType) -> None:
    def open_insert(*arguments: Any) -> Any:
        answer = native.open_insert(*arguments)
        if answer[0] == 5:
            arguments[2][0] ^= 1  # the first entry's value
        return answer

    with pytest.raises(Failure, match="the values differ"):
        Block(0, plant(native, "open_insert", open_insert), compared=1.0, only=("open",)).run()


def test_another_row_is_a_failure(native: ModuleType) -> None:
    def rows_find(*arguments: Any) -> None:
        native.rows_find(*arguments)
        arguments[7][:1] = bytes([arguments[7][0] ^ 1]) if len(arguments[7]) else b""

    with pytest.raises(Failure, match="rows_find"):
        Block(0, plant(native, "rows_find", rows_find), compared=1.0, only=("rows",)).run()


def test_rows_that_should_be_refused_are_a_failure(native: ModuleType) -> None:
    def rows_lookup(*arguments: Any) -> Any:
        table = list(arguments)
        if len(table) == 6 and isinstance(table[5], int) and table[5] > 0:
            table[5] = min(table[5], len(table[2]) // 64)
        return native.rows_lookup(*table)

    with pytest.raises(Failure, match="must refuse: argument 5"):
        Block(0, plant(native, "rows_lookup", rows_lookup), only=("rows_lookup",)).run()


def test_a_lookup_that_cannot_be_closed_is_a_failure(native: ModuleType) -> None:
    def chain_lookup(*arguments: Any) -> Any:
        look, _ = native.chain_lookup(*arguments)
        return look, lambda: None

    with pytest.raises(Failure, match="answers when it is closed"):
        Block(0, plant(native, "chain_lookup", chain_lookup)).run()


def test_canaries_lie_on_both_sides() -> None:
    for at in (-1, 10):
        memory = Guarded(1000)
        memory.put(b"other")
        buffer = memory.put(bytes(10), skew=3)
        memory.check()
        place = next(start for start, stop in memory._places if stop - start == 10)
        memory._block[place + at] ^= 128
        with pytest.raises(Overwritten, match="10 bytes"):
            memory.check()
        assert bytes(buffer) == bytes(10)
    assert len(Separate().put(b"12345", skew=1)) == 5


# What is kept of it.


def test_campaigns_run_in_children_and_go_on(native: ModuleType, tmp_path: Path) -> None:
    first = fuzz_kernels.campaign(5000, 60)
    assert first["failures"] == []
    assert first["inputs"] == 5000
    assert first["blocks"] == [0, 1]
    assert set(first["kernels"]) == set(generators.GENERATORS)
    twice = fuzz_kernels.joined(first, {**first, "blocks": [1, 2]})
    assert twice["inputs"] == 10_000
    assert twice["blocks"] == [0, 2]
    assert twice["kernels"]["hop"]["inputs"] == 2 * first["kernels"]["hop"]["inputs"]


def test_a_crash_is_kept_with_its_place(native: ModuleType, tmp_path: Path) -> None:
    """A worker whose kernels take it down: the block and place are told, and the next one runs."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from bench.reliability import inputs\n"
        "one = inputs.Block._one\n"
        "def crash(self, call, *rest):\n"
        "    if self.number == 0 and call.kernel == 'hop': os.abort()\n"
        "    return one(self, call, *rest)\n"
        "inputs.Block._one = crash\n"
    )
    environment = fuzz_kernels.builds.environment(ROOT, False)
    environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    worker = fuzz_kernels.Worker(environment, ROOT, 1)
    worker.run(0, 2, float("inf"))
    (failure,) = worker.failures
    assert failure["block"] == 0
    assert failure["place"] < 500
    assert "ended with -6" in failure["what"]
    assert worker.next_block == 2
    assert worker.counts["hop inputs"] > 50


def test_the_page_is_what_the_results_render_to() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.render(render.read(render.RESULTS))


def test_the_results_are_whole_and_without_failures() -> None:
    results = {result["name"]: result for result in render.read(render.RESULTS)}
    assert set(results) >= set(render.NAMES)
    found = results["fuzz_kernels"]
    for build, least in (("ordinary", 3_000_000), ("sanitized", 1_000_000)):
        assert found[build]["inputs"] >= least
        assert found[build]["failures"] == []
        for counts in found[build]["kernels"].values():
            assert min(counts.values()) > least // 100_000
    files = results["sanitize"]["files"]
    assert sum(file["passed"] for file in files) > 1000
    assert not any(file["failed"] or file["error"] or file["reports"] for file in files)


def test_the_tests_of_the_kernels_are_found() -> None:
    names = {path.name for path in sanitize.test_files(ROOT / "tests", sanitize.SUBJECTS)}
    assert names >= {"test_kernels_tables.py", "test_tables.py", "test_skips.py", "test_frozen.py"}


# Numbers that were checked must not change under the loop that trusts them.


def test_hash_words_refuses_to_write_over_what_it_reads(native: ModuleType) -> None:
    text, offsets = np.zeros(80, np.uint8), np.arange(0, 80, 8)
    hashes, word_offsets = np.zeros(50, np.uint64), np.zeros(10, np.int64)
    for lying in (
        (text, offsets, offsets.view(np.uint64), word_offsets),
        (text, offsets, hashes, offsets),
        (hashes, offsets, hashes, word_offsets),
        (text, offsets, hashes, hashes[:10]),
    ):
        with pytest.raises(ValueError, match="overlap"):
            native.hash_words(*lying)
    assert native.hash_words(text, offsets, hashes, word_offsets) == 0


def test_count_ngrams_refuses_to_write_over_what_it_reads(native: ModuleType) -> None:
    hashes, offsets = np.ones(20, np.uint64), np.arange(0, 20, 2)
    counts = np.zeros(36, np.int32)
    with pytest.raises(ValueError, match="overlap"):
        native.count_ngrams(hashes, offsets, 1, 1, 2, offsets.view(np.int32)[:18])
    with pytest.raises(ValueError, match="overlap"):
        native.count_ngrams(hashes, offsets, 1, 1, 4, hashes.view(np.int32)[:36])
    native.count_ngrams(hashes, offsets, 1, 1, 4, counts)
    assert counts.any()


def test_reverse_refuses_to_count_in_what_it_reads(native: ModuleType) -> None:
    offsets, targets = np.array([0, 1, 3]), np.array([1, 0, 1])
    back, sources = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for outputs in ((offsets, sources), (targets, sources), (back, targets), (back, back)):
        with pytest.raises(ValueError, match="overlap"):
            native.reverse(offsets, targets, *outputs)
    assert native.reverse(offsets, targets, back, sources) == 3


def test_the_count_of_a_damaged_chain_wraps(native: ModuleType) -> None:
    for module in (native, kernels.reference):
        chains, nodes = np.array([[0, 0, 2**63 - 1]]), np.zeros((4, 2), np.int64)
        module.multimap_append(chains, nodes, np.array([0]), np.array([7]), 1)
        assert chains.tolist() == [[0, 1, -(2**63)]]


@pytest.mark.parametrize("name", kernels.available)
def test_offsets_whose_differences_overflow_are_out_of_order(name: str) -> None:
    module = getattr(kernels, "_native") if name == "native" else kernels.reference  # noqa: B009
    offsets = np.array([0, 7 * 10**18, -3 * 10**18, 5])
    with pytest.raises(ValueError, match="rise"):
        module.hash_words(
            np.zeros(5, np.uint8), offsets, np.zeros(9, np.uint64), np.zeros(4, np.int64)
        )


def test_append_refuses_chains_that_lie_in_the_nodes(native: ModuleType) -> None:
    memory = np.zeros(48, np.int64)
    chains, nodes = memory[:24].reshape(8, 3), memory.reshape(24, 2)
    with pytest.raises(ValueError, match="overlap"):
        native.multimap_append(chains, nodes, np.arange(8), np.arange(8), 0)
    assert not memory.any()


def test_numbers_that_are_not_aligned_are_refused(native: ModuleType) -> None:
    """A compiler may take it that int64 are aligned, and a loop of its making may fault."""

    def askew(items: int) -> np.ndarray:
        return np.frombuffer(bytearray(8 * items + 1), np.int64, offset=1)

    aligned = np.zeros(4, np.int64)
    for place in (0, 1, 3):
        arguments = [aligned, aligned.copy(), 1, aligned.copy()]
        arguments[place] = askew(4)
        with pytest.raises(ValueError, match="must begin at a multiple of 8"):
            native.hop(*arguments)
    with pytest.raises(ValueError, match="must begin at a multiple of 8"):
        native.skip_build(8, aligned, askew(8), askew(4), askew(12), askew(32))
    odd = np.frombuffer(bytearray(17), np.int32, offset=1)
    with pytest.raises(ValueError, match="must begin at a multiple of 4"):
        native.count_ngrams(aligned.view(np.uint64), np.array([0, 4]), 1, 1, 4, odd)


def test_frozen_kernels_refuse_to_write_over_what_they_read(native: ModuleType) -> None:
    keys, records = expand_keys(1), np.zeros((10, 16), np.uint8)
    records[:, 8] = np.arange(10)
    starts, hashes, rows = (np.zeros(n, np.uint64) for n in (2, 10, 10))
    numbers = records.reshape(-1).view(np.uint64)
    for outputs in (
        (numbers[:2], hashes, rows),
        (starts, numbers[:10], rows),
        (starts, hashes, hashes),
    ):
        with pytest.raises(ValueError, match="overlap"):
            native.frozen_partition(records, keys, 8, *outputs)
    native.frozen_partition(records, keys, 8, starts, hashes, rows)
    offsets, turns = np.array([0, 11], np.uint64), np.zeros(1, np.uint8)
    body = np.zeros(64 + 11 * 16, np.uint8)
    batch = (records, 8, keys, hashes, rows, starts, offsets, 4)
    for outputs in (
        (turns, body[:4], body[:176]),
        (turns, records.reshape(-1)[:4], body[64:]),
        (offsets.view(np.uint8)[:1], body[:4], body[64:]),
    ):
        with pytest.raises(ValueError, match="overlap"):
            native.frozen_build(*batch, *outputs)
    assert native.frozen_build(*batch, turns, body[:4], body[64:])
    find = (body, offsets, turns, keys, np.ones(1, np.uint8), 8, 4, 64)
    queries, out = np.ascontiguousarray(records[:, 8:]), np.zeros(10, np.int64)
    for overlapping in (body[64:144].view(np.int64), keys[:10].view(np.int64)):
        with pytest.raises(ValueError, match="overlap"):
            native.frozen_find(*find, queries, overlapping, -1, True, turns[:0])
    assert native.frozen_find(*find, queries, out, -1, True, np.zeros(0, np.uint8)) == 0
    assert sorted(out.tolist()) == sorted(set(out.tolist()))


@pytest.mark.parametrize("seed", [17, 162, 193, 242])
def test_a_turn_that_fails_leaves_nothing_to_the_next(native: ModuleType, seed: int) -> None:
    """Parts so full that their first set of keys gives no pilots."""
    n, buckets, keys = 40, 11, np.concatenate([expand_keys(turn) for turn in range(4)])
    records = np.zeros((n, 16), np.uint8)
    records[:, 8:] = np.random.default_rng(seed).integers(0, 256, (n, 8), dtype=np.uint8)
    made = []
    for module in (native, kernels.reference):
        starts, hashes, rows = (np.zeros(items, np.uint64) for items in (2, n, n))
        module.frozen_partition(records, keys, 8, starts, hashes, rows)
        offsets, turns = np.array([0, n + 1], np.uint64), np.zeros(1, np.uint8)
        pilots, entries = np.zeros(buckets, np.uint8), np.zeros((n + 1) * 16, np.uint8)
        batch = (records, 8, keys, hashes, rows, starts, offsets, buckets)
        assert module.frozen_build(*batch, turns, pilots, entries)
        assert turns[0] > 0
        made.append((turns.tolist(), pilots.tolist(), entries.tobytes()))
    assert made[0] == made[1]


@pytest.mark.parametrize(("prefix", "header", "line"), [("open", 8, 64), ("chain", 16, 8)])
def test_tables_refuse_what_is_not_aligned_and_what_overlaps(
    native: ModuleType, prefix: str, header: int, line: int
) -> None:
    index, entries = np.zeros(8 * line, np.uint8), np.zeros(40 * (header + 8), np.uint8)
    keys, values, new = expand_keys(1), np.arange(4), np.zeros(4, np.uint8)
    digests = np.arange(32, dtype=np.uint8)
    rest = (8, 8, 0, 40, 100, digests, values, new, False)
    insert = getattr(native, f"{prefix}_insert")
    for place, given in enumerate((index, keys, entries)):
        askew = np.frombuffer(bytearray(given.nbytes + 1), np.uint8, offset=1)
        arguments = [index, keys, entries, *rest]
        arguments[place] = askew
        with pytest.raises(ValueError, match="must begin at a multiple of 8"):
            insert(*arguments)
    for place, given in (
        (0, entries[: 8 * line]),
        (1, entries[:272]),
        (8, entries[8:40]),
        (8, index[:32]),
        (9, entries[:32].view(np.int64)),
        (10, index[:4]),
        (10, digests[:4]),
    ):
        arguments = [index, keys, entries, *rest]
        arguments[place] = given
        with pytest.raises(ValueError, match="overlap"):
            insert(*arguments)
    assert not index.any()
    assert not entries.any()
    assert insert(index, keys, entries, *rest) == (4, 4, 0)


@pytest.mark.parametrize("name", kernels.available)
def test_a_search_for_room_ends_whatever_its_limit(name: str) -> None:
    """Digests of one hash fill both of their buckets, from which no way leads out."""
    module = getattr(kernels, "_native") if name == "native" else kernels.reference  # noqa: B009
    digests = np.zeros((60, 16), np.uint8)
    digests[:, 8] = np.arange(60)
    buckets, entries = np.zeros((3, 64), np.uint8), np.zeros((60, 24), np.uint8)
    batch = (digests, np.arange(60), np.zeros(60, bool), False)
    table = (buckets, expand_keys(1), entries, 16, 8, 0)
    done, count, _ = module.open_insert(*table, 60, 2**62, *batch)
    assert (done, count) == (24, 24)


@pytest.mark.parametrize("name", kernels.available)
def test_items_of_several_dimensions_are_not_for_the_kernel(name: str) -> None:
    module = getattr(kernels, "_native") if name == "native" else kernels.reference  # noqa: B009
    grid = memoryview(bytes(48)).cast("B", (6, 8))
    for items in ((b"before", grid, b"after"), [b"before", np.asarray(grid)]):
        out = np.zeros(8 * len(items), np.uint8)
        assert module.digest_items("xxh3_64", items, 0, out) in (1, -1)
