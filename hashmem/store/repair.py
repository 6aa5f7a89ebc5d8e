"""Making a whole store of one that is damaged: from the packs alone, and losing nothing more.

Everything that can be read is copied to a new generation, which gets its indexes and checkpoints
anew, and only then takes the place of the old one. What was damaged goes to a folder `quarantine`
in the store's as it was, for whoever can make more of it; delete it when it is not needed.

    quarantine/000001-1-2-17.index     of generation 1, namespace 1, column 2, pack 17
    quarantine/000001-1-2-17.body
    quarantine/000001-1-20.rows        a checkpoint
    quarantine/000001.mdb              the whole LMDB file, where its pages were damaged
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import WIDTHS, Digests, digest, digest_many, hasher
from hashmem.errors import CorruptStoreError, StoreFormatError
from hashmem.hops import Links
from hashmem.store.checkpoint import ABSENT, Checkpoint
from hashmem.store.columns import Column, Written
from hashmem.store.compaction import Copy
from hashmem.store.handle import KEY_CHECK
from hashmem.store.layout import (
    DIGESTS,
    EDGES,
    FIRST_NAMED,
    METADATA,
    PAYLOADS,
    SUCCESSORS,
    Catalogue,
    Info,
    body_key,
    index_key,
    namespace_record,
    pack_keys,
    pack_of,
    unsealed,
)  # fmt: skip
from hashmem.store.lmdb import (
    FORMAT,
    QUARANTINE,
    _explained,
    _generation_of,
    _is_generation,
    _name,
    _remove,
    _sync,
    filling,
    locked,
)  # fmt: skip
from hashmem.store.packs import PACK_LIMIT, Pack
from hashmem.store.placed import PlacedColumn
from hashmem.store.salvage import Salvage
from hashmem.store.state import State

__all__ = ["Repair", "repair"]

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Progress = Callable[[int], object]


@dataclass
class Repair:
    """What `repair` kept, what was lost, and what it found damaged."""

    kept: int = 0  # records, of all namespaces
    lost: list[bytes] = field(default_factory=list)  # digests of records whose content is damaged
    unknown: int = 0  # records or mere ends of links whose digest is lost and cannot be had anew
    recomputed: int = 0  # digests that were lost, and were had from the contents
    metadata: list[bytes] = field(default_factory=list)  # digests of records that lost theirs
    column_rows: int = 0  # rows of named columns that are lost
    links: int = 0  # successors and edges that are lost
    packs: list[tuple[int, int, int]] = field(default_factory=list)  # namespace, column, number
    checkpoints: list[str] = field(default_factory=list)  # damaged or gone, made anew
    quarantined: list[str] = field(default_factory=list)  # files in `quarantine`
    damage: list[str] = field(default_factory=list)  # one line for each thing that was wrong

    @property
    def ok(self) -> bool:
        """Whether nothing was damaged."""
        return not self.damage

    def to_dict(self) -> dict[str, object]:
        """Return the findings as plain types, digests in hexadecimal."""
        return {
            "ok": self.ok,
            **vars(self),
            "lost": [one.hex() for one in self.lost],
            "metadata": [one.hex() for one in self.metadata],
            "packs": [list(pack) for pack in self.packs],
        }


def repair(
    path: str | os.PathLike[str],
    *,
    keys: Mapping[str, bytes] | None = None,
    progress: Progress | None = None,
) -> Repair:
    """Rewrite the store at `path` from all that can still be read of it, whatever is damaged.

    Kept are records whose content has its digest, and metadata, rows of columns and links that
    match their checksums. Digests that are lost are had from the contents. Indexes and checkpoints
    are made anew. Records that are damaged are gone from the store then, and links to them lead to
    their digests as to any that is not stored. Where pages of the LMDB file or the index of a pack
    are damaged, what had been deleted or replaced in what is lost may be back.

    `keys` has the keys of namespaces, by name; contents of a keyed one that is not there are kept
    where their pack matches its checksum, and digests that are lost there cannot be had anew.
    `progress` is called with the number of records just checked. Handles elsewhere go on with what
    is new, as after `compact`; writers wait. Killed at any moment, the store is as before, or
    repaired. A second copy of the store is on the disk for a time. O(bytes); memory for a
    table of all digests.

    Raises `StoreFormatError` where there is no store or a newer version's, `CorruptStoreError`
    where nothing can be read at all, `ValueError` where a key is not the namespace's, and
    `StoreError` where the folder cannot be read or written.
    """
    for key in (keys or {}).values():
        hasher(key=key)  # raises on what is no key
    folder = Path(os.path.abspath(os.fsdecode(path)))
    with _explained(f"cannot repair {folder}"):
        generations = _generations(folder)
        if not generations:
            raise StoreFormatError(f"{folder} holds no store to repair")
        with locked(folder):
            return _Repairing(folder, keys or {}, progress or (lambda _: None)).run()


def _generations(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise StoreFormatError(f"{folder} is no folder: a store is one")
    return sorted(name for name in os.listdir(folder) if _is_generation(name))


class _Repairing:
    """One repair of one folder, whose lock is held."""

    def __init__(self, folder: Path, keys: Mapping[str, bytes], progress: Progress) -> None:
        self.folder, self.keys, self.progress = folder, keys, progress
        self.report = Repair()

    def run(self) -> Repair:
        name, others = self._source()
        generation = _generation_of(name)
        assert generation is not None
        everything = [_generation_of(file) for file in os.listdir(self.folder)]
        new = _name(max(n for n in everything if n is not None) + 1)
        with Salvage(self.folder / name, generation) as salvage:
            assert isinstance(salvage, Salvage)
            if salvage.damage:
                self.report.damage.append(f"{name}: {salvage.damage}")
                self.keep_file(name)
            catalogue = self._catalogue(salvage)
            spaces = [
                _Namespace(self, salvage, namespace, called)
                for called, namespace in catalogue.namespaces.items()
            ]
            for space in spaces:
                space.examine()
            with filling(self.folder, new) as transaction:
                catalogue.write(transaction)
                for space in spaces:
                    Copy(space.state, salvage, transaction, str(self.folder)).run()
        for other in others:
            self.keep_file(other)
        for file in os.listdir(self.folder):
            if _generation_of(file) not in (None, _generation_of(new)):
                _remove(self.folder, file)
        _sync(self.folder)
        return self.report

    def _source(self) -> tuple[str, list[str]]:
        """The generation to repair; and where CURRENT does not tell, others that may be it."""
        names = sorted(_generations(self.folder), key=lambda name: _generation_of(name) or 0)
        try:
            lines = (self.folder / "CURRENT").read_bytes().decode("ascii", "replace").split("\n")
        except FileNotFoundError:
            lines = ["nothing: it is gone"]
        if len(lines) > 1 and lines[1] in names:
            if lines[0] != f"hashmem {FORMAT}" and lines[0] != "hashmem 1":
                self.report.damage.append(f"CURRENT reads {lines[0]!r:.80}")
            return lines[1], []
        self.report.damage.append(f"CURRENT reads {lines[-1 if len(lines) < 2 else 1]!r:.80}")
        for name in reversed(names):  # a rewrite that was interrupted is not complete
            if self._is_complete(name):
                return name, [other for other in names if other != name]
        return names[0], names[1:]

    def _is_complete(self, name: str) -> bool:
        try:
            with Salvage(self.folder / name, 0) as salvage:
                found = Catalogue.read(salvage).namespaces
                return bool(found) and all(Info.read(salvage, n) for n in found.values())
        except (CorruptStoreError, StoreFormatError):
            return False

    # -- the header -------------------------------------------------------------------------------

    def _catalogue(self, salvage: Salvage) -> Catalogue:
        found = [_catalogue_of(value) for value in salvage.copies(b"h")]
        known = [one for one in found if one is not None]
        if known and (not salvage.damage or len(known) == 1):
            best = known[0]
        elif known:  # numbers are never used twice, and namespaces only go otherwise
            best = min(known, key=lambda one: (-one.next_namespace, len(one.namespaces)))
        else:
            best = self._catalogue_from_packs(salvage)
        if best.format > FORMAT:
            raise StoreFormatError(
                f"{self.folder} has format version {best.format}, this release of hashmem reads up "
                f"to {FORMAT}: upgrade hashmem"
            )
        if len(known) < len(found):
            self.report.damage.append("the store's header cannot be read")
        return best

    def _catalogue_from_packs(self, salvage: Salvage) -> Catalogue:
        numbers = {int.from_bytes(key[1:5], "big") for key in salvage.keys(b"") if len(key) > 4}
        names = {"" if n == 1 else f"namespace {n}": n for n in sorted(numbers)}
        if numbers:
            self.report.damage.append("the store's header is lost, and the names of its namespaces")
        return Catalogue(names, max(numbers, default=0) + 1)

    # -- quarantine -------------------------------------------------------------------------------

    def keep_file(self, name: str) -> None:
        """Have `quarantine` keep a file of the folder."""
        target = self._place(name)
        target.unlink(missing_ok=True)
        try:
            os.link(self.folder / name, target)
        except OSError:  # a file system without links
            shutil.copyfile(self.folder / name, target)

    def keep_bytes(self, name: str, content: memoryview | None) -> None:
        if content is None:
            return
        with open(self._place(name), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _place(self, name: str) -> Path:
        quarantine = self.folder / QUARANTINE
        quarantine.mkdir(exist_ok=True)
        if name not in self.report.quarantined:
            self.report.quarantined.append(name)
        return quarantine / name


def _catalogue_of(value: memoryview) -> Catalogue | None:
    """The header in some bytes, None where they are none."""
    stored = _map(value)
    try:
        found = Catalogue(**stored) if stored is not None and "namespaces" in stored else None
    except TypeError:
        return None
    if found is None or type(found.format) is not int or not isinstance(found.namespaces, dict):
        return None
    numbers = list(found.namespaces.values())
    plausible = (
        all(isinstance(name, str) for name in found.namespaces)
        and all(type(n) is int and 0 < n < 1 << 32 for n in numbers)
        and len(set(numbers)) == len(numbers)
        and type(found.next_namespace) is int
        and max(numbers, default=0) < found.next_namespace <= 1 << 32
    )
    return found if plausible else None


def _info_of(value: memoryview) -> Info | None:
    """A namespace's record in some bytes, None where they are none."""
    stored = _map(value)
    try:
        info = None if stored is None else Info(**stored)
        return info if info is not None and not info.problem() else None
    except TypeError:
        return None


