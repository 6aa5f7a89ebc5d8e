"""Faults of the system: a small part of `bench.reliability.faults`, and proof that it tells."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.harness import ROOT
from bench.reliability import builds, faults

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux's"),
    pytest.mark.skipif(shutil.which(builds.compiler()) is None, reason="there is no C compiler"),
]


def campaign(results: Path, *names: str, planted: str = "") -> dict[str, Any]:
    """Run a part of the campaign in a process of its own, a bug `planted` in it."""
    (results / "sitecustomize.py").write_text(planted)
    command = [sys.executable, "-m", "bench.reliability.faults", "--quick", "--only", *names]
    subprocess.run(
        [*command, "--results", str(results)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{results}:{ROOT}"},
        capture_output=True,
        check=False,
    )
    found: dict[str, Any] = json.loads((results / f"{faults.NAME}.json").read_text())
    return found


@pytest.mark.parametrize(
    "name",
    [
        "open",
        "commit",
        "drop a namespace",
        pytest.param(
            "files",
            marks=pytest.mark.xfail(
                reason="reading of a file that was cut short while open is SIGBUS", strict=True
            ),
        ),
    ],
)
def test_faults_are_told_and_leave_the_store_usable(tmp_path: Path, name: str) -> None:
    found = campaign(tmp_path, name)
    assert found["cases"] > 30
    assert "told" in {outcome for counts in found["faults"].values() for outcome in counts}
    assert found["failures"] == []
    assert f"**{found['cases']} faults, 0 failures.**" in faults.section(found)


# What the campaign looks for, planted.


def test_a_commit_that_swallows_errors_is_a_failure(tmp_path: Path) -> None:
    planted = """
from hashmem import MemoryStore
from hashmem.errors import StoreError
commit = MemoryStore.commit
def swallowing(store):
    try:
        commit(store)
    except StoreError:
        store.rollback()
MemoryStore.commit = swallowing
"""
    outcomes = campaign(tmp_path, "commit", planted=planted)["operations"]["commit"]
    assert outcomes["swallowed"] > 0 < outcomes["lost"]


def test_an_error_that_says_too_little_is_a_failure(tmp_path: Path) -> None:
    planted = """
from hashmem.store import lmdb
lmdb._remedy = lambda *_: ""
"""
    outcomes = campaign(tmp_path, "commit", planted=planted)["operations"]["commit"]
    assert outcomes["unclear"] > 0


def test_calls_of_which_there_are_many_take_turns() -> None:
    few = list(faults.faults_of(3, "read", (5,)))
    assert [(fault.k, fault.mode) for fault in few] == [
        (k, mode) for k in range(3) for mode in (0, faults.STICKY)
    ]
    many = sorted({fault.k for fault in faults.faults_of(10_000, "write", (5, 28))})
    assert len(many) <= faults.MOST_CALLS + 2
    assert many[:3] == [0, 1, 2]
    assert many[-1] == 9999
