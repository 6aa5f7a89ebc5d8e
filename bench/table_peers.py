"""More that the table bench compares: what holds one key at a time, or makes its table anew.

- **borghash**: whole digests, one at a time; values are 8 bytes too.
- **numba**: a typed.Dict of int64, the first 8 bytes of each digest, in a compiled loop.
- **polars** and **pyarrow**: a left join and `index_in` on the first 8 bytes of each digest. They
  keep no table from one call to the next; a find includes making it, and there is no insert.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from bench.harness import Timed
from bench.table_rivals import INSERTS, Contestant, as_bytes, as_words, batches


class Borghash(Contestant):
    name = "borghash"
    loops = slow = True

    def __init__(self) -> None:
        import borghash

        self.new = borghash.HashTable

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table = None
        keys = as_bytes(digests)
        values = as_bytes(np.arange(len(digests), dtype=np.int64).view(np.uint8).reshape(-1, 8))

        def fill() -> None:
            self.table = table = self.new(key_size=digests.shape[1], value_size=8)
            for key, value in zip(keys, values, strict=True):
                table[key] = value

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.table.get
        return lambda: [get(key) for key in keys]

    def delete(self, digests: np.ndarray) -> Timed:
        keys, pop = as_bytes(digests), self.table.pop
        return lambda: [pop(key) for key in keys]

    def numbers(self, found: Any) -> list[int]:
        return [-1 if value is None else int.from_bytes(value, "little") for value in found]


@cache
def _loops() -> tuple[Any, ...]:
    """Compile numba's loops, once a process: it takes seconds."""
    import numba
    from numba.typed import Dict

    @numba.njit
    def fill(table, keys, values):
        for i in range(len(keys)):
            table[keys[i]] = values[i]

    @numba.njit
    def find(table, keys, out):
        for i in range(len(keys)):
            out[i] = table.get(keys[i], -1)

    @numba.njit
    def delete(table, keys):
        for i in range(len(keys)):
            table.pop(keys[i], -1)

    def new() -> Any:
        return Dict.empty(numba.int64, numba.int64)

    few, table = np.arange(2), new()
    fill(table, few, few)
    find(table, few, few.copy())
    delete(table, few)
    return new, fill, find, delete


class Numba(Contestant):
    name = "numba typed.Dict, 8-byte keys"

    def __init__(self) -> None:
        self._new, self._fill, self._find, self._delete = _loops()

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table = None
        parts = [
            (as_words(part).view(np.int64), values) for part, values in batches(digests, calls)
        ]

        def fill() -> None:
            self.table = self._new()
            for keys, values in parts:
                self._fill(self.table, keys, values)

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests).view(np.int64)

        def look_up() -> np.ndarray:
            out = np.empty(len(keys), np.int64)
            self._find(self.table, keys, out)
            return out

        return look_up

    def delete(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests).view(np.int64)
        return lambda: self._delete(self.table, keys)


class Polars(Contestant):
    name = "polars left join, 8-byte keys"
    can_insert = can_delete = False
    slow = True

    def __init__(self) -> None:
        import polars

        self.library = polars

    def _frame(self, digests: np.ndarray) -> Any:
        return self.library.DataFrame({"key": as_words(digests)})

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        def fill() -> None:
            values = np.arange(len(digests), dtype=np.int64)
            self.table = self._frame(digests).with_columns(value=values)

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        asked = self._frame(digests)

        def look_up() -> np.ndarray:
            joined = asked.join(self.table, on="key", how="left", maintain_order="left")
            return joined["value"].fill_null(-1).to_numpy()

        return look_up


class PyArrow(Contestant):
    name = "pyarrow index_in, 8-byte keys"
    can_insert = can_delete = False
    slow = True

    def __init__(self) -> None:
        import pyarrow
        import pyarrow.compute

        self.library, self.index_in = pyarrow, pyarrow.compute.index_in

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        def fill() -> None:
            self.table = self.library.array(as_words(digests))

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        asked = self.library.array(as_words(digests))

        def look_up() -> np.ndarray:
            return self.index_in(asked, value_set=self.table).fill_null(-1).to_numpy()

        return look_up


MAKERS: dict[str, Callable[[], Contestant]] = {
    make.name: make for make in (Borghash, Numba, Polars, PyArrow)
}
