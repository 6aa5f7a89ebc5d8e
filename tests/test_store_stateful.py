"""Random operations by several processes: a part of `bench.reliability.stateful`, and its proof."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.reliability import stateful, store_operations
from bench.reliability import store_campaigns as campaigns
from bench.reliability.stateful import FIRST, FORKED, KEYED, PEER, SECOND
from bench.reliability.store_operations import OPERATIONS
from hashmem import MemoryStore

EPISODES = campaigns.fewer(3)


@pytest.fixture
def folder() -> Iterator[Path]:
    with campaigns.scratch() as folder:
        yield folder


def campaign(folder: Path, episodes: int, length: int = 400) -> dict[str, Any]:
    found: dict[str, Any] = {"cases": 0, "failures": [], "seconds": 1.0, "description": "a\nb"}
    for _ in range(episodes):
        stateful.episode(found, folder, 5, length)
    return found


def test_random_operations_agree_with_dictionaries(folder: Path) -> None:
    found = campaign(folder / "store", EPISODES)
    assert found["failures"] == []
    assert found["cases"] == EPISODES * 400
    missing = {*OPERATIONS, *stateful.FORKS} - set(found["operations"])
    assert len(missing) <= (0 if EPISODES > 3 else 3)
    told = f"**{campaigns.number(found['cases'])} operations in {EPISODES}"
    assert told in stateful.section(found)


def test_operations_follow_from_the_seed() -> None:
    assert stateful.drawn(1, 2) == stateful.drawn(1, 2) != stateful.drawn(1, 3)
    steps = stateful.drawn(1, 2)
    assert {actor for _, actor, *_ in steps} == {FIRST, SECOND, PEER, KEYED, FORKED}


def test_handles_of_three_processes_see_each_other(folder: Path) -> None:
    steps: list[stateful.Step] = [
        ["put", FIRST, 3, {"a": 1}],
        ["hold", FIRST],
        ["commit", FIRST],
        ["fork", FIRST],
        ["check", PEER],
        ["put_many", PEER, [4, 5], None],
        ["put", FORKED, 6, None],
        ["commit", PEER],
        ["end", FORKED, False],
        ["compact", SECOND],
        ["look at held", FIRST],
        ["check", FIRST],
        ["put", KEYED, 3, None],
        ["fork", SECOND],
        ["put", FORKED, 7, None],
        ["end", FORKED, True],
        ["check", KEYED],
    ]
    assert stateful.run(folder / "store", 0, steps) == {}
    episode = stateful.Episode(folder / "again", 0)
    assert [episode.step(name, actor, rest) for name, actor, *rest in steps] == [""] * len(steps)
    assert episode.common.committed.records == {3, 4, 5, 6}
    assert episode.finish() == ""


# What the campaign looks for, planted.


def failing(folder: Path) -> dict[str, Any]:
    found = campaign(folder / "store", 2, 100)
    assert found["failed"] >= 1
    failure: dict[str, Any] = found["failures"][0]
    few = failure["shortened"]
    at_end = failure["step"] == 100
    again = stateful.run(folder / "store", failure["episode"], few)
    assert again["step"] == len(few) - (not at_end)
    assert len(few) < 20
    return failure


def test_a_rollback_that_forgets_nothing_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryStore, "rollback", lambda store: None)
    failure = failing(folder)
    assert len(failure["shortened"]) <= 6
    assert "rollback" in {name for name, *_ in failure["shortened"]}


def test_a_refresh_that_sees_nothing_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryStore, "refresh", lambda store: False)
    assert failing(folder)["what"] == "refresh() saw nothing of a commit"


def test_another_processs_damage_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, here = MemoryStore.commit, os.getpid()

    def losing(store: MemoryStore) -> None:
        if os.getppid() != here and len(store) > 3:  # a grandchild: another than the first handles'
            store.delete_many(store.digests()[:1])
        commit(store)

    monkeypatch.setattr(MemoryStore, "commit", losing)
    assert {PEER, FORKED} & {actor for _, actor, *_ in failing(folder)["shortened"]}


@pytest.mark.parametrize(
    ("actor", "what"), [(FIRST, "crash (SIGABRT)"), (PEER, "the process died")]
)
def test_a_process_that_dies_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, actor: int, what: str
) -> None:
    monkeypatch.setattr(MemoryStore, "unlink", lambda *_: os.abort())
    steps: list[stateful.Step] = [["put", actor, 1, None], ["unlink", actor, [1]]]
    failure = stateful.run(folder / "store", 0, steps)
    assert failure["step"] == 1
    assert what in failure["what"]


def test_an_operation_is_an_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = store_operations.Operation(
        1000, lambda random: [], lambda box: len(box.store), lambda _, seen: len(seen.view.records)
    )
    monkeypatch.setitem(OPERATIONS, "count", operation)
    found = campaign(folder / "store", 1, 100)
    assert found["failures"] == []
    assert found["operations"]["count"] > 50
