"""The contract of `hashmem.summaries.SummaryMethod`, to be run on any implementation.

def make() -> MySummary:
    return MySummary()

class TestMine(SummaryContract):
    factory = staticmethod(make)
"""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from hashmem.summaries import SummaryMethod, pack, row_scales

__all__ = ["SummaryContract"]

TEXTS = [
    "def read_file(path):\n    with open(path) as file:\n        return file.read()\n",
    "class Tree:\n    def insert(self, key):\n        self.root = insert(self.root, key)\n",
    "Die Größe naïver Wörter, 中文, हिन्दी",
    "word",
    "word " * 5000,
]
SILENT = ["", " \n\t", "\0"]


class SummaryContract:
    """What every summary method keeps. `factory` is a function of a module, without arguments."""

    factory: Callable[[], SummaryMethod]

    @pytest.fixture
    def method(self) -> SummaryMethod:
        return self.factory()

    def test_says_what_it_makes(self, method: SummaryMethod) -> None:
        assert method.name
        assert method.dims >= 1
        assert method.dtype in (np.float32, np.float16, np.int8)
        for texts in ([], TEXTS[:1], TEXTS):
            rows = method.encode(texts)
            assert rows.dtype == np.float32
            assert rows.shape == (len(texts), method.dims)
        row = method.encode_query(TEXTS[0])
        assert row.dtype == np.float32
        assert row.shape == (method.dims,)

    def test_rows_have_unit_length_or_say_nothing(self, method: SummaryMethod) -> None:
        lengths = np.linalg.norm(method.encode(TEXTS + SILENT), axis=1)
        np.testing.assert_allclose(lengths, [1.0] * len(TEXTS) + [0.0] * len(SILENT), atol=1e-5)
        assert np.linalg.norm(method.encode_query(TEXTS[1])) == pytest.approx(1, abs=1e-5)
        assert not method.encode_query("").any()

    def test_a_row_depends_on_its_own_text_alone(self, method: SummaryMethod) -> None:
        together = method.encode(TEXTS + SILENT)
        apart = np.concatenate([method.encode([text]) for text in TEXTS + SILENT])
        np.testing.assert_allclose(together, apart, atol=1e-6)
        assert (method.encode(TEXTS + SILENT) == together).all()

    def test_a_text_finds_itself_first_as_stored(self, method: SummaryMethod) -> None:
        texts = TEXTS[:4]
        stored = pack(method.encode(texts), method.dtype)
        assert stored.dtype == method.dtype
        rows = stored.astype(np.float32) * row_scales(stored)[:, None]
        for i, text in enumerate(texts):
            assert int(np.argmax(rows @ method.encode_query(text))) == i

    def test_another_process_gives_the_same_rows(self, method: SummaryMethod) -> None:
        code = (
            f"import sys; from {self.factory.__module__} import {self.factory.__name__} as make\n"
            "from hashmem.testing.summaries import TEXTS\n"
            "sys.stdout.buffer.write(make().encode(TEXTS).tobytes())"
        )
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, env=paths)
        assert not made.stderr
        assert (
            np.frombuffer(made.stdout, np.float32).tolist() == method.encode(TEXTS).ravel().tolist()
        )
