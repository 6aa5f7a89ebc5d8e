"""A store against a model of plain dictionaries: random actions through two handles at once.

The model keeps what is committed, and for each handle what it saw when it last caught up and what
it has pending. A commit on top of somebody else's replays what is pending on the newest commit.
Packs are made tiny and merged two at a time, so that cut items and merges are met all the time.
"""

import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bench.reliability.store_campaigns import fewer
from hashmem.errors import RecordNotFound
from hashmem.store import MemoryStore, checkpoint, columns, packs, placed
from hashmem.store.backend import Backend
from hashmem.store.lmdb import LmdbBackend
from hashmem.store.ram import RamBackend

POOL = [b"", b"a", b"b", *[bytes([i]) * (7 * i) for i in range(2, 12)], b"large " * 50]
RELATIONS = ["imports", "calls"]
NAMES = ["summary", "size"]

pool = st.integers(0, len(POOL) - 1)
some = st.lists(pool, max_size=6)
handle = st.integers(0, 1)
metadatas = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=3),
    max_size=2,
)


@dataclass
class View:
    """What a store holds, by place in `POOL`."""

    records: set[int] = field(default_factory=set)
    metadata: dict[int, dict] = field(default_factory=dict)
    successors: dict[int, int] = field(default_factory=dict)
    edges: set[tuple[int, str, int]] = field(default_factory=set)
    columns: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    def targets(self, relation: str | None) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for source, of, target in self.edges:
            if relation in (None, of):
                found.setdefault(source, set()).add(target)
        if relation is None:
            for source, target in self.successors.items():
                found.setdefault(source, set()).add(target)
        return found


Change = Callable[[View], None]


class Handle:
    """One handle: what it saw when it last caught up, and what it changed since."""

    def __init__(self, store: MemoryStore, committed: View) -> None:
        self.store = store
        self.base = deepcopy(committed)
        self.view = deepcopy(committed)
        self.changes: list[Change] = []
        self.records: dict[int, bool] = {}  # what is to be stored (True) or removed
        self.repeated: set[int] = set()  # what was put and was stored

    def change(self, change: Change) -> None:
        self.changes.append(change)
        change(self.view)

    def change_record(self, i: int, stored: bool) -> None:
        self.records[i] = stored
        set_record(self.view, i, stored)
        if not stored:
            self.change(lambda view: drop_values(view, i))

    def catch_up(self, committed: View) -> None:
        self.base, self.view = deepcopy(committed), deepcopy(committed)
        for i in committed.records:
            if self.records.get(i):
                del self.records[i]  # what somebody else stored meanwhile is stored,
                self.repeated.add(i)  # unless it is removed in turn
        for i in self.repeated - committed.records:
            self.records.setdefault(i, True)  # what somebody else removed meanwhile is put again
        for i, stored in self.records.items():
            set_record(self.view, i, stored)
        for change in self.changes:
            change(self.view)

    def forget(self) -> None:
        self.changes.clear()
        self.records.clear()
        self.repeated.clear()


def set_record(view: View, i: int, stored: bool) -> None:
    (view.records.add if stored else view.records.discard)(i)


def drop_values(view: View, i: int) -> None:
    for rows in view.columns.values():
        rows.pop(i, None)


