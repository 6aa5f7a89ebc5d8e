"""What the crash campaigns write to a store, and what must be in it afterwards.

A writer's work is a row of *steps*, each of them one commit, or a call that commits by itself.
A step follows from its seed, the writer, its number, its kind, and what that writer has made so far
(`Model`), so whoever knows these can tell what is in the store without having been told. Steps are
lists of calls that `MemoryStore` and `Model` both understand: one writes, the other takes note.

Steps of different writers touch different records and links, apart from some contents that both
put and none deletes: so the content of a store is the union of what its writers made.

To add a kind of step: a function from model and random numbers to calls, in `KINDS`, and in
`Model` the methods that it calls. A kind whose methods `MemoryStore` has not is left out.
"""

import hashlib
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hashmem import MemoryStore

Call = tuple[Any, ...]  # the name of a method, then its arguments
RELATIONS = ("cites", "near")
COLUMN = "summary"  # of 4 float32
MOST_RECORDS = 600  # of one writer; then half are deleted
MOST_BYTES = 6 << 20
HUBS = 40  # records that edges start from, at most: they are compared one by one


class Model:
    """What one writer has made, in dicts by digest. Its methods are those of `MemoryStore`."""

    def __init__(self, seed: str = "", writer: int = 0) -> None:
        self.seed, self.writer = seed, writer
        self.payloads: dict[bytes, bytes] = {}
        self.metadata: dict[bytes, dict[str, Any]] = {}
        self.column: dict[bytes, bytes] = {}
        self.successors: dict[bytes, bytes] = {}
        self.edges: dict[tuple[bytes, str], set[bytes]] = {}
        self.gone: dict[bytes, bytes] = {}  # contents deleted, which may come back
        self.nbytes = 0

    def copy(self) -> "Model":
        """Another one of the same content. O(records)."""
        other = Model(self.seed, self.writer)
        for name in ("payloads", "metadata", "column", "successors", "gone"):
            setattr(other, name, dict(getattr(self, name)))
        other.edges = {key: set(targets) for key, targets in self.edges.items()}
        other.nbytes = self.nbytes
        return other

    def __or__(self, other: "Model") -> "Model":
        union = self.copy()
        for name in ("payloads", "metadata", "column", "successors", "edges"):
            getattr(union, name).update(getattr(other, name))
        return union

    def __eq__(self, other: object) -> bool:
        names = ("payloads", "metadata", "column", "successors", "edges")
        return isinstance(other, Model) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    __hash__ = None  # type: ignore[assignment]

    def after(self, calls: Iterable[Call]) -> "Model":
        """A copy that has taken note of `calls`."""
        other = self.copy()
        for name, *arguments in calls:
            getattr(other, name)(*arguments)
        return other

    # -- the methods of a store -----------------------------------------------------------------

    def put_many(
        self, payloads: Sequence[bytes], metadata: Sequence[dict[str, Any] | None] | None = None
    ) -> None:
        for i, payload in enumerate(payloads):
            digest = digest_of(payload)
            if digest not in self.payloads:
                self.payloads[digest] = payload
                self.nbytes += len(payload)
            self.gone.pop(digest, None)
            given = metadata[i] if metadata is not None else None
            if given is not None:
                self.metadata[digest] = given

    def set_metadata(
        self, digests: Sequence[bytes], metadata: Sequence[dict[str, Any] | None]
    ) -> None:
        for digest, given in zip(digests, metadata, strict=True):
            self.metadata.pop(digest, None)
            if given is not None:
                self.metadata[digest] = given

    def write_column(self, name: str, digests: Sequence[bytes], values: np.ndarray) -> None:
        for digest, value in zip(digests, values, strict=True):
            self.column[digest] = value.tobytes()

    def link_many(self, sources: Sequence[bytes], targets: Sequence[bytes]) -> None:
        self.successors.update(zip(sources, targets, strict=True))

    def unlink(self, sources: Sequence[bytes]) -> None:
        for source in sources:
            self.successors.pop(source, None)

    def add_links(self, sources: Sequence[bytes], targets: Sequence[bytes], relation: str) -> None:
        for source, target in zip(sources, targets, strict=True):
            self.edges.setdefault((source, relation), set()).add(target)

    def clear_links(self, sources: Sequence[bytes]) -> None:
        for source in sources:
            for relation in RELATIONS:
                self.edges.pop((source, relation), None)

    def delete_many(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            payload = self.payloads.pop(digest)
            self.nbytes -= len(payload)
            self.metadata.pop(digest, None)
            if self.column.pop(digest, None) is None and len(payload) < 1000:
                self.gone[digest] = payload
            self.successors.pop(digest, None)
        self.clear_links(digests)

    def nothing(self, *arguments: object) -> None:
        """What changes how a store is kept, and not what is in it."""

    commit = compact = erase = repair = scrub = copied = nothing

    def sweep(self, roots: Sequence[bytes]) -> None:
        reached, ahead = set(roots), list(roots)
        while ahead:
            source = ahead.pop()
            targets = {self.successors[source]} if source in self.successors else set()
            for relation in RELATIONS:
                targets |= self.edges.get((source, relation), set())
            ahead += targets - reached
            reached |= targets
        self.delete_many([digest for digest in self.payloads if digest not in reached])
        self.unlink([source for source in list(self.successors) if source not in reached])
        self.clear_links([source for source, _ in list(self.edges) if source not in reached])


def digest_of(payload: bytes) -> bytes:
    """The address that a store without a key gives `payload`."""
    return hashlib.sha256(payload).digest()


# ----------------------------------------------------------------------------------------- steps


def _new(chance: random.Random, count: int, least: int, most: int) -> list[bytes]:
    """New contents: 8 random bytes and more, so that no two steps or writers make the same."""
    return [b"%d " % i + chance.randbytes(chance.randint(least, most)) for i in range(count)]


def _some(chance: random.Random, of: Iterable[bytes], most: int) -> list[bytes]:
    found = list(of)
    return chance.sample(found, min(len(found), chance.randint(0, most)))


def _described(chance: random.Random, count: int) -> list[dict[str, Any] | None]:
    return [
        {"n": chance.getrandbits(40), "from": "x" * chance.randint(0, 30)}
        if chance.random() < 0.5
        else None
        for _ in range(count)
    ]


def put_one(model: Model, chance: random.Random) -> list[Call]:
    """A commit of one record: such as these make small packs, which are merged."""
    payloads = _new(chance, 1, 8, 200)
    return [("put_many", payloads, _described(chance, 1))]


def put_small(model: Model, chance: random.Random) -> list[Call]:
    """New records, some that are there, some that were deleted, some of another writer."""
    payloads = _new(chance, chance.randint(1, 40), 8, 400)
    payloads += _some(chance, model.gone.values(), 3)
    payloads += [model.payloads[digest] for digest in _some(chance, model.payloads, 3)]
    chance.shuffle(payloads)
    return [("put_many", payloads, _described(chance, len(payloads)))]


def put_shared(model: Model, chance: random.Random) -> list[Call]:
    """Contents that other writers put too; without metadata, and nobody deletes them."""
    places = [chance.randrange(200) for _ in range(20)]
    return [("put_many", [b"shared %s %d" % (model.seed.encode(), i) for i in places])]


def put_large(model: Model, chance: random.Random) -> list[Call]:
    return [("put_many", _new(chance, chance.randint(1, 3), 30_000, 200_000))]


def put_huge(model: Model, chance: random.Random) -> list[Call]:
    """A record that is cut over two packs."""
    return [("put_many", _new(chance, 1, (4 << 20) + 1, (4 << 20) + 300_000))]


def grow(model: Model, chance: random.Random) -> list[Call]:
    """Enough to make the file grow by a MiB or two."""
    return [("put_many", _new(chance, chance.randint(200, 400), 2000, 6000))]


def describe(model: Model, chance: random.Random) -> list[Call]:
    chosen = _some(chance, _own(model), 20)
    return [("set_metadata", chosen, _described(chance, len(chosen)))]


def summarise(model: Model, chance: random.Random) -> list[Call]:
    chosen = _some(chance, _own(model), 30)
    numbers = np.frombuffer(chance.randbytes(16 * len(chosen)), np.uint32) % 1000
    return [("write_column", COLUMN, chosen, numbers.astype(np.float32).reshape(-1, 4))]


def link(model: Model, chance: random.Random) -> list[Call]:
    """Successors of records, some of which lead to a digest that is not stored."""
    chosen = _some(chance, _own(model), 40)
    targets = [*chosen[1:], chance.randbytes(32)][: len(chosen)]
    calls: list[Call] = [("link_many", chosen, targets)]
    if chance.random() < 0.3:
        calls.append(("unlink", _some(chance, model.successors, 10)))
    return calls


def relate(model: Model, chance: random.Random) -> list[Call]:
    """Edges of two relations from a few records; now and then all from one are taken away."""
    hubs = sorted({source for source, _ in model.edges})
    if len(hubs) > HUBS:
        return [("clear_links", _some(chance, hubs, 30))]
    sources = hubs[:10] + _some(chance, _own(model), 5)
    targets = _some(chance, _own(model), 30)
    calls: list[Call] = []
    for relation in RELATIONS:
        pairs = [(chance.choice(sources), target) for target in targets if sources]
        calls.append(("add_links", [a for a, _ in pairs], [b for _, b in pairs], relation))
    return calls


def delete(model: Model, chance: random.Random) -> list[Call]:
    own = _own(model)
    full = len(own) > MOST_RECORDS or model.nbytes > MOST_BYTES
    return [("delete_many", own[: len(own) // 2] if full else _some(chance, own, 25))]


def mixed(model: Model, chance: random.Random) -> list[Call]:
    """Several changes in one commit."""
    calls = delete(model, chance)
    made = model.after(calls)
    for kind in (put_small, link, summarise, relate):
        more = kind(made, chance)
        made = made.after(more)
        calls += more
    return calls


def compact(model: Model, chance: random.Random) -> list[Call]:
    return [("compact",)]


def sweep(model: Model, chance: random.Random) -> list[Call]:
    """Of all records some are roots; what none of them leads to goes."""
    roots = [digest for digest in model.payloads if chance.random() < 0.7]
    return [("sweep", roots)] if roots else []


def erase(model: Model, chance: random.Random) -> list[Call]:
    return [("erase",)]


def repair(model: Model, chance: random.Random) -> list[Call]:
    return [("repair",)]


def scrub(model: Model, chance: random.Random) -> list[Call]:
    return [("scrub",)]


def copy(model: Model, chance: random.Random) -> list[Call]:
    """A copy beside the store; one that a kill left behind goes first."""
    return [("copied", model.writer)]


def _own(model: Model) -> list[bytes]:
    """The digests of the records that no other writer has."""
    shared = b"shared %s " % model.seed.encode()
    return [digest for digest, held in model.payloads.items() if not held.startswith(shared)]


class Kind(NamedTuple):
    """How a step is made and how often; `needs` is the method without which it is left out.

    What concerns the records of all writers is only taken where one is `alone` with a store.
    """

    plan: Callable[[Model, random.Random], list[Call]]
    weight: int
    needs: str = "put_many"
    alone: bool = False


KINDS: dict[str, Kind] = {
    "put one": Kind(put_one, 30),
    "put small": Kind(put_small, 20),
    "put shared": Kind(put_shared, 4),
    "put large": Kind(put_large, 4),
    "put huge": Kind(put_huge, 1),
    "grow": Kind(grow, 2),
    "metadata": Kind(describe, 6, "set_metadata"),
    "column": Kind(summarise, 6, "write_column"),
    "link": Kind(link, 8, "link_many"),
    "edges": Kind(relate, 6, "add_links"),
    "delete": Kind(delete, 6, "delete_many"),
    "mixed": Kind(mixed, 6),
    "compact": Kind(compact, 6, "compact"),
    "sweep": Kind(sweep, 4, "sweep", alone=True),
    "erase": Kind(erase, 3, "erase"),
    "repair": Kind(repair, 3, "repair"),
    "scrub": Kind(scrub, 1, "scrub"),
    "copy": Kind(copy, 2, "copy_to"),
}


def kinds(alone: bool = True) -> list[str]:
    """The kinds of steps that `MemoryStore` can take, by a writer that is `alone` or not."""
    able = [name for name, kind in KINDS.items() if hasattr(MemoryStore, kind.needs)]
    return [name for name in able if alone or not KINDS[name].alone]


def choose(model: Model, chance: random.Random, among: Sequence[str]) -> str:
    """A kind for the next step; much is deleted where much is there."""
    if (len(model.payloads) > MOST_RECORDS or model.nbytes > MOST_BYTES) and "delete" in among:
        return "delete"
    return chance.choices(among, [KINDS[name].weight for name in among])[0]


def plan(model: Model, number: int, kind: str) -> list[Call]:
    """The calls of one step, the same whenever it is asked for."""
    chance = random.Random(f"{model.seed}/{model.writer}/{number}/{kind}")
    return KINDS[kind].plan(model, chance)


def take(store: MemoryStore, calls: Iterable[Call]) -> None:
    """Make the calls and commit."""
    for call in calls:
        make(store, call)
    store.commit()


def make(store: MemoryStore, call: Call) -> None:
    """Make one call, without a commit of its own."""
    name, *arguments = call
    if name == "copied":
        _copy(store, *arguments)
    else:
        getattr(store, name)(*arguments)


def _copy(store: MemoryStore, writer: int) -> None:
    """Copy the store to a place beside it, and see that the copy is whole."""
    folder = f"{store.path}-copy-{writer}"
    shutil.rmtree(folder, ignore_errors=True)
    store.commit()
    store.copy_to(folder)
    with MemoryStore(folder, readonly=True) as other:
        found = other.verify()
    if not found.ok:
        raise AssertionError(f"a copy is damaged: {found.damage[:5]}")
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------ comparison


def differences(store: MemoryStore, model: Model) -> list[str]:
    """What in `store` is not as `model` says, in words; empty where all is. Reads everything."""
    found: list[str] = []
    digests = list(model.payloads)
    stored = set(map(bytes, store.digests()))
    missing, more = set(digests) - stored, stored - set(digests)
    if missing:
        found.append(f"{len(missing)} of {len(digests)} records missing")
    if more:
        found.append(f"{len(more)} records too many")
    if len(store) != len(digests):
        found.append(f"len() tells {len(store)} records, not {len(digests)}")
    if not digests and not model.successors:
        return found
    queries = _array(digests)
    with store.get_many(queries) as records:
        wrong = sum(
            held is not None and held != model.payloads[digest]
            for digest, held in zip(digests, records, strict=True)
        )
    if wrong:
        found.append(f"{wrong} records have another content")
    metadata = store.metadata_many(queries)
    wrong = sum(
        held != model.metadata.get(digest) for digest, held in zip(digests, metadata, strict=True)
    )
    if wrong:
        found.append(f"{wrong} records have other metadata")
    if COLUMN in store.columns:
        of, values = store.read_column(COLUMN)
        held_column = dict(zip(map(bytes, of), map(bytes, values), strict=True))
    else:
        held_column = {}
    if held_column != model.column:
        found.append(f"the column has {len(held_column)} rows, or others, of {len(model.column)}")
    return found + _link_differences(store, model)


def _link_differences(store: MemoryStore, model: Model) -> list[str]:
    found = []
    known = list({**model.payloads, **model.successors, **dict.fromkeys(model.successors.values())})
    ends, there = store.hop(_array(known), 1)
    wrong = sum(
        (bytes(end) if is_there else None) != model.successors.get(digest)
        for digest, end, is_there in zip(known, ends, there, strict=True)
    )
    if wrong:
        found.append(f"{wrong} successors are others")
    for relation in RELATIONS:
        sources = {source for source, of in model.edges if of == relation}
        for source in sources:
            around = set(map(bytes, store.neighbours(source, 1, relation)))
            if around != model.edges[source, relation] - {source}:
                found.append(f"edges {relation!r} of one record are others")
        if _any_edge(store, [digest for digest in known if digest not in sources], relation):
            found.append(f"edges {relation!r} where there are none")
    return found


def _any_edge(store: MemoryStore, sources: Sequence[bytes], relation: str) -> bool:
    """Whether an edge leads from any of `sources` to another digest. O(sources · log).

    `neighbours` leaves its starts out. Two sources differ in a bit of their places, so an edge
    between them leads, for one bit, from those that have it to those that have not, or back.
    """
    for bit in range(max(1, (len(sources) - 1).bit_length())):
        for value in (0, 1):
            some = [digest for i, digest in enumerate(sources) if i >> bit & 1 == value]
            if some and len(store.neighbours(some, 1, relation)):
                return True
    return False


def _array(digests: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def checked(path: str, models: Sequence[Model]) -> dict[str, Any]:
    """Open the store at `path`, verify it, and tell which of `models` it holds.

    {"matched": its place, the first of several, or None, "problems": [what is wrong]}
    """
    problems: list[str] = []
    with MemoryStore(path) as store:
        verification = store.verify()
        if not verification.ok:
            problems.append(f"verify(): {verification.damage[:5]}")
        for place, model in enumerate(models):
            apart = differences(store, model)
            if not apart:
                return {"matched": place, "problems": problems}
            problems.append(f"against state {place}: {'; '.join(apart[:6])}")
    return {"matched": None, "problems": problems}
