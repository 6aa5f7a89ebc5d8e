"""The backends that come with hashmem keep the contract; and what is LMDB's own."""

import pytest

from hashmem.store.backend import Backend
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.ram import RamBackend
from hashmem.testing.backends import BackendContract


class TestRamBackend(BackendContract):
    @pytest.fixture
    def backend(self):
        backend = RamBackend()
        yield backend
        backend.close()


class TestLmdbBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path):
        backend = LmdbBackend(tmp_path / "store")
        yield backend
        backend.close()

    def reopened(self, backend: Backend, *, readonly: bool) -> Backend:
        return LmdbBackend(backend.path, readonly=readonly)