class StoreMachine(RuleBasedStateMachine):
    """Two handles on one backend. Subclasses say which backend and which digests."""

    options: ClassVar[dict[str, object]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        for module in (columns, packs, placed):
            self.patches.setattr(module, "PACK_LIMIT", 128)
        self.patches.setattr(checkpoint, "FEWEST", 3)
        self.patches.setattr(columns, "MERGE_RUN", 2)
        self.patches.setattr(columns, "_MERGE_BELOW", [32, 64])
        self.start()
        self.committed = View()
        self.handles = [Handle(self.open(), self.committed) for _ in range(2)]
        self.digests = [self.handles[0].store.digest(payload) for payload in POOL]
        self.other = MemoryStore(backend=self.backend(), namespace="other", key=b"other")
        self.others: set[int] = set()

    def start(self) -> None:
        self.ram = RamBackend()
        self.left: list[MemoryStore] = []

    def backend(self) -> Backend:
        return self.ram

    def open(self) -> MemoryStore:
        return MemoryStore(backend=self.backend(), **self.options)

    def leave(self, store: MemoryStore) -> None:
        store.commit()
        self.left.append(store)  # closing or dropping it would close the one backend in RAM

    def teardown(self) -> None:
        try:
            for which in range(len(self.handles)):
                self.check(which)
        finally:
            self.finish()
            self.patches.undo()

    def finish(self) -> None:
        pass

    # -- changing -----------------------------------------------------------------------------

    def do_put(self, h: Handle, i: int, metadata: dict | None) -> None:
        if i not in h.view.records:
            h.change_record(i, True)
        elif i not in h.records:
            h.repeated.add(i)
        if metadata is not None:
            self.do_set_metadata(h, i, metadata)

    def do_set_metadata(self, h: Handle, i: int, metadata: dict | None) -> None:
        def change(view: View) -> None:
            if metadata is None or i not in view.records:
                view.metadata.pop(i, None)
            else:
                view.metadata[i] = metadata

        h.change(change)

    @rule(which=handle, i=pool, metadata=st.none() | metadatas)
    def put(self, which, i, metadata):
        h = self.handles[which]
        assert h.store.put(POOL[i], metadata) == self.digests[i]
        self.do_put(h, i, metadata)

    @rule(which=handle, chosen=some, metadata=metadatas, given=st.booleans())
    def put_many(self, which, chosen, metadata, given):
        h = self.handles[which]
        maps = [{**metadata, "n": n} if n % 2 else None for n in range(len(chosen))]
        found = h.store.put_many([POOL[i] for i in chosen], maps if given else None)
        assert list(map(bytes, found)) == [self.digests[i] for i in chosen]
        for n, i in enumerate(chosen):
            self.do_put(h, i, maps[n] if given else None)

    @rule(which=handle, chosen=some)
    def delete(self, which, chosen):
        h = self.handles[which]
        stored = [i in h.view.records and i not in chosen[:n] for n, i in enumerate(chosen)]
        assert h.store.delete_many([self.digests[i] for i in chosen]).tolist() == stored
        for i in {i for i, was in zip(chosen, stored, strict=True) if was}:
            h.change_record(i, False)

            def change(view: View, i: int = i) -> None:
                view.metadata.pop(i, None)
                view.successors.pop(i, None)
                view.edges = {edge for edge in view.edges if edge[0] != i}

            h.change(change)

    @rule(which=handle, i=pool, metadata=st.none() | metadatas)
    def set_metadata(self, which, i, metadata):
        h = self.handles[which]
        if i in h.view.records:
            h.store.set_metadata(self.digests[i], [metadata])
            self.do_set_metadata(h, i, metadata)
        else:
            with pytest.raises(RecordNotFound):
                h.store.set_metadata(self.digests[i], [metadata])

    @rule(which=handle, pairs=st.lists(st.tuples(pool, pool), max_size=6))
    def link(self, which, pairs):
        h = self.handles[which]
        sources, targets = ([self.digests[pair[end]] for pair in pairs] for end in (0, 1))
        h.store.link_many(sources, targets)
        for source, target in pairs:
            h.change(lambda view, s=source, t=target: view.successors.update({s: t}))

    @rule(which=handle, chosen=some)
    def unlink(self, which, chosen):
        h = self.handles[which]
        h.store.unlink([self.digests[i] for i in chosen])
        for i in set(chosen) & set(h.view.successors):
            h.change(lambda view, i=i: view.successors.pop(i, None) and None)

    @rule(which=handle, a=pool, b=pool, relation=st.sampled_from(RELATIONS))
    def add_link(self, which, a, b, relation):
        h = self.handles[which]
        h.store.add_link(self.digests[a], self.digests[b], relation)
        h.change(lambda view: view.edges.add((a, relation, b)))

    @rule(which=handle, chosen=some, name=st.sampled_from(NAMES), value=st.integers(-99, 99))
    def write_column(self, which, chosen, name, value):
        h = self.handles[which]
        chosen = [i for i in chosen if i in h.view.records]
        rows = [[value + n, n] for n in range(len(chosen))]
        values = np.array(rows, np.int16).reshape(-1, 2)
        h.store.write_column(name, [self.digests[i] for i in chosen], values)

        def change(view: View) -> None:
            view.columns.setdefault(name, {}).update(zip(chosen, rows, strict=True))

        if chosen:
            h.change(change)

    # -- transactions -------------------------------------------------------------------------

    @rule(which=handle)
    def commit(self, which):
        h = self.handles[which]
        h.store.commit()
        self.committed_by(h)

    def committed_by(self, h: Handle) -> None:
        if h.changes or h.records or h.repeated:
            h.catch_up(self.committed)
            h.forget()
            self.committed = deepcopy(h.view)
            h.base = deepcopy(h.view)

    @rule(which=handle)
    def rollback(self, which):
        h = self.handles[which]
        h.store.rollback()
        h.forget()
        h.catch_up(h.base)

    @rule(which=handle)
    def refresh(self, which):
        h = self.handles[which]
        h.store.refresh()
        h.catch_up(self.committed)

    @rule(which=handle)
    def compact(self, which):
        h = self.handles[which]
        h.store.compact()
        self.committed_by(h)
        for column in self.committed.columns.values():
            for i in set(column) - self.committed.records:
                del column[i]
        h.catch_up(self.committed)

    @rule(which=handle)
    def reopen(self, which):
        h = self.handles[which]
        self.leave(h.store)
        self.committed_by(h)
        self.handles[which] = Handle(self.open(), self.committed)

    @rule(chosen=some)
    def write_to_another_namespace(self, chosen):
        digests = self.other.put_many([POOL[i] for i in chosen])
        self.other.commit()
        self.others.update(chosen)
        assert list(self.other.get_many(digests)) == [POOL[i] for i in chosen]
        assert len(self.other) == len(self.others)

    # -- reading ------------------------------------------------------------------------------

    def places(self, digests):
        return [self.digests.index(bytes(digest)) for digest in digests]

    @rule(which=handle)
    def read_without_refresh(self, which):
        """Sees the last commit known or a newer one, and never one record under another's name."""
        h = self.handles[which]
        before = h.view.records
        with h.store.get_many(self.digests) as found:
            contents = list(found)
        h.store.refresh()
        h.catch_up(self.committed)
        for i, content in enumerate(contents):
            possible = {i in before, i in h.view.records}
            assert content in [POOL[i] if stored else None for stored in possible]

    @rule(which=handle, n=st.integers(1, 40), relation=st.none() | st.sampled_from(RELATIONS))
    def walk(self, which, n, relation):
        h = self.handles[which]
        h.store.refresh()
        h.catch_up(self.committed)
        view = h.view
        known = sorted(view.records | set(view.successors) | set(view.successors.values()))
        starts = [self.digests[i] for i in known]
        ends, found = h.store.hop(starts, n)
        for i, end, there in zip(known, ends, found, strict=True):
            chain = walk(view.successors, i)
            expected = chain(n)
            assert there == (expected is not None)
            assert bytes(end) == (self.digests[expected] if there else bytes(len(end)))
            trace = [bytes(digest) for digest in h.store.trace(self.digests[i], n)]
            assert trace == [self.digests[j] for j in first_visits(chain, n)]
            targets = view.targets(relation)
            for search, edges in (
                (h.store.neighbours, targets),
                (h.store.parents, turned(targets)),
            ):
                distances = spread(edges, i, n)
                reached = self.places(search(self.digests[i], n, relation))
                assert sorted(reached) == sorted(distances)
                assert sorted(reached, key=distances.__getitem__) == reached
                few = self.places(search(self.digests[i], n, relation, limit=2))
                assert [distances[j] for j in few] == sorted(distances.values())[:2]
                assert len(set(few)) == len(few)
            distances = {i: 0, **spread(targets, i, n)}
            for j in known:
                way = self.places(
                    h.store.shortest(self.digests[i], self.digests[j], relation, limit=n)
                )
                assert len(way) == distances.get(j, -1) + 1
                assert not way or (way[0], way[-1]) == (i, j)
                assert all(b in targets[a] for a, b in pairwise(way))

    @rule(which=handle)
    def check(self, which):
        h = self.handles[which]
        store = h.store
        store.refresh()
        h.catch_up(self.committed)
        view = h.view
        stored = [i in view.records for i in range(len(POOL))]
        assert len(store) == sum(stored)
        assert store.contains(self.digests).tolist() == stored
        assert {bytes(d) for d in store.digests()} == {self.digests[i] for i in view.records}
        expected = [POOL[i] if there else None for i, there in enumerate(stored)]
        with store.get_many(self.digests, verify=True) as found:
            assert list(found) == expected
            assert [found[i] for i in range(len(found))] == expected
            assert found.found.tolist() == stored
            sizes = [-1 if content is None else len(content) for content in expected]
            assert found.lengths.tolist() == sizes
        assert store.metadata_many(self.digests) == [view.metadata.get(i) for i in range(len(POOL))]
        assert set(store.columns) >= {name for name, rows in view.columns.items() if rows}
        for name in store.columns:
            digests, values = store.read_column(name)
            shown = {
                self.digests.index(bytes(d)): row.tolist()
                for d, row in zip(digests, values, strict=True)
            }
            rows = view.columns.get(name, {})
            assert shown == {i: row for i, row in rows.items() if i in view.records}
        statistics = store.statistics()
        assert statistics["records"] == len(view.records)
        assert statistics["payload_bytes"] == sum(len(POOL[i]) for i in view.records)
        assert statistics["successors"] == len(view.successors)
        assert statistics["edges"] == len(view.edges)
        verification = store.verify()
        assert verification.ok, verification.damage
        assert verification.checked == len(h.base.records)

    @invariant()
    def lengths_agree(self):
        for h in self.handles:
            assert len(h.store) == len(h.view.records)


def walk(successors: dict[int, int], start: int) -> Callable[[int], int | None]:
    """Return the function from n to where n steps from `start` lead, the naive way."""

    def after(n: int) -> int | None:
        at: int | None = start
        for _ in range(n):
            at = None if at is None else successors.get(at)
        return at

    return after


def first_visits(chain: Callable[[int], int | None], limit: int) -> list[int]:
    seen: list[int] = []
    for n in range(limit + 1):
        at = chain(n)
        if at is None or at in seen:
            break
        seen.append(at)
    return seen


def turned(targets: dict[int, set[int]]) -> dict[int, set[int]]:
    """The same edges, each the other way."""
    found: dict[int, set[int]] = {}
    for source, its in targets.items():
        for target in its:
            found.setdefault(target, set()).add(source)
    return found


def spread(targets: dict[int, set[int]], start: int, depth: int) -> dict[int, int]:
    """The distance of everything within `depth` edges from `start`, without it."""
    distances = {start: 0}
    for distance in range(1, depth + 1):
        for i in [i for i, d in distances.items() if d == distance - 1]:
            for target in targets.get(i, ()):
                distances.setdefault(target, distance)
    del distances[start]
    return distances


class LmdbMachine(StoreMachine):
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())

    def backend(self) -> Backend:
        return LmdbBackend(self.folder / "store")

    def leave(self, store: MemoryStore) -> None:
        store.close()

    def finish(self) -> None:
        for h in self.handles:
            h.store.close()
        self.other.close()
        shutil.rmtree(self.folder)


def machine_case(base: type[StoreMachine], examples: int, **options: object) -> type:
    machine = type("Machine", (base,), {"options": options})
    case = machine.TestCase
    case.settings = settings(
        max_examples=fewer(examples), stateful_step_count=30, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    return case


TestRam = machine_case(StoreMachine, 40)
TestRamShortKeyed = machine_case(StoreMachine, 10, algorithm="xxh3_64", key=b"secret")
TestLmdb = machine_case(LmdbMachine, 20)
TestLmdbXxh3 = machine_case(LmdbMachine, 5, algorithm="xxh3_128", key=b"secret")
