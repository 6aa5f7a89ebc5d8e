"""Writers that are killed: a part of the campaign, and proof that it would tell."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench.reliability import builds, forks, kill, render, workload  # noqa: E402 needs the path
from bench.reliability.store_campaigns import fewer  # noqa: E402
from bench.reliability.workload import Model  # noqa: E402
from hashmem import MemoryStore  # noqa: E402

SEED = 7
CYCLES = 30 if builds.is_sanitized() else fewer(200)  # about ten seconds


@pytest.fixture
def folder(tmp_path):
    """A folder in RAM, where there is one: what a killed process leaves is the same there, and
    syncs take no time."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=parent) as name:
        yield Path(name)


def failures(campaign: kill.Campaign) -> str:
    return "\n".join(f"{one['store']}: {one['what']}" for one in campaign.found["failures"])


def test_a_killed_writer_loses_nothing_it_told_of(folder):
    campaign = kill.Campaign(folder, SEED)
    campaign.run(CYCLES, time.monotonic() + 120)
    found = campaign.found
    assert found["failures"] == [], failures(campaign)
    assert found["cycles"] >= CYCLES // 2  # all, unless the machine is very slow
    assert found["acknowledged"] > CYCLES // 4
    assert found["readers"] > 0 or CYCLES < 100
    kills = found["kills"]
    assert sum(kills.values()) == found["cycles"] + found["two_writers"]
    assert len(kills) > min(5, CYCLES // 10)
    assert not list(folder.iterdir())


@pytest.mark.campaign
def test_many_killed_writers(tmp_path):
    campaign = kill.Campaign(tmp_path, SEED + 1)
    campaign.run(2000, float("inf"))
    assert campaign.found["failures"] == [], failures(campaign)


def test_a_campaign_goes_on_where_it_was(tmp_path):
    first = kill.Campaign(tmp_path, SEED)
    first.run(3, float("inf"))
    second = kill.Campaign(tmp_path, SEED, first.found)
    second.run(5, float("inf"))
    assert second.found["cycles"] == 5
    assert second.found["stores"] == 2


def test_the_results_are_whole_and_without_failures():
    results = {result["name"]: result for result in render.read(render.RESULTS)}
    assert results["kill"]["cycles"] >= 10_000
    assert results["kill"]["kills"]["compact"] > 100
    assert results["power"]["images"] >= 5000
    assert results["kill"]["failures"] == results["power"]["failures"] == []
    assert results["soak"]["bounded"]


# It can fail.


def told_too_early(store, calls):
    """Commits what the last step has written, and tells of this one."""
    store.commit()
    for call in calls:
        if call[0] not in ("compact", "copied"):  # which commit
            workload.make(store, call)


def in_two_commits(store, calls):
    for call in calls:
        workload.make(store, call)
        store.commit()
        time.sleep(0.002)


def caught(folder, take) -> dict:
    campaign = kill.Campaign(folder, SEED, take=take)
    for cycles in range(20, 400, 20):
        campaign.run(cycles, float("inf"))
        if campaign.found["failures"]:
            break
    return campaign.found


def test_a_commit_that_is_told_of_too_early_is_caught(tmp_path):
    assert caught(tmp_path, told_too_early)["failures"]


def test_a_step_in_two_commits_is_caught(tmp_path):
    found = caught(tmp_path, in_two_commits)
    assert found["half"] + found["lost"] > 0, found["failures"]


def test_a_writer_that_raises_is_caught(tmp_path):
    def take(store, calls):
        raise RuntimeError("planted")

    found = caught(tmp_path, take)
    assert found["other"] > 0
    assert "planted" in found["failures"][0]["what"]


def test_an_interpreter_that_dies_is_told():
    assert forks.answer(lambda: 7) == {"value": 7}
    assert "SIGKILL" in forks.answer(lambda: os.kill(os.getpid(), signal.SIGKILL))["error"]
    assert "ZeroDivisionError" in forks.answer(lambda: 1 // 0)["error"]


# What is compared.


@pytest.fixture
def written(tmp_path):
    """A store of some steps, and the model of what is in it."""
    model = Model("compared")
    with MemoryStore(tmp_path / "store") as store:
        for step, kind in enumerate(["put small", "column", "link", "edges", "metadata"] * 3):
            calls = workload.plan(model, step, kind)
            workload.take(store, calls)
            model = model.after(calls)
        assert workload.differences(store, model) == []
        yield store, model


def broken(store: MemoryStore, model: Model, part: str) -> None:
    stored = list(model.payloads)
    if part == "a record more":
        store.put(b"more")
    elif part == "a record less":
        store.delete(stored[0])
    elif part == "metadata":
        store.set_metadata([stored[0]], [{"other": 1}])
    elif part == "column":
        store.write_column(workload.COLUMN, [stored[0]], np.full((1, 4), 7777, np.float32))
    elif part == "successor":
        store.link(stored[0], bytes(32))
    elif part == "an edge more":
        sources = {source for source, _ in model.edges}
        apart = [digest for digest in stored if digest not in sources]
        store.add_link(apart[0], apart[1], "near")
    else:
        store.clear_links([source for source, _ in model.edges])


@pytest.mark.parametrize(
    "part",
    ["a record more", "a record less", "metadata", "column", "successor", "an edge more", "edges"],
)
def test_every_part_of_the_content_is_compared(written, part):
    store, model = written
    broken(store, model, part)
    assert workload.differences(store, model)


def test_every_kind_of_step_can_be_told_again(tmp_path):
    model = Model("again")
    with MemoryStore(tmp_path / "store") as store:
        for step, kind in enumerate(["put small", "put small", *workload.kinds()]):
            calls = workload.plan(model, step, kind)
            again = workload.plan(model, step, kind)
            assert repr(calls) == repr(again)
            workload.take(store, calls)
            model = model.after(calls)
            assert workload.differences(store, model) == [], kind
    assert workload.checked(str(tmp_path / "store"), [model]) == {"matched": 0, "problems": []}
