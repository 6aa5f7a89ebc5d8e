"""The random operations of the stateful campaign: how each is drawn, done, and what should come.

To add one: an entry in `OPERATIONS`. `draw` makes the arguments, of what JSON can say, from a
random number generator and nothing else, so that operations can be left out of a list of them.
`do` runs in the process that has the handle and returns what JSON can say. `expect` changes the
model and returns what `do` should, or a function that tells whether what it did is right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.reliability.store_model import Seen, View
from hashmem import MemoryStore
from hashmem.errors import RecordNotFound, StoreError
from hashmem.store import Records
from hashmem.store.repair import repair

__all__ = ["OPERATIONS", "POOL", "Box", "Operation", "World"]

POOL = [
    *(b"", b"a", b"b", b"\0", b"large " * 50, b"larger " * 3000),
    *(bytes([i]) * (7 * i) for i in range(2, 18)),
]
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
RELATIONS = ("imports", "calls")
COLUMNS = ("summary", "size")
KEYS = {"keyed": b"key"}  # of namespaces


class Box:
    """A handle in whatever process, and how it is opened."""

    def __init__(self, opening: Callable[..., MemoryStore]) -> None:
        self.opening = opening
        self.store = opening()
        self.digests = [self.store.digest(content) for content in POOL]
        self.places = {digest: i for i, digest in enumerate(self.digests)}
        self.contents = {content: i for i, content in enumerate(POOL)}
        self.held: Records | None = None

    def reopened(self, path: str) -> MemoryStore:
        """A store at another path, opened as this one is."""
        return self.opening(path)

    def named(self, chosen: list[int]) -> list[bytes]:
        return [self.digests[i] for i in chosen]

    def numbered(self, contents: Any) -> list[int]:
        """The places of contents: -1 where there is none, -2 for what nobody stored."""
        return [-1 if one is None else self.contents.get(one, -2) for one in contents]


class World:
    """What is committed to one namespace, for its actors to share."""

    def __init__(self, everything: list["World"]) -> None:
        self.committed = View()
        self.all = everything  # compacting is for all namespaces
        everything.append(self)


@dataclass(frozen=True)
class Operation:
    """One kind of operation, `weight` times as likely as one of weight 1."""

    weight: int
    draw: Callable[[Random], list[Any]]
    do: Callable[..., Any]  # of a Box and the arguments
    expect: Callable[..., Any]  # of World, Seen and the arguments
    refreshes: bool = False  # what others committed is taken in first


# ------------------------------------------------------------------------------------ drawing


def _place(random: Random) -> int:
    return random.randrange(len(POOL))


def _some(random: Random) -> list[int]:
    return [_place(random) for _ in range(random.randrange(7))]


def _pairs(random: Random) -> list[list[int]]:
    return [[_place(random), _place(random)] for _ in range(random.randrange(5))]


def _metadata(random: Random) -> dict[str, Any] | None:
    if random.random() < 0.4:
        return None
    values = [None, True, random.getrandbits(63), "text" * random.randrange(4), [1, [2]]]
    return {random.choice("abc"): random.choice(values) for _ in range(random.randrange(3))}


# ------------------------------------------------------------------------------------ records


def _do_put(box: Box, i: int, metadata: dict[str, Any] | None) -> bool:
    return box.store.put(POOL[i], metadata) == box.digests[i]


def _put(seen: Seen, i: int, metadata: dict[str, Any] | None) -> None:
    seen.put(i)
    if metadata is not None:
        seen.annotate(i, metadata)


def _expect_put(_: World, seen: Seen, i: int, metadata: dict[str, Any] | None) -> bool:
    _put(seen, i, metadata)
    return True


def _do_put_many(box: Box, chosen: list[int], maps: list[Any] | None) -> bool:
    found = box.store.put_many([POOL[i] for i in chosen], maps)
    return list(map(bytes, found)) == box.named(chosen)


def _draw_many(random: Random) -> list[Any]:
    chosen = _some(random)
    return [chosen, [_metadata(random) for _ in chosen] if random.random() < 0.5 else None]


def _expect_put_many(_: World, seen: Seen, chosen: list[int], maps: list[Any] | None) -> bool:
    for n, i in enumerate(chosen):
        _put(seen, i, maps[n] if maps else None)
    return True


def _do_delete(box: Box, chosen: list[int]) -> list[bool]:
    return [bool(one) for one in box.store.delete_many(box.named(chosen))]


def _expect_delete(_: World, seen: Seen, chosen: list[int]) -> list[bool]:
    stored = [i in seen.view.records and i not in chosen[:n] for n, i in enumerate(chosen)]
    for i in {i for i, was in zip(chosen, stored, strict=True) if was}:
        seen.store(i, False)
        seen.annotate(i, None)
        seen.change(partial(_strip, i))
    return stored


def _strip(i: int, view: View) -> None:
    view.successors.pop(i, None)
    view.edges = {edge for edge in view.edges if edge[0] != i}
    for rows in view.columns.values():
        rows.pop(i, None)


def _do_annotate(box: Box, i: int, metadata: dict[str, Any] | None) -> bool:
    try:
        box.store.set_metadata(box.digests[i], [metadata])
    except RecordNotFound:
        return False
    return True


def _expect_annotate(_: World, seen: Seen, i: int, metadata: dict[str, Any] | None) -> bool:
    if i not in seen.view.records:
        return False
    seen.annotate(i, metadata)
    return True


def _do_column(box: Box, chosen: list[int], name: str, value: int) -> bool:
    kept = [i for i in chosen if box.digests[i] in box.store]
    values = np.array([[value + n, n] for n in range(len(kept))], np.int16).reshape(-1, 2)
    box.store.write_column(name, box.named(kept), values)
    return True


def _expect_column(_: World, seen: Seen, chosen: list[int], name: str, value: int) -> bool:
    kept = [i for i in chosen if i in seen.view.records]
    rows = {i: [value + n, n] for n, i in enumerate(kept)}
    if kept:
        seen.change(lambda view: view.columns.setdefault(name, {}).update(rows))
    return True


# ------------------------------------------------------------------------------------ links


def _ends(box: Box, pairs: list[list[int]]) -> tuple[list[bytes], list[bytes]]:
    return box.named([pair[0] for pair in pairs]), box.named([pair[1] for pair in pairs])


def _expect_link(_: World, seen: Seen, pairs: list[list[int]]) -> None:
    if pairs:
        seen.change(lambda view: view.successors.update((a, b) for a, b in pairs))


def _expect_unlink(_: World, seen: Seen, chosen: list[int]) -> None:
    # only those linked now: a link that comes by catching up stays
    for i in set(chosen) & set(seen.view.successors):
        seen.change(partial(_unlink, i))


def _unlink(i: int, view: View) -> None:
    view.successors.pop(i, None)


def _expect_add_links(_: World, seen: Seen, pairs: list[list[int]], relation: str) -> None:
    if pairs:
        seen.change(lambda view: view.edges.update((a, relation, b) for a, b in pairs))


def _do_clear_links(box: Box, chosen: list[int]) -> None:
    # Of a digest that the handle does not know, edges that come by catching up stay.
    box.store.clear_links([d for d in box.named(chosen) if d in box.store])


def _expect_clear_links(_: World, seen: Seen, chosen: list[int]) -> None:
    def clear(view: View) -> None:
        view.edges = {edge for edge in view.edges if edge[0] not in known}

    known = set(chosen) & seen.view.records
    if known:
        seen.change(clear)


def _do_walk(box: Box, n: int) -> list[Any]:
    ends, found = box.store.hop(box.digests, n)
    hops = [
        box.places.get(bytes(end), -2) if there else -1
        for end, there in zip(ends, found, strict=True)
    ]
    edges = [
        [sorted(box.places.get(bytes(d), -2) for d in box.store.neighbours(one, 1, relation))
         for relation in RELATIONS]
        for one in box.digests[:8]
    ]  # fmt: skip
    return [hops, edges]


def _expect_walk(_: World, seen: Seen, n: int) -> list[Any]:
    hops = [seen.view.after(i, n) for i in range(len(POOL))]
    edges = [[seen.view.targets(i, relation) for relation in RELATIONS] for i in range(8)]
    return [hops, edges]


# ------------------------------------------------------------------------------------ commits


def _expect_commit(world: World, seen: Seen) -> None:
    world.committed = seen.commit(world.committed)


def _expect_compact(world: World, seen: Seen) -> None:
    world.committed = seen.commit(world.committed)
    for one in world.all:
        one.committed = one.committed.copy()  # others still see the one before
        one.committed.forget_unrecorded()
    seen.catch_up(world.committed)


def _do_sweep(box: Box, roots: list[int], succeeding: bool, relation: int) -> list[int]:
    box.store.commit()  # as sweeping does first; then the roots that are known here are all known
    box.store.refresh()
    known = [d for d in box.named(roots) if d in box.store]
    relations = RELATIONS[:relation] if relation < 2 else None
    there = set(box.store.statistics()["relations"])
    if relations is not None:
        relations = tuple(name for name in relations if name in there)
    gone = box.store.sweep(known, relations=relations, successors=succeeding)
    return sorted(box.places.get(bytes(d), -2) for d in gone)


def _expect_sweep(
    world: World, seen: Seen, roots: list[int], succeeding: bool, relation: int
) -> list[int]:
    world.committed = seen.commit(world.committed)
    seen.catch_up(world.committed)
    view = seen.view
    reached = {i for i in roots if i in view.records}
    followed = RELATIONS[:relation] if relation < 2 else RELATIONS
    ahead = list(reached)
    while ahead:
        i = ahead.pop()
        targets = {c for a, of, c in view.edges if a == i and of in followed}
        if succeeding and i in view.successors:
            targets.add(view.successors[i])
        ahead += targets - reached
        reached |= targets
    gone = sorted(view.records - reached)
    for i in gone:
        seen.store(i, False)
        seen.annotate(i, None)

    def strip(view: View) -> None:
        for i in set(range(len(POOL))) - reached:
            view.successors.pop(i, None)
        view.edges = {edge for edge in view.edges if edge[0] in reached}
        for rows in view.columns.values():
            for i in gone:
                rows.pop(i, None)

    seen.change(strip)
    world.committed = seen.commit(world.committed)
    return gone


def _do_erase(box: Box) -> bool:
    try:
        box.store.erase(timeout=0.0)
    except StoreError:  # others read what is to be overwritten: it is compacted all the same
        return True
    return True


def _expect_erase(world: World, seen: Seen) -> bool:
    _expect_compact(world, seen)
    return True


def _do_repair(box: Box) -> list[str]:
    box.store.commit()
    found = repair(str(box.store.path), keys=KEYS).damage
    box.store.refresh()
    return found


def _expect_repair(world: World, seen: Seen) -> list[str]:
    """Nothing is damaged, so it does what compacting does."""
    _expect_compact(world, seen)
    return []


# ------------------------------------------------------------------------------------ elsewhere


def _do_copy(box: Box) -> dict[str, Any]:
    box.store.commit()
    box.store.refresh()
    with TemporaryDirectory(dir=SCRATCH) as folder:
        box.store.copy_to(f"{folder}/copy")
        with box.reopened(f"{folder}/copy") as copy:
            return _contents(box, copy)


def _do_archive(box: Box) -> dict[str, Any]:
    box.store.commit()
    box.store.refresh()
    with TemporaryDirectory(dir=SCRATCH) as folder:
        with open(f"{folder}/archive", "wb") as file:
            box.store.export_to(file)
        with box.reopened(f"{folder}/imported") as other:
            for _ in range(2):  # the second time there is nothing to do
                with open(f"{folder}/archive", "rb") as file:
                    other.import_from(file)
            return _contents(box, other)


def _do_pickle(box: Box) -> dict[str, Any]:
    box.store.commit()
    box.store.refresh()
    try:
        kind, arguments = box.store.__reduce__()  # what pickling keeps, without it
    except TypeError:  # it has a key
        return _contents(box, box.store)
    other = kind(*arguments)
    try:
        return _contents(box, other)
    finally:
        other.close()


def _expect_elsewhere(world: World, seen: Seen) -> dict[str, Any]:
    world.committed = seen.commit(world.committed)
    seen.catch_up(world.committed)
    return _expect_check(world, seen)


def _do_reopen(box: Box) -> None:
    box.store.close()
    box.store = box.opening()


def _expect_reopen(world: World, seen: Seen) -> None:
    world.committed = seen.commit(world.committed)
    seen.catch_up(world.committed)


# ------------------------------------------------------------------------------------ reading


def _do_read(box: Box) -> list[int]:
    with box.store.get_many(box.digests) as records:
        found = box.numbered(records)
    box.store.commit()
    box.store.refresh()
    return found


def _expect_read(world: World, seen: Seen) -> Callable[[Any], bool]:
    """Reading may show what the handle knew, or, had it to catch up, what is committed since."""
    before = seen.view.records
    world.committed = seen.commit(world.committed)
    seen.catch_up(world.committed)
    now = seen.view.records

    def fits(found: list[int]) -> bool:
        return all(
            one in {i if i in before else -1, i if i in now else -1} for i, one in enumerate(found)
        )

    return fits


def _do_hold(box: Box) -> list[int]:
    if box.held is not None:
        box.held.close()
    box.held = box.store.get_many(box.digests)
    return box.numbered(box.held)


def _expect_hold(_: World, seen: Seen) -> list[int]:
    seen.held = [i if i in seen.view.records else -1 for i in range(len(POOL))]
    return seen.held


def _do_look(box: Box) -> list[int] | None:
    return None if box.held is None else box.numbered(box.held)


def _do_check(box: Box) -> dict[str, Any]:
    return _contents(box, box.store)


def _contents(box: Box, store: MemoryStore) -> dict[str, Any]:
    """All that a store holds of what `box` may have put."""
    with store.get_many(box.digests, verify=True) as records:
        contents, lengths = box.numbered(records), records.lengths.tolist()
    columns = {}
    for name in store.columns:
        digests, values = store.read_column(name)
        rows = zip((box.places[bytes(d)] for d in digests), values.tolist(), strict=True)
        columns[name] = [[i, row] for i, row in sorted(rows)]
    statistics = store.statistics()
    verification = store.verify()
    return {
        "contents": contents,
        "lengths": lengths,
        "contains": store.contains(box.digests).tolist(),
        "digests": sorted(box.places[bytes(digest)] for digest in store.digests()),
        "metadata": store.metadata_many(box.digests),
        "columns": {name: rows for name, rows in columns.items() if rows},
        "counts": [
            statistics[name] for name in ("records", "payload_bytes", "successors", "edges")
        ],
        "damage": verification.damage,
        "checked": verification.checked,
    }


def _expect_check(_: World, seen: Seen) -> dict[str, Any]:
    view, everything = seen.view, range(len(POOL))
    stored = [i in view.records for i in everything]
    columns = {
        name: [[i, row] for i, row in sorted(rows.items()) if i in view.records]
        for name, rows in view.columns.items()
    }
    sizes = [len(POOL[i]) for i in view.records]
    return {
        "contents": [i if i in view.records else -1 for i in everything],
        "lengths": [len(POOL[i]) if i in view.records else -1 for i in everything],
        "contains": stored,
        "digests": sorted(view.records),
        "metadata": [view.metadata.get(i) for i in everything],
        "columns": {name: rows for name, rows in columns.items() if rows},
        "counts": [len(sizes), sum(sizes), len(view.successors), len(view.edges)],
        "damage": [],
        "checked": len(seen.base.records),
    }


def _none(random: Random) -> list[Any]:
    return []


def _pass(*_: object) -> None:
    pass


OPERATIONS = {
    "put": Operation(20, lambda r: [_place(r), _metadata(r)], _do_put, _expect_put),
    "put_many": Operation(12, _draw_many, _do_put_many, _expect_put_many),
    "delete": Operation(9, lambda r: [_some(r)], _do_delete, _expect_delete),
    "set_metadata": Operation(
        6, lambda r: [_place(r), _metadata(r)], _do_annotate, _expect_annotate
    ),
    "write_column": Operation(
        7,
        lambda r: [_some(r), r.choice(COLUMNS), r.randrange(-99, 99)],
        _do_column,
        _expect_column,
    ),
    "link": Operation(
        10, lambda r: [_pairs(r)], lambda box, p: box.store.link_many(*_ends(box, p)), _expect_link
    ),
    "unlink": Operation(
        4, lambda r: [_some(r)], lambda box, c: box.store.unlink(box.named(c)), _expect_unlink
    ),
    "add_links": Operation(
        8,
        lambda r: [_pairs(r), r.choice(RELATIONS)],
        lambda box, p, relation: box.store.add_links(*_ends(box, p), relation),
        _expect_add_links,
    ),
    "clear_links": Operation(2, lambda r: [_some(r)], _do_clear_links, _expect_clear_links),
    "walk": Operation(3, lambda r: [r.randrange(1, 30)], _do_walk, _expect_walk, True),
    "commit": Operation(18, _none, lambda box: box.store.commit(), _expect_commit),
    "rollback": Operation(
        3, _none, lambda box: box.store.rollback(), lambda _, seen: seen.rollback()
    ),
    "refresh": Operation(6, _none, _pass, _pass, True),
    "compact": Operation(2, _none, lambda box: box.store.compact(), _expect_compact),
    "sweep": Operation(
        1,
        lambda r: [[_place(r) for _ in range(12)], r.random() < 0.8, r.randrange(4)],
        _do_sweep,
        _expect_sweep,
    ),
    "erase": Operation(1, _none, _do_erase, _expect_erase),
    "repair": Operation(1, _none, _do_repair, _expect_repair),
    "scrub": Operation(
        1,
        lambda r: [r.choice([None, 3, 0.5])],
        lambda box, sample: box.store.scrub(sample=sample).damage,
        lambda _, seen, sample: [],
        True,
    ),
    "copy_to": Operation(1, _none, _do_copy, _expect_elsewhere),
    "export and import": Operation(1, _none, _do_archive, _expect_elsewhere),
    "pickle": Operation(1, _none, _do_pickle, _expect_elsewhere),
    "reopen": Operation(2, _none, _do_reopen, _expect_reopen),
    "read": Operation(6, _none, _do_read, _expect_read),
    "hold": Operation(2, _none, _do_hold, _expect_hold, True),
    "look at held": Operation(3, _none, _do_look, lambda _, seen: seen.held),
    "check": Operation(7, _none, _do_check, _expect_check, True),
}
