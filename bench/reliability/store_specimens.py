"""Stores to damage: a few small ones with everything in them, and all that can be read of one."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hashmem import MemoryStore
from hashmem.errors import HashMemError
from hashmem.store import checkpoint

__all__ = [
    "SPECIMENS", "Original", "Reading", "checkpoints", "files_in", "opened", "originals", "read",
]  # fmt: skip

RELATIONS = ("imports", "calls")
COLUMNS = {"vector": (np.float32, 6), "size": (np.int64, 1)}
KEY = b"the key of a specimen"
NAMESPACES: tuple[tuple[str, bytes | None], ...] = (("", None), ("keyed", KEY))
Parts = dict[str, Any]


@dataclass
class Original:
    """What one namespace held before anything happened to it."""

    namespace: str
    key: bytes | None
    digests: list[bytes]  # of records, deleted ones and ends of links
    stored: dict[bytes, bytes]
    parts: Parts


@dataclass
class Reading:
    """What plain reads gave."""

    parts: Parts  # what could not be read is the error's text
    refused: list[str]  # errors of hashmem's own
    broken: list[str]  # other exceptions


def opened(folder: Path, original: Original, **options: Any) -> MemoryStore:
    return MemoryStore(folder, namespace=original.namespace, key=original.key, **options)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a store that matters when nobody has it open."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "LOCK" and not path.name.endswith("-lock")
    }


def read(store: MemoryStore, digests: list[bytes]) -> Reading:
    """Everything there is, by plain reads."""

    def contents() -> object:
        with store.get_many(digests) as records:
            buffer, offsets = records.gather()
            return records.lengths.tolist(), offsets.tolist(), buffer.tobytes()

    def columns() -> object:
        found = {}
        for name in store.columns:
            of, values = store.read_column(name)
            found[name] = of.tobytes(), str(values.dtype), values.shape, values.tobytes()
        return found

    def successors() -> object:
        ends, found = store.hop(digests, 1)
        return ends.tobytes(), found.tolist()

    def edges() -> object:
        relations = store.statistics()["relations"]
        return {
            relation: [store.neighbours(digest, 1, relation).tobytes() for digest in digests[:8]]
            for relation in relations
        }

    def counts() -> object:
        found = store.statistics()
        names = ("algorithm", "records", "payload_bytes", "successors", "edges", "relations")
        return {name: found[name] for name in names}

    reading = Reading({}, [], [])
    asked: dict[str, Callable[[], object]] = {
        "records": lambda: store.digests().tobytes(),
        "contents": contents,
        "metadata": lambda: store.metadata_many(digests),
        "columns": columns,
        "successors": successors,
        "edges": edges,
        "counts": counts,
    }
    for name, ask in asked.items():
        try:
            reading.parts[name] = ask()
        except HashMemError as error:
            reading.parts[name] = f"{type(error).__name__}: {error}"
            reading.refused.append(f"{name}: {reading.parts[name]}")
        except Exception as error:  # whatever else: that is what is looked for
            reading.parts[name] = None
            reading.broken.append(f"{name}: {type(error).__name__}: {error}"[:300])
    return reading


def originals(folder: Path, digests: dict[str, list[bytes]]) -> list[Original]:
    """What each namespace of a whole store holds."""
    found = []
    for namespace, key in NAMESPACES:
        if namespace not in digests:
            continue
        known = list(dict.fromkeys(digests[namespace]))
        with MemoryStore(folder, namespace=namespace, key=key, readonly=True) as store:
            reading = read(store, known)
            assert not reading.refused, reading.refused
            assert not reading.broken, reading.broken
            with store.get_many(known, verify=True) as records:
                pairs = zip(known, records, strict=True)
                stored = {digest: content for digest, content in pairs if content is not None}
            assert store.verify().ok
            found.append(Original(namespace, key, known, stored, reading.parts))
    return found


# ------------------------------------------------------------------------------------ building


class _Writer:
    """Writes to one namespace what follows from a seed."""

    def __init__(self, folder: Path, namespace: str, key: bytes | None, algorithm: str) -> None:
        self.random = random.Random(f"{namespace} {algorithm}")
        self.store = MemoryStore(folder, namespace=namespace, key=key, algorithm=algorithm)
        self.digests: list[bytes] = []

    def put(self, sizes: list[int]) -> list[bytes]:
        payloads = [self.random.randbytes(size) for size in sizes]
        maps = [
            {"n": len(self.digests) + i, "tags": ["a", "b" * (i % 9)]} if i % 3 else None
            for i in range(len(sizes))
        ]
        found = [bytes(digest) for digest in self.store.put_many(payloads, maps)]
        self.digests += found
        return found

    def link(self, digests: list[bytes]) -> None:
        end = self.store.digest(b"not stored %d" % len(self.digests))
        self.store.link_many(digests, [*digests[1:], end])
        self.digests.append(end)
        for relation in RELATIONS:
            others = [self.random.choice(self.digests) for _ in digests]
            self.store.add_links(digests, others, relation)

    def columns(self, digests: list[bytes]) -> None:
        for name, (dtype, items) in COLUMNS.items():
            values = [[self.random.randrange(1000)] * items for _ in digests]
            self.store.write_column(name, digests, np.array(values, dtype))

    def commits(self, count: int, sizes: Callable[[random.Random], list[int]]) -> None:
        for turn in range(count):
            digests = self.put(sizes(self.random))
            self.link(digests[:4])
            self.columns(digests[:3])
            if turn % 5 == 4:
                self.store.delete_many(self.digests[-9:-5])
            self.store.commit()


def _mixed(folder: Path, compacting: bool = False) -> dict[str, list[bytes]]:
    def sizes(random: random.Random) -> list[int]:
        return [random.choice([0, 1, 30, 200, 900, 5000]) for _ in range(4)] + [20_000]

    writers = [
        _Writer(folder, namespace, key, algorithm)
        for (namespace, key), algorithm in zip(NAMESPACES, ("sha256", "xxh3_128"), strict=True)
    ]
    for part in range(4):
        for writer in writers:
            writer.commits(2, sizes)
            if compacting and part == 2:
                writer.store.delete_many(writer.digests[::3])
                writer.store.compact()
    for writer in writers:
        writer.store.close()
    return {writer.store._namespace: writer.digests for writer in writers}


@contextmanager
def checkpoints(fewest: int = 4) -> Iterator[None]:
    """Stores write checkpoints of so few rows."""
    before, checkpoint.FEWEST = checkpoint.FEWEST, fewest
    try:
        yield
    finally:
        checkpoint.FEWEST = before


def _checkpointed(folder: Path) -> dict[str, list[bytes]]:
    with checkpoints():
        return _mixed(folder, compacting=True)


def _large(folder: Path) -> dict[str, list[bytes]]:
    writer = _Writer(folder, "", None, "xxh3_128")
    writer.link(writer.put([(4 << 20) + 12_345, 300_000, 4096, 4080, 10]))
    writer.store.commit()
    writer.commits(3, lambda random: [100_000, 64, 1000])
    writer.store.close()
    return {"": writer.digests}


def _many(folder: Path) -> dict[str, list[bytes]]:
    writer = _Writer(folder, "", None, "xxh3_64")
    writer.commits(70, lambda random: [random.randrange(60)])
    writer.store.close()
    return {"": writer.digests}


def _tiny(folder: Path) -> dict[str, list[bytes]]:
    writer = _Writer(folder, "", None, "sha256")
    writer.put([100])
    writer.store.close()
    return {"": writer.digests}


SPECIMENS: dict[str, Callable[[Path], dict[str, list[bytes]]]] = {
    "mixed": _mixed,  # many commits of a few records, two namespaces, deletions
    "compacted": lambda folder: _mixed(folder, compacting=True),
    "checkpointed": _checkpointed,  # the same with its first rows in checkpoints
    "many": _many,  # 70 commits of one record: packs that were merged, a list of free pages
    "large": _large,  # a record above 4 MiB
    "tiny": _tiny,  # one record
}
