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
    replaced: int = 0  # of these, sources that the store held under the same name
    characters: int = 0
    chunks: int = 0  # places of chunks in these files
    records: int = 0  # in the store now, sources included
    links: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason → files or folders left out

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain types."""
        return asdict(self)


def ingest(
    memory: Memory,
    folder: str | os.PathLike[str],
    *,
    name: str = "",
    largest: int = 16 << 20,
    progress: Callable[[int], object] = lambda characters: None,
) -> Ingested:
    """Add every text file under `folder` to `memory`, and commit. O(characters).

    A file's source is `name`, if any, and its path within the folder, joined by "/". A source of
    the same name is replaced: give each folder its own `name` where one store holds several. Files
    that are gone from the folder stay (`Memory.remove`). `largest`: files of more bytes are left
    out. `progress` is called with
    the number of characters just added. Commits every 32 M characters or so: a run that is cut
    off leaves whole files. Raises `OSError` where the folder itself cannot be read.
    """
    done = Ingested()
    store = memory.store
    files = TextFiles(folder, largest=largest, exclude=EXCLUDED)
    prefix = f"{name}/" if name else ""
    known = set(memory.sources())
    python: dict[str, str] = {}
    waiting = 0
    for batch in _batches(files):
        memory.add_many((prefix + path, text) for path, text in batch)
        for path, text in batch:
            done.files += 1
            done.replaced += prefix + path in known
            done.characters += len(text)
            done.chunks += len(memory.chunks(prefix + path))
            if path.endswith(".py"):
                python[path] = _import_lines(text)
        size = sum(len(text) for _, text in batch)
        progress(size)
        waiting += size
        if waiting >= COMMIT_EVERY:
            store.commit()
            waiting = 0
    done.skipped = dict(files.skipped)
    done.links = _link(memory, prefix, python)
    store.commit()
    done.records = len(store)
    return done


def _batches(files: TextFiles) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    size = 0
    for path, text in files:
        batch.append((path, text))
        size += len(text)
        if size >= COMMIT_EVERY // 8:
            yield batch
            batch, size = [], 0
    yield batch


def _import_lines(text: str) -> str:
    """The lines of `text` that an import statement may start on: all that links need of it."""
    return "\n".join(line for line in text.split("\n") if line.startswith(("import ", "from ")))


def _link(memory: Memory, prefix: str, python: dict[str, str]) -> int:
    store = memory.store
    node = {path: memory.source_digest(prefix + path) for path in python}
    links = {path: imported_files(text, path, python) for path, text in python.items()}
    store.clear_links(list(node.values()))  # what the files imported when they came before
    store.unlink(list(node.values()))
    pairs = [(node[path], node[to]) for path, found in links.items() for to in found]
    first = [(node[path], node[found[0]]) for path, found in links.items() if found]
    if pairs:
        store.add_links([a for a, _ in pairs], [b for _, b in pairs], "imports")
        store.link_many([a for a, _ in first], [b for _, b in first])
    return len(pairs)
