"""One flipped bit in a stored file.

Small stores are built with everything in them: records from nothing to above 4 MiB, metadata,
columns, successors, edges, a keyed namespace, deletions, merged packs (`store_specimens.py`). Each
case flips one bit, opens the store in a forked child, half of them read-only, and reads all there
is by plain reads, by verified reads and by `verify()`. Bits are drawn evenly over all bytes, or
evenly over the kinds of field that make up a file (`lmdb_fields.py`): meta pages, tree pages, the
list of free pages, pack headers, `CURRENT`. One case in four writes and commits afterwards, one in
eight compacts as well, and what could be read before must be readable after reopening.

- refused: opening raised one of hashmem's own errors
- found: `verify()` told of it, or raised one of hashmem's own errors
- harmless: everything read equals the original, and `verify()` agrees
- FAILURE: missed (content differs or cannot be read, and `verify()` says ok), served (a verified
  read gave wrong bytes), lost (a commit made whole records unreadable), exception (one that is not
  hashmem's own), crash or hang of the interpreter

`python -m bench.reliability.bits` goes on behind the last case that is kept in `bench/results/`;
`--replay CASE` makes one case again and tells what it is.
"""

import os
import random
import sys
from bisect import bisect_right
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgpack

from bench.reliability import lmdb_fields
from bench.reliability import store_campaigns as campaigns
from bench.reliability.lmdb_fields import Field
from bench.reliability.store_specimens import (
    SPECIMENS,
    Original,
    Reading,
    checkpoints,
    files_in,
    opened,
    originals,
    read,
)
from hashmem import MemoryStore
from hashmem.errors import CorruptStoreError, HashMemError

NAME = "store_bits"
CASES = 100_000
BLOCK = 100  # cases a child, where nothing goes wrong
HARMLESS = ("harmless", "found", "refused")
# A store a case, the costly one less often.
TURNS = ("mixed", "compacted", "many", "tiny", "many", "checkpointed", "checkpointed", "large")
COMMITS = 3
SIDE = 4096  # bytes at the start of a file that is not LMDB's which count as its header


class Specimen:
    """A store, what it held, and which byte of its files is what."""

    def __init__(self, folder: Path, build: Callable[[Path], dict[str, list[bytes]]]) -> None:
        self.folder = folder
        self.originals = originals(folder, build(folder))
        self.files = files_in(folder)
        self.fields = {name: all_fields(name, data) for name, data in self.files.items()}
        self.starts = {name: [field[0] for field in fields] for name, fields in self.fields.items()}
        self.by_label: dict[str, list[tuple[str, Field]]] = {}
        for name, fields in self.fields.items():
            for field in fields:
                self.by_label.setdefault(field[2], []).append((name, field))
        self.labels = sorted(
            label for label in self.by_label if label != "free" and not label.startswith("body")
        )
        self.restore()

    def copy(self, folder: Path) -> "Specimen":
        """The same, lying elsewhere."""
        other = copy(self)
        other.folder = folder / self.folder.name
        other.restore()
        return other

    def label(self, name: str, at: int) -> str:
        return self.fields[name][bisect_right(self.starts[name], at) - 1][2]

    def restore(self) -> None:
        campaigns.copied(self.files, self.folder)
        self.untouched()

    def untouched(self) -> None:
        for name in self.files:
            os.utime(self.folder / name, (0, 0))

    def is_touched(self) -> bool:
        """Whether anything was written since `untouched`."""
        return files_names(self.folder) != set(self.files) or any(
            (self.folder / name).stat().st_mtime_ns for name in self.files
        )


def files_names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if name != "LOCK" and not name.endswith("-lock")}


def all_fields(name: str, data: bytes) -> list[Field]:
    """What each byte of a file is, without gaps."""
    if name.endswith(".mdb"):
        found = lmdb_fields.fields_of(data)
        return sorted([*found, *lmdb_fields.gaps(found, len(data))])
    if name.endswith(".rows"):
        return _rows_fields(data)
    kind = Path(name).suffix or Path(name).name
    if len(data) <= SIDE:
        return [(0, len(data), kind)] if data else []
    return [(0, SIDE, f"{kind}: first 4096 bytes"), (SIDE, len(data), f"body: {kind}")]


