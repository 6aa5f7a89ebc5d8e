"""What a store should hold, in plain dictionaries: what is committed, and what each handle sees.

A handle sees the commit it last caught up with, and on top of it what it changed since. A commit on
top of somebody else's repeats those changes on the newest commit; what both stored is stored once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Change", "Seen", "View"]

Change = Callable[["View"], object]


@dataclass
class View:
    """What a namespace holds. Records are named by the place of their content in a list."""

    records: set[int] = field(default_factory=set)
    metadata: dict[int, dict[str, Any]] = field(default_factory=dict)
    successors: dict[int, int] = field(default_factory=dict)
    edges: set[tuple[int, str, int]] = field(default_factory=set)
    columns: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    def copy(self) -> "View":
        return View(
            set(self.records),
            dict(self.metadata),
            dict(self.successors),
            set(self.edges),
            {name: dict(rows) for name, rows in self.columns.items()},
        )

    @property
    def known(self) -> list[int]:
        """What is stored or an end of a successor's link."""
        return sorted(self.records | set(self.successors) | set(self.successors.values()))

    def after(self, start: int, n: int) -> int:
        """Where n successors from `start` lead, -1 where the chain ends before."""
        for _ in range(n):
            start = self.successors.get(start, -1)
        return start

    def targets(self, start: int, relation: str) -> list[int]:
        """Where edges of `relation` lead from `start`, itself left out."""
        found = {target for source, of, target in self.edges if (source, of) == (start, relation)}
        return sorted(found - {start})

    def forget_unrecorded(self) -> None:
        """What compacting does to columns: rows without a record are gone."""
        for rows in self.columns.values():
            for i in set(rows) - self.records:
                del rows[i]


class Seen:
    """One handle: the commit it knows, what it sees, and what it has pending."""

    def __init__(self, committed: View) -> None:
        self.base, self.view = committed, committed.copy()
        self.changes: list[Change] = []
        self.records: dict[int, bool] = {}  # what is to be stored (True) or removed
        self.metadata: dict[int, dict[str, Any] | None] = {}  # what is to be set, or removed
        self.repeated: set[int] = set()  # put though stored: stored again if others remove it
        self.held: list[int] | None = None  # what results that are kept show, by place

    def change(self, change: Change) -> None:
        self.changes.append(change)
        change(self.view)

    def store(self, i: int, stored: bool) -> None:
        self.records[i] = stored
        _set(self.view, i, stored)

    def annotate(self, i: int, metadata: dict[str, Any] | None) -> None:
        self.metadata[i] = metadata
        _annotate(self.view, i, metadata)

    def put(self, i: int) -> None:
        if i not in self.view.records:
            self.store(i, True)
        elif i not in self.records:
            self.repeated.add(i)

    @property
    def is_pending(self) -> bool:
        return bool(self.changes or self.records or self.metadata)

    def catch_up(self, committed: View) -> None:
        """See `committed`, with what is pending on top.

        A record to be stored that somebody else stored is no longer pending, but put though stored.
        What was is pending once somebody removed it; metadata of what is removed is not.
        """
        self.base, self.view = committed, committed.copy()
        for i in committed.records:
            if self.records.get(i):
                del self.records[i]
                self.repeated.add(i)
        for i in self.repeated - committed.records - self.records.keys():
            self.records[i] = True
        for i, stored in self.records.items():
            _set(self.view, i, stored)
        for i, metadata in list(self.metadata.items()):
            if metadata is not None and i not in self.view.records:
                del self.metadata[i]
            else:
                _annotate(self.view, i, metadata)
        for change in self.changes:
            change(self.view)

    def commit(self, committed: View) -> View:
        """Commit on top of `committed`; the new one."""
        if not self.is_pending and not self.repeated:
            return committed
        self.catch_up(committed)
        if not self.is_pending:
            self.forget()
            return committed
        self.forget()
        self.base = self.view.copy()
        return self.base

    def rollback(self) -> None:
        self.forget()
        self.catch_up(self.base)

    def forget(self) -> None:
        self.changes.clear()
        self.records.clear()
        self.metadata.clear()
        self.repeated.clear()


def _set(view: View, i: int, stored: bool) -> None:
    (view.records.add if stored else view.records.discard)(i)


def _annotate(view: View, i: int, metadata: dict[str, Any] | None) -> None:
    if metadata is None:
        view.metadata.pop(i, None)
    else:
        view.metadata[i] = metadata
