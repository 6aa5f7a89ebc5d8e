"""Fuzzing of the decoders: a part of `bench.reliability.fuzz_store`, and proof that it tells."""

import os
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgpack
import numpy as np
import pytest

from bench.reliability import decoders, fuzz_store, lmdb_fields
from bench.reliability import store_campaigns as campaigns
from bench.reliability.decoders import DECODERS, Decoder
from bench.reliability.fuzz_mutations import any_msgpack, changed
from hashmem.errors import CorruptStoreError
from hashmem.store import layout, packs, placed
from hashmem.store.columns import Written

BLOCKS = {"whole store": campaigns.fewer(12)}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with campaigns.scratch() as folder:
        monkeypatch.setattr(decoders, "FOLDER", [folder])
        yield


def fuzz(name: str, decoder: Decoder, blocks: int) -> dict[str, Any]:
    found: dict[str, Any] = {"failures": []}
    inputs = fuzz_store.Inputs(name, decoder)
    wanted = blocks * inputs.size
    fuzz_store.campaign(found, inputs, 1, wanted, time.monotonic() + 60)
    return found


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_answer_or_refuse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_store, "SAMPLED", 4)
    found = fuzz(name, DECODERS[name], BLOCKS.get(name, 2))
    counts = found["decoders"][name]
    assert counts["answered"] > counts["inputs"] // 100  # checksums were made right
    assert counts["refused"] > counts["inputs"] // 100
    assert found["failures"] == []


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_read_their_seeds(name: str) -> None:
    decoder = DECODERS[name]
    for seed in decoder.seeds():
        if name != "LMDB pages":  # some of its seeds are cut off
            decoder.decode(seed)
        if decoder.mend is not None:
            mended = bytearray(seed)
            decoder.mend(mended)
            assert mended == seed


def one_changed(**changes: Any) -> bytes:
    """The record of a namespace with entries changed, its checksum right."""
    return decoders._sealed(msgpack.packb({**decoders.INFOS[1], **changes}))


def double_column() -> bytes:
    """A checkpoint that has one column twice, its checksum right."""
    data = decoders._checkpoints()[2]
    size = decoders.HEAD.unpack_from(data)[2]
    head = msgpack.unpackb(data[decoders.HEAD.size : decoders.HEAD.size + size])
    head["columns"][1][0] = head["columns"][0][0]
    changed = bytearray(data)
    changed[decoders.HEAD.size : decoders.HEAD.size + size] = msgpack.packb(head)
    decoders._mend_checkpoint(changed)
    return bytes(changed)


def odd_free_list() -> bytes:
    """An LMDB file whose list of free pages has a length that is no multiple of 8."""
    for data in decoders._lmdb_files():
        for start, _, label in lmdb_fields.fields_of(data):
            if label == "free list leaf: value size":
                return data[:start] + bytes([data[start] - 1]) + data[start + 1 :]
    raise AssertionError("no specimen has a list of free pages")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("namespace record", lambda: one_changed(packs={b"1": [1, 1]})),
        ("namespace record", lambda: one_changed(packs={"1": [1, "x"]})),
        ("namespace record", lambda: one_changed(columns={"a": [16, "<b4", 1]})),
        ("checkpoint", double_column),
        ("LMDB pages", odd_free_list),
        ("pack index", lambda: packs.build(7, np.arange(2), 3, [b"abcdef"], 0, 2)[0]),
    ],
)
def test_what_was_found_is_refused(name: str, make: Callable[[], bytes]) -> None:
    with pytest.raises(CorruptStoreError):
        DECODERS[name].decode(make())


def test_a_part_of_nothing_is_passed_over() -> None:
    """A pack that says it goes on with an item of the pack before, which ended there."""
    rows = np.arange(1)
    whole = packs.build(layout.PAYLOADS, rows, 3, [b"abc"])
    more = packs.build(layout.PAYLOADS, rows, 3, [b"def"], 1, 2)
    column = placed.PlacedColumn(1, layout.PAYLOADS)
    column.apply(
        Written(number, packs.parse(memoryview(index), layout.PAYLOADS))
        for number, (index, _) in enumerate([whole, more], 1)
    )
    assert column.live == 1


def test_inputs_follow_from_their_number() -> None:
    for name, decoder in DECODERS.items():
        inputs = fuzz_store.Inputs(name, decoder)
        first, again, other = (inputs.block(1, number) for number in (7, 7, 8))
        made = [first() for _ in range(50)]
        assert made == [again() for _ in range(50)]
        assert made != [other() for _ in range(50)]


def test_msgpack_made_up_is_read_and_refused() -> None:
    random, read = Random(1), 0
    for _ in range(1000):
        try:
            msgpack.unpackb(any_msgpack(random), strict_map_key=False)
            read += 1
        except (ValueError, TypeError):
            pass
    assert 100 < read < 900
    assert {bytes(changed(random, [b"abc"], [()])) for _ in range(100)} > {b"abd"[:2]}


# What the campaign looks for, planted.


def planted(decode: Any) -> dict[str, Any]:
    return fuzz("planted", Decoder(decode, lambda: [b"seed" * 9], share=0.01), 2)


def test_another_exception_is_a_failure() -> None:
    def decode(data: bytes) -> None:
        if len(data) == 36:
            raise CorruptStoreError("one of hashmem's own")
        raise ValueError("planted")

    found = planted(decode)
    counts = found["decoders"]["planted"]
    assert found["failures"][0]["kind"] == "planted: ValueError in decode"
    assert counts["refused"] > 0 < counts["failed"] == found["failed"]
    assert counts["inputs"] == counts["refused"] + counts["failed"] + counts["answered"] == 40
    assert "| planted | 40 |" in fuzz_store.section({**found, "description": "a\nb"})


def test_a_bomb_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_store, "SAMPLED", 1)
    assert planted(lambda data: bytes(4 << 20))["failures"][0]["kind"] == "planted: memory"
    assert not planted(lambda data: bytes(1 << 19))["failures"]
    found = planted(lambda data: bytes(3 << 30))
    assert found["failures"][0]["kind"] == "planted: MemoryError in <lambda>"


@pytest.mark.parametrize(("end", "what"), [("abort", "crash (SIGABRT)"), ("loop", "hang")])
def test_a_child_that_ends_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, end: str, what: str
) -> None:
    monkeypatch.setattr(campaigns.in_fork, "__defaults__", (0.3, campaigns.MEMORY))
    calls = []

    def decode(data: bytes) -> None:
        calls.append(data)
        while len(calls) == 7:
            if end == "abort":
                os.abort()

    found = planted(decode)
    assert {failure["kind"] for failure in found["failures"]} == {f"planted: {what}"}
    assert {failure["place"] for failure in found["failures"]} == {6}
    assert found["decoders"]["planted"]["inputs"] == 7 * found["failed"] == 42
