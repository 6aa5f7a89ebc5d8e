"""What the table bench compares: hashmem's tables, dict, hirola, cykhash and pandas, one contract.

More of them are in `bench.table_peers`, and hash maps of C++ in `bench.yardsticks`.

Digests come as uint8 (n, width); each contestant turns them, untimed, into the form it likes best.
Why each is run as it is stands at the top of `bench.tables`.
"""

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import hashmem
from bench.harness import SEED, Timed
from hashmem import kernels

INSERTS = 16  # batches from an empty table to a full one
HIROLA_GROWTH = (2 / 3, 8)  # full to this share, grow by this factor
BASELINE = "hashmem OpenAddressingTable, native"
CHAINING = "hashmem ChainingTable, native"
REFERENCE = "hashmem OpenAddressingTable, reference"


def digests_of(start: int, count: int, width: int) -> np.ndarray:
    """Return the SHA-256 of the counters from `start` on, cut → uint8 (count, width)."""
    sha256 = hashlib.sha256
    joined = b"".join(sha256(i.to_bytes(8, "little")).digest() for i in range(start, start + count))
    full = np.frombuffer(joined, dtype=np.uint8).reshape(count, 32)
    return np.ascontiguousarray(full[:, :width])


def random_digests(seed: int, count: int, width: int) -> np.ndarray:
    """Return digests that no other seed gives → uint8 (count, width). Random bytes are all that a
    table sees of a digest, and are made in less time."""
    random = np.random.default_rng([SEED, seed])
    words = random.integers(0, 1 << 64, (count, width // 8), np.uint64)
    return words.view(np.uint8)


def as_bytes(digests: np.ndarray) -> list[bytes]:
    """Return each row as bytes."""
    return digests.view(f"V{digests.shape[1]}").ravel().tolist()


def as_words(digests: np.ndarray) -> np.ndarray:
    """Return the first 8 bytes of each row → uint64 (n,)."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()


def batches(digests: np.ndarray, calls: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut digests into `calls` batches with their positions as values."""
    values = np.arange(len(digests), dtype=np.int64)
    parts = zip(np.array_split(digests, calls), np.array_split(values, calls), strict=True)
    return list(parts)


class Contestant:
    """One way to hold digests: each method prepares its input untimed and returns the timed call.

    `insert` fills a new table in so many `calls` (or in one, where a rival has no other way), and
    the calls after it use that. It lets go of the old one first, so that freeing is not timed.
    """

    name: str
    kind = "rival"
    can_insert = True  # keeps a table; otherwise each find makes one
    can_delete = True
    loops = False  # takes one key at a time, however many calls are asked for
    slow = False  # so that fewer rounds must do where there are many keys
    table: Any = None

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        raise NotImplementedError

    def find(self, digests: np.ndarray) -> Timed:
        raise NotImplementedError

    def delete(self, digests: np.ndarray) -> Timed:
        raise NotImplementedError

    def numbers(self, found: Any) -> list[int]:
        """What a find gave, as values, -1 for a miss."""
        return list(found)


class Ours(Contestant):
    kind = "ours"

    def __init__(self, table_class: type, kernel: str) -> None:
        kernels.select(kernel)  # ImportError where the compiled ones are missing
        self.table_class, self.kernel = table_class, kernel
        self.name = f"hashmem {table_class.__name__}, {kernel}"
        self.slow = kernel == "reference"

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        kernels.select(self.kernel)
        self.table, parts = None, batches(digests, calls)

        def fill() -> None:
            self.table = self.table_class(width=digests.shape[1])
            for part, values in parts:
                self.table.insert(part, values)

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        kernels.select(self.kernel)
        return lambda: self.table.find(digests)

    def delete(self, digests: np.ndarray) -> Timed:
        kernels.select(self.kernel)
        return lambda: self.table.delete(digests)


class DictLoop(Contestant):
    name = "dict loop, bytes at hand"
    loops = True

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table = None
        keys = as_bytes(digests)

        def fill() -> None:
            self.table = table = {}
            for value, key in enumerate(keys):
                table[key] = value

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        keys, get = as_bytes(digests), self.table.get
        return lambda: [get(key, -1) for key in keys]

    def delete(self, digests: np.ndarray) -> Timed:
        keys, pop = as_bytes(digests), self.table.pop
        return lambda: [pop(key, -1) for key in keys]


class DictFromArrays(Contestant):
    name = "dict, arrays in and out"
    loops = slow = True

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table, parts = None, batches(digests, calls)

        def fill() -> None:
            self.table = {}
            for part, values in parts:
                self.table.update(zip(as_bytes(part), values.tolist(), strict=True))

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        get = self.table.get

        def look_up() -> np.ndarray:
            found = map(get, as_bytes(digests), itertools.repeat(-1))
            return np.fromiter(found, dtype=np.int64, count=len(digests))

        return look_up

    def delete(self, digests: np.ndarray) -> Timed:
        pop = self.table.pop
        return lambda: list(map(pop, as_bytes(digests), itertools.repeat(-1)))


class Hirola(Contestant):
    name = "hirola"
    can_delete = False

    def __init__(self) -> None:
        import hirola

        self.new = hirola.HashTable

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table, parts = None, batches(digests, calls)

        def fill() -> None:
            dtype = (np.uint8, digests.shape[1])
            self.table = self.new(1000, dtype, almost_full=HIROLA_GROWTH)
            for part, _ in parts:
                self.table.add(part)

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        return lambda: self.table.get(digests)


class Cykhash(Contestant):
    name = "cykhash, 8-byte keys"

    def __init__(self) -> None:
        import cykhash

        self.library = cykhash

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table = None
        keys = as_words(digests).view(np.int64)
        values = np.arange(len(keys), dtype=np.int64)

        def fill() -> None:
            self.table = self.library.Int64toInt64Map_from_buffers(keys, values)

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests).view(np.int64)

        def look_up() -> np.ndarray:
            out = np.empty(len(keys), dtype=np.int64)
            self.library.Int64toInt64Map_to(self.table, keys, out, False, -1)
            return out

        return look_up

    def delete(self, digests: np.ndarray) -> Timed:
        keys, discard = as_words(digests).view(np.int64).tolist(), self.table.discard
        return lambda: [discard(key) for key in keys]


class Pandas(Contestant):
    name = "pandas, 8-byte keys"
    can_delete = False

    def __init__(self) -> None:
        import pandas

        self.new = pandas.Index

    def insert(self, digests: np.ndarray, calls: int = INSERTS) -> Timed:
        self.table = None
        keys = as_words(digests)

        def fill() -> None:
            self.table = self.new(keys)
            self.table.get_indexer(keys[:1])  # builds the engine

        return fill

    def find(self, digests: np.ndarray) -> Timed:
        keys = as_words(digests)
        return lambda: self.table.get_indexer(keys)


MAKERS: dict[str, Callable[[], Contestant]] = {
    BASELINE: lambda: Ours(hashmem.OpenAddressingTable, "native"),
    CHAINING: lambda: Ours(hashmem.ChainingTable, "native"),
    REFERENCE: lambda: Ours(hashmem.OpenAddressingTable, "reference"),
    "hashmem ChainingTable, reference": lambda: Ours(hashmem.ChainingTable, "reference"),
    DictLoop.name: DictLoop,
    DictFromArrays.name: DictFromArrays,
    Hirola.name: Hirola,
    Cykhash.name: Cykhash,
    Pandas.name: Pandas,
}
