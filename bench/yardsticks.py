"""Yardsticks in C++: how hash maps of other languages do on the same digests.

std::unordered_map, absl::flat_hash_map, boost::unordered_flat_map, tsl::robin_map and
ankerl::unordered_dense::map, whichever has its headers here, built on the spot with
-O3 -march=native and called with a whole batch. They hash a digest by its first 8 bytes and
compare all of it; nothing is prefetched.
"""

import ctypes
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.compiled import address, library
from bench.harness import Timed
from bench.table_rivals import INSERTS, Contestant, batches

PREFIX = "C++ "
WIDTHS = (8, 16, 32)


def _packaged(package: str, folder: str) -> str:
    """The option that finds headers inside a Python package; nothing where it is not installed."""
    spec = importlib.util.find_spec(package)
    return f"-I{Path(spec.origin).parent / folder}" if spec and spec.origin else "-DNO_PACKAGE"


def _linked(package: str) -> list[str]:
    """What pkg-config says of a system's package; nothing where it does not know it."""
    try:
        command = ["pkg-config", "--cflags", "--libs", package]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


OPTIONS: dict[str, Callable[[], list[str]]] = {  # map → how the compiler finds it
    "std::unordered_map": lambda: ["-DMAP_STD"],
    "absl::flat_hash_map": lambda: ["-DMAP_ABSL", *_linked("absl_flat_hash_map")],
    "boost::unordered_flat_map": lambda: ["-DMAP_BOOST", _packaged("libboost_headers", "include")],
    "tsl::robin_map": lambda: ["-DMAP_TSL", _packaged("nanobind", "ext/robin_map/include")],
    "ankerl::unordered_dense::map": lambda: ["-DMAP_ANKERL"],
}


class Yardstick(Contestant):
    """One map of C++. Raises `ImportError` without a compiler or its headers."""

    def __init__(self, name: str) -> None:
        self.name = PREFIX + name
        self._c = c = library("yardsticks.cpp", *OPTIONS[name](), "-std=c++17")
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        c.table_new.argtypes, c.table_new.restype = [size], pointer
        c.table_free.argtypes = [pointer]
        c.table_insert.argtypes = [pointer, pointer, pointer, size]
        c.table_find.argtypes = [pointer, pointer, pointer, size]
        c.table_delete.argtypes = [pointer, pointer, size]

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.close()
        parts = batches(digests, calls)

        def fill() -> None:
            self.table = self._c.table_new(digests.shape[1])
            for part, values in parts:
                self._c.table_insert(self.table, address(part), address(values), len(part))

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        def look_up() -> np.ndarray:
            out = np.empty(len(digests), np.int64)
            self._c.table_find(self.table, address(digests), address(out), len(digests))
            return out

        return look_up

    def delete(self, digests: np.ndarray) -> Timed:
        return lambda: self._c.table_delete(self.table, address(digests), len(digests))

    def close(self) -> None:
        if self.table:
            self._c.table_free(self.table)
        self.table = None

    def __del__(self) -> None:
        if hasattr(self, "_c"):
            self.close()


MAKERS: dict[str, Callable[[], Contestant]] = {
    PREFIX + name: lambda name=name: Yardstick(name) for name in OPTIONS
}
