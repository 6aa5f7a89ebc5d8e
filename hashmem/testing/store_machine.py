"""Random operations on a store and on dicts: `StoreMachine`, for any store addressed by content.

    class MyMachine(StoreMachine):
        def make(self):
            self.folder = tempfile.mkdtemp()
            return MyStore(self.folder)

        def reopened(self, store):
            store.close()
            return MyStore(self.folder)

    TestMyStore = MyMachine.TestCase

Contents are named by their place in `contents`, so a failure reads like ``put(which=1)``.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hashmem.testing.chains import walk
from hashmem.testing.steps import step_limit
from hashmem.testing.strategies import metadata
from hashmem.testing.table_machine import agree

__all__ = ["StoreMachine"]

# Few places in one list, so that the same come again; and any. Taken modulo their number.
place = st.integers(0, 3) | st.integers(0, 255)
some = st.lists(st.integers(0, 3), max_size=6) | st.lists(place, max_size=6)


@dataclass
class Model:
    """What a store holds, by place in `contents`."""

    records: set[int] = field(default_factory=set)
    metadata: dict[int, dict[str, Any]] = field(default_factory=dict)
    successors: dict[int, int] = field(default_factory=dict)

    @property
    def known(self) -> set[int]:
        """What is stored, or an end of a link."""
        return self.records | set(self.successors) | set(self.successors.values())


def can(*methods: str) -> Any:
    """A precondition: the store has all of `methods`."""
    return lambda machine: all(hasattr(machine.store, method) for method in methods)


class StoreMachine(RuleBasedStateMachine):
    """Random operations on a store and on dicts; everything is read and compared at each step.

    `make()` gives a new and empty store (called once more for a second one, which tells the
    digests). It needs only

    - ``put(content) -> bytes``: the digest, equal for equal contents alone;
    - ``get(digest) -> bytes | None``: the content, None where it is not stored.

    What else of `hashmem.MemoryStore` it has is used as well: `put_many`, `get_many`, `__len__`,
    `__contains__`, `metadata` (then `put` and `put_many` take it too), `delete`, `link`, `hop`,
    `trace`, `commit`, `rollback`, `compact`, `verify`, `close`. Where `reopened` is overridden,
    what was committed (without `commit`: all) must be there afterwards. A `hop` or `trace` that
    runs more than `max_steps` lines of Python fails as endless.
    """

    contents: ClassVar[Sequence[bytes]] = [
        b"", b"a", b"large " * 5000, b"b", b"\0", *[b"%d" % i * i for i in range(2, 9)],
    ]  # fmt: skip
    max_steps: ClassVar[int] = 100_000

    def make(self) -> Any:
        """Return a new and empty store."""
        raise NotImplementedError("override `make` with the store under test")

    def reopened(self, store: Any) -> Any:
        """Close `store` and return it opened again; left as it is, stores are not reopened."""
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        second = self.make()
        self.digests = [second.put(content) for content in self.contents]
        if hasattr(second, "close"):
            second.close()
        agree("digests: the number of distinct ones", len(set(self.digests)), len(self.contents))
        self.places = {digest: i for i, digest in enumerate(self.digests)}
        self.store = self.make()
        self.model, self.committed = Model(), Model()

    def teardown(self) -> None:
        if hasattr(self, "store") and hasattr(self.store, "close"):
            self.store.close()

    def chosen(self, numbers: list[int]) -> list[int]:
        return [number % len(self.contents) for number in numbers]

    # -- records ------------------------------------------------------------------------------

    @rule(which=place, given=st.none() | metadata())
    def put(self, which: int, given: dict[str, Any] | None) -> None:
        which = which % len(self.contents)
        if given is None or not hasattr(self.store, "metadata"):
            digest = self.store.put(self.contents[which])
        else:
            digest = self.store.put(self.contents[which], given)
            self.model.metadata[which] = given
        self.model.records.add(which)
        agree("put", digest, self.digests[which])

    @precondition(can("put_many"))
    @rule(numbers=some, given=st.none() | metadata())
    def put_many(self, numbers: list[int], given: dict[str, Any] | None) -> None:
        chosen = self.chosen(numbers)
        contents = [self.contents[i] for i in chosen]
        if given is None or not hasattr(self.store, "metadata"):
            digests = self.store.put_many(contents)
        else:
            maps = [{**given, "n": n} if n % 2 else None for n in range(len(chosen))]
            digests = self.store.put_many(contents, maps)
            for i, one in zip(chosen, maps, strict=True):
                if one is not None:
                    self.model.metadata[i] = one
        self.model.records.update(chosen)
        agree("put_many", list(map(bytes, digests)), [self.digests[i] for i in chosen])

    @precondition(can("delete"))
    @rule(which=place)
    def delete(self, which: int) -> None:
        which = which % len(self.contents)
        stored = which in self.model.records
        removed = self.store.delete(self.digests[which])
        if removed is not None:
            agree("delete", bool(removed), stored)
        if stored:
            self.model.records.remove(which)
            self.model.metadata.pop(which, None)
            self.model.successors.pop(which, None)

    @precondition(lambda machine: hasattr(machine.store, "delete") and machine.model.records)
    @rule(number=st.integers(0, 255))
    def delete_stored(self, number: int) -> None:
        stored = sorted(self.model.records)
        self.delete(stored[number % len(stored)])

    @precondition(can("get_many"))
    @rule(numbers=some)
    def get_many(self, numbers: list[int]) -> None:
        chosen = self.chosen(numbers)
        found = self.store.get_many([self.digests[i] for i in chosen])
        contents = [None if content is None else bytes(content) for content in found]
        expected = [self.contents[i] if i in self.model.records else None for i in chosen]
        agree("get_many", contents, expected)

    # -- links --------------------------------------------------------------------------------

    @precondition(can("link"))
    @rule(one=place, then=place)
    def link(self, one: int, then: int) -> None:
        one, then = self.chosen([one, then])
        self.store.link(self.digests[one], self.digests[then])
        self.model.successors[one] = then

    @precondition(can("link"))
    @rule(numbers=some)
    def link_each_to_the_next(self, numbers: list[int]) -> None:
        for one, then in pairwise(self.chosen(numbers)):
            self.link(one, then)

    @precondition(can("link", "hop"))
    @rule(numbers=some, n=st.integers(0, 30))
    def hop(self, numbers: list[int], n: int) -> None:
        self.check_hop([i for i in self.chosen(numbers) if n or i in self.model.known], n)

    @precondition(can("link", "trace"))
    @rule(which=place, limit=st.integers(0, 20))
    def trace(self, which: int, limit: int) -> None:
        which = which % len(self.contents)
        if which in self.model.known:
            self.check_trace(which, limit)

    def check_hop(self, starts: list[int], n: int) -> None:
        with step_limit(self.max_steps):
            ends, found = self.store.hop([self.digests[i] for i in starts], n)
        successors = [self.model.successors.get(i, -1) for i in range(len(self.contents))]
        expected = [walk(successors, i, n) for i in starts]
        asked = f"{n} hops from contents {starts}"
        agree(f"{asked}: found", np.asarray(found).tolist(), [end >= 0 for end in expected])
        places = [self.place_of(d) if e >= 0 else -1 for d, e in zip(ends, expected, strict=True)]
        agree(asked, places, expected)

    def check_trace(self, which: int, limit: int | None) -> None:
        with step_limit(self.max_steps):
            answer = [
                self.place_of(digest) for digest in self.store.trace(self.digests[which], limit)
            ]
        expected = [which]
        while limit is None or len(expected) <= limit:
            following = self.model.successors.get(expected[-1])
            if following is None or following in expected:
                break
            expected.append(following)
        agree(f"trace from content {which}", answer, expected)

    def place_of(self, digest: Any) -> int | None:
        """Which content has this digest, None where none has."""
        return self.places.get(bytes(digest))

    # -- what lasts ---------------------------------------------------------------------------

    @precondition(can("commit"))
    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.committed = deepcopy(self.model)

    @precondition(can("commit", "rollback"))
    @rule()
    def rollback(self) -> None:
        self.store.rollback()
        self.model = deepcopy(self.committed)

    @precondition(can("compact"))
    @rule()
    def compact(self) -> None:
        self.store.compact()
        self.committed = deepcopy(self.model)

    @precondition(lambda machine: type(machine).reopened is not StoreMachine.reopened)
    @rule()
    def reopen(self) -> None:
        """What is pending is committed first: whether closing does that is the store's affair."""
        if hasattr(self.store, "commit"):
            self.commit()
        self.store = self.reopened(self.store)

    # -- what is there ------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        model = self.model
        for i, digest in enumerate(self.digests):
            content = self.store.get(digest)
            stored = i in model.records
            agree(f"get of content {i}", content, self.contents[i] if stored else None)
            if hasattr(self.store, "__contains__"):
                agree(f"content {i} in store", digest in self.store, stored)
            if hasattr(self.store, "metadata"):
                agree(
                    f"metadata of content {i}", self.store.metadata(digest), model.metadata.get(i)
                )
        if hasattr(self.store, "__len__"):
            agree("len", len(self.store), len(model.records))
        if hasattr(self.store, "link") and hasattr(self.store, "hop"):
            for n in range(4):
                self.check_hop(sorted(model.known), n)
        if hasattr(self.store, "link") and hasattr(self.store, "trace"):
            for i in sorted(model.known):
                self.check_trace(i, None)
        if hasattr(self.store, "verify"):
            result = self.store.verify()
            agree("verify().ok", getattr(result, "ok", result), True)