def _map(value: memoryview) -> dict[str, Any] | None:
    try:
        stored = unsealed(value, "a record")
    except CorruptStoreError:
        return None
    return stored if isinstance(stored, dict) and all(isinstance(k, str) for k in stored) else None


class _Read(Column):
    """A column whose items have been read already."""

    items: tuple[Rows, NDArray[np.uint8]]

    def read_all(self, reader: Any) -> tuple[Rows, NDArray[np.uint8]]:
        return self.items


class _Namespace:
    """What can be read of one namespace; `state` is it, once `examine` is through."""

    def __init__(self, repairing: _Repairing, salvage: Salvage, number: int, name: str) -> None:
        self.salvage, self.number, self.name = salvage, number, name
        self.repairing, self.report = repairing, repairing.report
        self.key = repairing.keys.get(name)
        self.packs: dict[int, dict[int, Pack]] = {}  # column → number → its index
        self.sound: set[tuple[int, int]] = set()  # column, number: the body too
        self._read_packs()
        self.info = self._info()
        self.width = WIDTHS[self.info.algorithm]
        self.is_keyed = bool(self.info.key_check) or self.key is not None
        self.matched = 0  # contents that have their digests under the key
        self.state = State(number, self.info)
        self.payloads, self.metadata = self.state.payloads, self.state.metadata
        self.digests: Digests = np.empty((0, self.width), np.uint8)
        self.known: Flags = np.empty(0, np.bool_)  # whether a row has its digest

    def examine(self) -> None:
        """Read everything but the bodies that are copied later, and find what is whole."""
        self._read_digests()
        self._read_payloads()
        self._read_metadata()
        self._read_links()
        for name, (number, dtype, items) in self.info.columns.items():
            self._read_column(name, number, np.dtype(dtype).itemsize * items)
        self._number()

    def _note(self, what: str) -> None:
        self.report.damage.append(f"namespace {self.name!r}: {what}")

    # -- packs and the namespace's record ---------------------------------------------------------

    def _read_packs(self) -> None:
        generation = self.salvage.version[0]
        there = {pack_of(key)[1:] for key in pack_keys(self.salvage, self.number)}
        for column, number in sorted(there):
            pack = self.salvage.index(self.number, column, number)
            sound = pack is not None and (
                self.salvage.body(self.number, column, number, pack) is not None
            )
            if pack is not None:
                self.packs.setdefault(column, {})[number] = pack
            if sound and self.salvage.healed:
                what = "it is damaged, and an older copy of it is whole"
                self._note(f"column {column}, pack {number}: {what}")
            self.salvage.healed.clear()
            if sound:
                self.sound.add((column, number))
                continue
            what = "its index is damaged" if pack is None else "its body is damaged"
            self._note(f"column {column}, pack {number}: {what}")
            self.report.packs.append((self.number, column, number))
            name = f"{generation:06}-{self.number}-{column}-{number}"
            index = self.salvage.get(index_key(self.number, column, number))
            body = self.salvage.get(body_key(self.number, column, number))
            self.repairing.keep_bytes(f"{name}.index", index)
            self.repairing.keep_bytes(f"{name}.body", body)

    def _info(self) -> Info:
        found = [_info_of(value) for value in self.salvage.copies(namespace_record(self.number))]
        known = [info for info in found if info is not None]
        if known and self.salvage.damage:
            return max(known, key=lambda info: info.next_pack)
        if known and found[0] is not None:
            return known[0]
        self._note("its record is damaged, so that names of columns and relations may be lost")
        if known:
            return max(known, key=lambda info: info.next_pack)
        return self._guessed()

    def _guessed(self) -> Info:
        """A record for a namespace that lost it, by what its packs tell."""
        widths = [p.body_bytes // len(p.rows) for p in self.packs.get(DIGESTS, {}).values()
                  if len(p.rows)]  # fmt: skip
        widths += [base.width for base in self._checkpoints("", [])]
        algorithms = {width: algorithm for algorithm, width in WIDTHS.items()}
        algorithm = algorithms.get(widths[0] if widths else 32, "sha256")
        check = b"" if self.key is None else digest(KEY_CHECK, algorithm, key=self.key)
        relations = 0
        for number in self.packs.get(EDGES, {}):
            if (EDGES, number) in self.sound:
                relations = max(relations, int(self._integers(EDGES, number)[::2].max()) + 1)
        columns: dict[str, list[Any]] = {}
        for column, packs in self.packs.items():
            sizes = {int(n) for pack in packs.values() for n in np.unique(pack.lengths)} - {-1}
            if column >= FIRST_NAMED and len(sizes) == 1 and min(sizes) > 0:
                columns[f"column {column}"] = [column, "|u1", sizes.pop()]
        names = [f"relation {i}" for i in range(min(relations, 1 << 16))]
        return Info(algorithm, check, 1, names, columns)

    def _integers(self, column: int, number: int) -> Rows:
        body = self.salvage.get(body_key(self.number, column, number))
        return np.frombuffer(body or b"", "<i8").astype(np.int64)

    # -- digests and contents ---------------------------------------------------------------------

    def _checkpoints(self, named: str, damaged: list[str]) -> list[Checkpoint]:
        """The checkpoints of this generation, the one in use first; what is wrong with that."""
        generation = self.salvage.version[0]
        folder = self.repairing.folder
        names = [path.name for path in folder.glob(f"{generation:06}-{self.number}-*.rows")]
        found = []
        for name in sorted({*names, named} - {""}, key=lambda name: name != named):
            try:
                base = Checkpoint(str(folder / name))
                found.append(base)
                if name == named:
                    damaged += list(base.damage())
            except (CorruptStoreError, StoreFormatError) as error:
                if name == named:
                    damaged.append(str(error))
        return found

    def _read_digests(self) -> None:
        wrong: list[str] = []
        checkpoints = [
            base for base in self._checkpoints(self.info.checkpoint, wrong)
            if base.width == self.width
        ]  # fmt: skip
        if wrong:
            name = self.info.checkpoint
            self.report.damage += [f"checkpoint {name}: {what}" for what in wrong]
            self.report.checkpoints.append(name)
            if (self.repairing.folder / name).exists():
                self.repairing.keep_file(name)
        rows = max((base.rows for base in checkpoints), default=0)
        for packs in self.packs.values():
            for pack in packs.values():
                rows = max(rows, int(pack.rows.max(initial=-1)) + 1)
        self.digests = np.zeros((rows, self.width), np.uint8)
        self.known = np.zeros(rows, np.bool_)
        for base in checkpoints:
            fresh = base.sound_digests() & ~self.known[: base.rows]
            self.digests[: base.rows][fresh] = base.digests[fresh]
            self.known[: base.rows] |= fresh
        for number, pack in self.packs.get(DIGESTS, {}).items():
            if self._is_array(DIGESTS, number, pack, self.width):
                body = self.salvage.get(body_key(self.number, DIGESTS, number))
                assert body is not None
                self.digests[pack.rows] = np.frombuffer(body, np.uint8).reshape(-1, self.width)
                self.known[pack.rows] = True

    def _is_array(self, column: int, number: int, pack: Pack, size: int) -> bool:
        return (column, number) in self.sound and bool((pack.lengths == size).all())

    def _placed(self, column: PlacedColumn) -> None:
        for number, pack in self.packs.get(column.number, {}).items():
            column.apply([Written(number, pack)])

    def _live(self, column: PlacedColumn, number: int, pack: Pack) -> Rows:
        """The rows, each once, whose items a pack holds, by what its index says."""
        rows = np.unique(pack.rows)
        return np.asarray(rows[column.places(rows)[0] == number])

    def _read_payloads(self) -> None:
        column = self.payloads
        self._placed(column)
        had = self.known.copy()
        lost: list[Rows] = []
        for number, pack in self.packs.get(PAYLOADS, {}).items():
            live = self._live(column, number, pack)
            if pack.parts > 1:
                bad = live[[not self._large_is_whole(int(row), number) for row in live]]
            else:
                bad = np.setdiff1d(live, self._whole_rows(number, pack))
            lost.append(bad)
            self.repairing.progress(len(live))
        if self.info.key_check and self.key is not None and not self.matched:
            check = digest(KEY_CHECK, self.info.algorithm, key=self.key)
            if check != self.info.key_check:
                raise ValueError(f"namespace {self.name!r} needs another key")
        if self.key is not None:
            self.info.key_check = digest(KEY_CHECK, self.info.algorithm, key=self.key)
        gone = np.concatenate([*lost, np.empty(0, np.int64)])
        column.drop(gone)
        for row in gone.tolist():
            if self.known[row]:
                self.report.lost.append(self.digests[row].tobytes())
                self._note(f"record {self.digests[row].tobytes().hex()}: its content is damaged")
        self.report.recomputed += int((self.known & ~had).sum())

    def _whole_rows(self, number: int, pack: Pack) -> Rows:
        """The rows whose contents in a pack are whole. Their digests are known from then on."""
        body = self.salvage.get(body_key(self.number, PAYLOADS, number))
        sound = (PAYLOADS, number) in self.sound
        if body is None or len(body) != pack.body_bytes:
            return np.empty(0, np.int64)
        held = np.flatnonzero(pack.lengths >= 0)
        rows = pack.rows[held]
        if self.is_keyed and self.key is None:
            return rows[self.known[rows]] if sound else rows[:0]
        ends = np.append(pack.offsets[held], len(body))
        again = digest_many(body, self.info.algorithm, offsets=ends, key=self.key)
        return self._matching(rows, again, sound)

    def _matching(self, rows: Rows, again: Digests, sound: bool) -> Rows:
        same = (again == self.digests[rows]).all(axis=1) & self.known[rows]
        self.matched += int(same.sum())
        if sound:
            fresh = ~self.known[rows]
            self.digests[rows[fresh]] = again[fresh]
            self.known[rows[fresh]] = True
            same |= fresh
        return np.asarray(rows[same])

    def _large_is_whole(self, row: int, number: int) -> bool:
        """Whether all parts of a content are there, and its digest is right or can be had."""
        column, size = self.payloads, self._large_size(self.payloads, row)
        try:
            content = column.view(self.salvage, number, 0, size, {})
        except CorruptStoreError:
            return False
        sound = self._parts_are_sound(PAYLOADS, number, size)
        if self.is_keyed and self.key is None:
            return sound and bool(self.known[row])
        again = digest_many([content], self.info.algorithm, key=self.key)
        return len(self._matching(np.array([row]), again, sound)) == 1

    def _large_size(self, column: PlacedColumn, row: int) -> int:
        rows = np.array([row])
        return int(column.lengths(rows, column.codes(rows))[0])

    def _parts_are_sound(self, column: int, number: int, size: int) -> bool:
        parts = -(-size // PACK_LIMIT)
        packs = self.packs.get(column, {})
        return all(
            (column, number + i) in self.sound
            and packs[number + i].part == i
            and packs[number + i].parts == parts
            for i in range(parts)
        )

    # -- what belongs to records ------------------------------------------------------------------

    def _read_metadata(self) -> None:
        column = self.metadata
        self._placed(column)
        gone = []
        for number, pack in self.packs.get(METADATA, {}).items():
            live = self._live(column, number, pack)
            if pack.parts > 1:
                sound = [
                    self._parts_are_sound(METADATA, number, self._large_size(column, row))
                    for row in live.tolist()
                ]
                gone.append(live[~np.array(sound, np.bool_)])
            elif (METADATA, number) not in self.sound:
                gone.append(live)
        lost = np.concatenate([*gone, np.empty(0, np.int64)])
        column.drop(lost)
        every = np.arange(len(self.known))
        bare = every[column.holds(every) & ~self.payloads.holds(every)]
        column.drop(bare)
        named = np.concatenate([lost, bare])
        self.report.metadata += [self.digests[row].tobytes() for row in named[self.known[named]]]

    def _latest(self, column: int, size: int) -> tuple[Rows, NDArray[np.uint8], Rows]:
        """Rows of a column and what they hold; and the rows whose newest item is damaged."""
        rows = [np.empty(0, np.int64)]
        values = [np.empty((0, size), np.uint8)]
        sound, held = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
        for number, pack in self.packs.get(column, {}).items():
            there = pack.lengths >= 0  # others were removed
            whole = (column, number) in self.sound and bool((pack.lengths[there] == size).all())
            array = np.zeros((len(pack.rows), size), np.uint8)
            if whole:
                body = self.salvage.get(body_key(self.number, column, number))
                array[there] = np.frombuffer(body or b"", np.uint8).reshape(-1, size)
            rows.append(pack.rows)
            values.append(array)
            sound.append(np.full(len(pack.rows), whole))
            held.append(there)
        every = np.concatenate(rows)
        unique, from_the_end = np.unique(every[::-1], return_index=True)
        last = len(every) - 1 - from_the_end
        good, there = np.concatenate(sound)[last], np.concatenate(held)[last]
        kept = good & there
        return unique[kept], np.concatenate(values)[last[kept]], unique[~good & there]

    def _read_column(self, name: str, number: int, size: int) -> None:
        rows, values, lost = self._latest(number, size)
        column = _Read(self.number, number, size)
        column.items = rows, values
        self.state.named[name] = column
        held = self.payloads.held(len(self.known))
        self.report.column_rows += int(held[lost].sum()) + int((~held[rows]).sum())

    def _read_links(self) -> None:
        """Take in the links between rows that have their digests; count the others."""
        links, known = self.state.links, self.known
        rows, values, lost = self._latest(SUCCESSORS, 8)
        targets = np.ascontiguousarray(values).view("<i8").reshape(-1).astype(np.int64)
        usable = known[rows] & (targets < len(known))
        usable[usable] &= (targets[usable] < 0) | known[targets[usable]]
        self.report.links += len(lost) + int((~usable & (targets >= 0)).sum())
        links.set_successors(rows[usable], np.maximum(targets[usable], -1))
        for number, pack in self.packs.get(EDGES, {}).items():
            if not self._is_array(EDGES, number, pack, 16):
                self.report.links += len(pack.rows)
                continue
            relations, targets = self._integers(EDGES, number).reshape(-1, 2).T
            clear = relations == Links.CLEAR
            usable = known[pack.rows] & (relations < len(self.info.relations))
            usable &= clear | ((relations >= 0) & (targets >= 0) & (targets < len(known)))
            usable[usable] &= clear[usable] | known[np.where(clear, 0, targets)[usable]]
            self.report.links += int((~usable & ~clear).sum())
            links.add_edges(pack.rows[usable], relations[usable], targets[usable])

    # -- the rows ---------------------------------------------------------------------------------

    def _number(self) -> None:
        """Give the state its digests, random ones for rows without: nothing refers to them."""
        held = self.payloads.held(len(self.known))
        unknown = ~self.known
        if unknown.any():
            self.payloads.drop(np.flatnonzero(unknown & held))
            self.metadata.drop(np.flatnonzero(unknown))
            self.report.unknown += int(unknown.sum())
            self._note(f"{int(unknown.sum())} digests are lost for good")
            random = np.frombuffer(os.urandom(int(unknown.sum()) * self.width), np.uint8)
            self.digests[unknown] = random.reshape(-1, self.width)
        _, new = self.state.table.intern(self.digests)
        if not new.all():
            raise CorruptStoreError(
                f"namespace {self.name!r} has {int((~new).sum())} digests twice, which no damage "
                "does: it cannot be repaired"
            )
        self.report.kept += int((self.payloads.codes(np.arange(len(held))) != ABSENT).sum())
