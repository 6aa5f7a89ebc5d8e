"""A store copied, exported to an archive and imported again, beside a plain copy of the same bytes.

Records are distinct and random, digests SHA-256, committed every 50 000. Every way ends with its
bytes synced to the disk.

- **copy**: `copy_to`, a snapshot under which others may write; beside it the copying that LMDB
  itself has for its file, with and without leaving out free pages.
- **export**: `export_to` a path, which digests every content again.
- **import**: `import_from` that archive into a new store, made and closed in the time taken, which
  digests every content, and into the store that has it all, which reads and digests alike and
  writes nothing.

The floors are a plain copy, in pieces of 4 MiB, of the store's file and of the archive. Files are
in the system's memory when they are read. Seconds and MB/s are of a disk as much as of a program:
within a round all write to the same one.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np

import hashmem
from bench import harness
from bench.harness import Result, Timed

CASES = ((1_000_000, 512), (100_000, 4096))  # records, bytes of each
QUICK_CASES = ((300, 512),)
ROUNDS, QUICK_ROUNDS = 5, 2
COMMIT = 50_000  # records
PIECE = 1 << 22

COPY, EXPORT, IMPORT, AGAIN = "copy (s)", "export (s)", "import (s)", "import again (s)"
OURS, PLAIN = "hashmem", "plain copy"
LMDB, LMDB_COMPACT = "lmdb env.copy", "lmdb env.copy, compact"


def _fill(path: Path, n: int, size: int) -> None:
    random = np.random.default_rng(harness.SEED)
    with hashmem.MemoryStore(path) as store:
        for start in range(0, n, COMMIT):
            count = min(COMMIT, n - start)
            data = random.bytes(count * size)
            store.put_many([data[i * size : (i + 1) * size] for i in range(count)])
            store.commit()


def _plain(source: Path, target: Path) -> None:
    with open(source, "rb") as read, open(target, "wb") as write:
        shutil.copyfileobj(read, write, PIECE)
        write.flush()
        os.fsync(write.fileno())


def _lmdb_copy(source: Path, target: Path, compact: bool) -> None:
    with lmdb.open(str(source), subdir=False, readonly=True, lock=False) as environment:
        environment.copy(str(target), compact=compact)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _race_case(result: Result, n: int, size: int, rounds: int, folder: Path) -> None:
    title = f"{n:,} records of {size} bytes".replace(",", " ")
    path, archive = folder / "store", folder / "archive"
    _fill(path, n, size)
    file, twin = path / "000001.mdb", folder / "twin.mdb"
    shutil.copy(file, twin)  # LMDB opens a file once in a process

    def fresh(call: Callable[[Path], object]) -> Callable[[int], Timed]:
        """A contestant that writes to a place where nothing is."""

        def prepare(_: int) -> Timed:
            target = folder / "target"
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            os.sync()
            return lambda: call(target)

        return prepare

    def imported(target: Path) -> None:
        with hashmem.MemoryStore(target) as other:
            assert other.import_from(archive) == n

    def again(_: Path) -> None:
        with hashmem.MemoryStore(path) as other:
            assert other.import_from(archive) == 0

    with hashmem.MemoryStore(path, readonly=True) as store:
        store.export_to(archive)
        copies = {
            (COPY, OURS, "ours"): store.copy_to,
            (COPY, LMDB, "rival"): lambda target: _lmdb_copy(twin, target, False),
            (COPY, LMDB_COMPACT, "rival"): lambda target: _lmdb_copy(twin, target, True),
            (COPY, PLAIN, "floor"): lambda target: _plain(file, target),
            (EXPORT, OURS, "ours"): store.export_to,
            (EXPORT, PLAIN, "floor"): lambda target: _plain(archive, target),
        }
        found = harness.race({key: fresh(call) for key, call in copies.items()}, rounds)
    imports = {
        (IMPORT, OURS, "ours"): imported,
        (IMPORT, PLAIN, "floor"): lambda target: _plain(archive, target),
        (AGAIN, OURS, "ours"): again,
        (AGAIN, PLAIN, "floor"): lambda target: _plain(archive, target),
    }
    found |= harness.race({key: fresh(call) for key, call in imports.items()}, rounds)
    for (column, name, kind), samples in found.items():
        result.add(title, column, name, kind, samples)
    for column in (COPY, EXPORT, IMPORT):
        what = column.split(" (")[0]
        ours, plain = (result.samples(title, column, name) for name in (OURS, PLAIN))
        result.ratio(f"{what} ÷ plain copy of the same file, {title}", ours, plain)
        speeds = [n * size / 1e6 / seconds for seconds in ours or []]
        result.headline(f"{what}: MB of content a second, {title}", speeds)
    overhead = archive.stat().st_size / n - size
    result.headline(f"archive: bytes a record beyond its content, {title}", [overhead])


def run(quick: bool = False, folder: Path | None = None) -> Result:
    """Race each case; files lie in a temporary folder inside `folder`."""
    result = Result("archive", __doc__)
    for n, size in QUICK_CASES if quick else CASES:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _race_case(result, n, size, QUICK_ROUNDS if quick else ROUNDS, Path(temporary))
    return result


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    harness.finish(run(options.quick), options)


if __name__ == "__main__":
    main()