def _rows_fields(data: bytes) -> list[Field]:
    """The fields of a checkpoint: magic, version, bytes of the head, its checksum, the head, then
    the sections, each from a whole page on."""
    size = int.from_bytes(data[12:16], "little")
    head = msgpack.unpackb(data[32 : 32 + size])
    found = [(0, 8, "checkpoint: magic"), (8, 12, "checkpoint: version")]
    found += [(12, 16, "checkpoint: size of head"), (16, 32, "checkpoint: checksum")]
    found.append((32, 32 + size, "checkpoint: head"))
    sections = [("digests", head["width"]), *(("places", 8) for _ in head["columns"])]
    at = 32 + size
    for name, nbytes in [*((n, b * head["rows"]) for n, b in sections), ("index", 0)]:
        start = -(-at // 4096) * 4096
        at = start + (nbytes or 64 * head["buckets"])
        found.append((start, at, f"checkpoint: {name}"))
    return sorted([*found, *lmdb_fields.gaps(found, len(data))])


@dataclass(frozen=True)
class Flip:
    """One case."""

    number: int
    store: str
    stratum: str
    file: str
    at: int  # byte
    bit: int
    label: str

    @property
    def readonly(self) -> bool:
        return self.number % 2 == 1

    @property
    def writes(self) -> bool:
        return self.number % 4 == 2

    @property
    def compacts(self) -> bool:
        return self.number % 8 == 6


def drawn(specimens: dict[str, Specimen], seed: int, case: int) -> Flip:
    chance = random.Random(f"{seed} {case}")
    store = chance.choice(TURNS)
    specimen = specimens[store]
    if case % 2:
        stratum = "fields"
        name, (start, stop, _) = chance.choice(specimen.by_label[chance.choice(specimen.labels)])
        at = chance.randrange(start, stop)
    else:
        stratum = "bytes"
        names = list(specimen.files)
        sizes = [len(data) for data in specimen.files.values()]
        (name,) = chance.choices(names, sizes)
        at = chance.randrange(len(specimen.files[name]))
    # The number tells what else is done; its last bit has told the stratum.
    return Flip(case // 2, store, stratum, name, at, chance.randrange(8), specimen.label(name, at))


def run(specimens: dict[str, Specimen], flips: list[Flip]) -> list[tuple[str, str]]:
    """The outcome of each flip, with a note, from as few children as crashes allow.

    A failure counts as the flip does alone, in a child of its own.
    """
    found: list[tuple[str, str]] = []
    while len(found) < len(flips):
        rest = flips[len(found) :]
        ended = campaigns.in_fork(partial(_each, specimens, rest))
        found += [(outcome, note) for outcome, note in ended.told]
        if ended.what and len(found) < len(flips):
            specimens[flips[len(found)].store].restore()
            found.append((ended.what, ""))
    return [
        pair if pair[0] in HARMLESS or len(flips) == 1 else run(specimens, [flip])[0]
        for flip, pair in zip(flips, found, strict=True)
    ]


def _each(specimens: dict[str, Specimen], flips: list[Flip], tell: Callable[[Any], None]) -> None:
    """Flip, judge, and put the store back, until something stays open."""
    files = len(os.listdir("/dev/fd"))
    for flip in flips:
        specimen = specimens[flip.store]
        path, value = specimen.folder / flip.file, specimen.files[flip.file][flip.at]
        _set(path, flip.at, value ^ 1 << flip.bit)
        with checkpoints() if flip.store == "checkpointed" else nullcontext():
            outcome = judged(specimen, flip)
        if specimen.is_touched():
            specimen.restore()
        else:
            _set(path, flip.at, value)
        tell(outcome)
        if len(os.listdir("/dev/fd")) > files:
            return


def _set(path: Path, at: int, value: int) -> None:
    file = os.open(path, os.O_WRONLY)
    os.pwrite(file, bytes([value]), at)
    os.close(file)
    os.utime(path, (0, 0))


# ------------------------------------------------------------------------------------ judging


def judged(specimen: Specimen, flip: Flip) -> tuple[str, str]:
    try:
        return judge(specimen, flip)
    except Exception as error:  # that is what is looked for
        return "exception", f"{type(error).__name__}: {error}"


def judge(specimen: Specimen, flip: Flip) -> tuple[str, str]:
    """The worst that happens to any namespace, with a note."""
    outcomes: list[tuple[str, str]] = []
    whole: list[tuple[Original, list[bytes]]] = []  # what can be read
    for original in specimen.originals:
        try:
            store = opened(specimen.folder, original, readonly=flip.readonly)
        except HashMemError as error:
            outcomes.append(("refused", f"{type(error).__name__}: {error}"))
            continue
        except Exception as error:  # that is what is looked for
            outcomes.append(("exception", f"on opening: {type(error).__name__}: {error}"))
            continue
        try:
            outcome, contents = judge_one(store, original)
            outcomes.append(outcome)
            if flip.writes and outcome[0] in HARMLESS:
                found = readable(store, original.stored) if contents is None else contents
                whole.append((original, [d for d in found if d in original.stored]))
        finally:
            _close(store)
    if whole and all(outcome in HARMLESS for outcome, _ in outcomes):
        turn = flip.number // 8 % len(whole)
        whole = [*whole[turn:], *whole[:turn]]
        outcomes.append(written(specimen.folder, whole, compacting=flip.compacts))
    failures = [outcome for outcome in outcomes if outcome[0] not in HARMLESS]
    return failures[0] if failures else max(outcomes, key=lambda one: HARMLESS.index(one[0]))


def judge_one(store: MemoryStore, original: Original) -> tuple[tuple[str, str], list[bytes] | None]:
    """What becomes of one namespace, and what a verified read of all gives, if it gives that."""
    reading = read(store, original.digests)
    if reading.broken:
        return ("exception", "; ".join(reading.broken)), None
    try:
        contents = _verified_read(store, original.digests)
    except HashMemError:
        contents = None
    except Exception as error:  # that is what is looked for
        return ("exception", f"a verified read: {type(error).__name__}: {error}"), None
    found = None
    if contents is not None:
        found = []
        for digest, content in zip(original.digests, contents, strict=True):
            if content is None:
                continue
            found.append(digest)
            # What was stored is equal; only what is not has to be digested.
            if content != original.stored.get(digest) and store.digest(content) != digest:
                return ("served", f"a verified read gave {len(content)} other bytes"), None
    try:
        verification = store.verify()
        damage = verification.damage
    except HashMemError as error:
        damage = [f"{type(error).__name__}: {error}"]
    except Exception as error:  # that is what is looked for
        return ("exception", f"verify(): {type(error).__name__}: {error}"), None
    differing = differences(reading, original)
    if damage:
        return ("found", damage[0]), found
    if differing:
        return ("missed", f"{'; '.join(differing)}"), found
    return ("harmless", ""), found


def _verified_read(store: MemoryStore, digests: list[bytes]) -> list[bytes | None]:
    with store.get_many(digests, verify=True) as records:
        return list(records)


def differences(reading: Reading, original: Original) -> list[str]:
    """Which parts of what was read are not as they were."""
    found = []
    for name, part in original.parts.items():
        if reading.parts.get(name) != part:
            told = next((one for one in reading.refused if one.startswith(name)), name)
            found.append(told[:200])
    return found


def readable(store: MemoryStore, stored: dict[bytes, bytes]) -> list[bytes]:
    """The digests of the records that a verified read serves, whole."""
    digests = list(stored)
    try:
        contents = _verified_read(store, digests)
        pairs = zip(digests, contents, strict=True)
        return [digest for digest, content in pairs if content is not None]
    except HashMemError:
        return [digest for digest in digests if _is_readable(store, digest, stored[digest])]


def _is_readable(store: MemoryStore, digest: bytes, content: bytes) -> bool:
    try:
        return _verified_read(store, [digest]) == [content]
    except HashMemError:
        return False


def written(
    folder: Path, whole: list[tuple[Original, list[bytes]]], *, compacting: bool
) -> tuple[str, str]:
    """Commit to the first of some namespaces in the damaged store, reopen it, and see that all that
    was `whole` still is. Errors may be told."""
    first, payload = whole[0][0], b"written after the flip " * 20
    committed, steps = False, "opening"
    try:
        store = opened(folder, first)
        try:
            for turn in range(COMMITS):  # enough to take free pages
                steps = "put"
                digest = store.put(payload + bytes(20_000 * turn), {"after": True})
                store.link(digest, first.digests[0])
                steps = "commit"
                store.commit()
                committed = True
            if compacting:
                steps = "compact"
                store.compact()
        finally:
            _close(store)
    except HashMemError:
        pass
    except Exception as error:  # that is what is looked for
        return "exception", f"{steps}: {type(error).__name__}: {error}"
    for original, digests in whole:
        try:
            with opened(folder, original, readonly=True) as store:
                stored = {digest: original.stored[digest] for digest in digests}
                if committed and original is first:
                    stored[store.digest(payload)] = payload
                lost = set(stored) - set(readable(store, stored))
        except HashMemError as error:
            return "lost", f"after {steps} it cannot be opened: {error}"
        except Exception as error:  # that is what is looked for
            return "exception", f"after {steps}: {type(error).__name__}: {error}"
        if lost:
            return "lost", f"after {steps} {len(lost)} of {len(stored)} records cannot be read"
    return "harmless", ""


def _close(store: MemoryStore) -> None:
    try:
        store.close()
    except CorruptStoreError:
        store.rollback()
        store.close()


# ------------------------------------------------------------------------------------ campaign


def specimens_in(folder: Path, names: tuple[str, ...] = tuple(SPECIMENS)) -> dict[str, Specimen]:
    return {name: Specimen(folder / name, SPECIMENS[name]) for name in names}


def count(found: dict[str, Any], flip: Flip, case: int, outcome: str, note: str) -> None:
    campaigns.add(found.setdefault("strata", {}), flip.stratum, outcome)
    campaigns.add(found.setdefault("stores", {}), flip.store, outcome)
    campaigns.add(found.setdefault("fields", {}), flip.label, outcome)
    if outcome not in HARMLESS:
        where = f"{flip.store}/{flip.file} byte {flip.at} bit {flip.bit}"
        campaigns.fail(found, f"{outcome}: {flip.label}", case=case, where=where, note=note)


def block(found: dict[str, Any], specimens: dict[str, Specimen], seed: int, size: int) -> None:
    """Run the next so many cases and count them."""
    first = found["cases"]
    flips = [drawn(specimens, seed, case) for case in range(first, first + size)]
    counted(found, flips, run(specimens, flips))


def counted(found: dict[str, Any], flips: list[Flip], outcomes: list[tuple[str, str]]) -> None:
    first = found["cases"]
    for case, (flip, outcome) in enumerate(zip(flips, outcomes, strict=True), first):
        count(found, flip, case, *outcome)
    found["cases"] += len(flips)


def section(found: dict[str, Any]) -> str:
    """The part of docs/reliability.md."""
    failed = found.get("failed", 0)
    order = (*HARMLESS, "missed", "served", "lost", "exception")
    rate = found["seconds"] / max(found["cases"], 1) * 1000
    return "\n\n".join(
        [
            "## Flipped bits",
            campaigns.method(found),
            f"**{campaigns.number(found['cases'])} flips, {campaigns.number(failed)} failures**, "
            f"{rate:.1f} ms a flip.",
            campaigns.table(found["strata"], "drawn evenly over", order),
            campaigns.table(found["stores"], "store", order),
            campaigns.table(dict(sorted(found["fields"].items())), "field", order),
            campaigns.failures(found),
        ]
    )


def main() -> int:
    parser = campaigns.options_for(__doc__ or "", CASES, "flips")
    parser.add_argument("--replay", type=int, metavar="CASE")
    options = parser.parse_args()
    with campaigns.scratch() as folder:
        specimens = specimens_in(folder)
        if options.replay is not None:
            flip = drawn(specimens, options.seed, options.replay)
            print(flip, *run(specimens, [flip])[0], sep="\n")
            return 0
        copies = [{name: one.copy(folder / f"{slot}") for name, one in specimens.items()}
                  for slot in range(options.jobs)]  # fmt: skip
        found = campaigns.kept(NAME, options)

        def flips(first: int) -> list[Flip]:
            last = min(first + BLOCK, options.cases)
            return [drawn(specimens, options.seed, case) for case in range(first, last)]

        with campaigns.Running(found, __doc__, options) as running:
            firsts = range(found["cases"], options.cases, BLOCK)
            outcomes = campaigns.side_by_side(
                lambda first, slot: run(copies[slot], flips(first)),
                takewhile(lambda _: running.is_in_time, firsts),
                options.jobs,
            )
            for one in outcomes:
                counted(found, flips(found["cases"]), one)
                running.goes_on()
    return campaigns.show(found, section(found))


if __name__ == "__main__":
    sys.exit(main())
