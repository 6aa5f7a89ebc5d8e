"""Flipped bits in small stores: a part of `bench.reliability.bits`, and proof that it tells."""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from bench.reliability import bits, lmdb_fields
from bench.reliability import store_campaigns as campaigns
from hashmem import MemoryStore
from hashmem.store import checking

CASES = campaigns.fewer(120)
NAMES = ("mixed", "checkpointed", "many", "tiny")


@pytest.fixture(scope="module")
def specimens() -> Iterator[dict[str, bits.Specimen]]:
    with campaigns.scratch() as folder:
        yield bits.specimens_in(folder, NAMES)


@pytest.fixture(autouse=True)
def stores_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "TURNS", NAMES)


def drawn(specimens: dict[str, bits.Specimen], **wanted: object) -> Iterator[bits.Flip]:
    for case in range(100_000):
        flip = bits.drawn(specimens, 3, case)
        if all(getattr(flip, name) == value for name, value in wanted.items()):
            yield flip


def has_checksum(flip: bits.Flip) -> bool:
    return flip.label.startswith(("body", "pack", "checkpoint", "CURRENT")) or flip.label == "free"


def test_bits_flipped_where_checksums_are_are_found_or_harmless(
    specimens: dict[str, bits.Specimen],
) -> None:
    flips = list(islice(filter(has_checksum, drawn(specimens)), CASES))
    outcomes = bits.run(specimens, flips)
    wrong = [
        (flip, outcome)
        for flip, outcome in zip(flips, outcomes, strict=True)
        if outcome[0] not in bits.HARMLESS
    ]
    assert not wrong
    assert {outcome for outcome, _ in outcomes} <= set(bits.HARMLESS)
    assert len(outcomes) < 100 or len({outcome for outcome, _ in outcomes}) == 3


def test_bits_flipped_in_any_field_are_found_or_harmless(
    specimens: dict[str, bits.Specimen],
) -> None:
    found: dict[str, Any] = {"cases": 0, "failures": []}
    bits.block(found, specimens, 1, campaigns.fewer(150))
    assert not found["failures"]


def test_every_byte_has_a_field(specimens: dict[str, bits.Specimen]) -> None:
    for specimen in specimens.values():
        for name, data in specimen.files.items():
            stops = [0, *(stop for _, stop, _ in specimen.fields[name])]
            assert [start for start, _, _ in specimen.fields[name]] == stops[:-1]
            assert stops[-1] == len(data)
    assert {"CURRENT", "meta: main tree's root", "tree leaf: key"} <= set(specimens["tiny"].labels)
    sections = {f"checkpoint: {name}" for name in ("head", "digests", "places", "index")}
    assert sections <= set(specimens["checkpointed"].labels)
    data = next(iter(specimens["mixed"].files.values()))
    labels = {label for _, _, label in lmdb_fields.fields_of(data)}
    assert {"free list: pages", "tree branch: child", "pack header: payloads"} <= labels


def test_a_store_is_put_back(specimens: dict[str, bits.Specimen]) -> None:
    for name, specimen in specimens.items():
        flips = list(islice(drawn(specimens, store=name), 16))
        bits.run(specimens, flips)
        assert {k: (specimen.folder / k).read_bytes() for k in specimen.files} == specimen.files
        assert not specimen.is_touched()


# What the campaign looks for, planted.


def outcomes_of(specimens: dict[str, bits.Specimen], **wanted: object) -> set[str]:
    flips = list(islice(drawn(specimens, **wanted), 20))
    return {outcome for outcome, _ in bits.run(specimens, flips)}


def test_damage_that_verify_does_not_tell_is_a_failure(
    specimens: dict[str, bits.Specimen], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"store": "mixed", "label": "body: payloads", "stratum": "bytes", "writes": False}
    assert outcomes_of(specimens, **body) <= {"found", "harmless"}
    verify = checking.verify

    def lenient(*arguments: Any) -> Any:
        found = verify(*arguments)
        found.damage.clear()
        return found

    monkeypatch.setattr(checking, "verify", lenient)
    assert "missed" in outcomes_of(specimens, **body)


def test_a_verified_read_that_serves_damage_is_a_failure(
    specimens: dict[str, bits.Specimen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryStore, "_verify_records", lambda *_: None)
    body = {"store": "mixed", "label": "body: payloads", "stratum": "bytes"}
    assert "served" in outcomes_of(specimens, **body)


def test_a_commit_that_loses_records_is_a_failure(
    specimens: dict[str, bits.Specimen], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = MemoryStore.commit

    def losing(store: MemoryStore) -> None:
        if store._state.is_pending:
            store.delete_many(store.digests()[:1])
        commit(store)

    monkeypatch.setattr(MemoryStore, "commit", losing)
    assert "lost" in outcomes_of(specimens, store="tiny", label="free", writes=True)


@pytest.mark.parametrize(("end", "what"), [("abort", "crash (SIGABRT)"), ("loop", "hang")])
def test_an_interpreter_that_ends_is_a_failure(
    specimens: dict[str, bits.Specimen], monkeypatch: pytest.MonkeyPatch, end: str, what: str
) -> None:
    def planted(*_: object) -> None:
        while end == "loop":
            pass
        os.abort()

    monkeypatch.setattr(checking, "verify", planted)
    monkeypatch.setattr(campaigns.in_fork, "__defaults__", (0.3, campaigns.MEMORY))
    flips = [next(drawn(specimens, store="tiny", label="free"))] * 2
    assert [outcome for outcome, _ in bits.run(specimens, flips)] == [what, what]


def test_what_was_found_is_shown(specimens: dict[str, bits.Specimen]) -> None:
    found: dict[str, Any] = {"cases": 0, "failures": [], "seconds": 1.0, "description": "a\nb"}
    bits.block(found, specimens, 3, 10)
    shown = bits.section(found)
    assert "**10 flips, " in shown
    assert "| fields |" in shown
    bits.count(found, next(drawn(specimens)), 11, "missed", "planted")
    assert found["failures"][-1]["note"] == "planted"
    assert "missed" in bits.section(found)
