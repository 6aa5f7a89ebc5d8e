"""The command `hashmem`. Exit codes: 0 done; 1 the answer is no; 2 wrong input, unusable store."""

import argparse
import contextlib
import io
import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hashmem._version import __version__
from hashmem.errors import HashMemError

__all__ = ["main"]

DONE, NO, WRONG = 0, 1, 2
HASHHOP = "Make, answer and mark HashHop samples, by lookup and by models."
EXPERIMENTS = ("probes", "occupancy", "birthday", "throughput", "attack")  # names, without NumPy


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. What is wrong with it is told in one line."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (HashMemError, ImportError, OSError, ValueError) as error:
        print(f"hashmem {options.command}: {error}", file=sys.stderr)
        return WRONG


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message}\n")


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hashmem",
        description="An external memory for language models, in one folder.",
        epilog="Exit codes: 0 done; 1 the answer is no (nothing found, damage found); "
        "2 wrong input or a store that cannot be used.",
    )
    parser.add_argument("--version", action="version", version=f"hashmem {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print JSON")
        return added

    def on_store(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = command(name, run, text)
        added.add_argument("--store", required=True, metavar="FOLDER", help="the store")
        return added

    demo = command("demo", _demo, "Show the main job on real text, with figures.")
    demo.add_argument("--corpus", metavar="FOLDER", help="default: Python's standard library")
    demo.add_argument("--store", metavar="FOLDER", help="keep the store here; default: temporary")

    ingest = on_store("ingest", _ingest, "Add the text files of a folder; links Python's imports.")
    ingest.add_argument("folder")
    ingest.add_argument(
        "--name", default="",
        help="put this before the names of the files; a file replaces what has its name already",
    )  # fmt: skip
    ingest.add_argument(
        "--largest", type=int, default=16 << 20, metavar="BYTES",
        help="leave out files of more bytes (default: 16 MiB)",
    )  # fmt: skip

    search = on_store("search", _search, "Find the chunks that answer a query.")
    search.add_argument("query")
    search.add_argument("-k", type=int, default=5, help="how many at most (default: 5)")

    remove = on_store("remove", _remove, "Forget a file, and the chunks only it holds.")
    remove.add_argument("source", help="the name of a file")

    get = on_store("get", _get, "Print a record, or the text of an ingested file.")
    get.add_argument("what", help="a digest in hexadecimal, or the name of a file")

    hop = on_store("hop", _hop, "Follow successors; of ingested Python files, imports.")
    hop.add_argument("start", help="a digest in hexadecimal, or the name of a file")
    hop.add_argument("--hops", type=int, default=1, help="how many (default: 1)")
    hop.add_argument("--trace", action="store_true", help="print every step on the way")

    hashhop = commands.add_parser("hashhop", help=HASHHOP, description=HASHHOP)
    if arguments[:1] == ["hashhop"]:  # the others should not wait for its imports
        from hashmem.hashhop.commands import add_commands

        add_commands(hashhop)

    bench = command("bench", _bench, "Measure hash tables beside theory; writes CSV and plots.")
    bench.add_argument("what", nargs="?", choices=["collisions"], default="collisions")
    bench.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    bench.add_argument(
        "--size", choices=["quick", "standard", "full"], default="standard",
        help="seconds, a minute, or the minutes and 0.5 GiB of the published figures",
    )  # fmt: skip
    bench.add_argument(
        "--only", action="append", choices=EXPERIMENTS,
        help="this experiment alone, and others named the same way; what collisions.json in the "
        "folder has of the rest stays",
    )  # fmt: skip

    on_store("verify", _verify, "Read everything back and check it.")
    on_store("repair", _repair, "Rewrite a damaged store from all that is whole in it.")
    on_store("stats", _stats, "Print counts and sizes.")
    on_store("compact", _compact, "Rewrite the store without what was deleted or replaced.")

    copy = on_store("copy", _copy, "Copy the store to another folder, while others write to it.")
    copy.add_argument("target", help="the folder of the copy, which must not be there")

    export = on_store("export", _export, "Write all records as one archive.")
    export.add_argument("file", help="where the archive goes, replaced when whole; - for a pipe")

    take_in = on_store("import", _import, "Add the records of an archive, or what is missing.")
    take_in.add_argument("file", help="an archive that export wrote; - for a pipe")
    return parser


# -- the commands -------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from hashmem import demo

    return demo.run(corpus=options.corpus, store=options.store, as_json=options.json)


def _ingest(options: argparse.Namespace) -> int:
    from hashmem.ingest import ingest

    if options.largest < 1:
        raise ValueError(f"--largest must be 1 byte or more, not {options.largest}")
    if not os.path.isdir(options.folder):
        raise ValueError(f"there is no folder {options.folder}")
    os.scandir(options.folder).close()  # raises before a store is made for nothing
    with _open(options.store) as memory, _bar("ingest", "c") as bar:
        done = ingest(
            memory, options.folder,
            name=options.name, largest=options.largest, progress=bar.update,
        )  # fmt: skip
    _print(options, done.to_dict(), _sentence(done.to_dict()))
    return DONE if done.files else NO


def _search(options: argparse.Namespace) -> int:
    with _open(options.store, readonly=True) as memory:
        hits = memory.search(options.query, k=options.k)
    found = [
        {
            "digest": hit.digest.hex(),
            "score": round(hit.score, 3),
            "places": [list(place) for place in hit.places],
            "text": hit.text,
        }
        for hit in hits
    ]
    lines = []
    for hit in hits:
        place = hit.places[0]
        more = f" and {len(hit.places) - 1} more places" if len(hit.places) > 1 else ""
        lines.append(
            f"{place.source}:{place.first_line}  {hit.score:.2f}  {hit.digest.hex()}{more}"
        )
        shown = hit.text.rstrip("\n").split("\n")
        lines += [f"    {line[:100]}" for line in shown[:4]]
    _print(options, found, "\n".join(lines) or "nothing found")
    return DONE if hits else NO


def _remove(options: argparse.Namespace) -> int:
    _must_be_a_store(options.store)
    with _open(options.store) as memory:
        gone = memory.remove(options.source)
    _print(options, {"removed": gone}, "removed" if gone else f"no file is called {options.source}")
    return DONE if gone else NO


def _get(options: argparse.Namespace) -> int:
    with _open(options.store, readonly=True) as memory:
        digest = _as_digest(options.what, memory.store.width)
        found = None if digest is None else memory.store.get(digest)
        metadata = None if digest is None else memory.store.metadata(digest)
        if found is None and options.what in memory.sources():
            digest = memory.source_digest(options.what)
            found = b"".join(
                chunk or b"" for chunk in memory.store.get_many(memory.chunks(options.what))
            )
            metadata = {"source": options.what}
    if found is None or digest is None:
        print(f"hashmem get: nothing is stored under {options.what}", file=sys.stderr)
        return NO
    if options.json:
        text = found.decode("utf-8", "backslashreplace")
        answer = {"digest": digest.hex(), "bytes": len(found), "metadata": metadata, "text": text}
        print(json.dumps(answer, default=_plain))
    elif sys.stdout is not None:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
    return DONE


def _hop(options: argparse.Namespace) -> int:
    if options.hops < 0:
        raise ValueError(f"--hops must be 0 or more, not {options.hops}")
    with _open(options.store, readonly=True) as memory:
        store = memory.store
        names = {memory.source_digest(name): name for name in memory.sources()}
        start = _as_digest(options.start, store.width) or memory.source_digest(options.start)
        if not len(store.trace(start, 0)):
            print(f"hashmem hop: nothing is known of {options.start}", file=sys.stderr)
            return NO
        if options.trace:
            ends = store.trace(start, options.hops)
            found = len(ends) > 1
        else:
            ends, mask = store.hop(start, options.hops)
            ends, found = ends[mask], bool(mask.any())
        steps = [bytes(end) for end in ends]
    answer = [{"digest": step.hex(), "source": names.get(step)} for step in steps]
    lines = [names.get(step) or step.hex() for step in steps]
    _print(options, answer, "\n".join(lines) if found else "the chain ends before that")
    return DONE if found else NO


def _verify(options: argparse.Namespace) -> int:
    with _open(options.store, readonly=True) as memory, _bar("verify", "records") as bar:
        found = memory.store.verify(bar.update)
    lines = [f"records checked: {found.checked}, damage found: {len(found.damage)}", *found.damage]
    _print(options, found.to_dict(), "\n".join(lines))
    return DONE if found.ok else NO


def _repair(options: argparse.Namespace) -> int:
    from hashmem.store import repair

    with _bar("repair", "records") as bar:
        done = repair(options.store, progress=bar.update)
    lost = len(done.lost) + done.unknown
    lines = [f"records kept: {done.kept}, lost: {lost}, damage found: {len(done.damage)}"]
    lines += done.damage
    if done.quarantined:
        lines.append(f"what was damaged is in {os.path.join(options.store, 'quarantine')}")
    _print(options, done.to_dict(), "\n".join(lines))
    return DONE if not lost else NO


def _stats(options: argparse.Namespace) -> int:
    with _open(options.store, readonly=True) as memory:
        figures = memory.store.statistics()
    width = max(map(len, figures))
    lines = [f"{name.ljust(width)}  {_shown(value)}" for name, value in figures.items()]
    _print(options, figures, "\n".join(lines))
    return DONE


def _bench(options: argparse.Namespace) -> int:
    from hashmem.laboratory import collisions
    from hashmem.laboratory.experiment import Sizes

    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written is known before the work
    path = folder / "collisions.json"
    kept = _results(path) if options.only else {}
    if not collisions.has_plots():
        print("hashmem bench: no plots without matplotlib: hashmem[plots] has it", file=sys.stderr)
    sizes = {"quick": Sizes.quick(), "standard": Sizes(), "full": Sizes.full()}[options.size]
    answer = {}
    for found in collisions.run(sizes, options.only and list(dict.fromkeys(options.only))):
        files = [str(path) for path in collisions.write(found, folder)]
        answer[found.name] = {"size": options.size, **found.as_dict(), "files": files}
        if not options.json:
            reading = textwrap.fill(found.reading, 100)
            print(f"{found.title}\n{reading}\n→ {', '.join(files)}\n", flush=True)
    every = kept | answer
    ordered = [every[name] for name in EXPERIMENTS if name in every]
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(options, list(answer.values()), f"All figures: {path}")
    return DONE


def _results(path: Path) -> dict[str, Any]:
    """What an earlier run left in `path`, by the names of experiments."""
    try:
        return {one["name"]: one for one in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results to add to: {error!r}") from error


def _compact(options: argparse.Namespace) -> int:
    _must_be_a_store(options.store)
    with _open(options.store) as memory:
        before = memory.store.statistics()["storage_bytes"]
        memory.store.compact()
        after = memory.store.statistics()["storage_bytes"]
    answer = {"bytes_before": before, "bytes_after": after}
    _print(options, answer, f"{before} bytes before, {after} after")
    return DONE


def _copy(options: argparse.Namespace) -> int:
    _must_be_a_store(options.store)
    with _open(options.store, readonly=True) as memory, _bar("copy", "records") as bar:
        memory.store.copy_to(options.target, bar.update)
    answer = {"target": os.path.abspath(options.target), "bytes": _bytes_in(options.target)}
    _print(options, answer, f"copied to {options.target}, {answer['bytes']} bytes")
    return DONE


def _export(options: argparse.Namespace) -> int:
    _must_be_a_store(options.store)
    with _open(options.store, readonly=True) as memory, _bar("export", "records") as bar:
        if options.file == "-":
            memory.store.export_to(_pipe(sys.stdout), bar.update)
            return DONE  # nothing else belongs into the pipe
        records = memory.store.export_to(options.file, bar.update)
    answer = {"file": options.file, "records": records, "bytes": os.path.getsize(options.file)}
    _print(options, answer, f"records: {records}, bytes: {answer['bytes']}")
    return DONE


def _import(options: argparse.Namespace) -> int:
    from hashmem.store import ArchiveReader, MemoryStore

    pipe = options.file == "-"
    with contextlib.nullcontext(_pipe(sys.stdin)) if pipe else open(options.file, "rb") as file:
        archive = ArchiveReader(file)  # refuses what is no archive before a store is made
        if archive.key_check:
            raise ValueError("the archive's digests have a key: import it in Python, with that key")
        new_store = not os.path.exists(os.path.join(options.store, "CURRENT"))
        algorithm = archive.algorithm if new_store else None
        with MemoryStore(options.store, algorithm=algorithm) as store:
            with _bar("import", "records") as bar:
                new = store.import_from(archive, bar.update)
            if not pipe:
                archive.must_end()
            answer = {"new": new, "records": len(store)}
    _print(options, answer, f"new records: {new}, records now: {answer['records']}")
    return DONE


# -- shared by the commands --------------------------------------------------------------------


class _Opened:
    """A memory whose store is closed at the end, committing what was written."""

    def __init__(self, path: str, readonly: bool) -> None:
        from hashmem.memory import Memory
        from hashmem.store import MemoryStore

        self.memory = Memory(MemoryStore(path, readonly=readonly))

    def __enter__(self) -> Any:
        self.memory.store.__enter__()
        return self.memory

    def __exit__(self, *exception: Any) -> None:
        self.memory.store.__exit__(*exception)


def _open(path: str, *, readonly: bool = False) -> _Opened:
    return _Opened(path, readonly)


def _pipe(stream: Any) -> Any:
    if stream is None:
        raise ValueError("there is no pipe: standard input or output is closed")
    return stream.buffer


def _bar(what: str, unit: str) -> Any:
    """A bar of progress, where somebody looks on."""
    from tqdm import tqdm

    watched = sys.stderr is not None and sys.stderr.isatty()
    return tqdm(unit=unit, unit_scale=True, desc=what, leave=False, disable=not watched)


def _bytes_in(folder: str) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries)


def _must_be_a_store(path: str) -> None:
    """Opening a path for writing would make a store there."""
    if not os.path.exists(os.path.join(path, "CURRENT")):
        raise ValueError(f"there is no store at {path}")


def _as_digest(text: str, width: int) -> bytes | None:
    """The digest that `text` is in hexadecimal, None where it is something else."""
    if len(text) != 2 * width:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _print(options: argparse.Namespace, answer: Any, text: str) -> None:
    print(json.dumps(answer, default=_plain) if options.json else text)


def _plain(value: Any) -> Any:
    """What JSON cannot hold: bytes become hexadecimal, the rest its text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _sentence(done: dict[str, Any]) -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in done["skipped"].items())
    return (
        f"files: {done['files']}, replaced: {done['replaced']}, characters: {done['characters']}, "
        f"chunks: {done['chunks']}, links: {done['links']}, records now: {done['records']}"
        + (f"; left out: {skipped}" if skipped else "")
    )


if __name__ == "__main__":
    sys.exit(main())
