"""What holds for all tests. Long campaigns run only when asked for: `pytest -m campaign`."""

import sys
from pathlib import Path
from types import SimpleNamespace

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


# An endpoint for chat completions, and who asks it (test_hashhop_run.py and those beside it).


@pytest.fixture(scope="module")
def shared():
    from chat_server import KEY, reader, serving

    from hashmem.hashhop import Endpoint

    with serving(reader) as server:
        slept = []
        endpoint = Endpoint(server.url, "m", api_key=KEY, sleep=slept.append)
        yield SimpleNamespace(server=server, endpoint=endpoint, slept=slept)
        endpoint.close()


@pytest.fixture
def server(shared):
    from chat_server import reader

    shared.server.restart(reader)
    return shared.server


@pytest.fixture
def endpoint(shared, server):
    shared.endpoint.retries = 6
    shared.slept.clear()
    return shared.endpoint
