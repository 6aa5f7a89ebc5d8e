"""Contract suites and Hypothesis strategies, to be run on your own tables, backends and summaries.

They need the extra `test` (pytest and Hypothesis). Subclass a contract, give it a factory, and let
pytest collect it:

    from hashmem.testing import TableContract

    class TestMyTable(TableContract):
        def make(self, width, **options):
            return MyTable(width, **options)
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BackendContract": "hashmem.testing.backends",
    "SummaryContract": "hashmem.testing.summaries",
    "TableContract": "hashmem.testing.tables",
    "TableMachine": "hashmem.testing.tables",
    "digest_pools": "hashmem.testing.tables",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hashmem.testing' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
