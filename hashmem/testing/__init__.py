"""Strategies, state machines and contract suites, to be run on your own implementations.

They need the extra `test` (pytest and Hypothesis); `docs/testing.md` shows each on a planted bug.

- Strategies, which shrink to few and small things: `digests`, `digest_batches` and `digest_pools`
  of the `KINDS` that weak hashes stumble over, `payloads`, `metadata`, `records`, `record_batches`,
  `link_graphs`, `hop_chains`, `digest_chains`. `number_digests` and `walk` are the functions behind
  them.
- Machines, random operations against a dict: `TableMachine` for any table with insert, find and
  delete; `StoreMachine` for any store with put and get.
- Contracts, classes of tests: `HopContract` for any function that follows links; `TableContract`,
  `BackendContract` and `SummaryContract` for all that hashmem's own promise.
- Means: `smallest_failure` returns what is reported; `step_limit` raises `Endless` where code in
  Python runs on and on.

Subclass a machine or contract, give it a factory, and let pytest collect it:

    from hashmem.testing import HopContract, TableMachine

    class MyMachine(TableMachine):
        make = MyTable  # called with a width

    TestMyTable = MyMachine.TestCase

    class TestMyHop(HopContract):
        def hop(self, successors, starts, n):
            return my_hop(successors, starts, n)
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BackendContract": "hashmem.testing.backends",
    "DigestChain": "hashmem.testing.chains",
    "Endless": "hashmem.testing.steps",
    "HopChain": "hashmem.testing.chains",
    "HopContract": "hashmem.testing.hop_contract",
    "KINDS": "hashmem.testing.strategies",
    "LinkGraph": "hashmem.testing.chains",
    "StoreMachine": "hashmem.testing.store_machine",
    "SummaryContract": "hashmem.testing.summaries",
    "TableContract": "hashmem.testing.tables",
    "TableMachine": "hashmem.testing.table_machine",
    "digest_batches": "hashmem.testing.strategies",
    "digest_chains": "hashmem.testing.chains",
    "digest_pools": "hashmem.testing.strategies",
    "digests": "hashmem.testing.strategies",
    "hop_chains": "hashmem.testing.chains",
    "link_graphs": "hashmem.testing.chains",
    "metadata": "hashmem.testing.strategies",
    "number_digests": "hashmem.testing.strategies",
    "payloads": "hashmem.testing.strategies",
    "record_batches": "hashmem.testing.strategies",
    "records": "hashmem.testing.strategies",
    "smallest_failure": "hashmem.testing.failures",
    "step_limit": "hashmem.testing.steps",
    "walk": "hashmem.testing.chains",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hashmem.testing' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
