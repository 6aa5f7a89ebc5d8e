"""A folder of text into a memory: files as sources, Python's imports as links between them.

A file is one source, whose record (`Memory.source_digest`) links to others: each file it imports
by the relation "imports", and the first of them as its successor, so that `hop` and `trace`
follow imports from file to file.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from hashmem.memory import Memory
from hashmem.text import TextFiles
from hashmem.text.imports import imported_files

__all__ = ["EXCLUDED", "Ingested", "ingest"]

EXCLUDED = ("__pycache__", "site-packages", "node_modules")  # folders not entered
COMMIT_EVERY = 1 << 25  # characters: 32 MiB or so wait in memory at most


@dataclass
class Ingested:
    """What came of a folder."""

    files: int = 0
    characters: int = 0
    chunks: int = 0  # places of chunks in files
    records: int = 0  # records that are new in the store, sources included
    links: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason → files or folders left out

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain types."""
        return asdict(self)


def ingest(
    memory: Memory,
    folder: str | os.PathLike[str],
    *,
    largest: int = 16 << 20,
    progress: Callable[[int], object] = lambda characters: None,
) -> Ingested:
    """Add every text file under `folder` to `memory`, and commit. O(characters).

    Files are named by their path within the folder; a file that was ingested before is replaced
    where it has changed. `largest`: files of more bytes are left out. `progress` is called with
    the number of characters just added. Commits every 32 M characters or so: a run that is cut
    off leaves whole files. Raises `OSError` where the folder itself cannot be read.
    """
    done = Ingested()
    store = memory.store
    before = len(store)
    files = TextFiles(folder, largest=largest, exclude=EXCLUDED)
    python: dict[str, str] = {}

    def batches() -> Iterator[list[tuple[str, str]]]:
        batch: list[tuple[str, str]] = []
        size = 0
        for name, text in files:
            batch.append((name, text))
            size += len(text)
            if size >= COMMIT_EVERY // 8:
                yield batch
                batch, size = [], 0
        yield batch

    waiting = 0
    for batch in batches():
        memory.add_many(batch)
        for name, text in batch:
            done.files += 1
            done.characters += len(text)
            if name.endswith(".py"):
                python[name] = _import_lines(text)
        size = sum(len(text) for _, text in batch)
        progress(size)
        waiting += size
        if waiting >= COMMIT_EVERY:
            store.commit()
            waiting = 0
    done.skipped = dict(files.skipped)
    done.links = _link(memory, python)
    store.commit()
    done.chunks = sum(len(memory.chunks(name)) for name in memory.sources())
    done.records = len(store) - before
    return done


def _import_lines(text: str) -> str:
    """The lines of `text` that an import statement may start on: all that links need of it."""
    return "\n".join(line for line in text.split("\n") if line.startswith(("import ", "from ")))


def _link(memory: Memory, python: dict[str, str]) -> int:
    pairs = [
        (name, [target for target in imported_files(text, name, python) if target != name])
        for name, text in python.items()
    ]
    sources = [name for name, targets in pairs for _ in targets]
    targets = [target for _, found in pairs for target in found]
    first = [(name, found[0]) for name, found in pairs if found]
    store, digest = memory.store, memory.source_digest
    nodes = list(map(digest, python))
    store.clear_links(nodes)  # what the files imported when they were ingested before
    store.unlink(nodes)
    if sources:
        store.add_links(list(map(digest, sources)), list(map(digest, targets)), "imports")
        store.link_many([digest(name) for name, _ in first], [digest(to) for _, to in first])
    return len(sources)
