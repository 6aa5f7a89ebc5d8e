"""What holds for all tests. Long campaigns run only when asked for: `pytest -m campaign`."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

# For `bench`. Last, so that the installed hashmem goes before the checkout's.
sys.path.append(str(Path(__file__).parents[1]))

# No timing decides a test: a machine may be slow, or busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "campaign" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("campaign")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]
