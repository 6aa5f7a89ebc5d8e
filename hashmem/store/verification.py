"""Reading everything back: does each record still have its digest, each pack its checksum?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hashmem.digests import Digests
from hashmem.errors import CorruptStoreError
from hashmem.store.backend import Reader
from hashmem.store.columns import Column
from hashmem.store.layout import DIGESTS, PAYLOADS
from hashmem.store.packs import cut
from hashmem.store.placed import PlacedColumn
from hashmem.store.state import State

__all__ = ["Verification", "verify"]

DigestMany = Callable[[list[bytes | memoryview]], Digests]


@dataclass
class Verification:
    """What `MemoryStore.verify` found."""

    checked: int = 0  # records whose content was digested again
    corrupt: list[bytes] = field(default_factory=list)  # digests of records with damage
    damage: list[str] = field(default_factory=list)  # one line for each thing that is wrong

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage

    def to_dict(self) -> dict[str, object]:
        """Return the findings as plain types, digests in hexadecimal."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "corrupt": [digest.hex() for digest in self.corrupt],
            "damage": self.damage,
        }


def verify(
    state: State, reader: Reader, digest_many: DigestMany, progress: Callable[[int], object]
) -> Verification:
    """Check every pack and every committed record of `state` as `reader` shows them.

    `progress` is called with the number of records just checked. O(bytes stored).
    """
    found = Verification()
    rows_with_damage: set[int] = set()
    for column in state.columns:
        for number, what in column.damaged.items():
            found.damage.append(f"column {column.number}, pack {number}: {what}")
            rows_with_damage.update(_rows_of_damaged(column, reader, number))
        for number in column.packs(reader):
            if number in column.damaged:
                continue
            problem, rows = _check_pack(column, reader, number)
            if problem:
                found.damage.append(f"column {column.number}, pack {number}: {problem}")
                rows_with_damage.update(rows.tolist())
    if state.table.base is not None:
        for what, rows in state.table.base.damage():
            found.damage.append(f"checkpoint {state.info.checkpoint}: {what}")
            rows_with_damage.update(rows.tolist())
    for row, what in _check_records(state, reader, digest_many, progress, found):
        found.damage.append(
            f"record {bytes(state.table.digests(np.array([row]))[0]).hex()}: {what}"
        )
        rows_with_damage.add(row)
    known = sorted(row for row in rows_with_damage if 0 <= row < state.rows)
    found.corrupt = [_digest(state, row) for row in known]
    return found


def _digest(state: State, row: int) -> bytes:
    return state.table.digests(np.array([row])).tobytes()


def _check_pack(column: Column, reader: Reader, number: int) -> tuple[str, NDArray[np.int64]]:
    """Return what is wrong with a pack, "" if nothing, and the rows that may suffer from it.

    The body of a payload pack is left to the digests of its records, which tell which is damaged.
    """
    nothing = np.empty(0, np.int64)
    try:
        pack = column.index(reader, number)
        body = column.body(reader, number)
        if len(body) != pack.body_bytes:
            return f"its body has {len(body)} bytes, not {pack.body_bytes}", pack.rows
        if column.number != PAYLOADS and not pack.is_sound(body):
            return "its body does not match its checksum", pack.rows
    except CorruptStoreError as error:
        return str(error), _rows_in(column, number)
    return "", nothing


def _rows_of_damaged(column: Column, reader: Reader, number: int) -> list[int]:
    """The rows a damaged pack speaks of, where its index still tells.

    Where digests are damaged, the content of each record tells which.
    """
    try:
        return [] if column.number == DIGESTS else column.index(reader, number).rows.tolist()
    except CorruptStoreError:
        return []


def _rows_in(column: Column, number: int) -> NDArray[np.int64]:
    if isinstance(column, PlacedColumn):
        return column.rows_in(number)
    return np.empty(0, np.int64)


def _check_records(
    state: State,
    reader: Reader,
    digest_many: DigestMany,
    progress: Callable[[int], object],
    found: Verification,
) -> Iterator[tuple[int, str]]:
    packs, offsets, lengths = state.payloads.places(np.arange(state.committed))
    stored = np.flatnonzero(packs >= 0)
    stored = stored[np.lexsort((offsets[stored], packs[stored]))]  # in the order of the file
    for start, stop in cut(lengths[stored]):  # large records are copied: few at a time
        rows = stored[start:stop]
        whole: list[int] = []
        items: list[bytes | memoryview] = []
        bodies: dict[int, memoryview] = {}
        for row in rows.tolist():
            try:
                items.append(
                    state.payloads.view(
                        reader, int(packs[row]), int(offsets[row]), int(lengths[row]), bodies
                    )
                )
                whole.append(row)
            except CorruptStoreError as error:
                yield row, str(error)
        if whole:
            good = (digest_many(items) == state.table.digests(np.array(whole))).all(axis=1)
            for row in np.array(whole)[~good].tolist():
                yield row, "its content does not have its digest"
        found.checked += len(rows)
        progress(len(rows))
